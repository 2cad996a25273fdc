//! With rusqlite.

use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use rdkafka::Message;
use rdkafka::message::BorrowedMessage;
use rusqlite::{Connection, TransactionBehavior, params};

use super::{ANSWERS, Books, answer, answer_headers, event_id, requested};
use crate::Outcome;

const SCHEMA: &str = "
    PRAGMA journal_mode = WAL;
    PRAGMA synchronous = FULL;
    PRAGMA temp_store = MEMORY;
    PRAGMA cache_size = -16384;
    PRAGMA wal_autocheckpoint = 4000;
    CREATE TABLE stock (product INTEGER PRIMARY KEY, reserved INTEGER NOT NULL);
    CREATE TABLE inbox (
        consumer_group TEXT NOT NULL,
        event BLOB NOT NULL,
        handled_at INTEGER NOT NULL,
        PRIMARY KEY (consumer_group, event)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE outbox (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        topic TEXT NOT NULL,
        key BLOB,
        value BLOB,
        headers BLOB NOT NULL,
        created_at INTEGER NOT NULL
    ) STRICT;
";

const REMEMBER: &str = "INSERT INTO inbox VALUES (?1, ?2, ?3) ON CONFLICT DO NOTHING";
const RESERVE: &str = "UPDATE stock SET reserved = reserved + ?2 WHERE product = ?1";
const EMIT: &str =
    "INSERT INTO outbox (topic, key, value, headers, created_at) VALUES (?1, ?2, ?3, ?4, ?5)";

pub(super) struct File(Connection);

impl File {
    pub(super) fn create(path: &Path, products: u64) -> Outcome<Self> {
        let database = Connection::open(path)?;
        database.execute_batch(SCHEMA)?;
        for product in 0..products as i64 {
            database.execute("INSERT INTO stock VALUES (?1, 0)", [product])?;
        }
        Ok(Self(database))
    }
}

impl Books for File {
    fn handle(&mut self, group: &str, record: &BorrowedMessage<'_>) -> Outcome<()> {
        let event = requested(record)?;
        let now = millis();
        let transaction = self
            .0
            .transaction_with_behavior(TransactionBehavior::Immediate)?;
        let id = event_id(record)?;
        let mark = params![group, id.as_bytes(), now];
        if transaction.prepare_cached(REMEMBER)?.execute(mark)? == 1 {
            let change = params![event.product, event.quantity];
            transaction.prepare_cached(RESERVE)?.execute(change)?;
            let answer = answer(event)?;
            let row = params![ANSWERS, record.key(), answer, answer_headers(record)?, now];
            transaction.prepare_cached(EMIT)?.execute(row)?;
        }
        Ok(transaction.commit()?)
    }
}

fn millis() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_millis() as i64)
}
