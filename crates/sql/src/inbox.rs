//! The inbox: which records were handled, so that a redelivery does nothing.
//!
//! A mark is unique by consumer group and event. An event is known by the id in its header,
//! so that it is recognised even when it was produced twice. A record without a usable id is
//! known by the place where it was first read (topic, partition, offset): a redelivery, a retry
//! topic's or a replay's copy is recognised all the same, and two records that carry the same
//! nonsense as id are never taken for one. See [`ackwell::Identity`].

use std::collections::hash_map::Entry as Slot;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use ackwell::Record;

use crate::database::Database;
use crate::error::Result;
use crate::group::Turn;
use crate::mutation::{self, Fault};
use crate::params;
use crate::value::Value;

/// The mark of one record in one consumer group.
pub(crate) struct Entry {
    group: Arc<str>,
    record: Record,
}

impl Entry {
    pub(crate) fn new(group: &Arc<str>, record: Record) -> Self {
        Self {
            group: Arc::clone(group),
            record,
        }
    }

    /// Marks the record as handled; answers whether it was new.
    pub(crate) async fn insert(&self, turn: &mut Turn) -> Result<bool> {
        let now = jiff::Timestamp::now();
        let event = self.record.identity().to_bytes();
        let inserted = turn.execute(INSERT, params![*self.group, event, now]).await;
        Ok(inserted? == 1 || mutation::is(Fault::MarkUnchecked))
    }

    /// Has the record marked on the way of the statement that comes next, where waiting for an answer
    /// of its own costs time; answers whether it will be.
    pub(crate) fn insert_ahead(&self, turn: &mut Turn) -> Result<bool> {
        turn.mark_ahead(&self.group, || self.record.identity().to_bytes())
    }
}

/// Marks event `$2` as handled by group `$1`; changes nothing if it is already.
pub(crate) const INSERT: &str = "INSERT INTO ackwell_inbox (consumer_group, event, handled_at) VALUES ($1, $2, $3) \
    ON CONFLICT DO NOTHING";

/// How many records one look-up asks for; SQLite allows 32,766 parameters.
const LOOKUP_MAX: usize = 500;

/// Marks records as handled, in the order of their marks, so that two transactions never wait for
/// each other. Answers the offsets of those that were marked before, by others or among themselves.
pub(crate) async fn mark_all(
    group: &Arc<str>,
    records: &[Record],
    turn: &mut Turn,
) -> Result<Vec<i64>> {
    let mut marks: Vec<_> = records
        .iter()
        .map(|record| (record.identity().to_bytes(), record))
        .collect();
    // Stable: of two of one event, the first one counts.
    marks.sort_by(|(one, _), (other, _)| one.cmp(other));
    let events: Vec<&[u8]> = marks.iter().map(|(mark, _)| &mark[..]).collect();
    if let Some(new) = turn.mark(group, &events).await? {
        return Ok(known_of(&marks, new));
    }
    let mut known = Vec::new();
    for (_, record) in marks {
        if !Entry::new(group, record.clone()).insert(turn).await? {
            known.push(record.offset());
        }
    }
    Ok(known)
}

/// Offsets of the records whose marks are not among the `new` ones, each of which stands for one.
fn known_of(marks: &[(Vec<u8>, &Record)], new: Vec<Vec<u8>>) -> Vec<i64> {
    if mutation::is(Fault::MarkUnchecked) {
        return Vec::new();
    }
    let mut new: HashSet<_> = new.into_iter().collect();
    let known = marks.iter().filter(|(mark, _)| !new.remove(mark));
    known.map(|(_, record)| record.offset()).collect()
}

/// Offsets of the records that are marked already, or that are of one event with one before them.
pub(crate) async fn known(
    database: &Database,
    group: &str,
    records: impl Iterator<Item = &Record>,
) -> Result<Vec<i64>> {
    let mut marks = HashMap::new();
    let mut known = Vec::new();
    for record in records {
        match marks.entry(record.identity().to_bytes()) {
            Slot::Vacant(slot) => drop(slot.insert(record.offset())),
            Slot::Occupied(_) => known.push(record.offset()),
        }
    }
    let asked: Vec<_> = marks.keys().cloned().collect();
    for asked in asked.chunks(LOOKUP_MAX) {
        let places: Vec<_> = (2..asked.len() + 2)
            .map(|place| format!("${place}"))
            .collect();
        let places = places.join(", ");
        let sql = format!(
            "SELECT event FROM ackwell_inbox WHERE consumer_group = $1 AND event IN ({places})"
        );
        let mut params: Vec<Value<'_>> = vec![Value::Text(group.into())];
        params.extend(asked.iter().map(|mark| Value::Bytes(mark.into())));
        for row in database.query(&sql, &params).await? {
            let mark: Vec<u8> = row.get(0)?;
            known.extend(marks.get(&mark));
        }
    }
    Ok(known)
}
