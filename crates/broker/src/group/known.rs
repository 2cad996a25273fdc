//! Commits for partitions that do not exist are refused one by one; the rest of the request counts.

use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::offset_commit_request::OffsetCommitRequestTopic;
use kafka_protocol::messages::offset_commit_response::{
    OffsetCommitResponsePartition, OffsetCommitResponseTopic,
};
use kafka_protocol::messages::offset_delete_response::{
    OffsetDeleteResponsePartition, OffsetDeleteResponseTopic,
};
use kafka_protocol::messages::txn_offset_commit_response::{
    TxnOffsetCommitResponsePartition, TxnOffsetCommitResponseTopic,
};
use kafka_protocol::messages::{
    OffsetCommitRequest, OffsetCommitResponse, OffsetDeleteRequest, OffsetDeleteResponse,
    TxnOffsetCommitRequest,
};

/// A commit, and the answers for what was taken out of it.
pub(super) struct Known {
    pub(super) request: OffsetCommitRequest,
    pub(super) unknown: Vec<OffsetCommitResponseTopic>,
}

/// Takes out of a commit what names no partition; `partition_count` is 0 for an unknown topic.
pub(super) fn split(
    mut request: OffsetCommitRequest,
    partition_count: impl Fn(&str) -> i32,
) -> Known {
    let mut unknown = Vec::new();
    request.topics.retain_mut(|topic| {
        let count = partition_count(&topic.name);
        let exists = |index: i32| (0..count).contains(&index);
        if topic
            .partitions
            .iter()
            .all(|partition| exists(partition.partition_index))
        {
            return true;
        }
        unknown.push(refused(topic, &exists));
        topic
            .partitions
            .retain(|partition| exists(partition.partition_index));
        !topic.partitions.is_empty()
    });
    Known { request, unknown }
}

fn refused(
    topic: &OffsetCommitRequestTopic,
    exists: &impl Fn(i32) -> bool,
) -> OffsetCommitResponseTopic {
    let error = ResponseError::UnknownTopicOrPartition.code();
    let partitions = topic
        .partitions
        .iter()
        .filter(|partition| !exists(partition.partition_index))
        .map(|p| {
            OffsetCommitResponsePartition::default()
                .with_partition_index(p.partition_index)
                .with_error_code(error)
        });
    OffsetCommitResponseTopic::default()
        .with_name(topic.name.clone())
        .with_partitions(partitions.collect())
}

/// As [`Known`], of a commit in a transaction.
pub(super) struct KnownPending {
    pub(super) request: TxnOffsetCommitRequest,
    pub(super) unknown: Vec<TxnOffsetCommitResponseTopic>,
}

/// As [`split`], for a commit in a transaction.
pub(super) fn split_pending(
    mut request: TxnOffsetCommitRequest,
    partition_count: impl Fn(&str) -> i32,
) -> KnownPending {
    let error = ResponseError::UnknownTopicOrPartition.code();
    let mut unknown = Vec::new();
    request.topics.retain_mut(|topic| {
        let count = partition_count(&topic.name);
        let mut refused = Vec::new();
        topic.partitions.retain(|partition| {
            let index = partition.partition_index;
            let exists = (0..count).contains(&index);
            if !exists {
                refused.push(
                    TxnOffsetCommitResponsePartition::default()
                        .with_partition_index(index)
                        .with_error_code(error),
                );
            }
            exists
        });
        if !refused.is_empty() {
            unknown.push(
                TxnOffsetCommitResponseTopic::default()
                    .with_name(topic.name.clone())
                    .with_partitions(refused),
            );
        }
        !topic.partitions.is_empty()
    });
    KnownPending { request, unknown }
}

/// As [`split`], for offsets that are to be deleted.
pub(super) fn take_unknown(
    request: &mut OffsetDeleteRequest,
    partition_count: impl Fn(&str) -> i32,
) -> Vec<OffsetDeleteResponseTopic> {
    let error = ResponseError::UnknownTopicOrPartition.code();
    let mut unknown = Vec::new();
    request.topics.retain_mut(|topic| {
        let count = partition_count(&topic.name);
        let gone = topic.partitions.extract_if(.., |partition| {
            !(0..count).contains(&partition.partition_index)
        });
        let refused: Vec<_> = gone
            .map(|partition| {
                OffsetDeleteResponsePartition::default()
                    .with_partition_index(partition.partition_index)
                    .with_error_code(error)
            })
            .collect();
        if !refused.is_empty() {
            let answer = OffsetDeleteResponseTopic::default().with_name(topic.name.clone());
            unknown.push(answer.with_partitions(refused));
        }
        !topic.partitions.is_empty()
    });
    unknown
}

/// The whole answer: each topic once.
pub(super) fn join(
    mut response: OffsetCommitResponse,
    unknown: Vec<OffsetCommitResponseTopic>,
) -> OffsetCommitResponse {
    for refused in unknown {
        match response
            .topics
            .iter_mut()
            .find(|topic| topic.name == refused.name)
        {
            Some(topic) => topic.partitions.extend(refused.partitions),
            None => response.topics.push(refused),
        }
    }
    response
}

/// As [`join`], for offsets that were to be deleted.
pub(super) fn join_deleted(
    mut response: OffsetDeleteResponse,
    unknown: Vec<OffsetDeleteResponseTopic>,
) -> OffsetDeleteResponse {
    for refused in unknown {
        match response
            .topics
            .iter_mut()
            .find(|topic| topic.name == refused.name)
        {
            Some(topic) => topic.partitions.extend(refused.partitions),
            None => response.topics.push(refused),
        }
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use kafka_protocol::messages::TopicName;
    use kafka_protocol::messages::offset_commit_request::OffsetCommitRequestPartition;
    use kafka_protocol::protocol::StrBytes;

    fn topic(name: &'static str, partitions: &[i32]) -> OffsetCommitRequestTopic {
        let partition =
            |index: &i32| OffsetCommitRequestPartition::default().with_partition_index(*index);
        OffsetCommitRequestTopic::default()
            .with_name(TopicName(StrBytes::from_static_str(name)))
            .with_partitions(partitions.iter().map(partition).collect())
    }

    #[test]
    fn unknown_partitions_are_refused_and_the_others_kept() {
        let request = OffsetCommitRequest::default().with_topics(vec![
            topic("a", &[0, 7]),
            topic("gone", &[0]),
            topic("b", &[1]),
        ]);
        let known = split(request, |name| if name == "gone" { 0 } else { 2 });
        let kept: Vec<_> = known
            .request
            .topics
            .iter()
            .map(|t| (t.name.0.to_string(), t.partitions.len()))
            .collect();
        assert_eq!(kept, [("a".to_owned(), 1), ("b".to_owned(), 1)]);

        let accepted = OffsetCommitResponse::default().with_topics(vec![
            OffsetCommitResponseTopic::default().with_name(topic("a", &[]).name),
        ]);
        let joined = join(accepted, known.unknown);
        assert_eq!(joined.topics.len(), 2);
        assert_eq!(joined.topics[0].partitions[0].partition_index, 7);
        assert_eq!(
            joined.topics[0].partitions[0].error_code,
            ResponseError::UnknownTopicOrPartition.code()
        );
    }
}
