//! Joins, generations and rebalances.

use super::super::*;
use super::world::*;

#[test]
fn a_new_member_is_first_given_its_id() {
    let mut world = World::new();
    let id = world.id();
    assert!(id.starts_with("client-"), "{id}");
    assert_eq!(world.describe().members.len(), 0, "it is not a member yet");
}

#[test]
fn a_client_before_version_4_joins_at_once() {
    let mut world = World::new();
    let token = world.join(joining().version(3));
    world.pass(REBALANCE_MS);
    assert_eq!(world.joined(token).generation_id, 1);
}

#[test]
fn members_that_start_together_share_the_first_generation() {
    let mut world = World::new();
    let (a, b) = (world.id(), world.id());
    let first = world.join(joining().id(&a));
    world.pass(40);
    let second = world.join(joining().id(&b));
    world.pass(40);
    assert!(!world.answered(first), "the second member extends the wait");
    world.pass(100);
    assert_eq!(world.joined(first).generation_id, 1);
    assert_eq!(world.joined(second).generation_id, 1);
}

#[test]
fn the_first_wait_ends_however_many_keep_coming() {
    let mut world = World::with(|config| config.initial_rebalance_delay_ms = 20_000);
    let ids: Vec<_> = (0..3).map(|_| world.join(joining().version(3))).collect();
    for _ in 0..3 {
        world.pass(9_000);
        world.join(joining().version(3));
    }
    world.pass(4_000);
    assert!(
        world.answered(ids[0]),
        "a rebalance takes at most its timeout"
    );
}

#[test]
fn only_the_leader_is_told_who_the_members_are() {
    let mut world = World::new();
    let (a, b) = (world.id(), world.id());
    let tokens = [world.join(joining().id(&a)), world.join(joining().id(&b))];
    world.pass(1_000);
    let [first, second] = tokens.map(|token| world.joined(token));
    assert_eq!(first.leader, a);
    assert_eq!(second.leader, a);
    assert_eq!(first.members.len(), 2);
    assert_eq!(second.members.len(), 0);
    assert_eq!(first.members[0].metadata, subscription("orders"));
}

#[test]
fn followers_wait_for_the_leaders_assignment() {
    let mut world = World::new();
    let (a, b) = (world.id(), world.id());
    let tokens = [world.join(joining().id(&a)), world.join(joining().id(&b))];
    world.pass(1_000);
    let generation = tokens.map(|token| world.joined(token).generation_id)[0];
    let follower = world.sync(&b, generation, &[]);
    assert!(!world.answered(follower));
    let leader = world.sync(&a, generation, &[(&a, "one"), (&b, "two")]);
    assert_eq!(&world.synced(leader).assignment[..], b"one");
    assert_eq!(&world.synced(follower).assignment[..], b"two");
    assert_eq!(world.state(), "Stable");
}

#[test]
fn a_member_that_the_leader_forgot_gets_nothing() {
    let mut world = World::new();
    let (a, b) = (world.id(), world.id());
    let tokens = [world.join(joining().id(&a)), world.join(joining().id(&b))];
    world.pass(1_000);
    for token in tokens {
        world.joined(token);
    }
    world.sync(&a, 1, &[(&a, "one")]);
    let follower = world.sync(&b, 1, &[]);
    assert!(world.synced(follower).assignment.is_empty());
}

#[test]
fn a_rebalance_is_complete_as_soon_as_all_have_rejoined() {
    let mut world = World::new();
    let members = world.stable(2);
    let third = world.id();
    let newcomer = world.join(joining().id(&third));
    assert_eq!(
        world.heartbeat(&members[0], 1),
        Err(ResponseError::RebalanceInProgress)
    );
    let again: Vec<_> = members
        .iter()
        .map(|id| world.join(joining().id(id)))
        .collect();
    assert_eq!(world.joined(newcomer).generation_id, 2);
    assert_eq!(world.joined(again[0]).members.len(), 3);
}

