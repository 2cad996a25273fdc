//! Offsets that are committed in a transaction: they count when it does.
//!
//! Until then they are pending, invisible, and whoever insists on stable positions is told to ask
//! again (KIP-447). A position that was committed meanwhile by other means is newer than a pending
//! one and stays, as in Kafka's `OffsetMetadataManager`.

use std::collections::BTreeMap;

use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::TxnOffsetCommitRequest;
use kafka_protocol::messages::TxnOffsetCommitResponse;
use kafka_protocol::messages::txn_offset_commit_request::{
    TxnOffsetCommitRequestPartition, TxnOffsetCommitRequestTopic,
};
use kafka_protocol::messages::txn_offset_commit_response::{
    TxnOffsetCommitResponsePartition, TxnOffsetCommitResponseTopic,
};
use kafka_protocol::protocol::StrBytes;

use super::group::{Group, Membership};
use super::offsets::is_too_long;
use super::{Machine, NAME_MAX, Now, Response, Token, code, owned};
use crate::coordinator::{ProducerEpoch, Verdict};
use crate::group::record::{Change, CommittedOffset};

/// A group's position in a partition.
type Position = (StrBytes, StrBytes, i32);

/// The transactions that may commit offsets here, by producer.
#[derive(Debug, Default)]
pub(super) struct Transactions {
    open: BTreeMap<i64, Open>,
    /// Counts pending offsets in the order of the log.
    written: u64,
}

#[derive(Debug)]
struct Open {
    epoch: i16,
    pending: BTreeMap<Position, Pending>,
}

#[derive(Debug)]
struct Pending {
    value: CommittedOffset,
    written: u64,
    /// A newer position was committed.
    superseded: bool,
}

impl Transactions {
    pub(super) fn admit(&mut self, producer: ProducerEpoch) {
        let open = self.open.entry(producer.id).or_insert_with(|| Open {
            epoch: producer.epoch,
            pending: BTreeMap::new(),
        });
        open.epoch = open.epoch.max(producer.epoch);
    }

    fn check(&self, producer: ProducerEpoch) -> Result<(), ResponseError> {
        match self.open.get(&producer.id) {
            None => Err(ResponseError::InvalidTxnState),
            Some(open) if open.epoch != producer.epoch => Err(ResponseError::InvalidProducerEpoch),
            Some(_) => Ok(()),
        }
    }

    pub(super) fn set(
        &mut self,
        producer: ProducerEpoch,
        position: Position,
        value: CommittedOffset,
    ) {
        self.admit(producer);
        self.written += 1;
        let pending = Pending {
            value,
            written: self.written,
            superseded: false,
        };
        if let Some(open) = self.open.get_mut(&producer.id) {
            open.pending.insert(position, pending);
        }
    }

    /// Whether a position may change by a transaction that is open.
    pub(super) fn is_pending(&self, group: &StrBytes, topic: &StrBytes, partition: i32) -> bool {
        !self.open.is_empty() && {
            let position = (group.clone(), topic.clone(), partition);
            self.open
                .values()
                .any(|open| open.pending.contains_key(&position))
        }
    }

    pub(super) fn has_group(&self, group: &StrBytes) -> bool {
        self.open
            .values()
            .any(|open| open.pending.keys().any(|(of, _, _)| of == group))
    }

    /// A position was committed; what was pending until then is older.
    pub(super) fn supersede(&mut self, group: &StrBytes, topic: &StrBytes, partition: i32) {
        if !self.open.is_empty() {
            let position = (group.clone(), topic.clone(), partition);
            self.supersede_before(&position, u64::MAX);
        }
    }

    fn supersede_before(&mut self, position: &Position, written: u64) {
        for open in self.open.values_mut() {
            if let Some(pending) = open.pending.get_mut(position)
                && pending.written < written
            {
                pending.superseded = true;
            }
        }
    }

