//! CreatePartitions: a topic can grow, never shrink.

use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::create_partitions_request::CreatePartitionsTopic;
use kafka_protocol::messages::create_partitions_response::CreatePartitionsTopicResult;
use kafka_protocol::messages::{CreatePartitionsRequest, CreatePartitionsResponse};
use kafka_protocol::protocol::StrBytes;

use super::partition::is_internal;
use super::{Context, access};
use crate::Error;
use crate::access::Use;

pub(super) async fn handle(
    cx: &Context,
    request: CreatePartitionsRequest,
) -> CreatePartitionsResponse {
    let mut results = Vec::with_capacity(request.topics.len());
    for topic in request.topics {
        let response = CreatePartitionsTopicResult::default().with_name(topic.name.clone());
        results.push(match grow(cx, &topic, request.validate_only).await {
            Ok(()) => response.with_error_message(None),
            Err(error) => response
                .with_error_code(error.code().code())
                .with_error_message(Some(StrBytes::from_string(error.to_string()))),
        });
    }
    CreatePartitionsResponse::default().with_results(results)
}

async fn grow(
    cx: &Context,
    wanted: &CreatePartitionsTopic,
    validate_only: bool,
) -> Result<(), Error> {
    let (name, total) = (wanted.name.to_string(), wanted.count);
    let refused = |code, why: String| Err(Error::refused(code, format!("topic {name}: {why}")));
    cx.topic_right(&name, Use::Admin).map_err(access::refused)?;
    let Some(topic) = cx.store().topic(&name) else {
        let code = ResponseError::UnknownTopicOrPartition;
        return refused(code, "it does not exist".to_owned());
    };
    if is_internal(&name) {
        let code = ResponseError::InvalidTopicException;
        return refused(code, "it belongs to the broker".to_owned());
    }
    let (now, max) = (
        topic.partition_count(),
        cx.node.config.limits.partitions_max,
    );
    if total <= now || total > max {
        let code = ResponseError::InvalidPartitions;
        return refused(
            code,
            format!("it has {now} partitions and can grow up to {max}, not to {total}"),
        );
    }
    let replicas = wanted.assignments.iter().flatten();
    if replicas
        .map(|replica| replica.broker_ids.len())
        .any(|brokers| brokers > 1)
    {
        let code = ResponseError::InvalidReplicaAssignment;
        return refused(code, "this broker is a single node".to_owned());
    }
    match validate_only {
        true => Ok(()),
        false => {
            cx.blocking(move |store| store.add_partitions(&name, total))
                .await
        }
    }
}
