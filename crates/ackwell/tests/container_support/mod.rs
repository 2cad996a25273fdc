//! A broker, topics of one's own, and a handler that keeps a log.
//!
//! The embedded broker is used unless `KAFKA_BOOTSTRAP_SERVERS` names another.
#![allow(dead_code, unreachable_pub, reason = "each test file uses its part")]
#![allow(clippy::expect_used, clippy::panic, reason = "a test may fail")]

pub mod acl;
pub mod raw;
#[path = "../support/topic.rs"]
mod topic;

use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ackwell::container::{Container, RecordHandler, Spec, start};
use ackwell::extensions::Extensions;
use ackwell::failure::Failure;
use ackwell::record::Record;
use futures_util::future::BoxFuture;
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::message::{Header, Headers, Message, OwnedHeaders, OwnedMessage};
use rdkafka::producer::{FutureProducer, FutureRecord};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use tokio::sync::Notify;

/// How long a condition is awaited before the test fails. A cluster that has stood still, as on a machine that was
/// suspended, needs a minute until all have found each other again.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// Awaits `future` for [`PATIENCE`], in which time does not count in which this process itself stood still.
pub async fn patiently<F: Future>(future: F) -> Option<F::Output> {
    let mut future = pin!(future);
    for _ in 0..PATIENCE.as_secs() {
        let second = tokio::time::timeout(Duration::from_secs(1), &mut future);
        if let Ok(output) = second.await {
            return Some(output);
        }
    }
    None
}

/// Whether the same question may be answered later: brokers are being found, or elected, or are slow.
pub fn may_be_answered_later(error: &KafkaError) -> bool {
    matches!(
        error.rdkafka_error_code(),
        Some(
            Code::NotCoordinator
                | Code::CoordinatorNotAvailable
                | Code::CoordinatorLoadInProgress
                | Code::LeaderNotAvailable
                | Code::NotLeaderForPartition
                | Code::UnknownTopicOrPartition
                | Code::UnknownPartition
                | Code::UnknownTopic
                | Code::RequestTimedOut
                | Code::OperationTimedOut
                | Code::MessageTimedOut
                | Code::BrokerTransportFailure
                | Code::AllBrokersDown
                | Code::NetworkException
        )
    )
}

/// A broker for one test.
pub struct Cluster {
    bootstrap: String,
    _broker: Option<(ackwell_broker::Broker, tempfile::TempDir)>,
}

impl Cluster {
    pub async fn start() -> Cluster {
        let _ = tracing_subscriber::fmt()
            .with_test_writer()
            .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
            .try_init();
        if let Ok(bootstrap) = std::env::var("KAFKA_BOOTSTRAP_SERVERS") {
            return Cluster {
                bootstrap,
                _broker: None,
            };
        }
        let folder = tempfile::tempdir().expect("a temporary folder");
        let mut config = ackwell_broker::Config::new(folder.path());
        config.listen = "127.0.0.1:0".into();
        let broker = ackwell_broker::Broker::start(config)
            .await
            .expect("the broker starts");
        Cluster {
            bootstrap: broker.local_addr().to_string(),
            _broker: Some((broker, folder)),
        }
    }

    /// The broker that a parent process has started.
    pub fn at(bootstrap: &str) -> Cluster {
        Cluster {
            bootstrap: bootstrap.to_owned(),
            _broker: None,
        }
    }

    /// Where its brokers are reached.
    pub fn bootstrap(&self) -> &str {
        &self.bootstrap
    }

