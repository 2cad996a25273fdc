//! DescribeTopicPartitions (KIP-966): what topics there are, a page of partitions at a time.

use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::describe_topic_partitions_response::{
    Cursor, DescribeTopicPartitionsResponsePartition as Partition,
    DescribeTopicPartitionsResponseTopic as DescribedTopic,
};
use kafka_protocol::messages::{
    DescribeTopicPartitionsRequest, DescribeTopicPartitionsResponse, TopicName,
};
use kafka_protocol::protocol::StrBytes;

use super::Context;
use super::context::{LEADER_EPOCH, NODE_ID};
use super::partition::is_internal;
use crate::access::{Resource, Use};

/// `max.request.partition.size.limit`: partitions of one answer at most. Kafka's default.
const PARTITIONS_MAX: i32 = 2_000;

pub(super) async fn handle(
    cx: &Context,
    request: DescribeTopicPartitionsRequest,
) -> DescribeTopicPartitionsResponse {
    let start = request.cursor.as_ref();
    let start = start.map(|cursor| (&*cursor.topic_name.0, cursor.partition_index));
    let mut page = Page {
        left: request.response_partition_limit.clamp(1, PARTITIONS_MAX),
        topics: Vec::new(),
        next: None,
    };
    for name in wanted(cx, &request) {
        match start {
            Some((topic, _)) if *name < *topic => {}
            Some((topic, partition)) if *name == *topic => page.add(cx, name, partition.max(0)),
            _ => page.add(cx, name, 0),
        }
        if page.next.is_some() {
            break;
        }
    }
    DescribeTopicPartitionsResponse::default()
        .with_topics(page.topics)
        .with_next_cursor(page.next)
}

/// The topics asked for, or all that may be seen, in the order of their names.
fn wanted(cx: &Context, request: &DescribeTopicPartitionsRequest) -> Vec<StrBytes> {
    if request.topics.is_empty() {
        let topics = cx.store().topics();
        let seen = topics
            .iter()
            .filter(|topic| cx.sees(Use::Describe, Resource::Topic(&topic.name)));
        return seen
            .map(|topic| StrBytes::from_string(topic.name.clone()))
            .collect();
    }
    let topics = request.topics.iter();
    let mut names: Vec<_> = topics.map(|topic| topic.name.0.clone()).collect();
    names.sort();
    names.dedup();
    names
}

struct Page {
    /// Partitions that fit yet.
    left: i32,
    topics: Vec<DescribedTopic>,
    next: Option<Cursor>,
}

impl Page {
    fn add(&mut self, cx: &Context, name: StrBytes, first: i32) {
        if self.left == 0 {
            self.next = Some(cursor(name, 0));
            return;
        }
        let described = DescribedTopic::default()
            .with_is_internal(is_internal(&name))
            .with_name(Some(TopicName(name.clone())));
        let found = cx.topic_right(&name, Use::Describe).and_then(|()| {
            let topic = cx.store().topic(&name);
            topic.ok_or(ResponseError::UnknownTopicOrPartition)
        });
        let topic = match found {
            Ok(topic) => topic,
            Err(error) => {
                let refused = described.with_error_code(error.code());
                return self.topics.push(refused);
            }
        };
        let end = topic.partition_count().min(first.saturating_add(self.left));
        if end < topic.partition_count() {
            self.next = Some(cursor(name, end));
        }
        self.left -= (end - first).max(0);
        self.topics.push(
            described
                .with_topic_id(topic.id)
                .with_partitions((first..end).map(partition).collect()),
        );
    }
}

fn cursor(topic: StrBytes, partition: i32) -> Cursor {
    Cursor::default()
        .with_topic_name(TopicName(topic))
        .with_partition_index(partition)
}

fn partition(index: i32) -> Partition {
    Partition::default()
        .with_partition_index(index)
        .with_leader_id(NODE_ID)
        .with_leader_epoch(LEADER_EPOCH)
        .with_replica_nodes(vec![NODE_ID])
        .with_isr_nodes(vec![NODE_ID])
        .with_eligible_leader_replicas(Some(Vec::new()))
        .with_last_known_elr(Some(Vec::new()))
}
