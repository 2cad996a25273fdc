//! What users of Spring for Apache Kafka complain about, a test each, as far as the engine decides
//! it; `container_spring.rs` has those that need a broker, `sql_spring.rs` those with a database. Numbers are issues of
//! <https://github.com/spring-projects/spring-kafka>.
//!
//! | complaint | ruled out here, and |
//! |---|---|
//! | #4272 | here; `container_verdicts.rs`, where a dead letter fits in no way |
//! | #2172, #4523 | `app_dlq.rs`: dead letters are replayed by the library and the command line |
//! | #4371 | here; `container_spring.rs` |
//! | #4436 | here |
//! | #3295, #4258, #4342 | here |
//! | #4504 | here; `container_ack.rs`, where acknowledgements are dropped |
//! | #2340, #3703 | here; `container_spring.rs` |
//! | #2525 | here; `container_retry_topics.rs` |
//! | #1424, #1612, #1998 | here, for owners that are fenced |
//! | #1287, #4040 | `container_verdicts.rs`: poison of every kind leaves its neighbours alone |
//! | #850, #3948 | here; `container_spring.rs` |
//! | #1480, #1716 | here; `container_spring.rs` |
//! | #3790, #1699, #2934 | `sql_spring.rs`: the outbox is in the transaction, and so is every attempt |
//! | #2699 | `container_retry_topics.rs`: batch listeners have retry topics |
//! | #3712 | `container_spring.rs` |
//! | #731 | `container_spring.rs` |
//! | #3872 | `sql_spring.rs` |
#![allow(clippy::expect_used, reason = "a test may fail")]

use std::time::Duration;

use ackwell_core::commit::AckMode;
use ackwell_core::engine::{
    Assigned, CommitId, Config, Effect, End, Engine, Event, Failure, Nack, PartitionId, Record,
    RunId,
};
use ackwell_core::offset::CommitOffset;
use ackwell_core::{Class, Concurrency, RetryPolicy, Timestamp};

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Rec {
    offset: i64,
    key: u64,
    due: Option<Timestamp>,
}

impl Record for Rec {
    fn offset(&self) -> i64 {
        self.offset
    }

    fn key_hash(&self) -> Option<u64> {
        Some(self.key)
    }

    fn size(&self) -> usize {
        10
    }

    fn due(&self) -> Option<Timestamp> {
        self.due
    }
}

/// Records of these offsets, all of one key.
fn records(offsets: impl IntoIterator<Item = i64>) -> Vec<Rec> {
    let record = |offset| Rec {
        offset,
        key: 0,
        due: None,
    };
    offsets.into_iter().map(record).collect()
}

fn assigned(partition: u32, position: i64) -> Assigned {
    Assigned {
        partition: PartitionId(partition),
        position: Some(CommitOffset(position)),
        metadata: String::new(),
        snapshot: None,
    }
}

/// An engine, a clock, and everything that it has asked for.
struct Container {
    engine: Engine<Rec>,
    now: Timestamp,
}

impl Container {
    /// It owns partitions 0 up to `partitions`, from offset 0 on.
    fn new(partitions: u32, config: Config) -> Self {
        let mut container = Container {
            engine: Engine::new(config),
            now: Timestamp::from_millis(1_000),
        };
        let owned = (0..partitions).map(|id| assigned(id, 0)).collect();
        container.on(Event::Assigned(owned));
        container
    }

    fn on(&mut self, event: Event<Rec>) -> Vec<Effect<Rec>> {
        self.engine.on_event(self.now, event);
        std::iter::from_fn(|| self.engine.poll_effect()).collect()
    }

    fn polls(&mut self, partition: u32, records: Vec<Rec>, next: i64) -> Vec<Effect<Rec>> {
        self.on(Event::Polled {
            partition: PartitionId(partition),
            records,
            next: CommitOffset(next),
        })
    }

    fn passes(&mut self, time: Duration) -> Vec<Effect<Rec>> {
        self.now += time;
        self.on(Event::Tick)
    }

    fn completes(&mut self, run: RunId) -> Vec<Effect<Rec>> {
        let end = End::Complete;
        self.on(Event::Finished { run, end })
    }

    /// The first of these records fails.
    fn fails(&mut self, run: RunId, class: Class, mut records: Vec<Rec>) -> Vec<Effect<Rec>> {
        let record = records.remove(0);
        let end = End::Failed {
            failure: Failure::new(class, "no"),
            record,
            rest: records,
        };
        self.on(Event::Finished { run, end })
    }

