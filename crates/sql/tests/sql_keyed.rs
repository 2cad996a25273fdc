//! Rows that events write by key: once, last, in sequence; on SQLite and PostgreSQL.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod database_url;

use ackwell_sql::{Database, Keyed, Migration, Tx, params};
use database_url::database_url;
use tempfile::TempDir;

const SCHEMA: &[Migration] = &[Migration::new(
    "tasks",
    "CREATE TABLE tasks (shop TEXT NOT NULL, task TEXT NOT NULL, state TEXT NOT NULL UNIQUE, step BIGINT NOT NULL, PRIMARY KEY (shop, task))",
)];

static TASKS: Keyed =
    Keyed::table("tasks", &["shop", "task"], &["state", "step"]).in_sequence("step");

async fn open(folder: &TempDir) -> Database {
    Database::open(&database_url(folder.path()), SCHEMA)
        .await
        .unwrap()
}

/// Does something in a transaction of its own; what it answered, and how the task stands.
async fn after<T>(db: &Database, write: impl AsyncFnOnce(&mut Tx) -> T) -> (T, String) {
    let mut tx = db.begin();
    let answer = write(&mut tx).await;
    tx.commit().await.unwrap();
    let row = db
        .query_opt("SELECT state FROM tasks WHERE task = 't'", params![])
        .await
        .unwrap();
    (answer, row.unwrap().get("state").unwrap())
}

#[tokio::test]
async fn an_inserted_row_stays_as_it_was_first() {
    let folder = tempfile::tempdir().unwrap();
    let db = open(&folder).await;
    for (state, new) in [("PROGRESS", true), ("DONE", false)] {
        let insert =
            async |tx: &mut Tx| TASKS.insert(tx, params!["s", "t", state, 1]).await.unwrap();
        assert_eq!(after(&db, insert).await, (new, "PROGRESS".to_owned()));
    }
}

#[tokio::test]
async fn a_put_row_is_as_it_was_last() {
    let folder = tempfile::tempdir().unwrap();
    let db = open(&folder).await;
    for state in ["DONE", "PROGRESS"] {
        let put = async |tx: &mut Tx| TASKS.put(tx, params!["s", "t", state, 1]).await.unwrap();
        assert_eq!(after(&db, put).await.1, state);
    }
}

#[tokio::test]
async fn a_late_or_repeated_progress_never_overwrites_done() {
    let folder = tempfile::tempdir().unwrap();
    let db = open(&folder).await;
    for (state, step, wrote, stands) in [
        ("DONE", 2, true, "DONE"),
        ("PROGRESS", 1, false, "DONE"),
        ("DONE AGAIN", 2, false, "DONE"),
        ("PAID", 3, true, "PAID"),
    ] {
        let advance = async |tx: &mut Tx| {
            TASKS
                .advance(tx, params!["s", "t", state, step])
                .await
                .unwrap()
        };
        assert_eq!(after(&db, advance).await, (wrote, stands.to_owned()));
    }
}

#[tokio::test]
async fn an_update_that_finds_no_row_inserts_it() {
    let folder = tempfile::tempdir().unwrap();
    let db = open(&folder).await;
    for (state, found) in [("NEW", false), ("KNOWN", true)] {
        let write = async |tx: &mut Tx| {
            TASKS
                .update_or_insert(tx, params!["s", "t", state, 1])
                .await
                .unwrap()
        };
        assert_eq!(after(&db, write).await, (found, state.to_owned()));
    }
}

#[tokio::test]
async fn a_violation_of_another_constraint_is_no_duplicate() {
    let folder = tempfile::tempdir().unwrap();
    let db = open(&folder).await;
    let insert = async |tx: &mut Tx| {
        TASKS
            .insert(tx, params!["s", "t", "DONE", 1])
            .await
            .unwrap()
    };
    after(&db, insert).await;
    let mut tx = db.begin();
    assert!(
        TASKS
            .insert(&mut tx, params!["s", "other", "DONE", 1])
            .await
            .is_err()
    );
}

#[tokio::test]
async fn a_row_of_another_length_or_without_its_sequence_is_refused() {
    static PLAIN: Keyed = Keyed::table("tasks", &["shop", "task"], &["state", "step"]);
    let folder = tempfile::tempdir().unwrap();
    let db = open(&folder).await;
    let short = TASKS
        .insert(&mut db.begin(), params!["s", "t"])
        .await
        .unwrap_err();
    assert!(
        short.to_string().contains("2 values for 4 columns"),
        "{short}"
    );
    let plain = PLAIN
        .advance(&mut db.begin(), params!["s", "t", "DONE", 1])
        .await
        .unwrap_err();
    assert!(plain.to_string().contains("no sequence"), "{plain}");
}