#[test]
fn a_member_that_does_not_rejoin_in_time_is_evicted() {
    let mut world = World::new();
    let members = world.stable(2);
    let third = world.id();
    let newcomer = world.join(joining().id(&third));
    let stays = world.join(joining().id(&members[0]));
    for _ in 0..5 {
        world.pass(5_000);
        let _ = world.heartbeat(&members[1], 1);
    }
    assert!(
        !world.answered(newcomer),
        "it is alive and has until the rebalance timeout"
    );
    world.pass(5_000);
    assert_eq!(world.joined(stays).generation_id, 2);
    assert_eq!(
        world.heartbeat(&members[1], 1),
        Err(ResponseError::UnknownMemberId)
    );
    assert_eq!(world.describe().members.len(), 2);
}

#[test]
fn a_silent_member_is_evicted_and_the_others_rebalance() {
    let mut world = World::new();
    let members = world.stable(2);
    world.pass(SESSION_MS - 1);
    assert_eq!(world.heartbeat(&members[0], 1), Ok(()));
    world.pass(1);
    assert_eq!(
        world.heartbeat(&members[0], 1),
        Err(ResponseError::RebalanceInProgress)
    );
    let again = world.join(joining().id(&members[0]));
    assert_eq!(world.joined(again).members.len(), 1);
}

#[test]
fn a_member_that_waits_for_an_answer_is_alive() {
    let mut world = World::new();
    let members = world.stable(2);
    let third = world.id();
    let newcomer = world.join(joining().id(&third));
    let waits = world.join(joining().id(&members[0]));
    // Both wait for the second member, longer than a session.
    for _ in 0..4 {
        world.pass(SESSION_MS / 2);
        let _ = world.heartbeat(&members[1], 1);
    }
    world.join(joining().id(&members[1]));
    assert_eq!(world.joined(waits).generation_id, 2);
    let waits = world.sync(&members[1], 2, &[]);
    for _ in 0..4 {
        world.pass(SESSION_MS / 2);
        assert_eq!(world.heartbeat(&members[0], 2), Ok(()));
        assert_eq!(world.heartbeat(&third, 2), Ok(()));
    }
    let leader = world.joined(newcomer).leader;
    world.sync(&leader, 2, &[(&members[1], "x")]);
    assert_eq!(&world.synced(waits).assignment[..], b"x");
    world.pass(SESSION_MS - 1);
    assert_eq!(
        world.heartbeat(&members[1], 2),
        Ok(()),
        "its session began when it was answered"
    );
}

#[test]
fn a_first_join_that_nobody_waits_for_any_more_is_given_up() {
    let mut world = World::with(|config| config.new_member_timeout_ms = 20_000);
    let members = world.stable(1);
    let lost = world.join(joining().version(3));
    for _ in 0..5 {
        world.pass(5_000);
        let _ = world.heartbeat(&members[0], 1);
    }
    assert_eq!(
        world.joined(lost).error_code,
        ResponseError::UnknownMemberId.code()
    );
    assert_eq!(world.describe().members.len(), 1);
}

#[test]
fn an_id_that_is_never_used_holds_a_rebalance_up_for_one_session_at_most() {
    let mut world = World::new();
    let members = world.stable(1);
    world.id();
    let again = world.join(joining().id(&members[0]).offering(&[("range", "payments")]));
    assert!(!world.answered(again), "somebody is about to join");
    world.pass(SESSION_MS);
    assert_eq!(world.joined(again).generation_id, 2);
}

#[test]
fn a_member_that_never_syncs_is_evicted() {
    let mut world = World::new();
    let (a, b) = (world.id(), world.id());
    let tokens = [world.join(joining().id(&a)), world.join(joining().id(&b))];
    world.pass(1_000);
    for token in tokens {
        world.joined(token);
    }
    world.sync(&a, 1, &[(&a, "one"), (&b, "two")]);
    for _ in 0..6 {
        world.pass(5_000);
        let _ = (world.heartbeat(&a, 1), world.heartbeat(&b, 1));
    }
    assert_eq!(world.heartbeat(&b, 1), Err(ResponseError::UnknownMemberId));
    assert_eq!(
        world.heartbeat(&a, 1),
        Err(ResponseError::RebalanceInProgress)
    );
}

