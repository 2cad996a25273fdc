//! Records of failing keys wait in a durable place and are tried again from there.
//!
//! Which they are and when they are due is decided by [`crate::ordered`]. The container gives
//! these retries their place among all else that it does: none begins while it is paused or waits
//! for an outage to end, a partition on its way out awaits the one in work, and whoever takes a
//! partition over begins with one, which finds out what waits.

use super::Record;
use super::effect::Effect;
use super::event::{Failure, PartitionId, RunId};
use super::lane::State;
use super::machine::{Engine, Life};
use super::partition::Phase;
use crate::Timestamp;
use crate::lane::LaneId;
use crate::mutation::{self, Fault};
use crate::settle::{Class, Settlement};

impl<R: Record> Engine<R> {
    /// A parked record of the partition is due at `at`.
    pub(super) fn retry_at(&mut self, id: PartitionId, at: Timestamp) {
        if mutation::is(Fault::RetryTimeForgotten) {
            return;
        }
        if let Some(partition) = self.partitions.get_mut(&id) {
            partition.retry_at = Some(partition.retry_at.map_or(at, |known| known.min(at)));
        }
    }

    /// Who begins to read a partition looks at once for what is parked.
    pub(super) fn looks_for_parked(&self) -> Option<Timestamp> {
        let looks = self.config.ordered && !mutation::is(Fault::ParkedNotTakenOver);
        looks.then_some(Timestamp::EPOCH)
    }

    /// An attempt has failed in a run that goes on.
    pub(super) fn attempt_failed(
        &mut self,
        run: RunId,
        offset: i64,
        failure: Failure,
        attempt: u32,
        settlement: Settlement,
    ) {
        if let Some(partition) = self.partition_of(run) {
            self.effects.push_back(Effect::Failed {
                partition,
                offset,
                failure,
                attempt,
                settlement,
            });
        }
    }

    fn partition_of(&self, run: RunId) -> Option<PartitionId> {
        let polled = self.flights.get(&run).map(|flight| flight.partition);
        polled.or(self.retries.get(&run).map(|(id, _)| *id))
    }

    /// Begins the retries that are due.
    pub(super) fn start_retries(&mut self, now: Timestamp) {
        let away = self.outage.is_some() && !mutation::is(Fault::OutageKeepsRetrying);
        if !self.config.ordered || away {
            return;
        }
        let early = mutation::is(Fault::ParkedTooEarly);
        for id in self.ids() {
            let at = self.partitions.get(&id).and_then(|found| found.retry_at);
            if at.is_some_and(|at| at <= now || early) && self.may_retry(id) {
                self.start_retry(id);
            }
        }
    }

    fn may_retry(&self, id: PartitionId) -> bool {
        let idle = |partition: &super::partition::Partition<R>| {
            let free = partition.retrying.is_none() || mutation::is(Fault::TwoRetriesAtOnce);
            partition.phase == Phase::Active && free
        };
        self.partitions.get(&id).is_some_and(idle)
            && (!self.paused || mutation::is(Fault::PauseKeepsRetrying))
            && self.life == Life::Running
            && !self.zombies.contains_key(&id)
            && (!self.control.forbids_work(id) || mutation::is(Fault::PartitionPauseKeepsRetrying))
    }

    /// A partition whose parked records can tell whether an outage is over.
    pub(super) fn retry_as_probe(&self) -> Option<PartitionId> {
        let waits = |(id, partition): (&PartitionId, &super::partition::Partition<R>)| {
            (partition.retry_at.is_some() && self.may_retry(*id)).then_some(*id)
        };
        self.partitions.iter().find_map(waits)
    }

    pub(super) fn start_retry(&mut self, id: PartitionId) -> Option<RunId> {
        let run = RunId(self.next_id());
        let partition = self.partitions.get_mut(&id)?;
        partition.retry_at = None;
        partition.retrying = Some(run);
        partition.in_work += usize::from(!mutation::is(Fault::DrainForgetsRetries));
        self.retries.insert(run, (id, partition.generation()));
        self.effects.push_back(Effect::Retry { run, partition: id });
        Some(run)
    }

    pub(super) fn retried(
        &mut self,
        now: Timestamp,
        run: RunId,
        next: Option<Timestamp>,
        failure: Option<Failure>,
        problem: Option<String>,
    ) {
        let Some((id, generation)) = self.retries.remove(&run) else {
            return;
        };
        let was_probe = self.end_probe(run);
        let found = self.partitions.get_mut(&id);
        let Some(partition) = found.filter(|found| found.generation() == generation) else {
            return self.zombie_ended(now, id, was_probe);
        };
        partition.in_work -= usize::from(!mutation::is(Fault::DrainForgetsRetries));
        partition.retrying = None;
        match problem {
            Some(problem) => drop(self.holds.insert((id, None), problem)),
            None => drop(self.holds.remove(&(id, None))),
        }
        if let Some(next) = next {
            self.retry_at(id, next);
        }
        match failure {
            Some(Failure {
                class: Class::Unavailable,
                summary,
                ..
            }) => self.outage(now, (id, LaneId(0)), summary, was_probe),
            Some(failure) => self.stop(now, Some(failure.to_string())),
            None if was_probe => self.outage_over(),
            None => {}
        }
        self.wake_held(id);
    }

    /// A lane can't go on for now, although nothing failed: its records wait where they are, no
    /// attempt is used up, and health says why.
    pub(super) fn hold(&mut self, now: Timestamp, id: PartitionId, lane_id: LaneId, why: String) {
        let at = now + self.config.hold_wait;
        let Some(lane) = self.active_lane(id, lane_id) else {
            return;
        };
        lane.state = State::Waiting(at);
        lane.attempt += u32::from(mutation::is(Fault::HeldUsesAttempt));
        self.timers.insert((at, id, lane_id));
        if !mutation::is(Fault::HeldNotTold) {
            self.holds.insert((id, Some(lane_id)), why);
        }
    }

    /// There may be room again.
    fn wake_held(&mut self, id: PartitionId) {
        let held: Vec<_> = self
            .holds
            .range((id, Some(LaneId(0)))..=(id, Some(LaneId(u16::MAX))))
            .filter_map(|((_, lane), _)| *lane)
            .collect();
        for lane_id in held {
            if let Some(lane) = self.lane_mut(id, lane_id)
                && matches!(lane.state, State::Waiting(_))
            {
                lane.state = State::Idle;
                self.dispatch_lane(id, lane_id);
            }
        }
    }

    /// The lane's run came to another end than being held.
    pub(super) fn held_no_longer(&mut self, id: PartitionId, lane_id: LaneId) {
        if !self.holds.is_empty() {
            self.holds.remove(&(id, Some(lane_id)));
        }
    }

    /// The partition is not in work any more.
    pub(super) fn forget_holds(&mut self, id: PartitionId) {
        self.holds.retain(|(partition, _), _| *partition != id);
    }

    pub(super) fn retry_deadline(&self) -> Option<Timestamp> {
        if !self.config.ordered || self.outage.is_some() {
            return None;
        }
        let due = self
            .partitions
            .iter()
            .filter_map(|(id, partition)| partition.retry_at.filter(|_| self.may_retry(*id)));
        due.min()
    }
}
