//! ListOffsets: earliest, latest, by time, and of the largest timestamp. All records are here: there
//! is no other tier, so what is earliest here is earliest at all, and nothing is elsewhere.

use std::sync::Arc;

use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::list_offsets_request::ListOffsetsPartition;
use kafka_protocol::messages::list_offsets_response::{
    ListOffsetsPartitionResponse, ListOffsetsTopicResponse,
};
use kafka_protocol::messages::{ListOffsetsRequest, ListOffsetsResponse, TopicName};

use super::Context;
use super::context::LEADER_EPOCH;
use super::partition::isolation;
use super::repeated::take_repeated;
use crate::Error;
use crate::access::Use;
use crate::log::{Isolation, Partition};

const LATEST: i64 = -1;
const EARLIEST: i64 = -2;
/// KIP-734.
const MAX_TIMESTAMP: i64 = -3;
/// KIP-405.
const EARLIEST_LOCAL: i64 = -4;
const EARLIEST_LOCAL_SINCE: i16 = 8;
/// KIP-1005.
const LATEST_TIERED: i64 = -5;
const LATEST_TIERED_SINCE: i16 = 9;

/// An offset and the timestamp of its record; -1 for the ends of the log, which are no records.
type Found = Option<(i64, i64)>;

pub(super) async fn handle(cx: &Context, request: ListOffsetsRequest) -> ListOffsetsResponse {
    let isolation = isolation(request.isolation_level);
    let mut topics = Vec::with_capacity(request.topics.len());
    for mut topic in request.topics {
        let repeated = take_repeated(&mut topic.partitions, |wanted| wanted.partition_index);
        let mut partitions = Vec::with_capacity(topic.partitions.len() + repeated.len());
        for wanted in &topic.partitions {
            let found = find(cx, &topic.name, wanted, isolation).await;
            partitions.push(describe(
                wanted.partition_index,
                found,
                leader_epoch(cx.version),
            ));
        }
        let refused = Err(ResponseError::InvalidRequest);
        partitions.extend(
            repeated
                .into_iter()
                .map(|index| describe(index, refused, -1)),
        );
        topics.push(
            ListOffsetsTopicResponse::default()
                .with_name(topic.name)
                .with_partitions(partitions),
        );
    }
    ListOffsetsResponse::default().with_topics(topics)
}

async fn find(
    cx: &Context,
    topic: &TopicName,
    wanted: &ListOffsetsPartition,
    isolation: Isolation,
) -> Result<Found, ResponseError> {
    cx.topic_right(topic, Use::Describe)?;
    let epoch = wanted.current_leader_epoch;
    let partition = cx.partition_in_epoch(topic, wanted.partition_index, epoch)?;
    match wanted.timestamp {
        LATEST => Ok(Some((partition.end_for(isolation), -1))),
        EARLIEST => Ok(Some((partition.log_start_offset(), -1))),
        MAX_TIMESTAMP => search(cx, partition, Partition::offset_of_max_timestamp).await,
        time @ 0.. => {
            search(cx, partition, move |partition| {
                partition.offset_for_time(time, isolation)
            })
            .await
        }
        EARLIEST_LOCAL if cx.version >= EARLIEST_LOCAL_SINCE => {
            Ok(Some((partition.log_start_offset(), -1)))
        }
        LATEST_TIERED if cx.version >= LATEST_TIERED_SINCE => Ok(None),
        // As Kafka: what a later version may mean by it is not known.
        _ => Err(ResponseError::UnsupportedVersion),
    }
}

async fn search(
    cx: &Context,
    partition: Arc<Partition>,
    look: impl FnOnce(&Partition) -> Result<Found, Error> + Send + 'static,
) -> Result<Found, ResponseError> {
    cx.blocking(move |_store| look(&partition))
        .await
        .map_err(|error| error.code())
}

/// The response knows the epoch from version 4 on, and is refused by the codec with one before.
fn leader_epoch(version: i16) -> i32 {
    if version >= 4 { LEADER_EPOCH } else { -1 }
}

fn describe(
    index: i32,
    found: Result<Found, ResponseError>,
    leader_epoch: i32,
) -> ListOffsetsPartitionResponse {
    let response = ListOffsetsPartitionResponse::default().with_partition_index(index);
    match found {
        Ok(Some((offset, timestamp))) => response
            .with_offset(offset)
            .with_timestamp(timestamp)
            .with_leader_epoch(leader_epoch),
        Ok(None) => response
            .with_offset(-1)
            .with_timestamp(-1)
            .with_leader_epoch(-1),
        Err(error) => response
            .with_error_code(error.code())
            .with_offset(-1)
            .with_timestamp(-1)
            .with_leader_epoch(-1),
    }
}
