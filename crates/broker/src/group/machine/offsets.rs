//! Committed offsets: how far a group got, whoever its members are.

use std::collections::{BTreeMap, BTreeSet};

use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::offset_commit_request::OffsetCommitRequestPartition;
use kafka_protocol::messages::offset_commit_response::{
    OffsetCommitResponsePartition, OffsetCommitResponseTopic,
};
use kafka_protocol::messages::offset_delete_response::{
    OffsetDeleteResponsePartition, OffsetDeleteResponseTopic,
};
use kafka_protocol::messages::offset_fetch_request::OffsetFetchRequestGroup;
use kafka_protocol::messages::offset_fetch_response::{
    OffsetFetchResponseGroup, OffsetFetchResponsePartitions, OffsetFetchResponseTopics,
};
use kafka_protocol::messages::{
    OffsetCommitRequest, OffsetCommitResponse, OffsetDeleteRequest, OffsetDeleteResponse, TopicName,
};
use kafka_protocol::protocol::StrBytes;
use tracing::info;

use super::group::{Group, Phase};
use super::{Context, Machine, NAME_MAX, Now, Response, Token, code, owned};
use crate::group::record::{Change, CommittedOffset, subscribed_topics};

/// A group's positions, by topic and partition.
#[derive(Debug, Default)]
pub(super) struct Offsets(BTreeMap<StrBytes, BTreeMap<i32, CommittedOffset>>);

impl Offsets {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn set(&mut self, topic: &StrBytes, partition: i32, value: CommittedOffset) {
        self.0
            .entry(topic.clone())
            .or_default()
            .insert(partition, value);
    }

    pub(super) fn remove(&mut self, topic: &StrBytes, partition: i32) -> bool {
        let Some(partitions) = self.0.get_mut(topic) else {
            return false;
        };
        let removed = partitions.remove(&partition).is_some();
        if partitions.is_empty() {
            self.0.remove(topic);
        }
        removed
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&StrBytes, i32, &CommittedOffset)> {
        self.0.iter().flat_map(|(topic, of)| {
            of.iter()
                .map(move |(partition, value)| (topic, *partition, value))
        })
    }

    pub(super) fn topics(&self) -> impl Iterator<Item = &StrBytes> {
        self.0.keys()
    }

    fn get(&self, topic: &StrBytes, partition: i32) -> Option<&CommittedOffset> {
        self.0.get(topic)?.get(&partition)
    }

    /// The topic's name in memory of its own, shared with what is stored under it.
    fn name(&self, topic: &StrBytes) -> StrBytes {
        self.0
            .get_key_value(topic)
            .map_or_else(|| owned(topic), |(name, _)| name.clone())
    }
}

impl Machine {
    pub(super) fn commit_offsets(&mut self, now: Now, token: Token, request: &OffsetCommitRequest) {
        let outcome = self
            .group_for_commit(request)
            .and_then(|group| group.check_commit(now, request));
        let mut cx = Context {
            now,
            config: &self.config,
            output: &mut self.output,
        };
        let topics = match (outcome, self.groups.get_mut(&request.group_id.0)) {
            (Ok(()), Some(group)) => group.commit(&mut cx, request),
            (outcome, _) => commit_refused(
                request,
                outcome
                    .err()
                    .unwrap_or(ResponseError::CoordinatorNotAvailable),
            ),
        };
        self.reply(
            token,
            Response::CommitOffsets(OffsetCommitResponse::default().with_topics(topics)),
        );
    }

    /// A commit without a generation may create its group: that of a consumer which assigns its
    /// partitions itself, or of a tool that sets a position.
    fn group_for_commit(
        &mut self,
        request: &OffsetCommitRequest,
    ) -> Result<&mut Group, ResponseError> {
        let id = &request.group_id.0;
        if !self.groups.contains_key(id) {
            if request.generation_id_or_member_epoch >= 0 {
                return Err(ResponseError::IllegalGeneration);
            }
            if id.len() > NAME_MAX {
                return Err(ResponseError::InvalidGroupId);
            }
            if self.groups.len() >= self.config.groups_max {
                return Err(ResponseError::PolicyViolation);
            }
        }
        let id = owned(id);
        Ok(self
            .groups
            .entry(id.clone())
            .or_insert_with(|| Group::new(id)))
    }

    pub(super) fn fetch_offsets(&mut self, token: Token, request: OffsetFetchRequestGroup) {
        let group = self.groups.get(&request.group_id.0);
        let topics = match &request.topics {
            None => group.map(Group::all_offsets).unwrap_or_default(),
            Some(topics) => topics
                .iter()
                .map(|topic| {
                    let position = |partition: &i32| {
                        position(
                            *partition,
                            group.and_then(|group| group.offsets.get(&topic.name.0, *partition)),
                        )
                    };
                    OffsetFetchResponseTopics::default()
                        .with_name(topic.name.clone())
                        .with_partitions(topic.partition_indexes.iter().map(position).collect())
                })
                .collect(),
        };
        let response = OffsetFetchResponseGroup::default()
            .with_group_id(request.group_id)
            .with_topics(topics);
        self.reply(token, Response::FetchOffsets(response));
    }

