//! What the engine decides, a sentence each. The simulation in `tests/` covers how they meet.

use std::time::Duration;

use super::*;
use crate::Timestamp;
use crate::backoff::Policy;
use crate::offset::CommitOffset;
use crate::settle::Class;

mod acks;
mod beyond;
mod fill;
mod first_failures;
mod manual;
mod seeks;

const P: PartitionId = PartitionId(0);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Offset(i64);

impl Record for Offset {
    fn offset(&self) -> i64 {
        self.0
    }

    fn key_hash(&self) -> Option<u64> {
        None
    }

    fn size(&self) -> usize {
        100
    }
}

/// An engine that owns one partition, and a clock.
struct Container {
    engine: Engine<Offset>,
    now: Timestamp,
}

impl Container {
    fn new(config: Config) -> Self {
        let mut engine = Engine::new(config);
        let assigned = Assigned {
            partition: P,
            position: Some(CommitOffset(0)),
            metadata: String::new(),
            snapshot: None,
        };
        let now = Timestamp::from_millis(1_000);
        engine.on_event(now, Event::Assigned(vec![assigned]));
        Container { engine, now }
    }

    fn on(&mut self, event: Event<Offset>) -> Vec<Effect<Offset>> {
        self.engine.on_event(self.now, event);
        std::iter::from_fn(|| self.engine.poll_effect()).collect()
    }

    fn polls(&mut self, offsets: std::ops::Range<i64>) -> Vec<Effect<Offset>> {
        let next = CommitOffset(offsets.end);
        let records = offsets.map(Offset).collect();
        self.on(Event::Polled {
            partition: P,
            records,
            next,
        })
    }

    fn passes(&mut self, time: Duration) -> Vec<Effect<Offset>> {
        self.now += time;
        self.on(Event::Tick)
    }

    fn fails(&mut self, run: RunId, class: Class, mut records: Vec<Offset>) -> Vec<Effect<Offset>> {
        let record = records.remove(0);
        let failure = Failure::new(class, "no");
        let end = End::Failed {
            failure,
            record,
            rest: records,
        };
        self.on(Event::Finished { run, end })
    }
}

/// The first run among the effects: its number, attempt and records.
fn run(effects: &[Effect<Offset>]) -> Option<(RunId, u32, Vec<Offset>)> {
    effects.iter().find_map(|effect| match effect {
        Effect::Dispatch {
            run,
            attempt,
            records,
            ..
        } => Some((*run, *attempt, records.clone())),
        _ => None,
    })
}

fn committed(effects: &[Effect<Offset>]) -> Option<i64> {
    effects.iter().find_map(|effect| match effect {
        Effect::Commit { positions, .. } => positions.first().map(|found| found.offset.0),
        _ => None,
    })
}

fn recovery(effects: &[Effect<Offset>]) -> Option<(RunId, u32)> {
    effects.iter().find_map(|effect| match effect {
        Effect::Recover {
            recovery, attempts, ..
        } => Some((*recovery, *attempts)),
        _ => None,
    })
}

fn has(effects: &[Effect<Offset>], wanted: impl Fn(&Effect<Offset>) -> bool) -> bool {
    effects.iter().any(wanted)
}

#[test]
fn a_poll_becomes_one_run_and_its_end_one_commit() {
    let mut container = Container::new(Config::default());
    let (id, attempt, records) = run(&container.polls(0..3)).expect("a run");
    assert_eq!((attempt, records.len()), (1, 3));
    let effects = container.on(Event::Finished {
        run: id,
        end: End::Complete,
    });
    assert_eq!(committed(&effects), Some(3));
}

#[test]
fn a_second_commit_waits_for_the_answer_to_the_first() {
    let mut container = Container::new(Config {
        commit: crate::commit::AckMode::Record,
        commit_gap: Duration::ZERO,
        ..Config::default()
    });
    let (id, ..) = run(&container.polls(0..3)).expect("a run");
    let first = container.on(Event::Progress {
        run: id,
        settled: 1,
    });
    assert_eq!(committed(&first), Some(1));
    let meanwhile = container.on(Event::Progress {
        run: id,
        settled: 1,
    });
    assert_eq!(committed(&meanwhile), None);
    let commit = first.iter().find_map(|effect| match effect {
        Effect::Commit { commit, .. } => Some(*commit),
        _ => None,
    });
    let answered = container.on(Event::CommitDone {
        commit: commit.expect("a commit"),
        result: Ok(()),
    });
    assert_eq!(committed(&answered), Some(2));
}

