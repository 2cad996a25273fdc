//! Where a unit of work and its transaction meet.
//!
//! The handler holds a [`Tx`](crate::Tx), the unit of work decides when it ends. Both see
//! this seat: its turn is there once the first statement joined a group, and its stage
//! says what the handler's end may still become.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ackwell::Record;
use tokio::sync::Notify;

use crate::database::Database;
use crate::error::{Error, Result};
use crate::group::{Outcome, Turn};
use crate::inbox;
use crate::mutation::{self, Fault};
use crate::ordered::{Claim, Stay};

/// The transaction of one unit of work.
pub(crate) struct Seat {
    database: Database,
    mark: Mark,
    /// The right to work on the record's partition, where somebody else may take it over.
    stay: Option<Stay>,
    /// The group of the record before, in the same lane.
    before: Option<Outcome>,
    state: Mutex<State>,
    duplicate: Notify,
}

struct State {
    turn: Option<Turn>,
    stage: Stage,
    emitted: bool,
    given: bool,
    /// The records of a batch that its handler is given.
    records: Vec<Record>,
    /// Offsets of those among them that turned out to be duplicates.
    known: Vec<i64>,
}

/// What a transaction does first, so that its work is done once.
pub(crate) enum Mark {
    /// Nothing: it is one's own.
    Own,
    /// It marks a polled record as handled.
    Record(inbox::Entry),
    /// It marks the records of a batch that reach the handler, in this consumer group.
    Batch(Arc<str>),
    /// It takes a parked record out.
    Parked(Claim),
}

/// How far a unit's transaction has come.
#[derive(Debug, Clone)]
pub(crate) enum Stage {
    /// No statement yet; there may be a turn already, handed down from the record before.
    Untouched,
    /// Its first statement is at work, and its mark with it. If that is dropped, the next one begins anew.
    Begun,
    /// In a group, under a savepoint of its own.
    Joined,
    /// Its record was handled before: nothing of it may happen.
    Duplicate,
    /// A statement failed: all that is left is to take everything back.
    Failed(Error),
    /// The unit has ended.
    Over,
}

impl Seat {
    /// A seat for a record; `turn` is handed down from the record before it.
    pub(crate) fn new(
        database: Database,
        mark: Mark,
        stay: Option<Stay>,
        turn: Option<Turn>,
        before: Option<Outcome>,
    ) -> Self {
        let state = State {
            turn,
            stage: Stage::Untouched,
            emitted: false,
            given: false,
            records: Vec::new(),
            known: Vec::new(),
        };
        Self {
            database,
            mark,
            stay,
            before,
            state: Mutex::new(state),
            duplicate: Notify::new(),
        }
    }

    pub(crate) fn database(&self) -> &Database {
        &self.database
    }

    /// The handler is given these records; where it is a batch, they are what is marked.
    pub(crate) fn is_for(&self, records: &[Record]) {
        if matches!(self.mark, Mark::Batch(_)) {
            self.state().records = records.to_vec();
        }
    }

    /// Marks the records of a batch; answers whether all are new.
    async fn mark_batch(&self, group: &Arc<str>, turn: &mut Turn) -> Result<bool> {
        let records = std::mem::take(&mut self.state().records);
        let known = inbox::mark_all(group, &records, turn).await?;
        let all_new = known.is_empty();
        self.state().known = known;
        Ok(all_new)
    }

    /// Whether this is the first to ask for the seat's transaction.
    pub(crate) fn take(&self) -> bool {
        !std::mem::replace(&mut self.state().given, true)
    }

    /// Joins a group, unless that is done. Never returns when the record is a duplicate:
    /// the unit of work then drops the handler, which so cannot mistake it for success. Before a statement
    /// that may be left to the statement's [end](AtWork::ended).
    pub(crate) async fn join(&self, next: Next) -> Result<()> {
        let joined = match self.approach()? {
            Approach::Joined => return Ok(()),
            Approach::Duplicate => Ok(false),
            Approach::With(turn) => self.sit_down(turn, next).await,
            Approach::Queue => {
                let gate = self.database.gate();
                match gate.join_after(self.before.as_ref()).await {
                    Ok(turn) => self.sit_down(turn, next).await,
                    Err(error) => Err(error),
                }
            }
        };
        match joined {
            Ok(true) => Ok(()),
            Ok(false) => std::future::pending().await,
            Err(error) => Err(self.fail(error)),
        }
    }

    fn approach(&self) -> Result<Approach> {
        let mut state = self.state();
        match &state.stage {
            Stage::Untouched => Ok(state.turn.take().map_or(Approach::Queue, Approach::With)),
            Stage::Begun => Ok(Approach::Queue),
            Stage::Joined => Ok(Approach::Joined),
            Stage::Duplicate => Ok(Approach::Duplicate),
            Stage::Failed(error) => Err(doomed(error)),
            Stage::Over => Err(over()),
        }
    }

