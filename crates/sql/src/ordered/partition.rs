//! A partition whose failing keys are parked: who may work on it, and what waits.
//!
//! Two processes may believe at the same time that a partition is theirs: one was stopped, or cut
//! off, and has not heard yet that it was given to the other. So the owner is written down in the
//! database. Whoever takes the partition over counts its epoch up, and each transaction first
//! looks whether the epoch is still its own. An owner that was overtaken so does nothing more,
//! not even with records of which the new one has not heard yet.

use std::sync::atomic::Ordering::{AcqRel, Acquire, Release};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ackwell::core;
use ackwell::core::engine::FirstFailure;
use ackwell::core::ordered::{Attempts, Due, Parked, Place, Rank, Seen, Terms, Verdict};
use ackwell::unit::Judged;
use ackwell::{Class, Record};

use super::rows::{self, Address, Slot, Waiting};
use crate::database::Database;
use crate::error::{Error, Kind, Result};
use crate::group::{Outcome, Turn};
use crate::inbox::Entry;
use crate::mutation::{self, Fault};

/// What this process knows of a partition that was assigned to it.
pub(crate) struct Partition {
    address: Address,
    terms: Arc<Terms>,
    /// It was given to somebody else, as far as this process has heard.
    revoked: AtomicBool,
    /// Which time it is that this process has taken it over; 0 while it has not.
    term: AtomicU64,
    /// Whether anything is parked, for a look without the lock.
    occupied: AtomicBool,
    /// Records up to here may have been parked by an earlier owner.
    parked_before: AtomicI64,
    taking_over: tokio::sync::Mutex<u64>,
    state: Mutex<State>,
}

struct State {
    id: i64,
    epoch: i64,
    /// The groups whose transactions have found the epoch unchanged: one on SQLite, one a writer on
    /// PostgreSQL. Nobody can change it before such a transaction ends.
    checked: Vec<Outcome>,
    /// Groups that have parked records, as long as they may be undecided: what they have parked is known
    /// here, and only they can see it in the table.
    parking: Vec<Outcome>,
    parked: Parked<Slot>,
}

impl State {
    fn is_checked(&self, turn: &Turn) -> bool {
        self.checked.iter().any(|seen| turn.is_of(seen))
    }

    fn note_checked(&mut self, turn: &Turn) {
        self.checked.retain(|seen| !seen.is_decided());
        self.checked.push(turn.outcome());
    }

    fn note_parking(&mut self, turn: &Turn) {
        if !self.parking.last().is_some_and(|group| turn.is_of(group)) {
            self.parking.retain(|group| !group.is_decided());
            self.parking.push(turn.outcome());
        }
    }

    /// Whether `turn` sees in the table all that is known here to be parked.
    fn sees_all(&self, turn: &Turn) -> bool {
        let visible = |group: &Outcome| turn.is_of(group) || group.is_decided();
        self.parking.iter().all(visible)
    }
}

/// The right to work on a partition, until somebody else takes it over.
#[derive(Clone)]
pub(crate) struct Stay {
    partition: Arc<Partition>,
    term: u64,
}

impl Partition {
    pub(super) fn new(address: Address, terms: Arc<Terms>) -> Self {
        let state = State {
            id: 0,
            epoch: 0,
            checked: Vec::new(),
            parking: Vec::new(),
            parked: Parked::new(terms.limits),
        };
        Self {
            address,
            terms,
            revoked: AtomicBool::new(false),
            term: AtomicU64::new(0),
            occupied: AtomicBool::new(false),
            parked_before: AtomicI64::new(-1),
            taking_over: tokio::sync::Mutex::new(0),
            state: Mutex::new(state),
        }
    }

    /// Nothing may happen here any more.
    pub(super) fn revoke(&self) {
        self.revoked.store(true, Release);
    }

    /// Takes the partition over, unless that is done.
    ///
    /// # Cancel safety
    /// Dropping the future leaves nothing behind but a higher epoch.
    pub(super) async fn stay(self: &Arc<Self>, database: &Database) -> Result<Stay> {
        if let Some(stay) = self.current()? {
            return Ok(stay);
        }
        let mut terms = self.taking_over.lock().await;
        if let Some(stay) = self.current()? {
            return Ok(stay);
        }
        let mut turn = database.gate().join().await?;
        turn.start()?;
        let taken = rows::take_over(&mut turn, &self.address).await?;
        turn.keep(false)?;
        let outcome = turn.outcome();
        drop(turn);
        outcome.durable().await?;
        *terms += 1;
        self.settle_in(taken);
        self.term.store(*terms, Release);
        Ok(Stay {
            partition: Arc::clone(self),
            term: *terms,
        })
    }

