//! Parked records are tried again: the heads that are due, each with what follows it while that
//! succeeds.
//!
//! Several keys are in work at a time, as many as the listener has lanes; their transactions share
//! group commits like those of any lanes. A record's row goes in the transaction of its handler's
//! work, so it is handled once; one that fails stays where it is, with a later date. What is
//! given up is marked so first, durably: from then on nobody retries it, and whoever owns the
//! partition writes its dead letter, waits until that is acknowledged, and removes the row.

use std::future::poll_fn;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;
use std::time::Duration;

use ackwell::core::ordered::Verdict;
use ackwell::core::settle::{Destination, Settlement};
use ackwell::unit::{Retried, Retries};
use ackwell::{Class, Extensions, Failure};
use futures_util::FutureExt;
use futures_util::stream::{FuturesUnordered, StreamExt};

use super::partition::{InWork, Stay, random};
use super::rows::{self, Claim, Parked, now};
use crate::database::Database;
use crate::error::Result;
use crate::group::{Outcome, Turn};
use crate::seat::{Closed, Mark, Seat, Stage};
use crate::unit::{Halt, must_wait};

/// Records of one key that are handled before others of the partition get their chance.
const RECORDS_AT_ONCE: usize = 100;

/// Bytes of records read ahead; one is read in any case.
const READ_BYTES: usize = 1 << 20;

/// Keys taken into work by one retry; then the container looks whether it may go on.
const KEYS_AT_ONCE: usize = 1_000;

/// How soon is tried again what could not even be begun.
const PAUSE: Duration = Duration::from_secs(1);

/// One retry of a partition's due records.
pub(super) struct Retry<'a> {
    database: &'a Database,
    stay: Stay,
    retries: &'a Retries,
    /// A dead letter that could not be written.
    problem: Mutex<Option<String>>,
}

/// How far the records of a key have come.
struct Progress {
    turn: Option<Turn>,
    /// The last group that took part.
    outcome: Option<Outcome>,
    /// Records that have left.
    settled: usize,
    /// The offset of the last of them.
    after: i64,
}

/// What became of a record.
enum End {
    /// It has left.
    Done,
    /// It stays, until then.
    Again(ackwell::core::Timestamp),
    /// It is given up, and marked so.
    GivenUp,
    /// It was not there any more.
    Gone,
}

impl<'a> Retry<'a> {
    pub(super) fn new(database: &'a Database, stay: Stay, retries: &'a Retries) -> Self {
        Self {
            database,
            stay,
            retries,
            problem: Mutex::default(),
        }
    }

    pub(super) async fn all(self) -> Retried {
        let mut active = FuturesUnordered::new();
        let (mut taken, mut halt) = (0, None);
        loop {
            while halt.is_none()
                && taken < KEYS_AT_ONCE
                && active.len() < self.retries.lanes()
                && !self.retries.is_halted()
                && let Some(key) = self.stay.take_due()
            {
                taken += 1;
                active.push(self.key(key));
            }
            match active.next().await {
                Some(Ok(())) => {}
                Some(Err(stopped)) => halt = halt.or(Some(stopped)),
                None => break,
            }
        }
        drop(active);
        let due = self.stay.due_at();
        let problem = self.problem.into_inner();
        let mut retried = Retried {
            next: due,
            failure: None,
            problem: problem.unwrap_or_else(PoisonError::into_inner),
        };
        match halt {
            None => {}
            Some(Halt::Failed(failure)) => {
                retried.next = Some(due.unwrap_or_else(now).max(now()));
                retried.failure = Some(failure);
            }
            Some(Halt::Held(reason)) => {
                retried.next = Some(now() + PAUSE);
                retried.problem = Some(reason);
            }
        }
        retried
    }

    /// Handles the records of a key until one fails, there are no more, or it is others' turn.
    async fn key(&self, key: InWork) -> Result<(), Halt> {
        let mut progress = Progress {
            turn: None,
            outcome: None,
            settled: 0,
            after: i64::MIN,
        };
        let mut count = 1;
        loop {
            let mut turn = self.turn(&mut progress).await?;
            let seen = key.seen();
            let place = (self.stay.id(), self.stay.address());
            let records = rows::first(&mut turn, place, key.slot(), progress.after, count)?;
            if records.is_empty() {
                progress.outcome = Some(turn.outcome());
                drop(turn);
                progress.durable().await?;
                key.emptied(progress.settled, seen);
                return Ok(());
            }
            progress.turn = Some(turn);
            let (found, mut bytes) = (records.len(), 0);
            for parked in records {
                bytes += parked.record.size();
                let offset = parked.record.offset();
                let end = self.attempt(&mut progress, &parked).await?;
                match end {
                    End::Done => {
                        progress.settled += 1;
                        progress.after = offset;
                    }
                    End::Gone => {
                        progress.durable().await?;
                        return Ok(key.settled(progress.settled));
                    }
                    End::Again(at) => {
                        progress.durable().await?;
                        return Ok(key.again(progress.settled, at));
                    }
                    End::GivenUp => return self.put_away(key, progress, parked).await,
                }
                let enough = progress.settled >= RECORDS_AT_ONCE;
                if enough || self.retries.is_halted() {
                    progress.durable().await?;
                    return Ok(key.settled(progress.settled));
                }
            }
            let average = (bytes / found).max(1);
            count = (READ_BYTES / average).clamp(1, RECORDS_AT_ONCE);
        }
    }

