//! How a run of records shares transactions: the unit of work of listeners that ask for a
//! [`Tx`](crate::Tx).
//!
//! The records of a run are handled one after another in one turn at the database, each under
//! its own savepoint, so that they commit together and one that fails is taken back alone.
//! A record is settled when its group is durable, never before. A handler that waits for
//! something else before its first statement does not keep the turn meanwhile.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;
use std::time::Instant;

use ackwell::unit::{Handling, Run, UnitOfWork};
use ackwell::{Class, Classify, Extensions, Failure};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use crate::database::Database;
use crate::error::{Error, Result};
use crate::group::{Outcome, Turn};
use crate::inbox::Entry;
use crate::seat::{Closed, Seat, Stage};

/// Carries out runs in shared transactions of one database.
pub(crate) struct Transactional(pub(crate) Database);

impl UnitOfWork for Transactional {
    fn carry_out<'a>(&'a self, run: &'a mut Run) -> BoxFuture<'a, ()> {
        Box::pin(async move {
            let mut lane = Lane::new(&self.0, run.group());
            let result = lane.handle_all(run).await;
            // Leaving the turn lets the group commit; what was handled before a failure counts.
            lane.turn = None;
            let settled = lane.settle_all(run).await;
            if let Err(failure) = settled.map_err(unavailable).and(result) {
                run.failed(failure);
            }
        })
    }
}

/// A run on its way through the database.
struct Lane<'a> {
    database: &'a Database,
    group: Arc<str>,
    turn: Option<Turn>,
    /// Handled records by the group that they wait for, oldest first.
    unsettled: VecDeque<Batch>,
}

/// Handled records that become durable together.
struct Batch {
    outcome: Outcome,
    handled: usize,
    duplicates: usize,
}

impl<'a> Lane<'a> {
    fn new(database: &'a Database, group: &str) -> Self {
        Self {
            database,
            group: group.into(),
            turn: None,
            unsettled: VecDeque::new(),
        }
    }

    async fn handle_all(&mut self, run: &mut Run) -> Result<(), Failure> {
        while let Some(record) = run.peek() {
            let entry = Entry::new(&self.group, record.clone());
            let before = self.unsettled.back().map(|batch| batch.outcome.clone());
            let seat = Seat::new(self.database.clone(), Some(entry), self.turn.take(), before);
            let seat = Arc::new(seat);
            let mut extensions = Extensions::new();
            extensions.insert(Arc::clone(&seat));
            let Some(handling) = run.start(extensions) else {
                return Ok(());
            };
            let end = self.drive(run, &seat, handling).await?;
            self.conclude(run, end, seat.close())?;
            if self.turn.as_ref().is_some_and(Turn::is_full) {
                self.turn = None;
                self.settle_all(run).await.map_err(unavailable)?;
            }
            tokio::task::coop::consume_budget().await;
        }
        Ok(())
    }

    /// Runs a handler to its end; `None` when its record turned out to be a duplicate.
    async fn drive(
        &mut self,
        run: &mut Run,
        seat: &Seat,
        mut handling: Handling,
    ) -> Result<Option<Result<(), Failure>>, Failure> {
        let first = poll_fn(|cx| Poll::Ready(handling.poll_unpin(cx))).await;
        if let Poll::Ready(end) = first {
            return Ok(Some(end));
        }
        // It waits. Unless it is at work in the database, others may go on, and what was
        // handled before it commits.
        drop(seat.take_unused_turn());
        run.report();
        let since = Instant::now();
        loop {
            let oldest = self.unsettled.front().map(|batch| batch.outcome.clone());
            tokio::select! {
                biased;
                end = &mut handling => {
                    run.waited(since.elapsed());
                    return Ok(Some(end));
                }
                () = seat.duplicate() => return Ok(None),
                durable = durable(oldest) => {
                    self.settle_oldest(run, durable).map_err(unavailable)?;
                    run.report();
                }
            }
        }
    }

    /// Keeps or takes back what the handler did, by how it ended.
    fn conclude(
        &mut self,
        run: &mut Run,
        end: Option<Result<(), Failure>>,
        closed: Closed,
    ) -> Result<(), Failure> {
        let Closed {
            stage,
            mut turn,
            emitted,
        } = closed;
        let result = match (stage, end.unwrap_or(Ok(()))) {
            (Stage::Duplicate, _) => {
                self.database.stats().duplicate();
                tracing::debug!(group = &*self.group, "record was handled before; skipped");
                if let Some(turn) = &mut turn {
                    turn.undo();
                    self.batch(turn).duplicates += 1;
                }
                Ok(())
            }
            // The database's own verdict wins: a handler may not know that it is away.
            (Stage::Failed(error), end) if end.is_ok() || must_wait(&error) => Err(failure(error)),
            (_, Err(failure)) => Err(failure),
            (Stage::Joined, Ok(())) => match &mut turn {
                Some(turn) => turn
                    .keep(emitted)
                    .map(|()| self.batch(turn).handled += 1)
                    .map_err(failure),
                None => Ok(()),
            },
            // Nothing done in the database; settled after the records before it.
            (_, Ok(())) => {
                match self.unsettled.back_mut() {
                    Some(batch) => batch.handled += 1,
                    None => run.settled(1),
                }
                Ok(())
            }
        };
        if let Some(turn) = &mut turn {
            turn.undo();
        }
        self.turn = turn;
        result
    }

    /// The records that wait for the group of `turn`.
    fn batch(&mut self, turn: &Turn) -> &mut Batch {
        let outcome = turn.outcome();
        let known = self
            .unsettled
            .back()
            .is_some_and(|batch| batch.outcome.is_same(&outcome));
        if !known {
            self.unsettled.push_back(Batch {
                outcome,
                handled: 0,
                duplicates: 0,
            });
        }
        let last = self.unsettled.len() - 1;
        &mut self.unsettled[last]
    }

    async fn settle_all(&mut self, run: &mut Run) -> Result<()> {
        while let Some(batch) = self.unsettled.front() {
            let durable = batch.outcome.clone().durable();
            let durable = match durable.now_or_never() {
                Some(durable) => durable,
                None => {
                    run.report();
                    batch.outcome.clone().durable().await
                }
            };
            self.settle_oldest(run, durable)?;
        }
        Ok(())
    }

    fn settle_oldest(&mut self, run: &mut Run, durable: Result<()>) -> Result<()> {
        let Some(batch) = self.unsettled.pop_front() else {
            return Ok(());
        };
        if let Err(error) = durable {
            // Nothing behind it may be reported either.
            self.unsettled.clear();
            return Err(error);
        }
        run.settled(batch.handled);
        run.duplicates(batch.duplicates);
        Ok(())
    }
}

async fn durable(outcome: Option<Outcome>) -> Result<()> {
    match outcome {
        Some(outcome) => outcome.durable().await,
        None => std::future::pending().await,
    }
}

/// Whether no attempt should be used up, whatever the handler made of the error.
fn must_wait(error: &Error) -> bool {
    matches!(error.class(), Class::Unavailable | Class::Stop)
}

fn failure(error: Error) -> Failure {
    Failure::new(error.class(), error.to_string()).with_source(error)
}

fn unavailable(error: Error) -> Failure {
    Failure::unavailable(error.to_string()).with_source(error)
}
