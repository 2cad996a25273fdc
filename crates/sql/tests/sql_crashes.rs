//! Processes that are killed in the middle: what they accepted is there, whole, and once.
//!
//! The child is this test binary again, running one ignored test with the folder in its
//! environment.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    reason = "helpers of tests"
)]

mod events;

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use ackwell::extract::Offset;
use ackwell::unit::Rehearsal;
use ackwell::{EVENT_ID, Headers, Record};
use ackwell_sql::{Database, Error, Tx, params};
use events::{Happened, ids, outbox};
use uuid::Uuid;

const FOLDER: &str = "ACKWELL_SQL_CRASH_FOLDER";
const NUMBER: &str = "ACKWELL_SQL_CRASH_NUMBER";

/// Starts this binary again to work on the database in `folder`.
fn child(folder: &std::path::Path, number: u32) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "works_until_it_is_killed",
            "--ignored",
            "--nocapture",
        ])
        .env(FOLDER, folder)
        .env(NUMBER, number.to_string())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// Reads what a child accepted, and kills it after `lines`.
fn accepted(mut child: Child, lines: usize) -> Vec<i64> {
    let mut output = BufReader::new(child.stdout.take().unwrap()).lines();
    let number = |line: std::io::Result<String>| line.ok()?.strip_prefix("+")?.parse().ok();
    let mut accepted: Vec<i64> = output.by_ref().filter_map(number).take(lines).collect();
    child.kill().unwrap();
    accepted.extend(output.filter_map(number));
    child.wait().unwrap();
    accepted
}

fn record(lane: i64, offset: i64) -> Record {
    let id = Uuid::new_v5(&Uuid::NAMESPACE_OID, format!("{lane}-{offset}").as_bytes());
    let mut headers = Headers::new();
    headers.push(EVENT_ID, id.to_string());
    Record::new("t", 0, lane * 1_000_000 + offset, None, None).with_headers(headers)
}

/// Inserting twice would violate the key, and so be seen.
async fn apply(Offset(offset): Offset, mut tx: Tx) -> Result<(), Error> {
    tx.execute("INSERT INTO items (id) VALUES ($1)", params![offset])
        .await?;
    tx.emit(&Happened { item: offset }).await
}

#[test]
#[ignore = "the child of the crash tests"]
fn works_until_it_is_killed() {
    let Ok(folder) = std::env::var(FOLDER) else {
        return;
    };
    let number: i64 = std::env::var(NUMBER).unwrap().parse().unwrap();
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        let url = events::database_url::database_url(folder.as_ref());
        let db = Database::open(&url, events::SCHEMA).await.unwrap();
        let lanes = (1..=3).map(|lane| tokio::spawn(redeliver_all(db.clone(), lane)));
        let requests = (0..3).map(|task| tokio::spawn(request(db.clone(), number * 10 + task)));
        for task in lanes.chain(requests).collect::<Vec<_>>() {
            task.await.unwrap();
        }
    });
}

/// A listener that begins at its first record, as after a crash before the offset's commit.
async fn redeliver_all(db: Database, lane: i64) {
    let listener = Rehearsal::new("g", db, apply).unwrap();
    for run in 0.. {
        let offsets = run * 20..run * 20 + 20;
        let records: Vec<_> = offsets.clone().map(|offset| record(lane, offset)).collect();
        let end = listener.deliver(records).await;
        assert_eq!(end.settled, 20, "{:?}", end.failure);
        for offset in offsets {
            println!("+{}", lane * 1_000_000 + offset);
        }
    }
}

/// Requests that no other round repeats.
async fn request(db: Database, round: i64) {
    for number in 0.. {
        let mut tx = db.begin();
        let id = (100 + round) * 1_000_000 + number;
        tx.execute("INSERT INTO items (id) VALUES ($1)", params![id])
            .await
            .unwrap();
        tx.emit(&Happened { item: id }).await.unwrap();
        tx.commit().await.unwrap();
        println!("+{id}");
    }
}

async fn check(folder: &std::path::Path, accepted: &BTreeSet<i64>) {
    let url = events::database_url::database_url(folder);
    let db = Database::open(&url, events::SCHEMA).await.unwrap();
    let found: BTreeSet<i64> = ids(&db).await.into_iter().collect();
    let missing: Vec<_> = accepted.difference(&found).collect();
    assert!(missing.is_empty(), "accepted and lost: {missing:?}");
    let emitted = outbox(&db).await;
    assert_eq!(emitted.len(), found.len(), "each event once");
    assert_eq!(
        emitted.into_iter().collect::<BTreeSet<_>>(),
        found,
        "rows and events agree"
    );
}

#[tokio::test]
async fn a_process_killed_in_the_middle_of_commits_leaves_whole_units() {
    let folder = tempfile::tempdir().unwrap();
    let mut all = BTreeSet::new();
    for round in 1..=6 {
        let lines = 100 * round as usize;
        all.extend(accepted(child(folder.path(), round), lines));
        check(folder.path(), &all).await;
    }
    assert!(all.len() > 600, "the children got somewhere: {}", all.len());
}

#[tokio::test]
async fn two_processes_share_a_database_and_one_of_them_is_killed() {
    let folder = tempfile::tempdir().unwrap();
    let (first, second) = (child(folder.path(), 1), child(folder.path(), 2));
    let second = std::thread::spawn(move || accepted(second, 600));
    let mut all: BTreeSet<i64> = accepted(first, 300).into_iter().collect();
    all.extend(second.join().unwrap());
    check(folder.path(), &all).await;
}
