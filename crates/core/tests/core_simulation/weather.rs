//! What one seed stands for: how the containers are set up, and what goes wrong.
//!
//! Not everything goes wrong in every schedule. A fault that needs many quiet seconds is never
//! seen among daily crashes, so each seed draws its own part of the troubles.

use std::time::Duration;

use ackwell_core::commit::AckMode;
use ackwell_core::engine::Config;
use ackwell_core::ordered::{self, Terms};
use ackwell_core::{Concurrency, RetryPolicy};

use crate::dice::Dice;

macro_rules! troubles {
    ($($name:ident = $text:literal,)+) => {
        /// Something that can go wrong.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(crate) enum Trouble {
            $($name,)+
        }

        impl Trouble {
            pub(crate) const ALL: &[Trouble] = &[$(Trouble::$name,)+];

            pub(crate) fn name(self) -> &'static str {
                match self {
                    $(Trouble::$name => $text,)+
                }
            }
        }
    };
}

troubles! {
    Rebalance = "rebalance",
    Crash = "crash",
    Loss = "loss",
    Stop = "stop",
    Outage = "outage",
    Rewind = "rewind",
    Seek = "seek",
    Skip = "skip",
    Pause = "pause",
    PausePartition = "pause-partition",
    SlowHandler = "slow-handler",
    Transient = "transient",
    Permanent = "permanent",
    StopClass = "stop-class",
    RecoveryFails = "recovery-fails",
    CommitRefused = "commit-refused",
    LostReply = "lost-reply",
    LateReply = "late-reply",
    UnknownPosition = "unknown-position",
    RetryTopics = "retry-topics",
    AskedWait = "asked-wait",
    Acks = "acks",
    LateAck = "late-ack",
    EarlyAck = "early-ack",
    Nack = "nack",
    Gaps = "gaps",
    Lists = "lists",
    Fill = "fill",
    Ordered = "ordered",
    Announce = "announce",
    Damage = "damage",
}

impl Trouble {
    /// Those that strike at any moment; the others strike where something is done.
    pub(crate) const BY_CHANCE: &[Trouble] = &[
        Trouble::Rebalance,
        Trouble::Rebalance,
        Trouble::Crash,
        Trouble::Loss,
        Trouble::Stop,
        Trouble::Outage,
        Trouble::Outage,
        Trouble::Rewind,
        Trouble::Seek,
        Trouble::Skip,
        Trouble::Pause,
        Trouble::Pause,
        Trouble::PausePartition,
        Trouble::PausePartition,
        Trouble::Damage,
        Trouble::Damage,
    ];
}

/// A set of troubles.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Troubles(u64);

impl Troubles {
    pub(crate) fn has(self, trouble: Trouble) -> bool {
        self.0 & 1 << trouble as u64 != 0
    }

    #[must_use]
    pub(crate) fn with(self, trouble: Trouble) -> Self {
        Troubles(self.0 | 1 << trouble as u64)
    }

    pub(crate) fn named(names: &str) -> Self {
        let named = Trouble::ALL
            .iter()
            .filter(|trouble| names.split(',').any(|name| name.trim() == trouble.name()));
        named.fold(Troubles::default(), |set, trouble| set.with(*trouble))
    }

    pub(crate) fn names(self) -> String {
        let of = Trouble::ALL.iter().filter(|trouble| self.has(**trouble));
        of.map(|trouble| trouble.name())
            .collect::<Vec<_>>()
            .join(",")
    }
}

/// What a failing seed is narrowed to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Limits {
    /// When the faults are over at the latest, in milliseconds.
    pub calm_at: u64,
    /// Records of one partition that are produced at once, at most.
    pub produced: u64,
    /// What does not go wrong.
    pub without: Troubles,
}

impl Limits {
    /// No limits beyond those of every schedule.
    pub(crate) const NONE: Limits = Limits {
        calm_at: 4_000,
        produced: 40,
        without: Troubles(0),
    };
}

/// What a seed stands for.
#[derive(Debug, Clone)]
pub(crate) struct Weather {
    pub config: Config,
    pub partitions: u64,
    pub members: u64,
    pub calm_at: u64,
    pub produced: u64,
    /// How many times as often as usual things go wrong where something is done.
    pub force: u64,
    /// Handlers take lists.
    pub lists: bool,
    /// What is agreed for parked records.
    pub terms: Terms,
    troubles: Troubles,
}