    fn current(self: &Arc<Self>) -> Result<Option<Stay>> {
        if self.revoked.load(Acquire) {
            return Err(fenced());
        }
        let term = self.term.load(Acquire);
        Ok((term != 0).then(|| Stay {
            partition: Arc::clone(self),
            term,
        }))
    }

    fn settle_in(&self, taken: rows::Taken) {
        let mut parked = Parked::new(self.terms.limits);
        for (slot, stored) in taken.lines {
            parked.restore(slot, stored);
        }
        if !parked.is_empty() {
            let Address {
                topic, partition, ..
            } = &self.address;
            let (keys, records) = (parked.keys(), parked.records());
            tracing::info!(
                topic = &**topic,
                partition,
                keys,
                records,
                "parked records taken over"
            );
        }
        self.occupied.store(!parked.is_empty(), Release);
        self.parked_before.store(taken.parked_to, Release);
        *self.state() = State {
            id: taken.id,
            epoch: taken.epoch,
            checked: Vec::new(),
            parking: Vec::new(),
            parked,
        };
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Parked keys, records, and since when the first of them waits.
    pub(super) fn waiting(&self) -> (usize, usize, Option<core::Timestamp>) {
        if !self.occupied.load(Acquire) {
            return (0, 0, None);
        }
        let parked = &self.state().parked;
        (parked.keys(), parked.records(), parked.oldest())
    }
}

/// Where a polled record belongs.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// To its handler.
    Handle,
    /// Behind a parked record of its key.
    Behind,
    /// Nowhere: it was parked before, or handled.
    Known,
    /// It can't be taken on now, for this reason.
    Wait(String),
}

impl Stay {
    pub(super) fn terms(&self) -> &Terms {
        &self.partition.terms
    }

    pub(super) fn address(&self) -> &Address {
        &self.partition.address
    }

    pub(super) fn id(&self) -> i64 {
        self.partition.state().id
    }

    /// Whether, as far as this process has heard, it is still the owner.
    pub(super) fn is_current(&self) -> bool {
        !self.partition.revoked.load(Acquire) && self.partition.term.load(Acquire) == self.term
    }

    /// Fails unless this process is still the owner, and will be until the transaction of `turn`
    /// ends.
    pub(crate) async fn check(&self, turn: &mut Turn) -> Result<()> {
        if !self.is_current() {
            return Err(fenced());
        }
        let (id, epoch) = {
            let state = self.partition.state();
            if state.is_checked(turn) {
                return Ok(());
            }
            (state.id, state.epoch)
        };
        let overtaken = rows::epoch(turn, id).await? != epoch;
        if overtaken && !mutation::is(Fault::OwnerUnchecked) {
            // Found out before the group coordinator told; the next run takes over anew.
            let _ = self
                .partition
                .term
                .compare_exchange(self.term, 0, AcqRel, Acquire);
            return Err(fenced());
        }
        let mut state = self.partition.state();
        if state.epoch == epoch {
            state.note_checked(turn);
        }
        Ok(())
    }

    /// Where the next record belongs. With nothing parked, and nothing redelivered, it is a look
    /// at two numbers.
    pub(crate) async fn way(&self, database: &Database, record: &Record) -> Result<Way> {
        let occupied = self.partition.occupied.load(Acquire);
        if self.was_read_before(record.offset())
            && rows::is_known(database, &self.address().group, record).await?
        {
            return Ok(Way::Known);
        }
        if !occupied {
            return Ok(Way::Handle);
        }
        let slot = record.key().map(|_| Slot::of(record));
        Ok(match self.partition.state().parked.place(slot.as_ref()) {
            // It will never be handled, and a row could not hold it.
            _ if record.has_unreadable_headers() => Way::Handle,
            Place::Free => Way::Handle,
            Place::Behind if mutation::is(Fault::KeyDoesNotWait) => Way::Handle,
            Place::Behind => Way::Behind,
            Place::Full(limit) => Way::Wait(format!(
                "{}/{} takes no new records: as many are parked as `{limit}` allows",
                record.topic(),
                record.partition()
            )),
        })
    }

    fn was_read_before(&self, offset: i64) -> bool {
        self.partition.parked_before.load(Acquire) >= offset
    }

