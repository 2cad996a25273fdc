//! Classic groups, whose members agree among themselves: one of them, the leader, computes who reads
//! what, and the coordinator gathers them into generations (KIP-62, 134, 345, 394, 429, 559, 814).

mod join;
mod member;
mod migration;
mod rebalance;
mod session;
mod sync;
mod view;

use std::collections::BTreeMap;

use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::JoinGroupRequest;
use kafka_protocol::messages::join_group_response::JoinGroupResponseMember;
use kafka_protocol::protocol::StrBytes;

use super::{Context, join_refused, sync_refused};
use crate::group::record::{Change, GroupMetadata};
pub(super) use join::{Join, MEMBER_ID_REQUIRED};
use member::{Member, Wait};

/// A generation of members. A group whose consumers assign partitions themselves has none.
#[derive(Debug)]
pub(super) struct Classic {
    id: StrBytes,
    phase: Phase,
    generation: i32,
    /// Set by the first member, kept when the group is empty; `None` while it has only offsets.
    protocol_type: Option<StrBytes>,
    protocol: Option<StrBytes>,
    leader: Option<StrBytes>,
    members: BTreeMap<StrBytes, Member>,
    /// Member ids by instance id.
    static_ids: BTreeMap<StrBytes, StrBytes>,
    /// Member ids that were given out (KIP-394) and not used yet, and when they lapse.
    pub(super) pending: BTreeMap<StrBytes, u64>,
    /// The group's last record in the log. While a rebalance is under way it is older than the rest.
    pub(super) written: Option<GroupMetadata>,
}

/// Where a group is between two generations.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// No members.
    Empty,
    /// Joins are gathered until all members have rejoined, at most until `until`.
    PreparingRebalance {
        until: u64,
        initial: Option<InitialDelay>,
    },
    /// The generation is complete, the leader computes assignments.
    CompletingRebalance { sync_until: u64 },
    /// Members have assignments; those who still owe a sync have until `sync_until`.
    Stable { sync_until: u64 },
}

/// The wait of an empty group for more members; every newcomer extends it once more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct InitialDelay {
    remaining_ms: u64,
    newcomer: bool,
}

impl Classic {
    pub(super) fn new(id: StrBytes) -> Self {
        Self {
            id,
            phase: Phase::Empty,
            generation: 0,
            protocol_type: None,
            protocol: None,
            leader: None,
            members: BTreeMap::new(),
            static_ids: BTreeMap::new(),
            pending: BTreeMap::new(),
            written: None,
        }
    }

