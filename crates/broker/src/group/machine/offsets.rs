//! Committed offsets: how far a group got, whoever its members are.

use std::collections::{BTreeMap, BTreeSet};

use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::offset_commit_request::OffsetCommitRequestPartition;
use kafka_protocol::messages::offset_commit_response::{
    OffsetCommitResponsePartition, OffsetCommitResponseTopic,
};
use kafka_protocol::messages::offset_fetch_request::OffsetFetchRequestGroup;
use kafka_protocol::messages::offset_fetch_response::{
    OffsetFetchResponseGroup, OffsetFetchResponsePartitions, OffsetFetchResponseTopics,
};
use kafka_protocol::messages::{OffsetCommitRequest, OffsetCommitResponse, TopicName};
use kafka_protocol::protocol::StrBytes;

use super::group::{Group, Membership};
use super::{Context, Machine, NAME_MAX, Now, Response, Token, code, owned};
use crate::group::record::{Change, CommittedOffset};

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
    pub(super) fn name(&self, topic: &StrBytes) -> StrBytes {
        self.0
            .get_key_value(topic)
            .map_or_else(|| owned(topic), |(name, _)| name.clone())
    }
}

impl Machine {
    pub(super) fn commit_offsets(
        &mut self,
        now: Now,
        token: Token,
        request: &OffsetCommitRequest,
        version: i16,
    ) {
        let outcome = self
            .group_for_commit(request, version)
            .and_then(|group| group.check_commit(now, request, version));
        let mut cx = Context {
            now,
            config: &self.config,
            timeouts: self.timeouts(&request.group_id.0),
            topics: &self.topics,
            output: &mut self.output,
        };
        let topics = match (outcome, self.groups.get_mut(&request.group_id.0)) {
            (Ok(()), Some(group)) => {
                let before = cx.output.changes.len();
                let topics = group.commit(&mut cx, request);
                // As in a replay, what was written is newer; a position that was refused is not.
                for change in &self.output.changes[before..] {
                    if let Change::Offset {
                        group,
                        topic,
                        partition,
                        ..
                    } = change
                    {
                        self.transactions.supersede(group, topic, *partition);
                    }
                }
                topics
            }
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
        version: i16,
    ) -> Result<&mut Group, ResponseError> {
        let id = &request.group_id.0;
        if !self.groups.contains_key(id) {
            if request.generation_id_or_member_epoch >= 0 {
                // From version 9 on it may be a member epoch (KIP-848).
                return Err(match version {
                    ..9 => ResponseError::IllegalGeneration,
                    _ => ResponseError::GroupIdNotFound,
                });
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

    pub(super) fn fetch_offsets(
        &mut self,
        token: Token,
        request: OffsetFetchRequestGroup,
        stable: bool,
    ) {
        let group = self.groups.get(&request.group_id.0);
        let allowed = match group.map(|group| &group.membership) {
            Some(Membership::Consumer(consumer)) => {
                consumer.check_fetch(request.member_id.as_ref(), request.member_epoch)
            }
            Some(Membership::Classic(_)) | None => Ok(()),
        };
        let mut topics = match &request.topics {
            _ if allowed.is_err() => Vec::new(),
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
        if stable {
            for topic in &mut topics {
                for partition in &mut topic.partitions {
                    let (id, index) = (&request.group_id.0, partition.partition_index);
                    if self.transactions.is_pending(id, &topic.name.0, index) {
                        *partition = unstable(index);
                    }
                }
            }
        }
        let response = OffsetFetchResponseGroup::default()
            .with_group_id(request.group_id)
            .with_error_code(code(allowed))
            .with_topics(topics);
        self.reply(token, Response::FetchOffsets(response));
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
        if is_too_long(&metadata, cx.config.offset_metadata_max) {
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
}

/// Whether a client's words beside an offset are more than a broker keeps. Characters count, as Java knows them, since
/// they do in Kafka's `offset.metadata.max.bytes`; the log has room for 32,767 bytes of them.
pub(super) fn is_too_long(metadata: &str, max: usize) -> bool {
    let bytes = metadata.len();
    bytes > i16::MAX as usize || bytes > max && metadata.encode_utf16().count() > max
}

/// An open transaction may change it: ask again.
fn unstable(partition: i32) -> OffsetFetchResponsePartitions {
    position(partition, None).with_error_code(ResponseError::UnstableOffsetCommit.code())
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
