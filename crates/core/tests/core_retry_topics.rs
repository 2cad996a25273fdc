//! A container with retry topics under a seeded schedule of failures, crashes, outages and lost
//! answers: nothing is handled before it is due, nothing is lost, and every chain of retries ends.
//!
//! `ACKWELL_SEED=n cargo test --test core_retry_topics` replays one seed.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test may fail, and says how"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use ackwell_core::commit::AckMode;
use ackwell_core::engine::{
    self, Assigned, Config, Effect, End, Engine, Event, Failure, PartitionId, RunId,
};
use ackwell_core::offset::CommitOffset;
use ackwell_core::settle::Destination;
use ackwell_core::{Class, Concurrency, RetryPolicy, Timestamp};

const SEEDS: u64 = 300;
/// When faults end, in milliseconds; then everything must come to its end.
const CALM_AT: i64 = 3_000;
const END_AT: i64 = 60_000;
const IN_PLACE: u32 = 2;
const TOPICS: usize = 3;

#[derive(Debug, Clone)]
struct Record {
    offset: i64,
    /// Its offset in the origin.
    origin: i64,
    due: Option<Timestamp>,
    retries: u32,
    earlier: u32,
}

impl engine::Record for Record {
    fn offset(&self) -> i64 {
        self.offset
    }

    fn key_hash(&self) -> Option<u64> {
        Some(self.origin as u64 % 5)
    }

    fn size(&self) -> usize {
        10
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

/// splitmix64.
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ z >> 31) % bound
    }

    fn percent(&mut self, chance: u64) -> bool {
        self.below(100) < chance
    }
}

/// One partition of the origin (0) and one of each retry topic.
#[derive(Debug, Default, Clone)]
struct Log {
    records: Vec<Record>,
    committed: i64,
    fetched: i64,
    paused: bool,
}

