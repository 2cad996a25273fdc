//! The schedule: who does what, and what goes wrong.

use std::collections::BTreeMap;
use std::time::Duration;

use ackwell_core::backoff::Policy;
use ackwell_core::ordered::{Attempts, Limits, Parked, Place, Stored, Terms, Verdict};
use ackwell_core::{Class, Timestamp};

use crate::checker::{self, Checked};
use crate::database::{Database, Row, Slot};
use crate::dice::Dice;
use crate::member::{Member, Stay, Then};

/// When nothing goes wrong any more, and when all must be done; in steps.
const CALM_AT: u32 = 3_000;
const END_AT: u32 = 30_000;
const RECORDS: usize = 150;
const ATTEMPTS: u32 = 3;

/// What a broken version does.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Faults {
    pub(crate) epoch_is_not_looked_at: bool,
    pub(crate) parked_without_a_mark: bool,
    pub(crate) handled_past_a_parked_one: bool,
    pub(crate) settled_before_durable: bool,
    pub(crate) key_freed_before_durable: bool,
    pub(crate) key_known_only_when_durable: bool,
    pub(crate) row_removed_before_the_dead_letter: bool,
    pub(crate) row_left_by_a_retry: bool,
    pub(crate) given_up_in_memory_only: bool,
    pub(crate) retried_early: bool,
    pub(crate) attempts_not_counted: bool,
    pub(crate) failed_and_not_parked: bool,
    pub(crate) given_up_without_a_mark: bool,
    pub(crate) nothing_loaded_by_a_new_owner: bool,
}

/// How often the rare things happened.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Seen {
    counts: [u64; 12],
}

const NAMES: [&str; 12] = [
    "handled",
    "parked",
    "parked behind",
    "retried",
    "dead letters",
    "crashes",
    "rebalances",
    "fenced",
    "groups lost",
    "redelivered",
    "dead letters failed",
    "full",
];

impl Seen {
    pub(crate) fn add(&mut self, other: &Seen) {
        for (sum, more) in self.counts.iter_mut().zip(other.counts) {
            *sum += more;
        }
    }

    pub(crate) fn never(&self) -> Vec<&'static str> {
        let counted = NAMES.iter().zip(self.counts);
        counted
            .filter(|(_, count)| *count == 0)
            .map(|(name, _)| *name)
            .collect()
    }

    fn count(&mut self, name: &str) {
        if let Some(at) = NAMES.iter().position(|known| *known == name) {
            self.counts[at] += 1;
        }
    }
}

/// How a record fails.
#[derive(Debug, Clone, Copy)]
enum Plan {
    Fine,
    Times(u32),
    /// Whenever the dice say so.
    Flaky,
    Always(Class),
}

pub(crate) struct World {
    dice: Dice,
    faults: Faults,
    now: Timestamp,
    log: Vec<Slot>,
    plans: Vec<Plan>,
    database: Database,
    /// The open group: whose it is, what was before, and what follows.
    group: Option<(usize, Database, Vec<Then>)>,
    members: Vec<Member>,
    owner: usize,
    committed: i64,
    /// Dead letters by how often they were written.
    dead: BTreeMap<i64, u32>,
    terms: Terms,
    seen: Seen,
}

