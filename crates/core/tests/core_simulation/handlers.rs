//! Handlers at work, and recoveries.

use std::time::Duration;

use ackwell_core::Class;
use ackwell_core::engine::{End, Failure, RunId};
use ackwell_core::settle::Destination;

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
        if self.is_ordered() {
            if !self.set_aside(id, run_id)? {
                return Ok(());
            }
            let run = self.members[id].runs.get(&run_id);
            if run.is_none_or(|run| run.records.is_empty() || run.halted) {
                return self.start_next(id, run_id);
            }
        }
        let Some(run) = self.members[id].runs.get_mut(&run_id) else {
            return Ok(());
        };
        run.in_work = if self.weather.lists {
            run.suspects.next(run.records.len())
        } else {
            1
        };
        let (partition, place) = (run.partition, run.done);
        let begun = &run.records.make_contiguous()[..run.in_work];
        let owner = self.partitions[partition as usize].owner == Some(id);
        self.checker.begin(partition, begun, id, owner)?;
        self.hand_out_early(id, run_id, place);
        let slow = self.strikes(Trouble::SlowHandler, 3);
        let wait = self.dice.in_range(0, if slow { 1_500 } else { 6 });
        self.at(wait, Happening::HandlerEnds(id, run_id));
        Ok(())
    }

    /// A run is over: what it settled and did not report is reported by its end.
    pub(crate) fn finished(
        &mut self,
        id: MemberId,
        run_id: RunId,
        run: Option<Run>,
        mut end: End<Record>,
    ) -> Checked {
        let Some(run) = run else { return Ok(()) };
        let place = (run.partition, run.tenure);
        let mut settled: Vec<_> = run.unreported.iter().map(|record| record.offset).collect();
        if self.is_manual() {
            settled.clear();
            self.report_acks(id, run_id)?;
            self.report_handled(id, run_id, run.unreported)?;
        }
        match &mut end {
            End::Failed {
                failure, record, ..
            } => {
                if self.is_manual() && self.void_ack(id, run_id, run.done) {
                    // It was acknowledged before it failed: the failure is only told.
                    self.report_acks(id, run_id)?;
                    let current = self.members[id].current(place.0, place.1).is_some();
                    if current && failure.class == Class::Unavailable {
                        self.note_away(id, run_id);
                    }
                    self.note_end(id, run_id, false);
                } else {
                    self.note_failure(id, run_id, place, record, failure);
                    settled.extend((failure.class == Class::Skip).then_some(record.offset));
                }
            }
            End::Complete => self.note_end(id, run_id, true),
            End::Held { .. } => self.note_end(id, run_id, true),
            End::Cancelled { rest } => {
                let first = rest.first().map(|record| record.offset);
                if self.is_manual() && self.void_ack(id, run_id, run.done) {
                    self.report_acks(id, run_id)?;
                    settled.extend(first);
                }
                self.note_end(id, run_id, false);
            }
        }
        match self.members[id].current(run.partition, run.tenure) {
            Some(tenure) => tenure.report(settled),
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
            return self.retry_ends(id, run_id, true);
        };
        self.seen.cancelled += 1;
        for record in run.records.iter().take(run.in_work) {
            self.checker.end(run.partition, record.offset, id);
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
        if self.weather.lists {
            return self.list_ends(id, run_id);
        }
        let (partition, attempt) = (run.partition, run.attempt);
        let Some(record) = run.records.pop_front() else {
            return Ok(());
        };
        run.in_work = 0;
        self.checker.end(partition, record.offset, id);
        let outcome = self.outcome(&record, attempt);
        if self.is_ordered() {
            let done = matches!(outcome, None | Some(Class::Skip));
            if !self.still_counts(id, partition, &record, done) {
                if let Some(run) = self.members[id].runs.get_mut(&run_id) {
                    run.records.push_front(record);
                }
                return self.held(id, run_id, "somebody else has taken over");
            }
        }
        if let Some(run) = self.members[id].runs.get_mut(&run_id) {
            run.attempt = 1;
        }
        match outcome {
            None => self.handled(id, run_id, partition, record),
            Some(Class::Transient)
                if self.is_ordered() && attempt == 1 && self.dice.percent(30) =>
            {
                self.parks_at_once(id, run_id, partition, record, attempt)
            }
            Some(class) => self.failed(id, run_id, partition, record, class),
        }
    }

    /// How handling a record ends.
    pub(crate) fn outcome(&mut self, record: &Record, attempt: u32) -> Option<Class> {
        if self.outage && self.dice.percent(95) {
            return Some(Class::Unavailable);
        }
        let (place, attempt) = (record.origin, record.earlier + attempt);
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
        if self.is_manual() {
            self.seen.handled += 1;
            return self.handed_out(id, run_id, record);
        }
        self.settled_in_run(id, run_id, partition, record);
        self.report_some(id, run_id)?;
        self.start_next(id, run_id)
    }

    /// A record of a run took its effect.
    pub(crate) fn settled_in_run(
        &mut self,
        id: MemberId,
        run_id: RunId,
        partition: u32,
        record: Record,
    ) {
        self.seen.handled += 1;
        let first = self.checker.settle(partition, &record);
        self.seen.repeated += u64::from(!first);
        if let Some(run) = self.members[id].runs.get_mut(&run_id) {
            run.done += 1;
            run.unreported.push(record);
        }
    }

    /// Tells of what has settled, or leaves it to the end: what is not reported by then is settled
    /// by it.
    pub(crate) fn report_some(&mut self, id: MemberId, run_id: RunId) -> Checked {
        let report = self.dice.percent(40);
        let member = &mut self.members[id];
        let Some(run) = member.runs.get_mut(&run_id) else {
            return Ok(());
        };
        if report && !run.records.is_empty() && !run.unreported.is_empty() {
            let partition = run.partition;
            let (settled, tenure) = (std::mem::take(&mut run.unreported), run.tenure);
            let event = Event::Progress {
                run: run_id,
                settled: settled.len(),
            };
            if let Some(tenure) = member.current(partition, tenure) {
                tenure.report(settled.iter().map(|record| record.offset));
            }
            self.tell(id, event)?;
        }
        Ok(())
    }

    /// A handler has returned, and its acknowledgement comes when it comes.
    fn handed_out(&mut self, id: MemberId, run_id: RunId, record: Record) -> Checked {
        let member = &mut self.members[id];
        let Some(run) = member.runs.get_mut(&run_id) else {
            return Ok(());
        };
        let (place, partition, tenure) = (run.done, run.partition, run.tenure);
        run.done += 1;
        let current = member.current(partition, tenure);
        if let Some(tenure) = current.filter(|t| t.outstanding.contains(&record.offset)) {
            tenure.open.insert(record.offset);
        }
        if let Some(run) = self.members[id].runs.get_mut(&run_id) {
            run.unreported.push(record);
        }
        self.hand_out(id, run_id, place);
        self.start_next(id, run_id)
    }

    pub(crate) fn failed(
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
        let mut failure = Failure::new(class, "by plan");
        failure.policy = record.origin.1 as usize % 3;
        if self.strikes(Trouble::AskedWait, 5) {
            self.seen.asked_waits += 1;
            let wait = self.dice.in_range(0, 500);
            failure.retry_after = Some(Duration::from_millis(wait));
        }
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
        recovering: Recovering,
    ) -> Checked {
        if !self.members[id].alive {
            return Ok(());
        }
        let Recovering { partition, .. } = recovering;
        let (tenure, offset) = (recovering.tenure, recovering.record.offset);
        let result = if self.strikes(Trouble::RecoveryFails, 30) {
            self.seen.failed_recoveries += 1;
            self.note_failed_recovery(id, (partition, tenure), offset);
            // It may have been written all the same.
            if self.dice.percent(20) {
                self.write(id, recovering)?;
            }
            Err("no broker".to_owned())
        } else if !self.write(id, recovering)? {
            self.note_failed_recovery(id, (partition, tenure), offset);
            Err("somebody else has taken over".to_owned())
        } else {
            let current = self.members[id].current(partition, tenure);
            // A drain that has reached its limit no longer waits for recoveries.
            let awaited = |tenure: &&mut Tenure| tenure.drain.is_none_or(|d| !d.cancelled);
            if let Some(tenure) = current.filter(awaited) {
                tenure.report([offset]);
            }
            Ok(())
        };
        self.tell(id, Event::Recovered { recovery, result })
    }

    /// A record arrives where it goes; whether it does.
    fn write(&mut self, id: MemberId, recovering: Recovering) -> Result<bool, String> {
        let (partition, record) = (recovering.partition, recovering.record);
        let (number, delay) = match recovering.destination {
            // Its container reads anew and handles the record once more: of the two transactions,
            // the inbox lets one commit, which here is the later one.
            Destination::Parked if self.checker.is_at_work(partition, record.offset, id) => {
                return Ok(false);
            }
            Destination::Parked => return self.park(id, partition, &record, recovering.attempts),
            Destination::RetryTopic { number, delay } => (number, delay),
            Destination::DeadLetter => {
                self.seen.dead_letters += 1;
                self.checker.settle(partition, &record);
                self.given_up(partition, &record);
                return Ok(true);
            }
        };
        self.checker.settle(partition, &record);
        self.seen.retry_records += 1;
        let to = record.origin.0 + number * self.weather.partitions as u32;
        let due = Some(self.now + delay.as_millis() as u64);
        let written = self.partitions[to as usize].forward(Record {
            retries: number,
            earlier: recovering.attempts,
            due,
            ..record
        });
        self.checker.produced(to, written);
        Ok(true)
    }
}

/// A record on its way to a retry topic or the dead-letter topic.
#[derive(Debug, Clone)]
pub(crate) struct Recovering {
    pub partition: u32,
    pub tenure: u64,
    pub record: Record,
    pub destination: Destination,
    pub attempts: u32,
}