    /// Kafka's name of the phase.
    fn state_name(&self) -> &'static str {
        match self.phase {
            Phase::Empty => "Empty",
            Phase::PreparingRebalance { .. } => "PreparingRebalance",
            Phase::CompletingRebalance { .. } => "CompletingRebalance",
            Phase::Stable { .. } => "Stable",
        }
    }

    /// Nothing is left that anybody could ask for.
    pub(super) fn is_blank(&self) -> bool {
        self.phase == Phase::Empty && self.pending.is_empty() && self.written.is_none()
    }

    /// When something is due if nothing happens before.
    pub(super) fn deadline(&self) -> Option<u64> {
        let phase = match self.phase {
            Phase::Empty => None,
            Phase::PreparingRebalance { until, .. } => Some(until),
            Phase::CompletingRebalance { sync_until } | Phase::Stable { sync_until } => self
                .members
                .values()
                .any(|m| m.owes_sync)
                .then_some(sync_until),
        };
        let members = self.members.values().filter_map(Member::deadline);
        members
            .chain(self.pending.values().copied())
            .chain(phase)
            .min()
    }

    /// Whether the sender is who it says: a known member, and the latest with its instance id.
    fn check_member(
        &self,
        id: &StrBytes,
        instance_id: Option<&StrBytes>,
    ) -> Result<(), ResponseError> {
        if let Some(instance_id) = instance_id {
            let current = self
                .static_ids
                .get(instance_id)
                .ok_or(ResponseError::UnknownMemberId)?;
            if current != id {
                return Err(ResponseError::FencedInstanceId);
            }
        }
        if self.members.contains_key(id) {
            Ok(())
        } else {
            Err(ResponseError::UnknownMemberId)
        }
    }

    fn check_generation(&self, generation: i32) -> Result<(), ResponseError> {
        if generation == self.generation {
            Ok(())
        } else {
            Err(ResponseError::IllegalGeneration)
        }
    }

    /// Whether somebody with these protocols can be a member besides those there are.
    fn supports(&self, request: &JoinGroupRequest) -> bool {
        if self.members.is_empty() {
            return !request.protocol_type.is_empty() && !request.protocols.is_empty();
        }
        self.protocol_type.as_ref() == Some(&request.protocol_type)
            && request.protocols.iter().any(|p| self.all_offer(&p.name))
    }

    fn all_offer(&self, protocol: &StrBytes) -> bool {
        self.members
            .values()
            .all(|member| member.protocols.iter().any(|p| p.name == *protocol))
    }

    /// The protocol that all members offer and most of them prefer; the leader's order settles a tie.
    fn elect_protocol(&self) -> Option<StrBytes> {
        let leader = self
            .leader
            .as_ref()
            .and_then(|id| self.members.get(id))
            .or(self.members.values().next())?;
        let candidates: Vec<_> = leader
            .protocols
            .iter()
            .map(|p| p.name.clone())
            .filter(|name| self.all_offer(name))
            .collect();
        let votes: Vec<_> = self
            .members
            .values()
            .filter_map(|member| member.vote(&candidates))
            .collect();
        let count = |name: &StrBytes| votes.iter().filter(|vote| *vote == name).count();
        candidates
            .iter()
            .rev()
            .max_by_key(|name| count(name))
            .cloned()
    }

    /// Everybody's metadata, for the leader.
    fn roll(&self) -> Vec<JoinGroupResponseMember> {
        let protocol = self.protocol.clone().unwrap_or_default();
        let entry = |member: &Member| {
            JoinGroupResponseMember::default()
                .with_member_id(member.id.clone())
                .with_group_instance_id(member.instance_id.clone())
                .with_metadata(member.metadata(&protocol))
        };
        self.members.values().map(entry).collect()
    }

    fn is_leader(&self, id: &StrBytes) -> bool {
        self.leader.as_ref() == Some(id)
    }

    fn add(&mut self, member: Member, protocol_type: StrBytes) {
        if self.members.is_empty() {
            self.protocol_type = Some(protocol_type);
        }
        self.leader.get_or_insert_with(|| member.id.clone());
        if let Some(instance_id) = &member.instance_id {
            self.static_ids
                .insert(instance_id.clone(), member.id.clone());
        }
        self.pending.remove(&member.id);
        self.members.insert(member.id.clone(), member);
    }

    /// Takes a member out; what it waits for is refused with `UNKNOWN_MEMBER_ID`.
    fn remove(&mut self, cx: &mut Context<'_>, id: &StrBytes) {
        let Some(mut member) = self.members.remove(id) else {
            return;
        };
        if let Some(instance_id) = &member.instance_id {
            self.static_ids.remove(instance_id);
        }
        if self.is_leader(id) {
            self.leader = self.members.keys().next().cloned();
        }
        refuse(cx, member.end_any(), id, ResponseError::UnknownMemberId);
    }

    /// Writes the generation as it is now: what a restart comes back to.
    fn write(&mut self, cx: &mut Context<'_>) {
        let protocol = self.protocol.clone().unwrap_or_default();
        let metadata = GroupMetadata {
            protocol_type: self.protocol_type.clone().unwrap_or_default(),
            generation: self.generation,
            protocol: self.protocol.clone(),
            leader: self.leader.clone(),
            state_ms: cx.now.unix_ms,
            members: self
                .members
                .values()
                .map(|member| member.to_metadata(&protocol))
                .collect(),
        };
        self.written = Some(metadata.clone());
        cx.write(Change::Group {
            group: self.id.clone(),
            value: Some(metadata),
        });
    }
}

/// Answers a request that a member waits for, and that will not be carried out.
fn refuse(cx: &mut Context<'_>, wait: Option<Wait>, id: &StrBytes, error: ResponseError) {
    match wait {
        Some(Wait::Join(token)) => cx.reply(token, join_refused(id.clone(), error)),
        Some(Wait::Sync(token)) => cx.reply(token, sync_refused(error)),
        None => {}
    }
}