#[test]
fn a_transient_failure_is_retried_after_its_wait_and_holds_the_commit() {
    let mut container = Container::new(Config {
        retry: Policy::fixed(Duration::from_secs(2)).max_attempts(3),
        ..Config::default()
    });
    let (id, _, records) = run(&container.polls(0..2)).expect("a run");
    let effects = container.fails(id, Class::Transient, records);
    assert_eq!((run(&effects), committed(&effects)), (None, None));
    assert_eq!(run(&container.passes(Duration::from_millis(1_999))), None);
    let (_, attempt, records) = run(&container.passes(Duration::from_millis(1))).expect("a retry");
    assert_eq!((attempt, records), (2, vec![Offset(0), Offset(1)]));
}

#[test]
fn the_offset_passes_a_dead_letter_only_after_it_is_safe() {
    let mut container = Container::new(Config::default());
    let (id, _, records) = run(&container.polls(0..1)).expect("a run");
    let effects = container.fails(id, Class::Permanent, records);
    let (recovery, attempts) = recovery(&effects).expect("a recovery");
    assert_eq!((attempts, committed(&effects)), (1, None));
    let safe = container.on(Event::Recovered {
        recovery,
        result: Ok(()),
    });
    assert_eq!(committed(&safe), Some(1));
}

#[test]
fn a_dead_letter_that_fails_is_kept_unhealthy_and_tried_again() {
    let mut container = Container::new(Config::default());
    let (id, _, records) = run(&container.polls(0..1)).expect("a run");
    let (first, _) = recovery(&container.fails(id, Class::Permanent, records)).expect("a recovery");
    let failed = container.on(Event::Recovered {
        recovery: first,
        result: Err("the disk is full".into()),
    });
    assert_eq!((recovery(&failed), committed(&failed)), (None, None));
    assert!(has(&failed, |effect| matches!(
        effect,
        Effect::Health { problem: Some(_) }
    )));
    let (second, _) = recovery(&container.passes(Duration::from_secs(2))).expect("another try");
    let safe = container.on(Event::Recovered {
        recovery: second,
        result: Ok(()),
    });
    assert_eq!(committed(&safe), Some(1));
    assert!(has(&safe, |effect| matches!(
        effect,
        Effect::Health { problem: None }
    )));
}

#[test]
fn something_unavailable_is_probed_with_one_record_and_uses_up_no_attempt() {
    let mut container = Container::new(Config::default());
    let (id, _, records) = run(&container.polls(0..5)).expect("a run");
    let effects = container.fails(id, Class::Unavailable, records);
    assert_eq!((run(&effects), recovery(&effects)), (None, None));
    let (probe, attempt, records) =
        run(&container.passes(Duration::from_secs(1))).expect("a probe");
    assert_eq!((attempt, records), (1, vec![Offset(0)]));
    let effects = container.on(Event::Finished {
        run: probe,
        end: End::Complete,
    });
    let (_, attempt, records) = run(&effects).expect("the rest");
    assert_eq!((attempt, records.len()), (1, 4));
}

#[test]
fn a_full_queue_pauses_its_partition_and_half_of_it_resumes() {
    let mut container = Container::new(Config {
        queued_records: 4,
        ..Config::default()
    });
    let effects = container.polls(0..5);
    assert!(has(&effects, |effect| matches!(effect, Effect::Pause(_))));
    let (id, ..) = run(&effects).expect("a run");
    let one = container.on(Event::Progress {
        run: id,
        settled: 2,
    });
    assert!(!has(&one, |effect| matches!(effect, Effect::Resume(_))));
    let half = container.on(Event::Progress {
        run: id,
        settled: 1,
    });
    assert!(has(&half, |effect| matches!(effect, Effect::Resume(_))));
}

#[test]
fn a_revoked_partition_is_handed_over_after_its_work_and_its_commit() {
    let mut container = Container::new(Config::default());
    let (id, ..) = run(&container.polls(0..2)).expect("a run");
    let done = |effect: &Effect<Offset>| matches!(effect, Effect::RevokeDone(_));
    assert!(!has(&container.on(Event::Revoke(vec![P])), done));
    let effects = container.on(Event::Finished {
        run: id,
        end: End::Complete,
    });
    assert_eq!((committed(&effects), has(&effects, done)), (Some(2), false));
    let commit = effects.iter().find_map(|effect| match effect {
        Effect::Commit { commit, .. } => Some(*commit),
        _ => None,
    });
    let answered = container.on(Event::CommitDone {
        commit: commit.expect("a commit"),
        result: Ok(()),
    });
    assert!(has(&answered, done));
}

