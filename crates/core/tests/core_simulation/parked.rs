//! Records of failing keys, in a durable place that outlives the containers.
//!
//! The place is simpler than a database: what is written is durable at once, and who takes a
//! partition over fences off who had it before. How a real one groups its writes, loses them and
//! is overtaken is the matter of `core_ordered_simulation`; here it is when the container lets
//! records be retried, and what it makes of those that can't be taken on.

use std::collections::{BTreeMap, BTreeSet};

use ackwell_core::engine::{End, Event as CoreEvent, Failure, PartitionId, RunId};
use ackwell_core::ordered::{Attempts, Due, Parked, Place, Rank, Stored, Verdict};
use ackwell_core::settle::{Destination, Settlement};
use ackwell_core::{Class, Timestamp};

use crate::checker::{Checked, MemberId};
use crate::member::Record;
use crate::weather::Trouble;
use crate::world::{Event, Happening, World};

/// A key, or a record without one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Slot {
    Key(u64),
    Alone(i64),
}

impl Slot {
    fn of(record: &Record) -> Self {
        match record.key {
            Some(key) => Slot::Key(key),
            None => Slot::Alone(record.offset),
        }
    }
}

/// The durable place of one partition.
#[derive(Debug, Default)]
pub(crate) struct Shelf {
    epoch: u64,
    rows: BTreeMap<(Slot, i64), Row>,
    /// What was handled, skipped or parked by somebody: it is not handled again.
    taken: BTreeSet<i64>,
}

#[derive(Debug, Clone, Copy)]
struct Row {
    attempts: Attempts,
    due: Timestamp,
}

impl Shelf {
    fn first(&self, slot: Slot) -> Option<(i64, Row)> {
        let mut rows = self.rows.range((slot, i64::MIN)..=(slot, i64::MAX));
        rows.next().map(|((_, offset), row)| (*offset, *row))
    }
}

/// What a member knows of a partition's shelf.
#[derive(Debug)]
pub(crate) struct Stay {
    epoch: u64,
    parked: Parked<Slot>,
}

/// A retry in work.
#[derive(Debug)]
pub(crate) struct Retrying {
    pub partition: u32,
    pub tenure: u64,
    heads: Vec<(Slot, i64)>,
}

/// What becomes of the record that a run would begin next.
enum Turn {
    Handled,
    /// Nothing is left to do for it.
    SetAside,
    Held(&'static str),
}

impl World {
    fn time(&self) -> Timestamp {
        Timestamp::from_millis(self.now as i64)
    }

    pub(crate) fn is_ordered(&self) -> bool {
        self.weather.config.ordered
    }

    /// Whether what the member does to a partition's shelf counts; an owner takes it over first.
    fn holds_shelf(&mut self, id: MemberId, partition: u32) -> bool {
        let now = self.time();
        let limits = self.weather.terms.limits;
        let owner = self.partitions[partition as usize].owner == Some(id);
        let shelf = &mut self.partitions[partition as usize].shelf;
        let stay = self.members[id].stays.get(&partition);
        if stay.is_some_and(|stay| stay.epoch == shelf.epoch) {
            return true;
        }
        if !owner {
            self.seen.fenced_shelves += u64::from(stay.is_some());
            return false;
        }
        shelf.epoch += 1;
        let mut lines: BTreeMap<Slot, Stored> = BTreeMap::new();
        for ((slot, _), row) in &shelf.rows {
            let (at, since) = (row.due, now);
            let first = Stored {
                records: 0,
                at,
                since,
            };
            lines.entry(*slot).or_insert(first).records += 1;
        }
        let mut parked = Parked::new(limits);
        self.seen.taken_over += lines.len() as u64;
        for (slot, stored) in lines {
            parked.restore(slot, stored);
        }
        let epoch = shelf.epoch;
        self.members[id]
            .stays
            .insert(partition, Stay { epoch, parked });
        true
    }

    /// Sets the records aside that a run must not handle. Whether it goes on to its next record.
    pub(crate) fn set_aside(&mut self, id: MemberId, run_id: RunId) -> Result<bool, String> {
        loop {
            let Some(run) = self.members[id].runs.get(&run_id) else {
                return Ok(false);
            };
            let partition = run.partition;
            let Some(record) = run.records.front().cloned() else {
                return Ok(true);
            };
            match self.turn_of(id, partition, &record) {
                Turn::Handled => return Ok(true),
                Turn::Held(why) => return self.held(id, run_id, why).map(|()| false),
                Turn::SetAside => {
                    if let Some(run) = self.members[id].runs.get_mut(&run_id) {
                        run.records.pop_front();
                        run.attempt = 1;
                        run.done += 1;
                        run.unreported.push(record);
                    }
                }
            }
        }
    }

