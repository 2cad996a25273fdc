//! Handlers that take lists: what a unit of work makes of their outcomes.
//!
//! A list that fails without naming a record is taken apart by the same code as in production,
//! [`Suspects`](ackwell_core::batch::Suspects); the rest of the way is modelled here.

use ackwell_core::Class;
use ackwell_core::engine::RunId;

use crate::checker::{Checked, MemberId};
use crate::member::{Member, Record, Tenure};
use crate::world::{Event, World};

/// What a handler answers for a list in which something failed.
#[derive(Debug, Clone, Copy)]
enum Answer {
    /// An outcome for each record.
    Each,
    /// Which one failed; those behind it were not touched.
    First,
    /// That it failed.
    Whole,
}

impl World {
    /// A list handler has returned.
    pub(crate) fn list_ends(&mut self, id: MemberId, run_id: RunId) -> Checked {
        let Some(run) = self.members[id].runs.get_mut(&run_id) else {
            return Ok(());
        };
        let (partition, attempt) = (run.partition, run.attempt);
        let count = std::mem::take(&mut run.in_work);
        let list: Vec<_> = run.records.iter().take(count).cloned().collect();
        for record in &list {
            self.checker.end(partition, record.offset, id);
        }
        self.seen.lists += 1;
        let outcomes: Vec<_> = (list.iter().enumerate())
            .map(|(place, record)| self.outcome(record, if place == 0 { attempt } else { 1 }))
            .collect();
        let concerns_all = |class: &Class| matches!(class, Class::Unavailable | Class::Stop);
        if let Some(class) = outcomes.iter().flatten().find(|class| concerns_all(class)) {
            return self.list_fails_at(id, run_id, 0, *class);
        }
        let Some((place, class)) = first_failed(&outcomes) else {
            self.settle_list(id, run_id, count)?;
            return self.start_next(id, run_id);
        };
        match self
            .dice
            .pick(&[Answer::Each, Answer::First, Answer::Whole])
        {
            Answer::Each => {
                let behind = (place + 1..count).filter(|at| outcomes[*at].is_none());
                let behind: Vec<_> = behind.map(|at| list[at].clone()).collect();
                self.settle_list(id, run_id, place)?;
                self.settle_behind(id, run_id, &behind)?;
                self.list_fails_at(id, run_id, 0, class)
            }
            Answer::First => {
                self.settle_list(id, run_id, place)?;
                self.list_fails_at(id, run_id, 0, class)
            }
            Answer::Whole => self.list_fails(id, run_id, count, class),
        }
    }

    /// The first `count` records of a run failed together.
    fn list_fails(&mut self, id: MemberId, run_id: RunId, count: usize, class: Class) -> Checked {
        let Some(run) = self.members[id].runs.get_mut(&run_id) else {
            return Ok(());
        };
        if run.failed_list > 0 && count >= run.failed_list {
            return Err(format!(
                "member {id} repeats {count} records that failed together, and not fewer"
            ));
        }
        run.failed_list = count;
        if !run.suspects.failed(count) {
            self.seen.halved_lists += 1;
            return self.start_next(id, run_id);
        }
        if count > 1 {
            return Err(format!(
                "member {id} blames the first of {count} records that failed together"
            ));
        }
        self.list_fails_at(id, run_id, 0, class)
    }

    /// The record at this place of what is left has failed, and ends the run.
    fn list_fails_at(
        &mut self,
        id: MemberId,
        run_id: RunId,
        place: usize,
        class: Class,
    ) -> Checked {
        let Some(run) = self.members[id].runs.get_mut(&run_id) else {
            return Ok(());
        };
        let partition = run.partition;
        match run.records.remove(place) {
            Some(record) => self.failed(id, run_id, partition, record, class),
            None => Ok(()),
        }
    }

    /// The first `count` records of what is left are handled.
    fn settle_list(&mut self, id: MemberId, run_id: RunId, count: usize) -> Checked {
        let Some(run) = self.members[id].runs.get_mut(&run_id) else {
            return Ok(());
        };
        let partition = run.partition;
        run.suspects.cleared(count);
        run.failed_list = 0;
        let handled: Vec<_> = run.records.drain(..count).collect();
        if count > 0 {
            run.attempt = 1;
        }
        for record in handled {
            self.settled_in_run(id, run_id, partition, record);
        }
        self.report_some(id, run_id)
    }

    /// Records behind a failed one are handled all the same.
    fn settle_behind(&mut self, id: MemberId, run_id: RunId, behind: &[Record]) -> Checked {
        let member = &mut self.members[id];
        let Some(run) = member.runs.get_mut(&run_id).filter(|_| !behind.is_empty()) else {
            return Ok(());
        };
        let (partition, tenure) = (run.partition, run.tenure);
        run.records.retain(|record| !behind.contains(record));
        let offsets: Vec<_> = behind.iter().map(|record| record.offset).collect();
        if let Some(tenure) = member.current(partition, tenure) {
            tenure.report(offsets.iter().copied());
        }
        self.seen.settled_behind += offsets.len() as u64;
        self.seen.handled += offsets.len() as u64;
        for record in behind {
            let first = self.checker.settle(partition, record);
            self.seen.repeated += u64::from(!first);
        }
        let run = run_id;
        self.tell(id, Event::SettledBehind { run, offsets })
    }

    /// A list is handed out: has it waited for company?
    pub(crate) fn check_filled(
        &mut self,
        id: MemberId,
        partition: u32,
        records: &[Record],
    ) -> Checked {
        let (now, config) = (self.now, &self.weather.config);
        let wait = config.fill_wait.as_millis() as u64;
        let member = &mut self.members[id];
        let probes = member.away.is_some();
        let Some(tenure) = member.owned.get_mut(&partition) else {
            return Ok(());
        };
        let came = |tenure: &Tenure| -> Option<u64> {
            let times = records.iter().map(|r| tenure.arrived.get(&r.offset));
            let times: Option<Vec<_>> = times.map(|at| at.copied()).collect();
            times?.into_iter().min()
        };
        // A probe takes the first of a list; the others have waited as long as it has.
        if probes {
            tenure.probed_to = tenure.next;
        }
        let behind = records.first().map(|record| record.offset) >= tenure.probed_to;
        let fresh = came(tenure).filter(|_| behind);
        for record in records {
            tenure.arrived.remove(&record.offset);
        }
        let full = records.len() >= config.run_records || tenure.paused;
        let origin = u64::from(partition) < self.weather.partitions;
        let Some(came) = fresh.filter(|_| wait > 0 && !full && origin) else {
            return Ok(());
        };
        if now < came + wait {
            member.early = Some((partition, records.len()));
            return Ok(());
        }
        self.seen.filled_lists += 1;
        Ok(())
    }
}

impl Member {
    /// Lists that were handed out before their time: only if nothing more can come, as the queue
    /// is full.
    pub(crate) fn check_early(&mut self) -> Checked {
        let Some((partition, count)) = self.early.take() else {
            return Ok(());
        };
        match self.owned.get(&partition) {
            Some(tenure) if !tenure.paused => Err(format!(
                "{count} records of {partition} are handed out before their list is filled"
            )),
            _ => Ok(()),
        }
    }
}

fn first_failed(outcomes: &[Option<Class>]) -> Option<(usize, Class)> {
    let mut failed = outcomes.iter().enumerate();
    failed.find_map(|(place, outcome)| Some((place, (*outcome)?)))
}
