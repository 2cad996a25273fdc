//! Leaving.

use super::super::*;
use super::world::*;

#[test]
fn a_member_that_leaves_makes_room_at_once() {
    let mut world = World::new();
    let members = world.stable(2);
    assert_eq!(world.leave(&[(&members[1], None)]), [Ok(())]);
    assert_eq!(
        world.heartbeat(&members[0], 1),
        Err(ResponseError::RebalanceInProgress)
    );
    let again = world.join(joining().id(&members[0]));
    assert_eq!(world.joined(again).generation_id, 2);
}

#[test]
fn a_leader_that_leaves_is_replaced() {
    let mut world = World::new();
    let members = world.stable(2);
    world.leave(&[(&members[0], None)]);
    let again = world.join(joining().id(&members[1]));
    assert_eq!(world.joined(again).leader, members[1]);
}

#[test]
fn the_last_member_leaves_an_empty_group_that_is_written() {
    let mut world = World::new();
    let members = world.stable(1);
    world.leave(&[(&members[0], None)]);
    assert_eq!(world.state(), "Empty");
    let Some(Change::Group {
        value: Some(written),
        ..
    }) = world.log.last()
    else {
        panic!("not written")
    };
    assert_eq!((written.generation, written.members.len()), (2, 0));
}

#[test]
fn each_of_several_leavers_is_answered() {
    let mut world = World::new();
    let members = world.stable(2);
    let stranger = text("stranger");
    let outcomes = world.leave(&[(&members[0], None), (&stranger, None), (&members[1], None)]);
    assert_eq!(
        outcomes,
        [Ok(()), Err(ResponseError::UnknownMemberId), Ok(())]
    );
    assert_eq!(world.state(), "Empty");
}

#[test]
fn leaving_an_unknown_group_is_answered_for_each() {
    let mut world = World::new();
    assert_eq!(
        world.leave(&[(&text("a"), None)]),
        [Err(ResponseError::UnknownMemberId)]
    );
}

#[test]
fn somebody_with_an_unused_id_can_leave() {
    let mut world = World::new();
    let members = world.stable(1);
    let id = world.id();
    let again = world.join(joining().id(&members[0]).offering(&[("range", "payments")]));
    assert!(!world.answered(again));
    assert_eq!(world.leave(&[(&id, None)]), [Ok(())]);
    assert!(world.answered(again), "nobody else was waited for");
}

#[test]
fn a_member_that_leaves_while_it_waits_is_answered() {
    let mut world = World::new();
    let members = world.stable(2);
    let waits = world.join(joining().id(&members[0]));
    world.leave(&[(&members[0], None)]);
    assert_eq!(
        world.joined(waits).error_code,
        ResponseError::UnknownMemberId.code()
    );
}

#[test]
fn an_empty_group_can_be_joined_again_and_goes_on_counting() {
    let mut world = World::new();
    let members = world.stable(1);
    world.leave(&[(&members[0], None)]);
    let id = world.id();
    let token = world.join(joining().id(&id));
    world.pass(1_000);
    assert_eq!(world.joined(token).generation_id, 3);
}
