//! The inbox: which records were handled, so that a redelivery does nothing.
//!
//! A mark is unique by consumer group and event. An event is known by the id in its header,
//! so that it is recognised even when it was produced twice. A record without a usable id is
//! known by the place where it was first read (topic, partition, offset): a redelivery, a retry
//! topic's or a replay's copy is recognised all the same, and two records that carry the same
//! nonsense as id are never taken for one. See [`ackwell::Identity`].

use std::sync::Arc;

use ackwell::Record;

use crate::error::Result;
use crate::group::Turn;
use crate::params;

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
    pub(crate) fn insert(&self, turn: &mut Turn) -> Result<bool> {
        let now = jiff::Timestamp::now();
        let event = self.record.identity().to_bytes();
        let inserted = turn.execute(
            "INSERT INTO ackwell_inbox (consumer_group, event, handled_at) VALUES ($1, $2, $3) \
             ON CONFLICT DO NOTHING",
            params![*self.group, event, now],
        )?;
        Ok(inserted == 1)
    }
}