#[test]
fn a_leader_that_dies_before_it_assigns_costs_one_session() {
    let mut world = World::new();
    let (a, b) = (world.id(), world.id());
    let tokens = [world.join(joining().id(&a)), world.join(joining().id(&b))];
    world.pass(1_000);
    let leader = tokens.map(|token| world.joined(token).leader)[0].clone();
    let other = if leader == a { b } else { a };
    let waits = world.sync(&other, 1, &[]);
    world.pass(SESSION_MS);
    assert_eq!(
        world.synced(waits).error_code,
        ResponseError::RebalanceInProgress.code()
    );
    let again = world.join(joining().id(&other));
    assert_eq!(world.joined(again).leader, other);
}

#[test]
fn a_repeated_join_is_answered_with_the_generation_there_is() {
    let mut world = World::new();
    let members = world.stable(2);
    let again = world.join(joining().id(&members[1]));
    assert_eq!(world.joined(again).generation_id, 1);
    assert_eq!(world.state(), "Stable");
    let sync = world.sync(&members[1], 1, &[]);
    assert_eq!(&world.synced(sync).assignment[..], b"1");
}

#[test]
fn a_member_with_other_topics_causes_a_rebalance() {
    let mut world = World::new();
    let members = world.stable(2);
    world.join(joining().id(&members[1]).offering(&[("range", "payments")]));
    assert_eq!(world.state(), "PreparingRebalance");
}

#[test]
fn a_leader_that_joins_again_causes_a_rebalance() {
    let mut world = World::new();
    let members = world.stable(2);
    world.join(joining().id(&members[0]));
    assert_eq!(world.state(), "PreparingRebalance");
}

#[test]
fn the_protocol_is_one_that_all_offer_and_most_prefer() {
    let mut world = World::new();
    let ids = [world.id(), world.id(), world.id()];
    let offers: [&[(&str, &str)]; 3] = [
        &[("only-mine", "t"), ("range", "t"), ("sticky", "t")],
        &[("sticky", "t"), ("range", "t")],
        &[("sticky", "t"), ("range", "t")],
    ];
    let tokens: Vec<_> = ids
        .iter()
        .zip(offers)
        .map(|(id, offer)| world.join(joining().id(id).offering(offer)))
        .collect();
    world.pass(1_000);
    assert_eq!(
        world.joined(tokens[0]).protocol_name.as_deref(),
        Some("sticky")
    );
}

#[test]
fn a_member_without_a_common_protocol_is_refused() {
    let mut world = World::new();
    world.stable(1);
    let token = world.join(joining().version(3).offering(&[("other", "t")]));
    assert_eq!(
        world.joined(token).error_code,
        ResponseError::InconsistentGroupProtocol.code()
    );
    assert_eq!(world.state(), "Stable");
    let mut connect = joining().version(3);
    connect.request.protocol_type = text("connect");
    let token = world.join(connect);
    assert_eq!(
        world.joined(token).error_code,
        ResponseError::InconsistentGroupProtocol.code()
    );
}

#[test]
fn a_join_that_is_refused_leaves_no_group_behind() {
    let mut world = World::new();
    let token = world.join(joining().offering(&[]));
    assert_eq!(
        world.joined(token).error_code,
        ResponseError::InconsistentGroupProtocol.code()
    );
    assert_eq!(world.state(), "Dead");
    assert!(world.machine.groups.is_empty());
}

#[test]
fn a_group_has_a_largest_size() {
    let mut world = World::with(|config| config.members_max = 2);
    let members = world.stable(2);
    let token = world.join(joining().version(3));
    assert_eq!(
        world.joined(token).error_code,
        ResponseError::GroupMaxSizeReached.code()
    );
    assert_eq!(world.heartbeat(&members[0], 1), Ok(()));
}

#[test]
fn a_groups_metadata_has_a_largest_size() {
    let mut world = World::with(|config| config.group_bytes_max = 100);
    let topic = "t".repeat(60);
    world.join(joining().version(3).offering(&[("range", &topic)]));
    let second = world.join(joining().version(3).offering(&[("range", &topic)]));
    assert_eq!(
        world.joined(second).error_code,
        ResponseError::GroupMaxSizeReached.code()
    );
}

