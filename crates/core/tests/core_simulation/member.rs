//! The model of a shell: one container with its handlers.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;

use ackwell_core::Timestamp;
use ackwell_core::batch::Suspects;
use ackwell_core::engine::{self, Config, Engine, RunId};

use crate::acks::Acks;
use crate::manners::{Away, Tries};
use crate::parked::{Retrying, Stay};
use crate::reading::Unreadable;

#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Record {
    pub offset: i64,
    pub key: Option<u64>,
    /// Where it was first written.
    pub origin: (u32, i64),
    /// How many retry topics it has passed.
    pub retries: u32,
    /// How often it was tried before it came here.
    pub earlier: u32,
    /// When it may be handled, in milliseconds.
    pub due: Option<u64>,
}

impl fmt::Debug for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.key {
            Some(key) => write!(f, "{}(key {key})", self.offset),
            None => write!(f, "{}(no key)", self.offset),
        }
    }
}

impl engine::Record for Record {
    fn offset(&self) -> i64 {
        self.offset
    }

    fn key_hash(&self) -> Option<u64> {
        self.key
    }

    fn size(&self) -> usize {
        10
    }

    fn due(&self) -> Option<Timestamp> {
        self.due.map(|at| Timestamp::from_millis(at as i64))
    }

    fn retries(&self) -> u32 {
        self.retries
    }

    fn earlier_attempts(&self) -> u32 {
        self.earlier
    }
}

/// One life of one container. A restart gives a new one.
pub(crate) struct Member {
    pub engine: Engine<Record>,
    pub alive: bool,
    pub stopping: bool,
    pub owned: BTreeMap<u32, Tenure>,
    pub runs: BTreeMap<RunId, Run>,
    /// Retries of parked records.
    pub retries: BTreeMap<RunId, Retrying>,
    /// What it knows of parked records, by partition.
    pub stays: BTreeMap<u32, Stay>,
    /// What its handlers have to acknowledge.
    pub acks: BTreeMap<RunId, Acks>,
    /// Callers who wait for the commit of what they acknowledged: its partition, assignment and
    /// offset.
    pub waiters: BTreeMap<u64, (u32, u64, i64)>,
    /// What the container says is wrong with it.
    pub problem: Option<String>,
    /// When the engine is told the time next, unless something happens before.
    pub tick_at: Option<u64>,
    /// Whether it was told to pause.
    pub paused: bool,
    /// Partitions that it was told to pause; stays so when they go and come back.
    pub paused_partitions: BTreeSet<u32>,
    /// Its view of an outage.
    pub away: Option<Away>,
    /// A list that was handed out before its time: its partition and length.
    pub early: Option<(u32, usize)>,
    /// The outage may go on unseen: nothing is left to handle, but something is parked.
    pub away_unseen: bool,
    /// What may have begun as the probe of such an outage.
    pub unseen_probe: Option<RunId>,
    /// When partitions that it was asked for must have been handed over.
    pub hand_over_by: u64,
    /// When a commit of it was last refused, or its reply lost or late.
    pub commit_trouble: Option<u64>,
    /// Ticks in a row that changed nothing and are due again at once.
    pub spins: u32,
}

impl Member {
    pub(crate) fn new(config: Config) -> Self {
        Member {
            engine: Engine::new(config),
            alive: true,
            stopping: false,
            owned: BTreeMap::new(),
            runs: BTreeMap::new(),
            retries: BTreeMap::new(),
            stays: BTreeMap::new(),
            acks: BTreeMap::new(),
            waiters: BTreeMap::new(),
            problem: None,
            tick_at: None,
            paused: false,
            paused_partitions: BTreeSet::new(),
            away: None,
            away_unseen: false,
            unseen_probe: None,
            early: None,
            hand_over_by: 0,
            commit_trouble: None,
            spins: 0,
        }
    }

    /// The partition of a run, if it was not given away or begun anew since.
    pub(crate) fn current(&mut self, partition: u32, tenure: u64) -> Option<&mut Tenure> {
        let found = self.owned.get_mut(&partition)?;
        (found.number == tenure).then_some(found)
    }
}

/// A partition that a member owns and reads: from an assignment, a seek or a rewind to the next.
#[derive(Debug, Default)]
pub(crate) struct Tenure {
    pub number: u64,
    /// Which assignment it belongs to.
    pub assignment: u64,
    /// Where the next poll reads.
    pub position: i64,
    /// The offset behind everything that the engine was told of since it began to read.
    pub next: Option<i64>,
    /// Whether the engine learned what was committed before.
    pub informed: bool,
    /// The same as `next` since the assignment.
    pub reached: Option<i64>,
    pub paused: bool,
    /// It was assigned, and that has not been announced.
    pub withheld: bool,
    /// Its next record can't be read.
    pub unreadable: Option<Unreadable>,
    /// When a parked record is due, as the engine was told.
    pub retry_at: Option<u64>,
    /// When records came that were not handed out.
    pub arrived: BTreeMap<i64, u64>,
    /// Up to where its records had come when a probe was last taken of them.
    pub probed_to: Option<i64>,
    /// Where it shall be read on from, passing over what is unsettled before.
    pub seeks_on: Option<i64>,
    /// When a seek that it was told of may cancel what is in work.
    pub seeks_by: Option<u64>,
    /// It was asked back, or the container stops: what is in work may be cancelled from then on.
    pub drain: Option<Drain>,
    pub tries: Tries,
    /// What the engine was given and does not know to be settled.
    pub outstanding: BTreeSet<i64>,
    /// What was handled and waits for its acknowledgement.
    pub open: BTreeSet<i64>,
    /// What it knows to be settled, and as the how manieth it was told so.
    pub reported: BTreeMap<i64, u64>,
    /// How much it was told to be settled.
    pub reports: u64,
    /// How much of that a commit says that the broker has confirmed.
    pub confirmed: u64,
    /// Where its polls began.
    pub polls: BTreeSet<i64>,
    /// What an earlier owner settled beyond its position, as the metadata says.
    pub known: BTreeSet<i64>,
}

/// A partition on its way out.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Drain {
    pub since: u64,
    pub cancel_from: u64,
    /// The engine was told something since.
    pub cancelled: bool,
}

impl Tenure {
    /// The engine reads anew.
    pub(crate) fn restart(&mut self, number: u64, next: i64) {
        self.number = number;
        self.reached = self.reached.max(self.next);
        self.next = Some(next);
        self.tries.clear();
        self.outstanding.clear();
        self.open.clear();
        self.reported.clear();
        self.polls.clear();
        self.known.clear();
        self.seeks_by = None;
        self.unreadable = None;
        self.retry_at = Some(0);
        self.arrived.clear();
        self.probed_to = None;
    }

    /// The engine is told that these are settled.
    pub(crate) fn report(&mut self, offsets: impl IntoIterator<Item = i64>) {
        for offset in offsets {
            self.outstanding.remove(&offset);
            self.open.remove(&offset);
            self.reports += 1;
            self.reported.insert(offset, self.reports);
        }
    }
}

/// A worker with its run.
#[derive(Debug)]
pub(crate) struct Run {
    pub partition: u32,
    pub tenure: u64,
    pub records: VecDeque<Record>,
    pub attempt: u32,
    pub halted: bool,
    /// How many from the front are in work.
    pub in_work: usize,
    pub suspects: Suspects,
    /// How many records the list had that failed last without naming one.
    pub failed_list: usize,
    /// Settled and not reported; in a manual ack mode, handled.
    pub unreported: Vec<Record>,
    /// How many of its records are done with.
    pub done: usize,
}
