//! What is asked for from outside while the container runs: pauses, seeks, and what becomes of a
//! partition that can't be read.
//!
//! Only what is asked for is remembered, so a container of which nothing is asked pays nothing.

use std::collections::{BTreeMap, BTreeSet};

use super::Record;
use super::effect::Effect;
use super::event::PartitionId;
use super::machine::{Engine, Life};
use super::partition::{Partition, Phase};
use crate::Timestamp;
use crate::mutation::{self, Fault};
use crate::offset::CommitOffset;

/// What stands against dispatching a partition, apart from its own state.
#[derive(Debug, Default)]
pub(super) struct Control {
    /// Paused by request: stays so when the partition goes and comes back.
    paused: BTreeSet<PartitionId>,
    /// Held until the assignment has been announced; forgotten with the partition.
    held: BTreeSet<PartitionId>,
    seeks: BTreeMap<PartitionId, Seek>,
    unreadable: BTreeMap<PartitionId, Unreadable>,
}

/// A seek that waits for the records in work.
#[derive(Debug)]
struct Seek {
    to: CommitOffset,
    /// Then they are cancelled.
    until: Timestamp,
}

/// A partition whose next records can't be read.
#[derive(Debug)]
struct Unreadable {
    reason: String,
    /// Where reading is tried again.
    from: Option<CommitOffset>,
    tries: u32,
    /// When reading is tried again; `None` while it is tried, or if it never is.
    until: Option<Timestamp>,
    /// Whether anything may be taken from it.
    trying: bool,
}

impl Control {
    /// Whether nothing of the partition may be handled.
    pub(super) fn forbids_work(&self, id: PartitionId) -> bool {
        self.paused.contains(&id)
            || (self.held.contains(&id) && !mutation::is(Fault::HoldKeepsDispatching))
            || self.seeks.contains_key(&id)
    }

    /// Whether nothing of the partition may be delivered. What came before a record that can't be
    /// read is handled all the same.
    pub(super) fn forbids_delivery(&self, id: PartitionId) -> bool {
        self.forbids_work(id) || self.unreadable.get(&id).is_some_and(|found| !found.trying)
    }

    /// What is wrong with the first partition that can't be read.
    pub(super) fn problem(&self) -> Option<&String> {
        let told = self.unreadable.values().next().map(|found| &found.reason);
        told.filter(|_| !mutation::is(Fault::UnreadableNotTold))
    }

    /// The partition is owned no longer; only a pause outlasts that.
    pub(super) fn forget(&mut self, id: PartitionId) {
        if mutation::is(Fault::PartitionPauseForgotten) {
            self.paused.remove(&id);
        }
        if !mutation::is(Fault::HoldOutlivesPartition) {
            self.held.remove(&id);
        }
        self.seeks.remove(&id);
        self.unreadable.remove(&id);
    }

    /// Records have come: it can be read.
    pub(super) fn read(&mut self, id: PartitionId) {
        if !self.unreadable.is_empty() {
            self.unreadable.remove(&id);
        }
    }

    fn is_idle(&self) -> bool {
        self.seeks.is_empty() && self.unreadable.is_empty()
    }
}

impl<R: Record> Engine<R> {
    /// Whether a seek of this partition waits for the records in work.
    pub fn is_seeking(&self, partition: PartitionId) -> bool {
        self.control.seeks.contains_key(&partition)
    }

    /// Whether the partition is owned and not on its way out.
    pub fn is_active(&self, partition: PartitionId) -> bool {
        let found = self.partitions.get(&partition);
        found.is_some_and(|found| found.phase == Phase::Active) && self.life == Life::Running
    }

    /// Whether the partition is paused by request.
    pub fn is_paused(&self, partition: PartitionId) -> bool {
        self.paused || self.control.paused.contains(&partition)
    }

    /// Whether everything is paused by request.
    pub fn is_paused_whole(&self) -> bool {
        self.paused
    }

    pub(super) fn pause_partitions(&mut self, ids: Vec<PartitionId>) {
        for id in ids {
            if self.control.paused.insert(id) {
                self.halt_runs(Some(id));
                self.update_pauses(Some(id));
            }
        }
    }

    pub(super) fn resume_partitions(&mut self, ids: Vec<PartitionId>) {
        for id in ids {
            if self.control.paused.remove(&id) {
                self.go_on(id);
            }
        }
    }

    pub(super) fn withhold(&mut self, ids: Vec<PartitionId>) {
        for id in ids {
            if self.partitions.contains_key(&id) && self.control.held.insert(id) {
                self.update_pauses(Some(id));
            }
        }
    }

