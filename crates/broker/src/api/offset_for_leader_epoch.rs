//! OffsetForLeaderEpoch: where an epoch ended, for clients that check whether they read a log that
//! was truncated. There is one epoch, and it goes on.

use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::offset_for_leader_epoch_request::OffsetForLeaderPartition;
use kafka_protocol::messages::offset_for_leader_epoch_response::{
    EpochEndOffset, OffsetForLeaderTopicResult,
};
use kafka_protocol::messages::{
    OffsetForLeaderEpochRequest, OffsetForLeaderEpochResponse, TopicName,
};

use super::Context;
use super::context::LEADER_EPOCH;
use crate::access::Use;

pub(super) async fn handle(
    cx: &Context,
    request: OffsetForLeaderEpochRequest,
) -> OffsetForLeaderEpochResponse {
    let topics = request.topics.into_iter().map(|topic| {
        let partitions = topic.partitions.iter();
        let answers = partitions.map(|wanted| {
            end_of_epoch(cx, &topic.topic, wanted)
                .unwrap_or_else(|error| undefined(wanted.partition).with_error_code(error.code()))
        });
        let answers = answers.collect();
        OffsetForLeaderTopicResult::default()
            .with_topic(topic.topic)
            .with_partitions(answers)
    });
    OffsetForLeaderEpochResponse::default().with_topics(topics.collect())
}

fn end_of_epoch(
    cx: &Context,
    topic: &TopicName,
    wanted: &OffsetForLeaderPartition,
) -> Result<EpochEndOffset, ResponseError> {
    cx.topic_right(topic, Use::Describe)?;
    let epoch = wanted.current_leader_epoch;
    let partition = cx.partition_in_epoch(topic, wanted.partition, epoch)?;
    Ok(match wanted.leader_epoch {
        LEADER_EPOCH => undefined(wanted.partition)
            .with_leader_epoch(LEADER_EPOCH)
            .with_end_offset(partition.high_watermark()),
        _ => undefined(wanted.partition),
    })
}

/// Kafka's "no such epoch".
fn undefined(partition: i32) -> EpochEndOffset {
    EpochEndOffset::default()
        .with_partition(partition)
        .with_leader_epoch(-1)
        .with_end_offset(-1)
}
