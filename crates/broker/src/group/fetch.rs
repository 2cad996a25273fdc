//! OffsetFetch has two shapes: up to version 7 one group, from version 8 on several. The machine
//! knows the second; here the first is turned into it and back.

use kafka_protocol::messages::offset_fetch_request::{
    OffsetFetchRequestGroup, OffsetFetchRequestTopics,
};
use kafka_protocol::messages::offset_fetch_response::{
    OffsetFetchResponseGroup, OffsetFetchResponsePartition, OffsetFetchResponseTopic,
    OffsetFetchResponseTopics,
};
use kafka_protocol::messages::{OffsetFetchRequest, OffsetFetchResponse};

/// The first version with several groups.
const GROUPS: i16 = 8;
/// The first version with an error code beside the partitions'.
const GROUP_ERROR: i16 = 2;

pub(super) fn groups(request: OffsetFetchRequest, version: i16) -> Vec<OffsetFetchRequestGroup> {
    if version >= GROUPS {
        return request.groups;
    }
    let topics = request.topics.map(|topics| {
        let topic =
            |topic: kafka_protocol::messages::offset_fetch_request::OffsetFetchRequestTopic| {
                OffsetFetchRequestTopics::default()
                    .with_name(topic.name)
                    .with_partition_indexes(topic.partition_indexes)
            };
        topics.into_iter().map(topic).collect()
    });
    vec![
        OffsetFetchRequestGroup::default()
            .with_group_id(request.group_id)
            .with_topics(topics),
    ]
}

pub(super) fn response(groups: Vec<OffsetFetchResponseGroup>, version: i16) -> OffsetFetchResponse {
    if version >= GROUPS {
        return OffsetFetchResponse::default().with_groups(groups);
    }
    let Some(group) = groups.into_iter().next() else {
        return OffsetFetchResponse::default();
    };
    let error_code = if version >= GROUP_ERROR {
        group.error_code
    } else {
        0
    };
    let topics = group
        .topics
        .into_iter()
        .map(|topic| single(topic, group.error_code))
        .collect();
    OffsetFetchResponse::default()
        .with_error_code(error_code)
        .with_topics(topics)
}

fn single(topic: OffsetFetchResponseTopics, error_code: i16) -> OffsetFetchResponseTopic {
    let partitions = topic.partitions.into_iter().map(|partition| {
        OffsetFetchResponsePartition::default()
            .with_partition_index(partition.partition_index)
            .with_committed_offset(partition.committed_offset)
            .with_committed_leader_epoch(partition.committed_leader_epoch)
            .with_metadata(partition.metadata)
            .with_error_code(if partition.error_code == 0 {
                error_code
            } else {
                partition.error_code
            })
    });
    OffsetFetchResponseTopic::default()
        .with_name(topic.name)
        .with_partitions(partitions.collect())
}
