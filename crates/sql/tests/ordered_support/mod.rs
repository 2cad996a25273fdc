//! A broker, a topic and a database of one's own, and a handler whose failures are planned.
//!
//! The embedded broker is used unless `KAFKA_BOOTSTRAP_SERVERS` names another.
#![allow(dead_code, unreachable_pub, reason = "each test file uses its part")]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

#[path = "../database_url/mod.rs"]
pub mod database_url;
#[path = "../../../ackwell/tests/support/topic.rs"]
mod topic;

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ackwell::extract::{Attempt, Key, Text};
use ackwell::retry::{Retry, fixed};
use ackwell::{App, Class, Config, Failure, Listener, RunningApp, by_key};
use ackwell_broker::Broker;
use ackwell_sql::{Database, Migration, Tx, params};
use database_url::database_url;
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::message::{Headers, Message, OwnedMessage};
use rdkafka::producer::{FutureProducer, FutureRecord};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use tempfile::TempDir;

/// How long a condition is awaited before the test fails.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// What the handler has done, in order; doing it twice would violate the key.
pub const SCHEMA: &[Migration] = &[Migration::new(
    "effects",
    "CREATE TABLE effects (
        place INTEGER PRIMARY KEY AUTOINCREMENT,
        key TEXT NOT NULL,
        value TEXT NOT NULL,
        UNIQUE (key, value)
    ) STRICT",
)
.postgres(
    "CREATE TABLE effects (
        place BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        key TEXT NOT NULL,
        value TEXT NOT NULL,
        UNIQUE (key, value)
    )",
)];

pub struct World {
    pub bootstrap: String,
    pub topic: &'static str,
    pub folder: TempDir,
    _broker: Option<(Broker, TempDir)>,
}

impl World {
    pub async fn start(partitions: i32) -> Self {
        let (bootstrap, broker) = match std::env::var("KAFKA_BOOTSTRAP_SERVERS") {
            Ok(bootstrap) => (bootstrap, None),
            Err(_) => {
                let folder = tempfile::tempdir().unwrap();
                let mut config = ackwell_broker::Config::new(folder.path());
                config.listen = "127.0.0.1:0".into();
                let broker = Broker::start(config).await.unwrap();
                (broker.local_addr().to_string(), Some((broker, folder)))
            }
        };
        let topic = format!("t-{}", uuid::Uuid::new_v4().simple()).leak();
        let world = Self {
            bootstrap,
            topic,
            folder: tempfile::tempdir().unwrap(),
            _broker: broker,
        };
        let admin: AdminClient<DefaultClientContext> = world.client().create().unwrap();
        let new = NewTopic::new(world.topic, partitions, TopicReplication::Fixed(-1));
        topic::create(&admin, &new).await;
        world
    }

    /// Deletes the topic, and creates it again with one partition.
    pub async fn replace_topic(&self) {
        let admin: AdminClient<DefaultClientContext> = self.client().create().unwrap();
        let options = AdminOptions::new();
        let deleted = admin.delete_topics(&[self.topic], &options).await.unwrap();
        deleted[0].as_ref().unwrap();
        let new = NewTopic::new(self.topic, 1, TopicReplication::Fixed(-1));
        let made = admin.create_topics([&new], &options).await.unwrap();
        made[0].as_ref().unwrap();
    }

