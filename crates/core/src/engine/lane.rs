//! A serial queue of records.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use super::Record;
use super::event::{Failure, FirstFailure};
use crate::Timestamp;
use crate::mutation::{self, Fault};
use crate::settle::Destination;

/// Records that travel together: they were polled together, or gathered for one lane.
#[derive(Debug)]
pub(super) struct Chunk<R> {
    pub(super) records: Vec<R>,
    pub(super) bytes: usize,
    /// When the first of them came; long ago if they were handed out before.
    pub(super) since: Timestamp,
}

impl<R: Record> Chunk<R> {
    pub(super) fn new(records: Vec<R>) -> Self {
        let bytes = records.iter().map(Record::size).sum();
        Chunk {
            records,
            bytes,
            since: Timestamp::EPOCH,
        }
    }

    fn come_at(self, since: Timestamp) -> Self {
        Chunk { since, ..self }
    }
}

/// What a lane is doing.
#[derive(Debug)]
pub(super) enum State {
    /// Nothing: its first chunk may be dispatched.
    Idle,
    /// A run is in work.
    Running,
    /// The first record failed, or came by a retry topic, and is handled at this time.
    Waiting(Timestamp),
    /// The first chunk waits for company until this time.
    Filling(Timestamp),
    /// The first record is being recovered.
    Recovering(Recovery),
    /// Recovering the first record failed and is tried again at this time.
    RecoveryWaiting(Timestamp, Recovery),
}

/// A record that was refused after later ones had been dispatched, and comes again.
#[derive(Debug)]
pub(super) struct Return<R> {
    pub(super) record: R,
    pub(super) tries: Tries,
}

/// What is known of a record that was tried before, while it is not the one that the lane is
/// trying.
#[derive(Debug)]
pub(super) struct Tries {
    /// Its next attempt.
    pub(super) attempt: u32,
    pub(super) failing: Option<Box<Failing>>,
    pub(super) next: Next,
}

/// What is known of a record that has failed.
#[derive(Debug, Clone)]
pub(super) struct Failing {
    /// From when on its time is counted, which stands still in an outage.
    pub(super) since: Timestamp,
    /// How it failed first.
    pub(super) first: FirstFailure,
}

impl Failing {
    /// What was known, or else that this is its first failure.
    pub(super) fn or_first(
        known: Option<Box<Failing>>,
        failure: &Failure,
        now: Timestamp,
    ) -> Box<Failing> {
        known.unwrap_or_else(|| {
            Box::new(Failing {
                since: now,
                first: FirstFailure::of(failure, now),
            })
        })
    }
}

/// What comes next for a record that was tried before.
#[derive(Debug)]
pub(super) enum Next {
    /// It is handled again, not before this time.
    Handle(Timestamp),
    /// It is recovered.
    Recover(Recovery),
}

/// The recovery of a lane's first record.
#[derive(Debug, Clone)]
pub(super) struct Recovery {
    pub(super) destination: Destination,
    pub(super) failure: Failure,
    /// How often the record was handled.
    pub(super) attempts: u32,
    /// How it failed first, if it failed more than once.
    pub(super) first: Option<FirstFailure>,
    /// How often recovery was tried.
    pub(super) tries: u32,
}

#[derive(Debug)]
pub(super) struct Lane<R> {
    pub(super) chunks: VecDeque<Chunk<R>>,
    pub(super) state: State,
    /// The next attempt of the first record.
    pub(super) attempt: u32,
    /// How the first record has failed before.
    pub(super) failing: Option<Box<Failing>>,
    /// With strict commits: how many records of the partition had settled when this lane's last
    /// one had; it goes on when a position is committed that knows of it.
    pub(super) settled_at: u64,
    /// Records that were refused, until the lane is between two runs.
    pub(super) returned: Vec<Return<R>>,
    /// By offset; records among those that wait.
    pub(super) tries: BTreeMap<i64, Tries>,
}

impl<R: Record> Lane<R> {
    pub(super) fn new() -> Self {
        Lane {
            chunks: VecDeque::new(),
            state: State::Idle,
            attempt: 1,
            failing: None,
            settled_at: 0,
            returned: Vec::new(),
            tries: BTreeMap::new(),
        }
    }

