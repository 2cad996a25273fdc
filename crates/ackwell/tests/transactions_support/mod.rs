//! A broker, a data folder, and topics to send to.
#![allow(
    dead_code,
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests"
)]

use std::collections::BTreeSet;
use std::future::Future;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use ackwell::producer::OutgoingRecord;
use ackwell::{App, Config, Producer, RunningApp};
use rdkafka::Message;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use tempfile::TempDir;

use crate::container_support::{Cluster, PATIENCE, may_be_answered_later, patiently};

/// How long one question to a broker waits before it is asked again.
const ANSWER: Duration = Duration::from_secs(5);

/// Awaits `future`, and names what was waited for if it takes too long.
pub(crate) async fn within<F: Future>(what: &str, future: F) -> F::Output {
    match patiently(future).await {
        Some(output) => output,
        None => panic!("waited too long for {what}"),
    }
}

/// Two topics to send to.
#[derive(Clone, Debug)]
pub(crate) struct Out(pub(crate) String, pub(crate) String);

/// What handlers were called with.
#[derive(Clone, Default)]
pub(crate) struct Calls(Arc<Mutex<Vec<String>>>);

impl Calls {
    pub(crate) fn push(&self, call: String) {
        self.0.lock().unwrap().push(call);
    }

    pub(crate) fn all(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }
}

pub(crate) fn out(topic: &str, value: &str) -> OutgoingRecord {
    OutgoingRecord::to(topic.to_owned()).value(value.to_owned())
}

pub(crate) struct Scene {
    pub(crate) cluster: Cluster,
    folder: TempDir,
}

impl Scene {
    pub(crate) async fn new() -> Self {
        let cluster = Cluster::start().await;
        let folder = tempfile::tempdir().unwrap();
        Self { cluster, folder }
    }

    pub(crate) fn config(&self) -> Config {
        let mut config = self.cluster.config();
        config.data = self.folder.path().to_owned();
        let session = ("session.timeout.ms".to_owned(), "6000".to_owned());
        config.kafka.consumer.extend([session]);
        config.transactions.timeout = Duration::from_secs(10);
        config
    }

    /// The same for who looks at how often something was done: no broker is slow enough to abort a transaction by
    /// itself, and so to have it repeated.
    pub(crate) fn patient(&self) -> Config {
        let mut config = self.config();
        config.transactions.timeout = PATIENCE / 2;
        config
    }

    pub(crate) async fn out(&self) -> Out {
        Out(self.cluster.topic(1).await, self.cluster.topic(1).await)
    }

    /// A topic that refuses larger records.
    pub(crate) async fn small(&self) -> String {
        let name = format!("small-{}", uuid::Uuid::new_v4().simple());
        let settings = [("max.message.bytes", "2000")];
        self.cluster.make_with(&name, 1, &settings).await;
        name
    }

    pub(crate) async fn start(&self, app: App) -> RunningApp {
        let app = app.start().await.unwrap();
        within("the app to be ready", app.health().until_ready()).await;
        app
    }

    pub(crate) async fn send(&self, topic: &str, partition: i32, values: &[String]) {
        let producer = Producer::new(&self.cluster.config()).unwrap();
        let records = values
            .iter()
            .map(|value| out(topic, value).partition(partition));
        for sent in producer.send_batch(records).await {
            sent.unwrap();
        }
    }

    /// Waits until the group of the topic has committed this position.
    pub(crate) async fn settled(&self, topic: &str, partition: i32, position: i64) {
        self.cluster.reaches(topic, partition, position).await;
    }

    /// What readers of committed records see in a topic, partition by partition, when no transaction is open any
    /// more that keeps the end from them, such as that of a process that was killed.
    pub(crate) fn seen(&self, topic: &str) -> Vec<String> {
        let read = self.read(topic).into_iter();
        read.map(|(_, _, value)| value).collect()
    }

    /// The position behind the last record that they see in a topic of one partition. What was aborted before it, and
    /// the ends of transactions, have offsets, too.
    pub(crate) fn end(&self, topic: &str) -> i64 {
        let read = self.read(topic);
        read.last().map_or(0, |(_, offset, _)| offset + 1)
    }

    /// Partitions, offsets and values.
    fn read(&self, topic: &str) -> Vec<(i32, i64, String)> {
        let until = Instant::now() + PATIENCE;
        let partitions = self.partitions(topic, until);
        self.await_decisions(topic, &partitions, until);
        let consumer = self.reader("read_committed");
        let mut list = TopicPartitionList::new();
        for partition in &partitions {
            let offset = Offset::Beginning;
            list.add_partition_offset(topic, *partition, offset)
                .unwrap();
        }
        consumer.assign(&list).unwrap();
        let (mut seen, mut ended) = (Vec::new(), BTreeSet::new());
        while ended.len() < partitions.len() {
            match consumer.poll(ANSWER) {
                Some(Ok(message)) => {
                    let value = message.payload().unwrap_or_default();
                    let value = String::from_utf8_lossy(value).into_owned();
                    seen.push((message.partition(), message.offset(), value));
                }
                Some(Err(KafkaError::PartitionEOF(partition))) => drop(ended.insert(partition)),
                Some(Err(error)) if !may_be_answered_later(&error) => panic!("{topic}: {error}"),
                Some(Err(_)) | None => assert!(Instant::now() < until, "{topic} does not end"),
            }
        }
        seen.sort();
        seen
    }

    fn reader(&self, isolation: &str) -> BaseConsumer {
        let mut client = self.cluster.client();
        client.set("group.id", "reader");
        client.set("enable.partition.eof", "true");
        client.set("isolation.level", isolation).create().unwrap()
    }

    /// The partitions of a topic, as soon as the broker that is asked knows of it, and of their leaders.
    fn partitions(&self, topic: &str, until: Instant) -> Vec<i32> {
        let reader = self.reader("read_committed");
        answered(topic, until, || {
            let metadata = reader.fetch_metadata(Some(topic), ANSWER)?;
            let partitions = metadata.topics()[0].partitions();
            let led = partitions.iter().all(|partition| partition.leader() >= 0);
            let ids = partitions.iter().map(|partition| partition.id());
            Ok((led && !partitions.is_empty()).then(|| ids.collect()))
        })
    }

    /// Waits until the last stable offset of each partition is its end.
    fn await_decisions(&self, topic: &str, partitions: &[i32], until: Instant) {
        let committed = self.reader("read_committed");
        let all = self.reader("read_uncommitted");
        for partition in partitions {
            answered(topic, until, || {
                let end = |reader: &BaseConsumer| {
                    let marks = reader.fetch_watermarks(topic, *partition, ANSWER);
                    marks.map(|(_, end)| end)
                };
                Ok((end(&committed)? >= end(&all)?).then_some(()))
            });
        }
    }
}

/// Asks until there is an answer.
fn answered<T>(
    topic: &str,
    until: Instant,
    mut ask: impl FnMut() -> Result<Option<T>, KafkaError>,
) -> T {
    loop {
        let missing = match ask() {
            Ok(Some(answer)) => return answer,
            Ok(None) => "it is not decided".to_owned(),
            Err(error) if may_be_answered_later(&error) => error.to_string(),
            Err(error) => panic!("{topic}: {error}"),
        };
        assert!(Instant::now() < until, "{topic}: {missing}");
        std::thread::sleep(Duration::from_millis(20));
    }
}
