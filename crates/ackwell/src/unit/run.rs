//! The records that a lane has been given, and how far they have come.

use std::any::Any;
use std::fmt;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use ackwell_core::Timestamp;
use ackwell_core::engine::Failure as CoreFailure;
use ackwell_core::settle::{Destination, Settlement};
use futures_util::future::BoxFuture;

use super::{Control, Judged};
use crate::container::{RecordHandler, RunAcks};
use crate::extensions::Extensions;
use crate::failure::{Failure, Panicked};
use crate::record::Record;

/// Settled records are reported at least this often while handlers keep the thread busy, so that
/// commits go on during a long run.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(1);

/// What the container hears of a run while it goes on.
pub(crate) trait ProgressSink: Send + Sync {
    /// The next `count` records of the run are settled.
    fn progress(&self, count: usize);

    /// An attempt has failed and the run goes on.
    fn attempt_failed(
        &self,
        record: &Record,
        failure: CoreFailure,
        attempt: u32,
        settlement: Settlement,
    ) {
        let _ = (record, failure, attempt, settlement);
    }

    /// A parked record is due at `at`.
    fn retry_at(&self, at: Timestamp) {
        let _ = at;
    }

    /// The failure as the listener sees it.
    fn judge(&self, failure: &Failure) -> Judged {
        Judged {
            failure: CoreFailure::new(failure.class(), failure.reason()),
            in_place: true,
        }
    }
}

/// Records of one lane, to be handled in order.
pub struct Run {
    group: Arc<str>,
    handler: Arc<dyn RecordHandler>,
    sink: Box<dyn ProgressSink>,
    control: Arc<Control>,
    records: Vec<Record>,
    /// Attempt of the first record; the others have not been tried yet.
    attempt: u32,
    started: usize,
    settled: usize,
    duplicates: usize,
    reported: usize,
    reported_at: Instant,
    failure: Option<Failure>,
    /// In a manual ack mode, where its records are acknowledged.
    acks: Option<Arc<RunAcks>>,
    held: Option<String>,
}

/// How a run ended, for the container.
pub(crate) struct Ended {
    pub(crate) records: Vec<Record>,
    pub(crate) settled: usize,
    pub(crate) duplicates: usize,
    pub(crate) failure: Option<Failure>,
    /// Why it can't go on now, although nothing failed.
    pub(crate) held: Option<String>,
}

impl Run {
    pub(crate) fn new(
        group: Arc<str>,
        handler: Arc<dyn RecordHandler>,
        sink: Box<dyn ProgressSink>,
        control: Arc<Control>,
        records: Vec<Record>,
        attempt: u32,
    ) -> Self {
        Run {
            group,
            handler,
            sink,
            control,
            records,
            attempt,
            started: 0,
            settled: 0,
            duplicates: 0,
            reported: 0,
            reported_at: Instant::now(),
            failure: None,
            held: None,
            acks: None,
        }
    }

    /// The same run, whose records are settled by acknowledgements.
    pub(crate) fn acknowledged_at(self, acks: Option<Arc<RunAcks>>) -> Self {
        Run { acks, ..self }
    }

    /// Puts the acknowledgement of the record that was started last, in a manual ack mode.
    pub(crate) fn put_ack(&self, extensions: &mut Extensions) {
        if let (Some(acks), Some(place)) = (&self.acks, self.started.checked_sub(1)) {
            extensions.put_ack(Arc::clone(acks), place);
        }
    }

    /// The consumer group.
    pub fn group(&self) -> &str {
        &self.group
    }

    /// The next record to start; `None` at the end, after a failure, or when cancelled.
    pub fn peek(&self) -> Option<&Record> {
        if self.failure.is_some() || self.held.is_some() || self.control.is_halted() {
            return None;
        }
        self.records.get(self.started)
    }

    /// The attempt of the next record, from 1; those before it came by a retry topic count.
    pub fn attempt(&self) -> u32 {
        let since_polled = if self.started == 0 { self.attempt } else { 1 };
        let earlier = self
            .records
            .get(self.started)
            .map_or(0, Record::earlier_attempts);
        earlier.saturating_add(since_polled)
    }

    /// Starts handling the next record; `extensions` are at hand for its extractors. `None` where
    /// [`peek`](Run::peek) is `None`. A panic in the handler is caught and becomes a permanent
    /// failure of the record.
    pub fn start(&mut self, mut extensions: Extensions) -> Option<Handling> {
        let (record, attempt) = self.take()?;
        self.put_ack(&mut extensions);
        if let Err(unreadable) = readable(&record) {
            return Some(Handling::refused(unreadable));
        }
        let handler = &self.handler;
        Some(Handling::begin(|| {
            handler.call(record, attempt, extensions)
        }))
    }

    /// Takes the next record and its attempt, to be handled by the caller; `None` where
    /// [`peek`](Run::peek) is `None`.
    pub(crate) fn take(&mut self) -> Option<(Record, u32)> {
        let record = self.peek()?.clone();
        let attempt = self.attempt();
        self.started += 1;
        Some((record, attempt))
    }

    pub(crate) fn handler(&self) -> Arc<dyn RecordHandler> {
        Arc::clone(&self.handler)
    }