    /// Appends one record that came at `now`, to the last chunk if it has room and nothing of it was
    /// handed out before.
    pub(super) fn push(&mut self, now: Timestamp, record: R, chunk_max: usize) {
        let bytes = record.size();
        match self
            .chunks
            .back_mut()
            .filter(|chunk| chunk.records.len() < chunk_max && chunk.since != Timestamp::EPOCH)
        {
            Some(chunk) => {
                chunk.records.push(record);
                chunk.bytes += bytes;
            }
            None => self.chunks.push_back(Chunk {
                records: vec![record],
                bytes,
                since: now,
            }),
        }
    }

    /// Appends a poll's records of `bytes` as they are, split only where they exceed a run.
    pub(super) fn push_all(
        &mut self,
        now: Timestamp,
        mut records: Vec<R>,
        bytes: usize,
        chunk_max: usize,
    ) {
        let since = now;
        if records.len() <= chunk_max {
            let chunk = Chunk {
                records,
                bytes,
                since,
            };
            return self.chunks.push_back(chunk);
        }
        while records.len() > chunk_max {
            let rest = records.split_off(chunk_max);
            self.chunks.push_back(Chunk::new(records).come_at(since));
            records = rest;
        }
        if !records.is_empty() {
            self.chunks.push_back(Chunk::new(records).come_at(since));
        }
    }

    /// Until when the first chunk waits for company: it has room, and nothing of it was handed out
    /// before.
    pub(super) fn fills_until(&self, wait: Duration, chunk_max: usize) -> Option<Timestamp> {
        let chunk = self.chunks.front()?;
        let fresh = chunk.since != Timestamp::EPOCH && self.attempt == 1;
        (fresh && chunk.records.len() < chunk_max).then(|| chunk.since + wait)
    }

    /// Puts records back in front of everything that waits.
    pub(super) fn put_back(&mut self, records: Vec<R>) {
        self.put_chunk_back(Chunk::new(records));
    }

    fn put_chunk_back(&mut self, chunk: Chunk<R>) {
        if chunk.records.is_empty() {
            return;
        }
        if mutation::is(Fault::RetryForgetsOrder) {
            self.chunks.push_back(chunk);
        } else {
            self.chunks.push_front(chunk);
        }
    }

    /// Records that were refused take their places among those that wait, if the lane is between
    /// two runs; what the lane was about to try is remembered for its turn.
    pub(super) fn merge_returned(&mut self) {
        let at = match self.state {
            State::Idle | State::Filling(_) => Timestamp::EPOCH,
            State::Waiting(at) => at,
            State::Running | State::Recovering(_) | State::RecoveryWaiting(..) => return,
        };
        if self.returned.is_empty() {
            return;
        }
        if let Some(first) = self.first().map(Record::offset) {
            let tries = Tries {
                attempt: self.attempt,
                failing: self.failing.take(),
                next: Next::Handle(at),
            };
            // One that was not taken up yet keeps what is known of it.
            self.tries.entry(first).or_insert(tries);
        }
        self.reset_attempts();
        self.state = State::Idle;
        for Return { record, tries } in std::mem::take(&mut self.returned) {
            self.tries.insert(record.offset(), tries);
            self.insert(record);
        }
    }

    /// Takes up the first record where it was left, if it was tried before: it may have to wait,
    /// or to be recovered.
    pub(super) fn begin_first(&mut self, now: Timestamp) -> Option<Recovery> {
        if !matches!(self.state, State::Idle) {
            return None;
        }
        let first = self.first().map(Record::offset)?;
        let tries = self.tries.remove(&first)?;
        self.attempt = tries.attempt;
        self.failing = tries.failing;
        match tries.next {
            Next::Handle(at) if at > now => self.state = State::Waiting(at),
            Next::Handle(_) => {}
            Next::Recover(recovery) => return Some(recovery),
        }
        None
    }

