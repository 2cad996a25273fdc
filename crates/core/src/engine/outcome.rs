//! What the end of a run leads to.

#[cfg(test)]
mod tests;

use super::Record;
use super::effect::Effect;
use super::event::{End, Failure, PartitionId, RunId};
use super::lane::{Failing, Lane, Recovery, State};
use super::machine::{Engine, Flight};
use super::partition::Phase;
use crate::Timestamp;
use crate::lane::LaneId;
use crate::mutation::{self, Fault};
use crate::offset::Span;
use crate::settle::{Class, Destination, Failed, Settlement};

impl Flight {
    /// The spans of the next `count` records.
    fn take(&mut self, count: usize) -> Vec<Span> {
        let mut left = count.min(self.total - self.settled);
        self.settled += left;
        let mut taken = Vec::new();
        while left > 0 {
            let Some(span) = self.spans.front_mut() else {
                break;
            };
            let part = u32::try_from(left).unwrap_or(u32::MAX).min(span.count);
            taken.push(Span {
                first: span.first,
                count: part,
            });
            left -= part as usize;
            span.first.0 += i64::from(part);
            span.count -= part;
            if span.count == 0 {
                self.spans.pop_front();
            }
        }
        taken
    }

    /// Takes these records out, wherever they stand.
    fn take_out(&mut self, offsets: &[i64]) -> Vec<Span> {
        let is_taken = |offset: &i64| offsets.binary_search(offset).is_ok();
        let spans = std::mem::take(&mut self.spans);
        let all = spans.into_iter().flat_map(|span| span.first.0..span.end());
        let (taken, kept): (Vec<_>, Vec<_>) = all.partition(is_taken);
        self.spans = Span::of(kept.into_iter()).into();
        self.total -= taken.len();
        Span::of(taken.into_iter())
    }
}

impl<R: Record> Engine<R> {
    pub(super) fn progress(&mut self, now: Timestamp, run: RunId, settled: usize) {
        let Some(flight) = self.flights.get_mut(&run) else {
            return;
        };
        let (id, generation) = (flight.partition, flight.generation);
        let spans = flight.take(settled);
        let Some(partition) = self.partitions.get_mut(&id) else {
            return;
        };
        let stale =
            partition.generation() != generation && !mutation::is(Fault::StaleProgressCounts);
        let manual = self.config.commit.is_manual() && !mutation::is(Fault::ReturnSettles);
        if stale || manual {
            return;
        }
        for span in spans {
            partition.settle(now, span);
        }
        self.update_pauses(Some(id));
    }

    pub(super) fn settled_behind(&mut self, now: Timestamp, run: RunId, offsets: &[i64]) {
        let Some(flight) = self.flights.get_mut(&run) else {
            return;
        };
        let (id, generation) = (flight.partition, flight.generation);
        let spans = flight.take_out(offsets);
        let partition = self.partitions.get_mut(&id);
        let Some(partition) = partition.filter(|found| found.generation() == generation) else {
            return;
        };
        if mutation::is(Fault::SettledBehindForgotten) {
            return;
        }
        if let [first, .., last] = &*spans
            && mutation::is(Fault::SettledBehindCoversOthers)
        {
            let count = u32::try_from(last.end() - first.first.0).unwrap_or(0);
            let first = first.first;
            return partition.settle(now, Span { first, count });
        }
        for span in spans {
            partition.settle(now, span);
        }
    }