    pub fn client(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &self.bootstrap);
        config
    }

    pub fn group(&self) -> String {
        format!("g-{}", self.topic)
    }

    pub async fn database(&self) -> Database {
        open(self.folder.path()).await
    }

    /// Sends keys and values to a partition, in order.
    pub async fn send(&self, partition: i32, records: &[(Option<&str>, &str)]) {
        let producer: FutureProducer = self
            .client()
            .set("enable.idempotence", "true")
            .create()
            .unwrap();
        let send = |(key, value): &(Option<&str>, &str)| {
            let record = FutureRecord::<str, str>::to(self.topic).partition(partition);
            let record = match key {
                Some(key) => record.key(*key),
                None => record,
            };
            producer.send_result(record.payload(*value)).unwrap()
        };
        let sent: Vec<_> = records.iter().map(send).collect();
        for sent in sent {
            sent.await.unwrap().unwrap();
        }
    }

    fn group_member(&self) -> BaseConsumer {
        let mut config = self.client();
        config.set("group.id", self.group());
        config.create().unwrap()
    }

    pub fn committed(&self, partition: i32) -> i64 {
        let mut list = TopicPartitionList::new();
        list.add_partition(self.topic, partition);
        let found = self
            .group_member()
            .committed_offsets(list, PATIENCE)
            .unwrap();
        match found.elements().first().map(|element| element.offset()) {
            Some(Offset::Offset(at)) => at,
            _ => -1,
        }
    }

    /// Takes the commits of the group back, as if they had been lost.
    pub fn forget_commits(&self, partition: i32) {
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(self.topic, partition, Offset::Offset(0))
            .unwrap();
        let member = self.group_member();
        member.commit(&list, CommitMode::Sync).unwrap();
    }

    pub async fn commits(&self, partition: i32, position: i64) {
        let what = format!("position {position} of partition {partition}");
        until(&what, async || {
            tokio::task::block_in_place(|| self.committed(partition)) == position
        })
        .await;
    }

    /// The records of the dead-letter topic, once there are `count`.
    pub fn dead_letters(&self, count: usize) -> Vec<OwnedMessage> {
        let topic = format!("{}.DLQ", self.topic);
        let consumer: BaseConsumer = self.client().set("group.id", "reader").create().unwrap();
        let metadata = consumer.fetch_metadata(Some(&topic), PATIENCE).unwrap();
        let mut list = TopicPartitionList::new();
        let mut ends = HashMap::new();
        for partition in metadata.topics()[0].partitions() {
            list.add_partition_offset(&topic, partition.id(), Offset::Beginning)
                .unwrap();
            let (_, end) = consumer
                .fetch_watermarks(&topic, partition.id(), PATIENCE)
                .unwrap();
            ends.insert(partition.id(), end);
        }
        consumer.assign(&list).unwrap();
        let expected = ends.values().sum::<i64>();
        let until = std::time::Instant::now() + PATIENCE;
        let mut found = Vec::new();
        while (found.len() < count || (found.len() as i64) < expected)
            && std::time::Instant::now() < until
        {
            if let Some(Ok(message)) = consumer.poll(Duration::from_millis(100)) {
                found.push(message.detach());
            }
        }
        assert!(
            found.len() >= count,
            "{} dead letters, not {count}",
            found.len()
        );
        found
    }

    pub fn listener(&self, plan: &Plan, retry: impl Into<Retry>) -> Listener {
        Listener::on(self.topic)
            .group(self.group())
            .concurrency(by_key(8))
            .retry(retry)
            .handle(plan.handler())
    }

    pub async fn app(&self, database: &Database, listener: Listener) -> RunningApp {
        let app = App::new(config(&self.bootstrap))
            .state(database.clone())
            .listener(listener);
        let app = app.start().await.unwrap();
        app.ready().await.unwrap();
        app
    }
}

/// Notices within seconds that a member is gone.
pub fn config(bootstrap: &str) -> Config {
    let mut config = Config::with_bootstrap_servers(bootstrap);
    for (name, value) in [
        ("session.timeout.ms", "6000"),
        ("heartbeat.interval.ms", "1000"),
    ] {
        config.kafka.consumer.insert(name.into(), value.into());
    }
    config
}

pub async fn open(folder: &Path) -> Database {
    Database::open(&database_url(folder), SCHEMA).await.unwrap()
}

