//! Transactions: all or nothing, over partitions, groups, crashes and producers that come back.

use std::collections::BTreeMap;
use std::time::Duration;

use rdkafka::consumer::{Consumer, StreamConsumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{FutureProducer, Producer};
use rdkafka::{Offset, TopicPartitionList};

use crate::support::{Node, PATIENCE, on_thread, send, take, text};

/// A producer of transactions that has taken over its id.
async fn begin_as(node: &Node, transactional_id: &str) -> FutureProducer {
    let producer = with_timeout(node, transactional_id, "60000");
    on_thread(&producer, |producer| producer.init_transactions(PATIENCE))
        .await
        .expect("takes over its id");
    producer
}

fn with_timeout(node: &Node, transactional_id: &str, timeout_ms: &str) -> FutureProducer {
    node.client()
        .set("transactional.id", transactional_id)
        .set("transaction.timeout.ms", timeout_ms)
        .create()
        .expect("a producer")
}

async fn commit(producer: &FutureProducer) {
    on_thread(producer, |producer| producer.commit_transaction(PATIENCE))
        .await
        .expect("commits");
}

async fn abort(producer: &FutureProducer) {
    on_thread(producer, |producer| producer.abort_transaction(PATIENCE))
        .await
        .expect("aborts");
}

fn reader(node: &Node, topic: &str, isolation: &str) -> StreamConsumer {
    let consumer: StreamConsumer = node
        .client()
        .set("group.id", "reader")
        .set("enable.auto.commit", "false")
        .set("isolation.level", isolation)
        .set("auto.offset.reset", "error")
        .create()
        .expect("a consumer");
    let mut assignment = TopicPartitionList::new();
    assignment
        .add_partition_offset(topic, 0, Offset::Beginning)
        .expect("an assignment");
    consumer.assign(&assignment).expect("assigned");
    consumer
}

async fn values(node: &Node, topic: &str, isolation: &str, count: usize) -> Vec<String> {
    let records = take(&reader(node, topic, isolation), count).await;
    records
        .iter()
        .map(|record| text(record).to_owned())
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn committed_records_of_several_topics_are_seen_and_aborted_ones_are_not() {
    let node = Node::start().await;
    node.create("orders", 1).await;
    node.create("payments", 1).await;
    let producer = begin_as(&node, "t").await;
    for (verdict, value) in ["first", "dropped", "second"].into_iter().enumerate() {
        producer.begin_transaction().expect("begins");
        for topic in ["orders", "payments"] {
            send(&producer, topic, value).await;
        }
        match verdict {
            1 => abort(&producer).await,
            _ => commit(&producer).await,
        }
    }
    for topic in ["orders", "payments"] {
        let committed = values(&node, topic, "read_committed", 2).await;
        assert_eq!(committed, ["first", "second"]);
        let all = values(&node, topic, "read_uncommitted", 3).await;
        assert_eq!(all, ["first", "dropped", "second"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_open_transaction_holds_readers_of_committed_records_at_its_first() {
    let node = Node::start().await;
    node.create("orders", 1).await;
    let producer = begin_as(&node, "t").await;
    send(&node.producer(), "orders", "before").await;
    producer.begin_transaction().expect("begins");
    send(&producer, "orders", "open").await;
    send(&node.producer(), "orders", "behind").await;

    let reader = reader(&node, "orders", "read_committed");
    assert_eq!(text(&take(&reader, 1).await[0]), "before");
    let next = tokio::time::timeout(Duration::from_millis(300), reader.recv()).await;
    assert!(next.is_err(), "the transaction is open");
    commit(&producer).await;
    let rest = take(&reader, 2).await;
    assert_eq!([text(&rest[0]), text(&rest[1])], ["open", "behind"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_successor_aborts_what_was_open_and_fences_who_was_before() {
    let node = Node::start().await;
    node.create("orders", 1).await;
    let first = begin_as(&node, "t").await;
    first.begin_transaction().expect("begins");
    send(&first, "orders", "of the dead").await;

    let second = begin_as(&node, "t").await;
    second.begin_transaction().expect("begins");
    send(&second, "orders", "of the living").await;
    commit(&second).await;

    let late = on_thread(&first, |first| first.commit_transaction(PATIENCE)).await;
    let Err(KafkaError::Transaction(error)) = late else {
        panic!("a fenced producer cannot commit: {late:?}");
    };
    assert!(error.is_fatal(), "{error}");
    assert_eq!(error.code(), RDKafkaErrorCode::Fenced);
    assert_eq!(
        values(&node, "orders", "read_committed", 1).await,
        ["of the living"]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_that_takes_too_long_is_aborted() {
    let node = Node::start().await;
    node.create("orders", 1).await;
    let producer = with_timeout(&node, "t", "1000");
    on_thread(&producer, |producer| producer.init_transactions(PATIENCE))
        .await
        .expect("takes over its id");
    producer.begin_transaction().expect("begins");
    send(&producer, "orders", "late").await;
    send(&node.producer(), "orders", "behind").await;
    assert_eq!(
        values(&node, "orders", "read_committed", 1).await,
        ["behind"]
    );
    let late = on_thread(&producer, |producer| producer.commit_transaction(PATIENCE)).await;
    assert!(late.is_err(), "it was aborted");
}

#[tokio::test(flavor = "multi_thread")]
async fn offsets_count_when_their_transaction_commits() {
    let node = Node::start().await;
    node.create("orders", 1).await;
    for value in ["a", "b", "c"] {
        send(&node.producer(), "orders", value).await;
    }
    let consumer: StreamConsumer = node
        .client()
        .set("group.id", "workers")
        .set("enable.auto.commit", "false")
        .set("isolation.level", "read_committed")
        .set("auto.offset.reset", "earliest")
        .create()
        .expect("a consumer");
    consumer.subscribe(&["orders"]).expect("subscribes");
    take(&consumer, 2).await;

    let producer = begin_as(&node, "t").await;
    producer.begin_transaction().expect("begins");
    commit_offset(&producer, &consumer, 1).await;
    abort(&producer).await;
    assert_eq!(position(&consumer).await, Offset::Invalid);

    producer.begin_transaction().expect("begins");
    commit_offset(&producer, &consumer, 2).await;
    commit(&producer).await;
    assert_eq!(position(&consumer).await, Offset::Offset(2));
}

async fn commit_offset(producer: &FutureProducer, consumer: &StreamConsumer, offset: i64) {
    let mut offsets = TopicPartitionList::new();
    offsets
        .add_partition_offset("orders", 0, Offset::Offset(offset))
        .expect("an offset");
    let group = consumer.group_metadata().expect("a group");
    on_thread(producer, move |producer| {
        producer.send_offsets_to_transaction(&offsets, &group, PATIENCE)
    })
    .await
    .expect("sends offsets");
}

/// Waits as long as a transaction that may change it is open.
async fn position(consumer: &StreamConsumer) -> Offset {
    let mut asked = TopicPartitionList::new();
    asked.add_partition("orders", 0);
    let committed = consumer
        .committed_offsets(asked, PATIENCE)
        .expect("an answer");
    committed.elements()[0].offset()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_committed_and_aborted_is_known_after_a_restart() {
    let mut node = Node::start().await;
    node.create("orders", 1).await;
    let producer = begin_as(&node, "t").await;
    for round in 0..3 {
        producer.begin_transaction().expect("begins");
        send(&producer, "orders", &format!("kept {round}")).await;
        commit(&producer).await;
        producer.begin_transaction().expect("begins");
        send(&producer, "orders", &format!("dropped {round}")).await;
        abort(&producer).await;
    }
    producer.begin_transaction().expect("begins");
    send(&producer, "orders", "left open").await;
    drop(producer);
    node = node.restart().await;
    let successor = begin_as(&node, "t").await;
    successor.begin_transaction().expect("begins");
    send(&successor, "orders", "kept 3").await;
    commit(&successor).await;
    assert_eq!(
        values(&node, "orders", "read_committed", 4).await,
        ["kept 0", "kept 1", "kept 2", "kept 3"]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn many_producers_keep_their_transactions_apart() {
    let node = Node::start().await;
    node.create("orders", 1).await;
    let mut tasks = Vec::new();
    for number in 0..4 {
        let producer = begin_as(&node, &format!("t-{number}")).await;
        tasks.push(tokio::spawn(async move {
            for round in 0..10 {
                producer.begin_transaction().expect("begins");
                for _ in 0..3 {
                    send(&producer, "orders", &format!("{number}-{round}")).await;
                }
                match (number + round) % 3 {
                    0 => abort(&producer).await,
                    _ => commit(&producer).await,
                }
            }
        }));
    }
    for task in tasks {
        task.await.expect("no panic");
    }
    let kept = |number: i32| (0..10).filter(|round| (number + round) % 3 != 0).count();
    let expected: usize = (0..4).map(|number| 3 * kept(number)).sum();
    let mut counted = BTreeMap::new();
    for value in values(&node, "orders", "read_committed", expected).await {
        *counted.entry(value).or_insert(0) += 1;
    }
    for (value, count) in counted {
        let (number, round) = value.split_once('-').expect("two numbers");
        let sum: i32 =
            number.parse::<i32>().expect("a number") + round.parse::<i32>().expect("a number");
        assert_ne!(sum % 3, 0, "{value} was aborted");
        assert_eq!(count, 3);
    }
}
