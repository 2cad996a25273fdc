//! Group commit: many units of work share one transaction, and so one wait for the disk.
//!
//! The database has one writing connection, and a [`Turn`] is the right to use it. Turns
//! are given in the order in which they were asked for. Whoever gets one joins the open
//! group, or begins one, and works under a savepoint of its own, so that it can be taken
//! back alone. On leaving it either hands the open transaction to the next who waits,
//! or commits, when nobody waits or the group is large or old enough. There is no timer:
//! a lone unit commits at once, and while one group waits for the disk, the next gathers
//! in the queue.
//!
//! Nothing is left half done: a turn that is dropped takes its work back and sees to the
//! group, and a waiter that gives up checks whether it was the one to commit.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::{Duration, Instant};

use tokio::runtime::Handle;
use tokio::sync::{Mutex, Notify, OwnedMutexGuard, watch};

use crate::backend::Backend;
use crate::database::Settings;
use crate::error::{Chain, Error, Kind, Result};
use crate::row::Row;
use crate::stats::Stats;
use crate::value::Value;

/// A turn held longer than this keeps everybody waiting, and is worth a line in the log.
const TURN_WORTH_A_WARNING: Duration = Duration::from_secs(1);

/// The writing connection and those who wait for it.
pub(crate) struct Gate {
    writer: Arc<Mutex<Writer>>,
    waiting: AtomicUsize,
    settings: Settings,
    stats: Arc<Stats>,
    /// Told after each commit that has new outbox rows.
    emitted: Arc<Notify>,
}

struct Writer {
    backend: Box<dyn Backend>,
    group: Option<Group>,
}

/// The open transaction and its members.
struct Group {
    begun: Instant,
    members: usize,
    emitted: bool,
    outcome: watch::Sender<Option<Result<()>>>,
}

/// Whether the group that one was a member of is durable.
#[derive(Clone)]
pub(crate) struct Outcome(watch::Receiver<Option<Result<()>>>);

/// The right to use the writing connection, with the group open.
pub(crate) struct Turn {
    gate: Arc<Gate>,
    writer: Option<OwnedMutexGuard<Writer>>,
    outcome: Outcome,
    /// Whether there is work that is neither kept nor taken back.
    pending: bool,
    since: Instant,
}

/// What to do with the open group on leaving.
#[derive(Debug, PartialEq, Eq)]
enum Leave {
    HandOver,
    Commit,
    Discard,
}

fn decide(members: usize, age: Duration, waiting: usize, settings: &Settings) -> Leave {
    let full = members >= settings.group_members || age >= settings.group_time;
    match (members, waiting) {
        (_, 1..) if !full => Leave::HandOver,
        (0, _) => Leave::Discard,
        _ => Leave::Commit,
    }
}

impl Gate {
    pub(crate) fn new(
        backend: Box<dyn Backend>,
        settings: Settings,
        stats: Arc<Stats>,
        emitted: Arc<Notify>,
    ) -> Self {
        let writer = Arc::new(Mutex::new(Writer {
            backend,
            group: None,
        }));
        Self {
            writer,
            waiting: AtomicUsize::new(0),
            settings,
            stats,
            emitted,
        }
    }

    /// Waits for the turn and joins the open group or begins one.
    ///
    /// # Cancel safety
    /// Dropping the future gives up the place in the queue and leaves nothing behind.
    pub(crate) async fn join(self: &Arc<Self>) -> Result<Turn> {
        let writer = match Arc::clone(&self.writer).try_lock_owned() {
            Ok(writer) => writer,
            Err(_) => self.queue().await?,
        };
        self.enter(writer).await
    }

    /// Joins or begins the group. Begins at once when no other process writes; otherwise
    /// waits for it on a blocking thread.
    async fn enter(self: &Arc<Self>, mut writer: OwnedMutexGuard<Writer>) -> Result<Turn> {
        let gate = Arc::clone(self);
        match writer.begin(None) {
            Ok(()) => return Ok(Turn::new(gate, writer)),
            Err(error) if error.kind() != Kind::Locked => return Err(error),
            Err(_) => {}
        }
        let wait = self.settings.lock_wait;
        let begun = tokio::task::spawn_blocking(move || {
            writer.begin(Some(wait)).map(|()| Turn::new(gate, writer))
        });
        match begun.await {
            Ok(begun) => begun.map_err(|error| {
                error.while_doing("waiting for another process that writes to the database")
            }),
            Err(gone) => Err(Error::unavailable("beginning a transaction").because(gone)),
        }
    }

    async fn queue(self: &Arc<Self>) -> Result<OwnedMutexGuard<Writer>> {
        let waiting = Waiting::enter(self)?;
        let wait = self.settings.turn_wait;
        let lock = tokio::time::timeout(wait, Arc::clone(&self.writer).lock_owned()).await;
        drop(waiting);
        lock.map_err(|_| {
            Error::unavailable(format!(
                "waiting for the database: another transaction has kept it for {wait:?}"
            ))
        })
    }