impl World {
    pub(crate) fn new(seed: u64, faults: Faults) -> Self {
        let mut dice = Dice::new(seed);
        let keys = dice.in_range(1, 6);
        let log: Vec<_> = (0..RECORDS as i64)
            .map(|offset| match dice.percent(90) {
                true => Slot::Key(dice.in_range(1, keys) as u8),
                false => Slot::Lone(offset),
            })
            .collect();
        let plans = (0..RECORDS)
            .map(|_| match dice.in_range(0, 99) {
                0..10 => Plan::Times(dice.in_range(1, 2) as u32),
                10..15 => Plan::Always(Class::Transient),
                15..17 => Plan::Always(Class::Permanent),
                17..19 => Plan::Always(Class::Skip),
                19..26 => Plan::Flaky,
                _ => Plan::Fine,
            })
            .collect();
        let limits = Limits {
            keys_max: dice.in_range(2, 20) as usize,
            records_per_key_max: dice.in_range(5, 60) as usize,
            records_max: dice.in_range(8, 100) as usize,
        };
        let wait = Duration::from_millis(dice.in_range(5, 60));
        let terms = Terms {
            retry: Policy::exponential(wait, 2.0).max_attempts(ATTEMPTS),
            recovery: Policy::fixed(Duration::from_millis(20)),
            limits,
        };
        let mut members: Vec<_> = (0..3).map(|_| Member::new()).collect();
        members[0].assign(0);
        World {
            dice,
            faults,
            now: Timestamp::from_millis(1_000),
            log,
            plans,
            database: Database {
                parked_to: -1,
                ..Database::default()
            },
            group: None,
            members,
            owner: 0,
            committed: 0,
            dead: BTreeMap::new(),
            terms,
            seen: Seen::default(),
        }
    }

    pub(crate) fn run(mut self) -> Result<Seen, String> {
        for step in 0..END_AT {
            self.now += Duration::from_millis(self.dice.in_range(0, 2));
            self.step(step < CALM_AT)
                .map_err(|violation| format!("at step {step}: {violation}"))?;
            if step > CALM_AT && step % 50 == 0 && self.is_done() {
                return self.end().map(|()| self.seen);
            }
        }
        let left = (0..RECORDS as i64).filter(|offset| !self.is_over(*offset));
        Err(format!(
            "stalled: committed {}, {} parked, unfinished {:?}",
            self.committed,
            self.database.parked.len(),
            left.collect::<Vec<_>>()
        ))
    }

    fn is_over(&self, offset: i64) -> bool {
        let skipped = self.database.skipped.contains(&offset);
        skipped || self.dead.contains_key(&offset) || self.database.effects.contains(&offset)
    }

    fn is_done(&self) -> bool {
        let known = self.members[self.owner].stay.as_ref();
        self.group.is_none()
            && self.committed == RECORDS as i64
            && self.database.parked.is_empty()
            && known.is_some_and(|stay| stay.parked.is_empty())
    }

    fn end(&self) -> Checked {
        if let Some(offset) = (0..RECORDS as i64).find(|offset| !self.is_over(*offset)) {
            return Err(format!("record {offset} is lost"));
        }
        for offset in self.dead.keys() {
            let plan = self.plans[*offset as usize];
            if matches!(
                plan,
                Plan::Fine | Plan::Times(_) | Plan::Always(Class::Skip)
            ) {
                return Err(format!("record {offset} was given up although {plan:?}"));
            }
        }
        Ok(())
    }

    fn step(&mut self, trouble: bool) -> Checked {
        if trouble && self.dice.percent(3) {
            self.trouble();
        }
        let id = self.dice.in_range(0, 2) as usize;
        if !self.members[id].alive || !self.members[id].assigned {
            return Ok(());
        }
        match self.dice.in_range(0, 9) {
            0 => self.poll(id),
            1 => return self.commit_offsets(id, trouble),
            2 => self.bury(id, trouble),
            3 | 4 => return self.close_group(id, trouble),
            5 | 6 => return self.in_group(id, World::retry),
            _ => return self.in_group(id, World::handle),
        }
        Ok(())
    }

    fn trouble(&mut self) {
        match self.dice.in_range(0, 2) {
            0 => {
                let id = self.dice.in_range(0, 2) as usize;
                self.seen.count("crashes");
                self.roll_back(id);
                self.members[id] = Member::new();
                if self.owner == id {
                    self.rebalance();
                }
            }
            1 => self.rebalance(),
            // Somebody hears at last that the partition is not its own any more.
            _ => {
                for id in 0..3 {
                    if id != self.owner && self.members[id].assigned && self.dice.percent(50) {
                        self.roll_back(id);
                        self.members[id].revoke();
                    }
                }
            }
        }
    }

