//! How a run of records shares transactions: the unit of work of listeners that ask for a
//! [`Tx`](crate::Tx).
//!
//! The records of a run are handled one after another in one turn at the database, each under
//! its own savepoint, so that they commit together and one that fails is taken back alone.
//! A record is settled when its group is durable, never before. A handler that waits for
//! something else before its first statement does not keep the turn meanwhile.
//!
//! With [ordered retry](mod@crate::ordered), a record that fails is parked in the same transaction,
//! and the run goes on.

mod batch;
mod ordered;
mod record;
mod room;
mod unsettled;

use std::sync::Arc;

use ackwell::container::SnapshotStore;
use ackwell::service::Service;
use ackwell::unit::{Run, UnitOfWork};
use ackwell::{Class, Classify, Failure};
use futures_util::future::BoxFuture;

use crate::database::Database;
use crate::error::{Error, Kind};
use crate::group::Turn;
use crate::ordered::Stay;
use crate::relay::Caretaker;
use crate::snapshots::Kept;
pub(crate) use room::Room;
use unsettled::Unsettled;

/// Carries out runs in shared transactions of one database.
pub(crate) struct Transactional {
    database: Database,
    room: Room,
}

impl Transactional {
    pub(crate) fn new(database: Database) -> Self {
        let room = Room::new(&database);
        Self { database, room }
    }
}

impl UnitOfWork for Transactional {
    fn carry_out<'a>(&'a self, run: &'a mut Run) -> BoxFuture<'a, ()> {
        Box::pin(async move {
            Lane::new(&self.database, &self.room, run.group(), Mode::Transaction)
                .carry_out(run)
                .await;
        })
    }

    fn snapshot_store(&self) -> Option<Arc<dyn SnapshotStore>> {
        Some(Arc::new(Kept(self.database.clone())))
    }

    fn companion(&self) -> Option<Box<dyn Service>> {
        Some(Box::new(Caretaker::new(self.database.clone())))
    }
}

/// What a lane does besides handling its records.
pub(crate) enum Mode {
    /// Nothing.
    Transaction,
    /// It parks records that fail, and those behind them.
    Ordered {
        stay: Stay,
        /// Whether the handler asks for a transaction.
        transaction: bool,
    },
}

/// Why a run ends before its last record.
pub(crate) enum Halt {
    /// A record failed.
    Failed(Failure),
    /// Nothing failed, and yet it can't go on now.
    Held(String),
    /// A record would have had to wait for others while its group kept them waiting. It was taken back,
    /// and is to be handled again when its group, of so many members, is committed.
    GaveWay(usize),
}

impl From<Error> for Halt {
    fn from(error: Error) -> Self {
        match error.kind() {
            Kind::Fenced | Kind::Occupied => Halt::Held(error.to_string()),
            _ => Halt::Failed(failure(error)),
        }
    }
}

/// A run on its way through the database.
pub(crate) struct Lane<'a> {
    database: &'a Database,
    room: &'a Room,
    group: Arc<str>,
    mode: Mode,
    turn: Option<Turn>,
    unsettled: Unsettled,
}

impl<'a> Lane<'a> {
    pub(crate) fn new(database: &'a Database, room: &'a Room, group: &str, mode: Mode) -> Self {
        Self {
            database,
            room,
            group: group.into(),
            mode,
            turn: None,
            unsettled: Unsettled::default(),
        }
    }

    pub(crate) async fn carry_out(mut self, run: &mut Run) {
        let result = if run.is_batch() {
            self.handle_portions(run).await
        } else {
            self.handle_all(run).await
        };
        // Leaving the turn lets the group commit; what was handled before a failure counts.
        self.turn = None;
        let settled = self.unsettled.settle_all(run).await;
        match settled
            .map_err(|error| Halt::Failed(unavailable(error)))
            .and(result)
        {
            Ok(()) => {}
            Err(Halt::Failed(failure)) => run.failed(failure),
            Err(Halt::Held(reason)) => run.hold(reason),
            // Where that can happen, the run goes on.
            Err(Halt::GaveWay(_)) => run.hold("a record gave way to others"),
        }
    }

    async fn handle_all(&mut self, run: &mut Run) -> Result<(), Halt> {
        while let Some(record) = run.peek() {
            let record = record.clone();
            let end = match &self.mode {
                Mode::Transaction => self.handle(run, record, None).await,
                Mode::Ordered { stay, transaction } => {
                    let (stay, transaction) = (stay.clone(), *transaction);
                    self.in_order(run, record, stay, transaction).await
                }
            };
            match end {
                Err(Halt::GaveWay(members)) => {
                    self.room.gave_way(members);
                    self.commit(run).await?;
                    run.start_again();
                }
                end => end?,
            }
            if let Some(turn) = &self.turn
                && (turn.is_full() || self.room.is_full(turn.members()))
            {
                self.room.filled(turn.members());
                self.commit(run).await?;
            }
            tokio::task::coop::consume_budget().await;
        }
        Ok(())
    }

    /// Leaves the turn, so that its group is committed, and waits until all that was handled is durable.
    async fn commit(&mut self, run: &mut Run) -> Result<(), Halt> {
        self.turn = None;
        let settled = self.unsettled.settle_all(run).await;
        settled.map_err(unavailable_halt)
    }
}

/// Whether no attempt should be used up, whatever the handler made of the error.
pub(crate) fn must_wait(error: &Error) -> bool {
    matches!(error.class(), Class::Unavailable | Class::Stop)
}

pub(crate) fn failure(error: Error) -> Failure {
    Failure::new(error.class(), error.to_string()).with_source(error)
}

fn unavailable_halt(error: Error) -> Halt {
    Halt::Failed(unavailable(error))
}

fn unavailable(error: Error) -> Failure {
    Failure::unavailable(error.to_string()).with_source(error)
}
