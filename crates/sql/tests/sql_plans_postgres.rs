//! What is done for every record reads as few rows as it needs, however many there are.
//!
//! PostgreSQL plans a prepared statement once, and may do so while its table is empty, when every index looks as good
//! as any other. A statement that can be answered by a wrong one then reads a large part of the table, until
//! somebody analyzes it.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

#[path = "database_url/mod.rs"]
mod database_url;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::time::Duration;

use ackwell::{Event, Topic};
use ackwell_sql::saga::{Answer, Declaration, Saga, Sagas, Started, Step};
use ackwell_sql::{Database, Error, Settings, Tx, params};
use database_url::{database_url, is_postgres};
use serde::{Deserialize, Serialize};
use tempfile::TempDir;
use uuid::{Uuid, uuid};

/// Rows of each table that have nothing to do with what is measured.
const OTHERS: i64 = 2_000;
/// What a step may read of a table: the row itself, and what is checked beside it.
const ROWS_MAX: i64 = 5;

#[derive(Debug, Serialize, Deserialize)]
struct Said {
    #[serde(skip)]
    word: &'static str,
    errand: String,
}

impl Event for Said {
    const TOPIC: Topic<Self> = Topic::new("errands");
    const TYPES: &'static [&'static str] = &["Fetch", "Carry"];

    fn event_type(&self) -> &'static str {
        self.word
    }

    fn aggregate_id(&self) -> Cow<'_, str> {
        self.errand.as_str().into()
    }
}

/// Something is fetched and carried.
struct Errands;

impl Saga for Errands {
    const IDS: Uuid = uuid!("0b0d9a3a-35a5-4e41-8d53-6f1d3ce6a1f7");
    type Data = String;
    type Error = Error;

    fn declare(&self) -> Declaration<String> {
        let step = |name, word, done| {
            let command = move |errand: &String| Said {
                word,
                errand: errand.clone(),
            };
            Step::named(name)
                .sends(word, command)
                .done_on(done)
                .nothing_to_undo()
                .within(Duration::from_secs(3600))
                .or_review()
        };
        Declaration::named("errand")
            .step(step("fetch it", "Fetch", "Fetched"))
            .step(step("carry it", "Carry", "Carried"))
    }
}

/// A database whose statements are planned once, on the one connection that writes.
async fn open(folder: &TempDir) -> Database {
    let mut settings = Settings::default();
    settings.writers = 1;
    let url = database_url(folder.path());
    let url = format!("{url}&options=-c%20plan_cache_mode%3Dforce_generic_plan");
    Database::open_with(&url, &[], settings).await.unwrap()
}

/// Rows that the open transaction's session has read, by table.
async fn read(tx: &mut Tx) -> BTreeMap<String, i64> {
    let read = "SELECT relname::text AS name, coalesce(seq_tup_read, 0) + coalesce(idx_tup_fetch, 0) AS count \
                FROM pg_stat_xact_user_tables WHERE schemaname = current_schema()";
    let rows = tx.query(read, params![]).await.unwrap();
    let row = |row: &ackwell_sql::Row| (row.get("name").unwrap(), row.get("count").unwrap());
    rows.iter().map(row).collect()
}

async fn start(tx: &mut Tx, sagas: &Sagas<Errands>, key: &str) -> Uuid {
    match sagas.start(tx, key, &key.to_owned()).await.unwrap() {
        Started::New(id) => id,
        begun @ Started::Before(_) => panic!("{begun:?}"),
    }
}

async fn reply(tx: &mut Tx, sagas: &Sagas<Errands>, id: Uuid, word: &str) {
    let answer = sagas.reply(tx, id, word, None).await.unwrap();
    assert!(matches!(answer, Answer::Moved(_)), "{answer:?}");
}

#[tokio::test]
async fn a_saga_is_started_and_moved_by_its_own_rows_alone_although_its_table_was_empty_once() {
    if !is_postgres() {
        return; // SQLite plans by the indexes alone.
    }
    let folder = tempfile::tempdir().unwrap();
    let database = open(&folder).await;
    let sagas = Sagas::new(Errands).unwrap();
    let mut tx = database.begin();
    for table in ["ackwell_sagas", "ackwell_saga_history", "ackwell_outbox"] {
        // Nothing would be shown if PostgreSQL planned anew after looking at the table by itself.
        let alone = format!("ALTER TABLE {table} SET (autovacuum_enabled = off)");
        tx.execute(&alone, params![]).await.unwrap();
    }
    tx.commit().await.unwrap();
    let mut tx = database.begin();
    let first = start(&mut tx, &sagas, "first").await;
    reply(&mut tx, &sagas, first, "Fetched").await;
    tx.commit().await.unwrap();
    let mut tx = database.begin();
    let others = "INSERT INTO ackwell_sagas (saga_id, name, saga_key, version, status, step, attempt, steps, \
                  due_at, started_at, changed_at, data) \
                  SELECT gen_random_uuid(), name, saga_key, version, status, step, attempt, steps, \
                  due_at, started_at, changed_at, data \
                  FROM ackwell_sagas, generate_series(1, $1::bigint)";
    tx.execute(others, params![OTHERS]).await.unwrap();
    tx.commit().await.unwrap();

    let mut tx = database.begin();
    let before = read(&mut tx).await;
    reply(&mut tx, &sagas, first, "Carried").await;
    let second = start(&mut tx, &sagas, "second").await;
    reply(&mut tx, &sagas, second, "Fetched").await;
    let after = read(&mut tx).await;
    tx.commit().await.unwrap();
    for (table, count) in &after {
        let rows = count - before.get(table).copied().unwrap_or_default();
        assert!(rows <= 3 * ROWS_MAX, "{rows} rows of {table} were read");
    }
    assert!(after["ackwell_sagas"] > before["ackwell_sagas"]);
}