    /// The partition is given to somebody else; the old owner may not hear of it for long.
    fn rebalance(&mut self) {
        self.seen.count("rebalances");
        self.owner = self.dice.in_range(0, 2) as usize;
        self.roll_back(self.owner);
        let committed = self.committed;
        self.members[self.owner].assign(committed);
    }

    fn roll_back(&mut self, id: usize) {
        if let Some((_, before, pending)) = self.group.take_if(|(of, ..)| *of == id) {
            self.seen.count("groups lost");
            self.database = before;
            for then in pending.into_iter().rev() {
                self.members[id].rolled_back(then);
            }
        }
    }

    fn poll(&mut self, id: usize) {
        let count = self.dice.in_range(1, 20) as i64;
        let member = &mut self.members[id];
        for _ in 0..count {
            if member.position == RECORDS as i64 || member.queue.len() > 40 {
                return;
            }
            member.queue.push_back(member.position);
            member.unsettled.insert(member.position);
            member.position += 1;
        }
    }

    fn commit_offsets(&mut self, id: usize, trouble: bool) -> Checked {
        let lost = trouble && self.dice.percent(50);
        // The coordinator knows who the owner is.
        if self.owner != id || lost {
            return Ok(());
        }
        let position = self.members[id].settled_to();
        let durable = self
            .group
            .as_ref()
            .map_or(&self.database, |(_, before, _)| before);
        checker::position(durable, position)?;
        self.committed = position;
        Ok(())
    }

    /// Does something in the open group, or in a new one, unless somebody else writes.
    fn in_group(&mut self, id: usize, work: fn(&mut World, usize) -> Checked) -> Checked {
        match &self.group {
            Some((of, ..)) if *of != id => return Ok(()),
            Some(_) => {}
            None => self.group = Some((id, self.database.clone(), Vec::new())),
        }
        if self.members[id].stay.is_none() {
            self.take_over(id);
            return Ok(());
        }
        work(self, id)
    }

    fn then(&mut self, then: Then) {
        if let Some((_, _, pending)) = &mut self.group {
            pending.push(then);
        }
    }

    fn close_group(&mut self, id: usize, trouble: bool) -> Checked {
        if self.group.as_ref().is_none_or(|(of, ..)| *of != id) {
            return Ok(());
        }
        if trouble && self.dice.percent(10) {
            self.roll_back(id);
            return Ok(());
        }
        if let Some((_, _, pending)) = self.group.take() {
            for then in pending {
                self.members[id].durable(self.now, then);
            }
        }
        checker::effects(&self.database, &self.log, &self.dead)?;
        self.check_memory(id)
    }

    /// An owner that nobody has overtaken must know of every key that waits.
    fn check_memory(&self, id: usize) -> Checked {
        let current = |stay: &&Stay| stay.epoch == self.database.epoch;
        let Some(stay) = self.members[id].stay.as_ref().filter(current) else {
            return Ok(());
        };
        for (slot, offset) in self.database.parked.keys() {
            if stay.parked.seen(slot).is_none() {
                return Err(format!("{slot:?} is forgotten although {offset} waits"));
            }
        }
        Ok(())
    }

    fn take_over(&mut self, id: usize) {
        if std::mem::replace(&mut self.members[id].taking_over, true) {
            return;
        }
        self.database.epoch += 1;
        let mut parked = Parked::new(self.terms.limits);
        let mut lines: BTreeMap<Slot, Stored> = BTreeMap::new();
        for ((slot, _), row) in &self.database.parked {
            let first = Stored {
                records: 0,
                at: row.due,
                since: self.now,
            };
            lines.entry(*slot).or_insert(first).records += 1;
        }
        if !self.faults.nothing_loaded_by_a_new_owner {
            for (slot, stored) in lines {
                parked.restore(slot, stored);
            }
        }
        let stay = Stay {
            epoch: self.database.epoch,
            parked_before: self.database.parked_to,
            parked,
        };
        self.then(Then::TakenOver(Box::new(stay)));
    }