    pub fn client(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &self.bootstrap);
        config
    }

    /// A new topic.
    pub async fn topic(&self, partitions: i32) -> String {
        let name = format!("t-{}", uuid::Uuid::new_v4().simple());
        self.make(&name, partitions).await;
        name
    }

    /// A topic of this name.
    pub async fn make(&self, name: &str, partitions: i32) {
        self.make_with(name, partitions, &[]).await;
    }

    /// A topic of this name with these settings.
    pub async fn make_with(&self, name: &str, partitions: i32, settings: &[(&str, &str)]) {
        let admin: AdminClient<DefaultClientContext> = self.client().create().expect("an admin");
        let new = NewTopic::new(name, partitions, TopicReplication::Fixed(-1));
        let new = settings
            .iter()
            .fold(new, |new, (key, value)| new.set(key, value));
        let made = patiently(async {
            loop {
                match admin.create_topics([&new], &AdminOptions::new()).await {
                    Err(error) if may_be_answered_later(&error) => {}
                    made => break made.expect("topics are made"),
                }
            }
        });
        let made = made.await.expect("topics are made in time");
        for made in made {
            match made {
                // By a question before, whose answer did not come.
                Ok(_) | Err((_, Code::TopicAlreadyExists)) => {}
                Err(refused) => panic!("the topic is made: {refused:?}"),
            }
        }
        topic::known(&admin, &new).await;
    }

    /// A listener with its own group on one topic.
    pub fn listener(&self, topic: &str, handler: Arc<dyn RecordHandler>) -> Spec {
        let mut client = self.client();
        client.set("session.timeout.ms", "6000");
        Spec::new(client, format!("g-{topic}"), [topic], handler)
    }

    /// Its address.
    pub fn servers(&self) -> &str {
        &self.bootstrap
    }

    /// The app's view of the same broker.
    pub fn config(&self) -> ackwell::Config {
        ackwell::Config::with_bootstrap_servers(self.bootstrap.clone())
    }

    /// Sends one record of any bytes and waits until it is written.
    pub async fn send_bytes(
        &self,
        topic: &str,
        partition: i32,
        (key, value): (Option<&[u8]>, Option<&[u8]>),
        headers: &[(&str, &[u8])],
    ) {
        let producer: FutureProducer = self
            .client()
            .set("message.max.bytes", "10000000")
            .create()
            .expect("a producer");
        let mut record = FutureRecord::<[u8], [u8]>::to(topic).partition(partition);
        (record.key, record.payload) = (key, value);
        let with = |all: OwnedHeaders, (key, value): &(&str, &[u8])| {
            all.insert(Header {
                key,
                value: Some(*value),
            })
        };
        let headers = headers.iter().fold(OwnedHeaders::new(), with);
        let sent = producer.send(record.headers(headers), PATIENCE).await;
        sent.expect("the record is written");
    }

    /// Sends values with keys `k` to a partition, in order.
    pub async fn send(&self, topic: &str, partition: i32, records: &[(&str, &str)]) {
        let producer: FutureProducer = self
            .client()
            .set("enable.idempotence", "true")
            .create()
            .expect("a producer");
        let sent: Vec<_> = records
            .iter()
            .map(|(key, value)| {
                let headers = OwnedHeaders::new()
                    .insert(Header {
                        key: "trace",
                        value: Some("a"),
                    })
                    .insert(Header {
                        key: "trace",
                        value: Some("b"),
                    });
                let record = FutureRecord::to(topic)
                    .partition(partition)
                    .key(*key)
                    .payload(*value);
                producer
                    .send_result(record.headers(headers))
                    .expect("room in the queue")
            })
            .collect();
        for sent in sent {
            sent.await
                .expect("an answer")
                .expect("the record is written");
        }
    }

    /// The group's committed position, or -1.
    pub fn committed(&self, topic: &str, partition: i32) -> i64 {
        self.committed_of(&format!("g-{topic}"), topic, partition)
    }

    /// The committed position of any group, or -1; so too while nobody answers.
    pub fn committed_of(&self, group: &str, topic: &str, partition: i32) -> i64 {
        let consumer: BaseConsumer = self
            .client()
            .set("group.id", group)
            .create()
            .expect("a consumer");
        let mut list = TopicPartitionList::new();
        list.add_partition(topic, partition);
        let found = match consumer.committed_offsets(list, Duration::from_secs(5)) {
            Ok(found) => found,
            Err(error) if may_be_answered_later(&error) => return -1,
            Err(error) => panic!("asking for what {group} has committed: {error}"),
        };
        match found.elements().first().map(|element| element.offset()) {
            Some(Offset::Offset(at)) => at,
            _ => -1,
        }
    }

    /// Waits until the committed position is reached.
    pub async fn reaches(&self, topic: &str, partition: i32, position: i64) {
        self.reaches_of(&format!("g-{topic}"), topic, partition, position)
            .await;
    }

    /// The same, for any group.
    pub async fn reaches_of(&self, group: &str, topic: &str, partition: i32, position: i64) {
        let committed = || self.committed_of(group, topic, partition);
        let reached = async {
            while tokio::task::block_in_place(committed) != position {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let in_time = patiently(reached).await;
        assert!(
            in_time.is_some(),
            "committed is {}, not {position}",
            committed()
        );
    }

    /// Everything in a topic, once there are `count` records.
    pub fn read(&self, topic: &str, count: usize) -> Vec<OwnedMessage> {
        let consumer: BaseConsumer = self
            .client()
            .set("group.id", "reader")
            .set("auto.offset.reset", "earliest")
            .create()
            .expect("a consumer");
        let metadata = consumer
            .fetch_metadata(Some(topic), PATIENCE)
            .expect("metadata");
        let mut list = TopicPartitionList::new();
        for partition in metadata.topics()[0].partitions() {
            list.add_partition_offset(topic, partition.id(), Offset::Beginning)
                .expect("an offset");
        }
        consumer.assign(&list).expect("an assignment");
        let until = std::time::Instant::now() + PATIENCE;
        let mut found = Vec::new();
        while found.len() < count && std::time::Instant::now() < until {
            if let Some(Ok(message)) = consumer.poll(Duration::from_millis(100)) {
                found.push(message.detach());
            }
        }
        assert_eq!(found.len(), count, "records in {topic}");
        found
    }
}

/// A header's values as text, in order.
pub fn header(message: &OwnedMessage, name: &str) -> Vec<String> {
    let headers = message.headers().expect("headers");
    let found = headers.iter().filter(|header| header.key == name);
    found
        .map(|header| String::from_utf8_lossy(header.value.unwrap_or_default()).into_owned())
        .collect()
}

/// One call of a handler.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    pub partition: i32,
    pub offset: i64,
    pub key: String,
    pub value: String,
    pub attempt: u32,
}