    fn turn_of(&mut self, id: MemberId, partition: u32, record: &Record) -> Turn {
        if !self.holds_shelf(id, partition) {
            return Turn::Held("somebody else has taken over");
        }
        let now = self.time();
        if self.partitions[partition as usize]
            .shelf
            .taken
            .contains(&record.offset)
        {
            self.seen.known_to_shelf += 1;
            return Turn::SetAside;
        }
        let slot = Slot::of(record);
        let Some(stay) = self.members[id].stays.get(&partition) else {
            return Turn::Held("nobody has taken over");
        };
        match stay.parked.place(record.key.is_some().then_some(&slot)) {
            Place::Free => Turn::Handled,
            Place::Full(_) => Turn::Held("too much is parked"),
            Place::Behind => {
                self.seen.parked_behind += 1;
                self.put_on_shelf(id, partition, record, Attempts::default(), now);
                Turn::SetAside
            }
        }
    }

    /// A run ends although nothing failed; health must say why.
    pub(crate) fn held(&mut self, id: MemberId, run_id: RunId, why: &str) -> Checked {
        let Some(mut run) = self.members[id].runs.remove(&run_id) else {
            return Ok(());
        };
        self.seen.held += 1;
        let (partition, tenure) = (run.partition, run.tenure);
        let rest: Vec<_> = std::mem::take(&mut run.records).into();
        let reason = why.to_owned();
        self.finished(id, run_id, Some(run), End::Held { reason, rest })?;
        let member = &mut self.members[id];
        let stays = member.alive && !member.stopping && member.problem.is_none();
        let waits = member.current(partition, tenure);
        if waits.is_some_and(|tenure| tenure.drain.is_none() && stays) {
            return Err(format!("member {id} holds {partition} and does not say so"));
        }
        Ok(())
    }

    /// A record is parked; when its key is due, if it is the first of it.
    fn put_on_shelf(
        &mut self,
        id: MemberId,
        partition: u32,
        record: &Record,
        attempts: Attempts,
        due: Timestamp,
    ) -> Option<Timestamp> {
        let (slot, now) = (Slot::of(record), self.time());
        let shelf = &mut self.partitions[partition as usize].shelf;
        shelf.taken.insert(record.offset);
        let row = Row { attempts, due };
        shelf.rows.insert((slot, record.offset), row);
        self.checker.park(partition, record);
        self.seen.parked += 1;
        let stay = self.members[id].stays.get_mut(&partition)?;
        (stay.parked.park(now, slot, due) == Rank::Head).then_some(due)
    }

    /// Handling a record is over: does it still count? If it is done with, that is noted.
    pub(crate) fn still_counts(
        &mut self,
        id: MemberId,
        partition: u32,
        record: &Record,
        done: bool,
    ) -> bool {
        let counts = self.holds_shelf(id, partition);
        if counts && done {
            self.given_up(partition, record);
        }
        counts
    }

    /// A record needs no handling any more.
    pub(crate) fn given_up(&mut self, partition: u32, record: &Record) {
        if self.is_ordered() {
            let shelf = &mut self.partitions[partition as usize].shelf;
            shelf.taken.insert(record.offset);
        }
    }

    /// The attempts in place of a record are used up: it is parked. Whether that worked.
    pub(crate) fn park(
        &mut self,
        id: MemberId,
        partition: u32,
        record: &Record,
        attempts: u32,
    ) -> Result<bool, String> {
        if !self.holds_shelf(id, partition) {
            return Ok(false);
        }
        let shelf = &self.partitions[partition as usize].shelf;
        if shelf.taken.contains(&record.offset) {
            return Ok(true);
        }
        let now = self.time();
        let attempts = Attempts::in_place(attempts, now);
        let due = now + self.weather.terms.retry.wait(1, 0.5);
        match self.put_on_shelf(id, partition, record, attempts, due) {
            Some(at) => self.tell_due(id, partition, at).map(|()| true),
            None => Ok(true),
        }
    }

    fn tell_due(&mut self, id: MemberId, partition: u32, at: Timestamp) -> Checked {
        self.note_due(id, partition, Some(at));
        let partition = PartitionId(partition);
        self.tell(id, Event::RetryAt { partition, at })
    }