    /// In a manual ack mode, handlers return `Ok`.
    fn handles(&mut self, run: RunId, records: Vec<Rec>) -> Vec<Effect<Rec>> {
        let mut effects = self.on(Event::Handled { run, records });
        effects.extend(self.completes(run));
        effects
    }

    fn answers(&mut self, effects: &[Effect<Rec>]) -> Vec<Effect<Rec>> {
        let commit = commit(effects).expect("a commit").0;
        let result = Ok(());
        self.on(Event::CommitDone { commit, result })
    }
}

type Dispatched = (RunId, u32, Vec<Rec>);

fn runs(effects: &[Effect<Rec>]) -> Vec<Dispatched> {
    let dispatched = effects.iter().filter_map(|effect| match effect {
        Effect::Dispatch {
            run,
            attempt,
            records,
            ..
        } => Some((*run, *attempt, records.clone())),
        _ => None,
    });
    dispatched.collect()
}

fn run(effects: &[Effect<Rec>]) -> Dispatched {
    runs(effects).into_iter().next().expect("a run")
}

/// A commit's number, and its positions by partition.
fn commit(effects: &[Effect<Rec>]) -> Option<(CommitId, Vec<(u32, i64)>)> {
    effects.iter().find_map(|effect| match effect {
        Effect::Commit { commit, positions } => {
            let at = positions.iter().map(|at| (at.partition.0, at.offset.0));
            Some((*commit, at.collect()))
        }
        _ => None,
    })
}

fn recovery(effects: &[Effect<Rec>]) -> Option<RunId> {
    effects.iter().find_map(|effect| match effect {
        Effect::Recover { recovery, .. } => Some(*recovery),
        _ => None,
    })
}

fn problem(effects: &[Effect<Rec>]) -> Option<&str> {
    effects.iter().find_map(|effect| match effect {
        Effect::Health { problem } => problem.as_deref(),
        _ => None,
    })
}

fn is_handed_over(effects: &[Effect<Rec>]) -> bool {
    let done = |effect: &Effect<Rec>| matches!(effect, Effect::RevokeDone(_));
    effects.iter().any(done)
}

fn at_once() -> Config {
    Config {
        commit_gap: Duration::ZERO,
        ..Config::default()
    }
}

/// #4272: a recoverer that fails sends the record to the handler again, forever.
#[test]
fn a_dead_letter_that_fails_is_written_again_and_the_handler_is_left_alone() {
    let mut container = Container::new(1, at_once());
    let (id, _, polled) = run(&container.polls(0, records(0..2), 2));
    let mut effects = container.fails(id, Class::Permanent, polled);
    let mut waits = Vec::new();
    for _ in 0..8 {
        let recovery = recovery(&effects).expect("the dead letter is written again");
        let result = Err("the topic is read-only".to_owned());
        let failed = container.on(Event::Recovered { recovery, result });
        assert_eq!(runs(&failed), [], "the handler is not called again");
        let deadline = container.engine.deadline().expect("another try");
        waits.push(deadline.since(container.now));
        effects = container.passes(deadline.since(container.now));
    }
    assert!(waits[4] > 4 * waits[0], "it slows down: {waits:?}");
    assert!(waits[7] <= Duration::from_secs(33), "and does not give up");
}

/// #4371: a partition that goes well resets the attempts of one that does not, whose record is
/// then never dead-lettered.
#[test]
fn a_partition_that_goes_well_leaves_the_attempts_of_another_alone() {
    let config = Config {
        retry: RetryPolicy::fixed(SECOND).max_attempts(3),
        ..at_once()
    };
    let mut container = Container::new(2, config);
    let mut effects = container.polls(0, records(0..1), 1);
    for expected in 1..=3 {
        let (id, attempt, failing) = run(&effects);
        assert_eq!(attempt, expected);
        let offset = i64::from(expected);
        let (good, ..) = run(&container.polls(1, records([offset]), offset + 1));
        container.completes(good);
        effects = container.fails(id, Class::Transient, failing);
        if expected < 3 {
            effects = container.passes(SECOND);
        }
    }
    assert!(
        recovery(&effects).is_some(),
        "the third attempt was its last"
    );
}

