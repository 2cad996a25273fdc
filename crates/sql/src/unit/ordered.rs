//! With [ordered retry](mod@crate::ordered): a record that fails is parked in the transaction of those before it, and
//! what belongs behind it waits there, too.

use std::future::poll_fn;
use std::task::Poll;

use ackwell::core::ordered::Rank;
use ackwell::unit::Run;
use ackwell::{Extensions, Record};
use futures_util::FutureExt;

use super::{Halt, Lane, unavailable_halt};
use crate::ordered::{Stay, Waiting, Way, now};

impl Lane<'_> {
    /// Has the next record handled, unless it was or has to wait for another one of its key; parks
    /// it if it fails.
    pub(super) async fn in_order(
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
                self.unsettled.duplicate_outside(run);
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
                self.commit(run).await?;
                run.drive(handling).await
            }
        };
        end.map_err(Halt::Failed)?;
        self.unsettled.handled_outside(run);
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
                let before = self.unsettled.newest();
                self.database.gate().join_after(before).await?
            }
        };
        if let Some(before) = self.unsettled.newest() {
            before.check().map_err(unavailable_halt)?;
        }
        let parked = match stay.park(&mut turn, record, waiting).await {
            Err(error) if turn.gives_way(&error) => {
                return Err(Halt::GaveWay(turn.give_way().await));
            }
            parked => parked?,
        };
        if let Some(rank) = parked {
            turn.keep(false)?;
            self.unsettled.handled(&turn);
            if rank == Rank::Head {
                run.retry_at(waiting.due);
            }
        } else {
            turn.undo().await;
            self.database.stats().duplicate();
            self.unsettled.duplicate(&turn);
        }
        self.turn = Some(turn);
        Ok(())
    }
}