    pub(super) fn delete_offsets(&mut self, token: Token, request: OffsetDeleteRequest) {
        let mut response = OffsetDeleteResponse::default();
        match self.groups.get_mut(&request.group_id.0) {
            None => response.error_code = ResponseError::GroupIdNotFound.code(),
            Some(group) if group.phase != Phase::Empty && !group.is_consumers() => {
                response.error_code = ResponseError::NonEmptyGroup.code();
            }
            Some(group) => response.topics = group.delete(&request, &mut self.output.changes),
        }
        self.settle(&request.group_id.0);
        self.reply(token, Response::DeleteOffsets(response));
    }

    pub(super) fn forget_topics(&mut self, token: Token, topics: &[StrBytes]) {
        let mut touched = Vec::new();
        for group in self.groups.values_mut() {
            let changes = &mut self.output.changes;
            let before = changes.len();
            group.forget(changes, |topic, _| topics.contains(topic));
            if changes.len() > before {
                touched.push(group.id.clone());
            }
        }
        for id in touched {
            self.settle(&id);
        }
        self.reply(token, Response::ForgetTopics);
    }

    /// Deletes offsets that nobody has asked for in a long time, and groups of which nothing is left.
    pub(super) fn expire_offsets(&mut self, now: Now) {
        let retention = i64::try_from(self.config.offsets_retention_ms).unwrap_or(i64::MAX);
        let ids: Vec<_> = self.groups.keys().cloned().collect();
        for id in ids {
            let Some(group) = self.groups.get_mut(&id) else {
                continue;
            };
            group.expire(&mut self.output.changes, now.unix_ms, retention);
            if group.phase == Phase::Empty
                && group.offsets.is_empty()
                && group.written.take().is_some()
            {
                self.output.changes.push(Change::Group {
                    group: id.clone(),
                    value: None,
                });
            }
            self.settle(&id);
        }
    }

    /// The topics in which any group has a position.
    pub(crate) fn committed_topics(&self) -> BTreeSet<StrBytes> {
        self.groups
            .values()
            .flat_map(|group| group.offsets.topics().cloned())
            .collect()
    }
}

