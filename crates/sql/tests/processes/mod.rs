//! A topic, a group and a database of one's own, workers that may die, and the books that are
//! checked at the end: every record's effect once, in the order of its key, offsets exact, and
//! nothing given up that can be handled.
#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "helpers of tests"
)]

pub mod brokers;
pub mod proxy;
#[path = "../../../ackwell/tests/support/topic.rs"]
mod topic;
pub mod worker;

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::path::Path;
use std::sync::atomic::{AtomicI64, Ordering::SeqCst};
use std::time::Duration;

use ackwell_sql::{Database, Row, params};
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::{Headers, Message};
use rdkafka::producer::{FutureProducer, FutureRecord};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use tempfile::TempDir;
use tokio::time::Instant;
use uuid::Uuid;

use crate::events::SCHEMA;
use brokers::Brokers;
use worker::{Acks, Retries, Setup, Worker};

/// Longer than anything here takes on a busy machine; a test that waits for it has failed. With a
/// fault built in, that is what is expected.
pub const LIMIT: Duration = Duration::from_secs(if cfg!(feature = "mutations") { 40 } else { 90 });
/// Long enough for a wrong commit to reach the broker.
const WRONG_COMMIT: Duration = Duration::from_secs(1);
/// How long one answer of a broker is awaited.
const ANSWER: Duration = Duration::from_secs(10);
const KEYS: i64 = 10;
/// A dead worker is missed after this. Lower would take a busy machine's pauses for deaths.
const SESSION: Duration = Duration::from_secs(3);

/// A worker that stands still in a transaction loses it on PostgreSQL after this.
const IDLE_MAX: Duration = Duration::from_secs(5);

/// Awaits `future`, and names what was waited for if it takes too long.
pub async fn within<F: Future>(what: &str, future: F) -> F::Output {
    match tokio::time::timeout(LIMIT, future).await {
        Ok(output) => output,
        Err(_) => panic!("waited too long for {what}"),
    }
}

/// What one test works on.
pub struct Scene {
    pub brokers: Brokers,
    pub database: Database,
    topic: String,
    partitions: i32,
    group: String,
    folder: TempDir,
    producer: FutureProducer,
    sent: AtomicI64,
    poison: AtomicI64,
    /// Whether the order of keys is given up.
    unordered: bool,
}

impl Scene {
    pub async fn new() -> Self {
        Self::on(Brokers::start().await).await
    }

    pub async fn on(brokers: Brokers) -> Self {
        Self::with(brokers, 3).await
    }

    /// A topic of one partition, in which all records are in one order.
    pub async fn of_one_partition() -> Self {
        Self::with(Brokers::start().await, 1).await
    }

