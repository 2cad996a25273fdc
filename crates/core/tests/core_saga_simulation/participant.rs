//! A service that carries out a step: it knows a command again, and refuses one that was taken back before.

use std::collections::BTreeMap;

use ackwell_core::saga::{Reply, Which};

use crate::dice::Dice;

/// What a participant knows of a saga.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Held {
    /// Somebody outside is at it; what becomes of it is known later.
    InWork,
    Done,
    Refused,
    Undone,
}

#[derive(Debug, Clone, Default)]
pub(crate) struct Participant {
    pub(crate) held: BTreeMap<usize, Held>,
    /// It can't be refused.
    pub(crate) always: bool,
}

impl Participant {
    /// Carries a command out; answers what it replies, if anything yet.
    pub(crate) fn handle(&mut self, saga: usize, which: Which, dice: &mut Dice) -> Option<Reply> {
        let held = self.held.get(&saga).copied();
        let (now, reply) = match (which, held) {
            (Which::Do, None) if dice.percent(15) => (Held::InWork, None),
            (Which::Do, None) if !self.always && dice.percent(20) => {
                (Held::Refused, Some(Reply::Refused))
            }
            (Which::Do, None | Some(Held::Done)) => (Held::Done, Some(Reply::Done)),
            (Which::Do, Some(Held::InWork)) => (Held::InWork, None),
            // A mark of what was taken back refuses what comes after it.
            (Which::Do, Some(Held::Undone)) => (Held::Undone, Some(Reply::Refused)),
            (Which::Do, Some(Held::Refused)) => (Held::Refused, Some(Reply::Refused)),
            // It can't stop what is in work, says that there is nothing yet, and is asked again later.
            (Which::Undo, Some(Held::InWork)) => (Held::InWork, Some(Reply::Undone)),
            (Which::Undo, _) => (Held::Undone, Some(Reply::Undone)),
        };
        self.held.insert(saga, now);
        reply
    }

    /// What was in work comes to its end.
    pub(crate) fn finish(&mut self, saga: usize) -> Option<Reply> {
        if self.held.get(&saga) != Some(&Held::InWork) {
            return None;
        }
        self.held.insert(saga, Held::Done);
        Some(Reply::Done)
    }
}
