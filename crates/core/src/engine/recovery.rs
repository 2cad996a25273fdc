//! Records that their lane does not keep are written elsewhere, and that is awaited.
//!
//! The position passes a record only when it is safe where it went. A recovery that fails keeps
//! the record, is tried again ever more slowly, and shows in health; it is never given up.

use super::Record;
use super::effect::Effect;
use super::event::{PartitionId, RunId};
use super::lane::{Lane, Recovery, State};
use super::machine::Engine;
use crate::Timestamp;
use crate::lane::LaneId;
use crate::mutation::{self, Fault};
use crate::offset::Span;

impl<R: Record> Engine<R> {
    /// Asks for the recovery of the lane's first record.
    pub(super) fn recover(&mut self, id: PartitionId, lane_id: LaneId, recovery: Recovery) {
        let run = RunId(self.next_id());
        let Some(lane) = self.active_lane(id, lane_id) else {
            return;
        };
        let Some(record) = lane.first().cloned() else {
            return;
        };
        let (failure, attempts) = (recovery.failure.clone(), recovery.attempts);
        let first = recovery.first.clone();
        let destination = recovery.destination;
        lane.state = State::Recovering(recovery);
        self.recoveries.insert(run, (id, lane_id));
        if let Some(partition) = self.partitions.get_mut(&id) {
            partition.in_work += 1;
            if mutation::is(Fault::RecoveryNotAwaited) {
                partition.settle(Timestamp::EPOCH, Span::of([record.offset()].into_iter())[0]);
            }
        }
        let effect = Effect::Recover {
            recovery: run,
            partition: id,
            record,
            destination,
            failure,
            attempts,
            first,
        };
        self.effects.push_back(effect);
    }

    pub(super) fn recovered(&mut self, now: Timestamp, run: RunId, result: Result<(), String>) {
        let Some((id, lane_id)) = self.recoveries.remove(&run) else {
            return;
        };
        let random = self.random();
        let Some(partition) = self.partitions.get_mut(&id) else {
            return;
        };
        partition.in_work -= 1;
        let Some(lane) = partition.lanes.get_mut(usize::from(lane_id.0)) else {
            return;
        };
        let State::Recovering(mut recovery) = std::mem::replace(&mut lane.state, State::Idle)
        else {
            return;
        };
        match result.or_else(mutation::taken_as_done(Fault::FailedRecoveryTakenAsDone)) {
            Ok(()) => {
                if recovery.tries > 0 {
                    self.recovery_works();
                }
                self.drop_first(now, id, lane_id);
                self.dispatch_lane(id, lane_id);
            }
            Err(error) => {
                self.failing_recoveries += usize::from(recovery.tries == 0);
                self.recovery_problem = Some(error);
                recovery.tries += 1;
                let at = now + self.config.recovery.wait(recovery.tries, random);
                if let Some(lane) = self.active_lane(id, lane_id) {
                    lane.state = State::RecoveryWaiting(at, recovery);
                    self.timers.insert((at, id, lane_id));
                } else {
                    self.recovery_works();
                }
            }
        }
        self.update_pauses(Some(id));
    }

    /// One lane less whose recovery fails.
    pub(super) fn recovery_works(&mut self) {
        self.failing_recoveries = self.failing_recoveries.saturating_sub(1);
        if self.failing_recoveries == 0 {
            self.recovery_problem = None;
        }
    }

    /// Takes the first record of a lane out and settles it.
    fn drop_first(&mut self, now: Timestamp, id: PartitionId, lane_id: LaneId) {
        let Some(chunk) = self.lane_mut(id, lane_id).and_then(Lane::take_first) else {
            return;
        };
        if let Some(partition) = self.partitions.get_mut(&id) {
            partition.queued_bytes = partition.queued_bytes.saturating_sub(chunk.bytes);
        }
        for record in &chunk.records {
            self.settle_first(now, id, lane_id, record.offset());
        }
    }
}
