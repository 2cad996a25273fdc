//! Requests that are answered as a whole: rights to all that they name are asked for before a
//! handler sees them.
//!
//! In a transaction, half of what was asked for is worth nothing, so one right that is missing
//! refuses everything; what is not at fault is told so (Kafka's `OPERATION_NOT_ATTEMPTED`).

use bytes::Bytes;
use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::add_partitions_to_txn_response::{
    AddPartitionsToTxnPartitionResult, AddPartitionsToTxnTopicResult,
};
use kafka_protocol::messages::txn_offset_commit_response::{
    TxnOffsetCommitResponsePartition, TxnOffsetCommitResponseTopic,
};
use kafka_protocol::messages::{
    AddOffsetsToTxnRequest, AddOffsetsToTxnResponse, AddPartitionsToTxnRequest,
    AddPartitionsToTxnResponse, ApiKey, ConsumerGroupHeartbeatRequest,
    ConsumerGroupHeartbeatResponse, EndTxnRequest, EndTxnResponse, TxnOffsetCommitRequest,
    TxnOffsetCommitResponse,
};

use super::reply::now;
use super::{Context, Refusal, Reply, decode};
use crate::access::Use;

/// The answer to a request of which something may not be done; `None`: it goes to its handler.
pub(super) fn refused(cx: &Context, key: ApiKey, body: &Bytes) -> Option<Result<Reply, Refusal>> {
    let body = body.clone();
    let refused = match key {
        ApiKey::ConsumerGroupHeartbeat => heartbeat(cx, body),
        ApiKey::AddOffsetsToTxn => add_offsets(cx, body),
        ApiKey::EndTxn => end(cx, body),
        ApiKey::AddPartitionsToTxn => add_partitions(cx, body),
        ApiKey::TxnOffsetCommit => offset_commit(cx, body),
        _ => return None,
    };
    refused.transpose()
}

type Refused = Result<Option<Reply>, Refusal>;

fn heartbeat(cx: &Context, body: Bytes) -> Refused {
    let request: ConsumerGroupHeartbeatRequest = decode(cx, ApiKey::ConsumerGroupHeartbeat, body)?;
    let mut topics = request.subscribed_topic_names.iter().flatten();
    let right = cx
        .group_right(&request.group_id, Use::Read)
        .and_then(|()| topics.try_for_each(|topic| cx.topic_right(topic, Use::Describe)));
    let answer = |error: ResponseError| {
        now(
            cx,
            ConsumerGroupHeartbeatResponse::default().with_error_code(error.code()),
        )
    };
    right.err().map(answer).transpose()
}

fn add_offsets(cx: &Context, body: Bytes) -> Refused {
    let request: AddOffsetsToTxnRequest = decode(cx, ApiKey::AddOffsetsToTxn, body)?;
    let right = cx
        .transactional_right(&request.transactional_id, Use::Write)
        .and_then(|()| cx.group_right(&request.group_id, Use::Read));
    let answer = |error: ResponseError| {
        now(
            cx,
            AddOffsetsToTxnResponse::default().with_error_code(error.code()),
        )
    };
    right.err().map(answer).transpose()
}

fn end(cx: &Context, body: Bytes) -> Refused {
    let request: EndTxnRequest = decode(cx, ApiKey::EndTxn, body)?;
    let right = cx.transactional_right(&request.transactional_id, Use::Write);
    let answer =
        |error: ResponseError| now(cx, EndTxnResponse::default().with_error_code(error.code()));
    right.err().map(answer).transpose()
}

fn add_partitions(cx: &Context, body: Bytes) -> Refused {
    let request: AddPartitionsToTxnRequest = decode(cx, ApiKey::AddPartitionsToTxn, body)?;
    if cx.version >= 4 {
        let why = "versions from 4 on are for brokers";
        return Err(Refusal::new(ApiKey::AddPartitionsToTxn, cx.version, why));
    }
    let id = &request.v3_and_below_transactional_id;
    let of_id = cx.transactional_right(id, Use::Write).err();
    let errors: Vec<_> = request
        .v3_and_below_topics
        .iter()
        .map(|topic| of_id.or_else(|| cx.topic_right(&topic.name, Use::Write).err()))
        .collect();
    if errors.iter().all(Option::is_none) && of_id.is_none() {
        return Ok(None);
    }
    let topics = request.v3_and_below_topics.into_iter().zip(errors);
    let results = topics.map(|(topic, error)| {
        let code = error.unwrap_or(ResponseError::OperationNotAttempted).code();
        let partitions = topic.partitions.iter().map(|index| {
            AddPartitionsToTxnPartitionResult::default()
                .with_partition_index(*index)
                .with_partition_error_code(code)
        });
        AddPartitionsToTxnTopicResult::default()
            .with_name(topic.name)
            .with_results_by_partition(partitions.collect())
    });
    let response =
        AddPartitionsToTxnResponse::default().with_results_by_topic_v3_and_below(results.collect());
    now(cx, response).map(Some)
}

fn offset_commit(cx: &Context, body: Bytes) -> Refused {
    let request: TxnOffsetCommitRequest = decode(cx, ApiKey::TxnOffsetCommit, body)?;
    let right = cx
        .transactional_right(&request.transactional_id, Use::Write)
        .and_then(|()| cx.group_right(&request.group_id, Use::Read))
        .and_then(|()| {
            let mut topics = request.topics.iter();
            topics.try_for_each(|topic| cx.topic_right(&topic.name, Use::Read))
        });
    let Err(error) = right else {
        return Ok(None);
    };
    let topics = request.topics.into_iter().map(|topic| {
        let partitions = topic.partitions.iter().map(|partition| {
            TxnOffsetCommitResponsePartition::default()
                .with_partition_index(partition.partition_index)
                .with_error_code(error.code())
        });
        TxnOffsetCommitResponseTopic::default()
            .with_name(topic.name)
            .with_partitions(partitions.collect())
    });
    let response = TxnOffsetCommitResponse::default().with_topics(topics.collect());
    now(cx, response).map(Some)
}
