//! The relay on a real broker: everything that was committed is published, in order, and
//! nothing else; through brokers that are away and processes that are killed.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    reason = "helpers of tests"
)]

mod events;
#[path = "../../ackwell/tests/support/kafka.rs"]
mod kafka;

use std::collections::{BTreeMap, HashSet};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use ackwell::observe::{Health, Kind, Metrics};
use ackwell::service::{Service, ServiceContext};
use ackwell::{Config, EVENT_ID, EVENT_TYPE};
use ackwell_sql::{Database, Relay, params};
use events::{Happened, open, outbox};
use kafka::{Kafka, LIMIT};
use rdkafka::consumer::{Consumer, StreamConsumer};
use rdkafka::message::{Headers, Message};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// The topic of what happens.
async fn prepared(kafka: Kafka) -> (Kafka, String) {
    kafka.create_topic("happenings", 3).await;
    let servers = kafka.address.clone();
    (kafka, servers)
}

fn config(servers: &str) -> Config {
    let mut config = Config::default();
    config.kafka.bootstrap_servers = servers.to_owned();
    config
}

/// A relay at work.
struct Running {
    health: Health,
    metrics: Metrics,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

fn start_relay(db: &Database, servers: &str) -> Running {
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
    async fn stop(self) {
        self.stop.cancel();
        timeout(LIMIT, self.task).await.unwrap().unwrap();
    }
}

async fn emit(db: &Database, items: impl IntoIterator<Item = i64>) {
    for item in items {
        let mut tx = db.begin();
        tx.execute("INSERT INTO items (id) VALUES ($1)", params![item])
            .await
            .unwrap();
        tx.emit(&Happened { item }).await.unwrap();
        tx.commit().await.unwrap();
    }
}

async fn until_empty(db: &Database) {
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
async fn published(servers: &str, at_least: usize) -> Vec<(i64, Uuid)> {
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
fn check_order(published: &[(i64, Uuid)], writer: impl Fn(i64) -> i64) {
    let mut seen = HashSet::new();
    let mut last: BTreeMap<(i64, i64), i64> = BTreeMap::new();
    for (item, _) in published.iter().filter(|(item, _)| seen.insert(*item)) {
        let before = last.insert((writer(*item), item % 10), *item);
        assert!(before < Some(*item), "{item} came after {before:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_committed_is_published_once_and_in_order() {
    let folder = tempfile::tempdir().unwrap();
    let (_kafka, servers) = prepared(Kafka::start().await).await;
    let db = open(&folder).await;
    emit(&db, 0..100).await;
    let relay = start_relay(&db, &servers);
    timeout(LIMIT, relay.health.until_ready()).await.unwrap();
    emit(&db, 100..200).await;
    let mut dropped = db.begin();
    dropped.emit(&Happened { item: 999 }).await.unwrap();
    drop(dropped);
    until_empty(&db).await;
    let published = published(&servers, 200).await;
    assert_eq!(published.len(), 200);
    check_order(&published, |_| 0);
    let metrics = relay.metrics.render();
    assert!(
        metrics.contains("ackwell_outbox_published_total 200"),
        "{metrics}"
    );
    relay.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_relay_that_stands_by_takes_over() {
    let folder = tempfile::tempdir().unwrap();
    let (_kafka, servers) = prepared(Kafka::start().await).await;
    // Two handles on one file, as two processes have.
    let (first, second) = (open(&folder).await, open(&folder).await);
    let working = start_relay(&first, &servers);
    timeout(LIMIT, working.health.until_ready()).await.unwrap();
    let standing_by = start_relay(&second, &servers);
    emit(&second, 0..50).await;
    until_empty(&first).await;
    working.stop().await;
    emit(&first, 50..100).await;
    until_empty(&first).await;
    let published = published(&servers, 100).await;
    assert_eq!(published.len(), 100, "nothing twice");
    check_order(&published, |_| 0);
    standing_by.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_is_away_is_waited_for() {
    let folder = tempfile::tempdir().unwrap();
    let (mut kafka, servers) = prepared(Kafka::own().await).await;
    kafka.stop().await;
    let db = open(&folder).await;
    emit(&db, 0..50).await;
    let relay = start_relay(&db, &servers);
    let degraded = relay.health.until(|health| {
        let components = health.components();
        components
            .iter()
            .any(|component| component.status.as_str() == "degraded")
    });
    timeout(LIMIT, degraded).await.expect("health says so");
    assert_eq!(outbox(&db).await.len(), 50, "nothing is given up");
    kafka.restart().await;
    until_empty(&db).await;
    timeout(LIMIT, relay.health.until_ready()).await.unwrap();
    // And again in the middle of the work.
    let writing = tokio::spawn({
        let db = db.clone();
        async move { emit(&db, 50..400).await }
    });
    while db.counts().members < 150 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    kafka.stop().await;
    writing.await.unwrap();
    kafka.restart().await;
    until_empty(&db).await;
    let published = published(&servers, 400).await;
    assert_eq!(
        published
            .iter()
            .map(|(item, _)| item)
            .collect::<HashSet<_>>()
            .len(),
        400
    );
    check_order(&published, |_| 0);
    relay.stop().await;
}

const FOLDER: &str = "ACKWELL_SQL_RELAY_FOLDER";
const SERVERS: &str = "ACKWELL_SQL_RELAY_SERVERS";
const ROUND: &str = "ACKWELL_SQL_RELAY_ROUND";

fn child(folder: &Path, servers: &str, round: i64) -> Child {
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "the child of the test below"]
async fn emits_and_relays_until_it_is_killed() {
    let (Ok(folder), Ok(servers)) = (std::env::var(FOLDER), std::env::var(SERVERS)) else {
        return;
    };
    let round: i64 = std::env::var(ROUND).unwrap().parse().unwrap();
    let db = Database::open(
        &events::database_url::database_url(folder.as_ref()),
        events::SCHEMA,
    )
    .await
    .unwrap();
    let _relay = start_relay(&db, &servers);
    let writers = (0..3).map(|writer| {
        let (db, first) = (db.clone(), (round * 3 + writer) * 1_000_000);
        tokio::spawn(async move { emit(&db, first..).await })
    });
    for writer in writers.collect::<Vec<_>>() {
        writer.await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_killed_processes_committed_is_published_at_least_once_and_in_order() {
    let folder = tempfile::tempdir().unwrap();
    let (_kafka, servers) = prepared(Kafka::start().await).await;
    let db = open(&folder).await;
    for round in 0..4 {
        let before = events::ids(&db).await.len();
        // The second stands by, and takes over when the first is killed.
        let mut first = child(folder.path(), &servers, round * 2);
        let mut second = child(folder.path(), &servers, round * 2 + 1);
        until_more(&db, before + 200).await;
        first.kill().unwrap();
        first.wait().unwrap();
        until_more(&db, before + 400).await;
        second.kill().unwrap();
        second.wait().unwrap();
    }
    let relay = start_relay(&db, &servers);
    until_empty(&db).await;
    let committed: HashSet<i64> = events::ids(&db).await.into_iter().collect();
    let published = published(&servers, committed.len()).await;
    let ids: BTreeMap<Uuid, i64> = published.iter().map(|(item, id)| (*id, *item)).collect();
    assert_eq!(
        ids.len(),
        committed.len(),
        "published again with the same id"
    );
    assert_eq!(ids.into_values().collect::<HashSet<_>>(), committed);
    check_order(&published, |item| item / 1_000_000);
    relay.stop().await;
}

async fn until_more(db: &Database, count: usize) {
    let more = async {
        while events::ids(db).await.len() < count {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(LIMIT, more).await.expect("the children get on");
}
