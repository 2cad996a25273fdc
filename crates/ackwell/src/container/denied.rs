//! Partitions that this client may not read.
//!
//! The client says so once, goes on trying, and never says that it may again: a topic on which
//! nothing happens would look denied for ever, or, were the problem forgotten after a while, would
//! look fine. A seek to where the client stands makes it say so anew; if it then says nothing,
//! the right is there.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use ackwell_core::engine::PartitionId;
use rdkafka::consumer::Consumer;
use rdkafka::topic_partition_list::Offset;

use super::poll::Poller;

/// How long the client may take to say it again: it waits 5 s after a refusal
/// (`fetch.error.backoff.ms` of 500 ms, ten times).
const ANSWER_WAIT: Duration = Duration::from_secs(7);
/// How long a seek may take.
const SEEK_TIMEOUT: Duration = Duration::from_secs(1);

/// What the client may not read.
#[derive(Debug, Default)]
pub(super) struct Denied {
    partitions: BTreeMap<PartitionId, Denial>,
}

#[derive(Debug)]
struct Denial {
    reason: String,
    since: Instant,
    /// Whether the client was asked since it said so last.
    asked: bool,
}

/// What is to be done about a denial by now.
#[derive(Debug, PartialEq, Eq)]
enum Next {
    Wait,
    Ask,
    Over,
}

impl Denial {
    fn next(&self, waited: Duration) -> Next {
        match self.asked {
            _ if waited < ANSWER_WAIT => Next::Wait,
            false => Next::Ask,
            true => Next::Over,
        }
    }
}

impl Denied {
    pub(super) fn problem(&self) -> Option<&String> {
        self.partitions.values().next().map(|denial| &denial.reason)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.partitions.is_empty()
    }
}

impl Poller {
    /// The client was refused a partition's records.
    pub(super) fn partition_denied(&mut self, id: PartitionId) {
        let Some((topic, partition)) = self.partitions.name(id) else {
            return;
        };
        let (topic, partition) = (&**topic, *partition);
        let mend = self.health.rights.to_read([topic]);
        let reason = format!("{topic}-{partition} may not be read by this client; {mend}");
        tracing::warn!(topic, partition, "a partition may not be read");
        let denial = Denial {
            reason,
            since: Instant::now(),
            asked: false,
        };
        self.health.denied.partitions.insert(id, denial);
        self.tell_health();
    }

    /// Records have come: it may be read.
    pub(super) fn partition_allowed(&mut self, id: PartitionId) {
        if self.health.denied.partitions.remove(&id).is_some() {
            self.tell_health();
        }
    }

    /// Sees which denials are over.
    pub(super) fn follow_denials(&mut self) {
        let denials = self.health.denied.partitions.iter();
        let due = denials.filter_map(|(id, denial)| match denial.next(denial.since.elapsed()) {
            Next::Wait => None,
            next => Some((*id, next)),
        });
        for (id, next) in due.collect::<Vec<_>>() {
            if next == Next::Over || !self.partitions.is_owned(id) {
                self.partition_allowed(id);
            } else {
                self.ask_anew(id);
            }
        }
    }

    /// Has the client read where it reads.
    fn ask_anew(&mut self, id: PartitionId) {
        let Some((topic, partition)) = self.partitions.name(id) else {
            return;
        };
        // Without a position nothing of it was read yet; the log's beginning is no worse a guess
        // than the end, and loses nothing.
        let at = self.engine.next(id);
        let at = at.map_or(Offset::Beginning, |next| Offset::Offset(next.0));
        let asked = self.engine.is_active(id)
            && !self.engine.is_seeking(id)
            && (self.client.seek(topic, *partition, at, SEEK_TIMEOUT)).is_ok();
        if asked && let Some(denial) = self.health.denied.partitions.get_mut(&id) {
            (denial.asked, denial.since) = (true, Instant::now());
            self.partitions.wake(id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_denial_is_over_when_the_client_was_asked_and_says_nothing() {
        let mut denial = Denial {
            reason: String::new(),
            since: Instant::now(),
            asked: false,
        };
        assert_eq!(denial.next(Duration::from_secs(6)), Next::Wait);
        assert_eq!(denial.next(ANSWER_WAIT), Next::Ask);
        denial.asked = true;
        assert_eq!(denial.next(Duration::from_secs(6)), Next::Wait);
        assert_eq!(denial.next(ANSWER_WAIT), Next::Over);
    }
}
