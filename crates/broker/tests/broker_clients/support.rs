//! A broker in a folder of its own, and clients for it.

use std::path::Path;
use std::time::Duration;

use ackwell_broker::{Broker, Config};
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer, StreamConsumer};
use rdkafka::message::{BorrowedMessage, Headers, Message, OwnedMessage};
use rdkafka::producer::{FutureProducer, FutureRecord};
use rdkafka::{Offset, TopicPartitionList};
use tempfile::TempDir;

/// Longer than anything takes here; a test that waits as long has failed.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) struct Node {
    pub(crate) broker: Broker,
    folder: TempDir,
}

impl Node {
    pub(crate) async fn start() -> Self {
        Self::start_with(|_| ()).await
    }

    pub(crate) async fn start_with(adjust: impl FnOnce(&mut Config)) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let broker = start_in(folder.path(), adjust).await;
        Self { broker, folder }
    }

    /// Stops cleanly and starts again on the same folder.
    pub(crate) async fn restart(self) -> Self {
        self.broker.shutdown().await.expect("stops");
        let broker = start_in(self.folder.path(), |_| ()).await;
        Self {
            broker,
            folder: self.folder,
        }
    }

    pub(crate) fn client(&self) -> ClientConfig {
        client(&self.broker.local_addr().to_string())
    }

    pub(crate) fn producer(&self) -> FutureProducer {
        self.client()
            .set("enable.idempotence", "true")
            .create()
            .expect("a producer")
    }

    pub(crate) fn admin(&self) -> AdminClient<DefaultClientContext> {
        self.client().create().expect("an admin client")
    }

    pub(crate) async fn create(&self, topic: &str, partitions: i32) {
        create(&self.admin(), topic, partitions).await;
    }

    /// A consumer without a group that reads one partition from `offset`.
    pub(crate) fn reader(&self, topic: &str, partition: i32, offset: Offset) -> StreamConsumer {
        let consumer: StreamConsumer = self
            .client()
            .set("group.id", "reader")
            .set("enable.auto.commit", "false")
            .set("enable.partition.eof", "false")
            .set("auto.offset.reset", "error")
            .create()
            .expect("a consumer");
        let mut assignment = TopicPartitionList::new();
        assignment
            .add_partition_offset(topic, partition, offset)
            .expect("an assignment");
        consumer.assign(&assignment).expect("assigned");
        consumer
    }

    /// The first `count` records of a partition.
    pub(crate) async fn read(
        &self,
        topic: &str,
        partition: i32,
        count: usize,
    ) -> Vec<OwnedMessage> {
        let consumer = self.reader(topic, partition, Offset::Beginning);
        take(&consumer, count).await
    }

    pub(crate) fn watermarks(&self, topic: &str, partition: i32) -> (i64, i64) {
        let consumer: BaseConsumer = self.client().create().expect("a consumer");
        consumer
            .fetch_watermarks(topic, partition, PATIENCE)
            .expect("watermarks")
    }
}

pub(crate) async fn start_in(folder: &Path, adjust: impl FnOnce(&mut Config)) -> Broker {
    let mut config = Config::new(folder);
    config.listen = "127.0.0.1:0".to_owned();
    adjust(&mut config);
    Broker::start(config).await.expect("starts")
}

pub(crate) fn client(address: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", address)
        .set("fetch.wait.max.ms", "100")
        .set("topic.metadata.propagation.max.ms", "500")
        .set("topic.metadata.refresh.fast.interval.ms", "20")
        .set("allow.auto.create.topics", "false");
    config
}

/// librdkafka's calls about transactions block.
pub(crate) async fn on_thread<T: Send + 'static>(
    producer: &FutureProducer,
    call: impl FnOnce(&FutureProducer) -> T + Send + 'static,
) -> T {
    let producer = producer.clone();
    tokio::task::spawn_blocking(move || call(&producer))
        .await
        .expect("no panic")
}

pub(crate) async fn create(
    admin: &AdminClient<DefaultClientContext>,
    topic: &str,
    partitions: i32,
) {
    let topic = NewTopic::new(topic, partitions, TopicReplication::Fixed(1));
    let results = admin
        .create_topics(&[topic], &AdminOptions::new())
        .await
        .expect("answered");
    results[0].as_ref().expect("created");
}

/// Sends a record to partition 0 and gives the offset that it was acknowledged at.
pub(crate) async fn send(producer: &FutureProducer, topic: &str, value: &str) -> i64 {
    let record: FutureRecord<'_, str, str> = FutureRecord::to(topic).partition(0).payload(value);
    let delivery = producer.send(record, PATIENCE).await.expect("delivered");
    delivery.offset
}

pub(crate) async fn take(consumer: &StreamConsumer, count: usize) -> Vec<OwnedMessage> {
    let mut records = Vec::with_capacity(count);
    while records.len() < count {
        let next = tokio::time::timeout(PATIENCE, consumer.recv()).await;
        let record: BorrowedMessage<'_> = next.expect("a record in time").expect("a record");
        records.push(record.detach());
    }
    records
}

pub(crate) fn text(record: &OwnedMessage) -> &str {
    std::str::from_utf8(record.payload().unwrap_or_default()).expect("text")
}

pub(crate) fn headers(record: &OwnedMessage) -> Vec<(String, Option<Vec<u8>>)> {
    let Some(headers) = record.headers() else {
        return Vec::new();
    };
    headers
        .iter()
        .map(|header| (header.key.to_owned(), header.value.map(<[u8]>::to_vec)))
        .collect()
}
