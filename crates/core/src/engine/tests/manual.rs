//! Records that wait for their acknowledgement.

use super::*;
use crate::commit::AckMode;

const SECOND: Duration = Duration::from_secs(1);

fn container() -> Container {
    with(Config::default())
}

fn with(config: Config) -> Container {
    Container::new(Config {
        commit: AckMode::ManualImmediate,
        commit_gap: Duration::ZERO,
        ..config
    })
}

impl Container {
    /// The handlers of a run return `Ok`.
    fn handles(&mut self, run: RunId, records: Vec<Offset>) -> Vec<Effect<Offset>> {
        let mut effects = self.on(Event::Handled { run, records });
        let end = End::Complete;
        effects.extend(self.on(Event::Finished { run, end }));
        effects
    }

    fn acknowledges(
        &mut self,
        run: RunId,
        places: std::ops::Range<usize>,
        waiters: &[(usize, u64)],
    ) -> Vec<Effect<Offset>> {
        self.on(Event::Acknowledged {
            run,
            places: vec![places],
            waiters: waiters.to_vec(),
        })
    }

    fn refuses(&mut self, run: RunId, place: usize, nack: Nack) -> Vec<Effect<Offset>> {
        self.on(Event::Nacked { run, place, nack })
    }

    fn commit_succeeds(&mut self, effects: &[Effect<Offset>]) -> Vec<Effect<Offset>> {
        let commit = effects.iter().find_map(|effect| match effect {
            Effect::Commit { commit, .. } => Some(*commit),
            _ => None,
        });
        let commit = commit.expect("a commit");
        let result = Ok(());
        self.on(Event::CommitDone { commit, result })
    }
}

fn answers(effects: &[Effect<Offset>]) -> Vec<(u64, bool)> {
    let answers = effects.iter().filter_map(|effect| match effect {
        Effect::Answer { waiter, committed } => Some((*waiter, *committed)),
        _ => None,
    });
    answers.collect()
}

fn is_closing(effects: &[Effect<Offset>]) -> bool {
    has(effects, |effect| matches!(effect, Effect::Close { .. }))
}

#[test]
fn handling_settles_nothing_and_acknowledging_does_in_any_order() {
    let mut container = container();
    let (id, _, records) = run(&container.polls(0..3)).expect("a run");
    assert_eq!(committed(&container.handles(id, records)), None);
    let effects = container.acknowledges(id, 1..3, &[]);
    assert_eq!(committed(&effects), Some(0), "only as metadata");
    container.commit_succeeds(&effects);
    assert_eq!(committed(&container.acknowledges(id, 0..1, &[])), Some(3));
}

#[test]
fn who_waits_for_a_commit_does_not_wait_for_the_distance_between_two() {
    let mut container = Container::new(Config {
        commit: AckMode::ManualImmediate,
        ..Config::default()
    });
    let (id, _, records) = run(&container.polls(0..3)).expect("a run");
    container.handles(id, records);
    let first = container.acknowledges(id, 0..1, &[]);
    assert_eq!(committed(&first), Some(1));
    container.commit_succeeds(&first);
    assert_eq!(committed(&container.acknowledges(id, 1..2, &[])), None);
    let effects = container.acknowledges(id, 2..3, &[(2, 7)]);
    assert_eq!(committed(&effects), Some(3));
    assert_eq!(answers(&container.commit_succeeds(&effects)), [(7, true)]);
}

#[test]
fn an_acknowledgement_may_come_before_its_handler_returns() {
    let mut container = container();
    let (id, _, records) = run(&container.polls(0..2)).expect("a run");
    let effects = container.acknowledges(id, 0..1, &[]);
    assert_eq!(committed(&effects), Some(1));
    container.commit_succeeds(&effects);
    container.handles(id, records);
    assert_eq!(committed(&container.acknowledges(id, 1..2, &[])), Some(2));
    assert_eq!(container.engine.queued_records(), 0);
}

#[test]
fn later_records_are_handled_while_earlier_ones_wait_for_their_acknowledgement() {
    let mut container = container();
    let (id, _, records) = run(&container.polls(0..2)).expect("a run");
    container.handles(id, records);
    assert!(run(&container.polls(2..3)).is_some());
    assert_eq!(container.engine.unacknowledged(), 2);
}

