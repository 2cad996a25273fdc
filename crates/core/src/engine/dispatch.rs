//! What may be handled now.

use super::Record;
use super::effect::Effect;
use super::event::{PartitionId, RunId};
use super::lane::{Chunk, Lane, State};
use super::machine::{Engine, Flight, Life};
use super::partition::Phase;
use crate::Timestamp;
use crate::commit::AckMode;
use crate::lane::LaneId;
use crate::mutation::{self, Fault};
use crate::offset::{CommitOffset, Span};

/// Something that all records need is away.
#[derive(Debug)]
pub(super) struct Outage {
    pub(super) reason: String,
    pub(super) began: Timestamp,
    pub(super) probes: u32,
    pub(super) next_probe: Timestamp,
    pub(super) probe: Option<RunId>,
    /// The lane that reported it: its first record is the probe.
    pub(super) lane: (PartitionId, LaneId),
}

impl<R: Record> Engine<R> {
    pub(super) fn polled(
        &mut self,
        now: Timestamp,
        id: PartitionId,
        records: Vec<R>,
        next: CommitOffset,
    ) {
        let Some(partition) = self.partitions.get(&id) else {
            return;
        };
        if partition.phase != Phase::Active || self.is_seeking(id) {
            return;
        }
        self.control.read(id);
        let first = records.first().map(Record::offset);
        if let Some(first) = first.filter(|first| partition.is_rewound_by(*first)) {
            // The log was cut, or the client fell back. What is unsettled comes again as well.
            let to = partition.safe_start(CommitOffset(first));
            self.restart(id, to);
            if to.0 < first {
                return self.effects.push_back(Effect::Seek { partition: id, to });
            }
        }
        if let Some(partition) = self.partitions.get_mut(&id) {
            partition.deliver(now, &self.config, records, next);
        }
        self.dispatch_partition(id);
        self.update_pauses(Some(id));
    }

    pub(super) fn dispatch_all(&mut self) {
        for id in self.ids() {
            self.dispatch_partition(id);
        }
    }

    pub(super) fn dispatch_partition(&mut self, id: PartitionId) {
        let lanes = self
            .partitions
            .get(&id)
            .map_or(0, |partition| partition.lanes.len());
        for lane in 0..lanes {
            self.dispatch_lane(id, LaneId(u16::try_from(lane).unwrap_or(u16::MAX)));
        }
    }

    /// Dispatches the lane's next chunk, if nothing forbids it.
    pub(super) fn dispatch_lane(&mut self, id: PartitionId, lane: LaneId) {
        if self.config.commit.is_manual() {
            self.take_returned(id, lane);
        }
        self.await_due(id, lane);
        if !self.config.fill_wait.is_zero() {
            self.await_company(id, lane);
        }
        let paused = self.paused && !mutation::is(Fault::PauseKeepsDispatching);
        let away = self.outage.is_some() && !mutation::is(Fault::OutageKeepsDispatching);
        if paused || away || !self.is_dispatchable(id, lane) {
            return;
        }
        let (now, delayed, one) = (self.now, self.is_delayed(id), self.awaits_commits());
        let found = self.lane_mut(id, lane).and_then(|lane| {
            if one {
                lane.take_first()
            } else if delayed {
                lane.take_due(now)
            } else {
                lane.take_chunk()
            }
        });
        if let Some(chunk) = found {
            self.start_run(id, lane, chunk);
        }
    }

    /// Whether each record waits for the commit of the one before it.
    pub(super) fn awaits_commits(&self) -> bool {
        let strict = self.config.strict_commits && !mutation::is(Fault::StrictDoesNotWait);
        strict && self.config.commit == AckMode::Record
    }

    /// Has the lane wait if its first record is not due yet.
    fn await_due(&mut self, id: PartitionId, lane_id: LaneId) {
        if !self.is_delayed(id) {
            return;
        }
        let now = self.now;
        let Some(lane) = self.active_lane(id, lane_id).filter(|lane| lane.is_ready()) else {
            return;
        };
        if let Some(at) = lane.due_after(now) {
            lane.state = State::Waiting(at);
            self.timers.insert((at, id, lane_id));
        }
    }