#[test]
fn work_that_outlasts_the_drain_is_cancelled_and_stays_uncommitted() {
    let mut container = Container::new(Config::default());
    let (id, _, records) = run(&container.polls(0..2)).expect("a run");
    container.on(Event::Revoke(vec![P]));
    let effects = container.passes(Config::default().revoke_drain);
    assert!(has(
        &effects,
        |effect| matches!(effect, Effect::Cancel { run } if *run == id)
    ));
    let effects = container.on(Event::Finished {
        run: id,
        end: End::Cancelled { rest: records },
    });
    assert_eq!(committed(&effects), None);
    assert!(has(&effects, |effect| matches!(
        effect,
        Effect::RevokeDone(_)
    )));
}

#[test]
fn a_failure_of_class_stop_ends_the_container_with_its_reason() {
    let mut container = Container::new(Config::default());
    let (id, _, records) = run(&container.polls(0..1)).expect("a run");
    let effects = container.fails(id, Class::Stop, records);
    assert_eq!(committed(&effects), None);
    assert!(has(&effects, |effect| matches!(
        effect,
        Effect::Stopped { problem: Some(_) }
    )));
}

fn seek_to(container: &mut Container, offset: i64) -> Option<i64> {
    let effects = container.on(Event::Seek {
        partition: P,
        to: CommitOffset(offset),
    });
    effects.iter().find_map(|effect| match effect {
        Effect::Seek { to, .. } => Some(to.0),
        _ => None,
    })
}

#[test]
fn a_seek_waits_for_the_work_in_hand_and_a_second_one_takes_its_place() {
    let mut container = Container::new(Config::default());
    let (id, _, records) = run(&container.polls(0..50)).expect("a run");
    assert_eq!(seek_to(&mut container, 40), None);
    assert_eq!(seek_to(&mut container, 30), None);
    let effects = container.on(Event::Finished {
        run: id,
        end: End::Cancelled { rest: records },
    });
    let sought = effects.iter().find_map(|effect| match effect {
        Effect::Seek { to, .. } => Some(to.0),
        _ => None,
    });
    assert_eq!(sought, Some(30));
}

#[test]
fn a_seek_is_committed_even_if_no_record_follows() {
    let mut container = Container::new(Config::default());
    let effects = container.on(Event::Seek {
        partition: P,
        to: CommitOffset(10),
    });
    assert_eq!(committed(&effects), Some(10));
}

#[test]
fn a_partition_is_not_handed_over_while_a_run_from_before_a_seek_is_in_work() {
    let mut container = Container::new(Config::default());
    let (id, _, records) = run(&container.polls(0..2)).expect("a run");
    seek_to(&mut container, 0);
    let done = |effect: &Effect<Offset>| matches!(effect, Effect::RevokeDone(_));
    assert!(!has(&container.on(Event::Revoke(vec![P])), done));
    let ended = container.on(Event::Finished {
        run: id,
        end: End::Cancelled { rest: records },
    });
    assert!(has(&ended, done));
}

#[test]
fn records_of_a_list_behind_a_failed_one_are_settled_and_never_come_again() {
    let mut container = Container::new(Config::default());
    let (id, ..) = run(&container.polls(0..6)).expect("a run");
    container.on(Event::Progress {
        run: id,
        settled: 1,
    });
    // Of a list of six, the second and the fifth failed.
    container.on(Event::SettledBehind {
        run: id,
        offsets: vec![2, 3, 5],
    });
    let effects = container.fails(id, Class::Permanent, vec![Offset(1), Offset(4)]);
    let position = container.engine.position(P);
    assert_eq!(position, Some(CommitOffset(1)), "the failed one holds it");
    let (recovery, _) = recovery(&effects).expect("the second is recovered");
    let effects = container.on(Event::Recovered {
        recovery,
        result: Ok(()),
    });
    let (id, attempt, records) = run(&effects).expect("the fifth comes again");
    assert_eq!((attempt, records), (1, vec![Offset(4)]));
    container.on(Event::Finished {
        run: id,
        end: End::Complete,
    });
    assert_eq!(container.engine.position(P), Some(CommitOffset(6)));
    assert_eq!(container.engine.queued_records(), 0);
}

#[test]
fn a_list_that_outlives_its_partition_settles_nothing() {
    let mut container = Container::new(Config::default());
    let (id, ..) = run(&container.polls(0..3)).expect("a run");
    container.on(Event::Lost(vec![P]));
    let assigned = Assigned {
        partition: P,
        position: Some(CommitOffset(0)),
        metadata: String::new(),
        snapshot: None,
    };
    container.on(Event::Assigned(vec![assigned]));
    container.polls(0..3);
    container.on(Event::SettledBehind {
        run: id,
        offsets: vec![1, 2],
    });
    container.fails(id, Class::Transient, vec![Offset(0)]);
    assert_eq!(container.engine.position(P), Some(CommitOffset(0)));
    assert_eq!(container.engine.queued_records(), 3);
}
