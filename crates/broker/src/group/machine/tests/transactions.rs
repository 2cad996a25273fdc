//! Offsets that are committed in a transaction.

use super::super::*;
use super::world::*;

const ONE: ProducerEpoch = ProducerEpoch { id: 1, epoch: 0 };
const OTHER: ProducerEpoch = ProducerEpoch { id: 2, epoch: 0 };
const NOBODY: StrBytes = StrBytes::new();

/// A world in which both producers' transactions reach the group.
fn world() -> World {
    let mut world = World::new();
    world.admit(ONE);
    world.admit(OTHER);
    world
}

#[test]
fn an_offset_counts_when_its_transaction_is_committed() {
    let mut world = world();
    assert_eq!(world.pend(ONE, 5), Ok(()));
    assert_eq!(world.position().committed_offset, -1);
    world.end_transaction(ONE, Verdict::Commit);
    let position = world.position();
    assert_eq!(position.committed_offset, 5);
    assert_eq!(position.committed_leader_epoch, 3);
}

#[test]
fn an_aborted_transaction_leaves_the_position_as_it_was() {
    let mut world = world();
    world.commit(&NOBODY, -1, 3).unwrap();
    world.pend(ONE, 5).unwrap();
    world.end_transaction(ONE, Verdict::Abort);
    assert_eq!(world.position().committed_offset, 3);
}

#[test]
fn who_wants_a_stable_position_is_told_to_ask_again_while_one_is_pending() {
    let mut world = world();
    world.pend(ONE, 5).unwrap();
    let unstable = Err(ResponseError::UnstableOffsetCommit);
    assert_eq!(world.stable_position(), unstable);
    world.restart();
    assert_eq!(world.stable_position(), unstable);
    world.end_transaction(ONE, Verdict::Abort);
    assert_eq!(world.stable_position(), Ok(-1));
}

#[test]
fn of_two_offsets_in_a_transaction_the_later_counts() {
    let mut world = world();
    world.pend(ONE, 9).unwrap();
    world.pend(ONE, 5).unwrap();
    world.end_transaction(ONE, Verdict::Commit);
    assert_eq!(world.position().committed_offset, 5);
}

#[test]
fn a_producer_that_was_not_admitted_or_is_of_another_epoch_is_refused() {
    let mut world = World::new();
    assert_eq!(world.pend(ONE, 5), Err(ResponseError::InvalidTxnState));
    world.admit(ProducerEpoch { id: 1, epoch: 1 });
    assert_eq!(world.pend(ONE, 5), Err(ResponseError::InvalidProducerEpoch));
    world.end_transaction(ProducerEpoch { id: 1, epoch: 1 }, Verdict::Commit);
    assert_eq!(world.position().committed_offset, -1);
}

#[test]
fn after_its_end_a_transaction_takes_no_more_offsets() {
    let mut world = world();
    world.pend(ONE, 5).unwrap();
    world.end_transaction(ONE, Verdict::Commit);
    assert_eq!(world.pend(ONE, 6), Err(ResponseError::InvalidTxnState));
}

#[test]
fn a_member_of_an_older_generation_commits_nothing_in_a_transaction() {
    let mut world = world();
    let members = world.stable(1);
    let late = world.pend_as(ONE, &members[0], 0, 5);
    assert_eq!(late, Err(ResponseError::IllegalGeneration));
    let stranger = world.pend_as(ONE, &text("stranger"), 1, 5);
    assert_eq!(stranger, Err(ResponseError::UnknownMemberId));
    assert_eq!(world.pend_as(ONE, &members[0], 1, 5), Ok(()));
}

#[test]
fn a_position_that_was_committed_meanwhile_is_newer_and_stays() {
    let mut world = world();
    world.pend(ONE, 5).unwrap();
    world.commit(&NOBODY, -1, 3).unwrap();
    world.end_transaction(ONE, Verdict::Commit);
    assert_eq!(world.position().committed_offset, 3);
}

#[test]
fn a_commit_that_is_refused_is_not_newer() {
    let mut world = world();
    world.commit(&NOBODY, -1, 3).unwrap();
    world.pend(ONE, 5).unwrap();
    let refused = world.commit_with(&NOBODY, -1, 4, &"m".repeat(4_097));
    assert_eq!(refused, Err(ResponseError::OffsetMetadataTooLarge));
    world.end_transaction(ONE, Verdict::Commit);
    assert_eq!(world.position().committed_offset, 5);
}

#[test]
fn of_two_transactions_the_offset_that_was_written_later_stays_whichever_ends_last() {
    for last in [ONE, OTHER] {
        let mut world = world();
        world.pend(ONE, 5).unwrap();
        world.pend(OTHER, 7).unwrap();
        let first = if last == ONE { OTHER } else { ONE };
        world.end_transaction(first, Verdict::Commit);
        world.end_transaction(last, Verdict::Commit);
        assert_eq!(world.position().committed_offset, 7, "{last:?} was last");
    }
}

#[test]
fn a_deleted_offset_is_not_brought_back_by_a_transaction() {
    let mut world = world();
    world.commit(&NOBODY, -1, 3).unwrap();
    world.pend(ONE, 5).unwrap();
    assert_eq!(world.delete_offset(), Ok(()));
    assert_eq!(world.stable_position(), Ok(-1));
    world.end_transaction(ONE, Verdict::Commit);
    assert_eq!(world.position().committed_offset, -1);
}

#[test]
fn a_deleted_group_is_not_brought_back_by_a_transaction() {
    let mut world = world();
    world.commit(&NOBODY, -1, 3).unwrap();
    world.pend(ONE, 5).unwrap();
    assert_eq!(world.delete(), Ok(()));
    world.end_transaction(ONE, Verdict::Commit);
    assert_eq!(world.position().committed_offset, -1);
}

#[test]
fn a_group_of_which_only_a_pending_offset_is_known_can_be_committed_to() {
    let mut world = world();
    world.pend(ONE, 5).unwrap();
    world.restart();
    world.end_transaction(ONE, Verdict::Commit);
    assert_eq!(world.position().committed_offset, 5);
    assert_eq!(world.state(), "Empty");
}

#[test]
fn what_is_pending_survives_a_restart_and_a_shorter_log_with_what_is_older_and_newer() {
    for shorten in [World::restart, World::shorten] {
        let mut world = world();
        world.pend(ONE, 5).unwrap();
        world.commit(&NOBODY, -1, 3).unwrap();
        world.pend(OTHER, 7).unwrap();
        shorten(&mut world);
        world.end_transaction(ONE, Verdict::Commit);
        assert_eq!(world.position().committed_offset, 3);
        world.end_transaction(OTHER, Verdict::Commit);
        assert_eq!(world.position().committed_offset, 7);
        shorten(&mut world);
        assert_eq!(world.position().committed_offset, 7);
    }
}

#[test]
fn an_end_without_a_transaction_changes_nothing() {
    let mut world = World::new();
    world.end_transaction(ONE, Verdict::Commit);
    world.restart();
    assert_eq!(world.position().committed_offset, -1);
}