    fn note_due(&mut self, id: MemberId, partition: u32, at: Option<Timestamp>) {
        let at = at.map(|at| at.as_millis().max(0) as u64);
        if let Some(tenure) = self.members[id].owned.get_mut(&partition) {
            let known = tenure.retry_at.into_iter();
            tenure.retry_at = known.chain(at).min();
        }
    }

    /// The unit of work parks a failed record itself, and the run goes on.
    pub(crate) fn parks_at_once(
        &mut self,
        id: MemberId,
        run_id: RunId,
        partition: u32,
        record: Record,
        attempt: u32,
    ) -> Checked {
        self.checker_still_parks(id, partition, &record, attempt)?;
        let (failure, offset) = (Failure::new(Class::Transient, "by plan"), record.offset);
        if let Some(run) = self.members[id].runs.get_mut(&run_id) {
            run.done += 1;
            run.unreported.push(record);
        }
        let event = CoreEvent::AttemptFailed {
            run: run_id,
            offset,
            failure,
            attempt,
            settlement: Settlement::Recover(Destination::Parked),
        };
        self.tell(id, event)?;
        self.start_next(id, run_id)
    }

    fn checker_still_parks(
        &mut self,
        id: MemberId,
        partition: u32,
        record: &Record,
        attempt: u32,
    ) -> Checked {
        match self.park(id, partition, record, attempt)? {
            true => Ok(()),
            false => Err(format!("{partition}/{} was parked in vain", record.offset)),
        }
    }

    /// The container has parked records tried again: may it, now?
    pub(crate) fn begin_retry(&mut self, id: MemberId, run: RunId, partition: u32) -> Checked {
        let now = self.now;
        let member = &mut self.members[id];
        let place = format!("member {id} retries what is parked of {partition}");
        let Some(tenure) = member.owned.get_mut(&partition) else {
            return Err(format!("{place}, which it does not own"));
        };
        let paused = member.paused || member.paused_partitions.contains(&partition);
        if paused || tenure.withheld || tenure.drain.is_some() || member.stopping {
            return Err(format!(
                "{place} while it is paused, held, asked for or told to stop"
            ));
        }
        let same = |other: &Retrying| other.partition == partition && other.tenure == tenure.number;
        if member.retries.values().any(same) {
            return Err(format!("{place} twice at once"));
        }
        let due = tenure.retry_at.take();
        let unseen = std::mem::take(&mut member.away_unseen);
        member.unseen_probe = unseen.then_some(run);
        let probes = unseen || member.away.is_some();
        if due.is_none_or(|due| due > now && !probes) {
            return Err(format!("{place} and nothing is due before {due:?}"));
        }
        let tenure = tenure.number;
        self.note_probe(id, run)
            .map_err(|what| format!("{place} {what}"))?;
        let heads = self.due_heads(id, partition)?;
        self.seen.retried += heads.len() as u64;
        let retrying = Retrying {
            partition,
            tenure,
            heads,
        };
        self.members[id].retries.insert(run, retrying);
        let slow = self.strikes(Trouble::SlowHandler, 5);
        let wait = self.dice.in_range(0, if slow { 1_500 } else { 15 });
        self.at(wait, Happening::Retried(id, run));
        Ok(())
    }

    /// Takes the heads that are due into work.
    fn due_heads(&mut self, id: MemberId, partition: u32) -> Result<Vec<(Slot, i64)>, String> {
        if !self.holds_shelf(id, partition) {
            return Ok(Vec::new());
        }
        let now = self.time();
        let owner = self.partitions[partition as usize].owner == Some(id);
        let lanes = usize::from(self.weather.config.concurrency.lanes());
        let Some(stay) = self.members[id].stays.get_mut(&partition) else {
            return Ok(Vec::new());
        };
        let mut heads = Vec::new();
        for Due { key, seen, .. } in stay.parked.take_due(now, lanes) {
            let known = &self.partitions[partition as usize];
            let Some((offset, row)) = known.shelf.first(key) else {
                stay.parked.vanished(now, &key, seen);
                continue;
            };
            if row.due > now {
                stay.parked.again(&key, row.due);
                continue;
            }
            if let Some(record) = known.at(offset) {
                let alone = std::slice::from_ref(record);
                self.checker.begin(partition, alone, id, owner)?;
                heads.push((key, offset));
            }
        }
        Ok(heads)
    }

