//! Parked records as rows, and the statements on them. All of them run in a turn, so that what
//! they do takes effect together with a handler's work and the marks in the inbox.

use std::sync::Arc;

use ackwell::core::engine::FirstFailure;
use ackwell::core::ordered::{Attempts, Stored};
use ackwell::core::{self, Class};
use ackwell::{Headers, Record};
use bytes::Bytes;
use jiff::Timestamp;

use crate::database::Database;
use crate::error::{Error, Kind, Result};
use crate::group::Turn;
use crate::outbox::{decode_headers, encode_headers};
use crate::params;
use crate::row::Row;

/// The partition of one group, as its rows name it.
#[derive(Debug, Clone)]
pub(super) struct Address {
    pub(super) group: Arc<str>,
    pub(super) topic: Arc<str>,
    pub(super) partition: i32,
}

/// A key, or a record without one.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Slot {
    Key(Bytes),
    Lone(i64),
}

/// What is before a key's bytes, and before the offset of a record without a key.
const LONE: u8 = 0;
const KEY: u8 = 1;

impl Slot {
    pub(super) fn of(record: &Record) -> Self {
        match record.key_bytes() {
            Some(key) => Slot::Key(key),
            None => Slot::Lone(record.offset()),
        }
    }

    /// The same, without the batch that the record came in, which would stay in memory.
    pub(super) fn detached(self) -> Self {
        match self {
            Slot::Key(key) => Slot::Key(Bytes::copy_from_slice(&key)),
            lone @ Slot::Lone(_) => lone,
        }
    }

    fn to_bytes(&self) -> Vec<u8> {
        match self {
            Slot::Key(key) => [&[KEY], &key[..]].concat(),
            Slot::Lone(offset) => [&[LONE], &offset.to_be_bytes()[..]].concat(),
        }
    }

    fn from_bytes(bytes: Vec<u8>) -> Result<Self> {
        let bytes = Bytes::from(bytes);
        match bytes.split_first() {
            Some((&KEY, _)) => Ok(Slot::Key(bytes.slice(1..))),
            Some((&LONE, offset)) => Ok(Slot::Lone(i64::from_be_bytes(
                offset.try_into().map_err(|_| damaged())?,
            ))),
            _ => Err(damaged()),
        }
    }

    /// The record's key.
    pub(super) fn key(&self) -> Option<&[u8]> {
        match self {
            Slot::Key(key) => Some(key),
            Slot::Lone(_) => None,
        }
    }
}

/// The bytes of a key as rows hold them, read for people.
pub(super) fn key_of(slot: Vec<u8>) -> Result<Option<Vec<u8>>> {
    Ok(Slot::from_bytes(slot)?.key().map(<[u8]>::to_vec))
}

fn damaged() -> Error {
    Error::usage("reading a parked record: its row was not written by this program")
}

/// What an owner finds when it takes a partition over.
pub(super) struct Taken {
    pub(super) id: i64,
    pub(super) epoch: i64,
    /// The highest offset that was ever parked.
    pub(super) parked_to: i64,
    pub(super) lines: Vec<(Slot, Stored)>,
}

/// Makes whoever calls it the owner: all earlier ones are fenced from here on.
pub(super) async fn take_over(turn: &mut Turn, address: &Address) -> Result<Taken> {
    let Address {
        group,
        topic,
        partition,
    } = address;
    if let Some(sql) = turn.dialect().statements().await_owners {
        turn.query(sql, params![**group, **topic, *partition])
            .await?;
    }
    let rows = turn.query(
        "INSERT INTO ackwell_ordered_partitions (consumer_group, topic, partition, epoch, parked_to) \
         VALUES ($1, $2, $3, 1, -1) ON CONFLICT (consumer_group, topic, partition) \
         DO UPDATE SET epoch = ackwell_ordered_partitions.epoch + 1 RETURNING id, epoch, parked_to",
        params![**group, **topic, *partition],
    ).await;
    let rows = rows?;
    let row = rows.first().ok_or_else(damaged)?;
    let id = row.get("id")?;
    Ok(Taken {
        id,
        epoch: row.get("epoch")?,
        parked_to: row.get("parked_to")?,
        lines: lines(turn, id).await?,
    })
}

