//! Handled records that were refused, or whose acknowledgement was dropped: they come again.

use super::super::Record;
use super::super::effect::Effect;
use super::super::event::{Failure, Nack, PartitionId, RunId};
use super::super::lane::{Failing, Next, Recovery, Return, State, Tries};
use super::super::machine::Engine;
use super::super::partition::Phase;
use crate::Timestamp;
use crate::lane::LaneId;
use crate::mutation::{self, Fault};
use crate::settle::{Class, Settlement};

impl<R: Record> Engine<R> {
    /// A record was refused: it is handled again, before what waits in its lane.
    pub(in crate::engine) fn nacked(
        &mut self,
        now: Timestamp,
        run: RunId,
        place: usize,
        nack: Nack,
    ) {
        let Some(open) = self.manual.runs.get_mut(&run) else {
            return;
        };
        if open.handled_at.is_none() {
            return open.early.push((place, nack));
        }
        if open.closed.get(place) != Some(&false) {
            return;
        }
        let Some(record) = open.records.get(place).cloned() else {
            return;
        };
        open.closed[place] = true;
        open.open -= 1;
        let (id, lane) = (open.partition, open.lane);
        let attempt = open.attempt(place);
        let failing = open.failing.clone().filter(|_| place == 0);
        self.forget_closed(run);
        let Some(partition) = self.partitions.get_mut(&id) else {
            return;
        };
        partition.unacknowledged -= 1;
        if partition.phase != Phase::Active {
            return;
        }
        partition.end_poll();
        self.effects.push_back(Effect::Nacked {
            partition: id,
            offset: record.offset(),
            nack,
        });
        let tries = match nack {
            Nack::After(wait) => Some(Tries {
                attempt,
                failing,
                next: Next::Handle(if mutation::is(Fault::RefusalTooEarly) {
                    now
                } else {
                    now + wait
                }),
            }),
            Nack::Dropped => self.dropped(now, id, &record, attempt, failing),
        };
        if let (Some(tries), Some(lane)) = (tries, self.lane_mut(id, lane)) {
            lane.returned.push(Return { record, tries });
        }
        self.dispatch_lane(id, lane);
    }

    /// What follows when an acknowledgement was dropped; nothing if the container stops by it.
    fn dropped(
        &mut self,
        now: Timestamp,
        id: PartitionId,
        record: &R,
        attempt: u32,
        known: Option<Box<Failing>>,
    ) -> Option<Tries> {
        let what = "its acknowledgement was dropped without being given";
        let failure = Failure::new(Class::Transient, what);
        let first = known.as_ref().map(|failing| failing.first.clone());
        let failing = Failing::or_first(known, &failure, now);
        let settlement = self.judge(now, record, &failure, attempt, failing.since);
        let attempts = self.tell_failed(id, record, failure.clone(), attempt, settlement);
        let next = match settlement {
            Settlement::RetryAfter(wait) => Next::Handle(now + wait),
            Settlement::Recover(destination) => Next::Recover(Recovery {
                destination,
                failure,
                attempts,
                first,
                tries: 0,
            }),
            Settlement::Done | Settlement::Probe | Settlement::Stop => {
                self.stop(now, Some(failure.to_string()));
                return None;
            }
        };
        Some(Tries {
            attempt: attempt.saturating_add(1),
            failing: Some(failing),
            next,
        })
    }

    /// Records that were refused take their place in front of what waits in their lane.
    pub(in crate::engine) fn take_returned(&mut self, id: PartitionId, lane_id: LaneId) {
        let now = self.now;
        let Some(lane) = self.active_lane(id, lane_id) else {
            return;
        };
        if lane.returned.is_empty() && lane.tries.is_empty() {
            return;
        }
        lane.merge_returned();
        let recovery = lane.begin_first(now);
        if let State::Waiting(at) = lane.state {
            self.timers.insert((at, id, lane_id));
        }
        if let Some(recovery) = recovery {
            self.recover(id, lane_id, recovery);
        }
    }
}