/// #4436: the failure of one record commits earlier ones that parallel work has not finished.
#[test]
fn a_failure_commits_no_earlier_record_of_another_lane_that_is_still_in_work() {
    let config = Config {
        concurrency: Concurrency::ByKey(2),
        commit: AckMode::Record,
        ..at_once()
    };
    let mut container = Container::new(1, config);
    let mut polled = records(0..4);
    polled[0].key = 1;
    let dispatched = runs(&container.polls(0, polled, 4));
    let (other, _, of_other) = dispatched
        .into_iter()
        .find(|(_, _, records)| records.len() == 3)
        .expect("the other lane");
    container.on(Event::Progress {
        run: other,
        settled: 1,
    });
    let failed = container.fails(other, Class::Permanent, of_other[1..].to_vec());
    let at = commit(&failed).map(|(_, at)| at);
    assert_eq!(at.unwrap_or_default(), [], "offset 0 is in work");
    assert_eq!(
        container.engine.position(PartitionId(0)),
        Some(CommitOffset(0))
    );
}

/// #3295, #4258, #4342: acknowledgements out of order wait forever for the offsets of transaction
/// markers, or of records that compaction has removed, and the partition stays paused.
#[test]
fn acknowledgements_out_of_order_pass_gaps_and_their_partition_goes_on() {
    let config = Config {
        commit: AckMode::Manual,
        queued_records: 3,
        ..at_once()
    };
    let mut container = Container::new(1, config);
    let effects = container.polls(0, records([2, 5, 9]), 12);
    let paused = |effect: &Effect<Rec>| matches!(effect, Effect::Pause(_));
    assert!(effects.iter().any(paused), "its queue is full");
    let (id, _, polled) = run(&effects);
    container.handles(id, polled);
    let acknowledge = |places| Event::Acknowledged {
        run: id,
        places: vec![places],
        waiters: Vec::new(),
    };
    let mut effects = container.on(acknowledge(2..3));
    effects.extend(container.on(acknowledge(0..1)));
    effects.extend(container.on(acknowledge(1..2)));
    let resumed = |effect: &Effect<Rec>| matches!(effect, Effect::Resume(_));
    assert!(effects.iter().any(resumed));
    assert_eq!(
        container.engine.position(PartitionId(0)),
        Some(CommitOffset(12)),
        "gaps before, between and behind are passed"
    );
}

/// #4504: of two records of one partition that fail while others are acknowledged out of order, one
/// is lost.
#[test]
fn two_records_of_one_partition_that_are_refused_both_come_again() {
    let config = Config {
        commit: AckMode::ManualImmediate,
        retry: RetryPolicy::fixed(SECOND).max_attempts(2),
        ..at_once()
    };
    let mut container = Container::new(1, config);
    let (id, _, polled) = run(&container.polls(0, records(0..4), 4));
    container.handles(id, polled);
    for place in [2, 0] {
        let nack = Nack::Dropped;
        container.on(Event::Nacked {
            run: id,
            place,
            nack,
        });
    }
    let effects = container.on(Event::Acknowledged {
        run: id,
        places: vec![1..2, 3..4],
        waiters: Vec::new(),
    });
    container.answers(&effects);
    let (first, attempt, again) = run(&container.passes(SECOND));
    assert_eq!((attempt, again.clone()), (2, records([0])));
    let (_, attempt, again) = run(&container.handles(first, again));
    assert_eq!((attempt, again), (2, records([2])));
    assert_eq!(
        container.engine.position(PartitionId(0)),
        Some(CommitOffset(0)),
        "nothing is committed past them"
    );
}

/// #2340, #3703: a rebalance during a retry resumes what was paused, discards polled records or
/// skips them.
#[test]
fn a_rebalance_during_a_retry_keeps_its_record_its_wait_and_what_is_behind_it() {
    let config = Config {
        retry: RetryPolicy::fixed(10 * SECOND),
        queued_records: 3,
        ..at_once()
    };
    let mut container = Container::new(2, config);
    let (id, _, polled) = run(&container.polls(0, records(0..3), 3));
    container.fails(id, Class::Transient, polled);
    container.passes(SECOND);
    let mut effects = container.on(Event::Assigned(vec![assigned(2, 0)]));
    effects.extend(container.on(Event::Revoke(vec![PartitionId(1)])));
    let resumed = |effect: &Effect<Rec>| matches!(effect, Effect::Resume(_));
    assert!(!effects.iter().any(resumed), "its queue is still full");
    assert_eq!(runs(&effects), [], "its wait is not over");
    assert_eq!(runs(&container.passes(8 * SECOND)), []);
    let (_, attempt, again) = run(&container.passes(SECOND));
    assert_eq!((attempt, again), (2, records(0..3)));
}

