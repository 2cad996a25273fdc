//! Who may do what: librdkafka's users meet the rules.

use std::time::{Duration, Instant};

use ackwell_broker::{Access, Mechanism, Right, Rule, User};
use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::offset_commit_request::{
    OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use kafka_protocol::messages::offset_fetch_request::OffsetFetchRequestTopic;
use kafka_protocol::messages::{
    ApiKey, DeleteGroupsRequest, DeleteGroupsResponse, DescribeGroupsRequest,
    DescribeGroupsResponse, InitProducerIdRequest, InitProducerIdResponse, ListGroupsRequest,
    ListGroupsResponse, MetadataRequest, MetadataResponse, OffsetCommitRequest,
    OffsetCommitResponse, OffsetFetchRequest, OffsetFetchResponse, TopicName,
};
use kafka_protocol::protocol::StrBytes;
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::Message;
use rdkafka::producer::{BaseProducer, BaseRecord, FutureProducer, FutureRecord, Producer};
use tokio::net::TcpStream;

use crate::client::{Client, PATIENCE};
use crate::{Node, asking};

/// `orders` reads and writes `orders*` as a member of `orders`; `audit` only reads it; `admin` may
/// do everything.
async fn ruled() -> Node {
    Node::start(|config| {
        config.listeners = vec![asking(&[Mechanism::Plain])];
        config.users.push(User::new("admin", "adm1n"));
        let mut access = Access::ruled();
        access.super_users = vec!["admin".to_owned()];
        let mut orders = Rule::new("orders", [Right::Read, Right::Write]);
        orders.topics = vec!["orders*".to_owned()];
        orders.groups = vec!["orders".to_owned()];
        orders.transactional_ids = vec!["orders-*".to_owned()];
        let mut audit = Rule::new("audit", [Right::Read]);
        audit.topics = vec!["orders".to_owned()];
        access.rules = vec![orders, audit];
        config.access = access;
    })
    .await
}

fn password(user: &str) -> &'static str {
    match user {
        "orders" => "s3cret",
        "audit" => "w0rd",
        _ => "adm1n",
    }
}

fn librdkafka(node: &Node, user: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", node.address("asking").to_string())
        .set("security.protocol", "sasl_plaintext")
        .set("sasl.mechanism", "PLAIN")
        .set("sasl.username", user)
        .set("sasl.password", password(user))
        .set("topic.metadata.propagation.max.ms", "500");
    config
}

async fn create(node: &Node, user: &str, topic: &str) -> Result<(), RDKafkaErrorCode> {
    let admin: AdminClient<DefaultClientContext> = librdkafka(node, user).create().unwrap();
    let topic = NewTopic::new(topic, 1, TopicReplication::Fixed(1));
    let results = admin.create_topics(&[topic], &AdminOptions::new()).await;
    results
        .unwrap()
        .remove(0)
        .map(|_| ())
        .map_err(|(_, code)| code)
}

async fn produce(node: &Node, user: &str, topic: &str) -> Result<(), Option<RDKafkaErrorCode>> {
    let producer: FutureProducer = librdkafka(node, user).create().unwrap();
    let record: FutureRecord<'_, str, str> = FutureRecord::to(topic).payload("x");
    let sent = producer.send(record, PATIENCE).await;
    sent.map(|_| ())
        .map_err(|(error, _)| error.rdkafka_error_code())
}

/// What comes first: a record or an error.
fn consume(node: &Node, user: &str, group: &str, topic: &str) -> Result<(), RDKafkaErrorCode> {
    let consumer: BaseConsumer = librdkafka(node, user)
        .set("group.id", group)
        .set("auto.offset.reset", "earliest")
        .create()
        .unwrap();
    consumer.subscribe(&[topic]).unwrap();
    let until = Instant::now() + PATIENCE;
    let first = loop {
        // A poll also returns for what is not told here, a rebalance for instance.
        if let Some(first) = consumer.poll(Duration::from_millis(100)) {
            break first;
        }
        assert!(Instant::now() < until, "in time");
    };
    match first {
        Ok(record) => {
            assert_eq!(record.payload(), Some(&b"x"[..]));
            Ok(())
        }
        Err(KafkaError::MessageConsumption(code)) => Err(code),
        Err(other) => panic!("{other}"),
    }
}

async fn client(node: &Node, user: &str) -> Client<TcpStream> {
    let mut client = Client::plain(node.address("asking")).await;
    let answer = client.log_in(Mechanism::Plain, user, password(user)).await;
    assert_eq!(answer.unwrap().error_code, 0);
    client
}

