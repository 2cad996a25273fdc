//! Acknowledgements find their way from any task to the poll thread.
//!
//! A run has one byte a record. An acknowledgement sets it, and puts the run on the poll thread's
//! desk unless it lies there already: so a burst of acknowledgements costs one message, and none
//! costs an allocation. What its own handlers acknowledge before they wait or return, the run
//! reports then. What is set before the run is closed counts, what comes later is stale,
//! and the caller is told which of the two it was.

#[cfg(test)]
#[expect(
    clippy::single_range_in_vec_init,
    reason = "a list of one range is meant"
)]
mod tests;

use std::collections::HashMap;
use std::fmt;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ackwell_core::commit::AckMode;
use ackwell_core::engine::{Event, Nack, PartitionId, RunId};
use tokio::sync::oneshot;

use super::mailbox::Waker;
use super::observation::Observation;
use super::poll::Poller;
use super::stats::Counters;

/// The handler has asked for the acknowledgement.
const TAKEN: u8 = 1;
/// The record is acknowledged: this counts.
const ACKED: u8 = 1 << 1;
/// It is refused, or its acknowledgement was dropped.
const NACKED: u8 = 1 << 2;
/// The handler has returned `Ok`.
const HANDLED: u8 = 1 << 3;
/// It is out of the caller's hands: what comes now is stale.
const CLOSED: u8 = 1 << 4;
/// The engine was told of its end.
const TOLD: u8 = 1 << 5;

/// The records of one run that wait for their acknowledgements.
pub(crate) struct RunAcks {
    run: RunId,
    /// By place in the run.
    states: Box<[AtomicU8]>,
    /// The places before it were all told to the engine; only the poll thread moves it.
    told: AtomicUsize,
    /// Whether an acknowledgement is reported before its handler has returned.
    at_once: bool,
    /// Whether there is something to report that nobody was told of.
    changed: AtomicBool,
    /// Whether a thread is at work on the run: it reports before it waits, and at the end.
    in_work: AtomicBool,
    /// Whether the run lies on the desk.
    lies: AtomicBool,
    asides: Mutex<Asides>,
    desk: Desk,
}

/// What rare calls bring along.
#[derive(Default)]
struct Asides {
    delays: Vec<(usize, Duration)>,
    waiters: Vec<(usize, oneshot::Sender<bool>)>,
}

/// Where runs lie whose acknowledgements are to be reported.
#[derive(Clone)]
struct Desk {
    runs: Sender<Arc<RunAcks>>,
    waker: Waker,
    counters: Arc<Counters>,
}

impl RunAcks {
    fn state(&self, place: usize) -> Option<&AtomicU8> {
        self.states.get(place)
    }

    /// The handler asks for the acknowledgement; `false` if it has it already.
    pub(crate) fn take(&self, place: usize) -> bool {
        let before = self
            .state(place)
            .map(|state| state.fetch_or(TAKEN, Ordering::AcqRel));
        before.is_some_and(|before| before & TAKEN == 0)
    }

    /// Whether the record was taken away from its handler.
    pub(crate) fn is_stale(&self, place: usize) -> bool {
        let state = self.state(place);
        state.is_none_or(|state| state.load(Ordering::Acquire) & CLOSED != 0)
    }

    /// Acknowledges; whether it counts.
    pub(crate) fn acknowledge(self: &Arc<Self>, place: usize) -> bool {
        self.decide(place, ACKED, self.at_once)
    }

    /// Acknowledges; the answer is whether the broker knows of it, or nothing if that will never
    /// be known.
    pub(crate) fn commit(self: &Arc<Self>, place: usize) -> oneshot::Receiver<bool> {
        let (answer, answered) = oneshot::channel();
        self.asides().waiters.push((place, answer));
        if !self.decide(place, ACKED, true) {
            self.asides().waiters.retain(|(at, _)| *at != place);
        }
        answered
    }

    /// Refuses; whether it counts.
    pub(crate) fn nack(self: &Arc<Self>, place: usize, delay: Duration) -> bool {
        self.asides().delays.push((place, delay));
        self.decide(place, NACKED, false)
    }

