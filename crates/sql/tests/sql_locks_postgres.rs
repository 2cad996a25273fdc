//! Records that share a transaction hold each other's locks. Two lanes that meet in the same rows don't wait for each
//! other until PostgreSQL ends one of them, and a record that has to wait keeps nobody else waiting.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

#[path = "database_url/mod.rs"]
mod database_url;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use ackwell::extract::{Attempt, Offset};
use ackwell::unit::{Rehearsal, Rehearsed};
use ackwell::{Failure, Record};
use ackwell_sql::{Database, Error, Migration, Settings, Tx, params};
use database_url::{database_url, is_postgres};
use tempfile::TempDir;
use tokio::sync::Barrier;

const SCHEMA: &[Migration] = &[Migration::new(
    "accounts",
    "CREATE TABLE accounts (id BIGINT PRIMARY KEY, touched BIGINT NOT NULL DEFAULT 0)",
)];

/// A group stays open as long as its run has records.
async fn open(folder: &TempDir) -> Database {
    let settings = {
        let mut settings = Settings::default();
        settings.group_time = Duration::from_secs(60);
        settings.lock_wait = Duration::from_secs(60);
        settings
    };
    let url = database_url(folder.path());
    let database = Database::open_with(&url, SCHEMA, settings).await.unwrap();
    let mut tx = database.begin();
    for account in 0..3_i64 {
        let insert = "INSERT INTO accounts (id) VALUES ($1)";
        tx.execute(insert, params![account]).await.unwrap();
    }
    tx.commit().await.unwrap();
    database
}

async fn touch(tx: &mut Tx, account: i64) -> Result<(), Error> {
    let update = "UPDATE accounts SET touched = touched + 1 WHERE id = $1";
    tx.execute(update, params![account]).await.map(drop)
}

/// How often each account was touched.
async fn touched(database: &Database) -> Vec<i64> {
    let select = "SELECT touched FROM accounts ORDER BY id";
    let rows = database.query(select, params![]).await.unwrap();
    rows.iter().map(|row| row.get(0).unwrap()).collect()
}