impl Group {
    fn check_commit(
        &mut self,
        now: Now,
        request: &OffsetCommitRequest,
    ) -> Result<(), ResponseError> {
        let generation = request.generation_id_or_member_epoch;
        if generation < 0 && self.phase == Phase::Empty {
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

    fn commit(
        &mut self,
        cx: &mut Context<'_>,
        request: &OffsetCommitRequest,
    ) -> Vec<OffsetCommitResponseTopic> {
        let expire_ms = (request.retention_time_ms >= 0)
            .then(|| cx.now.unix_ms.saturating_add(request.retention_time_ms));
        let mut topics = Vec::with_capacity(request.topics.len());
        for topic in &request.topics {
            let name = self.offsets.name(&topic.name.0);
            let mut partitions = Vec::with_capacity(topic.partitions.len());
            for partition in &topic.partitions {
                let outcome = self.commit_one(cx, &name, partition, expire_ms);
                partitions.push(commit_answer(partition, code(outcome)));
            }
            topics.push(
                OffsetCommitResponseTopic::default()
                    .with_name(topic.name.clone())
                    .with_partitions(partitions),
            );
        }
        topics
    }

    fn commit_one(
        &mut self,
        cx: &mut Context<'_>,
        topic: &StrBytes,
        partition: &OffsetCommitRequestPartition,
        expire_ms: Option<i64>,
    ) -> Result<(), ResponseError> {
        let metadata = partition
            .committed_metadata
            .as_ref()
            .map(owned)
            .unwrap_or_default();
        if metadata.len() > cx.config.offset_metadata_max {
            return Err(ResponseError::OffsetMetadataTooLarge);
        }
        let value = CommittedOffset {
            offset: partition.committed_offset,
            leader_epoch: if expire_ms.is_some() {
                -1
            } else {
                partition.committed_leader_epoch
            },
            metadata,
            commit_ms: cx.now.unix_ms,
            expire_ms,
        };
        self.offsets
            .set(topic, partition.partition_index, value.clone());
        cx.write(Change::Offset {
            group: self.id.clone(),
            topic: topic.clone(),
            partition: partition.partition_index,
            value: Some(value),
        });
        Ok(())
    }

    fn all_offsets(&self) -> Vec<OffsetFetchResponseTopics> {
        let topic = |(name, partitions): (&StrBytes, &BTreeMap<i32, CommittedOffset>)| {
            OffsetFetchResponseTopics::default()
                .with_name(TopicName(name.clone()))
                .with_partitions(
                    partitions
                        .iter()
                        .map(|(index, value)| position(*index, Some(value)))
                        .collect(),
                )
        };
        self.offsets.0.iter().map(topic).collect()
    }

    fn delete(
        &mut self,
        request: &OffsetDeleteRequest,
        changes: &mut Vec<Change>,
    ) -> Vec<OffsetDeleteResponseTopic> {
        let mut topics = Vec::with_capacity(request.topics.len());
        for topic in &request.topics {
            let held = self.phase != Phase::Empty && self.reads(&topic.name.0);
            let mut partitions = Vec::with_capacity(topic.partitions.len());
            for partition in &topic.partitions {
                let index = partition.partition_index;
                if !held {
                    self.forget_one(changes, &topic.name.0, index);
                }
                let error = if held {
                    ResponseError::GroupSubscribedToTopic.code()
                } else {
                    0
                };
                partitions.push(
                    OffsetDeleteResponsePartition::default()
                        .with_partition_index(index)
                        .with_error_code(error),
                );
            }
            topics.push(
                OffsetDeleteResponseTopic::default()
                    .with_name(topic.name.clone())
                    .with_partitions(partitions),
            );
        }
        topics
    }

    /// Deletes the offsets that `doomed` says, and writes that they are gone.
    pub(super) fn forget(
        &mut self,
        changes: &mut Vec<Change>,
        doomed: impl Fn(&StrBytes, &CommittedOffset) -> bool,
    ) {
        let doomed: Vec<_> = self
            .offsets
            .iter()
            .filter(|(topic, _, value)| doomed(topic, value))
            .map(|(topic, partition, _)| (topic.clone(), partition))
            .collect();
        for (topic, partition) in doomed {
            self.forget_one(changes, &topic, partition);
        }
    }

    fn forget_one(&mut self, changes: &mut Vec<Change>, topic: &StrBytes, partition: i32) {
        let name = self.offsets.name(topic);
        if self.offsets.remove(topic, partition) {
            changes.push(Change::Offset {
                group: self.id.clone(),
                topic: name,
                partition,
                value: None,
            });
        }
    }

    /// Kafka's conditions: an empty group's offsets age from the moment it became empty, a
    /// self-assigned group's from their commit; of a group with members only those of topics that
    /// nobody in it reads any more.
    fn expire(&mut self, changes: &mut Vec<Change>, now_ms: i64, retention_ms: i64) {
        let subscribed = match self.phase {
            Phase::Empty => Some(BTreeSet::new()),
            Phase::Stable { .. } => self.subscribed(),
            _ => None,
        };
        let Some(subscribed) = subscribed else { return };
        let empty_since = self
            .written
            .as_ref()
            .filter(|_| self.phase == Phase::Empty)
            .map(|written| written.state_ms);
        let before = changes.len();
        self.forget(changes, |topic, value| {
            let age_from = empty_since.unwrap_or(-1).max(value.commit_ms);
            let expired = value
                .expire_ms
                .map_or(now_ms - age_from >= retention_ms, |at| at <= now_ms);
            expired && !subscribed.contains(topic)
        });
        if changes.len() > before {
            info!(group = %self.id, offsets = changes.len() - before, "offsets expired");
        }
    }

    fn is_consumers(&self) -> bool {
        self.protocol_type.as_deref() == Some("consumer")
    }

    /// Whether a member may read the topic; if its metadata cannot be read, it may.
    fn reads(&self, topic: &StrBytes) -> bool {
        self.subscribed()
            .is_none_or(|topics| topics.contains(topic))
    }

    fn subscribed(&self) -> Option<BTreeSet<StrBytes>> {
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
}

fn position(partition: i32, value: Option<&CommittedOffset>) -> OffsetFetchResponsePartitions {
    let answer = OffsetFetchResponsePartitions::default().with_partition_index(partition);
    match value {
        Some(value) => answer
            .with_committed_offset(value.offset)
            .with_committed_leader_epoch(value.leader_epoch)
            .with_metadata(Some(value.metadata.clone())),
        None => answer
            .with_committed_offset(-1)
            .with_committed_leader_epoch(-1)
            .with_metadata(Some(StrBytes::new())),
    }
}

fn commit_answer(
    partition: &OffsetCommitRequestPartition,
    error_code: i16,
) -> OffsetCommitResponsePartition {
    OffsetCommitResponsePartition::default()
        .with_partition_index(partition.partition_index)
        .with_error_code(error_code)
}

/// The answer to a commit of which nothing was taken.
pub(crate) fn commit_refused(
    request: &OffsetCommitRequest,
    error: ResponseError,
) -> Vec<OffsetCommitResponseTopic> {
    let topics = request.topics.iter().map(|topic| {
        OffsetCommitResponseTopic::default()
            .with_name(topic.name.clone())
            .with_partitions(
                topic
                    .partitions
                    .iter()
                    .map(|p| commit_answer(p, error.code()))
                    .collect(),
            )
    });
    topics.collect()
}
