//! The relay on PostgreSQL, where several transactions are at work at a time and several processes
//! share a server: nothing is skipped, and no key's events change places, whoever commits
//! late, waits, is stopped or is killed. Without `DATABASE_URL` of a server there is nothing to see.
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
use std::process::Command;
use std::time::{Duration, Instant};

use ackwell_sql::{Database, params};
use events::database_url::is_postgres;
use events::{Happened, ids, open};
use kafka::{Kafka, LIMIT};
use relay_support::{
    check_order, child, emit, prepared, published, start_relay, until_empty, until_more,
};
use tempfile::TempDir;
use tokio::time::timeout;
use uuid::Uuid;

/// The database twice, as two processes have it; `None` on SQLite.
async fn twice() -> Option<(TempDir, Database, Database)> {
    if !is_postgres() {
        return None;
    }
    let folder = tempfile::tempdir().unwrap();
    let (first, second) = (open(&folder).await, open(&folder).await);
    Some((folder, first, second))
}

/// The items in the outbox.
async fn waiting(db: &Database) -> Vec<i64> {
    events::outbox(db).await
}

async fn until_waiting(db: &Database, expected: &[i64]) {
    let reached = async {
        while waiting(db).await != expected {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(LIMIT, reached).await.expect("they are published");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_that_is_committed_late_is_published_and_holds_up_nobody() {
    let Some((_folder, db, other)) = twice().await else {
        return;
    };
    let (_kafka, servers) = prepared(Kafka::start().await).await;
    let relay = start_relay(&db, &servers);
    // The low ids are given to two transactions that stay open.
    let mut late = db.begin();
    late.emit(&Happened { item: 1000 }).await.unwrap();
    let mut never = other.begin();
    never.emit(&Happened { item: 2000 }).await.unwrap();
    emit(&other, 0..30).await;
    until_empty(&db).await;
    late.emit(&Happened { item: 1001 }).await.unwrap();
    emit(&db, 30..40).await;
    until_empty(&db).await;
    late.commit().await.unwrap();
    until_empty(&db).await;
    drop(never);
    let published = published(&servers, 42).await;
    let items: Vec<i64> = published.iter().map(|(item, _)| *item).collect();
    let expected: HashSet<i64> = (0..40).chain([1000, 1001]).collect();
    assert_eq!(items.iter().copied().collect::<HashSet<_>>(), expected);
    assert_eq!(items.len(), 42, "nothing twice");
    relay.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_late_event_is_not_deleted_with_those_around_it() {
    let Some((_folder, db, other)) = twice().await else {
        return;
    };
    let (_kafka, servers) = prepared(Kafka::start().await).await;
    let mut late = db.begin();
    late.emit(&Happened { item: 1000 }).await.unwrap();
    // More than the relay deletes at a time.
    let mut around = other.begin();
    for item in 0..600 {
        around.emit(&Happened { item }).await.unwrap();
    }
    around.commit().await.unwrap();
    let relay = start_relay(&db, &servers);
    until_empty(&db).await;
    relay.stop().await;
    late.commit().await.unwrap();
    assert_eq!(waiting(&db).await, [1000]);
    let relay = start_relay(&other, &servers);
    until_waiting(&db, &[]).await;
    assert_eq!(published(&servers, 601).await.len(), 601);
    relay.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_of_another_process_wakes_the_relay() {
    let Some((_folder, db, other)) = twice().await else {
        return;
    };
    let (_kafka, servers) = prepared(Kafka::start().await).await;
    let relay = start_relay(&db, &servers);
    timeout(LIMIT, relay.health.until_ready()).await.unwrap();
    let mut fastest = LIMIT;
    for item in 0..5 {
        emit(&other, [item]).await;
        let start = Instant::now();
        until_empty(&db).await;
        fastest = fastest.min(start.elapsed());
    }
    // By looking alone it is found after two seconds.
    assert!(fastest < Duration::from_secs(1), "{fastest:?}");
    relay.stop().await;
}

const KEYS: i64 = 10;

/// Counts up one key, or two, and emits while it has them locked; then dawdles, and may go back.
/// On a loaded machine a wait may become too long; then nothing was counted.
async fn count_up(db: &Database, seed: u64) -> Result<(), ackwell_sql::Error> {
    let mut tx = db.begin();
    let first = (seed % KEYS as u64) as i64;
    let second = (seed / 16 % KEYS as u64) as i64;
    let keys = if seed.is_multiple_of(3) && first < second {
        vec![first, second]
    } else {
        vec![first]
    };
    for key in keys {
        let count = "INSERT INTO items (id) SELECT coalesce(max(id), $1 - 10) + 10 FROM items \
                     WHERE id % 10 = $1 RETURNING id";
        tx.query("SELECT pg_advisory_xact_lock($1)", params![key])
            .await?;
        let rows = tx.query(count, params![key]).await?;
        let item = rows[0].get("id").unwrap();
        tx.emit(&Happened { item }).await?;
    }
    tokio::time::sleep(Duration::from_millis(seed / 64 % 8)).await;
    if !seed.is_multiple_of(7) {
        tx.commit().await?;
    }
    Ok(())
}

/// Ends the session that has the lease, on the server.
async fn end_the_lease(db: &Database) -> bool {
    let ended = db
        .query(
            "SELECT pg_terminate_backend(pid) AS ended FROM pg_locks \
             WHERE locktype = 'advisory' AND granted AND classid = 1633905525 AND objid::bigint = \
             ('ackwell_outbox'::regclass::oid::bigint + 2147483648) % 4294967296 \
             AND database = (SELECT oid FROM pg_database WHERE datname = current_database())",
            params![],
        )
        .await;
    !ended.unwrap().is_empty()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn relays_whose_sessions_are_ended_skip_nothing_and_keep_every_keys_order() {
    let Some((_folder, db, other)) = twice().await else {
        return;
    };
    let (_kafka, servers) = prepared(Kafka::start().await).await;
    let relays = [
        start_relay(&db, &servers),
        start_relay(&other, &servers),
        start_relay(&db, &servers),
    ];
    let writers = (0..6_u64).map(|writer| {
        let db = if writer % 2 == 0 {
            db.clone()
        } else {
            other.clone()
        };
        tokio::spawn(async move {
            let mut seed = writer + 1;
            for _ in 0..60 {
                seed = seed
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1_442_695_040_888_963_407);
                let _ = count_up(&db, seed >> 33).await;
            }
        })
    });
    let writers: Vec<_> = writers.collect();
    let mut ended = 0;
    while writers.iter().any(|writer| !writer.is_finished()) {
        tokio::time::sleep(Duration::from_millis(150)).await;
        ended += usize::from(end_the_lease(&db).await);
    }
    for writer in writers {
        writer.await.unwrap();
    }
    assert!(ended > 0, "no session was ended");
    until_empty(&db).await;
    let committed: HashSet<i64> = ids(&db).await.into_iter().collect();
    let published = published(&servers, committed.len()).await;
    let by_id: BTreeMap<Uuid, i64> = published.iter().map(|(item, id)| (*id, *item)).collect();
    assert_eq!(by_id.len(), committed.len(), "again only with the same id");
    assert_eq!(by_id.into_values().collect::<HashSet<_>>(), committed);
    check_order(&published, |_| 0);
    for relay in relays {
        relay.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "the child of the test below"]
async fn emits_and_relays_until_it_is_killed() {
    relay_support::emit_and_relay().await;
}

#[cfg(unix)]
fn signal(process: u32, name: &str) {
    let sent = Command::new("kill")
        .args([name, &process.to_string()])
        .status();
    assert!(sent.unwrap().success());
}

#[cfg(unix)]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_relay_that_is_stopped_is_replaced_and_does_no_harm_when_it_goes_on() {
    let Some((folder, db, _)) = twice().await else {
        return;
    };
    let (_kafka, servers) = prepared(Kafka::start().await).await;
    let mut stopped = child(folder.path(), &servers, 0);
    until_more(&db, 100).await;
    let relay = start_relay(&db, &servers);
    signal(stopped.id(), "-STOP");
    emit(&db, 10_000_000..10_000_050).await;
    // What the stopped one had sent and not deleted is published again.
    until_empty(&db).await;
    signal(stopped.id(), "-CONT");
    let before = ids(&db).await.len();
    until_more(&db, before + 100).await;
    stopped.kill().unwrap();
    stopped.wait().unwrap();
    until_empty(&db).await;
    let committed: HashSet<i64> = ids(&db).await.into_iter().collect();
    let published = published(&servers, committed.len()).await;
    let items: HashSet<i64> = published.iter().map(|(item, _)| *item).collect();
    assert_eq!(items, committed);
    check_order(&published, |item| item / 1_000_000);
    relay.stop().await;
}