/// What handlers were called with, in order.
#[derive(Default)]
pub struct Log {
    calls: Mutex<Vec<Call>>,
    changed: Notify,
}

impl Log {
    pub fn calls(&self) -> Vec<Call> {
        self.calls.lock().expect("the log").clone()
    }

    pub fn values(&self) -> Vec<String> {
        self.calls().into_iter().map(|call| call.value).collect()
    }

    pub fn push(&self, call: Call) {
        self.calls.lock().expect("the log").push(call);
        self.changed.notify_waiters();
    }

    /// Waits until the log satisfies `condition`.
    pub async fn wait_until(&self, condition: impl Fn(&[Call]) -> bool) {
        let met = async {
            loop {
                let changed = self.changed.notified();
                tokio::pin!(changed);
                changed.as_mut().enable();
                if condition(&self.calls()) {
                    return;
                }
                changed.await;
            }
        };
        if patiently(met).await.is_none() {
            let calls = self.calls();
            let tail = &calls[calls.len().saturating_sub(20)..];
            panic!(
                "the handler was called {} times, at last {tail:?}",
                calls.len()
            );
        }
    }

    pub async fn wait_for(&self, count: usize) {
        self.wait_until(|calls| calls.len() >= count).await;
    }
}

/// A handler that logs each call and then does what `then` says.
pub struct Logged<F> {
    pub log: Arc<Log>,
    pub then: F,
}

impl<F> RecordHandler for Logged<F>
where
    F: Fn(Call) -> BoxFuture<'static, Result<(), Failure>> + Send + Sync + 'static,
{
    fn call(
        &self,
        record: Record,
        attempt: u32,
        _: Extensions,
    ) -> BoxFuture<'static, Result<(), Failure>> {
        let text =
            |bytes: Option<&[u8]>| String::from_utf8_lossy(bytes.unwrap_or_default()).into_owned();
        let call = Call {
            partition: record.partition(),
            offset: record.offset(),
            key: text(record.key()),
            value: text(record.value()),
            attempt,
        };
        self.log.push(call.clone());
        (self.then)(call)
    }
}

pub fn logged<F>(log: &Arc<Log>, then: F) -> Arc<dyn RecordHandler>
where
    F: Fn(Call) -> BoxFuture<'static, Result<(), Failure>> + Send + Sync + 'static,
{
    Arc::new(Logged {
        log: Arc::clone(log),
        then,
    })
}

pub async fn run(spec: Spec) -> Container {
    start(spec).await.expect("the listener starts")
}
