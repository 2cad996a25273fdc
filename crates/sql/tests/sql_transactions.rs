//! Transactions of one's own: what commits, what is taken back, and what they share.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    reason = "helpers of tests"
)]

mod database_url;

use std::time::Duration;

use ackwell_sql::{Database, Error, Migration, Row, Settings, Tx, params};
use database_url::{database_url, is_postgres};
use jiff::Timestamp;
use tempfile::TempDir;
use uuid::Uuid;

const SCHEMA: &[Migration] = &[Migration::new(
    "items",
    "CREATE TABLE items (id INTEGER PRIMARY KEY, note TEXT, CONSTRAINT positive CHECK (id >= 0)) STRICT;
     CREATE TABLE parts (id INTEGER PRIMARY KEY, item INTEGER REFERENCES items (id)) STRICT;
     CREATE TABLE things (whole INTEGER, yes INTEGER, real REAL, text TEXT, bytes BLOB, id BLOB, at INTEGER) STRICT;",
)
.postgres(
    "CREATE TABLE items (id BIGINT PRIMARY KEY, note TEXT, CONSTRAINT positive CHECK (id >= 0));
     CREATE TABLE parts (id BIGINT PRIMARY KEY, item BIGINT REFERENCES items (id));
     CREATE TABLE things (whole BIGINT, yes BOOLEAN, real DOUBLE PRECISION, text TEXT, bytes BYTEA, id UUID, at TIMESTAMPTZ);",
)];

fn url(folder: &TempDir) -> String {
    database_url(folder.path())
}

async fn open(folder: &TempDir) -> Database {
    Database::open(&url(folder), SCHEMA).await.unwrap()
}

async fn add(tx: &mut Tx, id: i64) -> Result<u64, Error> {
    tx.execute("INSERT INTO items (id) VALUES ($1)", params![id])
        .await
}

async fn ids(db: &Database) -> Vec<i64> {
    let rows = db
        .query("SELECT id FROM items ORDER BY id", params![])
        .await
        .unwrap();
    rows.iter().map(|row| row.get(0).unwrap()).collect()
}

#[tokio::test]
async fn what_is_committed_is_there_after_opening_again() {
    let folder = tempfile::tempdir().unwrap();
    let db = open(&folder).await;
    let mut tx = db.begin();
    add(&mut tx, 1).await.unwrap();
    tx.commit().await.unwrap();
    drop(db);
    assert_eq!(ids(&open(&folder).await).await, [1]);
}

#[tokio::test]
async fn a_dropped_transaction_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let db = open(&folder).await;
    let mut tx = db.begin();
    add(&mut tx, 1).await.unwrap();
    drop(tx);
    let mut tx = db.begin();
    add(&mut tx, 2).await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(ids(&db).await, [2]);
}

#[tokio::test]
async fn a_transaction_sees_what_it_wrote_and_readers_do_not_yet() {
    let folder = tempfile::tempdir().unwrap();
    let db = open(&folder).await;
    let mut tx = db.begin();
    add(&mut tx, 1).await.unwrap();
    assert_eq!(
        tx.query("SELECT id FROM items", params![])
            .await
            .unwrap()
            .len(),
        1
    );
    assert!(ids(&db).await.is_empty());
    tx.commit().await.unwrap();
    assert_eq!(ids(&db).await, [1]);
}

