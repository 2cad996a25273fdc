//! DeleteRecords: makes the records before an offset unreadable.

use std::sync::Arc;

use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::delete_records_request::DeleteRecordsPartition;
use kafka_protocol::messages::delete_records_response::{
    DeleteRecordsPartitionResult, DeleteRecordsTopicResult,
};
use kafka_protocol::messages::{DeleteRecordsRequest, DeleteRecordsResponse, TopicName};

use super::Context;
use super::partition::is_internal;
use crate::store::Topic;

pub(super) async fn handle(cx: &Context, request: DeleteRecordsRequest) -> DeleteRecordsResponse {
    let mut topics = Vec::with_capacity(request.topics.len());
    for topic in request.topics {
        let mut partitions = Vec::with_capacity(topic.partitions.len());
        for wanted in &topic.partitions {
            let response = DeleteRecordsPartitionResult::default()
                .with_partition_index(wanted.partition_index);
            partitions.push(match delete(cx, &topic.name, wanted).await {
                Ok(low_watermark) => response.with_low_watermark(low_watermark),
                Err(error) => response
                    .with_error_code(error.code())
                    .with_low_watermark(-1),
            });
        }
        topics.push(
            DeleteRecordsTopicResult::default()
                .with_name(topic.name)
                .with_partitions(partitions),
        );
    }
    DeleteRecordsResponse::default().with_topics(topics)
}

async fn delete(
    cx: &Context,
    topic: &TopicName,
    wanted: &DeleteRecordsPartition,
) -> Result<i64, ResponseError> {
    if is_internal(topic) {
        return Err(ResponseError::InvalidTopicException);
    }
    let partition = cx.partition(topic, wanted.partition_index)?;
    // What a compacted topic keeps is decided by keys; cutting it off could take the last record of one.
    let kept_by_key = |topic: Arc<Topic>| !topic.config().deletes;
    if cx.store().topic(topic).is_some_and(kept_by_key) {
        return Err(ResponseError::PolicyViolation);
    }
    let before = wanted.offset;
    cx.blocking(move |_store| Ok(partition.delete_records(before)))
        .await
        .map_err(|error| error.code())?
        .map_err(|error| error.code())
}