    pub(super) fn release(&mut self, ids: Vec<PartitionId>) {
        for id in ids {
            if self.control.held.remove(&id) {
                self.go_on(id);
            }
        }
    }

    fn go_on(&mut self, id: PartitionId) {
        self.update_pauses(Some(id));
        self.dispatch_partition(id);
    }

    /// Lets the records in work finish and starts none behind them.
    pub(super) fn halt_runs(&mut self, only: Option<PartitionId>) {
        let flights = self.flights.iter();
        let runs = flights.filter(|(_, flight)| only.is_none_or(|id| flight.partition == id));
        let retries = self.retries.iter();
        let retries = retries.filter(|(_, (of, _))| only.is_none_or(|id| *of == id));
        let retries = retries.map(|(run, _)| *run);
        for run in runs.map(|(run, _)| *run).chain(retries) {
            self.effects.push_back(Effect::Halt { run });
        }
    }

    /// Reads on from `to`, once the records in work are finished or the drain limit has passed.
    pub(super) fn seek(&mut self, now: Timestamp, id: PartitionId, to: CommitOffset) {
        if !self.is_active(id) {
            return;
        }
        let until = now + self.config.revoke_drain;
        self.control.seeks.insert(id, Seek { to, until });
        self.halt_runs(Some(id));
        self.update_pauses(Some(id));
    }

    pub(super) fn unreadable(
        &mut self,
        now: Timestamp,
        id: PartitionId,
        at: Option<CommitOffset>,
        reason: String,
        again: bool,
    ) {
        if !self.is_active(id) {
            return;
        }
        let random = self.random();
        let known = self.control.unreadable.get(&id);
        let tries = known.map_or(1, |found| found.tries.saturating_add(1));
        let next = self.partitions.get(&id).and_then(|p| p.tracker.next());
        let from = next.or(at);
        // Without a place to go back to, the client would go on behind what it could not read.
        let tried = again && from.is_some();
        let tried = tried && !mutation::is(Fault::UnreadableNotTriedAgain);
        let at_once = mutation::is(Fault::UnreadableTriedAtOnce);
        let wait = self.config.recovery.wait(tries, random);
        let until = tried.then(|| if at_once { now } else { now + wait });
        let found = Unreadable {
            reason,
            from,
            tries,
            until,
            trying: mutation::is(Fault::UnreadablePassedOver),
        };
        self.control.unreadable.insert(id, found);
        self.update_pauses(Some(id));
    }

    /// Carries out what was asked for, as far as it is time.
    pub(super) fn carry_out(&mut self, now: Timestamp) {
        if self.control.is_idle() {
            return;
        }
        let seeks = &self.control.seeks;
        let due = seeks.iter().filter(|(id, seek)| {
            let found = self.partitions.get(id);
            let idle = |found: &Partition<R>| found.in_work == 0 && found.unacknowledged == 0;
            found.is_none_or(|found| found.phase != Phase::Active || idle(found))
                || seek.until <= now
        });
        let due: Vec<_> = due.map(|(id, seek)| (*id, seek.to)).collect();
        for (id, to) in due {
            self.control.seeks.remove(&id);
            if self.is_active(id) {
                self.move_to(id, to);
            }
        }
        self.read_again(now);
    }

    fn move_to(&mut self, id: PartitionId, to: CommitOffset) {
        self.control.unreadable.remove(&id);
        self.restart(id, to);
        self.effects.push_back(Effect::Seek { partition: id, to });
        self.update_pauses(Some(id));
    }

    /// Tries once more what could not be read: a replica may have it, or an operator mended it.
    fn read_again(&mut self, now: Timestamp) {
        let unreadable = self.control.unreadable.iter_mut();
        let due = unreadable.filter(|(_, found)| found.until.is_some_and(|until| until <= now));
        let due: Vec<_> = due
            .map(|(id, found)| {
                (found.until, found.trying) = (None, true);
                (*id, found.from)
            })
            .collect();
        for (id, from) in due {
            if let Some(to) = from.filter(|_| self.is_active(id)) {
                self.effects.push_back(Effect::Seek { partition: id, to });
            }
            self.update_pauses(Some(id));
        }
    }

    pub(super) fn control_deadline(&self) -> Option<Timestamp> {
        let seeks = self.control.seeks.values().map(|seek| seek.until);
        let unreadable = self.control.unreadable.values();
        seeks
            .chain(unreadable.filter_map(|found| found.until))
            .min()
    }
}
