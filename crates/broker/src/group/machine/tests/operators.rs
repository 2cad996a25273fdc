//! List, describe, delete.

use super::super::*;
use super::world::*;

#[test]
fn a_described_group_shows_its_members_and_assignments() {
    let mut world = World::new();
    let members = world.stable(2);
    let described = world.describe();
    assert_eq!(&*described.group_state, "Stable");
    assert_eq!(&*described.protocol_type, "consumer");
    assert_eq!(&*described.protocol_data, "range");
    let leader = described
        .members
        .iter()
        .find(|m| m.member_id == members[0])
        .unwrap();
    assert_eq!(&*leader.client_id, "client");
    assert_eq!(&*leader.client_host, "/127.0.0.1");
    assert_eq!(&leader.member_assignment[..], b"0");
    assert_eq!(leader.member_metadata, subscription("orders"));
}

#[test]
fn a_group_that_does_not_exist_is_dead() {
    let described = World::new().describe();
    assert_eq!(&*described.group_state, "Dead");
    assert_eq!(described.error_code, ResponseError::GroupIdNotFound.code());
}

#[test]
fn groups_are_listed_with_their_state() {
    let mut world = World::new();
    world.stable(1);
    let token = world.ask(Request::List);
    let listed = world.listed(token);
    assert_eq!(listed.len(), 1);
    assert_eq!(
        (
            &*listed[0].group_id.0,
            &*listed[0].group_state,
            &*listed[0].group_type
        ),
        ("g", "Stable", "classic")
    );
}

#[test]
fn a_group_with_members_cannot_be_deleted() {
    let mut world = World::new();
    world.stable(1);
    assert_eq!(world.delete(), Err(ResponseError::NonEmptyGroup));
}

#[test]
fn a_deleted_group_is_gone_with_its_offsets_also_after_a_restart() {
    let mut world = World::new();
    let members = world.stable(1);
    world.commit(&members[0], 1, 42).unwrap();
    world.leave(&[(&members[0], None)]);
    assert_eq!(world.delete(), Ok(()));
    assert_eq!(world.state(), "Dead");
    world.restart();
    assert_eq!(world.state(), "Dead");
    assert_eq!(world.position().committed_offset, -1);
    assert_eq!(world.delete(), Err(ResponseError::GroupIdNotFound));
}

#[test]
fn the_live_records_are_as_good_as_the_whole_log() {
    let mut world = World::new();
    let members = world.stable(2);
    for offset in 0..100 {
        world.commit(&members[0], 1, offset).unwrap();
    }
    let live: Vec<_> = world.machine.live().collect();
    assert_eq!(live.len(), 2, "one group, one offset");
    world.log = live.clone();
    world.restart();
    assert_eq!(world.machine.live().collect::<Vec<_>>(), live);
    assert_eq!(world.heartbeat(&members[1], 1), Ok(()));
}
