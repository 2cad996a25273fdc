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

use super::partition::{holds_replica, is_internal};
use super::repeated::{self, take_repeated};
use super::{Context, access, configs};
use crate::Error;
use crate::access::Use;
use crate::store::TopicConfig;

/// "As many as the broker has by default" (KIP-464).
const BROKER_DEFAULT: i32 = -1;

pub(super) async fn handle(cx: &Context, mut request: CreateTopicsRequest) -> CreateTopicsResponse {
    let repeated = take_repeated(&mut request.topics, |topic| topic.name.clone());
    let mut results = Vec::with_capacity(request.topics.len() + repeated.len());
    for topic in &request.topics {
        let result = create(cx, topic, request.validate_only).await;
        results.push(result.unwrap_or_else(|error| failure(topic.name.clone(), &error)));
    }
    results.extend(repeated.into_iter().map(|name| {
        let error = repeated::refused(&name);
        failure(name, &error)
    }));
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
    match topic.assignments.is_empty() {
        true => replication(topic)?,
        false => assignment(topic)?,
    }
    let configs = own_configs(topic)?;
    let name = topic.name.to_string();
    let (id, configs) = cx
        .blocking(move |store| match validate_only {
            true => {
                let config = store.validate_topic(&name, partitions, &configs)?;
                Ok((Uuid::nil(), created_configs(&config)))
            }
            false => {
                let topic = store.create_topic(&name, partitions, configs)?;
                Ok((topic.id, created_configs(&topic.config())))
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
    match topic.replication_factor {
        1 | -1 => Ok(()),
        _ => Err(refused(
            ResponseError::InvalidReplicationFactor,
            format!(
                "topic {}: this broker is a single node; ask for a replication factor of 1",
                topic.name.as_str()
            ),
        )),
    }
}

/// The caller says where each partition's replicas lie, and then must not say how many there are of either.
fn assignment(topic: &CreatableTopic) -> Result<(), Error> {
    let name = topic.name.as_str();
    if topic.replication_factor != -1 || topic.num_partitions != BROKER_DEFAULT {
        return Err(refused(
            ResponseError::InvalidRequest,
            format!("topic {name}: with an assignment, both numbers have to be -1"),
        ));
    }
    let mut indexes: Vec<i32> = topic
        .assignments
        .iter()
        .map(|a| a.partition_index)
        .collect();
    indexes.sort_unstable();
    let counts_up = indexes
        .iter()
        .zip(0..)
        .all(|(index, place)| *index == place);
    let here = topic
        .assignments
        .iter()
        .all(|a| holds_replica(&a.broker_ids));
    match counts_up && here {
        true => Ok(()),
        false => Err(refused(
            ResponseError::InvalidReplicaAssignment,
            format!(
                "topic {name}: partitions count up from 0, and each has its one replica on this node"
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

fn created_configs(config: &TopicConfig) -> Vec<CreatableTopicConfigs> {
    let described = configs::of_topic(config).into_iter().map(|config| {
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
        .with_configs(Some(Vec::new()))
}

fn refused(code: ResponseError, message: String) -> Error {
    Error::refused(code, message)
}
