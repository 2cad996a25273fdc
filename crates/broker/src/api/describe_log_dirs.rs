//! DescribeLogDirs: how many bytes each partition takes in the data folder.

use std::sync::Arc;

use kafka_protocol::messages::describe_log_dirs_response::{
    DescribeLogDirsPartition, DescribeLogDirsResult, DescribeLogDirsTopic,
};
use kafka_protocol::messages::{DescribeLogDirsRequest, DescribeLogDirsResponse, TopicName};
use kafka_protocol::protocol::StrBytes;

use super::Context;
use crate::access::Use;
use crate::store::Topic;

pub(super) async fn handle(
    cx: &Context,
    request: DescribeLogDirsRequest,
) -> DescribeLogDirsResponse {
    if let Err(error) = cx.cluster_right(Use::Describe) {
        // Before version 3 there is no place for the error; an empty answer is what Kafka gives.
        let code = if cx.version >= 3 { error.code() } else { 0 };
        return DescribeLogDirsResponse::default().with_error_code(code);
    }
    let folder = cx.node.config.folder.display().to_string();
    let topics = match request.topics {
        None => cx
            .store()
            .topics()
            .iter()
            .map(|topic| describe(topic, |_| true))
            .collect(),
        Some(wanted) => wanted
            .iter()
            .filter_map(|wanted| {
                let topic: Arc<Topic> = cx.store().topic(&wanted.topic)?;
                Some(describe(&topic, |index| wanted.partitions.contains(&index)))
            })
            .collect(),
    };
    DescribeLogDirsResponse::default().with_results(vec![
        DescribeLogDirsResult::default()
            .with_log_dir(StrBytes::from_string(folder))
            .with_topics(topics)
            .with_total_bytes(-1)
            .with_usable_bytes(-1),
    ])
}

fn describe(topic: &Topic, wanted: impl Fn(i32) -> bool) -> DescribeLogDirsTopic {
    let partitions = topic.partitions();
    let sizes = partitions
        .iter()
        .filter(|partition| wanted(partition.index()))
        .map(|partition| {
            DescribeLogDirsPartition::default()
                .with_partition_index(partition.index())
                .with_partition_size(i64::try_from(partition.size_bytes()).unwrap_or(i64::MAX))
        });
    DescribeLogDirsTopic::default()
        .with_name(TopicName(StrBytes::from_string(topic.name.clone())))
        .with_partitions(sizes.collect())
}