    /// How many wait for their turn.
    pub(crate) fn waiting(&self) -> usize {
        self.waiting.load(SeqCst)
    }

    /// Sees to a group that was handed over to somebody who then gave up.
    fn tend(self: &Arc<Self>) {
        if self.waiting.load(SeqCst) > 0 {
            return;
        }
        // Whoever has the lock tends the group when leaving.
        let Ok(writer) = Arc::clone(&self.writer).try_lock_owned() else {
            return;
        };
        if writer.group.is_some() {
            drop(Turn::new(Arc::clone(self), writer));
        }
    }

    /// Commits `writer`'s group and tells its members.
    fn commit(&self, writer: &mut Writer) {
        let Some(group) = writer.group.take() else {
            return;
        };
        let start = Instant::now();
        let result = writer.backend.commit().map_err(|error| {
            writer.backend.rollback();
            Error::unavailable("committing the group").because(error)
        });
        match &result {
            Ok(()) => {
                self.stats.committed(group.members, start.elapsed());
                if group.emitted {
                    self.emitted.notify_one();
                }
            }
            Err(error) => {
                self.stats.commit_failed();
                tracing::error!(
                    error = %Chain(error),
                    members = group.members,
                    "a group was not committed; its members see the database as unavailable"
                );
            }
        }
        group.outcome.send_replace(Some(result));
    }
}

/// A place in the queue.
struct Waiting<'a>(&'a Arc<Gate>);

impl<'a> Waiting<'a> {
    fn enter(gate: &'a Arc<Gate>) -> Result<Self> {
        let bound = gate.settings.waiters_max;
        if gate.waiting.fetch_add(1, SeqCst) >= bound {
            gate.waiting.fetch_sub(1, SeqCst);
            return Err(Error::unavailable(format!(
                "waiting for the database: {bound} others wait already"
            )));
        }
        Ok(Self(gate))
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, SeqCst);
        self.0.tend();
    }
}

impl Writer {
    fn begin(&mut self, wait: Option<Duration>) -> Result<()> {
        if self.group.is_some() {
            return Ok(());
        }
        match wait {
            None => self.backend.try_begin()?,
            Some(wait) => self.backend.begin(wait)?,
        }
        self.group = Some(Group {
            begun: Instant::now(),
            members: 0,
            emitted: false,
            outcome: watch::Sender::new(None),
        });
        Ok(())
    }

    /// A serious error (a full disk, failing I/O) ends the whole transaction: then none of
    /// the group's members is kept, and all are told.
    fn mourn(&mut self, error: &Error) {
        if self.backend.in_transaction() {
            return;
        }
        if let Some(group) = self.group.take() {
            let lost = Error::unavailable("the group's transaction was ended by an error")
                .because(error.clone());
            group.outcome.send_replace(Some(Err(lost)));
        }
    }
}

impl Turn {
    fn new(gate: Arc<Gate>, writer: OwnedMutexGuard<Writer>) -> Self {
        let outcome = match &writer.group {
            Some(group) => Outcome(group.outcome.subscribe()),
            None => Outcome::lost(),
        };
        Self {
            gate,
            writer: Some(writer),
            outcome,
            pending: false,
            since: Instant::now(),
        }
    }

    /// Marks where [`undo`](Self::undo) goes back to.
    pub(crate) fn start(&mut self) -> Result<()> {
        self.run(|backend| backend.savepoint())?;
        self.pending = true;
        Ok(())
    }