struct World {
    dice: Dice,
    now: i64,
    logs: Vec<Log>,
    config: Config,
    engine: Engine<Record>,
    runs: BTreeMap<RunId, (u32, u32, Vec<Record>)>,
    recoveries: BTreeMap<RunId, (Record, Destination, u32)>,
    outage: bool,
    /// Origin offsets that took effect, or lie in the dead-letter topic.
    done: BTreeSet<i64>,
    crashes: u32,
    postponed: u32,
    dead: u32,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut dice = Dice(seed);
        let ms = |n: u64| Duration::from_millis(n);
        let config = Config {
            concurrency: if dice.percent(50) {
                Concurrency::ByPartition
            } else {
                Concurrency::ByKey(3)
            },
            retry: RetryPolicy::fixed(ms(dice.below(30))).max_attempts(IN_PLACE),
            retry_topics: (1..=TOPICS as u64).map(|n| ms(100 * n * n)).collect(),
            commit: if dice.percent(50) {
                AckMode::Batch
            } else {
                AckMode::Record
            },
            run_records: 1 + dice.below(20) as usize,
            queued_records: 2 + dice.below(40) as usize,
            commit_gap: ms(dice.below(5)),
            commit_wait: ms(200),
            probe: RetryPolicy::fixed(ms(40)),
            recovery: RetryPolicy::fixed(ms(30)),
            ..Config::default()
        };
        let records = (0..60).map(|offset| Record {
            offset,
            origin: offset,
            due: None,
            retries: 0,
            earlier: 0,
        });
        let mut logs = vec![Log::default(); 1 + TOPICS];
        logs[0].records = records.collect();
        let mut world = World {
            engine: Engine::new(config.clone()),
            dice,
            now: 0,
            logs,
            config,
            runs: BTreeMap::new(),
            recoveries: BTreeMap::new(),
            outage: false,
            done: BTreeSet::new(),
            crashes: 0,
            postponed: 0,
            dead: 0,
        };
        world.start();
        world
    }

    /// A container takes everything over, as after a crash or a rebalance.
    fn start(&mut self) {
        self.engine = Engine::new(self.config.clone());
        self.runs.clear();
        self.recoveries.clear();
        let mut assigned = Vec::new();
        for (id, log) in self.logs.iter_mut().enumerate() {
            log.fetched = log.committed;
            log.paused = false;
            assigned.push(Assigned {
                partition: PartitionId(id as u32),
                position: Some(CommitOffset(log.committed)),
                metadata: String::new(),
                snapshot: None,
            });
        }
        self.tell(Event::Assigned(assigned));
    }

    fn tell(&mut self, event: Event<Record>) {
        let now = Timestamp::from_millis(self.now);
        self.engine.on_event(now, event);
        while let Some(effect) = self.engine.poll_effect() {
            self.act(effect);
        }
    }

    fn act(&mut self, effect: Effect<Record>) {
        match effect {
            Effect::Dispatch {
                run,
                partition,
                attempt,
                records,
                ..
            } => {
                for record in &records {
                    let due = record.due.map_or(0, Timestamp::as_millis);
                    assert!(due <= self.now, "{record:?} is early by {}", due - self.now);
                }
                self.runs.insert(run, (partition.0, attempt, records));
            }
            Effect::Recover {
                recovery,
                record,
                destination,
                attempts,
                ..
            } => {
                self.recoveries
                    .insert(recovery, (record, destination, attempts));
            }
            Effect::Commit { commit, positions } => {
                let fails = !self.calm() && self.dice.percent(10);
                for position in positions.iter().filter(|_| !fails) {
                    let log = &mut self.logs[position.partition.0 as usize];
                    assert!(position.offset.0 >= log.committed || self.crashes > 0);
                    log.committed = position.offset.0;
                }
                let result = if fails { Err("no".to_owned()) } else { Ok(()) };
                let now = Timestamp::from_millis(self.now);
                self.engine
                    .on_event(now, Event::CommitDone { commit, result });
            }
            Effect::Pause(ids) => self.set_paused(&ids, true),
            Effect::Resume(ids) => self.set_paused(&ids, false),
            Effect::Stopped { problem } => panic!("it stopped: {problem:?}"),
            _ => {}
        }
    }

    fn set_paused(&mut self, ids: &[PartitionId], paused: bool) {
        for id in ids {
            self.logs[id.0 as usize].paused = paused;
        }
    }

    fn calm(&self) -> bool {
        self.now > CALM_AT
    }

    fn poll(&mut self) {
        for id in 0..self.logs.len() {
            let count = 1 + self.dice.below(30) as usize;
            let log = &mut self.logs[id];
            let from = log.fetched as usize;
            if log.paused || from >= log.records.len() {
                continue;
            }
            let to = log.records.len().min(from + count);
            let records = log.records[from..to].to_vec();
            log.fetched = to as i64;
            self.tell(Event::Polled {
                partition: PartitionId(id as u32),
                records,
                next: CommitOffset(to as i64),
            });
        }
    }

    /// One record of a run ends; the run with it if it failed.
    fn handle(&mut self) {
        let Some((run, (partition, attempt, mut records))) = self.runs.pop_first() else {
            return;
        };
        let record = records.remove(0);
        let Some(class) = self.outcome(&record, attempt) else {
            self.done.insert(record.origin);
            if records.is_empty() {
                return self.tell(Event::Finished {
                    run,
                    end: End::Complete,
                });
            }
            self.runs.insert(run, (partition, 1, records));
            return self.tell(Event::Progress { run, settled: 1 });
        };
        let failure = Failure::new(class, "by chance");
        self.tell(Event::Finished {
            run,
            end: End::Failed {
                failure,
                record,
                rest: records,
            },
        });
    }

    fn outcome(&mut self, record: &Record, attempt: u32) -> Option<Class> {
        if self.outage && !self.calm() {
            return Some(Class::Unavailable);
        }
        assert!(
            record.retries == 0 || attempt == 1,
            "{record:?} at attempt {attempt}"
        );
        // A tenth never succeeds, another fails now and then.
        match record.origin % 10 {
            3 => Some(Class::Transient),
            7 if self.dice.percent(60) => Some(Class::Transient),
            9 if record.origin == 9 => Some(Class::Permanent),
            _ => None,
        }
    }

    fn recover(&mut self) {
        let Some((recovery, (record, destination, attempts))) = self.recoveries.pop_first() else {
            return;
        };
        let result = if !self.calm() && self.dice.percent(30) {
            Err("no broker".to_owned())
        } else {
            self.write(&record, destination, attempts);
            Ok(())
        };
        // The answer may be lost with the container, after the record was written.
        if !self.calm() && self.dice.percent(10) {
            return self.crash();
        }
        self.tell(Event::Recovered { recovery, result });
    }

    fn write(&mut self, record: &Record, destination: Destination, attempts: u32) {
        match destination {
            Destination::DeadLetter => {
                let all = IN_PLACE + TOPICS as u32;
                assert!(
                    record.origin == 9 || attempts == all,
                    "{record:?} after {attempts}"
                );
                self.dead += 1;
                self.done.insert(record.origin);
            }
            Destination::RetryTopic { number, delay } => {
                assert_eq!(number, record.retries + 1);
                assert_eq!(attempts, IN_PLACE + number - 1);
                self.postponed += 1;
                let log = &mut self.logs[number as usize];
                log.records.push(Record {
                    offset: log.records.len() as i64,
                    due: Some(Timestamp::from_millis(self.now) + delay),
                    retries: number,
                    earlier: attempts,
                    ..record.clone()
                });
            }
            Destination::Parked => panic!("nothing parks here"),
        }
    }

    fn crash(&mut self) {
        self.crashes += 1;
        self.start();
    }

    fn step(&mut self) {
        match self.dice.below(100) {
            0..35 => self.handle(),
            35..60 => self.poll(),
            60..75 => self.recover(),
            75..77 if !self.calm() => self.crash(),
            77..79 => self.outage = !self.outage,
            _ => {
                let next = self.engine.deadline().map(Timestamp::as_millis);
                let jump = 1 + self.dice.below(20) as i64;
                self.now = match next {
                    Some(next) if self.dice.percent(50) => next.clamp(self.now, self.now + 500),
                    _ => self.now + jump,
                };
                self.tell(Event::Tick);
            }
        }
    }

    fn is_done(&self) -> bool {
        self.done.len() == self.logs[0].records.len()
            && self
                .logs
                .iter()
                .all(|log| log.committed == log.records.len() as i64)
    }
}

/// Says which seed it was when one fails.
struct Told(u64);

impl Drop for Told {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("replay with ACKWELL_SEED={}", self.0);
        }
    }
}

#[test]
fn nothing_is_early_or_lost_and_every_chain_of_retries_ends() {
    let one = std::env::var("ACKWELL_SEED")
        .ok()
        .and_then(|seed| seed.parse().ok());
    let seeds = one.map_or(0..SEEDS, |seed: u64| seed..seed + 1);
    let (mut crashes, mut postponed, mut dead) = (0, 0, 0);
    for seed in seeds {
        let _told = Told(seed);
        let mut world = World::new(seed);
        while !world.is_done() {
            world.step();
            let state: Vec<_> = world
                .logs
                .iter()
                .map(|log| (log.committed, log.records.len()))
                .collect();
            assert!(world.now < END_AT, "seed {seed} stalled: {state:?}");
        }
        crashes += world.crashes;
        postponed += world.postponed;
        dead += world.dead;
    }
    println!("{crashes} crashes, {postponed} postponed, {dead} dead letters");
    assert!(one.is_some() || (crashes > 0 && postponed > 0 && dead > 0));
}
