//! Partitions come and go.
//!
//! A revoked partition is drained: no new dispatch, records in work are awaited up to a limit and
//! then cancelled, the last position is committed, and only then is it handed over. So no record
//! is handled by two owners at once.

use super::Record;
use super::effect::Effect;
use super::event::{Assigned, PartitionId, RunId};
use super::lane::State;
use super::machine::{Engine, Life};
use super::partition::{Partition, Phase};
use crate::Timestamp;
use crate::mutation::{self, Fault};
use crate::offset::{CommitOffset, Generation};

impl<R: Record> Engine<R> {
    pub(super) fn ids(&self) -> Vec<PartitionId> {
        self.partitions.keys().copied().collect()
    }

    pub(super) fn assign(&mut self, assigned: Vec<Assigned>) {
        if self.life != Life::Running {
            return;
        }
        for assigned in assigned {
            let id = assigned.partition;
            self.forget(id);
            let generation = Generation(self.next_id());
            let retry_at = self.looks_for_parked();
            let mut partition = Partition::new(generation, &assigned, &self.config);
            partition.retry_at = retry_at;
            self.partitions.insert(id, partition);
        }
        if mutation::is(Fault::PauseLostOverRebalance) {
            return;
        }
        self.update_pauses(None);
    }

    pub(super) fn revoke(&mut self, now: Timestamp, ids: Vec<PartitionId>) {
        for id in &ids {
            self.begin_drain(*id, now + self.config.revoke_drain);
        }
        self.revoking.extend(ids);
        if self.revoking.is_empty() {
            self.effects.push_back(Effect::RevokeDone(Vec::new()));
        }
    }

    pub(super) fn lose(&mut self, ids: Vec<PartitionId>) {
        for id in &ids {
            self.forget(*id);
        }
        self.revoking.retain(|id| !ids.contains(id));
        self.effects.push_back(Effect::RevokeDone(ids));
    }

    /// Drains everything and stops; with a problem, it is the container's own wish.
    pub(super) fn stop(&mut self, now: Timestamp, problem: Option<String>) {
        if self.life != Life::Running {
            return;
        }
        self.life = Life::Stopping(problem);
        self.outage = None;
        for id in self.ids() {
            self.begin_drain(id, now + self.config.stop_drain);
        }
        self.update_pauses(None);
    }

    /// Reads a partition anew from `position`; runs in work are cancelled and no longer count.
    pub(super) fn restart(&mut self, id: PartitionId, position: CommitOffset) {
        let generation = Generation(self.next_id());
        self.disown_work(id);
        let retry_at = self.looks_for_parked();
        if let Some(partition) = self.partitions.get_mut(&id) {
            partition.restart(generation, position);
            partition.retry_at = retry_at;
        }
    }

    /// Drops a partition with all that waits; runs in work are cancelled and no longer count.
    fn forget(&mut self, id: PartitionId) {
        self.disown_work(id);
        self.partitions.remove(&id);
        self.control.forget(id);
        if self.crowded {
            // What went made room for what stays.
            self.update_pauses(None);
        }
    }

    fn disown_work(&mut self, id: PartitionId) {
        let Some(partition) = self.partitions.get(&id) else {
            return;
        };
        let generation = partition.generation();
        let runs = self.runs_of(id, generation);
        for run in &runs {
            self.effects.push_back(Effect::Cancel { run: *run });
        }
        if !runs.is_empty() {
            *self.zombies.entry(id).or_default() += runs.len();
        }
        self.disown_recoveries(id);
        self.disown_acknowledgements(id);
        self.forget_holds(id);
        self.timers.retain(|(_, timer, _)| *timer != id);
    }

    /// Recoveries that are awaited no longer; their record stays unsettled.
    fn disown_recoveries(&mut self, id: PartitionId) {
        self.recoveries.retain(|_, (partition, _)| *partition != id);
        let Some(partition) = self.partitions.get_mut(&id) else {
            return;
        };
        let mut failing = 0;
        for lane in &mut partition.lanes {
            match &lane.state {
                State::Recovering(recovery) => {
                    partition.in_work -= 1;
                    failing += usize::from(recovery.tries > 0);
                }
                State::RecoveryWaiting(..) => failing += 1,
                State::Idle | State::Running | State::Waiting(_) | State::Filling(_) => continue,
            }
            lane.state = State::Idle;
        }
        for _ in 0..failing {
            self.recovery_works();
        }
    }

    fn runs_of(&self, id: PartitionId, generation: Generation) -> Vec<RunId> {
        let of = self
            .flights
            .iter()
            .filter(|(_, flight)| flight.partition == id && flight.generation == generation);
        let retries = self
            .retries
            .iter()
            .filter(|(_, of)| **of == (id, generation));
        of.map(|(run, _)| *run)
            .chain(retries.map(|(run, _)| *run))
            .collect()
    }

    /// No new dispatch; what is in work goes on until `until`, but starts no further record.
    fn begin_drain(&mut self, id: PartitionId, until: Timestamp) {
        let Some(partition) = self.partitions.get_mut(&id) else {
            return;
        };
        partition.phase = match partition.phase {
            Phase::Active => Phase::Draining(until),
            Phase::Draining(earlier) => {
                return partition.phase = Phase::Draining(earlier.min(until));
            }
            Phase::Cancelling(_)
            | Phase::Drained
            | Phase::Flushing(_)
            | Phase::Committing(_)
            | Phase::Done => return,
        };
        partition.drop_held();
        for lane in &mut partition.lanes {
            // A record that is being recovered stays until its recovery is answered.
            lane.clear();
            if matches!(lane.state, State::Waiting(_) | State::Filling(_)) {
                lane.state = State::Idle;
            }
        }
        let generation = partition.generation();
        for run in self.runs_of(id, generation) {
            if mutation::is(Fault::DrainDoesNotHalt) {
                break;
            }
            self.effects.push_back(Effect::Halt { run });
        }
        self.timers.retain(|(_, timer, _)| *timer != id);
        self.drop_recovery_waits(id);
        self.forget_holds(id);
        self.update_pauses(Some(id));
    }

