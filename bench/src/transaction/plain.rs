//! By hand: one transaction with three statements, then one awaited offset commit, for each record.

mod postgres;
mod sqlite;

use std::time::Instant;

use rdkafka::Message;
use rdkafka::consumer::{CommitMode, Consumer};
use rdkafka::message::{BorrowedMessage, Headers};
use uuid::Uuid;

use super::store::Store;
use super::{ANSWERS, Requested, Reserved};
use crate::meter::Meter;
use crate::target::Broker;
use crate::{Outcome, client};

pub(super) fn run(
    broker: &Broker,
    group: &str,
    topic: &str,
    store: &Store,
    products: u64,
    meter: &Meter,
) -> Outcome<()> {
    let mut database: Box<dyn Books> = match store {
        Store::File(path) => Box::new(sqlite::File::create(path, products)?),
        Store::Schema { server, name } => {
            Box::new(postgres::Schema::create(server, name, products)?)
        }
    };
    let consumer = client::consumer(broker, group)?;
    consumer.subscribe(&[topic])?;
    let until = Instant::now() + client::WAIT_MAX;
    loop {
        let record = match consumer.poll(client::POLL_MAX) {
            Some(record) => record?,
            None if Instant::now() < until => continue,
            None => return Err(format!("no record came within {:?}", client::WAIT_MAX).into()),
        };
        database.handle(group, &record)?;
        consumer.commit_message(&record, CommitMode::Sync)?;
        if meter.count() {
            meter.finish();
            return Ok(());
        }
    }
}

/// A database with a table of stock, an inbox and an outbox.
trait Books {
    /// One record's transaction.
    fn handle(&mut self, group: &str, record: &BorrowedMessage<'_>) -> Outcome<()>;
}

fn requested(record: &BorrowedMessage<'_>) -> Outcome<Requested> {
    let payload = record.payload().ok_or("a record has a payload")?;
    Ok(serde_json::from_slice(payload)?)
}

/// What the outbox's event says.
fn answer(requested: Requested) -> Outcome<Vec<u8>> {
    let Requested {
        order,
        product,
        quantity,
    } = requested;
    Ok(serde_json::to_vec(&Reserved {
        order,
        product,
        quantity,
    })?)
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
