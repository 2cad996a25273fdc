//! Acknowledgements in the manual ack modes: given, refused, dropped, late, early, stale.

use ackwell_core::Class;
use ackwell_core::engine::{Event as CoreEvent, Failure, Nack, RunId};

use crate::checker::{Checked, MemberId};
use crate::member::Record;
use crate::weather::Trouble;
use crate::world::{Event, Happening, World};

/// What a handler does with its acknowledgement.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Verdict {
    Acknowledge { waits: bool },
    Refuse(Nack),
}

/// The acknowledgements of one run.
#[derive(Debug)]
pub(crate) struct Acks {
    pub partition: u32,
    pub tenure: u64,
    pub records: Vec<Record>,
    /// By place: what became of it.
    pub given: Vec<Given>,
    /// Places that were acknowledged and not reported, with the waiters' numbers.
    unreported: Vec<(usize, Option<u64>)>,
    /// Refusals from before the run has ended.
    early: Vec<(usize, Nack)>,
    pub ended: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Given {
    /// Its handler has not returned, and has it.
    Not,
    /// It will be given by something that is scheduled.
    Soon,
    /// It was acknowledged.
    Yes,
    /// It was refused, or its record failed: whatever comes is stale.
    Void,
}

impl Acks {
    pub(crate) fn new(partition: u32, tenure: u64, records: &[Record]) -> Self {
        Acks {
            partition,
            tenure,
            records: records.to_vec(),
            given: vec![Given::Not; records.len()],
            unreported: Vec::new(),
            early: Vec::new(),
            ended: false,
        }
    }
}

impl World {
    pub(crate) fn is_manual(&self) -> bool {
        self.weather.config.commit.is_manual()
    }

    /// A handler gives its acknowledgement to somebody who will deal with it.
    pub(crate) fn hand_out(&mut self, id: MemberId, run: RunId, place: usize) {
        let Some(acks) = self.members[id].acks.get_mut(&run) else {
            return;
        };
        if acks.given.get(place) != Some(&Given::Not) {
            return;
        }
        acks.given[place] = Given::Soon;
        let late = self.strikes(Trouble::LateAck, 10);
        let wait = self.dice.in_range(0, if late { 800 } else { 8 });
        let verdict = if self.strikes(Trouble::Nack, 8) {
            let delay = std::time::Duration::from_millis(self.dice.in_range(0, 80));
            Verdict::Refuse(self.dice.pick(&[Nack::After(delay), Nack::Dropped]))
        } else {
            let waits = self.dice.percent(20);
            Verdict::Acknowledge { waits }
        };
        self.at(wait, Happening::Acknowledges(id, run, place, verdict));
    }

    /// Somebody acknowledges a record before its handler has returned.
    pub(crate) fn hand_out_early(&mut self, id: MemberId, run: RunId, place: usize) {
        if self.is_manual() && self.strikes(Trouble::EarlyAck, 5) {
            let Some(acks) = self.members[id].acks.get_mut(&run) else {
                return;
            };
            acks.given[place] = Given::Soon;
            let wait = self.dice.in_range(0, 5);
            let verdict = Verdict::Acknowledge { waits: false };
            self.at(wait, Happening::Acknowledges(id, run, place, verdict));
        }
    }

    /// Whether a record was acknowledged already; if not, nothing that comes counts any more.
    pub(crate) fn void_ack(&mut self, id: MemberId, run: RunId, place: usize) -> bool {
        let acks = self.members[id].acks.get_mut(&run);
        let Some(given) = acks.and_then(|acks| acks.given.get_mut(place)) else {
            return false;
        };
        if *given != Given::Yes {
            *given = Given::Void;
        }
        *given == Given::Yes
    }

    pub(crate) fn acknowledges(
        &mut self,
        id: MemberId,
        run: RunId,
        place: usize,
        verdict: Verdict,
    ) -> Checked {
        let number = self.next_number();
        let member = &mut self.members[id];
        let acks = member.acks.get_mut(&run);
        let acks = acks.filter(|acks| acks.given[place] == Given::Soon);
        let Some(acks) = acks.filter(|_| member.alive) else {
            self.seen.stale_acks += 1;
            return Ok(());
        };
        let (partition, record) = (acks.partition, acks.records[place].clone());
        let waits = match verdict {
            Verdict::Acknowledge { waits } => waits,
            Verdict::Refuse(nack) => {
                acks.given[place] = Given::Void;
                if !acks.ended {
                    acks.early.push((place, nack));
                }
                self.report_acks(id, run)?;
                self.note_nack(id, run, place, nack, true);
                return self.tell(id, Event::Nacked { run, place, nack });
            }
        };
        acks.given[place] = Given::Yes;
        acks.unreported.push((place, waits.then_some(number)));
        if waits {
            let of = member.owned.get(&partition);
            let assignment = of.map_or(0, |tenure| tenure.assignment);
            let waiter = (partition, assignment, record.offset);
            member.waiters.insert(number, waiter);
        }
        self.seen.acks += 1;
        self.checker.settle(partition, &record);
        if self.dice.percent(60) {
            return self.report_acks(id, run);
        }
        let wait = self.dice.in_range(0, 5);
        self.at(wait, Happening::ReportsAcks(id, run));
        Ok(())
    }

