//! Metadata: which topics there are, and that this node leads all of them.

use std::collections::{BTreeMap, HashSet};

use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::metadata_response::{
    MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic,
};
use kafka_protocol::messages::{MetadataRequest, MetadataResponse, TopicName};
use kafka_protocol::protocol::StrBytes;

use super::Context;
use super::context::{LEADER_EPOCH, NODE_ID};
use super::partition::is_internal;
use crate::access::{Resource, Use};
use crate::store::{self, Topic};

pub(super) async fn handle(cx: &Context, request: MetadataRequest) -> MetadataResponse {
    let (host, port) = cx.advertised();
    let topics = match wanted(cx.version, &request) {
        None => cx
            .store()
            .topics()
            .iter()
            .filter(|topic| cx.sees(Use::Describe, Resource::Topic(&topic.name)))
            .map(|topic| describe(topic))
            .collect(),
        Some(wanted) => {
            let mut topics = Vec::with_capacity(wanted.len());
            // Who asks twice is told once, as by Apache Kafka.
            let mut seen = HashSet::with_capacity(wanted.len());
            for topic in wanted {
                if seen.insert((&topic.name, topic.topic_id)) {
                    topics.push(answer(cx, topic, request.allow_auto_topic_creation).await);
                }
            }
            topics
        }
    };
    MetadataResponse::default()
        .with_brokers(vec![
            MetadataResponseBroker::default()
                .with_node_id(NODE_ID)
                .with_host(host)
                .with_port(port),
        ])
        .with_cluster_id(Some(cx.cluster_id()))
        .with_controller_id(NODE_ID)
        .with_topics(topics)
}

/// The topics asked for; `None` means all. Version 0 says "all" by an empty list.
fn wanted(version: i16, request: &MetadataRequest) -> Option<&[MetadataRequestTopic]> {
    match request.topics.as_deref() {
        Some([]) if version == 0 => None,
        topics => topics,
    }
}

async fn answer(
    cx: &Context,
    wanted: &MetadataRequestTopic,
    create: bool,
) -> MetadataResponseTopic {
    let Some(name) = &wanted.name else {
        return match cx.store().topic_by_id(wanted.topic_id) {
            Some(topic) if cx.sees(Use::Describe, Resource::Topic(&topic.name)) => describe(&topic),
            // Before version 12 a name may not be null.
            _ => MetadataResponseTopic::default()
                .with_name((cx.version < 12).then(TopicName::default))
                .with_topic_id(wanted.topic_id)
                .with_error_code(ResponseError::UnknownTopicId.code()),
        };
    };
    let refused = |error: ResponseError| {
        MetadataResponseTopic::default()
            .with_name(Some(name.clone()))
            .with_is_internal(is_internal(name))
            .with_error_code(error.code())
    };
    if let Err(error) = cx.topic_right(name, Use::Describe) {
        return refused(error);
    }
    if let Some(topic) = cx.store().topic(name) {
        return describe(&topic);
    }
    // Before version 4 the request cannot say; Kafka takes it for yes.
    let create = (create || cx.version < 4) && cx.node.config.auto_create_topics;
    let error = match create {
        true => match create_topic(cx, name).await {
            Ok(topic) => return topic,
            Err(error) => error,
        },
        false if store::check_name(name).is_err() => ResponseError::InvalidTopicException,
        false => ResponseError::UnknownTopicOrPartition,
    };
    refused(error)
}

async fn create_topic(
    cx: &Context,
    name: &TopicName,
) -> Result<MetadataResponseTopic, ResponseError> {
    cx.topic_right(name, Use::Admin)?;
    if is_internal(name) {
        return Err(ResponseError::UnknownTopicOrPartition);
    }
    let (name, partitions) = (name.to_string(), cx.node.config.default_partitions);
    cx.blocking(move |store| store.create_topic(&name, partitions, BTreeMap::new()))
        .await
        .map(|topic| describe(&topic))
        .map_err(|error| error.code())
}

fn describe(topic: &Topic) -> MetadataResponseTopic {
    let name = StrBytes::from_string(topic.name.clone());
    MetadataResponseTopic::default()
        .with_name(Some(name.into()))
        .with_topic_id(topic.id)
        .with_is_internal(is_internal(&topic.name))
        .with_partitions((0..topic.partition_count()).map(partition).collect())
}

fn partition(index: i32) -> MetadataResponsePartition {
    MetadataResponsePartition::default()
        .with_partition_index(index)
        .with_leader_id(NODE_ID)
        .with_leader_epoch(LEADER_EPOCH)
        .with_replica_nodes(vec![NODE_ID])
        .with_isr_nodes(vec![NODE_ID])
}
