//! Offsets that go: deleted by an operator, with their topic, or by age.

use std::collections::BTreeSet;

use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::offset_delete_response::{
    OffsetDeleteResponsePartition, OffsetDeleteResponseTopic,
};
use kafka_protocol::messages::{OffsetDeleteRequest, OffsetDeleteResponse};
use kafka_protocol::protocol::StrBytes;
use tracing::info;

use super::group::{Group, Membership};
use super::{Machine, Now, Response, Token};
use crate::group::record::{Change, CommittedOffset};

impl Machine {
    pub(super) fn delete_offsets(&mut self, token: Token, request: OffsetDeleteRequest) {
        let mut response = OffsetDeleteResponse::default();
        match self.groups.get_mut(&request.group_id.0) {
            None => response.error_code = ResponseError::GroupIdNotFound.code(),
            Some(group) if group.is_held_by_others() => {
                response.error_code = ResponseError::NonEmptyGroup.code();
            }
            Some(group) => {
                response.topics = group.delete(&request, &mut self.output.changes);
                self.forget_pending_of(&request.group_id.0, &response.topics);
            }
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
        self.forget_pending(|_, topic, _| topics.contains(topic));
        self.reply(token, Response::ForgetTopics);
    }

    fn forget_pending_of(&mut self, id: &StrBytes, deleted: &[OffsetDeleteResponseTopic]) {
        let is_deleted = |topic: &StrBytes, index: i32| {
            let of_topic = deleted.iter().filter(|deleted| deleted.name.0 == *topic);
            let mut partitions = of_topic.flat_map(|deleted| &deleted.partitions);
            partitions.any(|one| one.partition_index == index && one.error_code == 0)
        };
        self.forget_pending(|group, topic, index| group == id && is_deleted(topic, index));
    }

    /// Deletes what is pending for positions that were deleted.
    pub(super) fn forget_pending(&mut self, doomed: impl Fn(&StrBytes, &StrBytes, i32) -> bool) {
        let forgotten = self.transactions.forget(doomed);
        let gone = forgotten
            .into_iter()
            .map(|(group, topic, partition)| Change::Offset {
                group,
                topic,
                partition,
                value: None,
            });
        self.output.changes.extend(gone);
    }

    /// Deletes offsets that nobody has asked for in a long time, and groups of which nothing is left.
    pub(super) fn expire_offsets(&mut self, now: Now) {
        let retention = i64::try_from(self.config.offsets_retention_ms).unwrap_or(i64::MAX);
        let ids: Vec<_> = self.groups.keys().cloned().collect();
        for id in ids {
            // A position that a transaction is about to move is in use.
            if self.transactions.has_group(&id) {
                continue;
            }
            let Some(group) = self.groups.get_mut(&id) else {
                continue;
            };
            group.expire(&mut self.output.changes, now.unix_ms, retention);
            if group.is_empty() && group.offsets.is_empty() && !group.is_expected() {
                group.erase_membership(&mut self.output.changes);
            }
            self.settle(&id);
        }
    }
}

impl Group {
    fn delete(
        &mut self,
        request: &OffsetDeleteRequest,
        changes: &mut Vec<Change>,
    ) -> Vec<OffsetDeleteResponseTopic> {
        let mut topics = Vec::with_capacity(request.topics.len());
        for topic in &request.topics {
            let held = !self.is_empty() && self.reads(&topic.name.0);
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
        let Some(subscribed) = self.in_use() else {
            return;
        };
        let empty_since = match &self.membership {
            Membership::Classic(classic) => classic.empty_since(),
            Membership::Consumer(_) => None,
        };
        let before = changes.len();
        self.forget(changes, |topic, value| {
            let age_from = empty_since.unwrap_or(-1).max(value.commit_ms);
            let expired = value
                .expire_ms
                .map_or(now_ms.saturating_sub(age_from) >= retention_ms, |at| {
                    at <= now_ms
                });
            expired && !subscribed.contains(topic)
        });
        if changes.len() > before {
            info!(group = %self.id, offsets = changes.len() - before, "offsets expired");
        }
    }

    /// Members who are no consumers may read any topic: what they do is between them.
    fn is_held_by_others(&self) -> bool {
        match &self.membership {
            Membership::Classic(classic) => !classic.is_empty() && !classic.is_consumers(),
            Membership::Consumer(_) => false,
        }
    }

    /// Whether a member may read the topic; if its metadata cannot be read, it may.
    fn reads(&self, topic: &StrBytes) -> bool {
        self.subscribed()
            .is_none_or(|topics| topics.contains(topic))
    }

    /// Topics whose offsets must not expire; `None`: none may, as things are moving.
    fn in_use(&self) -> Option<BTreeSet<StrBytes>> {
        match &self.membership {
            _ if self.is_empty() => Some(BTreeSet::new()),
            Membership::Classic(classic) if !classic.is_stable() => None,
            Membership::Classic(_) | Membership::Consumer(_) => self.subscribed(),
        }
    }
}
