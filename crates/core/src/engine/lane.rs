//! A serial queue of records.

use std::collections::VecDeque;

use super::Record;
use super::event::Failure;
use crate::Timestamp;
use crate::settle::Destination;

/// Records that travel together: they were polled together, or gathered for one lane.
#[derive(Debug)]
pub(super) struct Chunk<R> {
    pub(super) records: Vec<R>,
    pub(super) bytes: usize,
}

impl<R: Record> Chunk<R> {
    pub(super) fn new(records: Vec<R>) -> Self {
        let bytes = records.iter().map(Record::size).sum();
        Chunk { records, bytes }
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
    /// The first record is being recovered.
    Recovering(Recovery),
    /// Recovering the first record failed and is tried again at this time.
    RecoveryWaiting(Timestamp, Recovery),
}

/// The recovery of a lane's first record.
#[derive(Debug, Clone)]
pub(super) struct Recovery {
    pub(super) destination: Destination,
    pub(super) failure: Failure,
    /// How often the record was handled.
    pub(super) attempts: u32,
    /// How often recovery was tried.
    pub(super) tries: u32,
}

#[derive(Debug)]
pub(super) struct Lane<R> {
    pub(super) chunks: VecDeque<Chunk<R>>,
    pub(super) state: State,
    /// The next attempt of the first record.
    pub(super) attempt: u32,
    /// When the first record failed first.
    pub(super) failing_since: Option<Timestamp>,
}

impl<R: Record> Lane<R> {
    pub(super) fn new() -> Self {
        Lane {
            chunks: VecDeque::new(),
            state: State::Idle,
            attempt: 1,
            failing_since: None,
        }
    }

    /// Appends one record, to the last chunk if it has room.
    pub(super) fn push(&mut self, record: R, chunk_max: usize) {
        let bytes = record.size();
        match self
            .chunks
            .back_mut()
            .filter(|chunk| chunk.records.len() < chunk_max)
        {
            Some(chunk) => {
                chunk.records.push(record);
                chunk.bytes += bytes;
            }
            None => self.chunks.push_back(Chunk {
                records: vec![record],
                bytes,
            }),
        }
    }

    /// Appends a poll's records of `bytes` as they are, split only where they exceed a run.
    pub(super) fn push_all(&mut self, mut records: Vec<R>, bytes: usize, chunk_max: usize) {
        if records.len() <= chunk_max {
            return self.chunks.push_back(Chunk { records, bytes });
        }
        while records.len() > chunk_max {
            let rest = records.split_off(chunk_max);
            self.chunks.push_back(Chunk::new(records));
            records = rest;
        }
        if !records.is_empty() {
            self.chunks.push_back(Chunk::new(records));
        }
    }

    /// Puts records back in front of everything that waits.
    pub(super) fn put_back(&mut self, records: Vec<R>) {
        if !records.is_empty() {
            self.chunks.push_front(Chunk::new(records));
        }
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
        let rest = chunk.records.split_off(due.unwrap_or(chunk.records.len()));
        self.put_back(rest);
        (!chunk.records.is_empty()).then(|| Chunk::new(chunk.records))
    }

    /// When the first record may be handled, if it has to wait.
    pub(super) fn due_after(&self, now: Timestamp) -> Option<Timestamp> {
        self.first()?.due().filter(|at| *at > now)
    }

    /// Only the first record.
    pub(super) fn take_first(&mut self) -> Option<Chunk<R>> {
        let mut chunk = self.chunks.pop_front()?;
        let rest = chunk.records.split_off(1);
        self.put_back(rest);
        Some(Chunk::new(chunk.records))
    }

    pub(super) fn first(&self) -> Option<&R> {
        self.chunks.front()?.records.first()
    }

    /// Whether a run could start if nothing else forbade it.
    pub(super) fn is_ready(&self) -> bool {
        matches!(self.state, State::Idle) && !self.chunks.is_empty()
    }

    /// The first record is done with.
    pub(super) fn reset_attempts(&mut self) {
        self.attempt = 1;
        self.failing_since = None;
    }

    /// When its wait is over.
    pub(super) fn wakes_at(&self) -> Option<Timestamp> {
        match self.state {
            State::Waiting(until) | State::RecoveryWaiting(until, _) => Some(until),
            State::Idle | State::Running | State::Recovering(_) => None,
        }
    }
}