/// The keys of a partition, with what is known of their heads.
async fn lines(turn: &mut Turn, id: i64) -> Result<Vec<(Slot, Stored)>> {
    let rows = turn
        .query(
            "SELECT line.slot, line.records, line.since, head.due_at FROM \
         (SELECT slot, min(record_offset) AS first, count(*) AS records, min(parked_at) AS since \
          FROM ackwell_parked WHERE partition_id = $1 GROUP BY slot) AS line \
         JOIN ackwell_parked AS head ON head.partition_id = $1 AND head.slot = line.slot \
          AND head.record_offset = line.first",
            params![id],
        )
        .await;
    let rows = rows?;
    let line = |row: &Row| {
        let stored = Stored {
            records: usize::try_from(row.get::<i64>("records")?).unwrap_or(0),
            at: core_time(row.get("due_at")?),
            since: core_time(row.get("since")?),
        };
        Ok((Slot::from_bytes(row.get("slot")?)?, stored))
    };
    rows.iter().map(line).collect()
}

/// Who owns the partition now.
pub(super) async fn epoch(turn: &mut Turn, id: i64) -> Result<i64> {
    let sql = turn.dialect().statements().epoch;
    let rows = turn.query(sql, params![id]).await?;
    rows.first().ok_or_else(damaged)?.get("epoch")
}

/// Whether a record was parked before and has left again, or was handled.
pub(super) async fn is_known(database: &Database, group: &str, record: &Record) -> Result<bool> {
    let found = database
        .query_opt(
            "SELECT 1 AS known FROM ackwell_inbox WHERE consumer_group = $1 AND event IN ($2, $3) \
             LIMIT 1",
            params![group, record.identity().to_bytes(), given_up_mark(record)],
        )
        .await?;
    Ok(found.is_some())
}

/// Why and since when a record waits.
#[derive(Debug, Clone)]
pub(crate) struct Waiting {
    pub(super) attempts: Attempts,
    pub(crate) due: core::Timestamp,
    pub(super) given_up: bool,
    pub(super) class: Option<Class>,
    pub(super) reason: Option<String>,
    /// How it failed first, if it has failed.
    pub(super) first: Option<FirstFailure>,
}

impl Waiting {
    /// Behind a record of its key; not tried yet.
    pub(crate) fn behind(now: core::Timestamp) -> Self {
        Waiting {
            attempts: Attempts::default(),
            due: now,
            given_up: false,
            class: None,
            reason: None,
            first: None,
        }
    }

    /// How it failed first, if it has failed more often since.
    pub(super) fn earlier(&self) -> Option<FirstFailure> {
        self.first.clone().filter(|_| self.attempts.all > 1)
    }
}

/// Bytes of a failure's reason that are kept.
const REASON_BYTES_MAX: usize = 1_024;

fn shortened(reason: Option<&String>) -> Option<&str> {
    let reason = reason?;
    reason.get(..reason.floor_char_boundary(REASON_BYTES_MAX))
}

