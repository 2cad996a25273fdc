//! The records that a lane has been given, and how far they have come.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ackwell_core::Timestamp;
use ackwell_core::batch::Suspects;
use ackwell_core::engine::Failure as CoreFailure;
use ackwell_core::settle::{Destination, Settlement};

use super::{Control, Handling, Judged};
use crate::container::{RecordHandler, RunAcks};
use crate::extensions::Extensions;
use crate::failure::Failure;
use crate::listener::{Filter, Passage};
use crate::observe::Tally;
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
    pub(super) group: Arc<str>,
    pub(super) handler: Arc<dyn RecordHandler>,
    sink: Box<dyn ProgressSink>,
    control: Arc<Control>,
    pub(super) records: Vec<Record>,
    /// Attempt of the first record; the others have not been tried yet.
    attempt: u32,
    pub(super) started: usize,
    pub(super) settled: usize,
    pub(super) duplicates: usize,
    reported: usize,
    reported_at: Instant,
    failure: Option<Failure>,
    /// How long those handlers took that waited for something.
    waited: Tally,
    /// The same of the one in work.
    pub(super) waited_last: Option<Duration>,
    /// In a manual ack mode, where its records are acknowledged.
    acks: Option<Arc<RunAcks>>,
    held: Option<String>,
    pub(super) filtering: Option<Filtering>,
    /// Who may be to blame for the failure of a list.
    pub(super) suspects: Suspects,
    /// Offsets of records behind a failed one that are settled all the same.
    pub(super) settled_behind: Vec<i64>,
}

/// What a filter has made of the records.
pub(super) struct Filtering {
    filter: Filter,
    /// How many have been looked at.
    pub(super) seen: usize,
    /// Places of those that are passed over, behind unsettled ones.
    pub(super) waiting: VecDeque<usize>,
    passed: usize,
    /// Why the record to start next can't be told whether it is to be handled.
    failure: Option<Failure>,
}

