//! One process: what it knows, and what waits for its group to commit.

use std::collections::{BTreeSet, VecDeque};

use ackwell_core::Timestamp;
use ackwell_core::ordered::{Parked, Seen};

use crate::database::Slot;

#[derive(Debug, Clone)]
pub(crate) struct Member {
    pub(crate) alive: bool,
    /// Believes that the partition is its own.
    pub(crate) assigned: bool,
    pub(crate) stay: Option<Stay>,
    pub(crate) taking_over: bool,
    /// Where it reads on.
    pub(crate) position: i64,
    pub(crate) queue: VecDeque<i64>,
    pub(crate) unsettled: BTreeSet<i64>,
    /// Given up durably: the dead letter is to be written.
    pub(crate) to_bury: Vec<(Slot, i64, u32)>,
    /// Its dead letter is acknowledged: the row is to go.
    pub(crate) buried: Vec<(Slot, i64)>,
}

/// What it knows as an owner.
#[derive(Debug, Clone)]
pub(crate) struct Stay {
    pub(crate) epoch: u64,
    pub(crate) parked_before: i64,
    pub(crate) parked: Parked<Slot>,
}

/// What follows when the group is durable.
#[derive(Debug, Clone)]
pub(crate) enum Then {
    TakenOver(Box<Stay>),
    Settled(i64),
    Left(Slot, usize),
    Emptied(Slot, Option<Seen>),
    Again(Slot, Timestamp),
    GivenUp(Slot, i64, u32),
}

impl Member {
    pub(crate) fn new() -> Self {
        Member {
            alive: true,
            assigned: false,
            stay: None,
            taking_over: false,
            position: 0,
            queue: VecDeque::new(),
            unsettled: BTreeSet::new(),
            to_bury: Vec::new(),
            buried: Vec::new(),
        }
    }

    pub(crate) fn assign(&mut self, position: i64) {
        *self = Member {
            assigned: true,
            position,
            ..Member::new()
        };
    }

    /// It hears that the partition is somebody else's.
    pub(crate) fn revoke(&mut self) {
        *self = Member::new();
    }

    /// What it may commit.
    pub(crate) fn settled_to(&self) -> i64 {
        self.unsettled.first().copied().unwrap_or(self.position)
    }

    /// Takes in what its group has made durable.
    pub(crate) fn durable(&mut self, now: Timestamp, then: Then) {
        if let Then::TakenOver(stay) = then {
            self.taking_over = false;
            self.stay = Some(*stay);
            return;
        }
        if let Then::Settled(offset) = then {
            self.unsettled.remove(&offset);
            return;
        }
        let Some(stay) = &mut self.stay else { return };
        match then {
            Then::Left(slot, count) => stay.parked.settled(now, &slot, count),
            Then::Emptied(slot, seen) => {
                stay.parked.settled(now, &slot, 0);
                if let Some(seen) = seen {
                    stay.parked.vanished(now, &slot, seen);
                }
            }
            Then::Again(slot, at) => stay.parked.again(&slot, at),
            Then::GivenUp(slot, offset, attempts) => self.to_bury.push((slot, offset, attempts)),
            Then::TakenOver(_) | Then::Settled(_) => {}
        }
    }

    /// Its group did not commit: all is as before.
    pub(crate) fn rolled_back(&mut self, then: Then) {
        match then {
            Then::TakenOver(_) => self.taking_over = false,
            Then::Settled(offset) => {
                let at = self.queue.partition_point(|queued| *queued < offset);
                self.queue.insert(at, offset);
            }
            Then::Left(slot, _)
            | Then::Emptied(slot, _)
            | Then::Again(slot, _)
            | Then::GivenUp(slot, ..) => {
                if let Some(stay) = &mut self.stay {
                    stay.parked.untouched(&slot);
                }
            }
        }
    }
}
