//! Topics and configs by librdkafka's admin client.

use rdkafka::admin::{
    AdminOptions, AlterConfig, NewPartitions, NewTopic, ResourceSpecifier, TopicReplication,
};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::{Offset, TopicPartitionList};

use crate::support::{Node, PATIENCE, send, text};

async fn outcome(node: &Node, topic: NewTopic<'_>) -> Result<String, RDKafkaErrorCode> {
    let results = node
        .admin()
        .create_topics(&[topic], &AdminOptions::new())
        .await
        .expect("answered");
    results
        .into_iter()
        .next()
        .expect("one result")
        .map_err(|(_, code)| code)
}

#[tokio::test(flavor = "multi_thread")]
async fn topics_are_created_listed_and_deleted() {
    let node = Node::start().await;
    node.create("orders", 6).await;
    let consumer: BaseConsumer = node.client().create().expect("a consumer");
    let metadata = consumer.fetch_metadata(None, PATIENCE).expect("metadata");
    let orders = metadata
        .topics()
        .iter()
        .find(|topic| topic.name() == "orders")
        .expect("listed");
    assert_eq!(orders.partitions().len(), 6);
    assert!(orders.partitions().iter().all(|p| p.leader() == 1));
    assert_eq!(metadata.brokers().len(), 1);

    let admin = node.admin();
    let deleted = admin
        .delete_topics(&["orders", "never"], &AdminOptions::new())
        .await
        .expect("answered");
    assert_eq!(deleted[0], Ok("orders".to_owned()));
    assert_eq!(
        deleted[1],
        Err((
            "never".to_owned(),
            RDKafkaErrorCode::UnknownTopicOrPartition
        ))
    );
    let metadata = consumer.fetch_metadata(None, PATIENCE).expect("metadata");
    assert!(metadata.topics().iter().all(|t| t.name() != "orders"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_topic_begins_anew_when_it_is_created_again() {
    let node = Node::start().await;
    node.create("again", 1).await;
    send(&node.producer(), "again", "old").await;
    let admin = node.admin();
    let deleted = admin.delete_topics(&["again"], &AdminOptions::new()).await;
    deleted.expect("answered")[0].as_ref().expect("deleted");
    node.create("again", 1).await;
    assert_eq!(send(&node.producer(), "again", "new").await, 0);
    assert_eq!(text(&node.read("again", 0, 1).await[0]), "new");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_created_is_refused_with_its_reason() {
    let node = Node::start().await;
    node.create("taken", 1).await;
    let single = |name, partitions| NewTopic::new(name, partitions, TopicReplication::Fixed(1));
    let refused = [
        (single("taken", 1), RDKafkaErrorCode::TopicAlreadyExists),
        (single("bad name", 1), RDKafkaErrorCode::InvalidTopic),
        (single("..", 1), RDKafkaErrorCode::InvalidTopic),
        (
            NewTopic::new("replicated", 1, TopicReplication::Fixed(3)),
            RDKafkaErrorCode::InvalidReplicationFactor,
        ),
        (single("huge", 50_000), RDKafkaErrorCode::InvalidPartitions),
        (
            single("setting", 1).set("no.such.setting", "1"),
            RDKafkaErrorCode::InvalidConfig,
        ),
        (
            single("value", 1).set("retention.ms", "soon"),
            RDKafkaErrorCode::InvalidConfig,
        ),
        (
            single("__consumer_offsets", 1),
            RDKafkaErrorCode::InvalidTopic,
        ),
    ];
    for (topic, code) in refused {
        let name = topic.name;
        assert_eq!(outcome(&node, topic).await, Err(code), "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn validating_creates_nothing() {
    let node = Node::start().await;
    let topic = NewTopic::new("maybe", 1, TopicReplication::Fixed(1));
    let only = AdminOptions::new().validate_only(true);
    let results = node.admin().create_topics(&[topic], &only).await;
    assert_eq!(results.expect("answered")[0], Ok("maybe".to_owned()));
    let consumer: BaseConsumer = node.client().create().expect("a consumer");
    let metadata = consumer.fetch_metadata(None, PATIENCE).expect("metadata");
    assert!(
        metadata
            .topics()
            .iter()
            .all(|topic| topic.name() != "maybe")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_grows_and_never_shrinks() {
    let node = Node::start().await;
    node.create("grows", 2).await;
    send(&node.producer(), "grows", "kept").await;
    let admin = node.admin();
    let grown = admin
        .create_partitions(&[NewPartitions::new("grows", 5)], &AdminOptions::new())
        .await
        .expect("answered");
    assert_eq!(grown[0], Ok("grows".to_owned()));
    let shrunk = admin
        .create_partitions(&[NewPartitions::new("grows", 3)], &AdminOptions::new())
        .await
        .expect("answered");
    assert_eq!(
        shrunk[0],
        Err(("grows".to_owned(), RDKafkaErrorCode::InvalidPartitions))
    );
    assert_eq!(node.watermarks("grows", 0), (0, 1));
    assert_eq!(node.watermarks("grows", 4), (0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topics_configs_are_read_and_altered() {
    let node = Node::start().await;
    let topic = NewTopic::new("kept", 1, TopicReplication::Fixed(1)).set("retention.ms", "1000");
    outcome(&node, topic).await.expect("created");
    let admin = node.admin();
    let resource = ResourceSpecifier::Topic("kept");
    let describe = async || {
        let described = admin
            .describe_configs([&resource], &AdminOptions::new())
            .await;
        let described = described.expect("answered").remove(0).expect("described");
        let value = |name: &str| described.get(name).and_then(|entry| entry.value.clone());
        (value("retention.ms"), value("segment.bytes"))
    };
    let (retention, segment) = describe().await;
    assert_eq!(retention.as_deref(), Some("1000"));
    assert_eq!(segment.as_deref(), Some("134217728"));

    let altered = admin
        .alter_configs(
            &[AlterConfig::new(resource).set("segment.bytes", "1048576")],
            &AdminOptions::new(),
        )
        .await
        .expect("answered");
    altered[0].as_ref().expect("altered");
    let resource = ResourceSpecifier::Topic("kept");
    let described = admin
        .describe_configs([&resource], &AdminOptions::new())
        .await;
    let described = described.expect("answered").remove(0).expect("described");
    let value = |name: &str| described.get(name).and_then(|entry| entry.value.clone());
    assert_eq!(value("segment.bytes").as_deref(), Some("1048576"));
    // AlterConfigs replaces: what it does not name is reset.
    assert_eq!(value("retention.ms").as_deref(), Some("604800000"));

    // rdkafka drops the error of a single resource, so look at what did not happen.
    let refused = AlterConfig::new(resource).set("segment.bytes", "many");
    let _ = admin.alter_configs(&[refused], &AdminOptions::new()).await;
    let described = admin
        .describe_configs([&resource], &AdminOptions::new())
        .await;
    let described = described.expect("answered").remove(0).expect("described");
    let entry = described.get("segment.bytes").expect("known");
    assert_eq!(entry.value.as_deref(), Some("1048576"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_brokers_configs_can_be_read() {
    let node = Node::start().await;
    let described = node
        .admin()
        .describe_configs([&ResourceSpecifier::Broker(1)], &AdminOptions::new())
        .await
        .expect("answered")
        .remove(0)
        .expect("described");
    let entry = described.get("auto.create.topics.enable").expect("known");
    assert_eq!(entry.value.as_deref(), Some("false"));
    assert!(entry.is_read_only);
}

#[tokio::test(flavor = "multi_thread")]
async fn deleted_records_cannot_be_read() {
    let node = Node::start().await;
    node.create("trimmed", 1).await;
    let producer = node.producer();
    for number in 0..10 {
        send(&producer, "trimmed", &number.to_string()).await;
    }
    let mut before = TopicPartitionList::new();
    before
        .add_partition_offset("trimmed", 0, Offset::Offset(4))
        .expect("a wish");
    let deleted = node
        .admin()
        .delete_records(&before, &AdminOptions::new())
        .await;
    let deleted = deleted.expect("answered");
    assert_eq!(deleted.elements()[0].offset(), Offset::Offset(4));
    assert_eq!(node.watermarks("trimmed", 0), (4, 10));
    assert_eq!(text(&node.read("trimmed", 0, 1).await[0]), "4");
}
