//! One record of a run, handled in a transaction.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;
use std::time::Instant;

use ackwell::unit::{Handling, Run};
use ackwell::{Extensions, Failure, Record};
use futures_util::FutureExt;

use super::{Halt, Lane, must_wait, unavailable_halt};
use crate::inbox::Entry;
use crate::mutation::{self, Fault};
use crate::ordered::Stay;
use crate::seat::{Closed, Mark, Seat, Stage};

impl Lane<'_> {
    /// Has the next record handled in a transaction.
    pub(super) async fn handle(
        &mut self,
        run: &mut Run,
        record: Record,
        stay: Option<Stay>,
    ) -> Result<(), Halt> {
        let mark = Mark::Record(Entry::new(&self.group, record));
        let before = self.unsettled.newest().cloned();
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

    /// Runs a handler to its end; `None` when its record turned out to be a duplicate.
    pub(super) async fn drive(
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
            tokio::select! {
                biased;
                end = &mut handling => {
                    run.waited(since.elapsed());
                    return Ok(Some(end));
                }
                () = seat.duplicate() => return Ok(None),
                durable = self.unsettled.oldest() => {
                    self.unsettled.settle_oldest(run, durable).map_err(unavailable_halt)?;
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
            return Err(Halt::GaveWay(turn.give_way().await));
        }
        let result = match (stage, end.unwrap_or(Ok(()))) {
            (Stage::Duplicate, _) => {
                self.database.stats().duplicate();
                tracing::debug!(group = &*self.group, "record was handled before; skipped");
                if let Some(turn) = &mut turn {
                    turn.undo().await;
                    self.unsettled.duplicate(turn);
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
                        false => self.unsettled.handled(turn),
                    })
                    .map_err(Halt::from),
                None => Ok(()),
            },
            // Nothing done in the database; settled after the records before it.
            (_, Ok(())) => {
                self.unsettled.handled_outside(run);
                Ok(())
            }
        };
        if let Some(turn) = &mut turn {
            turn.undo().await;
        }
        self.turn = turn;
        result
    }
}