    /// The acknowledgement goes out of the caller's hands without having been given.
    pub(crate) fn dropped(self: &Arc<Self>, place: usize) {
        self.decide(place, NACKED, false);
    }

    /// Decides what becomes of a record, once; whether this came in time.
    fn decide(self: &Arc<Self>, place: usize, verdict: u8, at_once: bool) -> bool {
        let Some(state) = self.state(place) else {
            return false;
        };
        let decided = state.fetch_update(Ordering::AcqRel, Ordering::Acquire, |before| {
            (before & (ACKED | NACKED | CLOSED) == 0).then_some(before | verdict)
        });
        match decided {
            // A refusal counts when the handler has returned: its error would have a verdict.
            Ok(before) if before & HANDLED != 0 => self.put_on_desk(),
            Ok(_) => {
                // Either this sees that the run waits, or the run sees this before it does.
                self.changed.store(true, Ordering::SeqCst);
                if at_once && !self.in_work.load(Ordering::SeqCst) {
                    self.report();
                }
            }
            Err(_) if verdict == ACKED => {
                self.desk
                    .counters
                    .stale_acks
                    .fetch_add(1, Ordering::Relaxed);
                return false;
            }
            Err(_) => return false,
        }
        true
    }

    /// The handlers of these places have returned `Ok`. A record whose handler was never reached,
    /// because a layer or filter had its verdict before, is settled by that.
    pub(crate) fn handled(&self, places: Range<usize>) {
        let mut changed = false;
        for state in self.states.get(places).unwrap_or_default() {
            // One that is acknowledged already is due without more.
            if state.load(Ordering::Acquire) == TAKEN | ACKED {
                changed = true;
                continue;
            }
            let before = state.fetch_or(HANDLED, Ordering::AcqRel);
            if before & TAKEN == 0 {
                state.fetch_or(ACKED, Ordering::AcqRel);
            }
            changed |= before & TAKEN == 0 || before & (ACKED | NACKED) != 0;
        }
        if changed {
            self.changed.store(true, Ordering::Release);
        }
    }

    /// The run goes on, and will report what changes now.
    pub(crate) fn goes_on(&self) {
        self.in_work.store(true, Ordering::Release);
    }

    /// The run waits, or has come to its end; what changes from now on is reported by who changes it.
    pub(crate) fn rests(&self) {
        self.in_work.store(false, Ordering::SeqCst);
    }

    /// Reports what has changed since the last report.
    pub(crate) fn report(self: &Arc<Self>) {
        if self.changed.swap(false, Ordering::SeqCst) {
            self.put_on_desk();
        }
    }

    /// Takes the places from `first` on out of the callers' hands.
    pub(crate) fn close(&self, first: usize) {
        for state in self.states.get(first..).unwrap_or_default() {
            // What was decided before stays decided.
            let _ = state.fetch_update(Ordering::AcqRel, Ordering::Acquire, |before| {
                (before & (ACKED | NACKED) == 0).then_some(before | CLOSED)
            });
        }
    }

    fn put_on_desk(self: &Arc<Self>) {
        if !self.lies.swap(true, Ordering::AcqRel) && self.desk.runs.send(Arc::clone(self)).is_ok()
        {
            self.desk.waker.wake();
        }
    }

    fn asides(&self) -> std::sync::MutexGuard<'_, Asides> {
        self.asides.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the engine was not told of yet.
    fn collect(&self) -> Collected {
        // Before the states are read: what comes later puts the run on the desk again.
        self.lies.store(false, Ordering::Release);
        let mut collected = Collected::default();
        let first = self.told.load(Ordering::Relaxed);
        let mut all_told = first;
        for (place, state) in self.states.iter().enumerate().skip(first) {
            let found = state.load(Ordering::Acquire);
            let verdict = found & (ACKED | NACKED);
            let is_due = verdict == ACKED || verdict == NACKED && found & HANDLED != 0;
            let (told, next) = (found & TOLD != 0, all_told == place);
            if !told && is_due {
                collected.push(place, verdict == ACKED);
            }
            if next && (told || is_due) {
                all_told += 1;
            } else if !told && is_due {
                // Behind one that is open: the mark tells it from those that come later.
                state.fetch_or(TOLD, Ordering::Relaxed);
            }
        }
        self.told.store(all_told, Ordering::Relaxed);
        if !collected.nacked.is_empty() || !collected.acked.is_empty() {
            collected.asides(&mut self.asides());
        }
        collected
    }