    /// Has the lane wait for company, or ends that.
    fn await_company(&mut self, id: PartitionId, lane_id: LaneId) {
        let (now, wait) = (self.now, self.config.fill_wait);
        let chunk_max = self.config.run_records.max(1);
        let Some(partition) = self.partitions.get(&id) else {
            return;
        };
        // Nothing comes any more while the queues are full; what comes by a retry topic has waited.
        let alone = partition.delayed || self.crowded || partition.holds_its_limit(&self.config);
        let alone = alone || mutation::is(Fault::FillTooShort);
        let Some(lane) = self.active_lane(id, lane_id) else {
            return;
        };
        if !matches!(lane.state, State::Idle | State::Filling(_)) {
            return;
        }
        let until = lane.fills_until(wait, chunk_max).filter(|_| !alone);
        lane.state = match until.filter(|until| *until > now) {
            Some(until) => State::Filling(until),
            None => State::Idle,
        };
        if let State::Filling(until) = lane.state
            && !mutation::is(Fault::FillWithoutEnd)
        {
            self.timers.insert((until, id, lane_id));
        }
    }

    fn is_delayed(&self, id: PartitionId) -> bool {
        self.partitions.get(&id).is_some_and(|found| found.delayed)
    }

    fn is_dispatchable(&self, id: PartitionId, LaneId(lane): LaneId) -> bool {
        let ready = self.partitions.get(&id).is_some_and(|partition| {
            let lane = partition.lanes.get(usize::from(lane));
            let confirmed = partition.confirmed();
            let lane = lane.filter(|lane| !self.awaits_commits() || lane.settled_at <= confirmed);
            partition.phase == Phase::Active && lane.is_some_and(|lane| lane.is_ready())
        });
        let alone = !self.zombies.contains_key(&id) || mutation::is(Fault::ZombieNotAwaited);
        ready && self.life == Life::Running && alone && !self.control.forbids_work(id)
    }

    fn start_run(&mut self, id: PartitionId, lane_id: LaneId, chunk: Chunk<R>) -> Option<RunId> {
        let run = RunId(self.next_id());
        let partition = self.partitions.get_mut(&id)?;
        let generation = partition.generation();
        let lane = partition.lanes.get_mut(usize::from(lane_id.0))?;
        lane.state = State::Running;
        partition.in_work += 1;
        let Chunk { records, bytes, .. } = chunk;
        let attempt = lane.attempt;
        let spans = Span::of(records.iter().map(Record::offset)).into();
        partition.dispatched(self.now, &spans);
        let flight = Flight {
            partition: id,
            generation,
            lane: lane_id,
            attempt,
            spans,
            settled: 0,
            total: records.len(),
            bytes,
        };
        self.flights.insert(run, flight);
        self.open_run(run, id, lane_id);
        self.effects.push_back(Effect::Dispatch {
            run,
            partition: id,
            lane: lane_id,
            attempt,
            records,
        });
        Some(run)
    }

    /// Lanes whose wait is over go on.
    pub(super) fn wake_lanes(&mut self, now: Timestamp) {
        while let Some(&(at, id, lane_id)) = self.timers.first().filter(|(at, ..)| *at <= now) {
            self.timers.pop_first();
            let Some(lane) = self.lane_mut(id, lane_id) else {
                continue;
            };
            if lane.wakes_at() != Some(at) {
                continue;
            }
            match std::mem::replace(&mut lane.state, State::Idle) {
                State::RecoveryWaiting(_, recovery) => self.recover(id, lane_id, recovery),
                _ => self.dispatch_lane(id, lane_id),
            }
        }
    }

    /// Notes an outage, or that it goes on.
    pub(super) fn outage(
        &mut self,
        now: Timestamp,
        lane: (PartitionId, LaneId),
        reason: String,
        was_probe: bool,
    ) {
        let random = self.random();
        let next_probe = |probes| now + self.config.probe.wait(probes, random);
        match &mut self.outage {
            Some(outage) if was_probe => {
                outage.probes += 1;
                outage.next_probe = next_probe(outage.probes);
                outage.reason = reason;
                outage.lane = lane;
            }
            // A run from before the outage came to the same end: nothing new.
            Some(_) => {}
            None => {
                let next_probe = next_probe(1);
                self.outage = Some(Outage {
                    reason,
                    began: now,
                    probes: 1,
                    next_probe,
                    probe: None,
                    lane,
                });
                self.update_pauses(None);
            }
        }
    }

    /// Sends one record ahead when it is time to see whether the outage is over.
    pub(super) fn probe(&mut self, now: Timestamp) {
        let Some(outage) = &self.outage else { return };
        if outage.probe.is_some() || now < outage.next_probe || self.paused {
            return;
        }
        let preferred = outage.lane;
        let Some((id, lane)) = self.probe_lane(preferred) else {
            if let Some(id) = self.retry_as_probe() {
                let run = self.start_retry(id);
                if let Some(outage) = &mut self.outage {
                    outage.probe = run;
                }
                return;
            }
            if self.flights.is_empty() && self.queued_records() == 0 {
                self.outage_over();
            }
            return;
        };
        let found = self.lane_mut(id, lane).and_then(|lane| lane.take_first());
        let run = found.and_then(|chunk| self.start_run(id, lane, chunk));
        if let Some(outage) = &mut self.outage {
            outage.probe = run;
        }
    }