#[tokio::test]
async fn every_type_comes_back_as_it_was_bound() {
    let folder = tempfile::tempdir().unwrap();
    let db = open(&folder).await;
    let (id, at) = (
        Uuid::now_v7(),
        Timestamp::from_microsecond(1_795_312_676_123_456).unwrap(),
    );
    let mut tx = db.begin();
    let row: Row = tx
        .query_opt(
            // Out of order on purpose: SQLite numbers $n by first appearance.
            "INSERT INTO things (at, id, bytes, text, real, yes, whole) VALUES ($7, $6, $5, $4, $3, $2, $1) \
             RETURNING *, CAST(NULL AS INTEGER) AS none",
            params![41_i64, true, 0.5, "t", &b"b"[..], id, at],
        )
        .await
        .unwrap()
        .unwrap();
    assert_eq!(row.get::<i64>("whole").unwrap(), 41);
    assert!(row.get::<bool>("yes").unwrap());
    assert_eq!(row.get::<f64>("real").unwrap(), 0.5);
    assert_eq!(row.get::<String>("text").unwrap(), "t");
    assert_eq!(row.get::<Vec<u8>>("bytes").unwrap(), b"b");
    assert_eq!(row.get::<Uuid>("id").unwrap(), id);
    assert_eq!(row.get::<Timestamp>("at").unwrap(), at);
    assert_eq!(row.get::<Option<i64>>("none").unwrap(), None);
}

#[tokio::test]
async fn too_few_and_too_many_parameters_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let db = open(&folder).await;
    for params in [params![], params![1_i64, 2_i64]] {
        let error = db.begin().query("SELECT $1", params).await.unwrap_err();
        assert!(
            error.to_string().contains("the statement needs 1"),
            "{error}"
        );
    }
    let error = db.begin().query("SELECT ?", params![1_i64]).await;
    let error = error.unwrap_err().to_string();
    // A PostgreSQL server finds no sense in it.
    let expected = if is_postgres() {
        "the statement is wrong"
    } else {
        "placeholders are $1"
    };
    assert!(error.contains(expected), "{error}");
}

#[tokio::test]
async fn errors_say_what_callers_decide_on() {
    let folder = tempfile::tempdir().unwrap();
    let db = open(&folder).await;
    let mut tx = db.begin();
    add(&mut tx, 1).await.unwrap();
    let error = add(&mut tx, 1).await.unwrap_err();
    assert!(error.is_unique_violation() && error.is_constraint_violation());
    let key = if is_postgres() {
        "items_pkey"
    } else {
        "items.id"
    };
    assert_eq!(error.constraint(), Some(key));
    let error = add(&mut db.begin(), -1).await.unwrap_err();
    assert!(!error.is_unique_violation() && error.is_constraint_violation());
    assert_eq!(error.constraint(), Some("positive"));
    let statement = "INSERT INTO parts (id, item) VALUES (1, 99)";
    let error = db.begin().execute(statement, params![]).await.unwrap_err();
    assert!(error.is_constraint_violation() && !error.is_unique_violation());
    let error = db
        .begin()
        .execute("INSERT INTO nowhere VALUES (1)", params![])
        .await
        .unwrap_err();
    assert!(!error.is_constraint_violation() && !error.is_unavailable());
}

#[tokio::test]
async fn a_failed_statement_that_is_swallowed_is_not_half_a_success() {
    let folder = tempfile::tempdir().unwrap();
    let db = open(&folder).await;
    let mut tx = db.begin();
    add(&mut tx, 1).await.unwrap();
    let _swallowed = add(&mut tx, 1).await;
    assert!(add(&mut tx, 2).await.unwrap_err().is_unique_violation());
    assert!(tx.commit().await.unwrap_err().is_unique_violation());
    assert!(ids(&db).await.is_empty());
}

#[tokio::test]
async fn statements_that_would_end_the_shared_transaction_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let db = open(&folder).await;
    for sql in ["COMMIT", "rollback", "/* so */ COMMIT"] {
        let mut tx = db.begin();
        add(&mut tx, 1).await.unwrap();
        let _refused = tx.execute(sql, params![]).await.unwrap_err();
        assert!(tx.commit().await.is_err());
    }
    let mut tx = db.begin();
    add(&mut tx, 2).await.unwrap();
    tx.commit().await.unwrap();
}

