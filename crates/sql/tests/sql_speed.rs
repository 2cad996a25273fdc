//! How fast a unit of work is. Run it in release:
//! `cargo test --release --workspace --test sql_speed -- --ignored --nocapture`.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    reason = "helpers of tests"
)]

mod events;

use std::time::Instant;

use ackwell::extract::Offset;
use ackwell::unit::Rehearsal;
use ackwell::{EVENT_ID, Headers, Record};
use ackwell_sql::{Database, Error, Migration, Tx, params};
use events::Happened;
use uuid::Uuid;

const STOCK: &[Migration] = &[Migration::new(
    "stock",
    "CREATE TABLE stock (id INTEGER PRIMARY KEY, amount INTEGER NOT NULL) STRICT",
)
.postgres("CREATE TABLE stock (id BIGINT PRIMARY KEY, amount BIGINT NOT NULL)")];

const RUNS: i64 = 200;
const RUN: i64 = 500;

async fn apply(Offset(offset): Offset, mut tx: Tx) -> Result<(), Error> {
    let update = "UPDATE stock SET amount = amount - 1 WHERE id = $1";
    tx.execute(update, params![offset % 1000]).await?;
    tx.emit(&Happened { item: offset }).await
}

fn run(first: i64, id: impl Fn() -> Uuid) -> Vec<Record> {
    let record = |offset| {
        let mut headers = Headers::new();
        headers.push_static(EVENT_ID, id().to_string());
        Record::new("t", 0, offset, Some(b"k"), Some(b"v")).with_headers(headers)
    };
    (first..first + RUN).map(record).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement"]
async fn records_a_second_with_inbox_update_and_outbox() {
    for (ids, id) in [
        ("UUIDv7", Uuid::now_v7 as fn() -> Uuid),
        ("random", Uuid::new_v4),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let db = Database::open(&events::url(&folder), STOCK).await.unwrap();
        let mut tx = db.begin();
        for id in 0..1000_i64 {
            tx.execute("INSERT INTO stock VALUES ($1, 0)", params![id])
                .await
                .unwrap();
        }
        tx.commit().await.unwrap();
        let listener = Rehearsal::new("inventory-service", db.clone(), apply).unwrap();
        let runs: Vec<_> = (0..RUNS).map(|number| run(number * RUN, id)).collect();
        let start = Instant::now();
        for run in runs {
            assert_eq!(listener.deliver(run).await.settled, RUN as usize);
        }
        let seconds = start.elapsed().as_secs_f64();
        println!(
            "{ids} ids: {:.0} records/s; {:?}",
            (RUNS * RUN) as f64 / seconds,
            db.counts()
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement"]
async fn requests_a_second_from_64_tasks() {
    let folder = tempfile::tempdir().unwrap();
    let db = Database::open(&events::url(&folder), events::SCHEMA)
        .await
        .unwrap();
    let start = Instant::now();
    let tasks: Vec<_> = (0..64)
        .map(|task| {
            let db = db.clone();
            tokio::spawn(async move {
                for number in 0..500 {
                    let (mut tx, id) = (db.begin(), task * 1000 + number);
                    tx.execute("INSERT INTO items VALUES ($1)", params![id])
                        .await
                        .unwrap();
                    tx.emit(&Happened { item: id }).await.unwrap();
                    tx.commit().await.unwrap();
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    let seconds = start.elapsed().as_secs_f64();
    println!(
        "64 tasks: {:.0} requests/s; {:?}",
        32_000.0 / seconds,
        db.counts()
    );
}
