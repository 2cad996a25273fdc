//! From a topic's name or id and a partition's number to the partition, or to the error a client
//! gets.

use std::sync::Arc;

use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::BrokerId;
use uuid::Uuid;

use super::Context;
use super::context::{LEADER_EPOCH, NODE_ID};
use crate::access::Use;
use crate::log::{Isolation, Partition};
use crate::store::Topic;

/// Topics that belong to the broker: clients may read them, and nothing else.
pub(super) fn is_internal(topic: &str) -> bool {
    matches!(topic, "__consumer_offsets" | "__transaction_state")
}

/// Whether a replica assignment names this node, and no other.
pub(super) fn holds_replica(nodes: &[BrokerId]) -> bool {
    nodes == [NODE_ID]
}

/// Kafka's isolation level: 1 hides what is not committed.
pub(super) fn isolation(level: i8) -> Isolation {
    match level {
        1 => Isolation::Committed,
        _ => Isolation::Uncommitted,
    }
}

/// How a request names a topic.
///
/// Who names it by id is never led to another topic of the same name, as there is when a topic is
/// deleted and created again between two requests (KIP-516).
#[derive(Debug, Clone, Copy)]
pub(super) enum Named<'a> {
    Name(&'a str),
    Id(Uuid),
}

impl Context {
    /// The topic, if the caller may use it so. A name is refused before it is looked up; what a
    /// wrong id would name cannot be told.
    pub(super) fn topic_for(
        &self,
        named: Named<'_>,
        what: Use,
    ) -> Result<Arc<Topic>, ResponseError> {
        match named {
            Named::Name(name) => {
                self.topic_right(name, what)?;
                let topic = self.store().topic(name);
                topic.ok_or(ResponseError::UnknownTopicOrPartition)
            }
            Named::Id(id) => {
                let topic = self.store().topic_by_id(id);
                let topic = topic.ok_or(ResponseError::UnknownTopicId)?;
                self.topic_right(&topic.name, what)?;
                Ok(topic)
            }
        }
    }

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
        check_epoch(epoch)?;
        self.partition(topic, index)
    }
}

/// There is one epoch; a client that knows of a later one came from another cluster.
pub(super) fn check_epoch(epoch: i32) -> Result<(), ResponseError> {
    match epoch {
        ..=LEADER_EPOCH => Ok(()),
        _ => Err(ResponseError::UnknownLeaderEpoch),
    }
}