    fn probe_lane(&self, preferred: (PartitionId, LaneId)) -> Option<(PartitionId, LaneId)> {
        let (id, lane) = preferred;
        if self.is_dispatchable(id, lane) {
            return Some(preferred);
        }
        self.partitions.iter().find_map(|(id, partition)| {
            let lanes = (0..partition.lanes.len()).filter_map(|lane| u16::try_from(lane).ok());
            lanes
                .map(LaneId)
                .find(|lane| self.is_dispatchable(*id, *lane))
                .map(|lane| (*id, lane))
        })
    }

    pub(super) fn outage_over(&mut self) {
        self.forgive_outage();
        self.outage = None;
        self.update_pauses(None);
        self.dispatch_all();
    }

    /// An outage uses up no attempt, and none of the time within which a record is retried.
    pub(super) fn forgive_outage(&mut self) {
        let now = self.now;
        let Some(outage) = &mut self.outage else {
            return;
        };
        let began = std::mem::replace(&mut outage.began, now);
        let lanes = self
            .partitions
            .values_mut()
            .flat_map(|partition| &mut partition.lanes);
        let waiting = lanes.flat_map(Lane::failing);
        for since in waiting.chain(self.manual.failing()) {
            *since += now.since(began.max(*since));
        }
    }

    pub(super) fn probe_deadline(&self) -> Option<Timestamp> {
        let outage = self
            .outage
            .as_ref()
            .filter(|outage| outage.probe.is_none())?;
        let (id, lane) = outage.lane;
        let possible = self.probe_lane((id, lane)).is_some()
            || self.retry_as_probe().is_some()
            || (self.flights.is_empty() && self.queued_records() == 0);
        let forgotten = mutation::is(Fault::ProbeForgotten);
        (possible && !self.paused && !forgotten).then_some(outage.next_probe)
    }

    pub(super) fn set_paused(&mut self, paused: bool) {
        if paused && !self.paused {
            self.halt_runs(None);
        }
        self.paused = paused;
        self.update_pauses(None);
        self.dispatch_all();
    }

    /// Tells the shell which partitions to deliver; `None` looks at all of them.
    pub(super) fn update_pauses(&mut self, only: Option<PartitionId>) {
        let crowded = self.is_crowded();
        let only = only.filter(|_| crowded == self.crowded);
        let fills = crowded && !self.crowded && !self.config.fill_wait.is_zero();
        self.crowded = crowded;
        let stopping = self.life != Life::Running;
        let stalled = self.paused || self.outage.is_some() || crowded || stopping;
        let range = match only {
            Some(id) => self.partitions.range_mut(id..=id),
            None => self.partitions.range_mut(..),
        };
        let (mut pause, mut resume) = (Vec::new(), Vec::new());
        for (id, partition) in range {
            let (records, bytes) = (partition.queued_records, partition.queued_bytes);
            let limits = (self.config.queued_records, self.config.queued_bytes);
            partition.full = if partition.full {
                records > limits.0 / 2 || bytes > limits.1 / 2
            } else {
                records >= limits.0 || bytes >= limits.1
            };
            partition.full &= !mutation::is(Fault::QueueWithoutLimit);
            let leaving = partition.phase != Phase::Active;
            let wanted = stalled || partition.full || leaving || self.control.forbids_delivery(*id);
            if wanted != partition.paused {
                partition.paused = wanted;
                if wanted {
                    pause.push(*id)
                } else {
                    resume.push(*id)
                }
            }
        }
        if !pause.is_empty() {
            self.effects.push_back(Effect::Pause(pause));
        }
        if !resume.is_empty() {
            self.effects.push_back(Effect::Resume(resume));
        }
        if fills {
            // Who waits for company waits in vain.
            self.dispatch_all();
        }
    }

    /// Whether all partitions together hold too much.
    fn is_crowded(&self) -> bool {
        let (records, bytes) = self
            .partitions
            .values()
            .fold((0, 0), |(records, bytes), p| {
                (records + p.queued_records, bytes + p.queued_bytes)
            });
        let limits = (self.config.total_records, self.config.total_bytes);
        if self.crowded {
            records > limits.0 / 2 || bytes > limits.1 / 2
        } else {
            records >= limits.0 || bytes >= limits.1
        }
    }
}
