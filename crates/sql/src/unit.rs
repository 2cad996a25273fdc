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

use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;
use std::time::Instant;

use ackwell::container::SnapshotStore;
use ackwell::core::ordered::Rank;
use ackwell::service::Service;
use ackwell::unit::{Handling, Run, UnitOfWork};
use ackwell::{Class, Classify, Extensions, Failure, Record};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use crate::database::Database;
use crate::error::{Error, Kind, Result};
use crate::group::{Outcome, Turn};
use crate::inbox::Entry;
use crate::mutation::{self, Fault};
use crate::ordered::{Stay, Waiting, Way, now};
use crate::relay::Caretaker;
use crate::seat::{Closed, Mark, Seat, Stage};
use crate::snapshots::Kept;

/// Carries out runs in shared transactions of one database.
pub(crate) struct Transactional(pub(crate) Database);

impl UnitOfWork for Transactional {
    fn carry_out<'a>(&'a self, run: &'a mut Run) -> BoxFuture<'a, ()> {
        Box::pin(async move {
            Lane::new(&self.0, run.group(), Mode::Transaction)
                .carry_out(run)
                .await;
        })
    }

    fn snapshot_store(&self) -> Option<Arc<dyn SnapshotStore>> {
        Some(Arc::new(Kept(self.0.clone())))
    }

