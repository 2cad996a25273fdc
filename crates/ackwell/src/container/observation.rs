//! What a container tells of itself.

use std::time::Duration;

use ackwell_core::Class;
use ackwell_core::settle::Settlement;

use super::notice::Notice;
use crate::observe::Tally;

/// Hears of what happens in a container: metrics and health hang on it. Called from the
/// container's own threads; must not block.
pub trait Observer: Send + Sync + 'static {
    /// Something has happened.
    fn observe(&self, observation: &Observation<'_>);
}

/// Hears nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct Silent;

impl Observer for Silent {
    fn observe(&self, _: &Observation<'_>) {}
}

/// What an [`Observer`] hears.
#[derive(Debug)]
#[non_exhaustive]
pub enum Observation<'a> {
    /// A run of one partition has ended: `settled` of its records are settled, `duplicates` of
    /// them by an earlier delivery. `elapsed` is the time of the whole run.
    Handled {
        /// Origin of the records.
        topic: &'a str,
        /// Origin of the records.
        partition: i32,
        /// Records settled.
        settled: usize,
        /// Records among them that had been settled before.
        duplicates: usize,
        /// Records among them that the listener's filter passed over.
        filtered: usize,
        /// Time of the whole run.
        elapsed: Duration,
        /// How long those handlers took that had to wait for something; the others were quick.
        waited: &'a Tally,
        /// Of the attempt that ended the run by failing: its class, and how long it took, if it
        /// had to wait.
        failed: Option<(Class, Option<Duration>)>,
    },
    /// An attempt has failed.
    Failed {
        /// Origin of the record.
        topic: &'a str,
        /// Origin of the record.
        partition: i32,
        /// Its offset.
        offset: i64,
        /// What kind of failure it was.
        class: Class,
        /// What went wrong.
        reason: &'a str,
        /// Which attempt it was, from 1, those before a retry topic included.
        attempt: u32,
        /// What follows.
        settlement: Settlement,
    },
    /// A dead letter was acknowledged by the broker.
    DeadLettered {
        /// Origin of the record.
        topic: &'a str,
        /// Origin of the record.
        partition: i32,
        /// Its offset there.
        offset: i64,
        /// Why.
        class: Class,
        /// Bytes of its key, value and headers.
        bytes: usize,
    },
    /// A record was written to a retry topic, which the broker has acknowledged.
    Postponed {
        /// Origin of the record.
        topic: &'a str,
        /// Origin of the record.
        partition: i32,
        /// Its offset there.
        offset: i64,
        /// The retry topic's number, from 1.
        number: u32,
        /// How long it waits there at least.
        delay: Duration,
    },
    /// A dead letter or a retry could not be written; the record is kept and that is repeated.
    RecoveryFailed {
        /// Origin of the record.
        topic: &'a str,
        /// Origin of the record.
        partition: i32,
        /// Its offset there.
        offset: i64,
        /// What went wrong.
        error: &'a str,
    },
    /// A handled record was refused, or its acknowledgement was dropped; it is handled again.
    Nacked {
        /// Origin of the record.
        topic: &'a str,
        /// Origin of the record.
        partition: i32,
        /// Its offset.
        offset: i64,
        /// Whether its acknowledgement was dropped rather than refused on purpose.
        dropped: bool,
    },
    /// A commit was acknowledged; `lag` is not known here, the position is.
    Committed {
        /// Topic of the position.
        topic: &'a str,
        /// Partition of the position.
        partition: i32,
        /// The next offset to read.
        offset: i64,
    },
    /// How far a partition's polled position is from its end, where the client knows.
    Lag {
        /// Topic of the position.
        topic: &'a str,
        /// Partition of the position.
        partition: i32,
        /// Records between the settled position and the partition's end.
        records: i64,
    },
    /// A commit failed and is repeated with the next.
    CommitFailed {
        /// What the broker said.
        error: &'a str,
    },
    /// A transaction that the listener wanted to commit has ended.
    TransactionEnded {
        /// `committed`; or why it was not: `aborted`, `fenced` (another instance has its id), `outdated`
        /// (its partition has another owner), `unknown` (the broker did not answer).
        outcome: &'static str,
        /// Time of the commit.
        elapsed: Duration,
    },
    /// Partitions were given to this container.
    Assigned {
        /// How many.
        partitions: usize,
    },
    /// Partitions were handed over.
    Revoked {
        /// How many.
        partitions: usize,
        /// They were lost rather than handed over: their work may be repeated elsewhere.
        lost: bool,
    },
    /// The listener was paused or resumed as a whole, by request.
    Paused {
        /// Whether it is paused now.
        paused: bool,
    },
    /// Something was noticed.
    Noticed {
        /// What.
        notice: &'a Notice,
    },
    /// The container has ended and owns nothing any more.
    Ended,
    /// The listener turned healthy (`None`) or unhealthy, for this reason.
    Health {
        /// Why it is unhealthy.
        problem: Option<&'a str>,
    },
}