    pub(crate) fn execute(&mut self, sql: &str, params: &[Value<'_>]) -> Result<u64> {
        self.run(|backend| backend.execute(sql, params))
    }

    pub(crate) fn query(&mut self, sql: &str, params: &[Value<'_>]) -> Result<Vec<Row>> {
        self.run(|backend| backend.query(sql, params))
    }

    fn run<T>(&mut self, work: impl FnOnce(&mut dyn Backend) -> Result<T>) -> Result<T> {
        let Some(writer) = self
            .writer
            .as_deref_mut()
            .filter(|writer| writer.group.is_some())
        else {
            return Err(Error::unavailable(
                "the group's transaction was ended by an error",
            ));
        };
        let result = work(writer.backend.as_mut());
        match &result {
            Err(error) => writer.mourn(error),
            // Ended by the statement itself, which the check of statements did not catch.
            Ok(_) if !writer.backend.in_transaction() => {
                let error = Error::usage("a statement ended the shared transaction");
                writer.mourn(&error);
                return Err(error);
            }
            Ok(_) => {}
        }
        result
    }

    /// Keeps the work: it becomes durable with the group.
    pub(crate) fn keep(&mut self, emitted: bool) -> Result<()> {
        self.run(|backend| backend.release())?;
        self.pending = false;
        if let Some(group) = self
            .writer
            .as_deref_mut()
            .and_then(|writer| writer.group.as_mut())
        {
            group.members += 1;
            group.emitted |= emitted;
        }
        Ok(())
    }

    /// Takes the work back, and only this work.
    pub(crate) fn undo(&mut self) {
        if !std::mem::take(&mut self.pending) {
            return;
        }
        self.gate.stats.rolled_back();
        let Some(writer) = self
            .writer
            .as_deref_mut()
            .filter(|writer| writer.group.is_some())
        else {
            return; // went with the group
        };
        if let Err(error) = writer.backend.undo() {
            // What cannot be taken back alone must not be committed with the others.
            writer.backend.rollback();
            writer.mourn(&error);
        }
    }

    /// Whether the group should be committed before it takes another member.
    pub(crate) fn is_full(&self) -> bool {
        let Some(group) = self
            .writer
            .as_deref()
            .and_then(|writer| writer.group.as_ref())
        else {
            return true;
        };
        let Settings {
            group_members,
            group_time,
            ..
        } = self.gate.settings;
        group.members >= group_members || group.begun.elapsed() >= group_time
    }

    /// The outcome of the group that this turn belongs to.
    pub(crate) fn outcome(&self) -> Outcome {
        self.outcome.clone()
    }
}

/// Gives the turn up. What was not kept is taken back; the group is handed to the next who
/// waits, or committed on a blocking thread.
impl Drop for Turn {
    fn drop(&mut self) {
        self.undo();
        let held = self.since.elapsed();
        if held > TURN_WORTH_A_WARNING {
            tracing::warn!(
                held_ms = held.as_millis() as u64,
                "a transaction kept all others waiting; do slow work before its first statement"
            );
        }
        let Some(mut writer) = self.writer.take() else {
            return;
        };
        let waiting = self.gate.waiting.load(SeqCst);
        let next = match &writer.group {
            None => return,
            Some(group) => decide(
                group.members,
                group.begun.elapsed(),
                waiting,
                &self.gate.settings,
            ),
        };
        match next {
            Leave::HandOver => {
                drop(writer);
                self.gate.tend();
            }
            Leave::Discard => {
                writer.backend.rollback();
                if let Some(group) = writer.group.take() {
                    // Records that turned out to be duplicates wait for it, too.
                    group.outcome.send_replace(Some(Ok(())));
                }
            }
            Leave::Commit => {
                let commit = Commit {
                    gate: Arc::clone(&self.gate),
                    writer,
                };
                match Handle::try_current() {
                    Ok(runtime) => drop(runtime.spawn_blocking(move || drop(commit))),
                    Err(_) => drop(commit),
                }
            }
        }
    }
}

/// A commit on its way to a blocking thread. It happens when this is dropped, so also
/// when the runtime ends before the thread begins.
struct Commit {
    gate: Arc<Gate>,
    writer: OwnedMutexGuard<Writer>,
}

impl Drop for Commit {
    fn drop(&mut self) {
        self.gate.commit(&mut self.writer);
    }
}

impl Outcome {
    fn lost() -> Self {
        let error = Error::unavailable("the group's transaction was ended by an error");
        Self(watch::Sender::new(Some(Err(error))).subscribe())
    }

    /// Whether both are of the same group.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        self.0.same_channel(&other.0)
    }

    /// Fails when the group is known not to be durable.
    pub(crate) fn check(&self) -> Result<()> {
        self.0.borrow().clone().unwrap_or(Ok(()))
    }

    /// Waits until the group is durable.
    ///
    /// # Errors
    /// When it could not be committed: none of its members' work is kept.
    ///
    /// # Cancel safety
    /// Dropping the future changes nothing: the group commits without being watched.
    pub(crate) async fn durable(mut self) -> Result<()> {
        match self.0.wait_for(Option::is_some).await {
            Ok(outcome) => outcome.clone().unwrap_or(Ok(())),
            Err(_) => Err(Error::unavailable(
                "the database was closed before the commit",
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const YOUNG: Duration = Duration::ZERO;

    #[test]
    fn a_lone_member_commits_at_once() {
        assert_eq!(decide(1, YOUNG, 0, &Settings::default()), Leave::Commit);
    }

    #[test]
    fn a_group_is_handed_to_the_next_who_waits() {
        assert_eq!(decide(1, YOUNG, 1, &Settings::default()), Leave::HandOver);
        assert_eq!(decide(0, YOUNG, 1, &Settings::default()), Leave::HandOver);
    }

    #[test]
    fn a_large_or_old_group_commits_although_others_wait() {
        let settings = Settings::default();
        assert_eq!(
            decide(settings.group_members, YOUNG, 9, &settings),
            Leave::Commit
        );
        assert_eq!(decide(1, settings.group_time, 9, &settings), Leave::Commit);
    }

    #[test]
    fn a_group_without_members_is_not_worth_a_commit() {
        assert_eq!(decide(0, YOUNG, 0, &Settings::default()), Leave::Discard);
    }
}
