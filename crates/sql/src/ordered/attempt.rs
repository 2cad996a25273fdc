//! One attempt at a parked record: its handler's work and its row's end take effect together.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;

use ackwell::core::Timestamp;
use ackwell::core::ordered::Verdict;
use ackwell::core::settle::{Destination, Settlement};
use ackwell::{Extensions, Failure};
use futures_util::FutureExt;

use super::partition::random;
use super::retry::{Progress, Retry};
use super::rows::{self, Claim, Parked, Waiting, now};
use crate::seat::{Closed, Mark, Seat, Stage};
use crate::unit::{Halt, must_wait};

/// What became of a record.
pub(super) enum End {
    /// It has left.
    Done,
    /// It stays, until then.
    Again(Timestamp),
    /// It is given up, and marked so.
    GivenUp(Waiting),
    /// It was not there any more.
    Gone,
}

impl Retry<'_> {
    /// Has a record handled, unless it is given up already.
    pub(super) async fn attempt(
        &self,
        progress: &mut Progress,
        parked: &Parked,
    ) -> Result<End, Halt> {
        if parked.waiting.given_up {
            return Ok(End::GivenUp(parked.waiting.clone()));
        }
        // Parked again after its first group was lost: memory remembers the earlier date.
        if parked.waiting.due > now() {
            return Ok(End::Again(parked.waiting.due));
        }
        let claim = Claim(parked.row);
        let closed = self.handle(progress, parked, claim).await;
        let (
            end,
            Closed {
                stage,
                turn,
                emitted,
                ..
            },
        ) = closed;
        progress.turn = turn;
        if let Stage::Failed(error) = &stage
            && let Some(turn) = progress.turn.take_if(|turn| turn.gives_way(error))
        {
            return Err(Halt::GaveWay(turn.give_way().await));
        }
        match (stage, end.unwrap_or(Ok(()))) {
            (Stage::Duplicate, _) => {
                progress.undo().await;
                Ok(End::Gone)
            }
            (Stage::Failed(error), end) if end.is_ok() || must_wait(&error) => {
                progress.undo().await;
                Err(error.into())
            }
            (_, Err(failure)) => {
                progress.undo().await;
                self.failed(progress, parked, failure).await
            }
            (Stage::Joined, Ok(())) => {
                if let Some(mut turn) = progress.turn.take() {
                    turn.keep(emitted)?;
                    progress.hold(turn);
                }
                Ok(End::Done)
            }
            // Nothing done in the database; only the row goes.
            (_, Ok(())) => self.remove(progress, claim).await,
        }
    }

    async fn remove(&self, progress: &mut Progress, claim: Claim) -> Result<End, Halt> {
        let mut turn = self.start(progress).await?;
        let removed = claim.remove(&mut turn).await?;
        progress.keep_if(removed, turn).await?;
        Ok(if removed { End::Done } else { End::Gone })
    }

    /// Has the record handled by the listener's handler, in a transaction that takes its row out.
    async fn handle(
        &self,
        progress: &mut Progress,
        parked: &Parked,
        claim: Claim,
    ) -> (Option<Result<(), Failure>>, Closed) {
        let (database, stay) = (self.database.clone(), Some(self.stay.clone()));
        let before = progress.outcome.clone();
        let turn = progress.turn.take();
        let seat = Arc::new(Seat::new(database, Mark::Parked(claim), stay, turn, before));
        let mut extensions = Extensions::new();
        extensions.insert(Arc::clone(&seat));
        let attempt = parked.waiting.attempts.all.saturating_add(1);
        let record = parked.record.clone();
        let mut handling = self.retries.start(record, attempt, extensions);
        let first = poll_fn(|cx| Poll::Ready(handling.poll_unpin(cx))).await;
        let end = match first {
            Poll::Ready(end) => Some(end),
            Poll::Pending => {
                drop(seat.take_unused_turn());
                tokio::select! {
                    biased;
                    end = &mut handling => Some(end),
                    () = seat.duplicate() => None,
                }
            }
        };
        (end, seat.close())
    }

    async fn failed(
        &self,
        progress: &mut Progress,
        parked: &Parked,
        failure: Failure,
    ) -> Result<End, Halt> {
        let judged = self.retries.judge(&failure);
        let at = now();
        let mut waiting = parked.waiting.clone();
        waiting.attempts = waiting.attempts.failed(at);
        waiting.class = Some(judged.class());
        waiting.reason = Some(judged.reason().to_owned());
        waiting.first.get_or_insert_with(|| judged.as_first(at));
        let (attempts, asked) = (waiting.attempts, judged.retry_after());
        let verdict = self
            .stay
            .terms()
            .judge(judged.class(), attempts, asked, at, random());
        let settlement = match verdict {
            Verdict::Again(due) => Settlement::RetryAfter(due.since(at)),
            Verdict::GiveUp => Settlement::Recover(Destination::DeadLetter),
            Verdict::Done => Settlement::Done,
            Verdict::Keep => Settlement::Probe,
            Verdict::Stop => Settlement::Stop,
        };
        self.retries
            .attempt_failed(&parked.record, &judged, attempts.all, settlement);
        match verdict {
            Verdict::Keep | Verdict::Stop => return Err(Halt::Failed(failure)),
            Verdict::Done => return self.remove(progress, Claim(parked.row)).await,
            Verdict::Again(due) => waiting.due = due,
            Verdict::GiveUp => waiting.given_up = true,
        }
        let row = parked.row;
        let mut turn = self.start(progress).await?;
        let there = rows::failed(&mut turn, row, &waiting).await?;
        progress.keep_if(there, turn).await?;
        Ok(match verdict {
            _ if !there => End::Gone,
            Verdict::Again(due) => End::Again(due),
            _ => End::GivenUp(waiting),
        })
    }
}
