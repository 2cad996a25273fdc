//! What failures lead to, a sentence each: whose attempts they use up, and when what is tried
//! again is tried again.

use std::time::Duration;

use crate::Timestamp;
use crate::backoff::Policy;
use crate::engine::{
    Assigned, Config, Effect, End, Engine, Event, Failure, PartitionId, Record, RunId,
};
use crate::lane::Concurrency;
use crate::offset::CommitOffset;
use crate::settle::{Class, Destination, Settlement};

const P: PartitionId = PartitionId(0);
const Q: PartitionId = PartitionId(1);
const SECOND: Duration = Duration::from_secs(1);
const START: Timestamp = Timestamp::from_millis(100_000);

/// A record that may have come by a retry topic.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Came {
    offset: i64,
    key: Option<u64>,
    due: Option<Timestamp>,
    retries: u32,
    earlier: u32,
}

fn plain(offset: i64) -> Came {
    Came {
        offset,
        key: None,
        due: None,
        retries: 0,
        earlier: 0,
    }
}

/// One that came by the first retry topic after three attempts and is due in `wait`.
fn back(offset: i64, wait: Duration) -> Came {
    Came {
        due: Some(START + wait),
        retries: 1,
        earlier: 3,
        ..plain(offset)
    }
}

impl Record for Came {
    fn offset(&self) -> i64 {
        self.offset
    }

    fn key_hash(&self) -> Option<u64> {
        self.key
    }

    fn size(&self) -> usize {
        100
    }

    fn due(&self) -> Option<Timestamp> {
        self.due
    }

    fn retries(&self) -> u32 {
        self.retries
    }

    fn earlier_attempts(&self) -> u32 {
        self.earlier
    }
}

/// An engine that owns two partitions, and a clock.
struct Container {
    engine: Engine<Came>,
    now: Timestamp,
}

type Effects = Vec<Effect<Came>>;

impl Container {
    fn new(config: Config) -> Self {
        let mut container = Container {
            engine: Engine::new(config),
            now: START,
        };
        let assigned = |partition| Assigned {
            partition,
            position: Some(CommitOffset(0)),
            metadata: String::new(),
            snapshot: None,
        };
        container.on(Event::Assigned(vec![assigned(P), assigned(Q)]));
        container
    }

    fn on(&mut self, event: Event<Came>) -> Effects {
        self.engine.on_event(self.now, event);
        std::iter::from_fn(|| self.engine.poll_effect()).collect()
    }

    fn polls(&mut self, partition: PartitionId, records: Vec<Came>) -> Effects {
        let next = records.last().map_or(0, |record| record.offset + 1);
        self.on(Event::Polled {
            partition,
            records,
            next: CommitOffset(next),
        })
    }

    fn passes(&mut self, time: Duration) -> Effects {
        self.now += time;
        self.on(Event::Tick)
    }

    fn succeeds(&mut self, run: &Run) -> Effects {
        self.on(Event::Finished {
            run: run.id,
            end: End::Complete,
        })
    }

    fn fails(&mut self, run: &Run, failure: Failure) -> Effects {
        let mut rest = run.records.clone();
        let record = rest.remove(0);
        self.on(Event::Finished {
            run: run.id,
            end: End::Failed {
                failure,
                record,
                rest,
            },
        })
    }

    fn fails_as(&mut self, run: &Run, class: Class) -> Effects {
        self.fails(run, Failure::new(class, "no"))
    }

