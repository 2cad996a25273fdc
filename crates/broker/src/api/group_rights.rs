//! Parts of group requests that their caller has no right to: taken out before the coordinator sees
//! them, answered beside what it answers.

use std::mem;

use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::offset_commit_response::{
    OffsetCommitResponsePartition, OffsetCommitResponseTopic,
};
use kafka_protocol::messages::offset_fetch_response::{
    OffsetFetchResponseGroup, OffsetFetchResponsePartition, OffsetFetchResponseTopic,
};
use kafka_protocol::messages::{
    GroupId, OffsetCommitRequest, OffsetFetchRequest, OffsetFetchResponse, TopicName,
};
use rustc_hash::FxHashSet;

use super::Context;
use crate::access::{Resource, Use};

/// Since this version, OffsetFetch asks for several groups.
pub(super) const GROUPS_IN_FETCH: i16 = 8;

/// Since this version, OffsetFetch has an error for the whole group.
const ERROR_IN_FETCH: i16 = 2;

/// Takes out the groups that may not be used so.
pub(super) fn take_refused(cx: &Context, groups: &mut Vec<GroupId>, what: Use) -> Vec<GroupId> {
    let (allowed, refused) = mem::take(groups)
        .into_iter()
        .partition(|group| cx.may(what, Resource::Group(group)));
    *groups = allowed;
    refused
}

/// Takes out the topics of which this caller may not commit offsets: all of them in a group that it
/// may not be in.
pub(super) fn take_refused_topics(
    cx: &Context,
    request: &mut OffsetCommitRequest,
) -> Vec<OffsetCommitResponseTopic> {
    let of_group = cx.group_right(&request.group_id, Use::Read).err();
    let mut refused = Vec::new();
    request.topics.retain(|topic| {
        let error = of_group.or_else(|| cx.topic_right(&topic.name, Use::Read).err());
        let Some(error) = error else {
            return true;
        };
        let partitions = topic.partitions.iter().map(|partition| {
            OffsetCommitResponsePartition::default()
                .with_partition_index(partition.partition_index)
                .with_error_code(error.code())
        });
        refused.push(
            OffsetCommitResponseTopic::default()
                .with_name(topic.name.clone())
                .with_partitions(partitions.collect()),
        );
        false
    });
    refused
}

/// Takes out the groups that may not be seen, from the version on that names several.
pub(super) fn take_refused_groups(
    cx: &Context,
    request: &mut OffsetFetchRequest,
) -> Vec<OffsetFetchResponseGroup> {
    let mut refused = Vec::new();
    request.groups.retain(|group| {
        let seen = cx.group_right(&group.group_id, Use::Describe);
        if let Err(error) = seen {
            refused.push(
                OffsetFetchResponseGroup::default()
                    .with_group_id(group.group_id.clone())
                    .with_error_code(error.code()),
            );
        }
        seen.is_ok()
    });
    refused
}

/// The answer about a single group that may not be seen.
pub(super) fn refused_fetch(request: &OffsetFetchRequest, version: i16) -> OffsetFetchResponse {
    let error = ResponseError::GroupAuthorizationFailed.code();
    let topics = request.topics.iter().flatten().map(|topic| {
        let partitions = topic.partition_indexes.iter().map(|index| {
            OffsetFetchResponsePartition::default()
                .with_partition_index(*index)
                .with_committed_offset(-1)
                .with_error_code(error)
        });
        OffsetFetchResponseTopic::default()
            .with_name(topic.name.clone())
            .with_partitions(partitions.collect())
    });
    OffsetFetchResponse::default()
        .with_topics(topics.collect())
        .with_error_code(if version >= ERROR_IN_FETCH { error } else { 0 })
}

/// The topics that a fetch names, whatever the group.
pub(super) fn names_topics(request: &OffsetFetchRequest) -> FxHashSet<TopicName> {
    let several = request.groups.iter().flat_map(|group| &group.topics);
    let several = several.flatten().map(|topic| &topic.name);
    let single = request.topics.iter().flatten().map(|topic| &topic.name);
    several.chain(single).cloned().collect()
}

/// Of topics that may not be seen, those named are refused, and others are left out.
pub(super) fn hide_topics(
    cx: &Context,
    response: &mut OffsetFetchResponse,
    named: &FxHashSet<TopicName>,
) {
    let error = ResponseError::TopicAuthorizationFailed.code();
    let hidden = |topic: &TopicName| !cx.sees(Use::Describe, Resource::Topic(topic));
    response
        .topics
        .retain(|topic| !hidden(&topic.name) || named.contains(&topic.name));
    for topic in &mut response.topics {
        if hidden(&topic.name) {
            for partition in &mut topic.partitions {
                partition.error_code = error;
                partition.committed_offset = -1;
                partition.metadata = Some(Default::default());
            }
        }
    }
    for group in &mut response.groups {
        group
            .topics
            .retain(|topic| !hidden(&topic.name) || named.contains(&topic.name));
        for topic in &mut group.topics {
            if hidden(&topic.name) {
                for partition in &mut topic.partitions {
                    partition.error_code = error;
                    partition.committed_offset = -1;
                    partition.metadata = Some(Default::default());
                }
            }
        }
    }
}