/// Parks a record. It is not of those known already; what has its place is of another log.
pub(super) async fn park(
    turn: &mut Turn,
    id: i64,
    record: &Record,
    waiting: &Waiting,
) -> Result<()> {
    let slot = Slot::of(record).to_bytes();
    let Waiting {
        attempts,
        due,
        given_up,
        class,
        reason,
        first,
    } = waiting;
    let first = first.as_ref();
    let inserted = turn
        .execute(
            "INSERT INTO ackwell_parked (partition_id, slot, record_offset, attempts, in_place, \
         failed_at, parked_at, due_at, given_up, class, reason, record_timestamp, headers, value, \
         first_failed_at, first_class, first_reason) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17) \
         ON CONFLICT (partition_id, slot, record_offset) DO NOTHING",
            params![
                id,
                slot,
                record.offset(),
                attempts.all,
                attempts.in_place,
                attempts.since.map(sql_time),
                Timestamp::now(),
                sql_time(*due),
                *given_up,
                class.map(Class::as_str),
                shortened(reason.as_ref()),
                record.timestamp(),
                encode_headers(record.headers()),
                record.value().map(<[u8]>::to_vec),
                first.map(|first| sql_time(first.at)),
                first.map(|first| first.class.as_str()),
                shortened(first.map(|first| &first.reason)),
            ],
        )
        .await;
    if inserted? == 0 {
        return Err(Error::new(
            Kind::Occupied,
            "parking a record: one of its key waits in its place that came from the topic before it \
             was deleted and created again; the record is kept until that one has left",
        ));
    }
    let noted = turn
        .execute(
            "UPDATE ackwell_ordered_partitions SET parked_to = $2 WHERE id = $1 AND parked_to < $2",
            params![id, record.offset()],
        )
        .await;
    noted.map(drop)
}

/// A parked record.
pub(super) struct Parked {
    pub(super) row: i64,
    pub(super) record: Record,
    pub(super) waiting: Waiting,
}

/// The first records of a key, in their order, behind offset `after`.
pub(super) async fn first(
    turn: &mut Turn,
    (id, address): (i64, &Address),
    slot: &Slot,
    after: i64,
    count: usize,
) -> Result<Vec<Parked>> {
    let rows = turn.query(
        "SELECT id, record_offset, attempts, in_place, failed_at, due_at, given_up, class, reason, \
         record_timestamp, headers, value, first_failed_at, first_class, first_reason FROM ackwell_parked \
         WHERE partition_id = $1 AND slot = $2 AND record_offset > $3 \
         ORDER BY record_offset LIMIT $4",
        params![
            id,
            slot.to_bytes(),
            after,
            i64::try_from(count).unwrap_or(i64::MAX)
        ],
    ).await;
    let rows = rows?;
    rows.iter().map(|row| parked(row, address, slot)).collect()
}

fn parked(row: &Row, address: &Address, slot: &Slot) -> Result<Parked> {
    let value: Option<Vec<u8>> = row.get("value")?;
    let topic = Arc::clone(&address.topic);
    let offset = row.get("record_offset")?;
    let mut record = Record::new(
        topic,
        address.partition,
        offset,
        slot.key(),
        value.as_deref(),
    );
    let mut headers = Headers::new();
    let stored: Vec<u8> = row.get("headers")?;
    for (name, value) in decode_headers(&stored).ok_or_else(damaged)? {
        match value {
            Some(value) => headers.push(name, value.to_vec()),
            None => headers.push_null(name),
        }
    }
    if !headers.is_empty() {
        record = record.with_headers(headers);
    }
    if let Some(timestamp) = row.get("record_timestamp")? {
        record = record.with_timestamp(timestamp);
    }
    let waiting = Waiting {
        attempts: Attempts {
            all: row.get("attempts")?,
            in_place: row.get("in_place")?,
            since: row.get::<Option<Timestamp>>("failed_at")?.map(core_time),
        },
        due: core_time(row.get("due_at")?),
        given_up: row.get("given_up")?,
        class: row.get::<Option<String>>("class")?.as_deref().map(class),
        reason: row.get("reason")?,
        first: first_failure(row)?,
    };
    Ok(Parked {
        row: row.get("id")?,
        record,
        waiting,
    })
}

fn first_failure(row: &Row) -> Result<Option<FirstFailure>> {
    let at: Option<Timestamp> = row.get("first_failed_at")?;
    let (name, reason): (Option<String>, Option<String>) =
        (row.get("first_class")?, row.get("first_reason")?);
    Ok(at.map(|at| FirstFailure {
        at: core_time(at),
        class: class(name.as_deref().unwrap_or_default()),
        reason: reason.unwrap_or_default(),
    }))
}