    /// The right to use the database, as owner of the partition.
    async fn turn(&self, progress: &mut Progress) -> Result<Turn, Halt> {
        let mut turn = match progress.turn.take() {
            Some(turn) => turn,
            None => self.database.gate().join().await?,
        };
        // A group is decided before the next one begins.
        if let Some(before) = &progress.outcome {
            before.check()?;
        }
        self.stay.check(&mut turn)?;
        Ok(turn)
    }

    /// Writes something under a savepoint of its own; answers what `write` says, and keeps it if
    /// that is true.
    async fn write(
        &self,
        progress: &mut Progress,
        write: impl FnOnce(&mut Turn) -> Result<bool>,
    ) -> Result<bool, Halt> {
        let mut turn = self.turn(progress).await?;
        turn.start()?;
        let done = write(&mut turn)?;
        if done {
            turn.keep(false)?;
        } else {
            turn.undo();
        }
        progress.hold(turn);
        Ok(done)
    }

    async fn attempt(&self, progress: &mut Progress, parked: &Parked) -> Result<End, Halt> {
        if parked.waiting.given_up {
            return Ok(End::GivenUp);
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
        match (stage, end.unwrap_or(Ok(()))) {
            (Stage::Duplicate, _) => {
                progress.undo();
                Ok(End::Gone)
            }
            (Stage::Failed(error), end) if end.is_ok() || must_wait(&error) => {
                progress.undo();
                Err(error.into())
            }
            (_, Err(failure)) => {
                progress.undo();
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
        let removed = self.write(progress, |turn| claim.remove(turn)).await?;
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
        let (attempts, asked) = (waiting.attempts, judged.retry_after());
        let verdict = self
            .stay
            .terms()
            .judge(judged.class(), attempts, asked, at, random());
        let (settlement, end) = match verdict {
            Verdict::Again(due) => (Settlement::RetryAfter(due.since(at)), End::Again(due)),
            Verdict::GiveUp => (Settlement::Recover(Destination::DeadLetter), End::GivenUp),
            Verdict::Done => (Settlement::Done, End::Done),
            Verdict::Keep => (Settlement::Probe, End::Gone),
            Verdict::Stop => (Settlement::Stop, End::Gone),
        };
        self.retries
            .attempt_failed(&parked.record, &judged, attempts.all, settlement);
        match (verdict, &end) {
            (Verdict::Keep | Verdict::Stop, _) => return Err(Halt::Failed(failure)),
            (Verdict::Done, _) => return self.remove(progress, Claim(parked.row)).await,
            (_, End::Again(due)) => waiting.due = *due,
            (_, _) => waiting.given_up = true,
        }
        let row = parked.row;
        let there = self
            .write(progress, |turn| rows::failed(turn, row, &waiting))
            .await?;
        Ok(if there { end } else { End::Gone })
    }

    /// Writes the dead letter of a record that is given up; then it leaves.
    async fn put_away(
        &self,
        key: InWork,
        mut progress: Progress,
        mut parked: Parked,
    ) -> Result<(), Halt> {
        let settled = progress.settled;
        // That it is given up has to be durable first, and what is known of it is in the row.
        let place = (self.stay.id(), self.stay.address());
        let mut turn = self.turn(&mut progress).await?;
        let found = rows::first(&mut turn, place, key.slot(), progress.after, 1)?;
        progress.hold(turn);
        progress.durable().await?;
        match found.into_iter().next() {
            Some(found) if found.row == parked.row && found.waiting.given_up => parked = found,
            _ => return Ok(key.settled(settled)),
        }
        if !self.stay.is_current() {
            return Ok(());
        }
        let (record, waiting) = (parked.record.clone(), &parked.waiting);
        let class = waiting.class.unwrap_or(Class::Transient);
        let reason = waiting.reason.as_deref().unwrap_or_default();
        let written = self
            .retries
            .dead_letter(record, class, reason, waiting.attempts.all)
            .await;
        if let Err(error) = written {
            let tries = key.tries().saturating_add(1);
            let at = self.stay.terms().recover_at(tries, now(), random());
            *self.problem.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
            return Ok(key.not_put_away(settled, at));
        }
        let group = Arc::clone(&self.stay.address().group);
        let (row, record) = (parked.row, parked.record);
        self.write(&mut progress, |turn| {
            rows::mark_given_up(turn, &group, &record)?;
            Claim(row).remove(turn)
        })
        .await?;
        progress.durable().await?;
        Ok(key.settled(settled + 1))
    }
}

impl Progress {
    /// Keeps the turn for what comes next.
    fn hold(&mut self, turn: Turn) {
        self.outcome = Some(turn.outcome());
        self.turn = Some(turn);
    }

    fn undo(&mut self) {
        if let Some(turn) = &mut self.turn {
            turn.undo();
        }
    }

    /// Leaves the turn, so that the group can commit, and waits until what was done is durable.
    async fn durable(&mut self) -> Result<()> {
        self.turn = None;
        match self.outcome.take() {
            Some(outcome) => outcome.durable().await,
            None => Ok(()),
        }
    }
}
