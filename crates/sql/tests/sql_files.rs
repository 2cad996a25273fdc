//! What is wrong with a database's file or schema is said when it is opened.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    reason = "helpers of tests"
)]

use std::fs;
use std::path::{Path, PathBuf};

use ackwell_sql::{Database, Error, Migration, params};

const ONE: Migration = Migration::new("one", "CREATE TABLE one (id INTEGER PRIMARY KEY, t TEXT)");
const TWO: Migration = Migration::new("two", "CREATE TABLE two (id INTEGER PRIMARY KEY)");

async fn open(path: &Path, migrations: &[Migration]) -> Result<Database, Error> {
    Database::open(&format!("sqlite:{}", path.display()), migrations).await
}

fn file(folder: &tempfile::TempDir) -> PathBuf {
    folder.path().join("a").join("b").join("test.db")
}

async fn filled(path: &Path) {
    let db = open(path, &[ONE]).await.unwrap();
    for id in 0..50_i64 {
        let mut tx = db.begin();
        tx.execute(
            "INSERT INTO one VALUES ($1, $2)",
            params![id, "x".repeat(2000)],
        )
        .await
        .unwrap();
        tx.commit().await.unwrap();
    }
    drop(db);
    // The last connection writes the log back when it closes, on the thread that committed.
    while path.with_extension("db-wal").exists() {
        tokio::time::sleep(std::time::Duration::from_millis(1)).await;
    }
}

#[tokio::test]
async fn a_missing_folder_is_created() {
    let folder = tempfile::tempdir().unwrap();
    open(&file(&folder), &[]).await.unwrap();
    assert!(file(&folder).exists());
}

#[tokio::test]
async fn a_folder_that_can_not_be_created_is_named() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("a"), "a file").unwrap();
    let error = open(&file(&folder), &[]).await.unwrap_err();
    assert!(
        error.to_string().contains("creating the data folder"),
        "{error}"
    );
}

#[tokio::test]
async fn a_file_that_is_no_database_is_refused_with_its_path() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("test.db");
    fs::write(&path, "not a database ".repeat(1000)).unwrap();
    let error = open(&path, &[]).await.unwrap_err();
    assert!(error.is_damaged(), "{error:?}");
    assert!(error.to_string().contains("test.db"), "{error}");
    assert!(error.to_string().contains("from a backup"), "{error}");
}

#[tokio::test]
async fn a_file_that_was_cut_short_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = file(&folder);
    filled(&path).await;
    let whole = fs::read(&path).unwrap();
    assert!(whole.len() > 100_000, "the log was written back");
    for len in [whole.len() / 2, 4096, 100] {
        fs::write(&path, &whole[..len]).unwrap();
        let error = open(&path, &[ONE]).await.unwrap_err();
        assert!(error.is_damaged(), "{len}: {error:?}");
    }
}

#[tokio::test]
async fn a_closed_database_is_whole_in_its_one_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = file(&folder);
    let db = open(&path, &[ONE]).await.unwrap();
    let mut tx = db.begin();
    tx.execute("INSERT INTO one VALUES (1, 'one')", params![])
        .await
        .unwrap();
    tx.commit().await.unwrap();
    // A reader is open, too: it must not be the last to close.
    db.query("SELECT * FROM one", params![]).await.unwrap();
    drop(db);
    let written_back = tokio::time::timeout(std::time::Duration::from_secs(60), async {
        while path.with_extension("db-wal").exists() {
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        }
    });
    written_back.await.expect("the log was left behind");
}

#[tokio::test]
async fn steps_are_applied_once_and_in_order() {
    let folder = tempfile::tempdir().unwrap();
    open(&file(&folder), &[ONE]).await.unwrap();
    let db = open(&file(&folder), &[ONE, TWO]).await.unwrap();
    db.query("SELECT * FROM one, two", params![]).await.unwrap();
}

#[tokio::test]
async fn a_database_of_a_newer_program_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    open(&file(&folder), &[ONE, TWO]).await.unwrap();
    let error = open(&file(&folder), &[ONE]).await.unwrap_err();
    assert!(
        error
            .to_string()
            .contains("\"two\", which this program does not know"),
        "{error}"
    );
}

#[tokio::test]
async fn a_step_that_was_changed_afterwards_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    open(&file(&folder), &[ONE]).await.unwrap();
    for changed in [Migration::new("one", "CREATE TABLE other (id)"), TWO] {
        let error = open(&file(&folder), &[changed]).await.unwrap_err();
        assert!(
            error.to_string().contains("was applied with another text"),
            "{error}"
        );
    }
}

#[tokio::test]
async fn a_step_that_fails_leaves_nothing_of_any() {
    let folder = tempfile::tempdir().unwrap();
    let wrong = Migration::new("wrong", "CREATE TABLE two (id); CREATE GARBAGE");
    let error = open(&file(&folder), &[ONE, wrong]).await.unwrap_err();
    assert!(error.to_string().contains("\"wrong\""), "{error}");
    let ends = Migration::new("ends", "COMMIT; CREATE TABLE half (id)");
    assert!(open(&file(&folder), &[ends]).await.is_err());
    open(&file(&folder), &[ONE, TWO]).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_gives_up_waiting_for_another_process_leaves_no_transaction_behind() {
    let folder = tempfile::tempdir().unwrap();
    let db = open(&file(&folder), &[ONE]).await.unwrap();
    let other = rusqlite::Connection::open(file(&folder)).unwrap();
    let insert = |id: i64| {
        let mut tx = db.begin();
        async move {
            let text = params![id, "x"];
            tx.execute("INSERT INTO one VALUES ($1, $2)", text).await?;
            tx.commit().await
        }
    };
    for id in 0..5 {
        other.execute_batch("BEGIN IMMEDIATE").unwrap();
        let waits = std::time::Duration::from_millis(50);
        let given_up = tokio::time::timeout(waits, insert(-1)).await;
        assert!(given_up.is_err(), "the database is locked");
        other.execute_batch("ROLLBACK").unwrap();
        insert(id).await.unwrap();
    }
}