/// #2525: a retry partition that changes its owner in the middle of a delay never resumes.
#[test]
fn a_delay_goes_on_at_the_next_owner_and_ends_on_time() {
    let due = Timestamp::from_millis(31_000);
    let delayed = || {
        let mut delayed = records(0..1);
        delayed[0].due = Some(due);
        delayed
    };
    let mut first = Container::new(1, at_once());
    assert_eq!(runs(&first.polls(0, delayed(), 1)), []);
    first.passes(10 * SECOND);
    let revoked = first.on(Event::Revoke(vec![PartitionId(0)]));
    assert!(is_handed_over(&revoked), "nothing is in work");

    let mut second = Container::new(1, at_once());
    second.now = first.now;
    assert_eq!(runs(&second.polls(0, delayed(), 1)), []);
    assert_eq!(second.engine.deadline(), Some(due));
    assert_eq!(runs(&second.passes(20 * SECOND - MS)), [], "not early");
    assert_eq!(run(&second.passes(MS)).2, delayed());
}

/// #1424, #1612, #1998: after fencing, records are lost, skipped, or retried forever.
#[test]
fn an_owner_that_was_fenced_neither_commits_nor_goes_on_and_starts_where_the_group_is() {
    let mut container = Container::new(1, at_once());
    let (id, _, polled) = run(&container.polls(0, records(0..3), 3));
    container.on(Event::Progress {
        run: id,
        settled: 1,
    });
    let lost = container.on(Event::Lost(vec![PartitionId(0)]));
    assert_eq!(commit(&lost), None);
    let mut effects = container.on(Event::Assigned(vec![assigned(0, 1)]));
    effects.extend(container.polls(0, records(1..3), 3));
    assert_eq!(runs(&effects), [], "the run from before is still in work");
    let ended = container.fails(id, Class::Transient, polled[1..].to_vec());
    assert_eq!(commit(&ended), None, "its outcome no longer counts");
    assert_eq!((run(&ended).1, run(&ended).2), (1, records(1..3)));
}

/// #850, #3948: a consumer that is dead looks healthy, or stopped for a wrong reason.
#[test]
fn a_container_that_stops_by_itself_says_why_and_stays_unhealthy() {
    let mut container = Container::new(1, at_once());
    let (id, _, polled) = run(&container.polls(0, records(0..1), 1));
    let effects = container.fails(id, Class::Stop, polled);
    assert_eq!(problem(&effects), Some("no (stop)"));
    let reason = effects.iter().find_map(|effect| match effect {
        Effect::Stopped { problem } => problem.as_deref(),
        _ => None,
    });
    assert_eq!(reason, Some("no (stop)"));
    assert_eq!(problem(&container.passes(60 * SECOND)), None, "no news");
}

/// #1480: a wait between attempts blocks the shutdown.
#[test]
fn a_stop_does_not_wait_for_a_retry() {
    let config = Config {
        retry: RetryPolicy::fixed(3_600 * SECOND),
        ..at_once()
    };
    let mut container = Container::new(1, config);
    let (id, _, polled) = run(&container.polls(0, records(0..2), 2));
    container.fails(id, Class::Transient, polled);
    let effects = container.on(Event::Stop);
    let stopped = |effect: &Effect<Rec>| matches!(effect, Effect::Stopped { problem: None });
    assert!(effects.iter().any(stopped));
    assert_eq!(commit(&effects), None, "and its record is kept");
}

/// #1716: a delay of 1 s takes 10 s.
#[test]
fn a_wait_of_a_second_ends_after_a_second() {
    let config = Config {
        retry: RetryPolicy::fixed(SECOND),
        ..at_once()
    };
    let mut container = Container::new(1, config);
    let (id, _, polled) = run(&container.polls(0, records(0..1), 1));
    container.fails(id, Class::Transient, polled);
    assert_eq!(container.engine.deadline(), Some(container.now + SECOND));
    assert_eq!(runs(&container.passes(SECOND - MS)), []);
    assert_eq!(run(&container.passes(MS)).1, 2);
}