/// Waits until `condition` holds.
pub async fn until(what: &str, condition: impl AsyncFn() -> bool) {
    let met = async {
        while !condition().await {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    if tokio::time::timeout(PATIENCE, met).await.is_err() {
        panic!("waited too long for {what}");
    }
}

/// What has taken effect, by key in the order of the effects.
pub async fn effects(database: &Database) -> BTreeMap<String, Vec<String>> {
    let rows = database
        .query("SELECT key, value FROM effects ORDER BY place", params![])
        .await
        .unwrap();
    let mut effects: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for row in rows {
        let (key, value): (String, String) = (row.get(0).unwrap(), row.get(1).unwrap());
        effects.entry(key).or_default().push(value);
    }
    effects
}

/// How many records are parked.
pub async fn parked(database: &Database) -> u64 {
    let keys = database.parked(10_000).await.unwrap();
    keys.iter().map(|key| key.records).sum()
}

/// How records fail, and what the handler was called with.
#[derive(Clone, Default)]
pub struct Plan {
    faults: Arc<Mutex<HashMap<String, Class>>>,
    calls: Arc<Mutex<Vec<Call>>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    pub key: String,
    pub value: String,
    pub attempt: u32,
}

impl Plan {
    /// Values that fail, until they [`heal`](Plan::heal).
    pub fn failing(class: Class, values: &[&str]) -> Self {
        let plan = Plan::default();
        for value in values {
            plan.fail(class, value);
        }
        plan
    }

    pub fn fail(&self, class: Class, value: &str) {
        self.faults.lock().unwrap().insert(value.to_owned(), class);
    }

    pub fn heal(&self, value: &str) {
        self.faults.lock().unwrap().remove(value);
    }

    /// Calls with this value, by their attempts.
    pub fn attempts(&self, value: &str) -> Vec<u32> {
        let calls = self.calls.lock().unwrap();
        let calls = calls.iter().filter(|call| call.value == value);
        calls.map(|call| call.attempt).collect()
    }

    fn called(&self, key: Option<String>, value: String, attempt: u32) -> Option<Class> {
        let key = key.unwrap_or_default();
        let fault = self.faults.lock().unwrap().get(&value).copied();
        self.calls.lock().unwrap().push(Call {
            key,
            value,
            attempt,
        });
        fault
    }

    /// Writes its effect, and then fails if that is the plan.
    pub fn handler(&self) -> impl AsyncHandler {
        let plan = self.clone();
        move |Key(key): Key, Text(value): Text, Attempt(attempt): Attempt, mut tx: Tx| {
            let plan = plan.clone();
            Box::pin(async move {
                let insert = "INSERT INTO effects (key, value) VALUES ($1, $2)";
                let name = key.clone().unwrap_or_default();
                tx.execute(insert, params![name, value]).await?;
                judged(plan.called(key, value, attempt))
            }) as Handling
        }
    }

    /// The same without a transaction: effects are the calls that succeeded.
    pub fn plain(&self) -> impl PlainHandler {
        let plan = self.clone();
        move |Key(key): Key, Text(value): Text, Attempt(attempt): Attempt| {
            let plan = plan.clone();
            Box::pin(async move { judged(plan.called(key, value, attempt)) }) as Handling
        }
    }

    /// Values whose calls succeeded, in order.
    pub fn calls(&self) -> Vec<Call> {
        self.calls.lock().unwrap().clone()
    }
}

pub type Handling = std::pin::Pin<Box<dyn Future<Output = Result<(), Failure>> + Send>>;

pub trait AsyncHandler:
    Fn(Key, Text, Attempt, Tx) -> Handling + Clone + Send + Sync + 'static
{
}
impl<F: Fn(Key, Text, Attempt, Tx) -> Handling + Clone + Send + Sync + 'static> AsyncHandler for F {}

pub trait PlainHandler: Fn(Key, Text, Attempt) -> Handling + Clone + Send + Sync + 'static {}
impl<F: Fn(Key, Text, Attempt) -> Handling + Clone + Send + Sync + 'static> PlainHandler for F {}

fn judged(fault: Option<Class>) -> Result<(), Failure> {
    match fault {
        None => Ok(()),
        Some(class) => Err(Failure::new(class, "by plan")),
    }
}

/// Tries again every 50 ms, for as long as tests wait.
pub fn patient() -> ackwell::retry::RetryPolicy {
    fixed(Duration::from_millis(50)).max_attempts(100_000)
}

/// A header's value as text.
pub fn header(message: &OwnedMessage, name: &str) -> String {
    let headers = message.headers().unwrap();
    let found = headers.iter().find(|header| header.key == name);
    let value = found.and_then(|header| header.value).unwrap_or_default();
    String::from_utf8_lossy(value).into_owned()
}
