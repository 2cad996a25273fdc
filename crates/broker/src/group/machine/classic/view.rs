//! A classic group as others need to see it: operators, commits, the log.

use std::collections::BTreeSet;

use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::describe_groups_response::{DescribedGroup, DescribedGroupMember};
use kafka_protocol::messages::list_groups_response::ListedGroup;
use kafka_protocol::messages::{GroupId, OffsetCommitRequest, TxnOffsetCommitRequest};
use kafka_protocol::protocol::StrBytes;

use super::super::Now;
use super::{Classic, Member, Phase};
use crate::group::record::{Change, subscribed_topics};

impl Classic {
    pub(in super::super) fn is_empty(&self) -> bool {
        self.phase == Phase::Empty
    }

    pub(in super::super) fn is_stable(&self) -> bool {
        matches!(self.phase, Phase::Stable { .. })
    }

    pub(in super::super) fn is_consumers(&self) -> bool {
        self.protocol_type.as_deref() == Some("consumer")
    }

    pub(in super::super) fn check_commit(
        &mut self,
        now: Now,
        request: &OffsetCommitRequest,
    ) -> Result<(), ResponseError> {
        let generation = request.generation_id_or_member_epoch;
        if generation < 0 && self.is_empty() {
            return Ok(());
        }
        if generation < 0 && request.member_id.is_empty() && request.group_instance_id.is_none() {
            return Err(ResponseError::UnknownMemberId);
        }
        self.check_member(&request.member_id, request.group_instance_id.as_ref())?;
        self.check_generation(generation)?;
        if matches!(self.phase, Phase::CompletingRebalance { .. }) {
            return Err(ResponseError::RebalanceInProgress);
        }
        if let Some(member) = self.members.get_mut(&request.member_id) {
            member.alive(now);
        }
        Ok(())
    }

    /// As [`Classic::check_commit`], for a commit in a transaction by who says that it is a member.
    pub(in super::super) fn check_pending(
        &mut self,
        now: Now,
        request: &TxnOffsetCommitRequest,
    ) -> Result<(), ResponseError> {
        self.check_member(&request.member_id, request.group_instance_id.as_ref())?;
        self.check_generation(request.generation_id)?;
        if let Some(member) = self.members.get_mut(&request.member_id) {
            member.alive(now);
        }
        Ok(())
    }

    /// The topics that members may read; `None` if their metadata cannot be read.
    pub(in super::super) fn subscribed(&self) -> Option<BTreeSet<StrBytes>> {
        if !self.is_consumers() {
            return None;
        }
        let protocols = self.members.values().flat_map(|member| &member.protocols);
        let mut topics = BTreeSet::new();
        for protocol in protocols {
            topics.extend(subscribed_topics(&protocol.metadata).ok()?);
        }
        Some(topics)
    }

    pub(in super::super) fn listed(&self) -> ListedGroup {
        ListedGroup::default()
            .with_group_id(GroupId(self.id.clone()))
            .with_protocol_type(self.protocol_type.clone().unwrap_or_default())
            .with_group_state(StrBytes::from_static_str(self.state_name()))
            .with_group_type(StrBytes::from_static_str("classic"))
    }

    pub(in super::super) fn describe(&self) -> DescribedGroup {
        let stable = self.is_stable();
        let protocol = self.protocol.clone().filter(|_| stable).unwrap_or_default();
        let member = |member: &Member| {
            let described = DescribedGroupMember::default()
                .with_member_id(member.id.clone())
                .with_group_instance_id(member.instance_id.clone())
                .with_client_id(member.client.id.clone())
                .with_client_host(member.client.host.clone());
            // Between generations the two do not belong together.
            if !stable {
                return described;
            }
            described
                .with_member_metadata(member.metadata(&protocol))
                .with_member_assignment(member.assignment.clone())
        };
        DescribedGroup::default()
            .with_group_state(StrBytes::from_static_str(self.state_name()))
            .with_protocol_type(self.protocol_type.clone().unwrap_or_default())
            .with_members(self.members.values().map(member).collect())
            .with_protocol_data(protocol)
    }

    /// When it became empty; `None` if it has members, or never had any.
    pub(in super::super) fn empty_since(&self) -> Option<i64> {
        let written = self.written.as_ref().filter(|_| self.is_empty());
        written.map(|written| written.state_ms)
    }

    pub(in super::super) fn erase(&mut self, changes: &mut Vec<Change>) {
        self.pending.clear();
        if self.written.take().is_some() {
            changes.push(Change::Group {
                group: self.id.clone(),
                value: None,
            });
        }
    }

    pub(in super::super) fn live(&self) -> Option<Change> {
        self.written.clone().map(|value| Change::Group {
            group: self.id.clone(),
            value: Some(value),
        })
    }

    pub(in super::super) fn restore(&mut self, now: Now) {
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

#[cfg(test)]
impl Classic {
    pub(in super::super) fn has_member(&self, id: &StrBytes) -> bool {
        self.members.contains_key(id)
    }
}