async fn until_touched(database: &Database, wanted: &[i64]) {
    let met = async {
        while touched(database).await != wanted {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let in_time = tokio::time::timeout(Duration::from_secs(60), met).await;
    assert!(in_time.is_ok(), "{:?}", touched(database).await);
}

fn records(topic: &str, count: i64) -> Vec<Record> {
    let record = |offset| Record::new(topic, 0, offset, Some(b"k"), Some(b"v"));
    (0..count).map(record).collect()
}

/// Offset and attempt of each call.
type Calls = Arc<Mutex<Vec<(i64, u32)>>>;

/// A lane whose records touch these accounts, one each; after the first, it waits for the other lane.
async fn lane(
    database: Database,
    group: &'static str,
    accounts: &'static [i64],
    both: Arc<Barrier>,
    calls: Calls,
) -> Rehearsed {
    let handler = move |Offset(offset): Offset, Attempt(attempt): Attempt, mut tx: Tx| {
        let (both, calls) = (Arc::clone(&both), Arc::clone(&calls));
        async move {
            calls.lock().unwrap().push((offset, attempt));
            touch(&mut tx, accounts[usize::try_from(offset).unwrap()]).await?;
            if offset == 0 {
                both.wait().await;
            }
            Ok::<_, Error>(())
        }
    };
    let lane = Rehearsal::new(group, database, handler).unwrap();
    let count = i64::try_from(accounts.len()).unwrap();
    lane.deliver(records("t", count)).await
}

#[tokio::test]
async fn two_groups_that_wait_for_each_other_both_go_on_and_no_record_has_failed() {
    if !is_postgres() {
        return; // SQLite has one writer at a time.
    }
    let folder = tempfile::tempdir().unwrap();
    let database = open(&folder).await;
    let (both, calls) = (Arc::new(Barrier::new(2)), Calls::default());
    let lane = |group, accounts| {
        let (both, calls) = (Arc::clone(&both), Arc::clone(&calls));
        lane(database.clone(), group, accounts, both, calls)
    };
    let (one, other) = tokio::join!(lane("one", &[0, 1, 2]), lane("other", &[1, 0, 2]));
    for end in [one, other] {
        assert!(end.failure.is_none(), "{:?}", end.failure);
        assert_eq!((end.settled, end.duplicates), (3, 0));
    }
    assert_eq!(touched(&database).await, [2, 2, 2]);
    let gave_way = database.counts().gave_way;
    assert!(gave_way > 0, "{:?}", database.counts());
    let calls = calls.lock().unwrap();
    assert_eq!(calls.len() as u64, 6 + gave_way, "{calls:?}");
    assert!(calls.iter().all(|(_, attempt)| *attempt == 1), "{calls:?}");
}

#[tokio::test]
async fn records_before_one_that_waits_for_a_lock_are_committed_and_it_waits_as_long_as_it_has_to()
{
    if !is_postgres() {
        return; // A file is locked as a whole.
    }
    let folder = tempfile::tempdir().unwrap();
    let database = open(&folder).await;
    let mut holder = database.begin();
    touch(&mut holder, 1).await.unwrap();
    let calls = Calls::default();
    let delivering = tokio::spawn(lane(
        database.clone(),
        "g",
        &[0, 1, 2],
        Arc::new(Barrier::new(1)),
        Arc::clone(&calls),
    ));
    until_touched(&database, &[1, 0, 0]).await;
    // It waits longer than a record may with others in its group.
    tokio::time::sleep(Duration::from_millis(300)).await;
    holder.commit().await.unwrap();
    let end = delivering.await.unwrap();
    assert!(end.failure.is_none(), "{:?}", end.failure);
    assert_eq!((end.settled, end.duplicates), (3, 0));
    assert_eq!(touched(&database).await, [1, 2, 1]);
    assert_eq!(database.counts().gave_way, 1);
    assert_eq!(*calls.lock().unwrap(), [(0, 1), (1, 1), (1, 1), (2, 1)]);
}

#[tokio::test]
async fn a_handler_that_makes_nothing_of_the_error_is_called_again_all_the_same() {
    if !is_postgres() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let database = open(&folder).await;
    let mut holder = database.begin();
    touch(&mut holder, 1).await.unwrap();
    let careless = async |Offset(offset): Offset, mut tx: Tx| -> Result<(), Failure> {
        match touch(&mut tx, offset).await {
            Ok(()) => Ok(()),
            Err(_) => Err(Failure::permanent("it can't be touched")),
        }
    };
    let lane = Rehearsal::new("g", database.clone(), careless).unwrap();
    let delivering = tokio::spawn(async move { lane.deliver(records("t", 2)).await });
    until_touched(&database, &[1, 0, 0]).await;
    holder.commit().await.unwrap();
    let end = delivering.await.unwrap();
    assert!(end.failure.is_none(), "{:?}", end.failure);
    assert_eq!(end.settled, 2);
    assert_eq!(touched(&database).await, [1, 2, 0]);
}

/// Two lanes of one listener whose records change the same three rows, each in another order.
#[tokio::test]
async fn lanes_that_keep_meeting_take_fewer_records_into_a_transaction() {
    const RECORDS: i64 = 400;
    if !is_postgres() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let database = open(&folder).await;
    let change = async |record: Record, Attempt(attempt): Attempt, mut tx: Tx| {
        assert_eq!(attempt, 1);
        let account = record.offset() % 3;
        let backwards = record.topic() == "backwards";
        touch(&mut tx, if backwards { 2 - account } else { account }).await
    };
    let lanes = Rehearsal::new("g", database.clone(), change).unwrap();
    let (one, other) = tokio::join!(
        lanes.deliver(records("forwards", RECORDS)),
        lanes.deliver(records("backwards", RECORDS))
    );
    for end in [one, other] {
        assert!(end.failure.is_none(), "{:?}", end.failure);
        assert_eq!((end.settled, end.duplicates), (400, 0));
    }
    assert_eq!(touched(&database).await.iter().sum::<i64>(), 2 * RECORDS);
    // Each conflict halves the groups, and eight that meet nobody come before a larger one.
    let gave_way = database.counts().gave_way;
    assert!(gave_way < 200, "{:?}", database.counts());
}