    /// Whether it may go on; otherwise it has to take over anew.
    fn is_owner(&mut self, id: usize) -> bool {
        let epoch = self.database.epoch;
        let own = self.members[id]
            .stay
            .as_ref()
            .is_some_and(|stay| stay.epoch == epoch);
        if own || self.faults.epoch_is_not_looked_at {
            return true;
        }
        self.seen.count("fenced");
        // Who was overtaken and has not heard why takes over again, after a while.
        if self.dice.percent(20) {
            self.roll_back(id);
            self.members[id].stay = None;
            self.members[id].to_bury.clear();
            self.members[id].buried.clear();
        }
        false
    }

    /// Handles the next record of some lane.
    fn handle(&mut self, id: usize) -> Checked {
        let queue = &self.members[id].queue;
        if queue.is_empty() || !self.is_owner(id) {
            return Ok(());
        }
        let queue = &self.members[id].queue;
        let wanted = self.dice.in_range(0, queue.len() as u64 - 1) as usize;
        let slot = self.log[queue[wanted] as usize];
        let first = queue
            .iter()
            .position(|offset| self.log[*offset as usize] == slot);
        let (Some(at), Some(stay)) = (first, &self.members[id].stay) else {
            return Ok(());
        };
        let offset = queue[at];
        let known = stay.parked_before >= offset && self.database.has_taken(offset);
        let key = matches!(slot, Slot::Key(_)).then_some(&slot);
        let place = stay.parked.place(key);
        if let Place::Full(_) = place {
            self.seen.count("full");
            return Ok(());
        }
        self.members[id].queue.remove(at);
        if known || self.database.inbox.contains(&offset) {
            self.seen.count("redelivered");
        } else if place == Place::Behind && !self.faults.handled_past_a_parked_one {
            self.seen.count("parked behind");
            let row = Row {
                attempts: Attempts::default(),
                due: self.now,
                given_up: false,
            };
            self.park(id, slot, offset, row);
        } else {
            self.call(id, slot, offset);
        }
        if self.faults.settled_before_durable {
            self.members[id].unsettled.remove(&offset);
        }
        self.then(Then::Settled(offset));
        Ok(())
    }

    fn call(&mut self, id: usize, slot: Slot, offset: i64) {
        let attempts = Attempts::in_place(1, self.now);
        let Some(class) = self.outcome(offset, 1) else {
            self.seen.count("handled");
            self.database.effects.push(offset);
            self.database.inbox.insert(offset);
            return;
        };
        match self.terms.judge(class, attempts, None, self.now, 0.5) {
            Verdict::Again(due) => {
                self.seen.count("parked");
                let row = Row {
                    attempts,
                    due,
                    given_up: false,
                };
                self.park(id, slot, offset, row);
            }
            Verdict::Done => {
                self.database.skipped.insert(offset);
                self.database.inbox.insert(offset);
            }
            // The container dead-letters it, in its lane, before anything else of it.
            Verdict::GiveUp | Verdict::Keep | Verdict::Stop => {
                self.database.gone.insert(offset);
                *self.dead.entry(offset).or_default() += 1;
            }
        }
    }

    fn park(&mut self, id: usize, slot: Slot, offset: i64, row: Row) {
        if self.faults.failed_and_not_parked {
            self.database.inbox.insert(offset);
            return;
        }
        if !self.faults.parked_without_a_mark {
            self.database.inbox.insert(offset);
        }
        self.database.parked.insert((slot, offset), row);
        self.database.parked_to = self.database.parked_to.max(offset);
        if self.faults.key_known_only_when_durable && self.dice.percent(50) {
            return;
        }
        if let Some(stay) = &mut self.members[id].stay {
            stay.parked.park(self.now, slot, row.due);
        }
    }

    fn outcome(&mut self, offset: i64, attempt: u32) -> Option<Class> {
        match self.plans[offset as usize] {
            Plan::Fine => None,
            Plan::Times(failures) => (attempt <= failures).then_some(Class::Transient),
            Plan::Flaky => self.dice.percent(70).then_some(Class::Transient),
            Plan::Always(class) => Some(class),
        }
    }