#[test]
fn a_session_timeout_out_of_bounds_is_refused() {
    let mut world = World::new();
    for timeout in [0, -1, 999, i32::MAX] {
        let mut join = joining();
        join.request.session_timeout_ms = timeout;
        let token = world.join(join);
        assert_eq!(
            world.joined(token).error_code,
            ResponseError::InvalidSessionTimeout.code()
        );
    }
}

#[test]
fn an_empty_group_id_is_refused() {
    let mut world = World::new();
    let mut join = joining();
    join.request.group_id = Default::default();
    let token = world.join(join);
    assert_eq!(
        world.joined(token).error_code,
        ResponseError::InvalidGroupId.code()
    );
}

#[test]
fn a_stranger_is_told_so() {
    let mut world = World::new();
    let stranger = text("client-0");
    let token = world.join(joining().id(&stranger));
    assert_eq!(
        world.joined(token).error_code,
        ResponseError::UnknownMemberId.code()
    );
    world.stable(1);
    assert_eq!(
        world.heartbeat(&stranger, 1),
        Err(ResponseError::UnknownMemberId)
    );
    let token = world.sync(&stranger, 1, &[]);
    assert_eq!(
        world.synced(token).error_code,
        ResponseError::UnknownMemberId.code()
    );
}

#[test]
fn a_member_of_an_older_generation_is_told_so() {
    let mut world = World::new();
    let members = world.stable(1);
    assert_eq!(
        world.heartbeat(&members[0], 0),
        Err(ResponseError::IllegalGeneration)
    );
    let token = world.sync(&members[0], 2, &[]);
    assert_eq!(
        world.synced(token).error_code,
        ResponseError::IllegalGeneration.code()
    );
}

#[test]
fn a_sync_with_another_protocol_is_refused() {
    let mut world = World::new();
    let members = world.stable(1);
    let request = SyncGroupRequest::default()
        .with_group_id(group())
        .with_generation_id(1)
        .with_member_id(members[0].clone())
        .with_protocol_name(Some(text("sticky")));
    let token = world.ask(Request::Sync(request));
    assert_eq!(
        world.synced(token).error_code,
        ResponseError::InconsistentGroupProtocol.code()
    );
}

#[test]
fn a_join_that_is_repeated_while_it_waits_replaces_the_first() {
    let mut world = World::new();
    let id = world.id();
    let first = world.join(joining().id(&id));
    let second = world.join(joining().id(&id));
    assert_eq!(
        world.joined(first).error_code,
        ResponseError::RebalanceInProgress.code()
    );
    world.pass(1_000);
    assert_eq!(world.joined(second).generation_id, 1);
}

#[test]
fn only_generations_with_assignments_are_written() {
    let mut world = World::new();
    let id = world.id();
    let token = world.join(joining().id(&id));
    world.pass(1_000);
    assert_eq!(world.log.len(), 0);
    world.settle(std::slice::from_ref(&id), &[token]);
    assert_eq!(world.log.len(), 1);
    for _ in 0..10 {
        world.pass(1_000);
        assert_eq!(world.heartbeat(&id, 1), Ok(()));
    }
    assert_eq!(world.log.len(), 1);
}

#[test]
fn a_restart_is_not_a_rebalance() {
    let mut world = World::new();
    let members = world.stable(3);
    world.restart();
    world.pass(SESSION_MS - 1);
    for (number, id) in members.iter().enumerate() {
        assert_eq!(world.heartbeat(id, 1), Ok(()));
        let sync = world.sync(id, 1, &[]);
        assert_eq!(world.synced(sync).assignment, number.to_string().as_bytes());
    }
    let third = world.id();
    let newcomer = world.join(joining().id(&third));
    for id in &members {
        world.join(joining().id(id));
    }
    assert_eq!(world.joined(newcomer).generation_id, 2);
}

#[test]
fn a_member_that_died_with_the_coordinator_is_evicted_after_its_session() {
    let mut world = World::new();
    let members = world.stable(2);
    world.restart();
    world.pass(SESSION_MS - 1);
    assert_eq!(world.heartbeat(&members[0], 1), Ok(()));
    world.pass(2);
    assert_eq!(
        world.heartbeat(&members[0], 1),
        Err(ResponseError::RebalanceInProgress)
    );
}