    /// Answers whether the record is new, as far as is known before the `next` step.
    async fn sit_down(&self, mut turn: Turn, next: Next) -> Result<bool> {
        // Where the record before was not kept, this one must not be either.
        if let Some(before) = &self.before {
            before.check()?;
        }
        let early = self.mark_outside(&mut turn).await?;
        turn.start()?;
        if let Some(stay) = &self.stay {
            stay.check(&mut turn).await?;
        }
        let new = match &self.mark {
            _ if early.is_some() => early.unwrap_or_default(),
            Mark::Own => true,
            Mark::Record(entry) => match next {
                Next::Statement if entry.insert_ahead(&mut turn)? => true,
                _ => entry.insert(&mut turn).await?,
            },
            Mark::Batch(group) => self.mark_batch(group, &mut turn).await?,
            Mark::Parked(claim) => claim.remove(&mut turn).await?,
        };
        let mut state = self.state();
        if matches!(state.stage, Stage::Over) {
            return Err(over());
        }
        state.turn = Some(turn);
        state.stage = if new { Stage::Joined } else { Stage::Duplicate };
        drop(state);
        if !new {
            self.duplicate.notify_one();
        }
        Ok(new)
    }

    /// With a fault: the mark is set where the way back does not reach it.
    async fn mark_outside(&self, turn: &mut Turn) -> Result<Option<bool>> {
        match &self.mark {
            Mark::Record(entry) if mutation::is(Fault::MarkOutsideTransaction) => {
                entry.insert(turn).await.map(Some)
            }
            Mark::Parked(claim) if mutation::is(Fault::ParkedOutsideTransaction) => {
                claim.remove(turn).await.map(Some)
            }
            _ => Ok(None),
        }
    }

    /// Takes the transaction for one statement. Unless that comes to its [end](AtWork::ended), nothing but the
    /// way back is left.
    pub(crate) fn work(&self) -> Result<AtWork<'_>> {
        let mut state = self.state();
        match &state.stage {
            Stage::Joined => {}
            Stage::Failed(error) => return Err(doomed(error)),
            _ => return Err(over()),
        }
        let turn = state.turn.take().ok_or_else(over)?;
        state.stage = match turn.is_marking() {
            true => Stage::Begun,
            false => Stage::Failed(abandoned()),
        };
        Ok(AtWork { seat: self, turn })
    }

    /// Takes the turn back from a statement.
    fn worked(&self, turn: Turn, stage: Stage) -> Result<()> {
        let mut state = self.state();
        if matches!(state.stage, Stage::Over) {
            return Err(over());
        }
        state.turn = Some(turn);
        state.stage = stage;
        Ok(())
    }

    pub(crate) fn fail(&self, error: Error) -> Error {
        let mut state = self.state();
        if matches!(state.stage, Stage::Untouched | Stage::Begun | Stage::Joined) {
            state.stage = Stage::Failed(error.clone());
            let turn = match self.mark {
                // A listener's turn goes on to its next record; others need not wait for the
                // end of a transaction that can only be rolled back.
                Mark::Record(_) | Mark::Batch(_) | Mark::Parked(_) => None,
                Mark::Own => state.turn.take(),
            };
            drop(state);
            drop(turn);
        }
        error
    }

    pub(crate) fn note_emitted(&self) {
        self.state().emitted = true;
    }

    /// Waits until the record turns out to be a duplicate.
    pub(crate) async fn duplicate(&self) {
        self.duplicate.notified().await;
    }

    /// Takes a turn back that the unit handed down and nobody used.
    pub(crate) fn take_unused_turn(&self) -> Option<Turn> {
        let mut state = self.state();
        match state.stage {
            Stage::Untouched => state.turn.take(),
            _ => None,
        }
    }

    /// Ends the unit: no statement after this. Answers how far it had come.
    pub(crate) fn close(&self) -> Closed {
        let mut state = self.state();
        let stage = match std::mem::replace(&mut state.stage, Stage::Over) {
            Stage::Begun => Stage::Failed(abandoned()),
            stage => stage,
        };
        Closed {
            stage,
            turn: state.turn.take(),
            emitted: state.emitted,
            known: std::mem::take(&mut state.known),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a transaction is joined for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Next {
    /// A statement, which is sent at once.
    Statement,
    /// An event, which may stay here until the commit.
    Event,
}

/// A transaction with a statement at work.
pub(crate) struct AtWork<'a> {
    seat: &'a Seat,
    pub(crate) turn: Turn,
}

impl AtWork<'_> {
    /// The statement has ended; a failure leaves only the way back. Like [`join`](Seat::join), this
    /// never returns when it came to light that the record is a duplicate.
    pub(crate) async fn ended<T>(self, result: Result<T>) -> Result<T> {
        if self.turn.is_duplicate() {
            self.seat.worked(self.turn, Stage::Duplicate)?;
            self.seat.duplicate.notify_one();
            return std::future::pending().await;
        }
        self.seat.worked(self.turn, Stage::Joined)?;
        result.map_err(|error| self.seat.fail(error))
    }
}

/// What a statement finds on its way to the seat.
enum Approach {
    Joined,
    Duplicate,
    With(Turn),
    Queue,
}

/// What a unit leaves behind.
pub(crate) struct Closed {
    pub(crate) stage: Stage,
    pub(crate) turn: Option<Turn>,
    pub(crate) emitted: bool,
    pub(crate) known: Vec<i64>,
}

fn over() -> Error {
    Error::usage("using a transaction after its end")
}

fn abandoned() -> Error {
    Error::usage("a statement was dropped before it was answered, and its transaction with it")
}

/// A swallowed error must not look like success.
fn doomed(error: &Error) -> Error {
    Error::new(
        error.kind(),
        "the transaction failed before and can only be rolled back",
    )
    .because(error.clone())
}