#[test]
fn open_records_fill_the_queue_and_pause_the_partition() {
    let mut container = with(Config {
        queued_records: 4,
        ..Config::default()
    });
    let (id, _, records) = run(&container.polls(0..3)).expect("a run");
    container.handles(id, records);
    let effects = container.polls(3..5);
    assert!(has(&effects, |effect| matches!(effect, Effect::Pause(_))));
    let effects = container.acknowledges(id, 0..3, &[]);
    assert!(has(&effects, |effect| matches!(effect, Effect::Resume(_))));
}

#[test]
fn a_refused_record_comes_again_after_its_delay_and_before_later_ones() {
    let mut container = container();
    let (id, _, records) = run(&container.polls(0..3)).expect("a run");
    container.handles(id, records);
    container.acknowledges(id, 0..1, &[]);
    assert_eq!(run(&container.refuses(id, 1, Nack::After(SECOND))), None);
    assert_eq!(run(&container.polls(3..5)), None, "they wait behind it");
    let (again, attempt, records) = run(&container.passes(SECOND)).expect("the refused one");
    assert_eq!((attempt, records), (1, vec![Offset(1)]));
    let effects = container.handles(again, vec![Offset(1)]);
    let (_, _, records) = run(&effects).expect("those behind it");
    assert_eq!(records, [Offset(3), Offset(4)]);
}

#[test]
fn refusals_of_several_records_keep_their_order() {
    let mut container = container();
    let (id, _, records) = run(&container.polls(0..4)).expect("a run");
    container.handles(id, records);
    container.refuses(id, 2, Nack::After(SECOND));
    container.refuses(id, 0, Nack::After(2 * SECOND));
    assert_eq!(
        run(&container.passes(SECOND)),
        None,
        "the earliest comes first"
    );
    let (first, _, records) = run(&container.passes(SECOND)).expect("the earliest");
    assert_eq!(records, [Offset(0)]);
    let effects = container.handles(first, vec![Offset(0)]);
    let (_, _, records) = run(&effects).expect("the next");
    assert_eq!(records, [Offset(2)]);
}

#[test]
fn a_refusal_before_the_end_of_its_run_waits_for_it() {
    let mut container = container();
    let (id, _, records) = run(&container.polls(0..2)).expect("a run");
    assert_eq!(
        run(&container.refuses(id, 0, Nack::After(Duration::ZERO))),
        None
    );
    let (_, _, records) = run(&container.handles(id, records)).expect("the refused one");
    assert_eq!(records, [Offset(0)]);
}

#[test]
fn a_dropped_acknowledgement_is_a_transient_failure() {
    let mut container = with(Config {
        retry: Policy::fixed(SECOND).max_attempts(2),
        ..Config::default()
    });
    let (id, _, records) = run(&container.polls(0..2)).expect("a run");
    container.handles(id, records);
    let effects = container.refuses(id, 0, Nack::Dropped);
    let told = |effect: &Effect<Offset>| matches!(effect, Effect::Failed { attempt: 1, .. });
    assert!(has(&effects, told));
    let (again, attempt, records) = run(&container.passes(SECOND)).expect("a retry");
    assert_eq!((attempt, &records[..]), (2, &[Offset(0)][..]));
    container.handles(again, records);
    let effects = container.refuses(again, 0, Nack::Dropped);
    assert!(recovery(&effects).is_some(), "its attempts are used up");
}

#[test]
fn a_failure_in_a_manual_mode_has_its_verdict() {
    let mut container = container();
    let (id, _, mut records) = run(&container.polls(0..3)).expect("a run");
    let failed = records.split_off(1);
    container.on(Event::Handled { run: id, records });
    let effects = container.fails(id, Class::Permanent, failed);
    let (recovery, _) = recovery(&effects).expect("a recovery");
    let safe = container.on(Event::Recovered {
        recovery,
        result: Ok(()),
    });
    let (_, _, records) = run(&safe).expect("what is behind it");
    assert_eq!(records, [Offset(2)]);
    assert_eq!(committed(&safe), Some(0), "the first is still open");
}

#[test]
fn a_record_that_was_acknowledged_before_it_failed_is_not_repeated() {
    let mut container = container();
    let (id, _, records) = run(&container.polls(0..2)).expect("a run");
    let effects = container.acknowledges(id, 0..1, &[]);
    container.commit_succeeds(&effects);
    let handled = Vec::new();
    container.on(Event::Handled {
        run: id,
        records: handled,
    });
    let effects = container.fails(id, Class::Transient, records);
    let (_, attempt, records) = run(&effects).expect("what is behind it");
    assert_eq!((attempt, records), (1, vec![Offset(1)]));
}