    /// Puts a record in its place by offset, in a chunk of its own: only the first record of a
    /// chunk may have been tried before.
    fn insert(&mut self, record: R) {
        let offset = record.offset();
        if mutation::is(Fault::RefusalForgetsOrder) {
            return self.chunks.push_back(Chunk::new(vec![record]));
        }
        let last = |chunk: &Chunk<R>| chunk.records.last().map_or(i64::MIN, Record::offset);
        let place = self.chunks.partition_point(|chunk| last(chunk) < offset);
        let behind = self.chunks.get_mut(place).map(|chunk| {
            let at = chunk
                .records
                .partition_point(|other| other.offset() < offset);
            let behind = chunk.records.split_off(at);
            chunk.bytes = chunk.records.iter().map(Record::size).sum();
            behind
        });
        if let Some(behind) = behind {
            let before = self
                .chunks
                .get(place)
                .is_some_and(|chunk| chunk.records.is_empty());
            if before {
                self.chunks.remove(place);
            }
            let place = if before { place } else { place + 1 };
            self.chunks.insert(place, Chunk::new(behind));
            self.chunks.insert(place, Chunk::new(vec![record]));
        } else {
            self.chunks.push_back(Chunk::new(vec![record]));
        }
    }

    /// Forgets everything that waits, but for the first record if it is being recovered.
    pub(super) fn clear(&mut self) {
        let recovering = matches!(self.state, State::Recovering(..));
        let first = self.take_first().filter(|_| recovering);
        self.chunks.clear();
        self.chunks.extend(first);
        self.returned.clear();
        self.tries.clear();
    }

    /// The next chunk to dispatch.
    pub(super) fn take_chunk(&mut self) -> Option<Chunk<R>> {
        self.chunks.pop_front()
    }

    /// The first records that are due; those behind them in their chunk stay.
    pub(super) fn take_due(&mut self, now: Timestamp) -> Option<Chunk<R>> {
        let mut chunk = self.chunks.pop_front()?;
        let waits = |record: &R| record.due().is_some_and(|at| at > now);
        let due = chunk.records.iter().position(waits);
        let due = due.filter(|_| !mutation::is(Fault::DueTooEarly));
        let rest = chunk.records.split_off(due.unwrap_or(chunk.records.len()));
        self.put_back(rest);
        (!chunk.records.is_empty()).then(|| Chunk::new(chunk.records))
    }

    /// When the first record may be handled, if it has to wait.
    pub(super) fn due_after(&self, now: Timestamp) -> Option<Timestamp> {
        let early = mutation::is(Fault::DueTooEarly);
        self.first()?.due().filter(|at| *at > now && !early)
    }

    /// Only the first record.
    pub(super) fn take_first(&mut self) -> Option<Chunk<R>> {
        let mut chunk = self.chunks.pop_front()?;
        let rest = chunk.records.split_off(1);
        self.put_chunk_back(Chunk::new(rest).come_at(chunk.since));
        Some(Chunk::new(chunk.records))
    }

    pub(super) fn first(&self) -> Option<&R> {
        self.chunks.front()?.records.first()
    }

    /// Whether a run could start if nothing else forbade it.
    pub(super) fn is_ready(&self) -> bool {
        let running = matches!(self.state, State::Running);
        let free = matches!(self.state, State::Idle)
            || running && mutation::is(Fault::LaneDispatchedTwice);
        free && !self.chunks.is_empty()
    }

    /// The first record is done with.
    pub(super) fn reset_attempts(&mut self) {
        self.attempt = 1;
        self.failing = None;
    }

    /// Since when its records fail that are tried again.
    pub(super) fn failing(&mut self) -> impl Iterator<Item = &mut Timestamp> {
        let refused = self.returned.iter_mut().map(|found| &mut found.tries);
        let tries = refused.chain(self.tries.values_mut());
        let failing = tries.filter_map(|tries| tries.failing.as_mut());
        let failing = failing.chain(self.failing.as_mut());
        failing.map(|failing| &mut failing.since)
    }

    /// When its wait is over.
    pub(super) fn wakes_at(&self) -> Option<Timestamp> {
        match self.state {
            State::Waiting(until) | State::Filling(until) | State::RecoveryWaiting(until, _) => {
                Some(until)
            }
            State::Idle | State::Running | State::Recovering(_) => None,
        }
    }
}