    /// The engine is told what was acknowledged.
    pub(crate) fn report_acks(&mut self, id: MemberId, run: RunId) -> Checked {
        let member = &mut self.members[id];
        let Some(acks) = member.acks.get_mut(&run).filter(|_| member.alive) else {
            return Ok(());
        };
        let reports = std::mem::take(&mut acks.unreported);
        if reports.is_empty() {
            return Ok(());
        }
        let (partition, tenure) = (acks.partition, acks.tenure);
        let offset = |place: usize| acks.records[place].offset;
        let offsets: Vec<_> = reports.iter().map(|(place, _)| offset(*place)).collect();
        if let Some(tenure) = member.current(partition, tenure) {
            tenure.report(offsets);
        }
        let waiters = reports
            .iter()
            .filter_map(|(place, id)| Some((*place, (*id)?)));
        let event = CoreEvent::Acknowledged {
            run,
            places: reports.iter().map(|(place, _)| *place..place + 1).collect(),
            waiters: waiters.collect(),
        };
        self.tell(id, event)
    }

    /// The handled records of a run wait for their acknowledgements; the run is about to end.
    pub(crate) fn report_handled(
        &mut self,
        id: MemberId,
        run: RunId,
        records: Vec<Record>,
    ) -> Checked {
        let member = &mut self.members[id];
        let Some(acks) = member.acks.get_mut(&run) else {
            return Ok(());
        };
        acks.ended = true;
        for (place, nack) in std::mem::take(&mut acks.early) {
            self.note_nack(id, run, place, nack, false);
        }
        if records.is_empty() {
            return Ok(());
        }
        self.tell(id, Event::Handled { run, records })
    }

    /// A record was refused; whether the engine takes it up at once or when its run ends.
    fn note_nack(&mut self, id: MemberId, run: RunId, place: usize, nack: Nack, told: bool) {
        if told {
            self.seen.nacks += 1;
        }
        let Some(acks) = self.members[id].acks.get(&run).filter(|acks| acks.ended) else {
            return;
        };
        let (partition, tenure) = (acks.partition, acks.tenure);
        let record = acks.records[place].clone();
        let (now, config) = (self.now, &self.weather.config);
        let Some(tenure) = self.members[id].current(partition, tenure) else {
            return;
        };
        tenure.open.remove(&record.offset);
        if tenure.drain.is_some() {
            return;
        }
        let found = tenure.tries.entry(record.offset).or_default();
        match nack {
            Nack::After(wait) => found.asked(now, wait),
            Nack::Dropped => {
                let failure = Failure::new(Class::Transient, "dropped");
                found.failed(now, &failure, &record, config);
            }
        }
    }

    /// The engine takes no more acknowledgements of a run.
    pub(crate) fn closes(&mut self, id: MemberId, run: RunId) -> Checked {
        self.report_acks(id, run)?;
        self.members[id].acks.remove(&run);
        self.seen.closed_acks += 1;
        self.tell(id, Event::Closed { run })
    }

    /// Somebody hears whether what he acknowledged is committed.
    pub(crate) fn answered(&mut self, id: MemberId, waiter: u64, committed: bool) -> Checked {
        let Some((partition, assignment, offset)) = self.members[id].waiters.remove(&waiter) else {
            return Err(format!("member {id} answers {waiter}, who does not wait"));
        };
        self.seen.answers += u64::from(committed);
        let known = &self.partitions[partition as usize];
        if !committed || known.assignment != assignment {
            return Ok(());
        }
        let stored = known.committed.as_ref().is_some_and(|(at, text)| {
            offset < at.0 || crate::manners::claimed(at.0, text, &known.snapshots).contains(&offset)
        });
        if stored {
            Ok(())
        } else {
            Err(format!(
                "member {id} says that {partition}/{offset} is committed, and it is not"
            ))
        }
    }
}
