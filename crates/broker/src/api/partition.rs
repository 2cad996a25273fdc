//! From a topic's name and a partition's number to the partition, or to the error a client gets.

use std::sync::Arc;

use kafka_protocol::error::ResponseError;

use super::Context;
use super::context::LEADER_EPOCH;
use crate::log::{Isolation, Partition};

/// Topics that belong to the broker: clients may read them, and nothing else.
pub(super) fn is_internal(topic: &str) -> bool {
    matches!(topic, "__consumer_offsets" | "__transaction_state")
}

/// Kafka's isolation level: 1 hides what is not committed.
pub(super) fn isolation(level: i8) -> Isolation {
    match level {
        1 => Isolation::Committed,
        _ => Isolation::Uncommitted,
    }
}

impl Context {
    pub(super) fn partition(
        &self,
        topic: &str,
        index: i32,
    ) -> Result<Arc<Partition>, ResponseError> {
        self.store()
            .topic(topic)
            .and_then(|topic| topic.partition(index))
            .ok_or(ResponseError::UnknownTopicOrPartition)
    }

    /// The partition, if the client's idea of its leader epoch (-1: none) is not from elsewhere.
    pub(super) fn partition_in_epoch(
        &self,
        topic: &str,
        index: i32,
        epoch: i32,
    ) -> Result<Arc<Partition>, ResponseError> {
        match epoch {
            ..=LEADER_EPOCH => self.partition(topic, index),
            _ => Err(ResponseError::UnknownLeaderEpoch),
        }
    }
}