    /// Retries a key that is due, or removes what was put away.
    fn retry(&mut self, id: usize) -> Checked {
        if !self.is_owner(id) {
            return Ok(());
        }
        if let Some((slot, offset)) = self.members[id].buried.pop() {
            if self.database.parked.remove(&(slot, offset)).is_some() {
                self.forget_given_up(offset);
                self.then(Then::Left(slot, 1));
            }
            return Ok(());
        }
        let early = Duration::from_millis(if self.faults.retried_early { 30 } else { 0 });
        let Some(stay) = &mut self.members[id].stay else {
            return Ok(());
        };
        let Some(due) = stay.parked.take_due(self.now + early, 1).pop() else {
            return Ok(());
        };
        let (slot, seen) = (due.key, stay.parked.seen(&due.key));
        match self.database.first(slot) {
            None => self.then(Then::Emptied(slot, seen)),
            Some((offset, row)) if row.given_up => {
                self.then(Then::GivenUp(slot, offset, row.attempts.all));
            }
            // Parked again after its first group was lost: memory remembers the earlier date.
            Some((_, row)) if row.due > self.now && !self.faults.retried_early => {
                self.then(Then::Again(slot, row.due));
            }
            Some((offset, row)) => return self.attempt(id, slot, offset, row),
        }
        Ok(())
    }

    fn forget_given_up(&mut self, offset: i64) {
        self.database.inbox.remove(&offset);
        if !self.faults.given_up_without_a_mark {
            self.database.gone.insert(offset);
        }
    }

    fn attempt(&mut self, id: usize, slot: Slot, offset: i64, mut row: Row) -> Checked {
        self.seen.count("retried");
        if row.due > self.now {
            return Err(format!("record {offset} is tried before it is due"));
        }
        let Some(class) = self.outcome(offset, row.attempts.all + 1) else {
            self.database.effects.push(offset);
            self.leave(id, slot, offset);
            return Ok(());
        };
        if !self.faults.attempts_not_counted {
            row.attempts = row.attempts.failed(self.now);
        }
        match self.terms.judge(class, row.attempts, None, self.now, 0.5) {
            Verdict::Again(due) => {
                row.due = due;
                self.database.parked.insert((slot, offset), row);
                self.then(Then::Again(slot, due));
            }
            Verdict::Done => {
                self.database.skipped.insert(offset);
                self.leave(id, slot, offset);
            }
            Verdict::GiveUp | Verdict::Keep | Verdict::Stop => {
                row.given_up = true;
                let attempts = row.attempts.all;
                if self.faults.given_up_in_memory_only {
                    self.members[id].to_bury.push((slot, offset, attempts));
                    return Ok(());
                }
                self.database.parked.insert((slot, offset), row);
                if self.faults.row_removed_before_the_dead_letter {
                    self.database.parked.remove(&(slot, offset));
                    self.forget_given_up(offset);
                }
                self.then(Then::GivenUp(slot, offset, attempts));
            }
        }
        Ok(())
    }

    /// A record leaves the durable place.
    fn leave(&mut self, id: usize, slot: Slot, offset: i64) {
        if !self.faults.row_left_by_a_retry {
            self.database.parked.remove(&(slot, offset));
        }
        if self.faults.key_freed_before_durable
            && let Some(stay) = &mut self.members[id].stay
        {
            return stay.parked.settled(self.now, &slot, 1);
        }
        self.then(Then::Left(slot, 1));
    }

    /// Writes a dead letter.
    fn bury(&mut self, id: usize, trouble: bool) {
        let Some((slot, offset, attempts)) = self.members[id].to_bury.pop() else {
            return;
        };
        let Some(stay) = &mut self.members[id].stay else {
            return;
        };
        if trouble && self.dice.percent(30) {
            self.seen.count("dead letters failed");
            let at = self.terms.recover_at(1, self.now, 0.5);
            return stay.parked.not_put_away(&slot, at);
        }
        self.seen.count("dead letters");
        *self.dead.entry(offset).or_default() += attempts.min(1);
        self.members[id].buried.push((slot, offset));
    }
}