    /// Awaits `handling`; before it waits, what has settled so far is reported, so that a slow
    /// handler does not hold back the commits of the records before it.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future drops the handler where it waits.
    pub async fn drive<T>(&mut self, handling: impl Future<Output = T>) -> T {
        let mut handling = pin!(handling);
        std::future::poll_fn(|cx| {
            let poll = handling.as_mut().poll(cx);
            if poll.is_pending() {
                self.report();
            }
            poll
        })
        .await
    }

    /// The earliest `count` started but unsettled records are durable.
    pub fn settled(&mut self, count: usize) {
        let before = self.settled;
        self.settled = self.started.min(before + count);
        if let Some(acks) = &self.acks {
            acks.handled(before..self.settled);
        }
        let waiting = self.settled - self.reported;
        // A clock read at 1, 2, 4, .. records: rare for fast handlers, soon enough for slow ones.
        if waiting.is_power_of_two() && self.reported_at.elapsed() >= PROGRESS_INTERVAL {
            self.report();
        }
    }

    /// As [`settled`](Run::settled), for records that an earlier delivery has settled already.
    pub fn duplicates(&mut self, count: usize) {
        self.duplicates += count;
        self.settled(count);
    }

    /// The earliest unsettled record failed. Ends the run: records behind it that were started
    /// must have left no effect.
    pub fn failed(&mut self, failure: Failure) {
        if self.failure.is_none() && self.settled < self.records.len() {
            self.failure = Some(failure);
        }
    }

    /// Takes the next record without having it handled: it belongs behind a parked one. It is
    /// settled like a handled one, when that is durable. `None` where [`peek`](Run::peek) is `None`.
    pub fn set_aside(&mut self) -> Option<Record> {
        let record = self.peek()?.clone();
        self.started += 1;
        Some(record)
    }

    /// A failure of the record started last, as the listener sees it.
    pub fn judge(&self, failure: &Failure) -> Judged {
        self.sink.judge(failure)
    }

    /// The record started last has failed and is parked; it is settled like a handled one, when
    /// that is durable.
    pub fn parked(&self, record: &Record, failure: &Judged, attempt: u32) {
        let settlement = Settlement::Recover(Destination::Parked);
        let failure = failure.failure.clone();
        self.sink
            .attempt_failed(record, failure, attempt, settlement);
    }

    /// A parked record is the first of its key, and due at `at`.
    pub fn retry_at(&self, at: Timestamp) {
        self.sink.retry_at(at);
    }

    /// Ends the run although nothing failed: its unsettled records can't be taken on now, for
    /// this reason, which health shows. They are offered again a little later.
    pub fn hold(&mut self, reason: impl Into<String>) {
        if self.failure.is_none() && self.settled < self.records.len() {
            self.held.get_or_insert(reason.into());
        }
    }

    /// Waits until the run is cancelled: its partition was revoked or the listener stops, and
    /// the drain limit has passed.
    pub fn cancelled(&self) -> impl Future<Output = ()> + Send + 'static + use<> {
        self.control.cancelled()
    }

    /// Tells the container what has settled so far. Called by [`drive`](Run::drive); a unit of
    /// work that waits by other means calls it before.
    pub fn report(&mut self) {
        if let Some(acks) = &self.acks {
            self.reported = self.settled;
            self.reported_at = Instant::now();
            return acks.report();
        }
        if self.settled > self.reported {
            self.sink.progress(self.settled - self.reported);
            self.reported = self.settled;
            self.reported_at = Instant::now();
        }
    }

    /// Whether the unit of work can't go on now, although nothing failed.
    pub(crate) fn is_held(&self) -> bool {
        self.held.is_some()
    }

    /// Whether the container wants the run to end early.
    pub(crate) fn is_interrupted(&self) -> bool {
        self.control.is_halted()
    }

    pub(crate) fn finish(self) -> Ended {
        if let Some(acks) = &self.acks {
            acks.close(self.settled);
        }
        let Run {
            records,
            settled,
            duplicates,
            failure,
            held,
            ..
        } = self;
        Ended {
            records,
            settled,
            duplicates,
            failure,
            held,
        }
    }
}

/// A record being handled. A panic of the handler is its permanent failure.
pub struct Handling(BoxFuture<'static, Result<(), Failure>>);

impl Handling {
    /// Calls a handler; a panic in the call is the handler's.
    pub(super) fn begin(call: impl FnOnce() -> BoxFuture<'static, Result<(), Failure>>) -> Self {
        match std::panic::catch_unwind(AssertUnwindSafe(call)) {
            Ok(handling) => Handling(handling),
            Err(panic) => Handling::refused(panicked(&*panic)),
        }
    }

    fn refused(failure: Failure) -> Self {
        Handling(Box::pin(std::future::ready(Err(failure))))
    }
}

impl Future for Handling {
    type Output = Result<(), Failure>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let poll = AssertUnwindSafe(|| self.0.as_mut().poll(cx));
        std::panic::catch_unwind(poll).unwrap_or_else(|panic| Poll::Ready(Err(panicked(&*panic))))
    }
}

impl fmt::Debug for Handling {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Handling")
    }
}

/// Refuses a record whose headers the client library could not read.
pub(crate) fn readable(record: &Record) -> Result<(), Failure> {
    if record.has_unreadable_headers() {
        return Err(Failure::permanent(
            "the record's header names are not UTF-8",
        ));
    }
    Ok(())
}

pub(crate) fn panicked(panic: &(dyn Any + Send)) -> Failure {
    let text = panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message");
    Failure::permanent(format!("the handler panicked: {text}")).with_source(Panicked)
}
