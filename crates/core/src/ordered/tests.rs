use std::time::Duration;

use super::*;
use crate::Timestamp;
use crate::backoff::Policy;
use crate::settle::Class;

fn at(millis: i64) -> Timestamp {
    Timestamp::from_millis(millis)
}

fn limits(keys_max: usize, records_per_key_max: usize, records_max: usize) -> Limits {
    Limits {
        keys_max,
        records_per_key_max,
        records_max,
    }
}

fn parked() -> Parked<&'static str> {
    Parked::new(Limits::default())
}

fn terms(retry: Policy) -> Terms {
    Terms {
        retry,
        recovery: Policy::fixed(Duration::from_secs(1)),
        limits: Limits::default(),
    }
}

#[test]
fn a_key_waits_behind_its_head_and_others_do_not() {
    let mut parked = parked();
    assert_eq!(parked.place(Some(&"a")), Place::Free);
    parked.park(at(0), "a", at(10));
    assert_eq!(parked.place(Some(&"a")), Place::Behind);
    assert_eq!(parked.place(Some(&"b")), Place::Free);
    assert_eq!(parked.place(None), Place::Free);
}

#[test]
fn a_head_is_taken_when_it_is_due_and_only_once() {
    let mut parked = parked();
    parked.park(at(0), "a", at(10));
    parked.park(at(1), "a", at(1));
    assert_eq!(
        parked.due_at(),
        Some(at(10)),
        "the one behind does not hurry it"
    );
    assert!(parked.take_due(at(9), 8).is_empty());
    assert_eq!(parked.take_due(at(10), 8).len(), 1);
    assert!(parked.take_due(at(99), 8).is_empty());
    assert_eq!(parked.due_at(), None);
}

#[test]
fn when_a_head_is_settled_the_next_is_due_at_once_and_the_last_frees_the_key() {
    let mut parked = parked();
    parked.park(at(0), "a", at(10));
    parked.park(at(1), "a", at(10));
    parked.take_due(at(10), 8);
    parked.settled(at(12), &"a", 1);
    assert_eq!(parked.due_at(), Some(at(12)));
    parked.take_due(at(12), 8);
    parked.settled(at(13), &"a", 1);
    assert_eq!((parked.keys(), parked.records()), (0, 0));
    assert_eq!(parked.place(Some(&"a")), Place::Free);
}

#[test]
fn what_is_parked_while_the_last_record_is_in_work_keeps_the_key() {
    let mut parked = parked();
    parked.park(at(0), "a", at(10));
    parked.take_due(at(10), 8);
    parked.park(at(11), "a", at(11));
    parked.settled(at(12), &"a", 1);
    assert_eq!(parked.place(Some(&"a")), Place::Behind);
    assert_eq!(parked.due_at(), Some(at(12)));
}

#[test]
fn a_key_whose_records_were_rolled_back_is_free_unless_something_was_added() {
    let mut parked = parked();
    parked.park(at(0), "a", at(10));
    let due = parked.take_due(at(10), 1).remove(0);
    parked.park(at(11), "a", at(11));
    parked.vanished(at(12), &"a", due.seen);
    assert_eq!(parked.place(Some(&"a")), Place::Behind);
    let due = parked.take_due(at(12), 1).remove(0);
    parked.vanished(at(13), &"a", due.seen);
    assert!(parked.is_empty());
    assert_eq!(parked.records(), 0);
}

#[test]
fn a_key_that_nothing_happened_to_waits_as_before() {
    let mut parked = parked();
    parked.park(at(0), "a", at(10));
    parked.take_due(at(20), 8);
    parked.untouched(&"a");
    parked.untouched(&"a");
    assert_eq!(parked.due_at(), Some(at(10)));
    assert_eq!(parked.take_due(at(20), 8).len(), 1);
}

#[test]
fn a_full_place_takes_nothing_new() {
    let mut parked = Parked::new(limits(2, 2, 3));
    parked.park(at(0), "a", at(9));
    parked.park(at(0), "a", at(9));
    assert_eq!(parked.place(Some(&"a")), Place::Full(Limit::RecordsPerKey));
    assert_eq!(parked.place(Some(&"b")), Place::Free);
    parked.park(at(0), "b", at(9));
    assert_eq!(parked.place(Some(&"b")), Place::Full(Limit::Records));
    let mut parked = Parked::new(limits(1, 9, 9));
    parked.park(at(0), "a", at(9));
    assert_eq!(parked.place(Some(&"b")), Place::Full(Limit::Keys));
    assert_eq!(
        parked.place(Some(&"a")),
        Place::Behind,
        "it needs no new key"
    );
}

#[test]
fn the_failure_with_which_a_record_is_parked_is_the_first_of_its_policy() {
    let terms = terms(Policy::fixed(Duration::from_millis(5)).max_attempts(2));
    let mut attempts = Attempts::in_place(4, at(0));
    assert_eq!(
        terms.judge(Class::Transient, attempts, None, at(0), 0.5),
        Verdict::Again(at(5))
    );
    attempts = attempts.failed(at(5));
    assert_eq!((attempts.all, attempts.since), (5, Some(at(0))));
    assert_eq!(
        terms.judge(Class::Transient, attempts, None, at(5), 0.5),
        Verdict::GiveUp
    );
}

#[test]
fn time_is_counted_from_the_first_failure() {
    let terms = terms(Policy::fixed(Duration::from_millis(5)).within(Duration::from_millis(12)));
    let attempts = Attempts::default()
        .failed(at(100))
        .failed(at(105))
        .failed(at(110));
    assert_eq!(
        terms.judge(Class::Transient, attempts, None, at(107), 0.5),
        Verdict::Again(at(112))
    );
    assert_eq!(
        terms.judge(Class::Transient, attempts, None, at(108), 0.5),
        Verdict::GiveUp
    );
}

#[test]
fn other_classes_do_not_look_at_the_attempts() {
    let terms = terms(Policy::fixed(Duration::ZERO).max_attempts(1));
    for attempts in [Attempts::default(), Attempts::in_place(99, at(0))] {
        let judge = |class| terms.judge(class, attempts, None, at(0), 0.5);
        assert_eq!(judge(Class::Permanent), Verdict::GiveUp);
        assert_eq!(judge(Class::Skip), Verdict::Done);
        assert_eq!(judge(Class::Unavailable), Verdict::Keep);
        assert_eq!(judge(Class::Stop), Verdict::Stop);
    }
}

#[test]
fn a_wait_that_the_handler_asks_for_takes_the_policys_place_within_its_limits() {
    let terms = terms(Policy::fixed(Duration::from_millis(5)).within(Duration::from_millis(50)));
    let judge = |millis| {
        let asked = Some(Duration::from_millis(millis));
        terms.judge(
            Class::Transient,
            Attempts::in_place(1, at(0)),
            asked,
            at(0),
            0.5,
        )
    };
    assert_eq!(judge(40), Verdict::Again(at(40)));
    assert_eq!(judge(60), Verdict::GiveUp);
}
