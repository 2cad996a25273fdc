//! Records in and out.

use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, Message, OwnedHeaders};
use rdkafka::producer::{FutureProducer, FutureRecord, Producer};
use rdkafka::{Offset, TopicPartitionList};

use crate::support::{Node, PATIENCE, headers, send, take, text};

#[tokio::test(flavor = "multi_thread")]
async fn keys_values_headers_and_timestamps_come_back_as_they_were_sent() {
    let node = Node::start().await;
    node.create("orders", 1).await;
    let sent = OwnedHeaders::new()
        .insert(Header {
            key: "eventId",
            value: Some("one"),
        })
        .insert(Header {
            key: "eventId",
            value: Some("the same name again"),
        })
        .insert(Header::<&str> {
            key: "null",
            value: None,
        });
    let record = FutureRecord::to("orders")
        .key("key")
        .payload("value")
        .timestamp(1_700_000_000_123)
        .headers(sent);
    node.producer().send(record, PATIENCE).await.expect("sent");

    let records = node.read("orders", 0, 1).await;
    assert_eq!(records[0].key(), Some(&b"key"[..]));
    assert_eq!(text(&records[0]), "value");
    assert_eq!(records[0].timestamp().to_millis(), Some(1_700_000_000_123));
    assert_eq!(
        headers(&records[0]),
        [
            ("eventId".to_owned(), Some(b"one".to_vec())),
            ("eventId".to_owned(), Some(b"the same name again".to_vec())),
            ("null".to_owned(), None),
        ]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn tombstones_and_empty_values_are_told_apart() {
    let node = Node::start().await;
    node.create("state", 1).await;
    let producer = node.producer();
    let tombstone: FutureRecord<'_, str, str> = FutureRecord::to("state").key("k");
    producer.send(tombstone, PATIENCE).await.expect("sent");
    let empty = FutureRecord::to("state").key("").payload("");
    producer.send(empty, PATIENCE).await.expect("sent");

    let records = node.read("state", 0, 2).await;
    assert_eq!(records[0].payload(), None);
    assert_eq!(records[1].payload(), Some(&b""[..]));
    assert_eq!(records[1].key(), Some(&b""[..]));
}

#[tokio::test(flavor = "multi_thread")]
async fn every_compression_of_the_client_passes_through() {
    let node = Node::start().await;
    for codec in ["none", "gzip", "snappy", "lz4", "zstd"] {
        node.create(codec, 1).await;
        let producer: FutureProducer = node
            .client()
            .set("compression.type", codec)
            .set("linger.ms", "50")
            .create()
            .expect("a producer");
        let value = "compressible ".repeat(100);
        let sends = (0..50).map(|_| {
            let record: FutureRecord<'_, str, str> = FutureRecord::to(codec).payload(&value);
            producer.send(record, PATIENCE)
        });
        for sent in futures_util::future::join_all(sends).await {
            sent.expect("sent");
        }
        let records = node.read(codec, 0, 50).await;
        assert!(
            records.iter().all(|record| text(record) == value),
            "{codec}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn pipelined_records_keep_their_order_in_every_partition() {
    let node = Node::start().await;
    node.create("ordered", 3).await;
    let producer = node.producer();
    let sends = (0..3000).map(|number: i32| {
        let (producer, value) = (&producer, number.to_string());
        async move {
            let record: FutureRecord<'_, str, str> = FutureRecord::to("ordered")
                .partition(number % 3)
                .payload(&value);
            producer.send(record, PATIENCE).await
        }
    });
    for sent in futures_util::future::join_all(sends).await {
        sent.expect("sent");
    }
    for partition in 0..3 {
        let records = node.read("ordered", partition, 1000).await;
        for (offset, record) in (0i64..).zip(&records) {
            assert_eq!(record.offset(), offset);
            assert_eq!(
                text(record),
                (offset * 3 + i64::from(partition)).to_string()
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_waiting_fetch_gets_a_record_when_it_is_produced() {
    let node = Node::start_with(|config| config.limits.fetch_wait_max = PATIENCE).await;
    node.create("waiting", 1).await;
    let consumer: rdkafka::consumer::StreamConsumer = node
        .client()
        .set("group.id", "waiter")
        .set("fetch.wait.max.ms", "20000")
        .set("socket.timeout.ms", "30000")
        .create()
        .expect("a consumer");
    let mut assignment = TopicPartitionList::new();
    assignment
        .add_partition_offset("waiting", 0, Offset::Beginning)
        .expect("an assignment");
    consumer.assign(&assignment).expect("assigned");
    let producer = node.producer();
    send(&producer, "waiting", "first").await;
    assert_eq!(text(&take(&consumer, 1).await[0]), "first");

    // The consumer now waits at the end, for longer than this test may take.
    let begun = std::time::Instant::now();
    send(&producer, "waiting", "second").await;
    assert_eq!(text(&take(&consumer, 1).await[0]), "second");
    assert!(begun.elapsed() < Duration::from_secs(10));
}

#[tokio::test(flavor = "multi_thread")]
async fn acks_none_and_leader_arrive_too() {
    let node = Node::start().await;
    node.create("acks", 1).await;
    for acks in ["0", "1"] {
        let producer: FutureProducer = node
            .client()
            .set("acks", acks)
            .create()
            .expect("a producer");
        let record: FutureRecord<'_, str, str> = FutureRecord::to("acks").payload(acks);
        producer.send(record, PATIENCE).await.expect("sent");
        producer.flush(PATIENCE).expect("flushed");
    }
    let records = node.read("acks", 0, 2).await;
    assert_eq!(records.iter().map(text).collect::<Vec<_>>(), ["0", "1"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn offsets_are_found_by_time() {
    let node = Node::start().await;
    node.create("times", 1).await;
    let producer = node.producer();
    for time in [1_000, 2_000, 3_000] {
        let record: FutureRecord<'_, str, str> = FutureRecord::to("times")
            .payload("at")
            .timestamp(1_700_000_000_000 + time);
        producer.send(record, PATIENCE).await.expect("sent");
    }
    let consumer: BaseConsumer = node.client().create().expect("a consumer");
    let at = |time: i64| {
        let mut wanted = TopicPartitionList::new();
        wanted
            .add_partition_offset("times", 0, Offset::Offset(1_700_000_000_000 + time))
            .expect("a wish");
        let found = consumer
            .offsets_for_times(wanted, PATIENCE)
            .expect("answered");
        found.elements()[0].offset()
    };
    assert_eq!(at(0), Offset::Offset(0));
    assert_eq!(at(1_500), Offset::Offset(1));
    assert_eq!(at(3_000), Offset::Offset(2));
    assert_eq!(at(3_001), Offset::End);
    assert_eq!(node.watermarks("times", 0), (0, 3));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_offset_beyond_the_end_is_out_of_range() {
    let node = Node::start().await;
    node.create("short", 1).await;
    send(&node.producer(), "short", "only").await;
    let consumer = node.reader("short", 0, Offset::Offset(100));
    let error = tokio::time::timeout(PATIENCE, consumer.recv())
        .await
        .expect("answered")
        .expect_err("there is no record");
    assert!(
        matches!(
            error,
            KafkaError::MessageConsumption(
                RDKafkaErrorCode::AutoOffsetReset | RDKafkaErrorCode::OffsetOutOfRange
            )
        ),
        "{error:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_beyond_max_message_bytes_is_refused_and_the_next_is_not() {
    let node = Node::start().await;
    node.create("large", 1).await;
    let producer: FutureProducer = node
        .client()
        .set("message.max.bytes", "4000000")
        .create()
        .expect("a producer");
    let large = "x".repeat(2_000_000);
    let record: FutureRecord<'_, str, str> = FutureRecord::to("large").payload(&large);
    let (error, _) = producer
        .send(record, PATIENCE)
        .await
        .expect_err("too large for the topic");
    assert_eq!(
        error.rdkafka_error_code(),
        Some(RDKafkaErrorCode::MessageSizeTooLarge)
    );
    assert_eq!(send(&producer, "large", "small").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_that_does_not_exist_is_an_error_and_not_a_new_topic() {
    let node = Node::start().await;
    let producer: FutureProducer = node
        .client()
        .set("allow.auto.create.topics", "true")
        .create()
        .expect("a producer");
    let record: FutureRecord<'_, str, str> = FutureRecord::to("typo").payload("lost?");
    let (error, _) = producer
        .send(record, PATIENCE)
        .await
        .expect_err("no such topic");
    assert!(
        matches!(
            error.rdkafka_error_code(),
            Some(RDKafkaErrorCode::UnknownTopic | RDKafkaErrorCode::UnknownTopicOrPartition)
        ),
        "{error:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_is_created_by_its_first_use_where_the_setting_allows_it() {
    let node = Node::start_with(|config| {
        config.auto_create_topics = true;
        config.default_partitions = 4;
    })
    .await;
    let producer: FutureProducer = node
        .client()
        .set("allow.auto.create.topics", "true")
        .create()
        .expect("a producer");
    assert_eq!(send(&producer, "new", "first").await, 0);
    let metadata = producer
        .client()
        .fetch_metadata(Some("new"), PATIENCE)
        .expect("metadata");
    assert_eq!(metadata.topics()[0].partitions().len(), 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn records_offsets_and_topics_survive_a_restart() {
    let node = Node::start().await;
    node.create("kept", 2).await;
    let producer = node.producer();
    for value in ["a", "b", "c"] {
        send(&producer, "kept", value).await;
    }
    drop(producer);

    let node = node.restart().await;
    let records = node.read("kept", 0, 3).await;
    assert_eq!(
        records.iter().map(text).collect::<Vec<_>>(),
        ["a", "b", "c"]
    );
    assert_eq!(send(&node.producer(), "kept", "d").await, 3);
    assert_eq!(node.watermarks("kept", 1), (0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idempotent_producer_goes_on_after_a_restart_of_the_broker() {
    let folder = tempfile::tempdir().expect("a folder");
    let broker = crate::support::start_in(folder.path(), |_| ()).await;
    let address = broker.local_addr().to_string();
    let config = crate::support::client(&address);
    crate::support::create(&config.create().expect("an admin client"), "kept", 1).await;
    let producer: FutureProducer = config
        .clone()
        .set("enable.idempotence", "true")
        .set("reconnect.backoff.ms", "10")
        .set("reconnect.backoff.max.ms", "50")
        .create()
        .expect("a producer");
    assert_eq!(send(&producer, "kept", "before").await, 0);
    broker.shutdown().await.expect("stops");

    let sent = tokio::spawn(async move { send(&producer, "kept", "after").await });
    let broker = crate::support::start_in(folder.path(), |config| config.listen = address).await;
    assert_eq!(sent.await.expect("no fatal error"), 1);
    broker.shutdown().await.expect("stops");
}
