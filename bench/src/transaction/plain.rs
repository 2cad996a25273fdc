//! By hand: one transaction with three statements, then one awaited offset commit, for each record.

use std::path::Path;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use rdkafka::Message;
use rdkafka::consumer::{CommitMode, Consumer};
use rdkafka::message::{BorrowedMessage, Headers};
use rusqlite::{Connection, TransactionBehavior, params};
use uuid::Uuid;

use super::{ANSWERS, PRODUCTS, Requested, Reserved};
use crate::meter::Meter;
use crate::target::Broker;
use crate::{Outcome, client};

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

pub(super) fn run(
    broker: &Broker,
    group: &str,
    topic: &str,
    database: &Path,
    meter: &Meter,
) -> Outcome<()> {
    let mut database = open(database)?;
    let consumer = client::consumer(broker, group)?;
    consumer.subscribe(&[topic])?;
    let until = Instant::now() + client::WAIT_MAX;
    loop {
        let record = match consumer.poll(client::POLL_MAX) {
            Some(record) => record?,
            None if Instant::now() < until => continue,
            None => return Err(format!("no record came within {:?}", client::WAIT_MAX).into()),
        };
        handle(&mut database, group, &record)?;
        consumer.commit_message(&record, CommitMode::Sync)?;
        if meter.count() {
            meter.finish();
            return Ok(());
        }
    }
}

fn open(path: &Path) -> Outcome<Connection> {
    let database = Connection::open(path)?;
    database.execute_batch(SCHEMA)?;
    for product in 0..PRODUCTS {
        database.execute("INSERT INTO stock VALUES (?1, 0)", [product])?;
    }
    Ok(database)
}

fn handle(database: &mut Connection, group: &str, record: &BorrowedMessage<'_>) -> Outcome<()> {
    let event: Requested =
        serde_json::from_slice(record.payload().ok_or("a record has a payload")?)?;
    let now = millis();
    let transaction = database.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let id = event_id(record)?;
    let mark = params![group, id.as_bytes(), now];
    if transaction.prepare_cached(REMEMBER)?.execute(mark)? == 1 {
        let change = params![event.product, event.quantity];
        transaction.prepare_cached(RESERVE)?.execute(change)?;
        let Requested {
            order,
            product,
            quantity,
        } = event;
        let answer = serde_json::to_vec(&Reserved {
            order,
            product,
            quantity,
        })?;
        let row = params![ANSWERS, record.key(), answer, answer_headers(record)?, now];
        transaction.prepare_cached(EMIT)?.execute(row)?;
    }
    Ok(transaction.commit()?)
}

fn millis() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_millis() as i64)
}

fn event_id(record: &BorrowedMessage<'_>) -> Outcome<Uuid> {
    let headers = record.headers().ok_or("a record has headers")?;
    let id = headers
        .iter()
        .find(|header| header.key == "eventId")
        .and_then(|header| header.value);
    Ok(Uuid::try_parse_ascii(
        id.ok_or("a record has an event id")?,
    )?)
}

fn answer_headers(record: &BorrowedMessage<'_>) -> Outcome<Vec<u8>> {
    let id = Uuid::now_v7().to_string();
    let aggregate = std::str::from_utf8(record.key().unwrap_or_default())?;
    let headers = [
        ("eventId", id.as_str()),
        ("eventType", "StockReserved"),
        ("occurredAt", "2026-01-01T00:00:00.000Z"),
        ("aggregateId", aggregate),
        ("contentType", "application/json"),
    ];
    Ok(serde_json::to_vec(&headers)?)
}
