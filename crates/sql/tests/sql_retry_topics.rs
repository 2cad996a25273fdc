//! What comes back by a retry topic is applied once, whichever of its copies is redelivered.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests")]

mod events;
#[path = "../../ackwell/tests/support/kafka.rs"]
mod kafka;

use std::time::Duration;

use ackwell::extract::{Attempt, Offset};
use ackwell::retry::topics;
use ackwell::{App, Failure, Listener};
use ackwell_sql::{Database, Tx, params};
use events::{ids, open};
use kafka::{Kafka, LIMIT};
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::producer::{FutureProducer, FutureRecord};
use rdkafka::topic_partition_list::{Offset as Position, TopicPartitionList};

const TOPIC: &str = "retried-once";
const GROUP: &str = "retrying";

/// Writes, and fails at its first attempt nevertheless.
async fn apply(
    Offset(offset): Offset,
    Attempt(attempt): Attempt,
    mut tx: Tx,
) -> Result<(), Failure> {
    tx.execute("INSERT INTO items (id) VALUES ($1)", params![offset])
        .await?;
    if attempt == 1 {
        return Err(Failure::transient("not yet"));
    }
    Ok(())
}

async fn until(what: &str, condition: impl AsyncFn() -> bool) {
    let met = async {
        while !condition().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let in_time = tokio::time::timeout(LIMIT, met).await;
    assert!(in_time.is_ok(), "waited too long for {what}");
}

fn app(kafka: &Kafka, db: &Database) -> App {
    let retry = topics([Duration::from_millis(200)]);
    App::new(kafka.config())
        .named(GROUP)
        .state(db.clone())
        .listener(Listener::on(TOPIC).retry(retry).handle(apply))
}

/// Has everything delivered again.
fn rewind(client: &ClientConfig) {
    let mut config = client.clone();
    let consumer: BaseConsumer = config.set("group.id", GROUP).create().unwrap();
    let mut list = TopicPartitionList::new();
    for topic in [TOPIC, &format!("{TOPIC}.retry.1")] {
        list.add_partition_offset(topic, 0, Position::Offset(0))
            .unwrap();
    }
    consumer.commit(&list, CommitMode::Sync).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_record_without_an_event_id_keeps_its_identity_over_retry_topics() {
    let kafka = Kafka::start().await;
    kafka.create_topic(TOPIC, 1).await;
    let folder = tempfile::tempdir().unwrap();
    let db = open(&folder).await;
    let mut client = ClientConfig::new();
    client.set("bootstrap.servers", &kafka.address);
    let producer: FutureProducer = client.create().unwrap();
    for _ in 0..3 {
        let record = FutureRecord::to(TOPIC).key("k").payload("v");
        producer.send(record, LIMIT).await.unwrap();
    }

    let running = app(&kafka, &db).start().await.unwrap();
    until("the retries", async || ids(&db).await == [0, 1, 2]).await;
    running.stop().await.unwrap();
    let before = db.counts().duplicates;

    tokio::task::block_in_place(|| rewind(&client));
    let running = app(&kafka, &db).start().await.unwrap();
    until("six duplicates", async || {
        db.counts().duplicates >= before + 6
    })
    .await;
    running.stop().await.unwrap();
    assert_eq!(ids(&db).await, [0, 1, 2]);
    assert_eq!(db.counts().duplicates, before + 6);
}