    fn safe(&mut self, recovery: RunId) -> Effects {
        self.on(Event::Recovered {
            recovery,
            result: Ok(()),
        })
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Run {
    id: RunId,
    partition: PartitionId,
    attempt: u32,
    records: Vec<Came>,
}

fn runs(effects: &[Effect<Came>]) -> Vec<Run> {
    let run = |effect: &Effect<Came>| match effect {
        Effect::Dispatch {
            run,
            partition,
            attempt,
            records,
            ..
        } => Some(Run {
            id: *run,
            partition: *partition,
            attempt: *attempt,
            records: records.clone(),
        }),
        _ => None,
    };
    effects.iter().filter_map(run).collect()
}

fn run(effects: &[Effect<Came>]) -> Run {
    let mut found = runs(effects);
    assert_eq!(found.len(), 1, "{effects:?}");
    found.remove(0)
}

fn offsets(run: &Run) -> Vec<i64> {
    run.records.iter().map(|record| record.offset).collect()
}

fn recovery(effects: &[Effect<Came>]) -> Option<(RunId, Destination, u32)> {
    effects.iter().find_map(|effect| match effect {
        Effect::Recover {
            recovery,
            destination,
            attempts,
            ..
        } => Some((*recovery, *destination, *attempts)),
        _ => None,
    })
}

fn told(effects: &[Effect<Came>]) -> Option<(u32, Settlement)> {
    effects.iter().find_map(|effect| match effect {
        Effect::Failed {
            attempt,
            settlement,
            ..
        } => Some((*attempt, *settlement)),
        _ => None,
    })
}

fn committed(effects: &[Effect<Came>]) -> Option<i64> {
    effects.iter().find_map(|effect| match effect {
        Effect::Commit { positions, .. } => positions.first().map(|found| found.offset.0),
        _ => None,
    })
}

fn three_attempts() -> Config {
    Config {
        retry: Policy::fixed(SECOND).max_attempts(3),
        commit_gap: Duration::ZERO,
        ..Config::default()
    }
}

fn with_topics() -> Config {
    Config {
        retry_topics: vec![SECOND, 10 * SECOND],
        ..three_attempts()
    }
}

#[test]
fn a_healthy_partition_does_not_touch_the_attempts_of_a_failing_one() {
    let mut container = Container::new(three_attempts());
    let mut failing = run(&container.polls(P, vec![plain(0)]));
    for attempt in 1..=2 {
        assert_eq!(failing.attempt, attempt);
        container.fails_as(&failing, Class::Transient);
        let healthy = run(&container.polls(Q, vec![plain(i64::from(attempt))]));
        container.succeeds(&healthy);
        failing = run(&container.passes(SECOND));
    }
    let effects = container.fails_as(&failing, Class::Transient);
    let (_, destination, attempts) = recovery(&effects).expect("a recovery");
    assert_eq!((destination, attempts), (Destination::DeadLetter, 3));
}

#[test]
fn a_healthy_key_does_not_touch_the_attempts_of_a_failing_one() {
    let mut container = Container::new(Config {
        concurrency: Concurrency::ByKey(2),
        ..three_attempts()
    });
    let keyed = |offset, key| Came {
        key: Some(key),
        ..plain(offset)
    };
    let found = runs(&container.polls(P, vec![keyed(0, 0), keyed(1, 1)]));
    let [failing, healthy] = found.as_slice() else {
        panic!("{found:?}")
    };
    container.fails_as(failing, Class::Transient);
    container.succeeds(healthy);
    assert_eq!(run(&container.passes(SECOND)).attempt, 2);
}

#[test]
fn another_cause_gives_a_record_no_new_life() {
    let mut container = Container::new(Config {
        retry_for: vec![Policy::fixed(2 * SECOND).max_attempts(3)],
        ..three_attempts()
    });
    let by_cause = Failure {
        policy: 1,
        ..Failure::new(Class::Transient, "timeout")
    };
    let first = run(&container.polls(P, vec![plain(0)]));
    container.fails(&first, by_cause.clone());
    assert!(
        runs(&container.passes(SECOND)).is_empty(),
        "its own policy waits longer"
    );
    let second = run(&container.passes(SECOND));
    container.fails_as(&second, Class::Transient);
    let third = run(&container.passes(SECOND));
    assert_eq!(third.attempt, 3);
    let effects = container.fails(&third, by_cause);
    assert!(recovery(&effects).is_some());
}

#[test]
fn the_next_record_begins_at_its_first_attempt() {
    let mut container = Container::new(three_attempts());
    let first = run(&container.polls(P, vec![plain(0), plain(1)]));
    container.fails_as(&first, Class::Transient);
    let again = run(&container.passes(SECOND));
    assert_eq!((again.attempt, offsets(&again)), (2, vec![0, 1]));
    // The first one succeeds, the one behind it fails.
    let effects = container.on(Event::Finished {
        run: again.id,
        end: End::Failed {
            failure: Failure::new(Class::Transient, "no"),
            record: plain(1),
            rest: vec![],
        },
    });
    assert_eq!(told(&effects), Some((1, Settlement::RetryAfter(SECOND))));
}

#[test]
fn a_wait_that_the_handler_asks_for_is_kept() {
    let mut container = Container::new(three_attempts());
    let first = run(&container.polls(P, vec![plain(0)]));
    let asking = Failure {
        retry_after: Some(30 * SECOND),
        ..Failure::new(Class::Transient, "too many requests")
    };
    container.fails(&first, asking);
    assert!(runs(&container.passes(29 * SECOND)).is_empty());
    assert_eq!(run(&container.passes(SECOND)).attempt, 2);
}

#[test]
fn an_outage_uses_up_none_of_the_time_within_which_a_record_is_retried() {
    let mut container = Container::new(Config {
        retry: Policy::fixed(SECOND).within(10 * SECOND),
        probe: Policy::fixed(SECOND),
        ..Config::default()
    });
    let first = run(&container.polls(P, vec![plain(0)]));
    container.fails_as(&first, Class::Transient);
    let mut attempt = run(&container.passes(SECOND));
    for _ in 0..60 {
        container.fails_as(&attempt, Class::Unavailable);
        attempt = run(&container.passes(SECOND));
    }
    assert_eq!(attempt.attempt, 2);
    let effects = container.fails_as(&attempt, Class::Transient);
    assert_eq!(told(&effects), Some((2, Settlement::RetryAfter(SECOND))));
}

#[test]
fn after_its_attempts_in_place_a_record_goes_to_the_first_retry_topic_and_the_lane_goes_on() {
    let mut container = Container::new(with_topics());
    let mut failing = run(&container.polls(P, vec![plain(0), plain(1)]));
    for _ in 0..2 {
        container.fails_as(&failing, Class::Transient);
        failing = run(&container.passes(SECOND));
    }
    let effects = container.fails_as(&failing, Class::Transient);
    let (id, destination, attempts) = recovery(&effects).expect("a recovery");
    let first = Destination::RetryTopic {
        number: 1,
        delay: SECOND,
    };
    assert_eq!((destination, attempts), (first, 3));
    assert!(
        runs(&effects).is_empty(),
        "those behind it wait until it is safe"
    );
    let effects = container.safe(id);
    assert_eq!(offsets(&run(&effects)), [1]);
    let effects = container.succeeds(&run(&effects));
    assert_eq!(committed(&effects), Some(2));
}

#[test]
fn a_record_that_came_back_has_one_attempt_on_each_retry_topic() {
    let mut container = Container::new(with_topics());
    let returned = run(&container.polls(P, vec![back(0, Duration::ZERO)]));
    let effects = container.fails_as(&returned, Class::Transient);
    let second = Destination::RetryTopic {
        number: 2,
        delay: 10 * SECOND,
    };
    assert_eq!(told(&effects), Some((4, Settlement::Recover(second))));
    let (id, ..) = recovery(&effects).expect("a recovery");
    container.safe(id);
    let last = Came {
        retries: 2,
        earlier: 4,
        ..back(1, Duration::ZERO)
    };
    let returned = run(&container.polls(P, vec![last]));
    let effects = container.fails_as(&returned, Class::Transient);
    let (_, destination, attempts) = recovery(&effects).expect("a recovery");
    assert_eq!((destination, attempts), (Destination::DeadLetter, 5));
}

#[test]
fn a_record_is_not_handled_before_it_is_due() {
    let mut container = Container::new(with_topics());
    let effects = container.polls(P, vec![back(0, 5 * SECOND)]);
    assert!(runs(&effects).is_empty());
    assert_eq!(container.engine.deadline(), Some(START + 5 * SECOND));
    assert!(runs(&container.passes(Duration::from_millis(4_999))).is_empty());
    let due = run(&container.passes(Duration::from_millis(1)));
    assert_eq!((due.attempt, offsets(&due)), (1, vec![0]));
}

#[test]
fn a_wait_holds_up_its_own_partition_only() {
    let mut container = Container::new(with_topics());
    container.polls(P, vec![back(0, 5 * SECOND)]);
    assert_eq!(offsets(&run(&container.polls(Q, vec![plain(0)]))), [0]);
}

#[test]
fn of_records_polled_together_those_that_are_due_go_ahead() {
    let mut container = Container::new(with_topics());
    let polled = vec![
        back(0, Duration::ZERO),
        back(1, Duration::ZERO),
        back(2, 2 * SECOND),
        back(3, 2 * SECOND),
    ];
    let due = run(&container.polls(P, polled));
    assert_eq!(offsets(&due), [0, 1]);
    assert!(runs(&container.succeeds(&due)).is_empty());
    assert_eq!(offsets(&run(&container.passes(2 * SECOND))), [2, 3]);
}

#[test]
fn a_record_that_is_not_due_is_no_probe() {
    let mut container = Container::new(Config {
        probe: Policy::fixed(SECOND),
        ..with_topics()
    });
    let first = run(&container.polls(Q, vec![plain(0)]));
    container.fails_as(&first, Class::Unavailable);
    container.polls(P, vec![back(0, 5 * SECOND)]);
    let probe = run(&container.passes(SECOND));
    assert_eq!(probe.partition, Q);
    container.succeeds(&probe);
    assert_eq!(run(&container.passes(4 * SECOND)).partition, P);
}

#[test]
fn an_outage_met_while_nothing_is_due_is_probed_when_something_is() {
    let mut container = Container::new(Config {
        probe: Policy::fixed(SECOND),
        ..with_topics()
    });
    let polled = vec![back(0, Duration::ZERO), back(1, 60 * SECOND)];
    let first = run(&container.polls(P, polled));
    container.fails_as(&first, Class::Unavailable);
    let probe = run(&container.passes(SECOND));
    container.succeeds(&probe);
    assert_eq!(offsets(&run(&container.passes(60 * SECOND))), [1]);
}

#[test]
fn a_partition_handed_over_in_the_middle_of_a_delay_does_not_wait_for_its_end() {
    let mut container = Container::new(with_topics());
    container.polls(P, vec![back(0, 3_600 * SECOND)]);
    let effects = container.on(Event::Revoke(vec![P]));
    let done = |effect: &Effect<Came>| matches!(effect, Effect::RevokeDone(_));
    assert!(effects.iter().any(done), "{effects:?}");
    assert_eq!(committed(&effects), None);
}

#[test]
fn a_partition_taken_over_in_the_middle_of_a_delay_goes_on_when_it_ends() {
    let mut before = Container::new(with_topics());
    before.polls(P, vec![back(0, 5 * SECOND)]);
    before.on(Event::Lost(vec![P]));
    // The next owner reads it again, and knows when it is due.
    let mut after = Container::new(with_topics());
    after.passes(3 * SECOND);
    assert!(runs(&after.polls(P, vec![back(0, 5 * SECOND)])).is_empty());
    assert_eq!(offsets(&run(&after.passes(2 * SECOND))), [0]);
    assert!(runs(&before.passes(5 * SECOND)).is_empty());
}

#[test]
fn without_dead_letters_the_last_failure_stops_the_container() {
    let mut container = Container::new(Config {
        recover: false,
        ..with_topics()
    });
    let last = Came {
        retries: 2,
        ..back(0, Duration::ZERO)
    };
    let returned = run(&container.polls(P, vec![last]));
    let effects = container.fails_as(&returned, Class::Transient);
    assert_eq!(
        told(&effects).map(|(_, settlement)| settlement),
        Some(Settlement::Stop)
    );
    let stopped = |effect: &Effect<Came>| matches!(effect, Effect::Stopped { problem: Some(_) });
    assert!(effects.iter().any(stopped));
}
