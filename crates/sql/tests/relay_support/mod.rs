//! Relays at work on a real broker, and what they have published.
#![allow(dead_code, unreachable_pub, reason = "each test file uses its part")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests")]

use std::collections::{BTreeMap, HashSet};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use ackwell::observe::{Health, Kind, Metrics};
use ackwell::service::{Service, ServiceContext};
use ackwell::{Config, EVENT_ID, EVENT_TYPE};
use ackwell_sql::{Database, Relay, params};
use rdkafka::consumer::{Consumer, StreamConsumer};
use rdkafka::message::{Headers, Message};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::events::database_url::database_url;
use crate::events::{Happened, SCHEMA};
use crate::kafka::{Kafka, LIMIT};

/// The topic of what happens.
pub async fn prepared(kafka: Kafka) -> (Kafka, String) {
    kafka.create_topic("happenings", 3).await;
    let servers = kafka.address.clone();
    (kafka, servers)
}

pub fn config(servers: &str) -> Config {
    let mut config = Config::default();
    config.kafka.bootstrap_servers = servers.to_owned();
    config
}

/// A relay at work.
pub struct Running {
    pub health: Health,
    pub metrics: Metrics,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

pub fn start_relay(db: &Database, servers: &str) -> Running {
    let (health, metrics, stop) = (Health::default(), Metrics::new(), CancellationToken::new());
    let reporter = health.add(Kind::Service, "relay");
    let cx = ServiceContext::detached(config(servers), metrics.clone(), reporter, stop.clone());
    let relay = Box::new(Relay::new(db.clone()));
    let task = tokio::spawn(async move { relay.run(cx).await.unwrap() });
    Running {
        health,
        metrics,
        stop,
        task,
    }
}

impl Running {
    pub async fn stop(self) {
        self.stop.cancel();
        timeout(LIMIT, self.task).await.unwrap().unwrap();
    }
}

pub async fn emit(db: &Database, items: impl IntoIterator<Item = i64>) {
    for item in items {
        emit_one(db, item).await.unwrap();
    }
}

async fn emit_one(db: &Database, item: i64) -> Result<(), ackwell_sql::Error> {
    let mut tx = db.begin();
    tx.execute("INSERT INTO items (id) VALUES ($1)", params![item])
        .await?;
    tx.emit(&Happened { item }).await?;
    tx.commit().await
}

/// Emits in a process that may be stopped. A server ends a transaction that stands still; the next item goes.
async fn emit_on_and_on(db: &Database, first: i64) {
    for item in first.. {
        if emit_one(db, item).await.is_err() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

pub async fn until_empty(db: &Database) {
    let emptied = async {
        while db.outbox().await.unwrap().depth > 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(LIMIT, emptied)
        .await
        .expect("the outbox is emptied");
}

/// What is on the topic: item and event id, in the order of their partitions.
pub async fn published(servers: &str, at_least: usize) -> Vec<(i64, Uuid)> {
    let consumer: StreamConsumer = config(servers).kafka.consumer("check").create().unwrap();
    consumer.subscribe(&["happenings"]).unwrap();
    let mut published = Vec::new();
    let mut different = HashSet::new();
    loop {
        // Once all are there, a moment for what should not be.
        let wait = if different.len() >= at_least {
            Duration::from_millis(300)
        } else {
            LIMIT
        };
        let Ok(message) = timeout(wait, consumer.recv()).await else {
            break;
        };
        let Ok(message) = message else { continue };
        let header = |name| {
            let mut headers = message.headers().unwrap().iter();
            let header = headers.find(|header| header.key == name).unwrap();
            String::from_utf8(header.value.unwrap().to_vec()).unwrap()
        };
        assert_eq!(header(EVENT_TYPE), "Happened");
        let item = serde_json::from_slice::<Happened>(message.payload().unwrap())
            .unwrap()
            .item;
        assert_eq!(message.key().unwrap(), (item % 10).to_string().as_bytes());
        different.insert(item);
        published.push((item, header(EVENT_ID).parse().unwrap()));
    }
    published
}

/// Each item's first appearance comes after that of the one before it, among those of a key
/// that one writer wrote in turn.
pub fn check_order(published: &[(i64, Uuid)], writer: impl Fn(i64) -> i64) {
    let mut seen = HashSet::new();
    let mut last: BTreeMap<(i64, i64), i64> = BTreeMap::new();
    for (item, _) in published.iter().filter(|(item, _)| seen.insert(*item)) {
        let before = last.insert((writer(*item), item % 10), *item);
        assert!(before < Some(*item), "{item} came after {before:?}");
    }
}

const FOLDER: &str = "ACKWELL_SQL_RELAY_FOLDER";
const SERVERS: &str = "ACKWELL_SQL_RELAY_SERVERS";
const ROUND: &str = "ACKWELL_SQL_RELAY_ROUND";

/// A process that emits and relays, three writers of a million items each from `round` on; the test file has
/// [`emit_and_relay`] as an ignored test.
pub fn child(folder: &Path, servers: &str, round: i64) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "emits_and_relays_until_it_is_killed",
            "--ignored",
            "--nocapture",
        ])
        .env(FOLDER, folder)
        .env(SERVERS, servers)
        .env(ROUND, round.to_string())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// The child's work, until it is killed.
pub async fn emit_and_relay() {
    let (Ok(folder), Ok(servers)) = (std::env::var(FOLDER), std::env::var(SERVERS)) else {
        return;
    };
    let round: i64 = std::env::var(ROUND).unwrap().parse().unwrap();
    let db = Database::open(&database_url(Path::new(&folder)), SCHEMA)
        .await
        .unwrap();
    let _relay = start_relay(&db, &servers);
    let writers = (0..3).map(|writer| {
        let (db, first) = (db.clone(), (round * 3 + writer) * 1_000_000);
        tokio::spawn(async move { emit_on_and_on(&db, first).await })
    });
    for writer in writers.collect::<Vec<_>>() {
        writer.await.unwrap();
    }
}

pub async fn until_more(db: &Database, count: usize) {
    let more = async {
        while crate::events::ids(db).await.len() < count {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(LIMIT, more).await.expect("the children get on");
}
