//! The coordinator on a real store: what it answers is on disk, and comes back.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use futures_util::future::join_all;
use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::join_group_request::JoinGroupRequestProtocol;
use kafka_protocol::messages::leave_group_request::MemberIdentity;
use kafka_protocol::messages::offset_commit_request::{
    OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use kafka_protocol::messages::offset_fetch_request::{
    OffsetFetchRequestGroup, OffsetFetchRequestTopic,
};
use kafka_protocol::messages::sync_group_request::SyncGroupRequestAssignment;
use kafka_protocol::messages::{
    GroupId, HeartbeatRequest, JoinGroupRequest, LeaveGroupRequest, ListGroupsRequest,
    OffsetCommitRequest, OffsetFetchRequest, SyncGroupRequest, TopicName,
};
use kafka_protocol::protocol::StrBytes;

use super::{Client, Config, Coordinator};
use crate::Flush;
use crate::store::{Store, StoreConfig};

fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

fn store(folder: &Path) -> Arc<Store> {
    let config = StoreConfig {
        data_dir: folder.to_owned(),
        flush: Flush::Always,
        topic_defaults: BTreeMap::new(),
    };
    let (store, _) = Store::open(&config).unwrap();
    if store.topic("orders").is_none() {
        store.create_topic("orders", 3, BTreeMap::new()).unwrap();
    }
    store
}

async fn open(store: &Arc<Store>) -> Coordinator {
    Coordinator::open(Config::default(), Arc::clone(store))
        .await
        .unwrap()
}

fn commit(group: &str, partition: i32, offset: i64) -> OffsetCommitRequest {
    let partition = OffsetCommitRequestPartition::default()
        .with_partition_index(partition)
        .with_committed_offset(offset)
        .with_committed_metadata(Some(text("kept")));
    let topic = OffsetCommitRequestTopic::default()
        .with_name(TopicName(text("orders")))
        .with_partitions(vec![partition]);
    OffsetCommitRequest::default()
        .with_group_id(GroupId(text(group)))
        .with_generation_id_or_member_epoch(-1)
        .with_retention_time_ms(-1)
        .with_topics(vec![topic])
}

async fn committed(groups: &Coordinator, group: &str, partition: i32, offset: i64) -> i16 {
    groups
        .commit_offsets(commit(group, partition, offset), 8)
        .await
        .topics[0]
        .partitions[0]
        .error_code
}

async fn position(groups: &Coordinator, group: &str, partition: i32) -> i64 {
    let topic = OffsetFetchRequestTopic::default()
        .with_name(TopicName(text("orders")))
        .with_partition_indexes(vec![partition]);
    let request = OffsetFetchRequest::default()
        .with_group_id(GroupId(text(group)))
        .with_topics(Some(vec![topic]));
    groups.fetch_offsets(request, 7).await.topics[0].partitions[0].committed_offset
}

fn join(group: &str) -> JoinGroupRequest {
    JoinGroupRequest::default()
        .with_group_id(GroupId(text(group)))
        // Longer than any of these tests takes, on a busy machine, too.
        .with_session_timeout_ms(600_000)
        .with_rebalance_timeout_ms(10_000)
        .with_protocol_type(text("consumer"))
        .with_protocols(vec![
            JoinGroupRequestProtocol::default().with_name(text("range")),
        ])
}

/// A group with one member, stable in its first generation.
async fn member(groups: &Coordinator, group: &str) -> StrBytes {
    let joined = groups.join(join(group), 3, Client::default()).await;
    assert_eq!((joined.error_code, joined.generation_id), (0, 1));
    let assignment = SyncGroupRequestAssignment::default()
        .with_member_id(joined.member_id.clone())
        .with_assignment("mine".into());
    let sync = SyncGroupRequest::default()
        .with_group_id(GroupId(text(group)))
        .with_generation_id(1)
        .with_member_id(joined.member_id.clone())
        .with_assignments(vec![assignment]);
    assert_eq!(&groups.sync(sync).await.assignment[..], b"mine");
    joined.member_id
}

async fn heartbeat(groups: &Coordinator, group: &str, id: &StrBytes) -> i16 {
    let request = HeartbeatRequest::default()
        .with_group_id(GroupId(text(group)))
        .with_generation_id(1)
        .with_member_id(id.clone());
    groups.heartbeat(request).await.error_code
}

#[tokio::test]
async fn groups_and_offsets_survive_a_restart_of_the_coordinator() {
    let folder = tempfile::tempdir().unwrap();
    let store = store(folder.path());
    let groups = open(&store).await;
    let id = member(&groups, "g").await;
    for group in 0..20 {
        assert_eq!(
            committed(&groups, &format!("simple-{group}"), 1, 100 + group).await,
            0
        );
    }
    groups.shutdown().await;

    let groups = open(&store).await;
    assert_eq!(heartbeat(&groups, "g", &id).await, 0, "its session goes on");
    for group in 0..20 {
        assert_eq!(
            position(&groups, &format!("simple-{group}"), 1).await,
            100 + group
        );
    }
    assert_eq!(position(&groups, "simple-0", 2).await, -1);
    assert_eq!(
        groups.list(ListGroupsRequest::default()).await.groups.len(),
        21
    );
    groups.shutdown().await;
}

#[tokio::test]
async fn groups_survive_without_a_clean_stop() {
    let folder = tempfile::tempdir().unwrap();
    let first = store(folder.path());
    let groups = open(&first).await;
    assert_eq!(committed(&groups, "g", 0, 7).await, 0);
    drop(groups);

    let groups = open(&first).await;
    assert_eq!(position(&groups, "g", 0).await, 7);
}

#[tokio::test]
async fn many_commits_at_once_are_all_answered_and_kept() {
    let folder = tempfile::tempdir().unwrap();
    let store = store(folder.path());
    let groups = open(&store).await;
    // One after another in a group, as one consumer commits; all groups at once.
    let consume = async |name: String| {
        for offset in 0..40 {
            assert_eq!(committed(&groups, &name, 0, offset).await, 0);
        }
    };
    join_all((0..50).map(|n| consume(format!("g-{n}")))).await;
    for n in 0..50 {
        assert_eq!(position(&groups, &format!("g-{n}"), 0).await, 39);
    }
    groups.shutdown().await;
}

#[tokio::test]
async fn the_log_of_offsets_does_not_grow_without_end() {
    let folder = tempfile::tempdir().unwrap();
    let store = store(folder.path());
    let config = Config {
        snapshot_bytes: 10_000,
        offsets_partitions: 1,
        ..Config::default()
    };
    let groups = Coordinator::open(config.clone(), Arc::clone(&store))
        .await
        .unwrap();
    let id = member(&groups, "g").await;
    let consume = async |partition: i32| {
        for offset in 0..400 {
            assert_eq!(committed(&groups, "simple", partition, offset).await, 0);
        }
    };
    join_all((0..3).map(consume)).await;
    groups.shutdown().await;
    let partition = store
        .topic("__consumer_offsets")
        .unwrap()
        .partition(0)
        .unwrap();
    let kept = partition.high_watermark() - partition.log_start_offset();
    assert!(
        partition.log_start_offset() > 0 && kept < 400,
        "{kept} of 1,200 records are kept"
    );

    let groups = Coordinator::open(config, Arc::clone(&store)).await.unwrap();
    assert_eq!(heartbeat(&groups, "g", &id).await, 0);
    for partition in 0..3 {
        assert_eq!(position(&groups, "simple", partition).await, 399);
    }
}

#[tokio::test]
async fn partitions_that_do_not_exist_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let groups = open(&store(folder.path())).await;
    let unknown = ResponseError::UnknownTopicOrPartition.code();
    assert_eq!(committed(&groups, "g", 3, 7).await, unknown);
    assert_eq!(committed(&groups, "g", -1, 7).await, unknown);
    assert_eq!(committed(&groups, "g", 2, 7).await, 0);
}

