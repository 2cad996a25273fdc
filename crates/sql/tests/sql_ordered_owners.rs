//! Two owners of one partition, who do not know of each other: only the later one gets anything
//! done, and nothing comes out of order. Without a broker, so that every moment can be chosen.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod events;

use std::sync::Arc;
use std::sync::Mutex;
use std::time::Duration;

use ackwell::extract::Offset;
use ackwell::retry::fixed;
use ackwell::unit::Rehearsal;
use ackwell::{Failure, Headers, Record};
use ackwell_sql::{Database, Tx, ordered, params};
use events::{ids, open};
use tempfile::TempDir;

/// Offsets whose handling fails for now.
type Failing = Arc<Mutex<Vec<i64>>>;

fn listener(database: &Database, failing: &Failing, attempts: u32) -> Rehearsal {
    let failing = Arc::clone(failing);
    let handler = move |Offset(offset): Offset, mut tx: Tx| {
        let failing = Arc::clone(&failing);
        async move {
            let insert = "INSERT INTO items (id) VALUES ($1)";
            tx.execute(insert, params![offset]).await?;
            if failing.lock().unwrap().contains(&offset) {
                return Err(Failure::transient("not yet"));
            }
            Ok(())
        }
    };
    let retry = ordered(fixed(Duration::ZERO).max_attempts(attempts));
    Rehearsal::ordered("g", database.clone(), handler, retry).unwrap()
}

fn record(offset: i64) -> Record {
    Record::new("t", 0, offset, Some(b"k"), Some(b"v"))
}

fn records(offsets: std::ops::Range<i64>) -> Vec<Record> {
    offsets.map(record).collect()
}

async fn places(database: &Database) -> Vec<i64> {
    let rows = database
        .query(
            "SELECT record_offset FROM ackwell_parked ORDER BY id",
            params![],
        )
        .await
        .unwrap();
    rows.iter().map(|row| row.get(0).unwrap()).collect()
}

struct Owners {
    database: Database,
    failing: Failing,
    old: Rehearsal,
    new: Rehearsal,
    _folder: TempDir,
}

/// The old owner has the partition; the new one is not there yet.
async fn owners() -> Owners {
    let folder = tempfile::tempdir().unwrap();
    let (one, two) = (open(&folder).await, open(&folder).await);
    let failing = Failing::default();
    let (old, new) = (listener(&one, &failing, 100), listener(&two, &failing, 100));
    old.assign("t", 0);
    Owners {
        database: one,
        failing,
        old,
        new,
        _folder: folder,
    }
}

#[tokio::test]
async fn an_owner_that_was_overtaken_can_not_pass_what_its_successor_has_parked() {
    let Owners {
        database,
        failing,
        old,
        new,
        ..
    } = &owners().await;
    assert_eq!(old.deliver(records(0..3)).await.settled, 3);
    new.assign("t", 0);
    failing.lock().unwrap().push(3);
    assert_eq!(new.deliver(records(3..4)).await.settled, 1);
    assert_eq!(places(database).await, [3]);
    // The old one has polled what follows, and would apply it before record 3.
    let late = old.deliver(records(4..6)).await;
    assert_eq!((late.settled, late.failure.is_none()), (0, true));
    assert!(late.held.unwrap().contains("another process"));
    assert_eq!(ids(database).await, [0, 1, 2]);
    assert_eq!(new.deliver(records(4..6)).await.settled, 2);
    failing.lock().unwrap().clear();
    let retried = new.retry("t", 0).await;
    assert!(
        retried.next.is_none() && retried.failure.is_none(),
        "{retried:?}"
    );
    assert_eq!(ids(database).await, [0, 1, 2, 3, 4, 5]);
    assert!(places(database).await.is_empty());
}

#[tokio::test]
async fn a_retry_of_an_owner_that_was_overtaken_changes_nothing() {
    let Owners {
        database,
        failing,
        old,
        new,
        ..
    } = &owners().await;
    failing.lock().unwrap().push(0);
    assert_eq!(old.deliver(records(0..3)).await.settled, 3);
    assert_eq!(places(database).await, [0, 1, 2]);
    new.assign("t", 0);
    assert_eq!(
        new.deliver(records(3..4)).await.settled,
        1,
        "it waits behind them"
    );
    failing.lock().unwrap().clear();
    let late = old.retry("t", 0).await;
    assert!(late.problem.is_some() && late.next.is_some(), "{late:?}");
    assert!(ids(database).await.is_empty());
    new.retry("t", 0).await;
    assert_eq!(ids(database).await, [0, 1, 2, 3]);
}

