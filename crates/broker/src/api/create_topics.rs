//! CreateTopics.

use std::collections::BTreeMap;

use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::create_topics_request::CreatableTopic;
use kafka_protocol::messages::create_topics_response::{
    CreatableTopicConfigs, CreatableTopicResult,
};
use kafka_protocol::messages::{CreateTopicsRequest, CreateTopicsResponse, TopicName};
use kafka_protocol::protocol::StrBytes;
use uuid::Uuid;

use super::partition::is_internal;
use super::{Context, access, configs};
use crate::Error;
use crate::access::Use;

/// "As many as the broker has by default" (KIP-464).
const BROKER_DEFAULT: i32 = -1;

pub(super) async fn handle(cx: &Context, request: CreateTopicsRequest) -> CreateTopicsResponse {
    let mut results: Vec<CreatableTopicResult> = Vec::with_capacity(request.topics.len());
    for (index, topic) in request.topics.iter().enumerate() {
        let twice = request
            .topics
            .iter()
            .enumerate()
            .any(|(other, named)| other != index && named.name == topic.name);
        let result = match twice {
            true => Err(refused(
                ResponseError::InvalidRequest,
                format!(
                    "topic {} is named twice in the request",
                    topic.name.as_str()
                ),
            )),
            false => create(cx, topic, request.validate_only).await,
        };
        results.push(result.unwrap_or_else(|error| failure(topic.name.clone(), &error)));
    }
    CreateTopicsResponse::default().with_topics(results)
}

async fn create(
    cx: &Context,
    topic: &CreatableTopic,
    validate_only: bool,
) -> Result<CreatableTopicResult, Error> {
    cx.topic_right(&topic.name, Use::Admin)
        .map_err(access::refused)?;
    let partitions = partitions(cx, topic)?;
    replication(topic)?;
    let configs = own_configs(topic)?;
    let name = topic.name.to_string();
    let (id, configs) = cx
        .blocking(move |store| match validate_only {
            true => {
                store.validate_topic(&name, partitions, &configs)?;
                Ok((Uuid::nil(), Vec::new()))
            }
            false => {
                let topic = store.create_topic(&name, partitions, configs)?;
                Ok((topic.id, created_configs(&topic)))
            }
        })
        .await?;
    Ok(CreatableTopicResult::default()
        .with_name(topic.name.clone())
        .with_topic_id(id)
        .with_error_message(None)
        .with_num_partitions(partitions)
        .with_replication_factor(1)
        .with_configs(Some(configs)))
}

fn partitions(cx: &Context, topic: &CreatableTopic) -> Result<i32, Error> {
    let max = cx.node.config.limits.partitions_max;
    let name = topic.name.as_str();
    if is_internal(name) {
        return Err(refused(
            ResponseError::InvalidTopicException,
            format!("topic {name} belongs to the broker"),
        ));
    }
    let wanted = match topic.assignments.len() {
        0 => topic.num_partitions,
        assigned => i32::try_from(assigned).unwrap_or(i32::MAX),
    };
    match wanted {
        BROKER_DEFAULT => Ok(cx.node.config.default_partitions),
        wanted if (1..=max).contains(&wanted) => Ok(wanted),
        wanted => Err(refused(
            ResponseError::InvalidPartitions,
            format!("topic {name} cannot have {wanted} partitions, only 1 to {max}"),
        )),
    }
}

fn replication(topic: &CreatableTopic) -> Result<(), Error> {
    let replicated = topic
        .assignments
        .iter()
        .any(|assignment| assignment.broker_ids.len() > 1);
    match topic.replication_factor {
        1 | -1 if !replicated => Ok(()),
        _ => Err(refused(
            ResponseError::InvalidReplicationFactor,
            format!(
                "topic {}: this broker is a single node; ask for a replication factor of 1",
                topic.name.as_str()
            ),
        )),
    }
}

fn own_configs(topic: &CreatableTopic) -> Result<BTreeMap<String, String>, Error> {
    let configs = topic.configs.iter().map(|config| match &config.value {
        Some(value) => Ok((config.name.to_string(), value.to_string())),
        None => Err(refused(
            ResponseError::InvalidConfig,
            format!(
                "topic {}: {} has no value",
                topic.name.as_str(),
                config.name
            ),
        )),
    });
    configs.collect()
}

fn created_configs(topic: &crate::store::Topic) -> Vec<CreatableTopicConfigs> {
    let described = configs::of_topic(topic).into_iter().map(|config| {
        CreatableTopicConfigs::default()
            .with_name(StrBytes::from_string(config.name.into_owned()))
            .with_value(Some(StrBytes::from_string(config.value)))
            .with_config_source(config.source)
    });
    described.collect()
}

fn failure(name: TopicName, error: &Error) -> CreatableTopicResult {
    CreatableTopicResult::default()
        .with_name(name)
        .with_error_code(error.code().code())
        .with_error_message(Some(StrBytes::from_string(error.to_string())))
        .with_configs(None)
}

fn refused(code: ResponseError, message: String) -> Error {
    Error::refused(code, message)
}
