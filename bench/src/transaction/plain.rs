//! By hand: one transaction with three statements, then one awaited offset commit, for each record.

use std::path::Path;
use std::time::Instant;

use rdkafka::Message;
use rdkafka::consumer::{CommitMode, Consumer};
use rdkafka::message::{BorrowedMessage, Headers};
use rusqlite::{Connection, TransactionBehavior, params};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{PRODUCTS, TOPIC};
use crate::listener::Meter;
use crate::process::Child;
use crate::{Outcome, client};

const SCHEMA: &str = "
    PRAGMA journal_mode = WAL;
    PRAGMA synchronous = FULL;
    CREATE TABLE stock (product INTEGER PRIMARY KEY, reserved INTEGER NOT NULL);
    CREATE TABLE inbox (
        consumer_group TEXT NOT NULL,
        event_id BLOB NOT NULL,
        PRIMARY KEY (consumer_group, event_id)
    ) WITHOUT ROWID;
    CREATE TABLE outbox (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        topic TEXT NOT NULL,
        key BLOB NOT NULL,
        value BLOB NOT NULL,
        headers BLOB NOT NULL
    );
";

#[derive(Deserialize)]
struct Requested {
    product: i64,
    quantity: i64,
}

#[derive(Serialize)]
struct Reserved {
    product: i64,
    quantity: i64,
}

pub(super) fn run(broker: &Child, group: &str, database: &Path, meter: &Meter) -> Outcome<()> {
    let mut database = open(database)?;
    let consumer = client::consumer(broker, group)?;
    consumer.subscribe(&[TOPIC])?;
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
    let transaction = database.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let new = transaction
        .prepare_cached("INSERT INTO inbox VALUES (?1, ?2) ON CONFLICT DO NOTHING")?
        .execute(params![group, event_id(record)?.as_bytes()])?;
    if new == 1 {
        transaction
            .prepare_cached("UPDATE stock SET reserved = reserved + ?2 WHERE product = ?1")?
            .execute(params![event.product, event.quantity])?;
        let answer = Reserved {
            product: event.product,
            quantity: event.quantity,
        };
        transaction
            .prepare_cached(
                "INSERT INTO outbox (topic, key, value, headers) VALUES (?1, ?2, ?3, ?4)",
            )?
            .execute(params![
                "bench-answers",
                record.key(),
                serde_json::to_vec(&answer)?,
                answer_headers(record)?
            ])?;
    }
    Ok(transaction.commit()?)
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