    /// Forgets what is pending for positions that were deleted, and gives them.
    pub(super) fn forget(
        &mut self,
        doomed: impl Fn(&StrBytes, &StrBytes, i32) -> bool,
    ) -> Vec<Position> {
        let mut forgotten = Vec::new();
        for open in self.open.values_mut() {
            open.pending.retain(|position, _| {
                let (group, topic, partition) = position;
                let gone = doomed(group, topic, *partition);
                if gone {
                    forgotten.push(position.clone());
                }
                !gone
            });
        }
        forgotten
    }

    /// Ends a transaction and gives what it committed.
    fn end(
        &mut self,
        producer: ProducerEpoch,
        verdict: Verdict,
    ) -> Vec<(Position, CommittedOffset)> {
        let Some(open) = self.open.remove(&producer.id) else {
            return Vec::new();
        };
        let mut committed = Vec::new();
        if verdict == Verdict::Abort {
            return committed;
        }
        for (position, pending) in open.pending {
            if !pending.superseded {
                self.supersede_before(&position, pending.written);
                committed.push((position, pending.value));
            }
        }
        committed
    }

    /// The records of what is pending, those superseded or those not, in the order of the log.
    pub(super) fn live(&self, superseded: bool) -> impl Iterator<Item = Change> {
        let pending = self.open.iter().flat_map(|(&id, open)| {
            let producer = ProducerEpoch {
                id,
                epoch: open.epoch,
            };
            open.pending
                .iter()
                .map(move |(position, pending)| (producer, position, pending))
        });
        let mut pending: Vec<_> = pending
            .filter(|(_, _, pending)| pending.superseded == superseded)
            .collect();
        pending.sort_by_key(|(_, _, pending)| pending.written);
        pending.into_iter().map(
            |(producer, (group, topic, partition), pending)| Change::Pending {
                producer,
                group: group.clone(),
                topic: topic.clone(),
                partition: *partition,
                value: pending.value.clone(),
            },
        )
    }
}

impl Machine {
    /// A producer's transaction may commit offsets of this partition's groups.
    pub(super) fn admit(&mut self, token: Token, producer: ProducerEpoch) {
        self.transactions.admit(producer);
        self.reply(token, Response::Admit);
    }

    pub(super) fn end_transaction(
        &mut self,
        token: Token,
        producer: ProducerEpoch,
        verdict: Verdict,
    ) {
        self.take_end(producer, verdict);
        self.output
            .changes
            .push(Change::TransactionEnd { producer, verdict });
        self.reply(token, Response::EndTransaction);
    }

    /// What a transaction committed becomes the groups' positions.
    pub(super) fn take_end(&mut self, producer: ProducerEpoch, verdict: Verdict) {
        for ((group, topic, partition), value) in self.transactions.end(producer, verdict) {
            let group = self
                .groups
                .entry(group.clone())
                .or_insert_with(|| Group::new(group));
            let topic = group.offsets.name(&topic);
            group.offsets.set(&topic, partition, value);
        }
    }

    pub(super) fn commit_pending(
        &mut self,
        now: Now,
        token: Token,
        request: &TxnOffsetCommitRequest,
    ) {
        let checked = self.check_pending(now, request);
        let topics = match checked {
            Ok(producer) => request
                .topics
                .iter()
                .map(|topic| self.commit_pending_topic(now, producer, request, topic))
                .collect(),
            Err(error) => pending_refused(request, error),
        };
        self.reply(
            token,
            Response::CommitPending(TxnOffsetCommitResponse::default().with_topics(topics)),
        );
    }