    /// Whether the engine was told of all places before `handled`.
    fn is_done(&self, handled: usize) -> bool {
        self.told.load(Ordering::Relaxed) >= handled
    }
}

impl fmt::Debug for RunAcks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RunAcks")
            .field("run", &self.run)
            .finish_non_exhaustive()
    }
}

/// What has been acknowledged and refused since the last time.
#[derive(Default)]
struct Collected {
    acked: Vec<Range<usize>>,
    nacked: Vec<(usize, Nack)>,
    waiters: Vec<(usize, oneshot::Sender<bool>)>,
}

impl Collected {
    fn push(&mut self, place: usize, acked: bool) {
        if !acked {
            return self.nacked.push((place, Nack::Dropped));
        }
        match self.acked.last_mut() {
            Some(last) if last.end == place => last.end += 1,
            _ => self.acked.push(place..place + 1),
        }
    }

    fn asides(&mut self, asides: &mut Asides) {
        for (place, nack) in &mut self.nacked {
            if let Some(at) = asides.delays.iter().position(|(of, _)| of == place) {
                *nack = Nack::After(asides.delays.swap_remove(at).1);
            }
        }
        let acked = |place: &usize| self.acked.iter().any(|places| places.contains(place));
        self.waiters = asides
            .waiters
            .extract_if(.., |(place, _)| acked(place))
            .collect();
    }
}

/// The poll thread's side.
pub(super) struct Acks {
    at_once: bool,
    desk: Desk,
    runs_on_desk: Receiver<Arc<RunAcks>>,
    runs: HashMap<RunId, Entry>,
    waiters: HashMap<u64, oneshot::Sender<bool>>,
    last_waiter: u64,
}

/// A run, until the engine was told of all its handled records.
struct Entry {
    acks: Arc<RunAcks>,
    /// How many were handled, once it has ended.
    handled: Option<usize>,
}

impl Acks {
    /// For a container in this mode; nothing unless it is a manual one.
    pub(super) fn new(mode: AckMode, waker: Waker, counters: Arc<Counters>) -> Option<Self> {
        if !mode.is_manual() {
            return None;
        }
        let (runs, runs_on_desk) = channel();
        let desk = Desk {
            runs,
            waker,
            counters,
        };
        Some(Acks {
            at_once: mode == AckMode::ManualImmediate,
            desk,
            runs_on_desk,
            runs: HashMap::new(),
            waiters: HashMap::new(),
            last_waiter: 0,
        })
    }

    /// A run of this many records begins.
    pub(super) fn open(&mut self, run: RunId, records: usize) -> Arc<RunAcks> {
        let acks = Arc::new(RunAcks {
            run,
            states: (0..records).map(|_| AtomicU8::new(0)).collect(),
            told: AtomicUsize::new(0),
            at_once: self.at_once,
            changed: AtomicBool::new(false),
            in_work: AtomicBool::new(false),
            lies: AtomicBool::new(false),
            asides: Mutex::default(),
            desk: self.desk.clone(),
        });
        let entry = Entry {
            acks: Arc::clone(&acks),
            handled: None,
        };
        self.runs.insert(run, entry);
        acks
    }