#[tokio::test]
async fn readers_can_not_write() {
    let folder = tempfile::tempdir().unwrap();
    let db = open(&folder).await;
    assert!(
        db.query("INSERT INTO items (id) VALUES (1)", params![])
            .await
            .is_err()
    );
    assert!(ids(&db).await.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_transactions_share_commits() {
    if is_postgres() {
        return; // There they commit side by side, each on its own.
    }
    let folder = tempfile::tempdir().unwrap();
    let db = open(&folder).await;
    let mut first = db.begin();
    add(&mut first, 0).await.unwrap();
    let others: Vec<_> = (1..=200)
        .map(|id| {
            let db = db.clone();
            tokio::spawn(async move {
                let mut tx = db.begin();
                add(&mut tx, id).await?;
                tx.commit().await
            })
        })
        .collect();
    until(|| db.waiting() == 200).await;
    first.commit().await.unwrap();
    for other in others {
        other.await.unwrap().unwrap();
    }
    assert_eq!(ids(&db).await.len(), 201);
    assert_eq!(db.counts().members, 201);
    assert!(db.counts().commits < 20, "{:?}", db.counts());
}

#[tokio::test]
async fn a_member_that_fails_is_taken_back_alone() {
    let folder = tempfile::tempdir().unwrap();
    let db = open(&folder).await;
    let first = tokio::spawn(transaction(db.clone(), [1, 2]));
    let failing = tokio::spawn(transaction(db.clone(), [3, 1]));
    let last = tokio::spawn(transaction(db.clone(), [4, 5]));
    assert!(first.await.unwrap().is_ok());
    assert!(failing.await.unwrap().unwrap_err().is_unique_violation());
    assert!(last.await.unwrap().is_ok());
    assert_eq!(ids(&db).await, [1, 2, 4, 5]);
}

async fn transaction(db: Database, ids: [i64; 2]) -> Result<(), Error> {
    let mut tx = db.begin();
    for id in ids {
        add(&mut tx, id).await?;
        tokio::task::yield_now().await;
    }
    tx.commit().await
}

#[tokio::test]
async fn a_waiter_that_gives_up_does_not_strand_the_group() {
    let folder = tempfile::tempdir().unwrap();
    let db = open(&folder).await;
    let mut first = db.begin();
    add(&mut first, 1).await.unwrap();
    let mut second = Box::pin(transaction(db.clone(), [2, 3]));
    // It waits for the turn; the first then hands the open group over to it.
    assert!(futures_util::poll!(second.as_mut()).is_pending());
    let mut committing = Box::pin(first.commit());
    assert!(futures_util::poll!(committing.as_mut()).is_pending());
    drop(second);
    committing.await.unwrap();
    assert_eq!(ids(&db).await, [1]);
}

#[tokio::test]
async fn a_commit_that_nobody_awaits_still_happens() {
    let folder = tempfile::tempdir().unwrap();
    let db = open(&folder).await;
    let mut tx = db.begin();
    add(&mut tx, 1).await.unwrap();
    let mut committing = Box::pin(tx.commit());
    let _ = futures_util::poll!(committing.as_mut());
    drop(committing);
    until(|| db.counts().commits == 1).await;
    assert_eq!(ids(&db).await, [1]);
}

#[test]
fn a_runtime_that_ends_keeps_nobody_waiting() {
    let folder = tempfile::tempdir().unwrap();
    let runtime = || {
        tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()
            .unwrap()
    };
    let first = runtime();
    let db = first.block_on(open(&folder));
    let half_done = db.clone();
    first.block_on(async move {
        let mut tx = half_done.begin();
        add(&mut tx, 1).await.unwrap();
        tokio::spawn(async move {
            std::future::pending::<()>().await;
            drop(tx);
        });
        tokio::spawn(transaction(half_done, [2, 3]));
    });
    drop(first);
    runtime().block_on(async {
        transaction(db.clone(), [4, 5]).await.unwrap();
        // Where there are several writers, the other one may have come to its end.
        let found = ids(&db).await;
        assert!(found == [4, 5] || found == [2, 3, 4, 5], "{found:?}");
    });
}

#[tokio::test]
async fn waiting_for_the_turn_is_bounded() {
    let folder = tempfile::tempdir().unwrap();
    let mut settings = Settings::default();
    settings.turn_wait = Duration::from_millis(20);
    settings.waiters_max = 1;
    settings.writers = 1;
    let db = Database::open_with(&url(&folder), SCHEMA, settings)
        .await
        .unwrap();
    let mut keeper = db.begin();
    add(&mut keeper, 1).await.unwrap();
    let (second, third) = tokio::join!(
        transaction(db.clone(), [2, 3]),
        transaction(db.clone(), [4, 5])
    );
    assert!(second.unwrap_err().is_unavailable());
    assert!(
        third
            .unwrap_err()
            .to_string()
            .contains("1 others wait already")
    );
    keeper.commit().await.unwrap();
    assert_eq!(ids(&db).await, [1]);
}

#[tokio::test]
async fn a_full_database_is_unavailable_and_keeps_what_it_has() {
    if is_postgres() {
        return; // Only a file has a limit of ours.
    }
    let folder = tempfile::tempdir().unwrap();
    let mut settings = Settings::default();
    settings.size_max = Some(100_000);
    let db = Database::open_with(&url(&folder), SCHEMA, settings)
        .await
        .unwrap();
    transaction(db.clone(), [1, 2]).await.unwrap();
    let error = fill(&db, 3).await.unwrap_err();
    assert!(error.is_unavailable() && error.is_full(), "{error:?}");
    // Those who share the group with a large one are not harmed by it.
    let (large, small) = tokio::join!(fill(&db, 3), transaction(db.clone(), [4, 5]));
    assert!(large.is_err() && small.is_ok());
    drop(db);
    let db = open(&folder).await;
    fill(&db, 3).await.unwrap();
    assert_eq!(ids(&db).await, [1, 2, 3, 4, 5]);
}

async fn fill(db: &Database, id: i64) -> Result<(), Error> {
    let mut tx = db.begin();
    let note = "x".repeat(1_000_000);
    tx.execute(
        "INSERT INTO items (id, note) VALUES ($1, $2)",
        params![id, note],
    )
    .await?;
    tx.commit().await
}

async fn until(condition: impl Fn() -> bool) {
    let waited = tokio::time::timeout(Duration::from_secs(10), async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    });
    waited.await.unwrap();
}

#[tokio::test]
async fn what_another_process_has_locked_is_waited_for_and_then_given_up() {
    let folder = tempfile::tempdir().unwrap();
    // Schemas of one database are created one after the other: that may take longer than the wait here.
    drop(open(&folder).await);
    let mut settings = Settings::default();
    settings.lock_wait = Duration::from_secs(1);
    let ours = Database::open_with(&url(&folder), SCHEMA, settings)
        .await
        .unwrap();
    let theirs = Database::open_with(&url(&folder), SCHEMA, settings)
        .await
        .unwrap();
    let mut holder = theirs.begin();
    add(&mut holder, 1).await.unwrap();
    // SQLite locks the file, PostgreSQL what is written.
    let error = replace(ours.clone(), 1).await.unwrap_err();
    assert!(error.is_unavailable(), "{error:?}");
    let waiting = tokio::spawn(replace(ours.clone(), 1));
    tokio::task::yield_now().await;
    holder.commit().await.unwrap();
    waiting.await.unwrap().unwrap();
    assert_eq!(ids(&ours).await, [1]);
}

async fn replace(db: Database, id: i64) -> Result<(), Error> {
    let mut tx = db.begin();
    let insert = "INSERT INTO items (id) VALUES ($1) ON CONFLICT (id) DO UPDATE SET note = 'again'";
    tx.execute(insert, params![id]).await?;
    tx.commit().await
}

/// Locks `first`, and `then` when both have locked their first.
async fn lock_both(
    db: &Database,
    both: &tokio::sync::Barrier,
    first: i64,
    then: i64,
) -> Result<(), Error> {
    let update = "UPDATE items SET note = 'seen' WHERE id = $1";
    let mut tx = db.begin();
    tx.execute(update, params![first]).await?;
    both.wait().await;
    tx.execute(update, params![then]).await?;
    tx.commit().await
}

#[tokio::test]
async fn of_two_transactions_that_wait_for_each_other_one_gives_in_and_can_be_repeated() {
    if !is_postgres() {
        return; // SQLite has one writer at a time.
    }
    let folder = tempfile::tempdir().unwrap();
    let db = open(&folder).await;
    transaction(db.clone(), [1, 2]).await.unwrap();
    let both = tokio::sync::Barrier::new(2);
    let ends = tokio::join!(lock_both(&db, &both, 1, 2), lock_both(&db, &both, 2, 1));
    let error = match ends {
        (Ok(()), Err(error)) | (Err(error), Ok(())) => error,
        ends => panic!("{ends:?}"),
    };
    assert!(error.is_conflict(), "{error:?}");
    assert_eq!(ackwell::Classify::class(&error), ackwell::Class::Transient);
    transaction(db.clone(), [3, 4]).await.unwrap();
}

#[tokio::test]
async fn a_statement_that_is_dropped_takes_its_transaction_with_it() {
    if !is_postgres() {
        return; // SQLite's statements don't wait.
    }
    let folder = tempfile::tempdir().unwrap();
    let db = open(&folder).await;
    let mut tx = db.begin();
    add(&mut tx, 1).await.unwrap();
    let sleep = tx.query("SELECT pg_sleep(0.2)", params![]);
    let dropped = tokio::time::timeout(Duration::from_millis(20), sleep).await;
    assert!(dropped.is_err());
    assert!(add(&mut tx, 2).await.is_err());
    assert!(tx.commit().await.is_err());
    transaction(db.clone(), [3, 4]).await.unwrap();
    assert_eq!(ids(&db).await, [3, 4]);
}

#[tokio::test]
async fn a_connection_that_the_server_ends_is_unavailable_and_made_again() {
    if !is_postgres() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let db = open(&folder).await;
    let other = open(&folder).await;
    let mut tx = db.begin();
    add(&mut tx, 1).await.unwrap();
    let backend = "SELECT pg_backend_pid() AS id";
    let id: i32 = tx
        .query_opt(backend, params![])
        .await
        .unwrap()
        .unwrap()
        .get("id")
        .unwrap();
    let end = "SELECT pg_terminate_backend($1)";
    other.query(end, params![id]).await.unwrap();
    let error = add(&mut tx, 2).await.unwrap_err();
    assert!(error.is_unavailable(), "{error:?}");
    assert!(tx.commit().await.is_err());
    transaction(db.clone(), [3, 4]).await.unwrap();
    assert_eq!(ids(&db).await, [3, 4]);
}

#[tokio::test]
async fn errors_do_not_show_values() {
    let folder = tempfile::tempdir().unwrap();
    let db = open(&folder).await;
    let mut tx = db.begin();
    let insert = "INSERT INTO items (id, note) VALUES ($1, $2)";
    tx.execute(insert, params![424_242_i64, "secret"])
        .await
        .unwrap();
    let mut shown = Vec::new();
    shown.push(
        tx.execute(insert, params![424_242_i64, "secret"])
            .await
            .unwrap_err(),
    );
    if is_postgres() {
        let cast = "SELECT CAST($1 AS TEXT)::BIGINT";
        shown.push(db.begin().query(cast, params!["secret"]).await.unwrap_err());
    }
    for error in shown {
        let cause = std::error::Error::source(&error).unwrap();
        let text = format!("{error} {error:?} {cause} {cause:?}");
        assert!(
            !text.contains("424242") && !text.contains("secret"),
            "{text}"
        );
    }
}