#[test]
fn a_caller_hears_when_its_record_is_committed() {
    let mut container = container();
    let (id, _, records) = run(&container.polls(0..2)).expect("a run");
    container.handles(id, records);
    let effects = container.acknowledges(id, 1..2, &[(1, 7)]);
    assert_eq!(answers(&effects), []);
    let effects = container.commit_succeeds(&effects);
    assert_eq!(answers(&effects), [(7, true)]);
}

#[test]
fn a_caller_hears_only_what_the_broker_was_told() {
    let mut container = with(Config {
        metadata_bytes: 0,
        ..Config::default()
    });
    let (id, _, records) = run(&container.polls(0..2)).expect("a run");
    container.handles(id, records);
    let first = container.acknowledges(id, 1..2, &[(1, 7)]);
    assert_eq!(answers(&container.commit_succeeds(&first)), []);
    let second = container.acknowledges(id, 0..1, &[]);
    assert_eq!(answers(&container.commit_succeeds(&second)), [(7, true)]);
}

#[test]
fn an_acknowledgement_of_a_lost_partition_is_stale() {
    let mut container = container();
    let (id, _, records) = run(&container.polls(0..2)).expect("a run");
    container.handles(id, records);
    let effects = container.on(Event::Lost(vec![P]));
    assert!(is_closing(&effects));
    let effects = container.acknowledges(id, 0..2, &[(0, 3)]);
    assert_eq!(
        (committed(&effects), answers(&effects)),
        (None, vec![(3, false)])
    );
}

#[test]
fn an_acknowledgement_from_before_a_seek_is_stale() {
    let mut container = container();
    let (id, _, records) = run(&container.polls(0..2)).expect("a run");
    container.handles(id, records);
    container.on(Event::Seek {
        partition: P,
        to: CommitOffset(0),
    });
    // The seek waits for acknowledgements as long as a revoke does.
    container.passes(Config::default().revoke_drain);
    container.polls(0..2);
    assert_eq!(committed(&container.acknowledges(id, 0..2, &[])), None);
    assert_eq!(container.engine.unacknowledged(), 0);
}

#[test]
fn a_revoke_waits_for_acknowledgements_up_to_its_limit() {
    let mut container = container();
    let (id, _, records) = run(&container.polls(0..2)).expect("a run");
    container.handles(id, records);
    let effects = container.acknowledges(id, 0..1, &[]);
    container.commit_succeeds(&effects);
    let done = |effect: &Effect<Offset>| matches!(effect, Effect::RevokeDone(_));
    assert!(!has(&container.on(Event::Revoke(vec![P])), done));
    let effects = container.passes(Config::default().revoke_drain);
    assert!(is_closing(&effects) && !has(&effects, done));
    assert!(has(&container.on(Event::Closed { run: id }), done));
}

#[test]
fn the_last_acknowledgement_of_a_revoked_partition_lets_it_go() {
    let mut container = container();
    let (id, _, records) = run(&container.polls(0..1)).expect("a run");
    container.handles(id, records);
    container.on(Event::Revoke(vec![P]));
    let effects = container.acknowledges(id, 0..1, &[]);
    assert_eq!(committed(&effects), Some(1));
    let effects = container.commit_succeeds(&effects);
    assert!(has(&effects, |effect| matches!(
        effect,
        Effect::RevokeDone(_)
    )));
}

#[test]
fn a_record_that_is_never_acknowledged_shows_in_health_until_it_is() {
    let mut container = container();
    let (id, _, records) = run(&container.polls(0..2)).expect("a run");
    container.handles(id, records);
    let effects = container.acknowledges(id, 0..1, &[]);
    container.commit_succeeds(&effects);
    let limit = Config::default().unacknowledged_limit;
    assert!(!has(&container.passes(limit / 2), |e| matches!(
        e,
        Effect::Health { .. }
    )));
    let effects = container.passes(limit / 2);
    let told = |effect: &Effect<Offset>| matches!(effect, Effect::Unacknowledged { offset: 1, .. });
    assert!(has(&effects, told));
    assert!(has(&effects, |e| matches!(
        e,
        Effect::Health { problem: Some(_) }
    )));
    let effects = container.acknowledges(id, 1..2, &[]);
    assert!(has(&effects, |e| matches!(
        e,
        Effect::Health { problem: None }
    )));
}