fn class(name: &str) -> Class {
    if name == Class::Permanent.as_str() {
        Class::Permanent
    } else {
        Class::Transient
    }
}

/// A row that is to be taken out: whoever removes it has handled its record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Claim(pub(super) i64);

impl Claim {
    /// Takes the row out; answers whether it was there.
    pub(crate) async fn remove(self, turn: &mut Turn) -> Result<bool> {
        let removed = turn
            .execute("DELETE FROM ackwell_parked WHERE id = $1", params![self.0])
            .await;
        Ok(removed? == 1)
    }
}

/// Notes that a record has failed again; answers whether it was still there.
pub(super) async fn failed(turn: &mut Turn, row: i64, waiting: &Waiting) -> Result<bool> {
    let first = waiting.first.as_ref();
    let changed = turn
        .execute(
            "UPDATE ackwell_parked SET attempts = $2, failed_at = $3, due_at = $4, given_up = $5, \
         class = $6, reason = $7, first_failed_at = $8, first_class = $9, first_reason = $10 \
         WHERE id = $1",
            params![
                row,
                waiting.attempts.all,
                waiting.attempts.since.map(sql_time),
                sql_time(waiting.due),
                waiting.given_up,
                waiting.class.map(Class::as_str),
                shortened(waiting.reason.as_ref()),
                first.map(|first| sql_time(first.at)),
                first.map(|first| first.class.as_str()),
                shortened(first.map(|first| &first.reason)),
            ],
        )
        .await;
    Ok(changed? == 1)
}

/// A record that was given up is no longer known by its event, so that a replay of its dead letter
/// takes effect, but by its place, so that a redelivery does not.
pub(super) async fn mark_given_up(turn: &mut Turn, group: &str, record: &Record) -> Result<()> {
    let forgotten = turn
        .execute(
            "DELETE FROM ackwell_inbox WHERE consumer_group = $1 AND event = $2",
            params![group, record.identity().to_bytes()],
        )
        .await;
    forgotten?;
    let marked = turn
        .execute(
            "INSERT INTO ackwell_inbox (consumer_group, event, handled_at) VALUES ($1, $2, $3) \
         ON CONFLICT DO NOTHING",
            params![group, given_up_mark(record), Timestamp::now()],
        )
        .await;
    marked.map(drop)
}

/// Where the record stands, told apart from any identity by its tag.
fn given_up_mark(record: &Record) -> Vec<u8> {
    let mut mark = b"@gone:".to_vec();
    mark.extend_from_slice(record.topic().as_bytes());
    mark.push(0);
    mark.extend_from_slice(&record.partition().to_be_bytes());
    mark.extend_from_slice(&record.offset().to_be_bytes());
    // A topic that was created again has other records at the same places.
    mark.extend_from_slice(&record.timestamp().unwrap_or(-1).to_be_bytes());
    mark
}

pub(super) fn core_time(at: Timestamp) -> core::Timestamp {
    core::Timestamp::from_millis(at.as_millisecond())
}

pub(super) fn sql_time(at: core::Timestamp) -> Timestamp {
    Timestamp::from_millisecond(at.as_millis()).unwrap_or(Timestamp::MAX)
}

pub(crate) fn now() -> core::Timestamp {
    core_time(Timestamp::now())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_key_comes_back_as_it_was(key in prop::collection::vec(any::<u8>(), 0..20), offset in 0..i64::MAX) {
            let slot = Slot::Key(Bytes::from(key.clone()));
            prop_assert_eq!(Slot::from_bytes(slot.to_bytes()).unwrap(), slot);
            let lone = Slot::Lone(offset);
            prop_assert_eq!(Slot::from_bytes(lone.to_bytes()).unwrap(), lone);
            prop_assert_ne!(Slot::Key(Bytes::from(key)).to_bytes(), Slot::Lone(offset).to_bytes());
        }

        #[test]
        fn damaged_slots_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..20)) {
            let _ = Slot::from_bytes(bytes);
        }
    }
}
