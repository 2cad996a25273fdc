//! Transactions that have an epoch each (KIP-890): what lost answers, empty transactions, timeouts and
//! the last epoch come to.

use super::tests::{TIMEOUT_MS, World, partitions, text};
use super::*;
use crate::coordinator::Verdict::{Abort, Commit};

const FRESH: i64 = 77;

impl World {
    fn end_own(&mut self, producer: ProducerEpoch, verdict: Verdict) -> Token {
        self.end_with(producer, verdict, None)
    }

    fn end_with(
        &mut self,
        producer: ProducerEpoch,
        verdict: Verdict,
        fresh_id: Option<i64>,
    ) -> Token {
        self.ask(Request::End {
            transactional_id: text("t"),
            producer,
            verdict,
            epochs: Epochs::Own { fresh_id },
        })
    }

    fn answer(&mut self, token: Token) -> Result<ProducerEpoch, ResponseError> {
        match self.reply(token) {
            Some(Response::Ended(ended)) => ended,
            other => panic!("{other:?}"),
        }
    }

    fn ended(&mut self, producer: ProducerEpoch, verdict: Verdict) -> ProducerEpoch {
        let token = self.end_own(producer, verdict);
        let next = self.answer(token).unwrap();
        self.act();
        next
    }

    /// A transaction that is open with the last epoch that a producer may have.
    fn open_with_last_epoch(&mut self) -> ProducerEpoch {
        self.init();
        self.set_epoch(i16::MAX - 1);
        let producer = self.machine.ids[&text("t")].transaction.producer;
        self.add(producer, &[0]);
        self.act();
        producer
    }

    fn set_epoch(&mut self, epoch: i16) {
        let entry = self.machine.ids.get_mut(&text("t")).unwrap();
        entry.transaction.producer.epoch = epoch;
    }
}

fn after(producer: ProducerEpoch) -> ProducerEpoch {
    ProducerEpoch {
        epoch: producer.epoch + 1,
        ..producer
    }
}

#[test]
fn each_end_gives_the_producer_its_next_epoch_and_the_markers_have_it() {
    let mut world = World::new();
    let first = world.open(&[0]);
    let token = world.end_own(first, Commit);
    let second = world.answer(token).unwrap();
    assert_eq!(second, after(first));
    let expected = Action::End {
        transactional_id: text("t"),
        producer: second,
        verdict: Commit,
        partitions: partitions(&[0]),
    };
    assert_eq!(world.actions, [expected]);
    world.act();
    assert_eq!(world.state(), State::Complete(Commit));
    let late = world.add(first, &[1]);
    assert_eq!(world.refused(late), ResponseError::ProducerFenced);
    let next = world.add(second, &[1]);
    world.act();
    assert_eq!(world.reply(next), Some(Response::Admitted));
}

#[test]
fn an_end_whose_answer_got_lost_is_answered_again_and_ends_nothing_twice() {
    let mut world = World::new();
    let first = world.open(&[0]);
    for verdict in [Commit, Abort] {
        let producer = world.machine.ids[&text("t")].transaction.producer;
        world.add(producer, &[0]);
        world.act();
        let next = world.ended(producer, verdict);
        for _ in 0..2 {
            let again = world.end_own(producer, verdict);
            assert_eq!(world.answer(again), Ok(next));
            assert_eq!(world.actions, []);
            world.restart();
        }
        let other = if verdict == Commit { Abort } else { Commit };
        let changed = world.end_own(producer, other);
        assert_eq!(world.refused(changed), ResponseError::InvalidTxnState);
    }
    let older = world.end_own(first, Commit);
    assert_eq!(world.refused(older), ResponseError::ProducerFenced);
}

#[test]
fn an_end_asked_for_again_before_all_partitions_know_waits_for_them() {
    let mut world = World::new();
    let first = world.open(&[0]);
    world.end_own(first, Commit);
    let again = world.end_own(first, Commit);
    assert_eq!(world.reply(again), None);
    world.act();
    assert_eq!(world.answer(again), Ok(after(first)));
    let changed = world.end_own(first, Abort);
    assert_eq!(world.refused(changed), ResponseError::InvalidTxnState);
}

#[test]
fn a_decision_that_a_crash_interrupts_ends_with_the_epoch_that_was_answered() {
    let mut world = World::new();
    let first = world.open(&[0]);
    let token = world.end_own(first, Commit);
    let second = world.answer(token).unwrap();
    world.restart();
    let waits = world.add(second, &[1]);
    world.act();
    world.act();
    assert_eq!(world.reply(waits), Some(Response::Admitted));
    assert_eq!(world.state(), State::Ongoing);
}

