//! Handlers at work, and recoveries.

use ackwell_core::Class;
use ackwell_core::engine::{End, Failure, RunId};

use crate::checker::{Checked, MemberId};
use crate::member::{Record, Run, Tenure};
use crate::weather::Trouble;
use crate::world::{Event, Happening, Plan, World};

impl World {
    /// The worker of a run begins its next record, or ends.
    pub(crate) fn start_next(&mut self, id: MemberId, run_id: RunId) -> Checked {
        let Some(run) = self.members[id].runs.get_mut(&run_id) else {
            return Ok(());
        };
        if run.records.is_empty() {
            let run = self.members[id].runs.remove(&run_id);
            return self.finished(id, run_id, run, End::Complete);
        }
        if run.halted {
            return self.interrupted(id, run_id);
        }
        run.in_work = true;
        let (partition, record) = (run.partition, run.records[0].clone());
        let owner = self.partitions[partition as usize].owner == Some(id);
        self.checker.begin(partition, &record, id, owner)?;
        let slow = self.strikes(Trouble::SlowHandler, 3);
        let wait = self.dice.in_range(0, if slow { 1_500 } else { 6 });
        self.at(wait, Happening::HandlerEnds(id, run_id));
        Ok(())
    }

    /// A run is over: what it settled and did not report is reported by its end.
    fn finished(
        &mut self,
        id: MemberId,
        run_id: RunId,
        run: Option<Run>,
        end: End<Record>,
    ) -> Checked {
        let Some(run) = run else { return Ok(()) };
        let skipped = match &end {
            End::Failed {
                failure, record, ..
            } => {
                let place = (run.partition, run.tenure);
                self.note_failure(id, run_id, place, record.offset, failure);
                (failure.class == Class::Skip).then_some(record.offset)
            }
            End::Complete => {
                self.note_end(id, run_id, true);
                None
            }
            End::Cancelled { .. } | End::Held { .. } => {
                self.note_end(id, run_id, false);
                None
            }
        };
        match self.members[id].current(run.partition, run.tenure) {
            Some(tenure) => {
                tenure.report(run.unreported);
                tenure.report(skipped);
            }
            None => self.seen.zombies += 1,
        }
        self.tell(id, Event::Finished { run: run_id, end })
    }

    fn interrupted(&mut self, id: MemberId, run_id: RunId) -> Checked {
        let Some(mut run) = self.members[id].runs.remove(&run_id) else {
            return Ok(());
        };
        let rest = std::mem::take(&mut run.records).into();
        self.finished(id, run_id, Some(run), End::Cancelled { rest })
    }

    pub(crate) fn cancelled(&mut self, id: MemberId, run_id: RunId) -> Checked {
        let Some(run) = self.members[id].runs.get_mut(&run_id) else {
            return Ok(());
        };
        self.seen.cancelled += 1;
        if run.in_work {
            let (partition, offset) = (run.partition, run.records[0].offset);
            self.checker.end(partition, offset, id);
        }
        self.interrupted(id, run_id)
    }

    pub(crate) fn handler_ends(&mut self, id: MemberId, run_id: RunId) -> Checked {
        if !self.members[id].alive {
            return Ok(());
        }
        let Some(run) = self.members[id].runs.get_mut(&run_id) else {
            return Ok(());
        };
        let (partition, attempt) = (run.partition, run.attempt);
        let Some(record) = run.records.pop_front() else {
            return Ok(());
        };
        run.attempt = 1;
        run.in_work = false;
        self.checker.end(partition, record.offset, id);
        match self.outcome(partition, &record, attempt) {
            None => self.handled(id, run_id, partition, record),
            Some(class) => self.failed(id, run_id, partition, record, class),
        }
    }

    /// How handling a record ends.
    fn outcome(&mut self, partition: u32, record: &Record, attempt: u32) -> Option<Class> {
        if self.outage && self.dice.percent(95) {
            return Some(Class::Unavailable);
        }
        let place = (partition, record.offset);
        match self.plans.get(&place).copied() {
            Some(Plan::Transient(failures)) if attempt <= failures => Some(Class::Transient),
            Some(Plan::Always(Class::Stop)) => {
                self.plans.remove(&place);
                (!self.calm()).then_some(Class::Stop)
            }
            Some(Plan::Always(class)) => Some(class),
            Some(Plan::Transient(_)) | None => self
                .strikes(Trouble::Transient, 2)
                .then_some(Class::Transient),
        }
    }

    fn handled(&mut self, id: MemberId, run_id: RunId, partition: u32, record: Record) -> Checked {
        self.seen.handled += 1;
        let first = self.checker.settle(partition, &record);
        self.seen.repeated += u64::from(!first);
        let report = self.dice.percent(40);
        let member = &mut self.members[id];
        let Some(run) = member.runs.get_mut(&run_id) else {
            return Ok(());
        };
        run.unreported.push(record.offset);
        // What is not reported by the end is settled by the end.
        if report && !run.records.is_empty() {
            let (settled, tenure) = (std::mem::take(&mut run.unreported), run.tenure);
            let event = Event::Progress {
                run: run_id,
                settled: settled.len(),
            };
            if let Some(tenure) = member.current(partition, tenure) {
                tenure.report(settled);
            }
            self.tell(id, event)?;
        }
        self.start_next(id, run_id)
    }

    fn failed(
        &mut self,
        id: MemberId,
        run_id: RunId,
        partition: u32,
        record: Record,
        class: Class,
    ) -> Checked {
        if class == Class::Skip {
            self.seen.skipped += 1;
            self.checker.settle(partition, &record);
        }
        let Some(mut run) = self.members[id].runs.remove(&run_id) else {
            return Ok(());
        };
        let failure = Failure::new(class, "by plan");
        let rest = std::mem::take(&mut run.records).into();
        let end = End::Failed {
            failure,
            record,
            rest,
        };
        self.finished(id, run_id, Some(run), end)
    }

    pub(crate) fn recovered(
        &mut self,
        id: MemberId,
        recovery: RunId,
        place: (u32, u64),
        offset: i64,
    ) -> Checked {
        if !self.members[id].alive {
            return Ok(());
        }
        let log = &self.partitions[place.0 as usize].log;
        let at = log.partition_point(|record| record.offset < offset);
        let record = log[at].clone();
        let result = if self.strikes(Trouble::RecoveryFails, 30) {
            self.seen.failed_recoveries += 1;
            self.note_failed_recovery(id, place, offset);
            Err("no broker".to_owned())
        } else {
            self.seen.dead_letters += 1;
            self.checker.settle(place.0, &record);
            let current = self.members[id].current(place.0, place.1);
            // A drain that has reached its limit no longer waits for recoveries.
            let awaited = |tenure: &&mut Tenure| tenure.drain.is_none_or(|d| !d.cancelled);
            if let Some(tenure) = current.filter(awaited) {
                tenure.report([offset]);
            }
            Ok(())
        };
        self.tell(id, Event::Recovered { recovery, result })
    }
}