impl Weather {
    pub(crate) fn new(dice: &mut Dice, limits: &Limits) -> Self {
        let drawn: Vec<_> = Trouble::ALL.iter().filter(|_| dice.percent(75)).collect();
        let drawn = drawn
            .into_iter()
            .filter(|trouble| !limits.without.has(**trouble));
        let troubles = drawn.fold(Troubles::default(), |set, trouble| set.with(*trouble));
        let (config, lists) = config(dice, troubles);
        Weather {
            troubles,
            config,
            lists,
            terms: terms(dice),
            partitions: dice.in_range(1, 4),
            members: dice.in_range(1, 3),
            calm_at: dice.in_range(300, 3_000).min(limits.calm_at),
            produced: dice.in_range(1, 40).min(limits.produced),
            force: dice.pick(&[1, 1, 1, 4, 10]),
        }
    }

    pub(crate) fn has(&self, trouble: Trouble) -> bool {
        self.troubles.has(trouble)
    }
}

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// Ack modes in which a handler's return settles its record.
const BY_RETURN: &[AckMode] = &[
    AckMode::Batch,
    AckMode::Batch,
    AckMode::Record,
    AckMode::Record,
    AckMode::Time(ms(50)),
    AckMode::Count(5),
    AckMode::CountOrTime(7, ms(80)),
];
/// Those in which its acknowledgement does.
const MANUAL: &[AckMode] = &[AckMode::Manual, AckMode::ManualImmediate];

/// What is agreed for parked records: now and then little room.
fn terms(dice: &mut Dice) -> Terms {
    let wait = ms(dice.in_range(0, 60));
    Terms {
        retry: RetryPolicy::exponential(wait, 2.0).max_attempts(dice.in_range(1, 6) as u32),
        recovery: RetryPolicy::fixed(ms(20)),
        limits: ordered::Limits {
            keys_max: dice.in_range(2, 20) as usize,
            records_per_key_max: dice.in_range(3, 60) as usize,
            records_max: dice.in_range(5, 100) as usize,
        },
    }
}

/// How a listener is set up, and whether its handler takes lists.
fn config(dice: &mut Dice, troubles: Troubles) -> (Config, bool) {
    let lanes = dice.in_range(1, 8) as u16;
    let topics = dice.percent(40) && troubles.has(Trouble::RetryTopics);
    let delays = {
        let topics = dice.in_range(1, 2);
        (0..topics).map(|_| ms(dice.in_range(0, 400))).collect()
    };
    let manual = dice.percent(30) && troubles.has(Trouble::Acks);
    let ordered = dice.percent(30) && troubles.has(Trouble::Ordered) && !manual && !topics;
    let lists = dice.percent(35) && troubles.has(Trouble::Lists) && !manual && !ordered;
    let commit = dice.pick(if manual { MANUAL } else { BY_RETURN });
    let strict = dice.percent(25) && matches!(commit, AckMode::Batch | AckMode::Record);
    let fills = lists && !strict && dice.percent(60) && troubles.has(Trouble::Fill);
    let fill_wait = ms(dice.in_range(1, 150));
    let retry = RetryPolicy::exponential(ms(dice.in_range(0, 40)), 2.0).max(ms(200));
    let config = Config {
        ordered,
        fill_wait: if fills { fill_wait } else { Duration::ZERO },
        hold_wait: Duration::from_millis(500),
        concurrency: if dice.percent(40) {
            Concurrency::ByPartition
        } else {
            Concurrency::ByKey(lanes)
        },
        retry: if dice.percent(80) {
            retry
                .max_attempts(dice.in_range(1, 4) as u32)
                .jitter(dice.pick(&[0.0, 0.2]))
        } else {
            retry.within(ms(dice.in_range(0, 300)))
        },
        retry_for: vec![RetryPolicy::fixed(ms(dice.in_range(1, 60))).max_attempts(3)],
        retry_topics: if topics { delays } else { Vec::new() },
        commit,
        strict_commits: strict,
        unacknowledged_limit: ms(dice.pick(&[50, 60_000])),
        recover: true,
        queued_records: dice.in_range(5, 100) as usize,
        queued_bytes: dice.in_range(50, 2_000) as usize,
        total_records: dice.pick(&[usize::MAX, 150]),
        total_bytes: usize::MAX,
        run_records: dice.in_range(1, 40) as usize,
        revoke_drain: ms(dice.in_range(0, 500)),
        stop_drain: ms(dice.in_range(0, 500)),
        cancel_wait: ms(100),
        flush_wait: dice.pick(&[None, Some(ms(50))]),
        commit_wait: ms(200),
        commit_gap: ms(dice.in_range(0, 20)),
        snapshots: lanes.is_multiple_of(2),
        metadata_bytes: dice.pick(&[0, 40, 200, 3_072]),
        probe: RetryPolicy::exponential(ms(20), 2.0).max(ms(200)),
        recovery: RetryPolicy::exponential(ms(20), 2.0).max(ms(200)),
        seed: dice.next(),
    };
    (config, lists)
}
