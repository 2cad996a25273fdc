//! From the log to the state, and from the state to a log that is shorter.

use kafka_protocol::protocol::StrBytes;

use super::classic::Classic;
use super::consumer::Consumer;
use super::group::{Group, Membership};
use super::{Machine, Now};
use crate::group::record::{Change, ConsumerChange};

impl Machine {
    /// Takes up a record of the log. Only before the first request.
    pub(crate) fn replay(&mut self, change: Change) {
        match change {
            Change::Offset {
                group,
                topic,
                partition,
                value: Some(value),
            } => {
                self.transactions.supersede(&group, &topic, partition);
                self.replayed(group).offsets.set(&topic, partition, value);
            }
            Change::Offset {
                group,
                topic,
                partition,
                value: None,
            } => {
                if let Some(group) = self.groups.get_mut(&group) {
                    group.offsets.remove(&topic, partition);
                }
                self.transactions
                    .forget(|of, name, index| *of == group && *name == topic && index == partition);
            }
            Change::Pending {
                producer,
                group,
                topic,
                partition,
                value,
            } => self
                .transactions
                .set(producer, (group, topic, partition), value),
            Change::TransactionEnd { producer, verdict } => self.take_end(producer, verdict),
            Change::Group { group, value } => {
                let group = self.replayed(group);
                match group.classic_mut() {
                    Some(classic) => classic.written = value,
                    // A consumer group that was deleted before says so itself.
                    None if value.is_none() => {}
                    None => {
                        let mut classic = Classic::new(group.id.clone());
                        classic.written = value;
                        group.membership = Membership::Classic(classic);
                    }
                }
            }
            Change::Consumer { group, change } => {
                let group = self.replayed(group);
                match (change, group.consumer_mut()) {
                    (ConsumerChange::Epoch(None), None) => {}
                    (ConsumerChange::Epoch(None), Some(_)) => {
                        group.membership = Membership::Classic(Classic::new(group.id.clone()));
                    }
                    (change, Some(consumer)) => consumer.replay(change),
                    (change, None) => {
                        let mut consumer = Consumer::new(group.id.clone());
                        consumer.replay(change);
                        group.membership = Membership::Consumer(consumer);
                    }
                }
            }
        }
    }

    fn replayed(&mut self, id: StrBytes) -> &mut Group {
        self.groups
            .entry(id.clone())
            .or_insert_with(|| Group::new(id))
    }

    /// The log is at its end: members begin new sessions, for they could not speak meanwhile.
    pub(crate) fn replay_done(&mut self, now: Now) {
        let ids: Vec<_> = self.groups.keys().cloned().collect();
        for id in ids {
            let session_ms = self.timeouts(&id).session_ms;
            if let Some(group) = self.groups.get_mut(&id) {
                group.restore(now, session_ms);
            }
            self.settle(&id);
        }
    }

    /// The records that a replay would need: for each group its last one and its offsets, and what
    /// is pending, before or behind the offsets as it is older or newer.
    pub(crate) fn live(&self) -> impl Iterator<Item = Change> {
        let groups = self.groups.values().flat_map(|group| {
            let offsets = group
                .offsets
                .iter()
                .map(|(topic, partition, value)| Change::Offset {
                    group: group.id.clone(),
                    topic: topic.clone(),
                    partition,
                    value: Some(value.clone()),
                });
            group.live().into_iter().chain(offsets)
        });
        let older = self.transactions.live(true);
        older.chain(groups).chain(self.transactions.live(false))
    }
}
