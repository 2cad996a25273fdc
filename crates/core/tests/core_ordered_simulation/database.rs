//! The durable place: one writer at a time, whose group commits or vanishes.

use std::collections::{BTreeMap, BTreeSet};

use ackwell_core::Timestamp;
use ackwell_core::ordered::Attempts;

/// A key, or a record without one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Slot {
    Key(u8),
    Lone(i64),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Row {
    pub(crate) attempts: Attempts,
    pub(crate) due: Timestamp,
    pub(crate) given_up: bool,
}

#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Database {
    pub(crate) epoch: u64,
    /// The highest offset that was ever parked.
    pub(crate) parked_to: i64,
    pub(crate) parked: BTreeMap<(Slot, i64), Row>,
    pub(crate) inbox: BTreeSet<i64>,
    /// Marks of what was given up.
    pub(crate) gone: BTreeSet<i64>,
    /// Offsets that took effect, in order.
    pub(crate) effects: Vec<i64>,
    /// Offsets that were dropped on purpose.
    pub(crate) skipped: BTreeSet<i64>,
}

impl Database {
    /// The first record of a key.
    pub(crate) fn first(&self, slot: Slot) -> Option<(i64, Row)> {
        let mut rows = self.parked.range((slot, i64::MIN)..=(slot, i64::MAX));
        rows.next().map(|((_, offset), row)| (*offset, *row))
    }

    /// Whether nothing of the record is left to the topic.
    pub(crate) fn has_taken(&self, offset: i64) -> bool {
        self.inbox.contains(&offset) || self.gone.contains(&offset)
    }
}
