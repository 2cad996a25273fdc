//! Where records of failing keys wait: the seam between the container and the durable place.
//!
//! The container knows when: what is due, what may begin now, what must end. The unit of work
//! that implements [`Parking`] knows where, and makes a record's move there, the work of its
//! handler and its removal take effect together. See `ackwell-sql`, whose database is such a place.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use ackwell_core::Timestamp;
use ackwell_core::engine::{Failure as CoreFailure, FirstFailure};
use ackwell_core::settle::Settlement;
use futures_util::future::BoxFuture;

use super::run::ProgressSink;
use super::{Control, Handling, UnitOfWork};
use crate::container::RecordHandler;
use crate::extensions::Extensions;
use crate::failure::{Class, Failure};
use crate::record::Record;

/// A unit of work that can park records, and retries them in the order of their keys.
///
/// Runs of polled records come by [`UnitOfWork::carry_out`]: it parks what
/// [fails](super::Run::parked) and sets aside what belongs [behind](super::Run::set_aside) it.
pub trait Parking: UnitOfWork {
    /// The partition belongs to this process from now on. What it finds parked is its to retry.
    fn assigned(&self, topic: &str, partition: i32);

    /// The partition belongs to somebody else: nothing may happen to its records here any more.
    fn revoked(&self, topic: &str, partition: i32);

    /// Parks a record whose attempts in place are used up; `first` is how it failed first, if there
    /// were several. Returns, when it is durable, at what time it is due; `None` if it had been
    /// parked before.
    fn park(
        &self,
        record: Record,
        failure: Judged,
        attempts: u32,
        first: Option<FirstFailure>,
    ) -> BoxFuture<'_, Result<Option<Timestamp>, String>>;

    /// Retries what is due.
    ///
    /// # Cancel safety
    /// The container drops the future when the partition is revoked or the listener stops and
    /// the drain limit has passed. A record is then as if it had not been retried.
    fn retry<'a>(&'a self, retries: &'a Retries) -> BoxFuture<'a, Retried>;

    /// What waits, in the partitions of this process.
    fn waiting(&self) -> Waiting;
}

/// What waits to be retried, for metrics.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Waiting {
    /// Parked keys; a record without a key counts as one.
    pub keys: usize,
    /// Parked records.
    pub records: usize,
    /// For how long the key has waited that waits longest.
    pub oldest: Duration,
}

/// How a retry ended.
#[derive(Debug, Default)]
pub struct Retried {
    /// When the next parked record is due.
    pub next: Option<Timestamp>,
    /// Why it could not go on: something is [unavailable](Class::Unavailable), or the listener has
    /// to [stop](Class::Stop).
    pub failure: Option<Failure>,
    /// What health says, although it went on.
    pub problem: Option<String>,
}

/// A failure as the listener sees it: with its own rules for classes and policies.
#[derive(Debug, Clone)]
pub struct Judged {
    pub(crate) failure: CoreFailure,
    pub(crate) in_place: bool,
}

impl Judged {
    /// Its class for this listener.
    pub fn class(&self) -> Class {
        self.failure.class
    }

    /// What went wrong, causes included.
    pub fn reason(&self) -> &str {
        &self.failure.summary
    }

    /// The wait that the handler asks for before the next attempt.
    pub fn retry_after(&self) -> Option<Duration> {
        self.failure.retry_after
    }

    /// As the first one of its record, at this time.
    pub fn as_first(&self, at: Timestamp) -> FirstFailure {
        FirstFailure::of(&self.failure, at)
    }

    /// Whether the record is to be parked now: the failure may pass, and no attempts in place
    /// come first.
    pub fn is_parked_at_once(&self) -> bool {
        self.failure.class == Class::Transient && !self.in_place
    }
}

/// Puts away for good what was given up.
pub(crate) trait Grave: Send + Sync {
    /// Returns when the record is safe in its dead-letter topic.
    fn bury(
        &self,
        record: Record,
        failure: CoreFailure,
        attempts: u32,
        first: Option<FirstFailure>,
    ) -> BoxFuture<'_, Result<(), String>>;
}

/// One retry of a partition's parked records: what the container lends to it.
pub struct Retries {
    pub(crate) topic: Arc<str>,
    pub(crate) partition: i32,
    pub(crate) lanes: usize,
    pub(crate) handler: Arc<dyn RecordHandler>,
    pub(crate) sink: Box<dyn ProgressSink>,
    pub(crate) control: Arc<Control>,
    pub(crate) grave: Arc<dyn Grave>,
}

impl Retries {
    /// The topic.
    pub fn topic(&self) -> &Arc<str> {
        &self.topic
    }

    /// The partition.
    pub fn partition(&self) -> i32 {
        self.partition
    }

    /// How many keys may be in work at a time: as many as the listener has lanes.
    pub fn lanes(&self) -> usize {
        self.lanes
    }

    /// Whether no further record should be started.
    pub fn is_halted(&self) -> bool {
        self.control.is_halted()
    }

    /// Has a record handled, as [`Run::start`](super::Run::start) does.
    pub fn start(&self, record: Record, attempt: u32, extensions: Extensions) -> Handling {
        let handler = &self.handler;
        Handling::begin(|| handler.call(record, attempt, extensions))
    }

    /// The failure as the listener sees it.
    pub fn judge(&self, failure: &Failure) -> Judged {
        self.sink.judge(failure)
    }

    /// An attempt has failed: for logs, metrics and callbacks.
    pub fn attempt_failed(
        &self,
        record: &Record,
        failure: &Judged,
        attempt: u32,
        settlement: Settlement,
    ) {
        let failure = failure.failure.clone();
        self.sink
            .attempt_failed(record, failure, attempt, settlement);
    }

    /// Writes a dead letter; returns when it is acknowledged. `first` is how the record failed
    /// first, if it failed more than once.
    ///
    /// # Errors
    /// It could not be written, and has to be tried again.
    pub async fn dead_letter(
        &self,
        record: Record,
        class: Class,
        reason: &str,
        attempts: u32,
        first: Option<FirstFailure>,
    ) -> Result<(), String> {
        let failure = CoreFailure::new(class, reason);
        self.grave.bury(record, failure, attempts, first).await
    }
}

impl fmt::Debug for Retries {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Retries")
            .field("topic", &self.topic)
            .field("partition", &self.partition)
            .finish_non_exhaustive()
    }
}
