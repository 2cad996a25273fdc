//! Members with a `group.instance.id` (KIP-345).

use super::super::*;
use super::world::*;

/// A stable group of two static members, "one" and "two"; the leader is "one".
fn stable(world: &mut World) -> [StrBytes; 2] {
    let tokens = [
        world.join(joining().instance("one")),
        world.join(joining().instance("two")),
    ];
    world.pass(1_000);
    let ids = tokens.map(|token| world.joined(token).member_id);
    let syncs = [
        world.sync(&ids[0], 1, &[(&ids[0], "a"), (&ids[1], "b")]),
        world.sync(&ids[1], 1, &[]),
    ];
    for sync in syncs {
        assert_eq!(world.synced(sync).error_code, 0);
    }
    ids
}

#[test]
fn a_static_member_needs_no_id_first() {
    let mut world = World::new();
    let [one, _] = stable(&mut world);
    assert!(one.starts_with("one-"), "{one}");
}

#[test]
fn a_static_member_restarts_without_a_rebalance() {
    let mut world = World::new();
    let [one, two] = stable(&mut world);
    let back = world.join(joining().instance("two"));
    let back = world.joined(back);
    assert_eq!((back.error_code, back.generation_id), (0, 1));
    assert_ne!(back.member_id, two);
    assert_eq!(world.state(), "Stable");
    let sync = world.sync(&back.member_id, 1, &[]);
    assert_eq!(
        &world.synced(sync).assignment[..],
        b"b",
        "it has what it had"
    );
    assert_eq!(world.heartbeat(&one, 1), Ok(()));
}

#[test]
fn the_process_that_was_replaced_is_fenced() {
    let mut world = World::new();
    let [_, two] = stable(&mut world);
    world.join(joining().instance("two"));
    assert_eq!(
        world.heartbeat_as(&two, Some("two"), 1),
        Err(ResponseError::FencedInstanceId)
    );
    let token = world.join(joining().instance("two").id(&two));
    assert_eq!(
        world.joined(token).error_code,
        ResponseError::FencedInstanceId.code()
    );
    assert_eq!(
        world.leave(&[(&two, Some("two"))]),
        [Err(ResponseError::FencedInstanceId)]
    );
}

#[test]
fn a_leader_that_returns_is_told_to_skip_the_assignment() {
    let mut world = World::new();
    stable(&mut world);
    let back = world.join(joining().instance("one"));
    let back = world.joined(back);
    assert!(back.skip_assignment);
    assert_eq!(back.leader, back.member_id);
    assert_eq!(back.members.len(), 2);
}

#[test]
fn an_older_client_that_returns_is_not_told_that_it_leads() {
    let mut world = World::new();
    let [one, _] = stable(&mut world);
    let back = world.join(joining().instance("one").version(5));
    let back = world.joined(back);
    assert_eq!(back.leader, one);
    assert_eq!(back.members.len(), 0);
}

#[test]
fn a_static_member_that_returns_with_another_preference_causes_a_rebalance() {
    let mut world = World::new();
    let offers = [("range", "t"), ("sticky", "t")];
    let token = world.join(joining().instance("one").offering(&offers));
    world.pass(1_000);
    let id = world.joined(token).member_id;
    world.sync(&id, 1, &[]);
    let back = world.join(
        joining()
            .instance("one")
            .offering(&[("sticky", "t"), ("range", "t")]),
    );
    assert_eq!(world.joined(back).generation_id, 2);
}

#[test]
fn a_static_member_that_returns_during_a_rebalance_joins_it() {
    let mut world = World::new();
    let [one, two] = stable(&mut world);
    let waits = world.join(joining().instance("one").id(&one));
    let back = world.join(joining().instance("two"));
    assert_eq!(world.joined(waits).members.len(), 2);
    assert_ne!(world.joined(back).member_id, two);
}

#[test]
fn two_processes_with_one_instance_id_fence_each_other() {
    let mut world = World::new();
    let first = world.join(joining().instance("one"));
    let second = world.join(joining().instance("one"));
    assert_eq!(
        world.joined(first).error_code,
        ResponseError::FencedInstanceId.code()
    );
    world.pass(1_000);
    let second = world.joined(second);
    assert_eq!((second.error_code, second.members.len()), (0, 1));
}

#[test]
fn a_member_in_its_first_join_may_be_replaced_and_waits_as_long_as_any() {
    let mut world = World::new();
    let members = world.stable(1);
    world.join(joining().instance("one"));
    let second = world.join(joining().instance("one"));
    for _ in 0..3 {
        world.pass(SESSION_MS - 1_000);
        let _ = world.heartbeat(&members[0], 1);
    }
    assert!(
        !world.answered(second),
        "it waits for the other member, longer than a session"
    );
    world.join(joining().id(&members[0]));
    assert_eq!(world.joined(second).error_code, 0);
}

#[test]
fn a_static_member_that_stays_away_is_evicted_after_its_session() {
    let mut world = World::new();
    let [one, _] = stable(&mut world);
    world.pass(SESSION_MS - 1);
    assert_eq!(world.heartbeat(&one, 1), Ok(()));
    world.pass(1);
    assert_eq!(
        world.heartbeat(&one, 1),
        Err(ResponseError::RebalanceInProgress)
    );
    assert_eq!(world.describe().members.len(), 1);
}

#[test]
fn an_operator_removes_a_static_member_by_its_instance_id() {
    let mut world = World::new();
    let [one, _] = stable(&mut world);
    let nobody = StrBytes::new();
    let outcomes = world.leave(&[(&nobody, Some("two")), (&nobody, Some("three"))]);
    assert_eq!(outcomes, [Ok(()), Err(ResponseError::UnknownMemberId)]);
    assert_eq!(
        world.heartbeat(&one, 1),
        Err(ResponseError::RebalanceInProgress)
    );
}

#[test]
fn a_static_member_that_returned_is_still_known_after_a_restart() {
    let mut world = World::new();
    let [_, two] = stable(&mut world);
    let back = world.join(joining().instance("two"));
    let back = world.joined(back).member_id;
    world.restart();
    assert_eq!(world.heartbeat_as(&back, Some("two"), 1), Ok(()));
    assert_eq!(
        world.heartbeat_as(&two, Some("two"), 1),
        Err(ResponseError::FencedInstanceId)
    );
}
