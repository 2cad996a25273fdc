//! From the log to the state, and from the state to a log that is shorter.

use kafka_protocol::protocol::StrBytes;

use super::group::{Group, Phase};
use super::member::Member;
use super::{Machine, Now};
use crate::group::record::Change;

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
            Change::Group { group, value } => self.replayed(group).written = value,
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
            if let Some(group) = self.groups.get_mut(&id) {
                group.restore(now);
            }
            self.settle(&id);
        }
    }

    /// The records that a replay would need: for each group its last one and its offsets, and what
    /// is pending, before or behind the offsets as it is older or newer.
    pub(crate) fn live(&self) -> impl Iterator<Item = Change> {
        let groups = self.groups.values().flat_map(|group| {
            let metadata = group.written.clone().map(|value| Change::Group {
                group: group.id.clone(),
                value: Some(value),
            });
            let offsets = group
                .offsets
                .iter()
                .map(|(topic, partition, value)| Change::Offset {
                    group: group.id.clone(),
                    topic: topic.clone(),
                    partition,
                    value: Some(value.clone()),
                });
            metadata.into_iter().chain(offsets)
        });
        let older = self.transactions.live(true);
        older.chain(groups).chain(self.transactions.live(false))
    }
}

impl Group {
    fn restore(&mut self, now: Now) {
        let Some(written) = self.written.clone() else {
            return;
        };
        let protocol = written.protocol.clone().unwrap_or_default();
        self.generation = written.generation;
        for metadata in &written.members {
            let member = Member::replayed(metadata, &protocol, now);
            self.add(member, written.protocol_type.clone());
        }
        self.protocol_type = Some(written.protocol_type).filter(|name| !name.is_empty());
        self.protocol = written.protocol;
        self.leader = written
            .leader
            .filter(|id| self.members.contains_key(id))
            .or(self.leader.take());
        if !self.members.is_empty() {
            self.phase = Phase::Stable {
                sync_until: now.tick_ms,
            };
        }
    }
}