    /// What follows the failure with which a record is parked.
    pub(crate) fn first_failure(
        &self,
        failure: &Judged,
        attempt: u32,
        first: Option<FirstFailure>,
    ) -> Waiting {
        let now = rows::now();
        let attempts = Attempts::in_place(attempt, now);
        let asked = failure.retry_after();
        let verdict = self
            .terms()
            .judge(Class::Transient, attempts, asked, now, random());
        Waiting {
            attempts,
            due: match verdict {
                Verdict::Again(at) => at,
                _ => now,
            },
            given_up: verdict == Verdict::GiveUp,
            class: Some(failure.class()),
            reason: Some(failure.reason().to_owned()),
            first: first.or_else(|| Some(failure.as_first(now))),
        }
    }

    /// Parks a record under a savepoint of its own; `None` if it was known before. From here on,
    /// before anybody else can see it, its key waits.
    pub(crate) async fn park(
        &self,
        turn: &mut Turn,
        record: &Record,
        waiting: &Waiting,
    ) -> Result<Option<Rank>> {
        turn.start()?;
        self.check(turn).await?;
        let entry = Entry::new(&self.address().group, record.clone());
        if !entry.insert(turn).await? {
            return Ok(None);
        }
        rows::park(turn, self.id(), record, waiting).await?;
        let slot = Slot::of(record).detached();
        let mut state = self.partition.state();
        let rank = state.parked.park(rows::now(), slot, waiting.due);
        state.note_parking(turn);
        self.partition.occupied.store(true, Release);
        Ok(Some(rank))
    }

    /// When the next head is due.
    pub(super) fn due_at(&self) -> Option<core::Timestamp> {
        self.partition.state().parked.due_at()
    }

    /// Takes a key into work whose head is due.
    pub(super) fn take_due(&self) -> Option<InWork> {
        let due = self.partition.state().parked.take_due(rows::now(), 1);
        due.into_iter().next().map(|due| InWork {
            stay: self.clone(),
            due,
            open: true,
        })
    }

    fn change(&self, change: impl FnOnce(&mut Parked<Slot>)) {
        // What an earlier stay has done is found in the database by the later one.
        if !self.is_current() {
            return;
        }
        let mut state = self.partition.state();
        change(&mut state.parked);
        let occupied = !state.parked.is_empty();
        self.partition.occupied.store(occupied, Release);
    }
}

/// A key whose head is being retried. Dropped before it is told what became of it, it waits as
/// before.
pub(super) struct InWork {
    stay: Stay,
    due: Due<Slot>,
    open: bool,
}

impl InWork {
    pub(super) fn slot(&self) -> &Slot {
        &self.due.key
    }

    /// How often its head could not be put away, in a row.
    pub(super) fn tries(&self) -> u32 {
        self.due.tries
    }

    /// The state of the key at this moment, if `turn` sees all of its records in the table: on
    /// PostgreSQL another transaction may have parked one and not be committed yet.
    pub(super) fn seen(&self, turn: &Turn) -> Option<Seen> {
        let state = self.stay.partition.state();
        state
            .parked
            .seen(&self.due.key)
            .filter(|_| state.sees_all(turn))
    }

    /// Its first records have left, durably.
    pub(super) fn settled(mut self, records: usize) {
        self.open = false;
        let key = &self.due.key;
        self.stay
            .change(|parked| parked.settled(rows::now(), key, records));
    }

    /// There was nothing left of it when it was `seen`.
    pub(super) fn emptied(mut self, records: usize, seen: Option<Seen>) {
        self.open = false;
        let key = &self.due.key;
        self.stay.change(|parked| {
            parked.settled(rows::now(), key, records);
            if let Some(seen) = seen {
                parked.vanished(rows::now(), key, seen);
            }
        });
    }

    /// Its head waits until `at`, after `records` have left.
    pub(super) fn again(mut self, records: usize, at: core::Timestamp) {
        self.open = false;
        let key = &self.due.key;
        self.stay.change(|parked| {
            parked.settled(rows::now(), key, records);
            parked.again(key, at);
        });
    }

    /// Its head could not be put away.
    pub(super) fn not_put_away(mut self, records: usize, at: core::Timestamp) {
        self.open = false;
        let key = &self.due.key;
        self.stay.change(|parked| {
            if records > 0 {
                parked.settled(rows::now(), key, records);
            }
            parked.not_put_away(key, at);
        });
    }
}

impl Drop for InWork {
    fn drop(&mut self) {
        if self.open {
            let key = &self.due.key;
            self.stay.change(|parked| parked.untouched(key));
        }
    }
}

/// A number in `0.0..1.0`, for jitter.
pub(super) fn random() -> f64 {
    let bits = uuid::Uuid::new_v4().as_u64_pair().0;
    (bits >> 11) as f64 / (1u64 << 53) as f64
}

fn fenced() -> Error {
    Error::new(
        Kind::Fenced,
        "working on a partition: another process has taken it over",
    )
}
