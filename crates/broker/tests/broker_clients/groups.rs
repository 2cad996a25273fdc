//! Consumer groups as librdkafka lives them.

use rdkafka::admin::AdminOptions;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer, StreamConsumer};
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::message::Message;
use rdkafka::{Offset, TopicPartitionList};

use crate::support::{Node, PATIENCE, send, take, text};

fn member(node: &Node, group: &str, topic: &str) -> StreamConsumer {
    let consumer: StreamConsumer = node
        .client()
        .set("group.id", group)
        .set("enable.auto.commit", "false")
        .set("auto.offset.reset", "earliest")
        .create()
        .expect("a consumer");
    consumer.subscribe(&[topic]).expect("subscribed");
    consumer
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_goes_on_where_it_committed_also_after_a_restart() {
    let node = Node::start().await;
    node.create("orders", 1).await;
    let producer = node.producer();
    for value in ["a", "b", "c"] {
        send(&producer, "orders", value).await;
    }
    let consumer = member(&node, "service", "orders");
    let records = take(&consumer, 2).await;
    let mut position = TopicPartitionList::new();
    position
        .add_partition_offset("orders", 0, Offset::Offset(records[1].offset() + 1))
        .expect("a position");
    position
        .set_partition_offset("orders", 0, Offset::Offset(2))
        .expect("a position");
    consumer
        .commit(&position, CommitMode::Sync)
        .expect("committed");
    drop((consumer, producer));

    let node = node.restart().await;
    let consumer = member(&node, "service", "orders");
    assert_eq!(text(&take(&consumer, 1).await[0]), "c");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_members_share_the_partitions_and_one_takes_over_when_the_other_leaves() {
    let node = Node::start().await;
    node.create("shared", 4).await;
    let first = member(&node, "pair", "shared");
    let second = member(&node, "pair", "shared");
    let owned = |consumer: &StreamConsumer| consumer.assignment().expect("assigned").count();
    // Polling drives the protocol; there are no records.
    let poll = async |until: &dyn Fn() -> bool| {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        while !until() {
            assert!(
                tokio::time::Instant::now() < deadline,
                "no rebalance in time"
            );
            tokio::select! {
                _ = first.recv() => {}
                _ = second.recv() => {}
                () = tokio::time::sleep(std::time::Duration::from_millis(20)) => {}
            }
        }
    };
    poll(&|| owned(&first) == 2 && owned(&second) == 2).await;
    second.unsubscribe();
    poll(&|| owned(&first) == 4).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn commit_metadata_comes_back_byte_for_byte() {
    let node = Node::start().await;
    node.create("orders", 1).await;
    let consumer: BaseConsumer = node
        .client()
        .set("group.id", "noted")
        .create()
        .expect("a consumer");
    let mut position = TopicPartitionList::new();
    {
        let mut element = position.add_partition("orders", 0);
        element.set_offset(Offset::Offset(7)).expect("an offset");
        element.set_metadata("1-3,5 \u{fc}");
    }
    consumer
        .commit(&position, CommitMode::Sync)
        .expect("committed");
    let mut wanted = TopicPartitionList::new();
    wanted.add_partition("orders", 0);
    let committed = consumer
        .committed_offsets(wanted, PATIENCE)
        .expect("answered");
    let committed = committed.elements();
    assert_eq!(committed[0].offset(), Offset::Offset(7));
    assert_eq!(committed[0].metadata(), "1-3,5 \u{fc}");
}

#[tokio::test(flavor = "multi_thread")]
async fn groups_are_listed_and_deleted() {
    let node = Node::start().await;
    node.create("orders", 1).await;
    send(&node.producer(), "orders", "a").await;
    let consumer = member(&node, "living", "orders");
    take(&consumer, 1).await;
    let groups = consumer.fetch_group_list(None, PATIENCE).expect("listed");
    let living = groups
        .groups()
        .iter()
        .find(|group| group.name() == "living")
        .expect("listed");
    assert_eq!(living.state(), "Stable");
    assert_eq!(living.members().len(), 1);

    let admin = node.admin();
    let deleted = admin.delete_groups(&["living"], &AdminOptions::new()).await;
    assert_eq!(
        deleted.expect("answered")[0],
        Err(("living".to_owned(), RDKafkaErrorCode::NonEmptyGroup))
    );
    drop(consumer);
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        let deleted = admin.delete_groups(&["living"], &AdminOptions::new()).await;
        match &deleted.expect("answered")[0] {
            Ok(_) => break,
            Err((_, code)) => assert_eq!(*code, RDKafkaErrorCode::NonEmptyGroup),
        }
        assert!(
            tokio::time::Instant::now() < deadline,
            "the member did not leave"
        );
    }
}
