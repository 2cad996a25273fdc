//! CreatePartitions: a topic can grow, never shrink.

use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::create_partitions_request::CreatePartitionsTopic;
use kafka_protocol::messages::create_partitions_response::CreatePartitionsTopicResult;
use kafka_protocol::messages::{CreatePartitionsRequest, CreatePartitionsResponse, TopicName};
use kafka_protocol::protocol::StrBytes;

use super::partition::{holds_replica, is_internal};
use super::repeated::{self, take_repeated};
use super::{Context, access};
use crate::Error;
use crate::access::Use;

pub(super) async fn handle(
    cx: &Context,
    mut request: CreatePartitionsRequest,
) -> CreatePartitionsResponse {
    let repeated = take_repeated(&mut request.topics, |topic| topic.name.clone());
    let mut results = Vec::with_capacity(request.topics.len() + repeated.len());
    for topic in request.topics {
        let outcome = grow(cx, &topic, request.validate_only).await;
        results.push(answer(topic.name, outcome));
    }
    results.extend(repeated.into_iter().map(|name| {
        let error = repeated::refused(&name);
        answer(name, Err(error))
    }));
    CreatePartitionsResponse::default().with_results(results)
}

fn answer(name: TopicName, outcome: Result<(), Error>) -> CreatePartitionsTopicResult {
    let response = CreatePartitionsTopicResult::default().with_name(name);
    match outcome {
        Ok(()) => response.with_error_message(None),
        Err(error) => response
            .with_error_code(error.code().code())
            .with_error_message(Some(StrBytes::from_string(error.to_string()))),
    }
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
    if let Some(replicas) = &wanted.assignments
        && (replicas.len() != usize::try_from(total - now).unwrap_or(0)
            || !replicas
                .iter()
                .all(|replica| holds_replica(&replica.broker_ids)))
    {
        let code = ResponseError::InvalidReplicaAssignment;
        return refused(
            code,
            "each new partition has its one replica on this node".to_owned(),
        );
    }
    match validate_only {
        true => Ok(()),
        false => {
            cx.blocking(move |store| store.add_partitions(&name, total))
                .await
        }
    }
}
