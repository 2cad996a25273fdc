//! Committed offsets.

use super::super::*;
use super::world::*;

const NOBODY: StrBytes = StrBytes::new();

#[test]
fn a_commit_comes_back_byte_for_byte() {
    let mut world = World::new();
    let members = world.stable(1);
    assert_eq!(world.commit_with(&members[0], 1, 42, "ü\u{0}~"), Ok(()));
    let position = world.position();
    assert_eq!(position.committed_offset, 42);
    assert_eq!(position.committed_leader_epoch, 3);
    assert_eq!(position.metadata.as_deref(), Some("ü\u{0}~"));
}

#[test]
fn an_offset_that_was_never_committed_is_minus_one() {
    let mut world = World::new();
    let position = world.position();
    assert_eq!((position.committed_offset, position.error_code), (-1, 0));
    assert_eq!(position.metadata.as_deref(), Some(""));
}

#[test]
fn all_offsets_of_a_group_can_be_read() {
    let mut world = World::new();
    assert!(world.fetch(None).topics.is_empty());
    world.commit(&NOBODY, -1, 7).unwrap();
    let topics = world.fetch(None).topics;
    assert_eq!(
        (topics.len(), topics[0].partitions[0].committed_offset),
        (1, 7)
    );
}

#[test]
fn metadata_beyond_the_limit_is_refused() {
    let mut world = World::new();
    let most = "m".repeat(4_096);
    assert_eq!(world.commit_with(&NOBODY, -1, 1, &most), Ok(()));
    assert_eq!(
        world.commit_with(&NOBODY, -1, 2, &(most + "m")),
        Err(ResponseError::OffsetMetadataTooLarge)
    );
    assert_eq!(world.position().committed_offset, 1);
}

#[test]
fn a_consumer_without_a_group_commits_to_an_empty_one() {
    let mut world = World::new();
    assert_eq!(world.commit(&NOBODY, -1, 5), Ok(()));
    assert_eq!(world.state(), "Empty");
}

#[test]
fn a_stranger_cannot_commit_to_a_group_with_members() {
    let mut world = World::new();
    world.stable(1);
    assert_eq!(
        world.commit(&NOBODY, -1, 5),
        Err(ResponseError::UnknownMemberId)
    );
    assert_eq!(
        world.commit(&text("stranger"), 1, 5),
        Err(ResponseError::UnknownMemberId)
    );
}

#[test]
fn a_member_of_an_older_generation_cannot_commit() {
    let mut world = World::new();
    let members = world.stable(1);
    assert_eq!(
        world.commit(&members[0], 0, 5),
        Err(ResponseError::IllegalGeneration)
    );
    let mut world = World::new();
    assert_eq!(
        world.commit(&members[0], 1, 5),
        Err(ResponseError::IllegalGeneration),
        "the group is unknown"
    );
    assert!(world.machine.groups.is_empty());
}

#[test]
fn a_member_commits_while_the_others_rejoin_but_not_between_join_and_sync() {
    let mut world = World::new();
    let members = world.stable(2);
    world.join(joining().id(&members[0]));
    assert_eq!(
        world.commit(&members[1], 1, 5),
        Ok(()),
        "what it finished before it rejoins"
    );
    world.join(joining().id(&members[1]));
    assert_eq!(
        world.commit(&members[1], 2, 6),
        Err(ResponseError::RebalanceInProgress)
    );
}

#[test]
fn a_commit_keeps_its_member_alive() {
    let mut world = World::new();
    let members = world.stable(1);
    for offset in 0..5 {
        world.pass(SESSION_MS - 1);
        assert_eq!(world.commit(&members[0], 1, offset), Ok(()));
    }
}

#[test]
fn offsets_survive_a_restart() {
    let mut world = World::new();
    let members = world.stable(1);
    world.commit_with(&members[0], 1, 41, "a").unwrap();
    world.commit_with(&members[0], 1, 42, "b").unwrap();
    world.restart();
    let position = world.position();
    assert_eq!(
        (position.committed_offset, position.metadata.as_deref()),
        (42, Some("b"))
    );
}

#[test]
fn offsets_of_a_topic_that_a_member_reads_cannot_be_deleted() {
    let mut world = World::new();
    let members = world.stable(1);
    world.commit(&members[0], 1, 42).unwrap();
    assert_eq!(
        world.delete_offset(),
        Err(ResponseError::GroupSubscribedToTopic)
    );
    let other = world.join(joining().id(&members[0]).offering(&[("range", "payments")]));
    world.settle(&members, &[other]);
    assert_eq!(world.delete_offset(), Ok(()));
    assert_eq!(world.position().committed_offset, -1);
}

#[test]
fn offsets_of_an_unknown_group_cannot_be_deleted() {
    assert_eq!(
        World::new().delete_offset(),
        Err(ResponseError::GroupIdNotFound)
    );
}

#[test]
fn offsets_of_a_deleted_topic_are_forgotten_also_after_a_restart() {
    let mut world = World::new();
    world.commit(&NOBODY, -1, 42).unwrap();
    world.ask(Request::ForgetTopics(vec![text("orders")]));
    assert_eq!(world.position().committed_offset, -1);
    world.restart();
    assert_eq!(world.position().committed_offset, -1);
}

#[test]
fn offsets_of_an_empty_group_expire_counted_from_when_it_became_empty() {
    const DAY_MS: u64 = 24 * 60 * 60 * 1_000;
    let mut world = World::new();
    let members = world.stable(1);
    world.commit(&members[0], 1, 42).unwrap();
    world.pass(1_000);
    world.leave(&[(&members[0], None)]);
    world.pass(6 * DAY_MS);
    assert_eq!(world.position().committed_offset, 42);
    world.pass(DAY_MS + 600_000);
    assert_eq!(world.position().committed_offset, -1);
    assert_eq!(world.state(), "Dead");
    world.restart();
    assert_eq!(world.state(), "Dead", "its deletion was written");
}

#[test]
fn offsets_of_a_group_at_work_do_not_expire() {
    let mut world = World::with(|config| config.offsets_retention_ms = 20_000);
    let members = world.stable(1);
    world.commit(&members[0], 1, 42).unwrap();
    for _ in 0..200 {
        world.pass(SESSION_MS - 1);
        assert_eq!(world.heartbeat(&members[0], 1), Ok(()));
    }
    assert_eq!(world.position().committed_offset, 42);
}

#[test]
fn a_commit_may_ask_for_its_own_retention() {
    let mut world = World::new();
    let topics = {
        use kafka_protocol::messages::TopicName;
        use kafka_protocol::messages::offset_commit_request::*;
        let partition = OffsetCommitRequestPartition::default().with_committed_offset(9);
        vec![
            OffsetCommitRequestTopic::default()
                .with_name(TopicName(text("orders")))
                .with_partitions(vec![partition]),
        ]
    };
    let request = OffsetCommitRequest::default()
        .with_group_id(group())
        .with_generation_id_or_member_epoch(-1)
        .with_retention_time_ms(60_000)
        .with_topics(topics);
    world.ask(Request::CommitOffsets {
        request,
        version: 8,
    });
    assert_eq!(world.position().committed_offset, 9);
    world.restart();
    world.pass(600_000);
    assert_eq!(world.position().committed_offset, -1);
}
