//! Topics that were deleted and created again under their old name.
//!
//! To the client the new log is the old one: it would go on at the position that it had, and what
//! the new log holds below would never be read. That the topic was away is no sign: a broker that
//! is starting looks the same, and a busy client does not see it. Each topic has an id (KIP-516), and
//! the client says when a name stands for another one. It fetches by the id, so it has said so
//! before it has a record of the new log.
//!
//! A commit of the old log that is on its way meanwhile may still be taken for one of the new one
//! (until OffsetCommit 10 they name no ids). So the beginning is committed at once, and for a while
//! no position of the topic is believed, whoever has committed it.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use ackwell_core::engine::{Event, PartitionId};
use ackwell_core::offset::CommitOffset;

use super::health::offset_in;
use super::notice::Notice;
use super::poll::Poller;

/// How long commits of the old log may be under way: longer than a drain and a commit take. What
/// the group has done on the new log in this time may be done again after a rebalance.
const COMMITS_WAIT: Duration = Duration::from_secs(120);

/// What a broker says that has no ids, and a client before it has asked.
const NO_ID: &str = "AAAAAAAAAAAAAAAAAAAAAA";

/// A topic's log, by the name and the id that the client has for it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Log<'a> {
    pub(super) topic: &'a str,
    id: &'a str,
    before: &'a str,
}

impl<'a> Log<'a> {
    /// `None` if the client speaks of something else.
    pub(super) fn in_message(facility: &str, message: &'a str) -> Option<Self> {
        if facility != "METADATA" {
            return None;
        }
        let (subject, ids) = message.split_once(" changed id from ")?;
        // Names hold no spaces.
        let (_, topic) = subject.rsplit_once("Topic ")?;
        let (before, id) = ids.split_once(" to ")?;
        (id != NO_ID).then_some(Self { topic, id, before })
    }
}

/// The ids of topics. The client itself forgets those of which it reads nothing.
#[derive(Debug, Default)]
pub(super) struct Ids(HashMap<String, String>);

impl Ids {
    /// Takes note of a topic's id; answers whether it had another one before.
    pub(super) fn learn(&mut self, log: &Log<'_>) -> bool {
        let known = self.0.insert(log.topic.to_owned(), log.id.to_owned());
        let before = known.as_deref().unwrap_or(log.before);
        before != NO_ID && before != log.id
    }
}

/// Topics that have become others of late, and when that was.
#[derive(Debug, Default)]
pub(super) struct Recreated(BTreeMap<String, Instant>);

impl Recreated {
    /// Whether what is committed for the topic may be of its old log.
    fn is_in_doubt(&mut self, topic: &str) -> bool {
        if self.0.is_empty() {
            return false;
        }
        self.0.retain(|_, since| since.elapsed() < COMMITS_WAIT);
        self.0.contains_key(topic)
    }
}

impl Poller {
    /// The topic of this name is another one now: nothing of the old one is dispatched any more, and
    /// the new one is read from its beginning, whatever `auto.offset.reset` says: what it holds was
    /// written while this listener was there to read it.
    pub(super) fn told_recreated(&mut self, topic: String) {
        tracing::warn!(
            topic,
            "the topic was deleted and created again, and is read from its beginning"
        );
        let reason = format!(
            "the topic {topic} was deleted and created again, and is read from its beginning; \
             what the old one still held is gone"
        );
        self.notify(Notice::OffsetReset { reason });
        let of_it = |id: &PartitionId| {
            let name = self.partitions.name(*id);
            name.is_some_and(|(name, _)| **name == *topic)
        };
        let partitions: Vec<_> = self.partitions.owned().filter(of_it).collect();
        self.recreated.0.insert(topic, Instant::now());
        self.begin_anew(&partitions);
    }

    /// Has those of newly assigned partitions read from their beginning whose topics have become
    /// others of late.
    pub(super) fn doubt_positions(&mut self, partitions: &[PartitionId]) {
        let in_doubt = partitions.iter().copied().filter(|id| {
            let name = self.partitions.name(*id);
            name.is_some_and(|(topic, _)| self.recreated.is_in_doubt(topic))
        });
        let in_doubt: Vec<_> = in_doubt.collect();
        self.begin_anew(&in_doubt);
    }

    /// The client was sent to a beginning, and yet falls back from a position of the old log, of
    /// which it was told before: perhaps to the end.
    pub(super) fn doubt_reset(&mut self, said: &str) {
        if self.recreated.0.is_empty() || offset_in(said) == Some(0) {
            return;
        }
        let of_it = |id: &PartitionId| {
            let name = self.partitions.name(*id);
            name.is_some_and(|(topic, number)| said.contains(&format!(" {topic} [{number}]:")))
        };
        let of_it: Vec<_> = self.partitions.owned().filter(of_it).collect();
        self.doubt_positions(&of_it);
    }

    fn begin_anew(&mut self, partitions: &[PartitionId]) {
        for partition in partitions.iter().copied() {
            self.partitions.sought(partition);
            let to = CommitOffset(0);
            self.on_event(Event::Seek { partition, to });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: &str = "F7ThUwBHTc-M4ILhvCyCnA";
    const OTHER: &str = "BcRFcEO_T7-Ku0OZS_Zk1g";

    fn said(topic: &str, from: &str, to: &str) -> String {
        format!("[thrd:main]: Topic {topic} changed id from {from} to {to}")
    }

    fn learn(ids: &mut Ids, topic: &str, from: &str, to: &str) -> bool {
        let said = said(topic, from, to);
        let log = Log::in_message("METADATA", &said).expect("it is about an id");
        assert_eq!(log.topic, topic);
        ids.learn(&log)
    }

    #[test]
    fn a_topic_with_another_id_is_another_one() {
        let mut ids = Ids::default();
        assert!(!learn(&mut ids, "orders", NO_ID, ONE), "the first look");
        assert!(!learn(&mut ids, "payments", NO_ID, OTHER));
        assert!(learn(&mut ids, "orders", ONE, OTHER));
        assert!(!learn(&mut ids, "orders", ONE, OTHER), "said already");
    }

    #[test]
    fn a_topic_that_the_client_had_forgotten_is_told_apart_all_the_same() {
        let mut ids = Ids::default();
        learn(&mut ids, "orders", NO_ID, ONE);
        assert!(!learn(&mut ids, "orders", NO_ID, ONE));
        assert!(learn(&mut ids, "orders", NO_ID, OTHER));
    }

    #[test]
    fn what_is_not_about_ids_means_nothing() {
        let said = said("orders", ONE, NO_ID);
        assert_eq!(Log::in_message("METADATA", &said), None, "no id any more");
        for other in [
            "",
            "Topic orders [0] Leader 1 Epoch 0",
            " changed id from a to b",
        ] {
            assert_eq!(Log::in_message("METADATA", other), None, "{other:?}");
        }
        assert_eq!(
            Log::in_message("OFFSET", "Topic a changed id from b to c"),
            None
        );
    }
}