    pub(super) fn finished(&mut self, now: Timestamp, run: RunId, end: End<R>) {
        let away = match &end {
            End::Failed { failure, .. } if failure.class == Class::Unavailable => {
                Some(failure.summary.clone())
            }
            _ => None,
        };
        let end = self.end_of_manual(run, end);
        let unhandled = match &end {
            End::Complete => 0,
            End::Failed { rest, .. } => rest.len() + 1,
            End::Cancelled { .. } if mutation::is(Fault::RestOfHaltedSettled) => 0,
            End::Held { .. } if mutation::is(Fault::HeldTakenAsSettled) => 0,
            End::Cancelled { rest } | End::Held { rest, .. } => rest.len(),
        };
        let Some(flight) = self.flights.get(&run) else {
            return;
        };
        let settled = (flight.total - flight.settled).saturating_sub(unhandled);
        self.progress(now, run, settled);
        let Some(flight) = self.flights.remove(&run) else {
            return;
        };
        self.forget_closed(run);
        let mut was_probe = self.end_probe(run);
        let (id, lane_id) = (flight.partition, flight.lane);
        let Some(partition) = self.current(&flight) else {
            return self.zombie_ended(now, id, was_probe);
        };
        partition.in_work -= 1;
        partition.queued_bytes = partition.queued_bytes.saturating_sub(flight.bytes);
        let settled = partition.settled();
        if let Some(lane) = partition.lanes.get_mut(usize::from(lane_id.0)) {
            lane.state = State::Idle;
            if flight.settled > 0 {
                lane.reset_attempts();
                lane.settled_at = settled;
            }
        }
        if !matches!(end, End::Held { .. }) {
            self.held_no_longer(id, lane_id);
        }
        if let Some(reason) = away.filter(|_| was_probe && !matches!(end, End::Failed { .. })) {
            // Its record is acknowledged, and what it needed is away all the same.
            self.outage(now, (id, lane_id), reason, true);
            was_probe = false;
        }
        match end {
            End::Complete => self.succeeded(id, lane_id, was_probe),
            End::Cancelled { rest } => self.interrupted(now, id, lane_id, rest, was_probe),
            End::Held { reason, rest } => {
                self.put_back(id, lane_id, rest);
                self.hold(now, id, lane_id, reason);
                if was_probe {
                    self.outage_over();
                }
            }
            End::Failed {
                failure,
                record,
                rest,
            } => {
                let attempt = if flight.settled == 0 {
                    flight.attempt
                } else {
                    1
                };
                self.failed(
                    now,
                    (id, lane_id),
                    attempt,
                    failure,
                    record,
                    rest,
                    was_probe,
                );
            }
        }
        // What was refused meanwhile comes before what a failure has put back.
        if self.config.commit.is_manual() {
            self.dispatch_lane(id, lane_id);
        }
        self.update_pauses(Some(id));
    }

    /// The partition of a run, if it has not been given away or begun anew since.
    fn current(&mut self, flight: &Flight) -> Option<&mut super::partition::Partition<R>> {
        let partition = self.partitions.get_mut(&flight.partition)?;
        (partition.generation() == flight.generation).then_some(partition)
    }

    pub(super) fn end_probe(&mut self, run: RunId) -> bool {
        match &mut self.outage {
            Some(outage) if outage.probe == Some(run) => {
                outage.probe = None;
                true
            }
            _ => false,
        }
    }

    pub(super) fn zombie_ended(&mut self, now: Timestamp, id: PartitionId, was_probe: bool) {
        if let Some(count) = self.zombies.get_mut(&id) {
            *count -= 1;
            if *count == 0 {
                self.zombies.remove(&id);
            }
        }
        if let Some(outage) = self.outage.as_mut().filter(|_| was_probe) {
            outage.next_probe = now;
        }
        self.dispatch_partition(id);
    }

    fn succeeded(&mut self, id: PartitionId, lane: LaneId, was_probe: bool) {
        if was_probe {
            self.outage_over();
        }
        if mutation::is(Fault::AttemptsResetByNeighbour) {
            let partitions = self.partitions.values_mut();
            let lanes = partitions.flat_map(|partition| &mut partition.lanes);
            lanes.for_each(Lane::reset_attempts);
        }
        self.dispatch_lane(id, lane);
    }

    fn interrupted(
        &mut self,
        now: Timestamp,
        id: PartitionId,
        lane_id: LaneId,
        rest: Vec<R>,
        was_probe: bool,
    ) {
        self.put_back(id, lane_id, rest);
        if let Some(outage) = self.outage.as_mut().filter(|_| was_probe) {
            outage.next_probe = now;
        }
        self.dispatch_lane(id, lane_id);
    }