/// How a run ended, for the container.
pub(crate) struct Ended {
    pub(crate) records: Vec<Record>,
    pub(crate) settled: usize,
    pub(crate) duplicates: usize,
    /// Among the settled: passed over by the listener's filter.
    pub(crate) filtered: usize,
    /// Offsets of records behind the failed one that are settled all the same.
    pub(crate) settled_behind: Vec<i64>,
    pub(crate) failure: Option<Failure>,
    pub(crate) waited: Tally,
    /// How long the attempt took that failed, if it waited for something.
    pub(crate) failed_after: Option<Duration>,
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
            waited: Tally::default(),
            waited_last: None,
            held: None,
            filtering: None,
            suspects: if attempt > 1 {
                Suspects::first()
            } else {
                Suspects::none()
            },
            settled_behind: Vec::new(),
            acks: None,
        }
    }

    /// The same run, whose records are settled by acknowledgements.
    pub(crate) fn acknowledged_at(self, acks: Option<Arc<RunAcks>>) -> Self {
        if let Some(acks) = &acks {
            acks.goes_on();
        }
        Run { acks, ..self }
    }

    /// Puts the acknowledgement of the record that was started last, in a manual ack mode.
    pub(crate) fn put_ack(&self, extensions: &mut Extensions) {
        if let (Some(acks), Some(place)) = (&self.acks, self.started.checked_sub(1)) {
            extensions.put_ack(Arc::clone(acks), place);
        }
    }

    /// Passes over what the listener's filter does not let through.
    pub(crate) fn filtered(mut self, filter: Option<Filter>) -> Self {
        self.filtering = filter.map(|filter| Filtering {
            filter,
            seen: 0,
            waiting: VecDeque::new(),
            passed: 0,
            failure: None,
        });
        self
    }

    /// The consumer group.
    pub fn group(&self) -> &str {
        &self.group
    }

    /// The next record to start; `None` at the end, after a failure, or when cancelled. What the
    /// listener's filter does not let through is passed over, and settled with the record before.
    pub fn peek(&mut self) -> Option<&Record> {
        if self.failure.is_some() || self.held.is_some() || self.control.is_halted() {
            return None;
        }
        self.pass_over();
        self.records.get(self.started)
    }

    fn pass_over(&mut self) {
        let Some(filtering) = &mut self.filtering else {
            return;
        };
        while filtering.seen <= self.started
            && let Some(record) = self.records.get(self.started)
        {
            filtering.seen = self.started + 1;
            match filtering.filter.passage(record) {
                Passage::Handled => return,
                Passage::Failed(failure) => {
                    filtering.failure = Some(failure);
                    return;
                }
                Passage::PassedOver if self.settled == self.started => {
                    filtering.passed += 1;
                    self.settled += 1;
                    if let Some(acks) = &self.acks {
                        acks.handled(self.started..self.settled);
                    }
                }
                Passage::PassedOver => filtering.waiting.push_back(self.started),
            }
            self.started += 1;
        }
    }

    /// Why the next record must not reach the handler, if so.
    pub(crate) fn refusal(&mut self, record: &Record) -> Option<Failure> {
        let looked_at = self.filtering.is_some() || self.handler.looks_at_headers();
        if looked_at && record.has_unreadable_headers() {
            let unreadable = "the record's header names are not UTF-8";
            return Some(Failure::permanent(unreadable));
        }
        self.filtering.as_mut()?.failure.take()
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
        let record = record.clone();
        self.put_ack(&mut extensions);
        if let Some(refusal) = self.refusal(&record) {
            return Some(Handling::refused(refusal));
        }
        let handler = &self.handler;
        Some(Handling::begin(|| {
            handler.call(record, attempt, extensions)
        }))
    }

    /// Takes the next record and its attempt, to be handled by the caller; `None` where
    /// [`peek`](Run::peek) is `None`.
    pub(crate) fn take(&mut self) -> Option<(&Record, u32)> {
        self.peek()?;
        let attempt = self.attempt();
        let place = self.started;
        self.started += 1;
        self.waited_last = None;
        self.records.get(place).map(|record| (record, attempt))
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
        let mut since = None;
        std::future::poll_fn(|cx| {
            if let (Some(acks), Some(_)) = (&self.acks, since) {
                acks.goes_on();
            }
            let poll = handling.as_mut().poll(cx);
            if poll.is_pending() {
                since.get_or_insert_with(Instant::now);
                if let Some(acks) = &self.acks {
                    acks.rests();
                }
                self.report();
            } else if let Some(since) = since {
                self.waited(since.elapsed());
            }
            poll
        })
        .await
    }

    /// The handler in work has come to its end, this long after it first had to wait. Called by
    /// [`drive`](Run::drive); a unit of work that waits by other means calls it itself. Handlers
    /// that never wait are timed together, as one that reads the clock costs more than they do.
    pub fn waited(&mut self, time: Duration) {
        self.waited.add(time);
        self.waited_last = Some(time);
    }

    /// The earliest `count` started but unsettled records are durable.
    pub fn settled(&mut self, count: usize) {
        let before = self.settled;
        self.settled = self.after(count);
        if let Some(acks) = &self.acks {
            acks.handled(before..self.settled);
        }
        let waiting = self.settled - self.reported;
        // A clock read at 1, 2, 4, .. records: rare for fast handlers, soon enough for slow ones.
        if waiting.is_power_of_two() && self.reported_at.elapsed() >= PROGRESS_INTERVAL {
            self.report();
        }
    }

    /// Where the settled end when `count` more are: what the filter passed over comes along.
    fn after(&mut self, count: usize) -> usize {
        let Some(filtering) = &mut self.filtering else {
            return self.started.min(self.settled + count);
        };
        let (mut at, mut left) = (self.settled, count);
        while at < self.started {
            if filtering.waiting.front() == Some(&at) {
                filtering.waiting.pop_front();
                filtering.passed += 1;
            } else if left > 0 {
                left -= 1;
            } else {
                break;
            }
            at += 1;
        }
        at
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

    /// Starts what is not settled once more, at the same attempts: it was taken back for a reason that is none of
    /// its own. In a manual ack mode, in which its handler has had its acknowledgement, the run is
    /// [held](Run::hold) instead; handlers with a unit of work that could take something back are refused there at the
    /// start.
    pub fn start_again(&mut self) {
        match self.acks {
            None => self.begin_again(),
            Some(_) => self.hold("a record was taken back and waits to be handled again"),
        }
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
            acks.rests();
            acks.close(self.settled);
        }
        let Run {
            records,
            settled,
            duplicates,
            failure,
            mut waited,
            waited_last,
            held,
            filtering,
            settled_behind,
            ..
        } = self;
        let failed_after = waited_last.filter(|_| failure.is_some());
        if let Some(time) = failed_after {
            waited.take_back(time);
        }
        Ended {
            records,
            settled,
            duplicates,
            filtered: filtering.map_or(0, |filtering| filtering.passed),
            settled_behind,
            failure,
            waited,
            failed_after,
            held,
        }
    }
}
