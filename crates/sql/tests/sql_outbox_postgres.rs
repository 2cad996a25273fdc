//! The outbox on PostgreSQL: in which order its rows stand when transactions wait for each other, and how many
//! there are. Without `DATABASE_URL` of a server there is nothing to see.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    reason = "helpers of tests"
)]

mod events;

use std::time::Duration;

use ackwell::extract::Offset;
use ackwell::unit::Rehearsal;
use ackwell::{EVENT_ID, Failure, Headers, Record};
use ackwell_sql::{Database, Error, Tx, params};
use events::database_url::is_postgres;
use events::{Happened, Large, ids, open, outbox};
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use uuid::Uuid;

const LIMIT: Duration = Duration::from_secs(30);

async fn database() -> Option<(TempDir, Database)> {
    if !is_postgres() {
        return None;
    }
    let folder = tempfile::tempdir().unwrap();
    let db = open(&folder).await;
    Some((folder, db))
}

fn records(offsets: std::ops::Range<i64>) -> Vec<Record> {
    let record = |offset| {
        let mut headers = Headers::new();
        headers.push(EVENT_ID, Uuid::now_v7().to_string());
        Record::new("t", 0, offset, Some(b"k"), Some(b"v")).with_headers(headers)
    };
    offsets.map(record).collect()
}

/// Waits for whoever holds the lock on what this test has.
async fn lock(tx: &mut Tx) -> Result<(), Error> {
    let lock = "SELECT id FROM items WHERE id = -1 FOR UPDATE";
    tx.query(lock, params![]).await.map(drop)
}

/// A transaction that holds the lock.
async fn holder(db: &Database) -> Tx {
    let mut tx = db.begin();
    let insert = "INSERT INTO items (id) VALUES (-1)";
    tx.execute(insert, params![]).await.unwrap();
    tx.commit().await.unwrap();
    let mut tx = db.begin();
    lock(&mut tx).await.unwrap();
    tx
}

/// Waits until a session of this test's database waits for a lock.
async fn until_somebody_waits(db: &Database) {
    let waits = "SELECT 1 FROM pg_stat_activity JOIN pg_locks USING (pid) \
                 WHERE relation = 'items'::regclass AND wait_event_type = 'Lock'";
    let somebody = async {
        while db.query(waits, params![]).await.unwrap().is_empty() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(LIMIT, somebody).await.expect("somebody waits");
}

async fn joined<T>(task: JoinHandle<T>) -> T {
    timeout(LIMIT, task).await.expect("it ends").unwrap()
}

/// By the time of its emission it would come first, and a reader of the topic would see the older state last.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_emits_and_then_waits_for_a_lock_comes_behind_who_held_it() {
    let Some((_folder, db)) = database().await else {
        return;
    };
    let mut holder = holder(&db).await;
    let mut waiter = db.begin();
    waiter.emit(&Happened { item: 2 }).await.unwrap();
    let waiter = tokio::spawn(async move {
        lock(&mut waiter).await?;
        waiter.commit().await
    });
    until_somebody_waits(&db).await;
    holder.emit(&Happened { item: 1 }).await.unwrap();
    holder.commit().await.unwrap();
    joined(waiter).await.unwrap();
    assert_eq!(outbox(&db).await, [1, 2]);
}

/// The records of a run share a transaction: what the first one has emitted must wait with the second.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_group_of_which_one_record_waits_for_a_lock_comes_behind_who_held_it() {
    async fn second_waits(Offset(offset): Offset, mut tx: Tx) -> Result<(), Error> {
        tx.emit(&Happened { item: offset }).await?;
        if offset == 11 {
            lock(&mut tx).await?;
        }
        Ok(())
    }
    let Some((_folder, db)) = database().await else {
        return;
    };
    let mut holder = holder(&db).await;
    let listener = Rehearsal::new("g", db.clone(), second_waits).unwrap();
    let run = tokio::spawn(async move { listener.deliver(records(10..13)).await.settled });
    until_somebody_waits(&db).await;
    holder.emit(&Happened { item: 1 }).await.unwrap();
    holder.commit().await.unwrap();
    assert_eq!(joined(run).await, 3);
    assert_eq!(outbox(&db).await, [1, 10, 11, 12]);
}

/// What is checked at the end of a transaction may wait, too.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_waits_in_a_deferred_check_comes_behind_who_held_the_lock() {
    let Some((_folder, db)) = database().await else {
        return;
    };
    let mut tx = db.begin();
    for statement in [
        "ALTER TABLE items ADD COLUMN name TEXT UNIQUE DEFERRABLE INITIALLY DEFERRED",
        "INSERT INTO items (id) VALUES (1), (2)",
    ] {
        tx.execute(statement, params![]).await.unwrap();
    }
    tx.commit().await.unwrap();
    let rename = "UPDATE items SET name = 'lamp' WHERE id = $1";
    let mut holder = db.begin();
    holder.execute(rename, params![1]).await.unwrap();
    let mut waiter = db.begin();
    waiter.execute(rename, params![2]).await.unwrap();
    waiter.emit(&Happened { item: 2 }).await.unwrap();
    let waiter = tokio::spawn(waiter.commit());
    until_somebody_waits(&db).await;
    let back = "UPDATE items SET name = NULL WHERE id = 1";
    holder.execute(back, params![]).await.unwrap();
    holder.emit(&Happened { item: 1 }).await.unwrap();
    holder.commit().await.unwrap();
    joined(waiter).await.unwrap();
    assert_eq!(outbox(&db).await, [1, 2]);
}

