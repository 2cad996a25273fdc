//! Settled positions go to the broker, one request in flight.

use std::collections::VecDeque;

use ackwell_core::engine::{CommitId, Position};
use rdkafka::consumer::{CommitMode, Consumer};
use rdkafka::error::KafkaResult;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use super::consumer::Client;
use super::spec::{Observation, Observer};
use super::track::Partitions;

/// Requests that the client has not answered yet; it answers in their order.
#[derive(Debug, Default)]
pub(super) struct Commits {
    sent: VecDeque<(CommitId, Vec<Position>)>,
}

impl Commits {
    /// Sends a request.
    pub(super) fn send(
        &mut self,
        client: &Client,
        partitions: &Partitions,
        id: CommitId,
        positions: Vec<Position>,
    ) -> KafkaResult<()> {
        let mut list = TopicPartitionList::with_capacity(positions.len());
        for position in &positions {
            let Some((topic, partition)) = partitions.name(position.partition) else { continue };
            let mut element = list.add_partition(topic, *partition);
            element.set_offset(Offset::Offset(position.offset.0))?;
            if !position.metadata.is_empty() {
                element.set_metadata(&position.metadata);
            }
        }
        client.commit(&list, CommitMode::Async)?;
        self.sent.push_back((id, positions));
        Ok(())
    }

    /// The earliest request was answered.
    pub(super) fn answered(
        &mut self,
        result: &Result<(), String>,
        partitions: &Partitions,
        observer: &dyn Observer,
    ) -> Option<CommitId> {
        let (id, positions) = self.sent.pop_front()?;
        match result {
            Ok(()) => {
                for position in &positions {
                    if let Some((topic, partition)) = partitions.name(position.partition) {
                        let offset = position.offset.0;
                        observer.observe(&Observation::Committed { topic, partition: *partition, offset });
                    }
                }
            }
            Err(error) => {
                tracing::warn!(error, "a commit failed");
                observer.observe(&Observation::CommitFailed { error });
            }
        }
        Some(id)
    }
}
