//! A consumer group as others need to see it: operators, commits, the log.

use std::collections::BTreeSet;

use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::consumer_group_describe_response::{
    Assignment, DescribedGroup, Member as DescribedMember, TopicPartitions,
};
use kafka_protocol::messages::list_groups_response::ListedGroup;
use kafka_protocol::messages::{GroupId, OffsetCommitRequest, TopicName};
use kafka_protocol::protocol::StrBytes;
use uuid::Uuid;

use super::super::Now;
use super::super::topics::Topics;
use super::{Consumer, Member};
use crate::group::record::{Change, ConsumerChange, ConsumerMember, MemberState, Partitions};

/// The first version of OffsetCommit that has a member epoch.
const MEMBER_EPOCH: i16 = 9;
/// In a description: which protocol the member speaks.
const CLASSIC_MEMBER: i8 = 0;
const CONSUMER_MEMBER: i8 = 1;
/// "Not told" instead of the operations that are allowed.
const NOT_TOLD: i32 = i32::MIN;

impl Consumer {
    pub(in super::super) fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    pub(in super::super) fn is_blank(&self) -> bool {
        self.epoch.epoch == 0 && self.members.is_empty()
    }

    /// Kafka's names.
    pub(in super::super) fn state_name(&self) -> &'static str {
        let settled = |member: &Member| {
            member.current.state == MemberState::Stable && member.current.epoch == self.target_epoch
        };
        if self.members.is_empty() {
            "Empty"
        } else if self.epoch.epoch > self.target_epoch {
            "Assigning"
        } else if !self.members.values().all(settled) {
            "Reconciling"
        } else {
            "Stable"
        }
    }

    pub(in super::super) fn listed(&self) -> ListedGroup {
        ListedGroup::default()
            .with_group_id(GroupId(self.id.clone()))
            .with_protocol_type(StrBytes::from_static_str("consumer"))
            .with_group_state(StrBytes::from_static_str(self.state_name()))
            .with_group_type(StrBytes::from_static_str("consumer"))
    }

    pub(in super::super) fn describe(&self, topics: &Topics) -> DescribedGroup {
        let member = |member: &Member| {
            let ConsumerMember {
                instance_id,
                rack_id,
                client_id,
                client_host,
                topics: names,
                regex,
                ..
            } = member.metadata.clone();
            let target = self.targets.get(&member.id).cloned().unwrap_or_default();
            DescribedMember::default()
                .with_member_id(member.id.clone())
                .with_instance_id(instance_id)
                .with_rack_id(rack_id)
                .with_member_epoch(member.current.epoch)
                .with_client_id(client_id)
                .with_client_host(client_host)
                .with_subscribed_topic_names(names.into_iter().map(TopicName).collect())
                .with_subscribed_topic_regex(regex)
                .with_assignment(named(&member.current.assigned, topics))
                .with_target_assignment(named(&target, topics))
                .with_member_type(match member.is_classic() {
                    true => CLASSIC_MEMBER,
                    false => CONSUMER_MEMBER,
                })
        };
        DescribedGroup::default()
            .with_group_state(StrBytes::from_static_str(self.state_name()))
            .with_group_epoch(self.epoch.epoch)
            .with_assignment_epoch(self.target_epoch)
            .with_assignor_name(StrBytes::from_static_str(self.preferred_assignor().name()))
            .with_members(self.members.values().map(member).collect())
            .with_authorized_operations(NOT_TOLD)
    }

    /// Only a member, with its epoch, may move the group's positions while there are members.
    pub(in super::super) fn check_commit(
        &self,
        request: &OffsetCommitRequest,
        version: i16,
    ) -> Result<(), ResponseError> {
        let epoch = request.generation_id_or_member_epoch;
        if epoch < 0 && self.is_empty() {
            return Ok(());
        }
        let member = self.members.get(&request.member_id);
        // What such a version says is no member epoch.
        if version < MEMBER_EPOCH && member.is_some_and(|member| !member.is_classic()) {
            return Err(ResponseError::UnsupportedVersion);
        }
        self.check_epoch(&request.member_id, epoch)
    }

    /// A member that reads positions must be one that may use them; who is none may look.
    pub(in super::super) fn check_fetch(
        &self,
        member_id: Option<&StrBytes>,
        epoch: i32,
    ) -> Result<(), ResponseError> {
        match member_id.filter(|id| !id.is_empty()) {
            None if epoch < 0 => Ok(()),
            None => Err(ResponseError::UnknownMemberId),
            Some(id) => self.check_epoch(id, epoch),
        }
    }

    pub(in super::super) fn check_epoch(
        &self,
        member_id: &StrBytes,
        epoch: i32,
    ) -> Result<(), ResponseError> {
        let member = self
            .members
            .get(member_id)
            .ok_or(ResponseError::UnknownMemberId)?;
        match epoch == member.current.epoch {
            true => Ok(()),
            false if member.is_classic() => Err(ResponseError::IllegalGeneration),
            false => Err(ResponseError::StaleMemberEpoch),
        }
    }

    pub(in super::super) fn erase(&mut self, changes: &mut Vec<Change>) {
        if self.epoch.epoch > 0 {
            changes.push(self.change(ConsumerChange::TargetEpoch(None)));
            changes.push(self.change(ConsumerChange::Epoch(None)));
        }
    }

    /// The records that a replay would need. A member comes before what it has.
    pub(in super::super) fn live(&self) -> Vec<Change> {
        if self.is_blank() {
            return Vec::new();
        }
        let mut changes = vec![ConsumerChange::Epoch(Some(self.epoch))];
        for member in self.members.values() {
            let metadata = Some(member.metadata.clone());
            changes.push(ConsumerChange::Member(member.id.clone(), metadata));
        }
        for (id, target) in &self.targets {
            changes.push(ConsumerChange::Target(id.clone(), Some(target.clone())));
        }
        changes.push(ConsumerChange::TargetEpoch(Some(self.target_epoch)));
        for member in self.members.values() {
            let current = Some(member.current.clone());
            changes.push(ConsumerChange::Current(member.id.clone(), current));
        }
        changes
            .into_iter()
            .map(|change| self.change(change))
            .collect()
    }

    pub(in super::super) fn replay(&mut self, change: ConsumerChange) {
        match change {
            ConsumerChange::Epoch(Some(epoch)) => self.epoch = epoch,
            ConsumerChange::Epoch(None) => *self = Self::new(self.id.clone()),
            ConsumerChange::TargetEpoch(epoch) => self.target_epoch = epoch.unwrap_or(0),
            ConsumerChange::Target(member, Some(target)) => {
                self.targets.insert(member, target);
            }
            ConsumerChange::Target(member, None) => {
                self.targets.remove(&member);
            }
            ConsumerChange::Member(id, Some(metadata)) => {
                let mut member = self.replayed(id);
                member.metadata = metadata;
                self.put(member);
            }
            ConsumerChange::Member(id, None) => {
                self.take(&id);
            }
            ConsumerChange::Current(id, Some(current)) => {
                let mut member = self.replayed(id);
                member.current = current;
                self.put(member);
            }
            // What the log says of the member itself comes before, and counts.
            ConsumerChange::Current(_, None) => {}
        }
    }

    fn replayed(&self, id: StrBytes) -> Member {
        self.members
            .get(&id)
            .cloned()
            .unwrap_or_else(|| Member::new(id))
    }

    pub(in super::super) fn restore(&mut self, now: Now, session_timeout_ms: u64) {
        let targets = self.targets.len();
        self.targets.retain(|id, _| self.members.contains_key(id));
        let joining = self
            .members
            .values()
            .any(|member| member.current.epoch == 0);
        self.torn = self.targets.len() < targets || joining;
        for member in self.members.values_mut() {
            member.alive(now, session_timeout_ms);
            member.revoke_by = (member.current.state == MemberState::Unrevoked)
                .then(|| now.tick_ms + member.rebalance_timeout_ms());
        }
    }
}

#[cfg(test)]
impl Consumer {
    pub(in super::super) fn has_member(&self, id: &StrBytes) -> bool {
        self.members.contains_key(id)
    }

    /// Whether the member may read the partition, for all that the coordinator knows.
    pub(in super::super) fn holds(&self, id: &StrBytes, (topic, partition): (Uuid, i32)) -> bool {
        self.members.get(id).is_some_and(|member| {
            let held = &member.current;
            held.assigned.contains(topic, partition) || held.revoking.contains(topic, partition)
        })
    }
}

/// Partitions by their topics' names; those of topics that are gone are not shown.
fn named(partitions: &Partitions, topics: &Topics) -> Assignment {
    let topic = |(id, indexes): (Uuid, &BTreeSet<i32>)| {
        let name = topics.name(id)?.clone();
        Some(
            TopicPartitions::default()
                .with_topic_id(id)
                .with_topic_name(TopicName(name))
                .with_partitions(indexes.iter().copied().collect()),
        )
    };
    Assignment::default().with_topic_partitions(partitions.topics().filter_map(topic).collect())
}
