//! When positions are sent, by ack mode.

use super::*;
use crate::commit::{AckMode, SETTLED_WAIT};

const SECOND: Duration = Duration::from_secs(1);

fn container(commit: AckMode) -> Container {
    Container::new(Config {
        commit,
        commit_gap: Duration::ZERO,
        ..Config::default()
    })
}

fn strict(commit: AckMode) -> Container {
    Container::new(Config {
        commit,
        strict_commits: true,
        ..Config::default()
    })
}

impl Container {
    fn settles(&mut self, run: RunId, settled: usize) -> Vec<Effect<Offset>> {
        self.on(Event::Progress { run, settled })
    }

    fn completes(&mut self, run: RunId) -> Vec<Effect<Offset>> {
        let end = End::Complete;
        self.on(Event::Finished { run, end })
    }

    fn confirms(&mut self, effects: &[Effect<Offset>]) -> Vec<Effect<Offset>> {
        let commit = effects.iter().find_map(|effect| match effect {
            Effect::Commit { commit, .. } => Some(*commit),
            _ => None,
        });
        let commit = commit.expect("a commit");
        self.on(Event::CommitDone {
            commit,
            result: Ok(()),
        })
    }
}

#[test]
fn count_commits_when_so_many_records_have_settled() {
    let mut container = container(AckMode::Count(4));
    let (id, ..) = run(&container.polls(0..9)).expect("a run");
    assert_eq!(committed(&container.settles(id, 3)), None);
    assert_eq!(committed(&container.settles(id, 2)), Some(5));
}

#[test]
fn a_count_that_is_not_reached_is_committed_when_nothing_more_settles() {
    let mut container = container(AckMode::Count(4));
    let (id, ..) = run(&container.polls(0..3)).expect("a run");
    assert_eq!(committed(&container.completes(id)), None);
    assert_eq!(committed(&container.passes(SETTLED_WAIT)), Some(3));
}

#[test]
fn time_commits_what_has_settled_when_it_is_over() {
    let mut container = container(AckMode::Time(SECOND));
    let (id, ..) = run(&container.polls(0..9)).expect("a run");
    assert_eq!(committed(&container.settles(id, 3)), None);
    assert_eq!(committed(&container.passes(SECOND / 2)), None);
    assert_eq!(committed(&container.settles(id, 1)), None);
    assert_eq!(committed(&container.passes(SECOND / 2)), Some(4));
}

#[test]
fn commits_that_nobody_waits_for_keep_their_distance() {
    let mut container = Container::new(Config {
        commit: AckMode::Record,
        ..Config::default()
    });
    let (id, ..) = run(&container.polls(0..3)).expect("a run");
    let first = container.settles(id, 1);
    assert_eq!(committed(&first), Some(1));
    container.confirms(&first);
    assert_eq!(committed(&container.settles(id, 1)), None);
    let gap = Config::default().commit_gap;
    assert_eq!(container.engine.deadline(), Some(container.now + gap));
    assert_eq!(committed(&container.passes(gap)), Some(2));
}

#[test]
fn a_partition_on_its_way_out_does_not_wait_for_the_distance_between_commits() {
    let mut container = Container::new(Config {
        commit: AckMode::Record,
        ..Config::default()
    });
    let (id, ..) = run(&container.polls(0..2)).expect("a run");
    let first = container.settles(id, 1);
    container.confirms(&first);
    assert_eq!(committed(&container.completes(id)), None);
    assert_eq!(committed(&container.on(Event::Revoke(vec![P]))), Some(2));
}

#[test]
fn a_failure_has_the_records_before_it_committed_at_once() {
    let mut container = container(AckMode::Batch);
    let (id, _, mut records) = run(&container.polls(0..5)).expect("a run");
    let rest = records.split_off(2);
    assert_eq!(records.len(), 2);
    let effects = container.fails(id, Class::Transient, rest);
    assert_eq!(committed(&effects), Some(2));
}

#[test]
fn a_poll_that_a_slow_record_keeps_open_is_committed_as_far_as_it_is() {
    let mut container = container(AckMode::Batch);
    let (id, ..) = run(&container.polls(0..5)).expect("a run");
    assert_eq!(committed(&container.settles(id, 3)), None);
    assert_eq!(committed(&container.passes(SETTLED_WAIT)), Some(3));
}

#[test]
fn strict_record_mode_waits_with_the_next_record_for_the_answer_to_the_commit() {
    let mut container = strict(AckMode::Record);
    let (id, _, records) = run(&container.polls(0..3)).expect("a run");
    assert_eq!(records, [Offset(0)]);
    let first = container.completes(id);
    assert_eq!((committed(&first), run(&first)), (Some(1), None));
    assert_eq!(run(&container.passes(SECOND)), None);
    let (_, _, records) = run(&container.confirms(&first)).expect("the next");
    assert_eq!(records, [Offset(1)]);
}

#[test]
fn strict_record_mode_waits_until_a_failed_commit_was_repeated() {
    let mut container = strict(AckMode::Record);
    let (id, ..) = run(&container.polls(0..2)).expect("a run");
    container.completes(id);
    let lost = container.passes(Config::default().commit_wait);
    assert_eq!(run(&lost), None);
    let again = container.passes(2 * SECOND);
    assert_eq!((committed(&again), run(&again)), (Some(1), None));
    assert!(run(&container.confirms(&again)).is_some());
}

#[test]
fn strict_batch_mode_waits_with_the_next_poll_for_the_answer_to_the_commit() {
    let mut container = strict(AckMode::Batch);
    let (id, ..) = run(&container.polls(0..3)).expect("a run");
    assert_eq!(run(&container.polls(3..5)), None);
    let first = container.completes(id);
    assert_eq!((committed(&first), run(&first)), (Some(3), None));
    let (_, _, records) = run(&container.confirms(&first)).expect("the next poll");
    assert_eq!(records, [Offset(3), Offset(4)]);
}

#[test]
fn auto_commit_passes_what_was_given_to_a_handler_and_not_what_waits() {
    let mut container = Container::new(Config {
        commit: AckMode::AutoCommitMayLoseRecords(SECOND),
        run_records: 2,
        ..Config::default()
    });
    let (id, ..) = run(&container.polls(0..5)).expect("a run");
    assert_eq!(committed(&container.passes(SECOND / 2)), None);
    let effects = container.passes(SECOND / 2);
    assert_eq!(committed(&effects), Some(2));
    container.confirms(&effects);
    container.completes(id);
    assert_eq!(committed(&container.passes(SECOND)), Some(4));
}

#[test]
fn auto_commit_still_retries_what_fails() {
    let mut container = container(AckMode::AutoCommitMayLoseRecords(SECOND));
    let (id, _, records) = run(&container.polls(0..2)).expect("a run");
    container.fails(id, Class::Transient, records);
    let (_, attempt, records) = run(&container.passes(2 * SECOND)).expect("a retry");
    assert_eq!((attempt, records.len()), (2, 2));
}