#[tokio::test]
async fn offsets_of_a_deleted_topic_are_forgotten_also_when_nobody_said_so() {
    let folder = tempfile::tempdir().unwrap();
    let store = store(folder.path());
    let groups = open(&store).await;
    committed(&groups, "told", 0, 7).await;
    groups.topic_deleted("orders").await;
    assert_eq!(position(&groups, "told", 0).await, -1);
    committed(&groups, "crashed", 0, 7).await;
    groups.shutdown().await;
    store.delete_topic("orders").unwrap();
    store.create_topic("other", 1, BTreeMap::new()).unwrap();
    let groups = open(&store).await;
    assert_eq!(position(&groups, "crashed", 0).await, -1);
}

#[tokio::test]
async fn who_waits_for_others_is_sent_away_at_a_stop() {
    let folder = tempfile::tempdir().unwrap();
    let groups = open(&store(folder.path())).await;
    member(&groups, "g").await;
    let waits = tokio::spawn({
        let groups = groups.clone();
        async move { groups.join(join("g"), 3, Client::default()).await }
    });
    while groups.list(ListGroupsRequest::default()).await.groups[0].group_state == *"Stable" {
        tokio::task::yield_now().await;
    }
    groups.shutdown().await;
    assert_eq!(
        waits.await.unwrap().error_code,
        ResponseError::CoordinatorNotAvailable.code()
    );
    assert_eq!(
        committed(&groups, "g", 0, 1).await,
        ResponseError::CoordinatorNotAvailable.code()
    );
}