    /// A retry has come to its end, or was cancelled.
    pub(crate) fn retry_ends(&mut self, id: MemberId, run: RunId, cancelled: bool) -> Checked {
        if !self.members[id].alive {
            return Ok(());
        }
        let Some(retrying) = self.members[id].retries.remove(&run) else {
            return Ok(());
        };
        let Retrying {
            partition, heads, ..
        } = retrying;
        for (_, offset) in &heads {
            self.checker.end(partition, *offset, id);
        }
        let fenced = !self.holds_shelf(id, partition);
        let mut failure = None;
        for (slot, offset) in heads {
            let kept = fenced || cancelled || failure.is_some();
            let ended = if kept {
                Verdict::Keep
            } else {
                self.try_again(id, run, partition, (slot, offset), &mut failure)?
            };
            self.note_verdict(id, partition, (slot, offset), ended);
        }
        let stay = self.members[id].stays.get(&partition);
        let next = stay.and_then(|stay| stay.parked.due_at());
        let later = self.time() + self.weather.config.hold_wait;
        let next = if fenced { Some(later) } else { next };
        let problem = fenced.then(|| "somebody else has taken over".to_owned());
        self.tell_retried(
            id,
            run,
            (partition, retrying.tenure),
            next,
            failure,
            problem,
        )
    }

    /// One attempt at the head of a key.
    fn try_again(
        &mut self,
        id: MemberId,
        run: RunId,
        partition: u32,
        (slot, offset): (Slot, i64),
        failure: &mut Option<Failure>,
    ) -> Result<Verdict, String> {
        let known = &self.partitions[partition as usize];
        let Some((record, row)) = known
            .at(offset)
            .cloned()
            .zip(known.shelf.rows.get(&(slot, offset)).copied())
        else {
            return Ok(Verdict::Keep);
        };
        let Some(class) = self.outcome(&record, row.attempts.all + 1) else {
            return Ok(Verdict::Done);
        };
        let failed = Failure::new(class, "by plan");
        let (now, attempts) = (self.time(), row.attempts.failed(self.time()));
        let terms = &self.weather.terms;
        let verdict = terms.judge(class, attempts, None, now, 0.5);
        match verdict {
            Verdict::Keep | Verdict::Stop => *failure = Some(failed),
            Verdict::Again(due) => {
                let shelf = &mut self.partitions[partition as usize].shelf;
                shelf.rows.insert((slot, offset), Row { attempts, due });
                self.seen.retries += 1;
            }
            Verdict::GiveUp => self.seen.dead_letters += 1,
            Verdict::Done => self.seen.skipped += 1,
        }
        if let Verdict::Again(due) = verdict {
            let event = CoreEvent::AttemptFailed {
                run,
                offset,
                failure: Failure::new(class, "by plan"),
                attempt: attempts.all,
                settlement: Settlement::RetryAfter(due.since(now)),
            };
            self.tell(id, event)?;
        }
        Ok(verdict)
    }

    fn note_verdict(
        &mut self,
        id: MemberId,
        partition: u32,
        (slot, offset): (Slot, i64),
        verdict: Verdict,
    ) {
        let now = self.time();
        let known = &mut self.partitions[partition as usize];
        let left = matches!(verdict, Verdict::Done | Verdict::GiveUp);
        if left && let Some(record) = known.at(offset).cloned() {
            known.shelf.rows.remove(&(slot, offset));
            self.checker.settle(partition, &record);
        }
        let Some(stay) = self.members[id].stays.get_mut(&partition) else {
            return;
        };
        match verdict {
            Verdict::Again(due) => stay.parked.again(&slot, due),
            Verdict::Done | Verdict::GiveUp => stay.parked.settled(now, &slot, 1),
            Verdict::Keep | Verdict::Stop => stay.parked.untouched(&slot),
        }
    }

    fn tell_retried(
        &mut self,
        id: MemberId,
        run: RunId,
        (partition, tenure): (u32, u64),
        next: Option<Timestamp>,
        failure: Option<Failure>,
        problem: Option<String>,
    ) -> Checked {
        if self.members[id].current(partition, tenure).is_some() {
            self.note_due(id, partition, next);
        }
        let class = failure.as_ref().map(|failure| failure.class);
        self.note_retried(id, run, (partition, tenure), class);
        let event = Event::Retried {
            run,
            next,
            failure,
            problem,
        };
        self.tell(id, event)
    }
}