    /// What is to be told to the engine of a run.
    fn events(&mut self, acks: &RunAcks) -> Vec<Event<crate::record::Record>> {
        let Collected {
            acked,
            nacked,
            waiters,
        } = acks.collect();
        let run = acks.run;
        let waiters: Vec<_> = waiters
            .into_iter()
            .map(|(place, waiter)| {
                self.last_waiter += 1;
                self.waiters.insert(self.last_waiter, waiter);
                (place, self.last_waiter)
            })
            .collect();
        let mut events = Vec::with_capacity(nacked.len() + 1);
        if !acked.is_empty() {
            events.push(Event::Acknowledged {
                run,
                places: acked,
                waiters,
            });
        }
        events.extend(
            nacked
                .into_iter()
                .map(|(place, nack)| Event::Nacked { run, place, nack }),
        );
        let ended = self.runs.get(&run).and_then(|entry| entry.handled);
        if ended.is_some_and(|handled| acks.is_done(handled)) {
            self.runs.remove(&run);
        }
        events
    }

    fn answer(&mut self, waiter: u64, committed: bool) {
        if let Some(waiter) = self.waiters.remove(&waiter) {
            // Nobody is told who does not wait any more.
            let _ = waiter.send(committed);
        }
    }

    /// The container has ended: whatever comes now is stale.
    pub(super) fn close_all(&mut self) {
        self.runs.values().for_each(|entry| entry.acks.close(0));
        self.waiters.clear();
    }
}

impl Poller {
    /// Tells the engine of what was acknowledged and refused.
    pub(super) fn take_acks(&mut self) -> bool {
        let mut busy = false;
        while let Some(acks) =
            (self.dispatcher.acks.as_ref()).and_then(|acks| acks.runs_on_desk.try_recv().ok())
        {
            busy = true;
            self.report_acks(&acks);
            self.act();
        }
        busy
    }

    /// A run has ended: what was acknowledged before its end must be known before it is.
    pub(super) fn note_handled(&mut self, run: RunId, handled: usize) {
        let Some(acks) = &mut self.dispatcher.acks else {
            return;
        };
        let Some(entry) = acks.runs.get_mut(&run) else {
            return;
        };
        entry.handled = Some(handled);
        let acks = Arc::clone(&entry.acks);
        self.report_acks(&acks);
        self.act();
    }

    /// Takes the last acknowledgements of a run.
    pub(super) fn close_acks(&mut self, run: RunId) {
        let acks = self.dispatcher.acks.as_mut();
        if let Some(entry) = acks.and_then(|acks| acks.runs.remove(&run)) {
            entry.acks.close(0);
            self.report_acks(&entry.acks);
        }
        let now = self.clock.now();
        self.engine.on_event(now, Event::Closed { run });
    }

    fn report_acks(&mut self, acks: &RunAcks) {
        let now = self.clock.now();
        let events = self.dispatcher.acks.as_mut().map(|desk| desk.events(acks));
        for event in events.unwrap_or_default() {
            self.engine.on_event(now, event);
        }
    }

    pub(super) fn answer_commit(&mut self, waiter: u64, committed: bool) {
        if let Some(acks) = &mut self.dispatcher.acks {
            acks.answer(waiter, committed);
        }
    }

    /// Counts and tells a refusal.
    pub(super) fn nacked(&self, partition: PartitionId, offset: i64, nack: Nack) {
        self.counters.nacks.fetch_add(1, Ordering::Relaxed);
        let Some((topic, partition)) = self.partitions.name(partition) else {
            return;
        };
        let (topic, partition) = (&**topic, *partition);
        let dropped = nack == Nack::Dropped;
        match nack {
            Nack::After(delay) => {
                let delay_ms = delay.as_millis();
                tracing::debug!(topic, partition, offset, delay_ms, "a record was refused");
            }
            Nack::Dropped => tracing::warn!(
                topic,
                partition,
                offset,
                "a record's acknowledgement was dropped without being given"
            ),
        }
        self.dispatcher.observer.observe(&Observation::Nacked {
            topic,
            partition,
            offset,
            dropped,
        });
    }

    /// Tells of a record whose acknowledgement does not come.
    pub(super) fn unacknowledged(&self, partition: PartitionId, offset: i64, waits: Duration) {
        if let Some((topic, partition)) = self.partitions.name(partition) {
            let (topic, waits_ms) = (&**topic, waits.as_millis());
            tracing::warn!(
                topic,
                partition = *partition,
                offset,
                waits_ms,
                "a record waits for its acknowledgement"
            );
        }
    }
}