#[tokio::test]
async fn old_clients_leave_alone_and_new_ones_in_numbers() {
    let folder = tempfile::tempdir().unwrap();
    let groups = open(&store(folder.path())).await;
    let id = member(&groups, "g").await;
    let old = LeaveGroupRequest::default()
        .with_group_id(GroupId(text("g")))
        .with_member_id(id.clone());
    let left = groups.leave(old.clone(), 1).await;
    assert_eq!((left.error_code, left.members.len()), (0, 0));
    assert_eq!(
        groups.leave(old, 1).await.error_code,
        ResponseError::UnknownMemberId.code()
    );

    let new = LeaveGroupRequest::default()
        .with_group_id(GroupId(text("g")))
        .with_members(vec![MemberIdentity::default().with_member_id(id)]);
    let left = groups.leave(new, 3).await;
    assert_eq!(
        (left.error_code, left.members[0].error_code),
        (0, ResponseError::UnknownMemberId.code())
    );
}

#[tokio::test]
async fn offsets_of_several_groups_are_read_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let groups = open(&store(folder.path())).await;
    committed(&groups, "a", 0, 1).await;
    committed(&groups, "b", 0, 2).await;
    let asked = ["a", "b", "nobody"].map(|group| {
        OffsetFetchRequestGroup::default()
            .with_group_id(GroupId(text(group)))
            .with_topics(None)
    });
    let answer = groups
        .fetch_offsets(OffsetFetchRequest::default().with_groups(asked.to_vec()), 8)
        .await;
    let found: Vec<_> = answer
        .groups
        .iter()
        .map(|group| {
            group
                .topics
                .first()
                .map(|topic| topic.partitions[0].committed_offset)
        })
        .collect();
    assert_eq!(found, [Some(1), Some(2), None]);
}

#[tokio::test]
async fn a_coordinator_whose_disk_refuses_says_so_and_still_stops() {
    let folder = tempfile::tempdir().unwrap();
    let store = store(folder.path());
    let groups = open(&store).await;
    assert_eq!(committed(&groups, "g", 0, 7).await, 0);
    store.close().unwrap();
    let unavailable = ResponseError::CoordinatorNotAvailable.code();
    assert_eq!(committed(&groups, "g", 0, 8).await, unavailable);
    // It has forgotten what was not written, and does not serve from memory.
    assert_eq!(committed(&groups, "g", 0, 9).await, unavailable);
    groups.shutdown().await;
}
