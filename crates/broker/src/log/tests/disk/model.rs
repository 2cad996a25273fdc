//! What must be in the log, as those know it who wrote it.

use std::collections::VecDeque;

use super::super::super::control::Verdict;

/// A record as it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Written {
    pub(super) content: Content,
    /// Which transaction, if it is of one.
    pub(super) transaction: Option<usize>,
}

/// A record's key and value; without a value it is a tombstone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Content {
    pub(super) key: Option<String>,
    pub(super) value: Option<String>,
}

/// What stands at an offset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Slot {
    Record(Written),
    /// The end of a transaction.
    Marker(usize),
    /// Nobody was promised what was here, and it is gone.
    Lost,
    /// Compaction was right to remove it.
    Compacted(Option<Written>),
}

impl Slot {
    /// The record that was written there, whether it is still needed or not.
    pub(super) fn written(&self) -> Option<&Written> {
        match self {
            Self::Record(written) | Self::Compacted(Some(written)) => Some(written),
            Self::Marker(_) | Self::Lost | Self::Compacted(None) => None,
        }
    }

    pub(super) fn is_of(&self, transaction: usize) -> bool {
        let written = self.written();
        written.is_some_and(|written| written.transaction == Some(transaction))
    }
}

#[derive(Debug, Clone)]
pub(super) struct Transaction {
    pub(super) producer: i64,
    pub(super) first: i64,
    /// How it ended, and the offset of its marker.
    pub(super) end: Option<(Verdict, i64)>,
}

/// A batch whose acknowledgement has not arrived.
#[derive(Debug, Clone)]
pub(super) struct Batch {
    pub(super) sequence: i32,
    pub(super) contents: Vec<Content>,
    pub(super) base: i64,
}

#[derive(Debug, Clone, Default)]
pub(super) struct Producer {
    pub(super) epoch: i16,
    pub(super) sequence: i32,
    pub(super) in_flight: VecDeque<Batch>,
    pub(super) open: Option<usize>,
    /// The marker of its last transaction: until it is on the disk, no other begins.
    pub(super) marker: Option<i64>,
}
