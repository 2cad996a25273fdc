//! What the engine is told.

use std::fmt;
use std::ops::Range;
use std::time::Duration;

use crate::Timestamp;
use crate::offset::CommitOffset;
use crate::settle::{Class, Settlement};

/// A partition of a topic, numbered by the shell. The number stays the same over rebalances.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PartitionId(pub u32);

/// One dispatch or recovery; never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RunId(pub u64);

/// One commit request; never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CommitId(pub u64);

/// A partition that the container owns from now on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assigned {
    /// Which one.
    pub partition: PartitionId,
    /// The group's committed position; `None` if there is none.
    pub position: Option<CommitOffset>,
    /// The metadata beside it.
    pub metadata: String,
    /// The snapshot that it refers to, if it refers to one and it was found.
    pub snapshot: Option<Vec<u8>>,
}

/// Why an attempt failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// What decides.
    pub class: Class,
    /// What dead letters and health say.
    pub summary: String,
    /// Which of the container's policies repeats it: 0 is [`Config::retry`](super::Config::retry),
    /// `n` the `n`th of [`Config::retry_for`](super::Config::retry_for), from 1. Only transient
    /// failures are repeated by a policy.
    pub policy: usize,
    /// The wait that the handler asks for, in place of the policy's.
    pub retry_after: Option<Duration>,
}

impl Failure {
    /// A failure without further wishes.
    pub fn new(class: Class, summary: impl Into<String>) -> Self {
        Failure {
            class,
            summary: summary.into(),
            policy: 0,
            retry_after: None,
        }
    }
}

/// How a record failed first, where it has failed more often since it was polled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FirstFailure {
    /// When.
    pub at: Timestamp,
    /// Of which class that failure was.
    pub class: Class,
    /// What went wrong.
    pub reason: String,
}

impl FirstFailure {
    /// This failure, at this time.
    pub fn of(failure: &Failure, at: Timestamp) -> Self {
        FirstFailure {
            at,
            class: failure.class,
            reason: failure.summary.clone(),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.summary, self.class)
    }
}