    fn drop_recovery_waits(&mut self, id: PartitionId) {
        let Some(partition) = self.partitions.get_mut(&id) else {
            return;
        };
        let mut dropped = 0;
        for lane in &mut partition.lanes {
            if matches!(lane.state, State::RecoveryWaiting(..)) {
                lane.state = State::Idle;
                lane.chunks.clear();
                dropped += 1;
            }
        }
        for _ in 0..dropped {
            self.recovery_works();
        }
    }

    /// Takes partitions on their way out as far as they can go now.
    pub(super) fn hand_over(&mut self, now: Timestamp) {
        if self.revoking.is_empty() && self.life == Life::Running {
            return;
        }
        for id in self.ids() {
            while self.leave(now, id) {}
        }
        self.flush(now);
        self.finish_revoke();
        self.finish_stop();
    }

    /// One step on the way out; whether there was one.
    fn leave(&mut self, now: Timestamp, id: PartitionId) -> bool {
        let Some(partition) = self.partitions.get_mut(&id) else {
            return false;
        };
        // A run that a seek or rewind has disowned is at work on this partition all the same.
        let idle = partition.in_work == 0
            && (partition.unacknowledged == 0 || mutation::is(Fault::DrainForgetsAcknowledgements))
            && !self.zombies.contains_key(&id)
            || mutation::is(Fault::DrainDoesNotWait);
        let committing = Phase::Committing(now + self.config.commit_wait);
        let drained = match self.config.flush_wait {
            Some(_) => Phase::Drained,
            None => committing,
        };
        let at_once = mutation::is(Fault::DrainCancelsAtOnce);
        let without_limit = mutation::is(Fault::DrainWithoutLimit);
        partition.phase = match partition.phase {
            Phase::Committing(_) if mutation::is(Fault::HandoverWithoutCommit) => Phase::Done,
            Phase::Draining(_) | Phase::Cancelling(_) if idle => drained,
            Phase::Draining(until) if (until <= now && !without_limit) || at_once => {
                let generation = partition.generation();
                partition.phase = Phase::Cancelling(now + self.config.cancel_wait);
                self.disown_recoveries(id);
                for run in self.runs_of(id, generation) {
                    self.effects.push_back(Effect::Cancel { run });
                }
                self.close_acknowledgements(id);
                return true;
            }
            Phase::Cancelling(until) if until <= now => drained,
            Phase::Flushing(until) if until <= now => committing,
            Phase::Committing(until) if until <= now || partition.is_clean() => Phase::Done,
            Phase::Active
            | Phase::Draining(_)
            | Phase::Cancelling(_)
            | Phase::Drained
            | Phase::Flushing(_)
            | Phase::Committing(_)
            | Phase::Done => return false,
        };
        true
    }

    /// Asks for the flush of what is drained, once all that leaves is.
    fn flush(&mut self, now: Timestamp) {
        let Some(wait) = self.config.flush_wait else {
            return;
        };
        let works = |phase| matches!(phase, Phase::Draining(_) | Phase::Cancelling(_));
        if self.partitions.values().any(|found| works(found.phase)) {
            return;
        }
        let mut drained = Vec::new();
        for (id, partition) in &mut self.partitions {
            if partition.phase == Phase::Drained {
                partition.phase = Phase::Flushing(now + wait);
                drained.push(*id);
            }
        }
        if !drained.is_empty() {
            self.effects.push_back(Effect::Flush(drained));
        }
    }

    pub(super) fn flushed(&mut self, now: Timestamp, ids: Vec<PartitionId>) {
        let until = now + self.config.commit_wait;
        for id in ids {
            let found = self.partitions.get_mut(&id);
            if let Some(partition) = found.filter(|p| matches!(p.phase, Phase::Flushing(_))) {
                partition.phase = Phase::Committing(until);
            }
        }
    }

    fn finish_revoke(&mut self) {
        let gone = |id: &PartitionId| {
            self.partitions
                .get(id)
                .is_none_or(|p| p.phase == Phase::Done)
        };
        if self.revoking.is_empty() || !self.revoking.iter().all(gone) {
            return;
        }
        let revoked = std::mem::take(&mut self.revoking);
        for id in &revoked {
            self.forget(*id);
        }
        self.effects.push_back(Effect::RevokeDone(revoked));
    }

    fn finish_stop(&mut self) {
        let Life::Stopping(problem) = &self.life else {
            return;
        };
        if self
            .partitions
            .values()
            .all(|partition| partition.phase == Phase::Done)
        {
            let problem = problem.clone();
            self.effects.push_back(Effect::Stopped {
                problem: problem.clone(),
            });
            self.life = Life::Stopped(problem);
        }
    }

    pub(super) fn handover_deadline(&self) -> Option<Timestamp> {
        let waits = self
            .partitions
            .values()
            .filter_map(|partition| match partition.phase {
                Phase::Draining(until)
                | Phase::Cancelling(until)
                | Phase::Flushing(until)
                | Phase::Committing(until) => Some(until),
                Phase::Active | Phase::Drained | Phase::Done => None,
            });
        waits.min()
    }
}
