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
mod relay_support;

use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use events::{Happened, open, outbox};
use kafka::{Kafka, LIMIT};
use relay_support::{
    check_order, child, emit, prepared, published, start_relay, until_empty, until_more,
};
use tokio::time::timeout;
use uuid::Uuid;

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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "the child of the test below"]
async fn emits_and_relays_until_it_is_killed() {
    relay_support::emit_and_relay().await;
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