    fn check_pending(
        &mut self,
        now: Now,
        request: &TxnOffsetCommitRequest,
    ) -> Result<ProducerEpoch, ResponseError> {
        let producer = ProducerEpoch {
            id: request.producer_id.0,
            epoch: request.producer_epoch,
        };
        self.transactions.check(producer)?;
        let id = &request.group_id.0;
        let is_full = self.groups.len() >= self.config.groups_max;
        match self.groups.get_mut(id) {
            Some(group) => group.check_pending(now, request)?,
            None if request.generation_id >= 0 => return Err(ResponseError::IllegalGeneration),
            None if id.is_empty() || id.len() > NAME_MAX => {
                return Err(ResponseError::InvalidGroupId);
            }
            None if is_full => return Err(ResponseError::PolicyViolation),
            None => {}
        }
        Ok(producer)
    }

    fn commit_pending_topic(
        &mut self,
        now: Now,
        producer: ProducerEpoch,
        request: &TxnOffsetCommitRequest,
        topic: &TxnOffsetCommitRequestTopic,
    ) -> TxnOffsetCommitResponseTopic {
        let (group, name) = (owned(&request.group_id.0), owned(&topic.name.0));
        let commit = |partition: &TxnOffsetCommitRequestPartition| {
            let value = pending_value(partition, now, self.config.offset_metadata_max);
            let committed = value.map(|value| {
                let index = partition.partition_index;
                let position = (group.clone(), name.clone(), index);
                self.transactions.set(producer, position, value.clone());
                self.output.changes.push(Change::Pending {
                    producer,
                    group: group.clone(),
                    topic: name.clone(),
                    partition: index,
                    value,
                });
            });
            pending_answer(partition, code(committed))
        };
        TxnOffsetCommitResponseTopic::default()
            .with_name(topic.name.clone())
            .with_partitions(topic.partitions.iter().map(commit).collect())
    }
}

impl Group {
    /// As for other commits, but a client that says no member need not be one: older versions cannot
    /// say it.
    fn check_pending(
        &mut self,
        now: Now,
        request: &TxnOffsetCommitRequest,
    ) -> Result<(), ResponseError> {
        let says_none = request.member_id.is_empty() && request.group_instance_id.is_none();
        if request.generation_id < 0 && (says_none || self.is_empty()) {
            return Ok(());
        }
        match &mut self.membership {
            Membership::Classic(classic) => classic.check_pending(now, request),
            Membership::Consumer(consumer) => consumer
                .check_epoch(&request.member_id, request.generation_id)
                .map_err(|error| match error {
                    // The answer knows no epochs.
                    ResponseError::StaleMemberEpoch => ResponseError::IllegalGeneration,
                    error => error,
                }),
        }
    }
}

fn pending_value(
    partition: &TxnOffsetCommitRequestPartition,
    now: Now,
    metadata_max: usize,
) -> Result<CommittedOffset, ResponseError> {
    let metadata = partition.committed_metadata.as_ref().map(owned);
    let metadata = metadata.unwrap_or_default();
    if is_too_long(&metadata, metadata_max) {
        return Err(ResponseError::OffsetMetadataTooLarge);
    }
    Ok(CommittedOffset {
        offset: partition.committed_offset,
        leader_epoch: partition.committed_leader_epoch,
        metadata,
        commit_ms: now.unix_ms,
        expire_ms: None,
    })
}

fn pending_answer(
    partition: &TxnOffsetCommitRequestPartition,
    error_code: i16,
) -> TxnOffsetCommitResponsePartition {
    TxnOffsetCommitResponsePartition::default()
        .with_partition_index(partition.partition_index)
        .with_error_code(error_code)
}

/// The answer to a commit of which nothing was taken.
pub(crate) fn pending_refused(
    request: &TxnOffsetCommitRequest,
    error: ResponseError,
) -> Vec<TxnOffsetCommitResponseTopic> {
    let refused = |topic: &TxnOffsetCommitRequestTopic| {
        let partitions = topic.partitions.iter();
        TxnOffsetCommitResponseTopic::default()
            .with_name(topic.name.clone())
            .with_partitions(
                partitions
                    .map(|partition| pending_answer(partition, error.code()))
                    .collect(),
            )
    };
    request.topics.iter().map(refused).collect()
}