#[test]
fn an_abort_of_nothing_is_a_new_epoch_and_a_commit_of_nothing_is_refused() {
    let mut world = World::new();
    let first = world.init();
    let empty = world.end_own(first, Commit);
    assert_eq!(world.refused(empty), ResponseError::InvalidTxnState);
    let second = world.ended(first, Abort);
    let third = world.ended(second, Abort);
    assert_eq!(third.epoch, first.epoch + 2);
    assert_eq!(world.state(), State::Complete(Abort));
    world.add(third, &[0]);
    world.act();
    let fourth = world.ended(third, Commit);
    let empty = world.end_own(fourth, Commit);
    assert_eq!(world.refused(empty), ResponseError::InvalidTxnState);
    assert_eq!(world.ended(fourth, Abort), after(fourth));
}

#[test]
fn a_new_transaction_is_not_ended_by_who_repeats_the_end_of_the_one_before() {
    let mut world = World::new();
    let first = world.open(&[0]);
    let second = world.ended(first, Commit);
    world.add(second, &[0]);
    world.act();
    let again = world.end_own(first, Commit);
    assert_eq!(world.refused(again), ResponseError::ProducerFenced);
    assert_eq!(world.state(), State::Ongoing);
}

#[test]
fn a_producer_whose_transaction_timed_out_aborts_and_goes_on() {
    let mut world = World::new();
    let first = world.open(&[0]);
    world.pass(TIMEOUT_MS as u64);
    world.act();
    let late = world.end_own(first, Commit);
    assert_eq!(world.refused(late), ResponseError::InvalidTxnState);
    let second = world.end_own(first, Abort);
    assert_eq!(world.answer(second), Ok(after(first)));
    let next = world.add(after(first), &[0]);
    world.act();
    assert_eq!(world.reply(next), Some(Response::Admitted));
}

#[test]
fn a_successor_fences_who_would_go_on() {
    let mut world = World::new();
    let first = world.open(&[0]);
    world.init();
    let abort = world.end_own(first, Abort);
    assert_eq!(world.refused(abort), ResponseError::ProducerFenced);
}

#[test]
fn the_last_epoch_ends_with_a_new_producer_id() {
    let mut world = World::new();
    let last = world.open_with_last_epoch();
    let wanted = world.end_own(last, Commit);
    assert_eq!(world.reply(wanted), Some(Response::IdWanted));
    assert_eq!(world.state(), State::Ongoing);

    let new = ProducerEpoch {
        id: FRESH,
        epoch: 0,
    };
    let token = world.end_with(last, Commit, Some(FRESH));
    assert_eq!(world.answer(token), Ok(new));
    assert!(
        matches!(&world.actions[..], [Action::End { producer, .. }] if *producer == after(last))
    );
    world.restart();
    let waits = world.add(new, &[1]);
    world.act();
    world.act();
    assert_eq!(world.reply(waits), Some(Response::Admitted));
}

#[test]
fn a_new_producer_id_whose_answer_got_lost_is_told_again() {
    let mut world = World::new();
    let last = world.open_with_last_epoch();
    world.end_with(last, Commit, Some(FRESH));
    let while_it_ends = world.end_own(last, Commit);
    world.act();
    let new = ProducerEpoch {
        id: FRESH,
        epoch: 0,
    };
    assert_eq!(world.answer(while_it_ends), Ok(new));
    world.restart();
    let again = world.end_own(last, Commit);
    assert_eq!(world.answer(again), Ok(new));
    let asks_otherwise = world.init_as(Some(last));
    assert_eq!(
        world.reply(asks_otherwise),
        Some(Response::Init(Ok(new))),
        "InitProducerId knows it, too"
    );
    let older = world.end_own(last, Commit);
    assert_eq!(world.refused(older), ResponseError::ProducerFenced);
}

#[test]
fn the_epoch_that_is_kept_for_fencing_is_nobodys() {
    let mut world = World::new();
    let last = world.open_with_last_epoch();
    world.pass(TIMEOUT_MS as u64);
    world.act();
    for epoch in [i16::MAX - 1, i16::MAX, -1] {
        let producer = ProducerEpoch { epoch, ..last };
        let abort = world.end_with(producer, Abort, Some(FRESH));
        assert_eq!(world.refused(abort), ResponseError::ProducerFenced);
    }
    let successor = world.init();
    assert_ne!(successor.id, last.id);
}

#[test]
fn clients_of_both_versions_follow_one_another() {
    let mut world = World::new();
    let first = world.open(&[0]);
    let second = world.ended(first, Commit);
    let old = world.end(first, Commit);
    assert_eq!(world.refused(old), ResponseError::ProducerFenced);
    let third = world.init();
    assert_eq!(third, after(second));
    world.add(third, &[0]);
    world.act();
    let shared = world.end(third, Commit);
    assert_eq!(world.answer(shared), Ok(third));
    world.act();
    let again = world.end(third, Commit);
    assert_eq!(world.answer(again), Ok(third));
}