    #[expect(
        clippy::too_many_arguments,
        reason = "the parts of one failure, taken apart once"
    )]
    fn failed(
        &mut self,
        now: Timestamp,
        (id, lane_id): (PartitionId, LaneId),
        attempt: u32,
        failure: Failure,
        record: R,
        rest: Vec<R>,
        was_probe: bool,
    ) {
        if was_probe && failure.class != Class::Unavailable {
            self.forgive_outage();
        }
        let known = self.lane_mut(id, lane_id);
        let known = known.and_then(|lane| lane.failing.clone());
        let first = known.as_ref().map(|failing| failing.first.clone());
        let since = known.as_ref().map_or(now, |failing| failing.since);
        let settlement = self.judge(now, &record, &failure, attempt, since);
        let attempts = self.tell_failed(id, &record, failure.clone(), attempt, settlement);
        let offset = record.offset();
        let mut unsettled = Vec::with_capacity(rest.len() + 1);
        unsettled.push(record);
        if !mutation::is(Fault::RestOfFailureDropped) {
            unsettled.extend(rest);
        }
        if settlement == Settlement::Done {
            unsettled.remove(0);
            self.settle_first(now, id, lane_id, offset);
        }
        self.put_back(id, lane_id, unsettled);
        if let Some(partition) = self.partitions.get_mut(&id) {
            partition.end_poll();
        }
        match settlement {
            Settlement::Done => self.dispatch_lane(id, lane_id),
            Settlement::RetryAfter(wait) => {
                let failing = Failing::or_first(known, &failure, now);
                self.retry(
                    (id, lane_id),
                    attempt.saturating_add(1),
                    failing,
                    now + wait,
                );
            }
            Settlement::Recover(destination) => {
                self.recover(
                    id,
                    lane_id,
                    Recovery {
                        destination,
                        failure,
                        attempts,
                        first,
                        tries: 0,
                    },
                );
            }
            Settlement::Probe => {
                if let Some(lane) = self.lane_mut(id, lane_id) {
                    let used = u32::from(mutation::is(Fault::OutageUsesAttempts));
                    lane.attempt = attempt + used;
                }
                self.outage(now, (id, lane_id), failure.summary, was_probe);
            }
            Settlement::Stop => self.stop(now, Some(failure.to_string())),
        }
        // Only now, with the lane in its new state: what is behind the record must not start.
        if was_probe && settlement != Settlement::Probe {
            self.outage_over();
        }
    }

    /// What a failed attempt at `record` leads to.
    pub(super) fn judge(
        &mut self,
        now: Timestamp,
        record: &R,
        failure: &Failure,
        attempt: u32,
        since: Timestamp,
    ) -> Settlement {
        let random = self.random();
        let config = &self.config;
        let by_cause = failure.policy.checked_sub(1);
        let by_cause = by_cause.and_then(|place| config.retry_for.get(place));
        let settlement = Failed {
            class: failure.class,
            attempt,
            elapsed: now.since(since),
            retries: record.retries(),
            retry_after: failure.retry_after,
        }
        .settle(
            by_cause.unwrap_or(&config.retry),
            &config.retry_topics,
            random,
        );
        match settlement {
            Settlement::Recover(Destination::DeadLetter)
                if config.ordered
                    && failure.class == Class::Transient
                    && !mutation::is(Fault::ParkedGivenUp) =>
            {
                Settlement::Recover(Destination::Parked)
            }
            Settlement::Recover(Destination::DeadLetter) if !config.recover => Settlement::Stop,
            decided => decided,
        }
    }

    /// Tells of a failed attempt; how many there were, everywhere.
    pub(super) fn tell_failed(
        &mut self,
        partition: PartitionId,
        record: &R,
        failure: Failure,
        attempt: u32,
        settlement: Settlement,
    ) -> u32 {
        let attempt = record.earlier_attempts().saturating_add(attempt);
        self.effects.push_back(Effect::Failed {
            partition,
            offset: record.offset(),
            failure,
            attempt,
            settlement,
        });
        attempt
    }

    /// Puts records back at the front of their lane, unless their partition is on its way out.
    fn put_back(&mut self, id: PartitionId, LaneId(lane): LaneId, records: Vec<R>) {
        let Some(partition) = self.partitions.get_mut(&id) else {
            return;
        };
        if partition.phase != Phase::Active {
            return;
        }
        partition.queued_bytes += records.iter().map(Record::size).sum::<usize>();
        if let Some(lane) = partition.lanes.get_mut(usize::from(lane)) {
            lane.put_back(records);
        }
    }

    fn retry(
        &mut self,
        place: (PartitionId, LaneId),
        attempt: u32,
        failing: Box<Failing>,
        at: Timestamp,
    ) {
        let (id, lane_id) = place;
        let Some(lane) = self.active_lane(id, lane_id) else {
            return;
        };
        lane.attempt = attempt;
        lane.failing = Some(failing);
        let early = mutation::is(Fault::RetryTooEarly);
        let at = if early { Timestamp::EPOCH } else { at };
        lane.state = State::Waiting(at);
        self.timers.insert((at, id, lane_id));
    }

    pub(super) fn settle_first(
        &mut self,
        now: Timestamp,
        id: PartitionId,
        lane_id: LaneId,
        offset: i64,
    ) {
        let Some(partition) = self.partitions.get_mut(&id) else {
            return;
        };
        for span in Span::of(std::iter::once(offset)) {
            partition.settle(now, span);
        }
        let settled = partition.settled();
        if let Some(lane) = self.lane_mut(id, lane_id) {
            lane.reset_attempts();
            lane.settled_at = settled;
        }
    }

    pub(super) fn lane_mut(
        &mut self,
        id: PartitionId,
        LaneId(lane): LaneId,
    ) -> Option<&mut Lane<R>> {
        self.partitions
            .get_mut(&id)?
            .lanes
            .get_mut(usize::from(lane))
    }

    pub(super) fn active_lane(&mut self, id: PartitionId, lane: LaneId) -> Option<&mut Lane<R>> {
        let active = self
            .partitions
            .get(&id)
            .is_some_and(|found| found.phase == Phase::Active);
        if active {
            self.lane_mut(id, lane)
        } else {
            None
        }
    }
}