    fn companion(&self) -> Option<Box<dyn Service>> {
        Some(Box::new(Caretaker::new(self.0.clone())))
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
    /// and is to be handled again when its group is committed.
    GaveWay(Error),
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
    group: Arc<str>,
    mode: Mode,
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
    pub(crate) fn new(database: &'a Database, group: &str, mode: Mode) -> Self {
        Self {
            database,
            group: group.into(),
            mode,
            turn: None,
            unsettled: VecDeque::new(),
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
        let settled = self.settle_all(run).await;
        match settled
            .map_err(|error| Halt::Failed(unavailable(error)))
            .and(result)
        {
            Ok(()) => {}
            Err(Halt::Failed(failure)) => run.failed(failure),
            Err(Halt::Held(reason)) => run.hold(reason),
            Err(Halt::GaveWay(error)) => run.failed(unavailable(error)),
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
                Err(Halt::GaveWay(error)) => self.start_again(run, error).await?,
                end => end?,
            }
            if self.turn.as_ref().is_some_and(Turn::is_full) {
                self.turn = None;
                self.settle_all(run).await.map_err(unavailable_halt)?;
            }
            tokio::task::coop::consume_budget().await;
        }
        Ok(())
    }

    /// Commits what was handled, and goes on with the record that was taken back.
    async fn start_again(&mut self, run: &mut Run, error: Error) -> Result<(), Halt> {
        self.turn = None;
        self.settle_all(run).await.map_err(unavailable_halt)?;
        match run.start_again() {
            true => Ok(()),
            false => Err(Halt::GaveWay(error)),
        }
    }

    /// Has the next record handled in a transaction.
    async fn handle(
        &mut self,
        run: &mut Run,
        record: Record,
        stay: Option<Stay>,
    ) -> Result<(), Halt> {
        let mark = Mark::Record(Entry::new(&self.group, record));
        let before = self.unsettled.back().map(|batch| batch.outcome.clone());
        let seat = Seat::new(self.database.clone(), mark, stay, self.turn.take(), before);
        let seat = Arc::new(seat);
        let mut extensions = Extensions::new();
        extensions.insert(Arc::clone(&seat));
        let Some(handling) = run.start(extensions) else {
            return Ok(());
        };
        let end = self.drive(run, &seat, handling).await?;
        self.conclude(run, end, seat.close()).await
    }

    /// Has the next record handled, unless it was or has to wait for another one of its key; parks
    /// it if it fails.
    async fn in_order(
        &mut self,
        run: &mut Run,
        record: Record,
        stay: Stay,
        transaction: bool,
    ) -> Result<(), Halt> {
        match stay.way(self.database, &record).await? {
            Way::Handle => {}
            Way::Behind => {
                run.set_aside();
                return self
                    .park(run, &stay, &record, &Waiting::behind(now()))
                    .await;
            }
            Way::Known => {
                run.set_aside();
                self.database.stats().duplicate();
                match self.unsettled.back_mut() {
                    Some(batch) => batch.duplicates += 1,
                    None => run.duplicates(1),
                }
                return Ok(());
            }
            Way::Wait(reason) => return Err(Halt::Held(reason)),
        }
        let attempt = run.attempt();
        let end = if transaction {
            self.handle(run, record.clone(), Some(stay.clone())).await
        } else {
            self.handle_without(run).await
        };
        match end {
            Err(Halt::Failed(failure)) => {
                let judged = run.judge(&failure);
                if !judged.is_parked_at_once() {
                    return Err(Halt::Failed(failure));
                }
                let waiting = stay.first_failure(&judged, attempt, None);
                self.park(run, &stay, &record, &waiting).await?;
                run.parked(&record, &judged, attempt);
                Ok(())
            }
            end => end,
        }
    }

    /// Has the next record handled by a handler that asks for no transaction.
    async fn handle_without(&mut self, run: &mut Run) -> Result<(), Halt> {
        let Some(mut handling) = run.start(Extensions::new()) else {
            return Ok(());
        };
        let first = poll_fn(|cx| Poll::Ready(handling.poll_unpin(cx))).await;
        let end = match first {
            Poll::Ready(end) => end,
            Poll::Pending => {
                // What waits to be committed with this lane's turn must not wait for the handler.
                self.turn = None;
                self.settle_all(run).await.map_err(unavailable_halt)?;
                run.drive(handling).await
            }
        };
        end.map_err(Halt::Failed)?;
        match self.unsettled.back_mut() {
            Some(batch) => batch.handled += 1,
            None => run.settled(1),
        }
        Ok(())
    }

    /// Puts the record started last where it waits, with its mark in the inbox.
    async fn park(
        &mut self,
        run: &mut Run,
        stay: &Stay,
        record: &Record,
        waiting: &Waiting,
    ) -> Result<(), Halt> {
        let mut turn = match self.turn.take() {
            Some(turn) => turn,
            None => {
                run.report();
                let before = self.unsettled.back().map(|batch| &batch.outcome);
                self.database.gate().join_after(before).await?
            }
        };
        if let Some(before) = self.unsettled.back() {
            before.outcome.check().map_err(unavailable_halt)?;
        }
        let parked = match stay.park(&mut turn, record, waiting).await {
            Err(error) if turn.gives_way(&error) => {
                turn.give_way().await;
                return Err(Halt::GaveWay(error));
            }
            parked => parked?,
        };
        if let Some(rank) = parked {
            turn.keep(false)?;
            self.batch(&turn).handled += 1;
            if rank == Rank::Head {
                run.retry_at(waiting.due);
            }
        } else {
            turn.undo().await;
            self.database.stats().duplicate();
            self.batch(&turn).duplicates += 1;
        }
        self.turn = Some(turn);
        Ok(())
    }

    /// Runs a handler to its end; `None` when its record turned out to be a duplicate.
    async fn drive(
        &mut self,
        run: &mut Run,
        seat: &Seat,
        mut handling: Handling,
    ) -> Result<Option<Result<(), Failure>>, Halt> {
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
                    self.settle_oldest(run, durable).map_err(unavailable_halt)?;
                    run.report();
                }
            }
        }
    }

    /// Keeps or takes back what the handler did, by how it ended.
    async fn conclude(
        &mut self,
        run: &mut Run,
        end: Option<Result<(), Failure>>,
        closed: Closed,
    ) -> Result<(), Halt> {
        let Closed {
            stage,
            mut turn,
            emitted,
            ..
        } = closed;
        if let Stage::Failed(error) = &stage
            && let Some(turn) = turn.take_if(|turn| turn.gives_way(error))
        {
            turn.give_way().await;
            return Err(Halt::GaveWay(error.clone()));
        }
        let result = match (stage, end.unwrap_or(Ok(()))) {
            (Stage::Duplicate, _) => {
                self.database.stats().duplicate();
                tracing::debug!(group = &*self.group, "record was handled before; skipped");
                if let Some(turn) = &mut turn {
                    turn.undo().await;
                    self.batch(turn).duplicates += 1;
                }
                Ok(())
            }
            // The database's own verdict wins: a handler may not know that it is away.
            (Stage::Failed(error), end) if end.is_ok() || must_wait(&error) => Err(error.into()),
            (_, Err(failure)) => Err(Halt::Failed(failure)),
            (Stage::Joined, Ok(())) => match &mut turn {
                Some(turn) => turn
                    .keep(emitted)
                    .map(|()| match mutation::is(Fault::SettledBeforeDurable) {
                        true => run.settled(1),
                        false => self.batch(turn).handled += 1,
                    })
                    .map_err(Halt::from),
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
            turn.undo().await;
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
