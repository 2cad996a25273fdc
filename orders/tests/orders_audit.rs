//! What the audit says of books that were clean until somebody took an event from a topic, doubled a charge and changed
//! a row.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod system;

use std::time::Duration;

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::{Headers, Message, OwnedMessage};
use rdkafka::producer::{FutureProducer, FutureRecord};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use rusqlite::Connection;
use serde_json::Value;
use system::{PATIENCE, System, kill, on_postgres, until};

const TOPIC: &str = "order-events";
const ANSWER: Duration = Duration::from_secs(10);

#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_was_dropped_a_charge_that_was_doubled_and_a_row_that_was_changed_are_named()
{
    let mut system = System::on_a_broker().await;
    let mut services = Vec::new();
    for service in ["order", "product", "payment", "notification"] {
        let (process, url) = system.serve(service).await;
        match service {
            "order" => system.order = url,
            "product" => system.product = url,
            "notification" => system.notification = url,
            _ => {}
        }
        services.push(process);
    }
    system.put_product("cd-01", 10).await;
    let mut orders = Vec::new();
    for key in ["a", "b", "c"] {
        orders.push(system.place(key, "cd-01", 1).await);
    }
    for order in &orders {
        assert_eq!(system.final_order(order).await["status"], "CONFIRMED");
        system.told(order).await;
    }
    until(async || system.audit().await.0.then_some(())).await;
    for service in services {
        kill(service).await;
    }

    let dropped = Topic::on(&system.broker)
        .without("OrderPlaced", &orders[0])
        .await;
    assert_eq!(dropped, 1);
    let mut expected = vec![format!(
        "order {} is CONFIRMED, and order-events has no OrderPlaced of it",
        orders[0]
    )];
    if !on_postgres() {
        double_charge(&system, &orders[1]);
        expected.push(format!("order {} was charged 2 times", orders[1]));
        let products = Connection::open(system.data().join("product.db")).unwrap();
        let taken = "UPDATE products SET stock = stock - 1 WHERE product_id = 'cd-01'";
        products.execute_batch(taken).unwrap();
        expected.push("product cd-01 had 10 at start".to_owned());
    }
    let (clean, report) = system.audit().await;
    assert!(!clean);
    let said: Vec<_> = report["differences"].as_array().unwrap().iter().collect();
    for part in &expected {
        let named = |text: &&&Value| text.to_string().contains(part);
        assert_eq!(said.iter().filter(named).count(), 1, "{part}: {said:?}");
    }
    let of_third = said
        .iter()
        .filter(|text| text.to_string().contains(&orders[2]));
    assert_eq!(of_third.count(), 0, "{said:?}");
}

fn double_charge(system: &System, order: &str) {
    let ledger = Connection::open(system.data().join("gateway.db")).unwrap();
    let doubled = ledger.execute(
        "INSERT INTO charges (idempotency_key, reference, charge_id, amount_cents, outcome, asked, at)
         SELECT randomblob(16), reference, randomblob(16), amount_cents, outcome, asked, at FROM charges
         WHERE reference = ?1",
        [uuid::Uuid::parse_str(order).unwrap().as_bytes().as_slice()],
    );
    assert_eq!(doubled.unwrap(), 1);
}

/// A topic that is written anew.
struct Topic {
    config: ClientConfig,
    admin: AdminClient<DefaultClientContext>,
}

impl Topic {
    fn on(servers: &str) -> Self {
        let mut config = ClientConfig::new();
        config
            .set("bootstrap.servers", servers)
            .set("group.id", "nobody")
            .set("enable.auto.commit", "false")
            .set("enable.partition.eof", "true");
        let admin = config.create().unwrap();
        Self { config, admin }
    }

    /// Leaves one kind of event about one order out; answers how many there were.
    async fn without(&self, event_type: &str, order: &str) -> usize {
        let (partitions, records) = tokio::task::block_in_place(|| self.read());
        let options = AdminOptions::new();
        let deleted = self.admin.delete_topics(&[TOPIC], &options).await.unwrap();
        deleted
            .into_iter()
            .for_each(|deleted| drop(deleted.unwrap()));
        // A cluster takes a moment to forget a topic.
        until(async || {
            let topic = NewTopic::new(TOPIC, partitions, TopicReplication::Fixed(-1));
            let made = self.admin.create_topics([&topic], &options).await.unwrap();
            made.iter().all(Result::is_ok).then_some(())
        })
        .await;
        let producer: FutureProducer = self.config.create().unwrap();
        let mut dropped = 0;
        for record in records {
            if is(&record, event_type, order) {
                dropped += 1;
                continue;
            }
            let mut copy = FutureRecord::to(TOPIC)
                .partition(record.partition())
                .key(record.key().unwrap())
                .payload(record.payload().unwrap());
            copy.headers = record.headers().cloned();
            producer.send(copy, PATIENCE).await.unwrap();
        }
        dropped
    }

    fn read(&self) -> (i32, Vec<OwnedMessage>) {
        let consumer: BaseConsumer = self.config.create().unwrap();
        let metadata = consumer.fetch_metadata(Some(TOPIC), ANSWER).unwrap();
        let partitions = i32::try_from(metadata.topics()[0].partitions().len()).unwrap();
        let mut places = TopicPartitionList::new();
        for partition in 0..partitions {
            let added = places.add_partition_offset(TOPIC, partition, Offset::Beginning);
            added.unwrap();
        }
        consumer.assign(&places).unwrap();
        let (mut open, mut records) = (partitions, Vec::new());
        while open > 0 {
            match consumer.poll(ANSWER) {
                Some(Ok(record)) => records.push(record.detach()),
                Some(Err(KafkaError::PartitionEOF(_))) => open -= 1,
                Some(Err(_)) | None => {}
            }
        }
        (partitions, records)
    }
}

fn is(record: &OwnedMessage, event_type: &str, order: &str) -> bool {
    let headers = record.headers().unwrap();
    let of_type = headers
        .iter()
        .any(|header| header.key == "eventType" && header.value == Some(event_type.as_bytes()));
    of_type && record.key() == Some(order.as_bytes())
}
