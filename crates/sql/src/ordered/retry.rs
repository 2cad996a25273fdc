//! Parked records are tried again: the heads that are due, each with what follows it while that
//! succeeds.
//!
//! Several keys are in work at a time, as many as the listener has lanes; their transactions share
//! group commits like those of any lanes. A record's row goes in the transaction of its handler's
//! work, so it is handled once; one that fails stays where it is, with a later date. What is
//! given up is marked so first, durably: from then on nobody retries it, and whoever owns the
//! partition writes its dead letter, waits until that is acknowledged, and removes the row.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ackwell::Class;
use ackwell::core::Timestamp;
use ackwell::core::ordered::Seen;
use ackwell::unit::{Retried, Retries};
use futures_util::stream::{FuturesUnordered, StreamExt};

use super::attempt::End;
use super::partition::{InWork, Stay, random};
use super::rows::{self, Claim, Parked, now};
use crate::database::Database;
use crate::error::Result;
use crate::group::{Outcome, Turn};
use crate::unit::Halt;

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
    pub(super) database: &'a Database,
    pub(super) stay: Stay,
    pub(super) retries: &'a Retries,
    /// A dead letter that could not be written.
    problem: Mutex<Option<String>>,
}

/// How far the records of a key have come.
pub(super) struct Progress {
    pub(super) turn: Option<Turn>,
    /// The last group that took part.
    pub(super) outcome: Option<Outcome>,
    /// Records that have left.
    settled: usize,
    /// The offset of the last of them.
    after: i64,
}

/// Why a key's records are left for now.
enum Stop {
    /// There were no more when this was seen.
    Emptied(Option<Seen>),
    /// It is others' turn, or the first of them is not there any more.
    Paused,
    /// The first of them waits until then.
    Again(Timestamp),
    /// The first of them is given up.
    GivenUp(Box<Parked>),
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
            Some(Halt::GaveWay(_)) => retried.next = Some(now()),
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
        let stop = self.work_off(&key, &mut progress).await?;
        progress.durable().await?;
        match stop {
            Stop::Emptied(seen) => key.emptied(progress.settled, seen),
            Stop::Paused => key.settled(progress.settled),
            Stop::Again(at) => key.again(progress.settled, at),
            Stop::GivenUp(parked) => return self.put_away(key, progress, *parked).await,
        }
        Ok(())
    }

    async fn work_off(&self, key: &InWork, progress: &mut Progress) -> Result<Stop, Halt> {
        let mut count = 1;
        loop {
            let mut turn = self.turn(progress).await?;
            let seen = key.seen(&turn);
            let place = (self.stay.id(), self.stay.address());
            let records = rows::first(&mut turn, place, key.slot(), progress.after, count).await;
            let records = records?;
            progress.hold(turn);
            let (found, mut bytes) = (records.len(), 0);
            for mut parked in records {
                bytes += parked.record.size();
                let end = match self.attempt(progress, &parked).await {
                    // It is read again, when those before it are committed.
                    Err(Halt::GaveWay(_)) => break,
                    end => end?,
                };
                match end {
                    End::Done => progress.passed(&parked),
                    End::Gone => return Ok(Stop::Paused),
                    End::Again(at) => return Ok(Stop::Again(at)),
                    End::GivenUp(waiting) => {
                        parked.waiting = waiting;
                        return Ok(Stop::GivenUp(Box::new(parked)));
                    }
                }
                if progress.settled >= RECORDS_AT_ONCE || self.retries.is_halted() {
                    return Ok(Stop::Paused);
                }
            }
            if found == 0 {
                return Ok(Stop::Emptied(seen));
            }
            count = (READ_BYTES / (bytes / found).max(1)).clamp(1, RECORDS_AT_ONCE);
        }
    }

    /// The right to use the database, as owner of the partition.
    async fn turn(&self, progress: &mut Progress) -> Result<Turn, Halt> {
        let mut turn = match progress.turn.take() {
            Some(turn) => turn,
            None => {
                let gate = self.database.gate();
                gate.join_after(progress.outcome.as_ref()).await?
            }
        };
        if let Some(before) = &progress.outcome {
            before.check()?;
        }
        self.stay.check(&mut turn).await?;
        Ok(turn)
    }

    /// Begins to write something under a savepoint of its own.
    pub(super) async fn start(&self, progress: &mut Progress) -> Result<Turn, Halt> {
        let mut turn = self.turn(progress).await?;
        turn.start()?;
        Ok(turn)
    }

    /// Writes the dead letter of a record that is given up, durably; then it leaves.
    async fn put_away(
        &self,
        key: InWork,
        mut progress: Progress,
        parked: Parked,
    ) -> Result<(), Halt> {
        if !self.stay.is_current() {
            return Ok(());
        }
        let (row, record, waiting) = (parked.row, parked.record, parked.waiting);
        let class = waiting.class.unwrap_or(Class::Transient);
        let reason = waiting.reason.as_deref().unwrap_or_default();
        let attempts = waiting.attempts.all;
        let written = self
            .retries
            .dead_letter(record.clone(), class, reason, attempts, waiting.earlier())
            .await;
        if let Err(error) = written {
            let tries = key.tries().saturating_add(1);
            let at = self.stay.terms().recover_at(tries, now(), random());
            key.not_put_away(progress.settled, at);
            let mut problem = self.problem.lock().unwrap_or_else(PoisonError::into_inner);
            *problem = Some(error);
            return Ok(());
        }
        let group = Arc::clone(&self.stay.address().group);
        let mut turn = self.start(&mut progress).await?;
        rows::mark_given_up(&mut turn, &group, &record).await?;
        let removed = Claim(row).remove(&mut turn).await?;
        progress.keep_if(removed, turn).await?;
        progress.durable().await?;
        key.settled(progress.settled + 1);
        Ok(())
    }
}

impl Progress {
    /// Keeps the turn for what comes next.
    pub(super) fn hold(&mut self, turn: Turn) {
        self.outcome = Some(turn.outcome());
        self.turn = Some(turn);
    }

    /// Keeps what was written if that was `done`, and takes it back otherwise.
    pub(super) async fn keep_if(&mut self, done: bool, mut turn: Turn) -> Result<()> {
        if done {
            turn.keep(false)?;
        } else {
            turn.undo().await;
        }
        self.hold(turn);
        Ok(())
    }

    /// A record has left.
    fn passed(&mut self, parked: &Parked) {
        self.settled += 1;
        self.after = parked.record.offset();
    }

    pub(super) async fn undo(&mut self) {
        if let Some(turn) = &mut self.turn {
            turn.undo().await;
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