#[tokio::test]
async fn who_still_believes_to_be_the_owner_may_take_over_again_and_finds_what_was_parked() {
    let Owners {
        database,
        failing,
        old,
        new,
        ..
    } = &owners().await;
    old.deliver(records(0..1)).await;
    new.assign("t", 0);
    failing.lock().unwrap().push(1);
    new.deliver(records(1..2)).await;
    assert!(old.deliver(records(1..4)).await.held.is_some());
    // It was offered the records again, and knows of the new state by now.
    let again = old.deliver(records(1..4)).await;
    assert_eq!((again.settled, again.duplicates), (3, 1));
    assert_eq!(places(database).await, [1, 2, 3]);
    assert!(new.deliver(records(2..4)).await.held.is_some());
}

#[tokio::test]
async fn what_a_crashed_owner_has_given_up_is_put_away_by_its_successor_and_not_handled() {
    let Owners {
        database,
        failing,
        old,
        new,
        ..
    } = &owners().await;
    failing.lock().unwrap().push(0);
    old.deliver(records(0..2)).await;
    let mut tx = database.begin();
    let given_up = "UPDATE ackwell_parked SET given_up = $1, attempts = 9 WHERE record_offset = 0";
    tx.execute(given_up, params![true]).await.unwrap();
    tx.commit().await.unwrap();
    failing.lock().unwrap().clear();
    new.assign("t", 0);
    new.retry("t", 0).await;
    assert_eq!(new.dead_letters(), [0]);
    assert_eq!(ids(database).await, [1]);
    let again = new.deliver(records(0..2)).await;
    assert_eq!((again.settled, again.duplicates), (2, 2));
    let third = listener(database, failing, 100);
    third.assign("t", 0);
    let again = third.deliver(records(0..2)).await;
    assert_eq!(
        (again.settled, again.duplicates),
        (2, 2),
        "a lost commit repeats neither"
    );
    assert_eq!(ids(database).await, [1]);
}

#[tokio::test]
async fn a_record_comes_back_as_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let database = open(&folder).await;
    let seen: Arc<Mutex<Vec<Record>>> = Arc::default();
    let keep = Arc::clone(&seen);
    let handler = move |record: Record| {
        let keep = Arc::clone(&keep);
        async move {
            keep.lock().unwrap().push(record);
            let first = keep.lock().unwrap().len() == 1;
            if first {
                Err(Failure::transient("once"))
            } else {
                Ok(())
            }
        }
    };
    let retry = ordered(fixed(Duration::ZERO).max_attempts(9));
    let listener = Rehearsal::ordered("g", database.clone(), handler, retry).unwrap();
    listener.assign("t", 7);
    let mut headers = Headers::new();
    headers.push("trace", vec![0, 255]);
    headers.push("trace", &b""[..]);
    headers.push_null("none");
    let record = Record::new("t", 7, 42, Some(&[0, 1, 255]), None)
        .with_headers(headers)
        .with_timestamp(1_234_567);
    assert_eq!(listener.deliver(vec![record]).await.settled, 1);
    let parked = database.parked(9).await.unwrap();
    assert_eq!(parked[0].key.as_deref(), Some(&[0, 1, 255][..]));
    assert_eq!(
        (parked[0].attempts, parked[0].class.as_deref()),
        (1, Some("transient"))
    );
    listener.retry("t", 7).await;
    let seen = seen.lock().unwrap();
    let [before, after] = &seen[..] else {
        panic!("{seen:?}")
    };
    assert_eq!(
        (after.topic(), after.partition(), after.offset()),
        ("t", 7, 42)
    );
    assert_eq!((after.key(), after.value()), (before.key(), before.value()));
    assert_eq!(after.timestamp(), Some(1_234_567));
    assert_eq!(after.headers(), before.headers());
}

#[tokio::test]
async fn a_backlog_of_a_key_is_worked_off_in_one_retry_and_few_commits() {
    let Owners {
        database,
        failing,
        old,
        ..
    } = &owners().await;
    failing.lock().unwrap().push(0);
    for start in (0..1_000).step_by(200) {
        old.deliver(records(start..start + 200)).await;
    }
    failing.lock().unwrap().clear();
    let before = database.counts().commits;
    let retried = old.retry("t", 0).await;
    assert!(retried.next.is_none(), "{retried:?}");
    assert_eq!(ids(database).await, (0..1_000).collect::<Vec<_>>());
    let commits = database.counts().commits - before;
    assert!(commits < 100, "{commits} commits");
}

#[tokio::test]
async fn a_key_that_was_parked_in_vain_is_free_again() {
    let Owners {
        database,
        failing,
        old,
        ..
    } = &owners().await;
    failing.lock().unwrap().push(0);
    old.deliver(records(0..1)).await;
    // As after a group that did not commit: memory knows of a record that the table has not.
    let mut tx = database.begin();
    tx.execute("DELETE FROM ackwell_parked", params![])
        .await
        .unwrap();
    tx.commit().await.unwrap();
    let retried = old.retry("t", 0).await;
    assert!(retried.next.is_none(), "{retried:?}");
    assert_eq!(old.deliver(records(1..2)).await.settled, 1);
    assert_eq!(ids(database).await, [1]);
}