/// Something has happened.
#[derive(Debug, Clone)]
pub enum Event<R> {
    /// Partitions are owned from now on.
    Assigned(Vec<Assigned>),
    /// Partitions shall be handed over; answered by [`RevokeDone`](super::Effect::RevokeDone).
    Revoke(Vec<PartitionId>),
    /// Partitions are gone already and may belong to somebody else. Answered like a revoke, at
    /// once and without a commit.
    Lost(Vec<PartitionId>),
    /// Records were polled, in the order of their offsets.
    Polled {
        /// Where.
        partition: PartitionId,
        /// The records; there may be none.
        records: Vec<R>,
        /// Where the next poll goes on; offsets before it that did not come are gaps.
        next: CommitOffset,
    },
    /// The next `settled` records of a run are settled.
    Progress {
        /// Which run.
        run: RunId,
        /// How many more.
        settled: usize,
    },
    /// Records of a run are settled although one before them is not: of a list, that one failed.
    /// They are given back by no [`End`].
    SettledBehind {
        /// Which run.
        run: RunId,
        /// Their offsets, in order.
        offsets: Vec<i64>,
    },
    /// A run has ended.
    Finished {
        /// Which run.
        run: RunId,
        /// How.
        end: End<R>,
    },
    /// An attempt has failed in a run that goes on all the same: the record was or stays parked,
    /// or is given up.
    AttemptFailed {
        /// Which run or retry.
        run: RunId,
        /// The record.
        offset: i64,
        /// Why.
        failure: Failure,
        /// Which attempt it was, from 1.
        attempt: u32,
        /// What follows.
        settlement: Settlement,
    },
    /// A parked record of the partition is due at this time.
    RetryAt {
        /// Where the record comes from.
        partition: PartitionId,
        /// When it is due.
        at: Timestamp,
    },
    /// A [`Retry`](super::Effect::Retry) has ended.
    Retried {
        /// Which one.
        run: RunId,
        /// When the next parked record is due.
        next: Option<Timestamp>,
        /// Why it could not go on: the class is `Unavailable` or `Stop`.
        failure: Option<Failure>,
        /// What health says, although it went on.
        problem: Option<String>,
    },
    /// In a manual ack mode, before a run's [`Event::Finished`]: its first records, as many as
    /// these, were handled. They wait for their acknowledgements, unless those have come already.
    Handled {
        /// Which run.
        run: RunId,
        /// The handled ones.
        records: Vec<R>,
    },
    /// Records of a run were acknowledged.
    Acknowledged {
        /// Which run.
        run: RunId,
        /// Their places in it, from 0.
        places: Vec<Range<usize>>,
        /// Places whose callers want an [`Answer`](super::Effect::Answer) when the broker knows of
        /// their settlement, with the numbers to call them by.
        waiters: Vec<(usize, u64)>,
    },
    /// A handled record of a run was refused.
    Nacked {
        /// Which run.
        run: RunId,
        /// Its place in it, from 0.
        place: usize,
        /// How.
        nack: Nack,
    },
    /// The answer to [`Close`](super::Effect::Close): no acknowledgement of this run comes any more.
    Closed {
        /// Which run.
        run: RunId,
    },
    /// A recovery has ended: the record is safe elsewhere, or that failed for this reason.
    Recovered {
        /// Which recovery.
        recovery: RunId,
        /// Whether it is safe.
        result: Result<(), String>,
    },
    /// A commit's [`Snapshot::Write`](super::Snapshot::Write) is durable, and its position was sent
    /// with a reference to it; comes before the answer.
    Stored {
        /// Which commit.
        commit: CommitId,
        /// The snapshot's partition.
        partition: PartitionId,
        /// Where the store has put it.
        place: Vec<u8>,
    },
    /// The broker does not take so much metadata beside a position; comes before the answer to the
    /// commit. From now on there is half as much.
    MetadataRefused,
    /// A commit was answered.
    CommitDone {
        /// Which commit.
        commit: CommitId,
        /// What the broker said.
        result: Result<(), String>,
    },
    /// Read on from exactly here, as soon as the records in work are finished or
    /// [`revoke_drain`](super::Config::revoke_drain) has passed. What is unsettled before it is
    /// passed over on purpose; what is settled behind it is handled again. Ignored if the
    /// partition is not [active](super::Engine::is_active).
    Seek {
        /// Where.
        partition: PartitionId,
        /// The next offset to read.
        to: CommitOffset,
    },
    /// Handle nothing new until [`Event::Resume`].
    Pause,
    /// Ends a [`Event::Pause`].
    Resume,
    /// Handle nothing new of these partitions, owned or not, until [`Event::ResumePartitions`]:
    /// one that goes and comes back is still paused.
    PausePartitions(Vec<PartitionId>),
    /// Ends a [`Event::PausePartitions`].
    ResumePartitions(Vec<PartitionId>),
    /// Handle nothing of these partitions yet: their assignment is being announced. Forgotten
    /// when they go.
    Hold(Vec<PartitionId>),
    /// Ends a [`Event::Hold`].
    Release(Vec<PartitionId>),
    /// These partitions were told that they go, see [`Flush`](super::Effect::Flush).
    Flushed(Vec<PartitionId>),
    /// The partition's next records can't be read. Nothing behind them is taken; the container is
    /// unhealthy until they come, or until a seek passes over them.
    Unreadable {
        /// Which partition.
        partition: PartitionId,
        /// Where it begins, if the client tells; used when no position is known yet.
        at: Option<CommitOffset>,
        /// What health says.
        reason: String,
        /// Whether it makes sense to try again.
        again: bool,
    },
    /// Drain, commit, stop; answered by [`Stopped`](super::Effect::Stopped).
    Stop,
    /// Time has passed.
    Tick,
}

/// How a handled record was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Nack {
    /// It shall be handled again after this time. It was no failure, and uses up no attempt.
    After(Duration),
    /// Its acknowledgement was dropped: a transient failure.
    Dropped,
}

/// How a run ended. Records that the run did not report by [`Event::Progress`] and that are not
/// given back here are settled.
#[derive(Debug, Clone)]
pub enum End<R> {
    /// All of its records are settled.
    Complete,
    /// The records before `record` are settled, it failed, and nothing was done with the rest.
    Failed {
        /// Why.
        failure: Failure,
        /// Which one.
        record: R,
        /// Those behind it.
        rest: Vec<R>,
    },
    /// The records before `rest` are settled; the others can't be taken on now, although nothing
    /// failed. They are kept and offered again a little later.
    Held {
        /// What health says.
        reason: String,
        /// Those that were not handled.
        rest: Vec<R>,
    },
    /// It was halted or cancelled: the records before `rest` are settled.
    Cancelled {
        /// Those that were not handled, or in the middle of it.
        rest: Vec<R>,
    },
}
