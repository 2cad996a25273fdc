//! Topics that were deleted and created again under their old name.
//!
//! To the client the new log is the old one: it goes on at the position that it had, and what
//! the new log holds below that would never be read. A topic that was seen missing is therefore
//! read from its beginning when it is back, whatever position was known.
//!
//! What is deleted and created again between two looks is not noticed, unless its end lies below
//! the position; the client shows no topic ids (KIP-516).

use std::collections::HashSet;

use ackwell_core::engine::{Event, PartitionId};
use ackwell_core::offset::CommitOffset;

use super::lookup::Looked;
use super::poll::Poller;

/// Topics that are away.
#[derive(Default)]
pub(super) struct Away {
    topics: HashSet<String>,
    /// Partitions of them that were taken over since, at their beginning.
    begun: HashSet<PartitionId>,
}

impl Away {
    /// Whether the positions known of this topic belong to a log that is gone.
    pub(super) fn is_away(&self, topic: &str) -> bool {
        self.topics.contains(topic)
    }

    /// A partition is read from its beginning.
    pub(super) fn note_begun(&mut self, id: PartitionId) {
        self.begun.insert(id);
    }
}

impl Poller {
    /// Notes which topics are away, and has those that are back read from their beginning.
    pub(super) fn begin_anew(&mut self, looked: Looked) {
        let Looked { fine, missing, .. } = looked;
        let away = &mut self.partitions.away;
        away.topics.extend(missing);
        if away.topics.is_empty() {
            return;
        }
        let back: Vec<_> = fine
            .into_iter()
            .filter(|topic| away.topics.remove(topic))
            .collect();
        let begun = if away.topics.is_empty() {
            std::mem::take(&mut away.begun)
        } else {
            away.begun.clone()
        };
        for topic in &back {
            tracing::warn!(topic, "a topic is back, and is read from its beginning");
        }
        let owned = self.partitions.owned();
        let of_those = owned.filter(|id| {
            let name = self.partitions.name(*id);
            name.is_some_and(|(topic, _)| back.iter().any(|back| **back == **topic))
        });
        let stale: Vec<_> = of_those.filter(|id| !begun.contains(id)).collect();
        for partition in stale {
            let to = CommitOffset(0);
            self.on_event(Event::Seek { partition, to });
        }
    }
}
