//! Records that were handled and wait for their acknowledgement.
//!
//! In the manual ack modes a handler's return settles nothing; its acknowledgement does, in any
//! order and as late as it likes. What is open keeps its place: it holds the position, it counts
//! against the queue's limits, and it comes again when it is refused. An acknowledgement of a run
//! that the engine does not know any more, because its partition was given away or begun anew, is
//! stale and changes nothing.

mod overdue;
mod refusals;

use std::collections::BTreeMap;
use std::ops::Range;

use super::Record;
use super::effect::Effect;
use super::event::{End, Nack, PartitionId, RunId};
use super::lane::Failing;
use super::machine::Engine;
use crate::Timestamp;
use crate::lane::LaneId;
use crate::mutation::{self, Fault};
use crate::offset::{Generation, Span};
use crate::settle::Settlement;

/// Runs with open records.
#[derive(Debug)]
pub(super) struct Manual<R> {
    runs: BTreeMap<RunId, Open<R>>,
    /// When to look for records that have been open for too long.
    look_at: Option<Timestamp>,
    /// The run with the record that has been open for too long.
    blamed: Option<RunId>,
    problem: Option<String>,
}

/// A run, from its dispatch until each of its records is acknowledged or refused.
#[derive(Debug)]
struct Open<R> {
    partition: PartitionId,
    generation: Generation,
    lane: LaneId,
    /// Of the first record, as in the flight; the others were not tried before.
    attempt: u32,
    failing: Option<Box<Failing>>,
    spans: Vec<Span>,
    /// By place in the run: acknowledged or refused.
    closed: Vec<bool>,
    /// The handled records, since the run has ended.
    records: Vec<R>,
    handled_at: Option<Timestamp>,
    /// How many of `records` are not closed.
    open: usize,
    /// Refusals from before the run has ended.
    early: Vec<(usize, Nack)>,
}

impl<R> Default for Manual<R> {
    fn default() -> Self {
        Manual {
            runs: BTreeMap::new(),
            look_at: None,
            blamed: None,
            problem: None,
        }
    }
}

impl<R> Manual<R> {
    pub(super) fn problem(&self) -> Option<&String> {
        self.problem.as_ref()
    }

    pub(super) fn deadline(&self) -> Option<Timestamp> {
        self.look_at
    }

    /// Since when records fail that wait for their acknowledgement.
    pub(super) fn failing(&mut self) -> impl Iterator<Item = &mut Timestamp> {
        let runs = self.runs.values_mut();
        let failing = runs.filter_map(|run| run.failing.as_mut());
        failing.map(|failing| &mut failing.since)
    }

    /// Whether the failed record at this place of a run was acknowledged before it failed.
    fn is_closed(&self, run: RunId, place: usize) -> bool {
        let run = self.runs.get(&run);
        run.is_some_and(|run| run.closed.get(place).copied().unwrap_or(false))
    }
}

impl<R: Record> Open<R> {
    /// Closes these places; the spans of those that were open.
    fn close(&mut self, places: Range<usize>) -> Vec<Span> {
        let mut offsets = Vec::with_capacity(places.len());
        let mut place = 0;
        for span in &self.spans {
            let count = span.count as usize;
            let from = places.start.max(place);
            for at in from..places.end.min(place + count) {
                if self.closed.get(at) == Some(&false) {
                    self.closed[at] = true;
                    offsets.push(span.first.0 + (at - place) as i64);
                }
            }
            place += count;
        }
        Span::of(offsets.into_iter())
    }

    fn attempt(&self, place: usize) -> u32 {
        if place == 0 { self.attempt } else { 1 }
    }

    /// The earliest record that is open, and since when, if the run has ended.
    fn waits(&self) -> Option<(Timestamp, i64)> {
        let place = self.closed.iter().position(|closed| !closed)?;
        let record = self.records.get(place)?;
        Some((self.handled_at?, record.offset()))
    }
}

/// A caller who waits until the broker knows that a record is settled.
#[derive(Debug, Clone, Copy)]
pub(super) struct Waiter {
    pub(super) id: u64,
    pub(super) offset: i64,
    /// How many records of the partition had settled when this one had.
    pub(super) settled: u64,
}

impl<R: Record> Engine<R> {
    /// A run begins whose records will have to be acknowledged.
    pub(super) fn open_run(&mut self, run: RunId, id: PartitionId, lane: LaneId) {
        if !self.config.commit.is_manual() {
            return;
        }
        let Some(flight) = self.flights.get(&run) else {
            return;
        };
        let (generation, attempt, total) = (flight.generation, flight.attempt, flight.total);
        let spans = flight.spans.iter().copied().collect();
        let failing = self
            .lane_mut(id, lane)
            .and_then(|lane| lane.failing.clone());
        let open = Open {
            partition: id,
            generation,
            lane,
            attempt,
            failing,
            spans,
            closed: vec![false; total],
            records: Vec::new(),
            handled_at: None,
            open: 0,
            early: Vec::new(),
        };
        self.manual.runs.insert(run, open);
    }

