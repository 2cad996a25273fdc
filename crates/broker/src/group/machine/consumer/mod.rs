//! Groups whose members are told by the coordinator what to read (KIP-848).
//!
//! Nobody waits for the others here. The group has an epoch that grows with every change; a target
//! assignment is computed for it; and each member is brought to the target on its own, by the
//! answers to its heartbeats: first it gives up what is not its any more, then it gets what others
//! have given up. A partition is given to a member only when no other holds it, so there are never
//! two owners, and who need not move goes on reading.
//!
//! A step may write many records, and a log may end between any two of them. So the epoch is written
//! first: a group whose epoch is ahead of its target is assigned anew, whatever else is missing.
//!
//! | file | what it decides |
//! |---|---|
//! | `heartbeat` | the one request: joining, staying, and what is answered |
//! | `classic` | members that speak the classic protocol: their joins, syncs and heartbeats |
//! | `membership` | who may speak for a member; leaving, falling silent, coming back |
//! | `target` | subscriptions, the group's epoch, the target assignment |
//! | `reconcile` | a member's next step towards its target |
//! | `pattern` | subscriptions by regular expression |
//! | `view` | how operators, commits and the log see it |

mod classic;
mod heartbeat;
mod membership;
mod pattern;
mod reconcile;
mod target;
mod view;

use std::collections::BTreeMap;

use kafka_protocol::protocol::StrBytes;
use rustc_hash::FxHashMap;
use uuid::Uuid;

use super::{Context, Now};
use crate::group::record::{
    Change, ConsumerChange, ConsumerMember, CurrentAssignment, GroupEpoch, Partitions,
};
pub(super) use heartbeat::Beat;
use pattern::Patterns;

/// A group with the consumer protocol.
#[derive(Debug)]
pub(super) struct Consumer {
    id: StrBytes,
    epoch: GroupEpoch,
    members: BTreeMap<StrBytes, Member>,
    /// Member ids by instance id.
    static_ids: BTreeMap<StrBytes, StrBytes>,
    /// The group epoch that `targets` was computed for.
    target_epoch: i32,
    targets: BTreeMap<StrBytes, Partitions>,
    /// Who holds a partition, also if only until it is given up.
    owners: FxHashMap<(Uuid, i32), StrBytes>,
    patterns: Patterns,
    /// The snapshot of topics that the group's epoch is about; `None`: not looked since a restart.
    seen: Option<u64>,
    /// The log ended in the middle of a change: a new epoch puts it right.
    torn: bool,
}

/// A member: what the log says of it, and how long it has to speak.
#[derive(Debug, Clone)]
struct Member {
    id: StrBytes,
    metadata: ConsumerMember,
    current: CurrentAssignment,
    /// When its silence has become too long.
    silent_at: u64,
    /// When partitions that it has to give up must be given up.
    revoke_by: Option<u64>,
    /// When a classic member must have joined again that was told so.
    rejoin_by: Option<u64>,
    /// When a classic member must have asked for its assignment.
    sync_by: Option<u64>,
}

impl Consumer {
    pub(super) fn new(id: StrBytes) -> Self {
        Self {
            id,
            epoch: GroupEpoch {
                epoch: 0,
                metadata_hash: 0,
            },
            members: BTreeMap::new(),
            static_ids: BTreeMap::new(),
            target_epoch: 0,
            targets: BTreeMap::new(),
            owners: FxHashMap::default(),
            patterns: Patterns::default(),
            seen: None,
            torn: false,
        }
    }

    /// When something is due if nothing happens before.
    pub(super) fn deadline(&self) -> Option<u64> {
        self.members.values().map(Member::deadline).min()
    }

    /// Takes up a member as it is now, in place of what was known of it.
    fn put(&mut self, member: Member) {
        let known = self.members.get(&member.id);
        if known.is_none_or(|known| known.current != member.current) {
            self.disown(&member.id);
            let held = &member.current;
            for partition in held.assigned.iter().chain(held.revoking.iter()) {
                self.owners.insert(partition, member.id.clone());
            }
        }
        if let Some(instance_id) = &member.metadata.instance_id {
            self.static_ids
                .insert(instance_id.clone(), member.id.clone());
        }
        self.members.insert(member.id.clone(), member);
    }

    /// Forgets a member and frees what it held.
    fn take(&mut self, id: &StrBytes) -> Option<Member> {
        self.disown(id);
        let member = self.members.remove(id)?;
        if let Some(instance_id) = &member.metadata.instance_id
            && self.static_ids.get(instance_id) == Some(id)
        {
            self.static_ids.remove(instance_id);
        }
        Some(member)
    }

    fn disown(&mut self, id: &StrBytes) {
        let Some(member) = self.members.get(id) else {
            return;
        };
        let held = &member.current;
        for partition in held.assigned.iter().chain(held.revoking.iter()) {
            if self.owners.get(&partition) == Some(id) {
                self.owners.remove(&partition);
            }
        }
    }

    fn write(&self, cx: &mut Context<'_>, change: ConsumerChange) {
        cx.write(self.change(change));
    }

    fn change(&self, change: ConsumerChange) -> Change {
        Change::Consumer {
            group: self.id.clone(),
            change,
        }
    }
}

impl Member {
    fn new(id: StrBytes) -> Self {
        Self {
            id,
            metadata: ConsumerMember::default(),
            current: CurrentAssignment::default(),
            silent_at: u64::MAX,
            revoke_by: None,
            rejoin_by: None,
            sync_by: None,
        }
    }

    /// It spoke: it has the group's session timeout until it must again, or its own as a classic
    /// member.
    fn alive(&mut self, now: Now, session_timeout_ms: u64) {
        let own = self.metadata.classic.as_ref();
        let own = own.and_then(|classic| u64::try_from(classic.session_timeout_ms).ok());
        self.silent_at = now.tick_ms + own.unwrap_or(session_timeout_ms);
    }

    fn deadline(&self) -> u64 {
        let steps = [self.revoke_by, self.rejoin_by, self.sync_by];
        let step = steps.into_iter().flatten().min();
        step.map_or(self.silent_at, |at| at.min(self.silent_at))
    }

    fn rebalance_timeout_ms(&self) -> u64 {
        u64::try_from(self.metadata.rebalance_timeout_ms).unwrap_or(0)
    }
}