fn name(topic: &str) -> TopicName {
    StrBytes::from_string(topic.to_owned()).into()
}

#[tokio::test(flavor = "multi_thread")]
async fn users_may_what_a_rule_allows_and_nothing_else() {
    let node = ruled().await;
    let refused = RDKafkaErrorCode::TopicAuthorizationFailed;
    assert_eq!(create(&node, "orders", "orders").await, Err(refused));
    create(&node, "admin", "orders").await.unwrap();
    create(&node, "admin", "other").await.unwrap();

    produce(&node, "orders", "orders").await.unwrap();
    assert_eq!(produce(&node, "orders", "other").await, Err(Some(refused)));
    assert_eq!(produce(&node, "audit", "orders").await, Err(Some(refused)));

    tokio::task::block_in_place(|| {
        consume(&node, "orders", "orders", "orders").unwrap();
        let of_group = RDKafkaErrorCode::GroupAuthorizationFailed;
        assert_eq!(consume(&node, "orders", "others", "orders"), Err(of_group));
        assert_eq!(consume(&node, "audit", "orders", "orders"), Err(of_group));
        assert_eq!(consume(&node, "orders", "orders", "other"), Err(refused));
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn what_may_not_be_seen_is_left_out_of_lists_and_refused_by_name() {
    let node = ruled().await;
    create(&node, "admin", "orders").await.unwrap();
    create(&node, "admin", "secret").await.unwrap();
    let mut client = client(&node, "audit").await;
    let all = MetadataRequest::default().with_topics(None);
    let told: MetadataResponse = client.call(ApiKey::Metadata, 12, &all).await.unwrap();
    let names: Vec<_> = told.topics.iter().map(|topic| topic.name.clone()).collect();
    assert_eq!(names, [Some(name("orders"))]);

    let asked = ["secret", "missing", "orders"]
        .map(|topic| MetadataRequestTopic::default().with_name(Some(name(topic))));
    let named = MetadataRequest::default().with_topics(Some(asked.to_vec()));
    let told: MetadataResponse = client.call(ApiKey::Metadata, 12, &named).await.unwrap();
    let codes: Vec<_> = told.topics.iter().map(|topic| topic.error_code).collect();
    // Whether it exists is not told.
    let refused = ResponseError::TopicAuthorizationFailed.code();
    assert_eq!(codes, [refused, refused, 0]);
    assert!(told.topics[0].partitions.is_empty());
}

#[tokio::test]
async fn in_one_commit_some_topics_may_be_refused() {
    let node = ruled().await;
    create(&node, "admin", "orders").await.unwrap();
    create(&node, "admin", "other").await.unwrap();
    let mut client = client(&node, "orders").await;
    let commit = |group: &str| {
        let topics = ["orders", "other"].map(|topic| {
            let partition = OffsetCommitRequestPartition::default().with_committed_offset(7);
            OffsetCommitRequestTopic::default()
                .with_name(name(topic))
                .with_partitions(vec![partition])
        });
        OffsetCommitRequest::default()
            .with_group_id(StrBytes::from_string(group.to_owned()).into())
            .with_generation_id_or_member_epoch(-1)
            .with_topics(topics.to_vec())
    };
    let codes = |answer: OffsetCommitResponse| {
        let mut codes: Vec<_> = answer
            .topics
            .iter()
            .map(|topic| (topic.name.to_string(), topic.partitions[0].error_code))
            .collect();
        codes.sort();
        codes
    };
    let of_topic = ResponseError::TopicAuthorizationFailed.code();
    let answer = client
        .call(ApiKey::OffsetCommit, 8, &commit("orders"))
        .await;
    let expected = [("orders".to_owned(), 0), ("other".to_owned(), of_topic)];
    assert_eq!(codes(answer.unwrap()), expected);

    let of_group = ResponseError::GroupAuthorizationFailed.code();
    let answer = client
        .call(ApiKey::OffsetCommit, 8, &commit("others"))
        .await;
    let expected = [
        ("orders".to_owned(), of_group),
        ("other".to_owned(), of_group),
    ];
    assert_eq!(codes(answer.unwrap()), expected);

    let fetch = OffsetFetchRequest::default()
        .with_group_id(StrBytes::from_static_str("orders").into())
        .with_topics(Some(
            ["orders", "other"]
                .map(|topic| {
                    OffsetFetchRequestTopic::default()
                        .with_name(name(topic))
                        .with_partition_indexes(vec![0])
                })
                .to_vec(),
        ));
    let told: OffsetFetchResponse = client.call(ApiKey::OffsetFetch, 7, &fetch).await.unwrap();
    let offsets: Vec<_> = told
        .topics
        .iter()
        .map(|topic| {
            let partition = &topic.partitions[0];
            (partition.committed_offset, partition.error_code)
        })
        .collect();
    assert_eq!(offsets, [(7, 0), (-1, of_topic)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn groups_are_seen_and_deleted_by_who_may() {
    let node = ruled().await;
    create(&node, "admin", "orders").await.unwrap();
    produce(&node, "orders", "orders").await.unwrap();
    tokio::task::block_in_place(|| consume(&node, "orders", "orders", "orders")).unwrap();
    let group = || StrBytes::from_static_str("orders").into();
    let refused = ResponseError::GroupAuthorizationFailed.code();
    for (user, seen) in [("orders", true), ("audit", false), ("admin", true)] {
        let mut client = client(&node, user).await;
        let all = ListGroupsRequest::default();
        let told: ListGroupsResponse = client.call(ApiKey::ListGroups, 4, &all).await.unwrap();
        assert_eq!(told.groups.len() == 1, seen, "{user}");
        let one = DescribeGroupsRequest::default().with_groups(vec![group()]);
        let told: DescribeGroupsResponse =
            client.call(ApiKey::DescribeGroups, 5, &one).await.unwrap();
        assert_eq!(told.groups[0].error_code == refused, !seen, "{user}");
        let one = DeleteGroupsRequest::default().with_groups_names(vec![group()]);
        let told: DeleteGroupsResponse = client.call(ApiKey::DeleteGroups, 2, &one).await.unwrap();
        assert_eq!(
            told.results[0].error_code == refused,
            user != "admin",
            "{user}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_needs_its_id_and_its_topics() {
    let node = ruled().await;
    create(&node, "admin", "orders").await.unwrap();
    create(&node, "admin", "other").await.unwrap();
    let transaction = |id: &str, topic: &str| -> Result<(), KafkaError> {
        let producer: BaseProducer = librdkafka(&node, "orders")
            .set("transactional.id", id)
            .create()?;
        producer.init_transactions(PATIENCE)?;
        producer.begin_transaction()?;
        let record: BaseRecord<'_, str, str> = BaseRecord::to(topic).payload("x");
        producer.send(record).map_err(|(error, _)| error)?;
        producer.commit_transaction(PATIENCE)
    };
    tokio::task::block_in_place(|| {
        transaction("orders-1", "orders").unwrap();
        let refused = transaction("other", "orders").unwrap_err();
        let of_id = RDKafkaErrorCode::TransactionalIdAuthorizationFailed;
        assert_eq!(refused.rdkafka_error_code(), Some(of_id));
        transaction("orders-2", "other").unwrap_err();
    });
}

#[tokio::test]
async fn an_idempotent_producer_needs_a_topic_to_write_to() {
    let node = ruled().await;
    for (user, right) in [("orders", true), ("audit", false), ("admin", true)] {
        let mut client = client(&node, user).await;
        let wanted = InitProducerIdRequest::default().with_transactional_id(None);
        let told: InitProducerIdResponse = client
            .call(ApiKey::InitProducerId, 4, &wanted)
            .await
            .unwrap();
        assert_eq!(told.error_code == 0, right, "{user}");
    }
}

#[tokio::test]
async fn who_was_not_asked_may_what_anonymous_may() {
    let node = Node::start(|config| {
        config.listeners = vec![ackwell_broker::Listener::new("open", "127.0.0.1:0")];
        config.access = Access::ruled();
        let mut anybody = Rule::for_anonymous([Right::Admin]);
        anybody.topics = vec!["open*".to_owned()];
        config.access.rules = vec![anybody];
    })
    .await;
    let admin: AdminClient<DefaultClientContext> = ClientConfig::new()
        .set("bootstrap.servers", node.address("open").to_string())
        .create()
        .unwrap();
    let topics = ["open1", "closed"].map(|name| NewTopic::new(name, 1, TopicReplication::Fixed(1)));
    let options = AdminOptions::new().operation_timeout(Some(Duration::from_secs(5)));
    let results = admin.create_topics(&topics, &options).await.unwrap();
    assert!(results[0].is_ok());
    assert_eq!(
        results[1].as_ref().unwrap_err().1,
        RDKafkaErrorCode::TopicAuthorizationFailed
    );
}