    /// The first records of a run were handled; the run is about to end.
    pub(super) fn handled(&mut self, now: Timestamp, run: RunId, records: Vec<R>) {
        let Some(open) = self.manual.runs.get_mut(&run) else {
            return;
        };
        let waiting = records
            .iter()
            .zip(&open.closed)
            .filter(|(_, closed)| !**closed);
        let (count, bytes) = waiting.fold((0, 0), |(count, bytes), (record, _)| {
            (count + 1, bytes + record.size())
        });
        open.records = records;
        open.handled_at = Some(now);
        open.open = count;
        let early = std::mem::take(&mut open.early);
        if let Some(partition) = self.partitions.get_mut(&open.partition) {
            partition.unacknowledged += count;
            partition.queued_bytes += bytes;
        }
        for (place, nack) in early {
            self.nacked(now, run, place, nack);
        }
        if self.manual.problem.is_none() && self.manual.look_at.is_none() {
            self.manual.look_at = Some(now + self.config.unacknowledged_limit);
        }
    }

    /// What ended a run, without the records that were acknowledged before they failed.
    pub(super) fn end_of_manual(&mut self, run: RunId, end: End<R>) -> End<R> {
        let Some(open) = self.manual.runs.get(&run) else {
            return end;
        };
        let (id, place) = (open.partition, open.records.len());
        match end {
            End::Failed {
                failure,
                record,
                rest,
            } if self.manual.is_closed(run, place) => {
                let attempt = open.attempt(place);
                self.tell_failed(id, &record, failure, attempt, Settlement::Done);
                End::Cancelled { rest }
            }
            End::Cancelled { mut rest } if self.manual.is_closed(run, place) => {
                if !rest.is_empty() {
                    rest.remove(0);
                }
                End::Cancelled { rest }
            }
            end => end,
        }
    }

    /// Drops what is known of a run that has ended, if nothing of it is open.
    pub(super) fn forget_closed(&mut self, run: RunId) {
        let ended = !self.flights.contains_key(&run);
        if ended && self.manual.runs.get(&run).is_some_and(|run| run.open == 0) {
            self.manual.runs.remove(&run);
        }
    }

    /// Records of a run were acknowledged; `waiters` want to hear of their commit.
    pub(super) fn acknowledged(
        &mut self,
        now: Timestamp,
        run: RunId,
        places: Vec<Range<usize>>,
        waiters: Vec<(usize, u64)>,
    ) {
        let found = self.manual.runs.get_mut(&run);
        let partition = found.and_then(|open| {
            let partition = self.partitions.get_mut(&open.partition)?;
            (partition.generation() == open.generation).then_some((open, partition))
        });
        let Some((open, partition)) = partition else {
            for (_, waiter) in waiters {
                let committed = false;
                self.effects.push_back(Effect::Answer { waiter, committed });
            }
            return;
        };
        let id = open.partition;
        for mut places in places {
            if mutation::is(Fault::AcknowledgementCoversEarlier) {
                places.start = 0;
            }
            let handled = places.start..places.end.min(open.records.len());
            let closing = open.records.get(handled.clone()).unwrap_or_default();
            let closing = closing
                .iter()
                .zip(open.closed.get(handled).unwrap_or_default());
            for (record, _) in closing.filter(|(_, closed)| !**closed) {
                partition.queued_bytes = partition.queued_bytes.saturating_sub(record.size());
                partition.unacknowledged -= 1;
                open.open -= 1;
            }
            for span in open.close(places) {
                partition.settle(now, span);
            }
        }
        let settled = partition.settled();
        for (place, id) in waiters {
            let offset = offset_at(&open.spans, place);
            partition.waiters.push(Waiter {
                id,
                offset,
                settled,
            });
        }
        if open.handled_at.is_some() {
            self.forget_closed(run);
        }
        self.update_pauses(Some(id));
    }

    /// Acknowledgements of this partition's runs are awaited no longer.
    pub(super) fn disown_acknowledgements(&mut self, id: PartitionId) {
        let of = self
            .manual
            .runs
            .iter()
            .filter(|(_, open)| open.partition == id);
        let runs: Vec<_> = of.map(|(run, _)| *run).collect();
        for run in runs {
            self.manual.runs.remove(&run);
            self.effects.push_back(Effect::Close { run });
        }
        if let Some(partition) = self.partitions.get_mut(&id) {
            partition.unacknowledged = 0;
            for waiter in partition.waiters.drain(..) {
                self.effects.push_back(Effect::Answer {
                    waiter: waiter.id,
                    committed: false,
                });
            }
        }
    }

    /// Asks for the last acknowledgements of a partition on its way out.
    pub(super) fn close_acknowledgements(&mut self, id: PartitionId) {
        let of = self
            .manual
            .runs
            .iter()
            .filter(|(_, open)| open.partition == id);
        for (run, _) in of {
            self.effects.push_back(Effect::Close { run: *run });
        }
    }

    /// No acknowledgement of this run comes any more; what is open stays unsettled.
    pub(super) fn closed(&mut self, run: RunId) {
        let Some(open) = self.manual.runs.get_mut(&run) else {
            return;
        };
        if let Some(partition) = self.partitions.get_mut(&open.partition) {
            partition.unacknowledged -= open.open;
        }
        self.manual.runs.remove(&run);
    }

    /// Tells those who wait for it that their record is committed.
    pub(super) fn answer_waiters(&mut self) {
        for partition in self
            .partitions
            .values_mut()
            .filter(|p| !p.waiters.is_empty())
        {
            for waiter in partition.take_answered() {
                self.effects.push_back(Effect::Answer {
                    waiter: waiter.id,
                    committed: true,
                });
            }
        }
    }
}

fn offset_at(spans: &[Span], place: usize) -> i64 {
    let mut before = 0;
    for span in spans {
        let count = span.count as usize;
        if place < before + count {
            return span.first.0 + (place - before) as i64;
        }
        before += count;
    }
    i64::MAX
}
