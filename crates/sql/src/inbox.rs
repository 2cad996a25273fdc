//! The inbox: which records were handled, so that a redelivery does nothing.

use crate::error::Result;
use crate::group::Turn;
use crate::params;

/// The mark of one record in one consumer group.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    group: std::sync::Arc<str>,
    event: Vec<u8>,
}

impl Entry {
    /// Marks the record as handled; answers whether it was new.
    pub(crate) fn insert(&self, turn: &mut Turn) -> Result<bool> {
        let now = jiff::Timestamp::now();
        let inserted = turn.execute(
            "INSERT INTO ackwell_inbox (consumer_group, event, handled_at) VALUES ($1, $2, $3) \
             ON CONFLICT DO NOTHING",
            params![*self.group, self.event, now],
        )?;
        Ok(inserted == 1)
    }
}
