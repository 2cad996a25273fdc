//! DescribeProducers: who writes to a partition, and whose transaction is open there (KIP-664).

use kafka_protocol::messages::describe_producers_response::{
    PartitionResponse, ProducerState, TopicResponse,
};
use kafka_protocol::messages::{DescribeProducersRequest, DescribeProducersResponse, ProducerId};
use kafka_protocol::protocol::StrBytes;

use super::Context;
use crate::log::ActiveProducer;

/// With one node the coordinator never moves.
const COORDINATOR_EPOCH: i32 = 0;

pub(super) async fn handle(
    cx: &Context,
    request: DescribeProducersRequest,
) -> DescribeProducersResponse {
    let topics = request.topics.into_iter().map(|topic| {
        let partitions = topic
            .partition_indexes
            .iter()
            .map(|&index| describe(cx, &topic.name, index));
        TopicResponse::default()
            .with_partitions(partitions.collect())
            .with_name(topic.name.clone())
    });
    DescribeProducersResponse::default().with_topics(topics.collect())
}

fn describe(cx: &Context, topic: &str, index: i32) -> PartitionResponse {
    let response = PartitionResponse::default().with_partition_index(index);
    match cx.partition(topic, index) {
        Ok(partition) => {
            let producers = partition.active_producers();
            response.with_active_producers(producers.into_iter().map(shown).collect())
        }
        Err(error) => response
            .with_error_code(error.code())
            .with_error_message(Some(StrBytes::from_string(error.to_string()))),
    }
}

fn shown(active: ActiveProducer) -> ProducerState {
    ProducerState::default()
        .with_producer_id(ProducerId(active.producer.id))
        .with_producer_epoch(i32::from(active.producer.epoch))
        .with_last_sequence(active.last_sequence)
        .with_last_timestamp(active.last_seen_ms)
        .with_coordinator_epoch(COORDINATOR_EPOCH)
        .with_current_txn_start_offset(active.open_from.unwrap_or(-1))
}