const LARGE: usize = 60_000;

/// The first characters of what stands in the outbox.
async fn names(db: &Database) -> Vec<String> {
    let sql = "SELECT value FROM ackwell_outbox ORDER BY id";
    let rows = db.query(sql, params![]).await.unwrap();
    let name = |value: Vec<u8>| {
        let large: Large = serde_json::from_slice(&value).unwrap();
        large.text.trim_end_matches('.').to_owned()
    };
    rows.iter().map(|row| name(row.get(0).unwrap())).collect()
}

async fn emit(tx: &mut Tx, name: &str) -> Result<(), Error> {
    let text = format!("{name:.<LARGE$}");
    tx.emit(&Large { text }).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transaction_that_emits_more_than_memory_takes_stands_together_and_last() {
    let Some((_folder, db)) = database().await else {
        return;
    };
    let mut holder = holder(&db).await;
    let mut waiter = db.begin();
    for number in 0..100 {
        emit(&mut waiter, &format!("w{number}")).await.unwrap();
    }
    let waiter = tokio::spawn(async move {
        lock(&mut waiter).await?;
        emit(&mut waiter, "last").await?;
        waiter.commit().await
    });
    until_somebody_waits(&db).await;
    emit(&mut holder, "holder").await.unwrap();
    holder.commit().await.unwrap();
    joined(waiter).await.unwrap();
    let mut expected = vec!["holder".to_owned()];
    expected.extend((0..100).map(|number| format!("w{number}")));
    expected.push("last".into());
    assert_eq!(names(&db).await, expected);
    assert_eq!(db.outbox().await.unwrap().depth, 102);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_record_that_fails_after_it_emitted_more_than_memory_takes_leaves_those_before_it() {
    async fn third_fails(Offset(offset): Offset, mut tx: Tx) -> Result<(), Failure> {
        emit(&mut tx, &format!("{offset} begins")).await?;
        if offset >= 2 {
            for _ in 0..100 {
                emit(&mut tx, "much").await?;
            }
        }
        match offset {
            3 => Err(Failure::permanent("it fails")),
            _ => Ok(()),
        }
    }
    let Some((_folder, db)) = database().await else {
        return;
    };
    let listener = Rehearsal::new("g", db.clone(), third_fails).unwrap();
    let delivered = listener.deliver(records(0..5)).await;
    assert_eq!(delivered.settled, 3);
    assert!(delivered.failure.is_some());
    let mut expected = vec!["0 begins", "1 begins", "2 begins"];
    expected.extend(["much"; 100]);
    assert_eq!(names(&db).await, expected);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_depth_counts_neither_gaps_nor_what_is_not_committed() {
    let Some((_folder, db)) = database().await else {
        return;
    };
    let mut late = db.begin();
    late.emit(&Happened { item: 1 }).await.unwrap();
    // Ids that are given and taken back, as those of a commit that fails.
    let gap = "SELECT nextval(pg_get_serial_sequence('ackwell_outbox', 'id')) \
               FROM generate_series(1, 1000)";
    let mut failed = db.begin();
    failed.query(gap, params![]).await.unwrap();
    drop(failed);
    assert_eq!(db.outbox().await.unwrap().depth, 0);
    let mut tx = db.begin();
    tx.emit(&Happened { item: 2 }).await.unwrap();
    tx.commit().await.unwrap();
    let mut failed = db.begin();
    failed.query(gap, params![]).await.unwrap();
    drop(failed);
    late.commit().await.unwrap();
    let waiting = db.outbox().await.unwrap();
    assert_eq!(waiting.depth, 2);
    assert!(waiting.age() < LIMIT, "{waiting:?}");
}

/// One statement for the whole list, whatever was handled before.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_list_is_marked_at_once_and_knows_what_others_have_marked_meanwhile() {
    async fn insert_all(
        ackwell::Batch(offsets): ackwell::Batch<Offset>,
        mut tx: Tx,
    ) -> Result<(), Error> {
        for Offset(offset) in offsets {
            tx.execute("INSERT INTO items (id) VALUES ($1)", params![offset])
                .await?;
        }
        Ok(())
    }
    let Some((_folder, db)) = database().await else {
        return;
    };
    // An event that comes twice in a list, and two lists at a time that overlap.
    let mut list = records(0..6);
    let twin = Record::new("t", 0, 6, Some(b"k"), Some(b"v"));
    list.push(twin.with_headers(list[1].headers().clone()));
    let deliver = |list: Vec<Record>| {
        let listener = Rehearsal::of_batches("g", db.clone(), insert_all).unwrap();
        tokio::spawn(async move { listener.deliver(list).await })
    };
    let (one, other) = (deliver(list.clone()), deliver(list[2..6].to_vec()));
    let (one, other) = (joined(one).await, joined(other).await);
    assert!(one.failure.is_none(), "{:?}", one.failure);
    assert!(other.failure.is_none(), "{:?}", other.failure);
    assert_eq!(one.duplicates + other.duplicates, 5);
    assert_eq!(ids(&db).await, [0, 1, 2, 3, 4, 5]);
}