    async fn with(brokers: Brokers, partitions: i32) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let name = format!("t-{}", Uuid::new_v4().simple());
        let database = Database::open(&url(folder.path()), SCHEMA).await.unwrap();
        let producer = client(brokers.servers())
            .set("enable.idempotence", "true")
            .set("partitioner", "murmur2_random")
            .create()
            .unwrap();
        let scene = Self {
            group: format!("g-{name}"),
            topic: name,
            partitions,
            brokers,
            database,
            folder,
            producer,
            sent: AtomicI64::new(0),
            poison: AtomicI64::new(0),
            unordered: false,
        };
        scene.create_topic().await;
        scene
    }

    /// The order of a key is not checked.
    pub fn unordered(mut self) -> Self {
        self.unordered = true;
        self
    }

    async fn create_topic(&self) {
        let admin: AdminClient<DefaultClientContext> = self.client().create().unwrap();
        let topic = NewTopic::new(&self.topic, self.partitions, TopicReplication::Fixed(-1));
        topic::create(&admin, &topic).await;
    }

    fn client(&self) -> ClientConfig {
        client(self.brokers.servers())
    }

    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub fn database_file(&self) -> std::path::PathBuf {
        self.folder().join("data").join("test.db")
    }

    /// A worker that can be changed before it starts.
    pub fn worker(&self, name: &str) -> Setup {
        let setup = Setup {
            name: name.into(),
            servers: self.brokers.servers().into(),
            topic: self.topic.clone(),
            group: self.group.clone(),
            database: url(self.folder()),
            properties: BTreeMap::new(),
            wait_at: None,
            handling: Duration::ZERO,
            lock_wait: Duration::from_secs(1),
            idle_max: IDLE_MAX,
            acks: Acks::Batch,
            retries: Retries::InPlace,
            fails: (1, 0),
            retry_after: Duration::from_millis(400),
            one_lane: false,
            in_lists: false,
            calls: None,
        };
        setup
            .set("session.timeout.ms", SESSION.as_millis())
            .set("heartbeat.interval.ms", 500)
            .set("socket.timeout.ms", 3_000)
            .set("reconnect.backoff.max.ms", 500)
    }

    /// Sends `count` records, numbered on from the last; returns when they are written.
    pub async fn send(&self, count: i64) {
        self.sending(count).await;
    }

    /// Begins to send; the future ends when all are written.
    pub fn sending(&self, count: i64) -> impl Future<Output = ()> + use<> {
        let first = self.sent.fetch_add(count, SeqCst);
        let written = (first..first + count).map(|number| {
            let (key, value) = (format!("k-{}", number % KEYS), number.to_string());
            self.enqueue(&key, &value)
        });
        let written: Vec<_> = written.collect();
        async move {
            for written in written {
                within("a record to be written", written).await;
            }
        }
    }

    /// Sends a record that no handler can handle.
    pub async fn send_poison(&self) {
        let number = self.poison.fetch_add(1, SeqCst);
        let value = format!("poison {number}");
        within("a record to be written", self.enqueue("k-0", &value)).await;
    }

    fn enqueue(&self, key: &str, value: &str) -> impl Future<Output = ()> + use<> {
        let record = FutureRecord::to(&self.topic).key(key).payload(value);
        let delivery = self
            .producer
            .send_result(record)
            .map_err(|(error, _)| error);
        let delivery = delivery.unwrap();
        async move {
            delivery.await.unwrap().unwrap();
        }
    }

    async fn effects(&self) -> Vec<Row> {
        let sql = "SELECT key, number, worker FROM effects ORDER BY place";
        self.database.query(sql, params![]).await.unwrap()
    }

    /// How many records were applied, by all workers.
    pub async fn applied(&self) -> i64 {
        let sql = "SELECT count(*) FROM effects";
        let row = self.database.query_opt(sql, params![]).await.unwrap();
        row.unwrap().get(0).unwrap()
    }

    /// Who has applied how many.
    pub async fn applied_by(&self) -> BTreeMap<String, usize> {
        let mut by = BTreeMap::new();
        for row in self.effects().await {
            *by.entry(row.get("worker").unwrap()).or_insert(0) += 1;
        }
        by
    }

    /// Waits until a worker has applied some.
    pub async fn until_applied_by(&self, worker: &str) {
        within("a worker to apply something", async {
            while !self.applied_by().await.contains_key(worker) {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        })
        .await;
    }

    /// Waits until some more are applied than now, or all.
    pub async fn until_more_applied(&self, count: i64) {
        let wanted = self.applied().await + count;
        self.until_applied(wanted.min(self.sent.load(SeqCst))).await;
    }

    /// Stops a worker's process outside of its transactions: inside, it would keep a database file
    /// locked for as long as it stands still, and a row of PostgreSQL for [`IDLE_MAX`].
    pub async fn pause(&self, worker: &Worker) {
        let mut ours = self.database.begin();
        let nothing = ours.execute("DELETE FROM effects WHERE false", params![]);
        nothing.await.unwrap();
        worker.pause().await;
    }

    pub async fn until_applied(&self, count: i64) {
        let until = Instant::now() + LIMIT;
        loop {
            let applied = self.applied().await;
            if applied >= count {
                return;
            }
            assert!(Instant::now() < until, "{applied} of {count} are applied");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// The group's committed positions; 0 where there is none.
    pub async fn committed(&self) -> Vec<i64> {
        let mut client = self.client();
        client.set("group.id", &self.group);
        let (topic, last) = (self.topic.clone(), self.partitions - 1);
        blocking(move || {
            let consumer: BaseConsumer = client.create().unwrap();
            let mut list = TopicPartitionList::new();
            list.add_partition_range(&topic, 0, last);
            let found = consumer.committed_offsets(list, ANSWER).ok()?;
            let elements = found.elements();
            let offsets = elements.iter().map(|element| match element.offset() {
                Offset::Offset(offset) => offset,
                _ => 0,
            });
            Some(offsets.collect())
        })
        .await
    }

    /// The positions behind the last records.
    async fn ends(&self) -> Vec<i64> {
        let (client, topic, count) = (self.client(), self.topic.clone(), self.partitions);
        blocking(move || {
            let consumer: BaseConsumer = client.create().unwrap();
            let end = |partition| consumer.fetch_watermarks(&topic, partition, ANSWER);
            (0..count)
                .map(|partition| Some(end(partition).ok()?.1))
                .collect()
        })
        .await
    }

    /// Waits until every record is applied and every position committed.
    pub async fn until_settled(&self) {
        self.until_applied(self.sent.load(SeqCst)).await;
        let (ends, until) = (self.ends().await, Instant::now() + LIMIT);
        loop {
            let committed = self.committed().await;
            if committed == ends {
                return;
            }
            assert!(
                Instant::now() < until,
                "committed {committed:?} of {ends:?}"
            );
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// How many records wait in the database to be tried again.
    pub async fn parked(&self) -> usize {
        self.database.parked(10).await.unwrap().len()
    }

    pub async fn until_parked(&self, count: usize) {
        within("records to be parked", async {
            while self.parked().await != count {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        })
        .await;
    }

    /// Gives a commit time to happen that may not happen yet.
    pub async fn let_a_wrong_commit_happen(&self) {
        tokio::time::sleep(WRONG_COMMIT).await;
    }

    /// The numbers that handlers were called with, by workers that write that down.
    pub fn calls(&self) -> Vec<i64> {
        let written = std::fs::read_to_string(self.calls_file()).unwrap_or_default();
        let mut calls: Vec<i64> = written.lines().map(|line| line.parse().unwrap()).collect();
        calls.sort_unstable();
        calls
    }

    fn calls_file(&self) -> std::path::PathBuf {
        self.folder().join("calls")
    }

    /// A worker that writes down each call of its handler.
    pub fn worker_that_counts(&self, name: &str) -> Setup {
        let mut setup = self.worker(name);
        setup.calls = Some(self.calls_file());
        setup
    }

    /// Waits until a partition's last record is committed.
    pub async fn until_settled_somewhere(&self) {
        within("a partition to be settled", async {
            let ends = self.ends().await;
            while !(self.committed().await.iter().zip(&ends)).any(|(at, end)| at == end) {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        })
        .await;
    }

    /// Waits until everything is settled, and checks the books. Workers may still run; what they
    /// do wrong later is found by calling it again.
    pub async fn check(&self) {
        self.until_settled().await;
        let sent = self.sent.load(SeqCst);
        let mut expected: BTreeMap<String, Vec<i64>> = BTreeMap::new();
        for number in 0..sent {
            let numbers = expected.entry(format!("k-{}", number % KEYS)).or_default();
            numbers.push(number);
        }
        let applied = self.applied_of_keys().await;
        assert_eq!(
            applied, expected,
            "each effect once, in the order of its key"
        );
        let mut emitted = crate::events::outbox(&self.database).await;
        emitted.sort_unstable();
        assert_eq!(emitted, (0..sent).collect::<Vec<_>>(), "each event once");
        assert_eq!(self.committed().await, self.ends().await, "offsets");
        let poison: BTreeSet<_> = (0..self.poison.load(SeqCst))
            .map(|n| format!("poison {n}"))
            .collect();
        let letters: BTreeSet<_> = self.dead_letters().await.into_iter().collect();
        assert_eq!(letters, poison, "dead letters");
    }

    /// The numbers that were applied, by key.
    async fn applied_of_keys(&self) -> BTreeMap<String, Vec<i64>> {
        let mut of_key: BTreeMap<String, Vec<i64>> = BTreeMap::new();
        for row in self.effects().await {
            let numbers = of_key.entry(row.get("key").unwrap()).or_default();
            numbers.push(row.get("number").unwrap());
        }
        if self.unordered {
            of_key
                .values_mut()
                .for_each(|numbers| numbers.sort_unstable());
        }
        of_key
    }

    /// The values of all dead letters, in no order.
    pub async fn dead_letters(&self) -> Vec<String> {
        let (mut client, topic) = (self.client(), format!("{}.DLQ", self.topic));
        client
            .set("group.id", "reader")
            .set("enable.partition.eof", "true");
        blocking(move || {
            let consumer: BaseConsumer = client.create().unwrap();
            let metadata = consumer.fetch_metadata(Some(&topic), ANSWER).ok()?;
            let partitions = metadata.topics()[0].partitions();
            let mut list = TopicPartitionList::new();
            for partition in partitions {
                list.add_partition_offset(&topic, partition.id(), Offset::Beginning)
                    .unwrap();
            }
            consumer.assign(&list).unwrap();
            let (mut found, mut ended) = (Vec::new(), 0);
            while ended < partitions.len() {
                match consumer.poll(ANSWER)? {
                    Ok(message) => {
                        assert!(
                            message
                                .headers()
                                .is_some_and(|headers| headers.count() >= 9)
                        );
                        let value = message.payload().unwrap_or_default();
                        found.push(String::from_utf8(value.to_vec()).unwrap());
                    }
                    Err(rdkafka::error::KafkaError::PartitionEOF(_)) => ended += 1,
                    Err(_) => return None,
                }
            }
            Some(found)
        })
        .await
    }
}

impl Drop for Scene {
    /// The workers' logs say why a test has failed.
    fn drop(&mut self) {
        if !std::thread::panicking() {
            return;
        }
        for entry in std::fs::read_dir(self.folder()).unwrap().flatten() {
            if entry.path().extension().is_some_and(|end| end == "log") {
                let log = std::fs::read_to_string(entry.path()).unwrap_or_default();
                let lines: Vec<_> = log.lines().collect();
                let tail = lines[lines.len().saturating_sub(60)..].join("\n");
                println!("--- {}\n{tail}", entry.path().display());
            }
        }
    }
}

fn url(folder: &Path) -> String {
    crate::events::database_url::database_url(folder)
}

fn client(servers: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", servers);
    config
}

/// Asks a broker, again if it does not answer.
async fn blocking<T: Send + 'static>(ask: impl Fn() -> Option<T> + Send + 'static) -> T {
    let asking = tokio::task::spawn_blocking(move || {
        let answer = (0..6).find_map(|_| ask());
        answer.unwrap_or_else(|| panic!("the broker does not answer"))
    });
    asking.await.unwrap()
}
