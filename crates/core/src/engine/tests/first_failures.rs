//! What is told of a record that is given up: how it failed first.

use super::*;
use crate::commit::AckMode;

const SECOND: Duration = Duration::from_secs(1);

fn container(attempts: u32) -> Container {
    Container::new(Config {
        retry: Policy::fixed(SECOND).max_attempts(attempts),
        commit_gap: Duration::ZERO,
        ..Config::default()
    })
}

impl Container {
    fn fails_by(&mut self, run: RunId, class: Class, why: &str) -> Vec<Effect<Offset>> {
        let end = End::Failed {
            failure: Failure::new(class, why),
            record: Offset(0),
            rest: Vec::new(),
        };
        self.on(Event::Finished { run, end })
    }
}

fn first(effects: &[Effect<Offset>]) -> Option<FirstFailure> {
    let recovery = effects.iter().find_map(|effect| match effect {
        Effect::Recover { first, .. } => Some(first.clone()),
        _ => None,
    });
    recovery.expect("a recovery")
}

#[test]
fn a_record_that_is_given_up_after_several_attempts_says_how_it_failed_first() {
    let mut container = container(3);
    let began = container.now;
    let mut effects = container.polls(0..1);
    for why in ["the gateway is away", "a timeout"] {
        let (id, ..) = run(&effects).expect("a run");
        container.fails_by(id, Class::Transient, why);
        effects = container.passes(SECOND);
    }
    let (id, ..) = run(&effects).expect("the third attempt");
    let told = first(&container.fails_by(id, Class::Permanent, "no such account"));
    let expected = FirstFailure {
        at: began,
        class: Class::Transient,
        reason: "the gateway is away".to_owned(),
    };
    assert_eq!(told, Some(expected));
}

#[test]
fn a_record_that_is_given_up_at_its_first_failure_has_no_earlier_one() {
    let mut container = container(3);
    let (id, ..) = run(&container.polls(0..1)).expect("a run");
    assert_eq!(first(&container.fails_by(id, Class::Permanent, "no")), None);
}

#[test]
fn the_first_failure_of_one_record_is_not_told_of_the_next() {
    let mut container = container(2);
    let (id, ..) = run(&container.polls(0..2)).expect("a run");
    container.fails(id, Class::Transient, vec![Offset(0), Offset(1)]);
    let (id, ..) = run(&container.passes(SECOND)).expect("the second attempt");
    container.on(Event::Progress {
        run: id,
        settled: 1,
    });
    let failed = container.fails(id, Class::Permanent, vec![Offset(1)]);
    assert_eq!(first(&failed), None);
}

#[test]
fn an_outage_before_it_is_no_failure_of_the_record() {
    let mut container = container(2);
    let (id, ..) = run(&container.polls(0..1)).expect("a run");
    container.fails_by(id, Class::Unavailable, "the database is away");
    let (id, ..) = run(&container.passes(60 * SECOND)).expect("a probe");
    assert_eq!(first(&container.fails_by(id, Class::Permanent, "no")), None);
}

#[test]
fn an_outage_between_two_attempts_leaves_the_time_of_the_first_failure_alone() {
    let mut container = container(2);
    let began = container.now;
    let (id, ..) = run(&container.polls(0..1)).expect("a run");
    container.fails_by(id, Class::Transient, "a timeout");
    let (id, ..) = run(&container.passes(SECOND)).expect("the second attempt");
    container.fails_by(id, Class::Unavailable, "the database is away");
    let (id, ..) = run(&container.passes(60 * SECOND)).expect("a probe");
    let told = first(&container.fails_by(id, Class::Permanent, "no"));
    assert_eq!(told.map(|first| first.at), Some(began));
}

#[test]
fn a_record_that_was_refused_before_it_failed_says_how_it_was_refused() {
    let mut container = Container::new(Config {
        commit: AckMode::Manual,
        retry: Policy::fixed(SECOND).max_attempts(3),
        ..Config::default()
    });
    let (id, _, records) = run(&container.polls(0..1)).expect("a run");
    container.on(Event::Handled { run: id, records });
    container.on(Event::Finished {
        run: id,
        end: End::Complete,
    });
    container.on(Event::Nacked {
        run: id,
        place: 0,
        nack: Nack::Dropped,
    });
    let (id, ..) = run(&container.passes(SECOND)).expect("the second attempt");
    let told = first(&container.fails_by(id, Class::Permanent, "no"));
    let reason = told.map(|first| first.reason).unwrap_or_default();
    assert!(reason.contains("dropped"), "{reason}");
}
