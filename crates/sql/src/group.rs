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

mod outcome;
mod turn;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::{Duration, Instant};

use tokio::sync::{Mutex, Notify, OwnedMutexGuard, watch};

pub(crate) use outcome::Outcome;
pub(crate) use turn::Turn;

use crate::backend::Backend;
use crate::database::Settings;
use crate::error::{Chain, Error, Kind, Result};
use crate::stats::Stats;

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
            let kind = if error.is_full() {
                Kind::Full
            } else {
                Kind::Unavailable
            };
            error.while_doing("committing the group").seen_as(kind)
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
