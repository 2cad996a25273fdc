//! Group commit: many units of work share one transaction, and so one wait for the disk.
//!
//! A [`Turn`] is the right to use a writing connection. Turns are given in the order in which they
//! were asked for. Whoever gets one joins the open group, or begins one, and works under a
//! savepoint of its own, so that it can be taken back alone.
//!
//! **SQLite** has one writer. On leaving, a unit either hands the open transaction to the next
//! who waits, or commits, when nobody waits or the group is large or old enough. There is no
//! timer: a lone unit commits at once, and while one group waits for the disk, the next gathers
//! in the queue.
//!
//! **PostgreSQL** has several writers, and its rows are locked one by one until the commit. Strangers in one
//! transaction would hold each other's locks, and wait for each other in circles; so here a group is the
//! records of one lane's run, and several groups commit at a time, which the server then writes
//! to the disk together. Two lanes' groups can still meet so, in rows that their records share. The server
//! would notice after a second; instead, a group with members waits for a lock only [for a moment](GROUP_LOCK_WAIT).
//! Then it gives way: it commits, which frees what it has locked, and the record that had to wait is handled again as
//! the first of the next group. That one has no locks of others' records, and waits as long as it has to. Groups of a
//! listener whose records meet so become smaller, until they seldom do ([`Room`](crate::unit::Room)).
//!
//! Nothing is left half done: a turn that is dropped takes its work back and sees to the
//! group, and a waiter that gives up checks whether it was the one to commit.

mod leave;
mod outcome;
mod turn;

use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

pub(crate) use outcome::Outcome;
pub(crate) use turn::Turn;

use crate::backend::Connection;
use crate::bell::Bell;
use crate::database::Settings;
use crate::error::{Chain, Error, Kind, Result};
use crate::stats::Stats;

/// Members of a group on PostgreSQL. Each savepoint is a subtransaction there, and a server keeps 64
/// of a transaction at hand; with more, every other transaction becomes slower.
const SUBTRANSACTIONS: usize = 60;

/// How long a record waits for a lock on PostgreSQL while its group holds those of records before it: long enough for
/// a small group to commit, since to give way costs a commit, too. A deadlock lasts that long, instead of the server's
/// `deadlock_timeout` of 1 s. With 100 ms, six lanes that changed 100 rows were ten times slower; with 2 and
/// 10 ms they were about as fast as with this.
pub(crate) const GROUP_LOCK_WAIT: Duration = Duration::from_millis(5);

/// The writing connections and those who wait for one.
pub(crate) struct Gate {
    /// Who is not at work. On SQLite it may have a group that was handed over.
    idle: Mutex<Idle>,
    permits: Arc<Semaphore>,
    /// Whether strangers share transactions.
    shares: bool,
    group_members: usize,
    waiting: AtomicUsize,
    settings: Settings,
    stats: Arc<Stats>,
    /// Rung after each commit that has new outbox rows.
    bell: Arc<Bell>,
}

struct Writer {
    connection: Connection,
    group: Option<Group>,
}

/// In boxes, since each turn moves its writer several times.
type Idle = Vec<Box<Writer>>;

/// The open transaction and its members.
struct Group {
    begun: Instant,
    members: usize,
    emitted: bool,
    outcome: watch::Sender<Option<Result<()>>>,
}

/// A writer that is at work. It goes back when this is dropped.
struct Lease {
    gate: Arc<Gate>,
    writer: Option<Box<Writer>>,
    /// Given back after the writer.
    _permit: OwnedSemaphorePermit,
}

impl Gate {
    /// One connection is shared by all; of several, each unit has one to itself.
    pub(crate) fn new(
        connections: Vec<Connection>,
        settings: Settings,
        stats: Arc<Stats>,
        bell: Arc<Bell>,
    ) -> Self {
        let shares = matches!(connections[..], [Connection::Sqlite(_)]);
        let group_members = if shares {
            settings.group_members
        } else {
            settings.group_members.min(SUBTRANSACTIONS)
        };
        let writers = connections.into_iter().map(|connection| {
            let group = None;
            Box::new(Writer { connection, group })
        });
        let idle: Idle = writers.collect();
        Self {
            permits: Arc::new(Semaphore::new(idle.len())),
            idle: Mutex::new(idle),
            shares,
            group_members,
            waiting: AtomicUsize::new(0),
            settings,
            stats,
            bell,
        }
    }

    /// Waits for a turn and joins the open group or begins one.
    ///
    /// # Cancel safety
    /// Dropping the future gives up the place in the queue and leaves nothing behind.
    pub(crate) async fn join(self: &Arc<Self>) -> Result<Turn> {
        let permit = match Arc::clone(&self.permits).try_acquire_owned() {
            Ok(permit) => permit,
            Err(_) => self.queue().await?,
        };
        let lease = self.lease(permit)?;
        match lease.group {
            Some(_) if self.shares => Ok(Turn::new(lease)),
            _ => self.begin(lease).await,
        }
    }

    /// Like [`join`](Self::join), after the group `before`, which holds the record before in the same
    /// lane. It is decided before the next one begins: where that record was not kept, this one
    /// must not be either.
    ///
    /// # Cancel safety
    /// That of [`join`](Self::join).
    pub(crate) async fn join_after(self: &Arc<Self>, before: Option<&Outcome>) -> Result<Turn> {
        let Some(before) = before else {
            return self.join().await;
        };
        if !self.shares {
            // With a turn in hand, somebody in that group could wait for us.
            before.clone().durable().await?;
        }
        let turn = self.join().await?;
        before.check()?;
        Ok(turn)
    }

    /// Begins a group. On SQLite at once when no other process writes; otherwise it waits for it
    /// on a blocking thread. That goes on when the caller gives up, so it is a turn that it ends
    /// with: dropped, it takes the transaction back.
    async fn begin(&self, mut lease: Lease) -> Result<Turn> {
        let wait = self.settings.lock_wait;
        let abandoned = lease.group.take().is_some();
        match &mut lease.connection {
            Connection::Postgres(server) => {
                // Whoever was to end it has gone with its runtime.
                if abandoned {
                    server.rollback().await;
                }
                server.begin().await?;
            }
            Connection::Sqlite(file) => match file.try_begin() {
                Ok(()) => {}
                Err(error) if error.kind() == Kind::Locked => {
                    let begun = tokio::task::spawn_blocking(move || {
                        if let Connection::Sqlite(file) = &mut lease.connection {
                            file.begin(wait)?;
                        }
                        Ok(Turn::of_new_group(lease))
                    });
                    let begun = begun.await.map_err(|gone| {
                        Error::unavailable("beginning a transaction").because(gone)
                    })?;
                    return begun.map_err(|error: Error| {
                        error.while_doing("waiting for another process that writes to the database")
                    });
                }
                Err(error) => return Err(error),
            },
        }
        Ok(Turn::of_new_group(lease))
    }

    /// Units of work in one group.
    pub(crate) fn group_members(&self) -> usize {
        self.group_members
    }

    async fn queue(self: &Arc<Self>) -> Result<OwnedSemaphorePermit> {
        let waiting = Waiting::enter(self)?;
        let wait = self.settings.turn_wait;
        let permit = tokio::time::timeout(wait, Arc::clone(&self.permits).acquire_owned()).await;
        drop(waiting);
        match permit {
            Ok(Ok(permit)) => Ok(permit),
            _ => Err(Error::unavailable(format!(
                "waiting for the database: other transactions have kept it for {wait:?}"
            ))),
        }
    }

    /// There are as many writers as permits.
    fn lease(self: &Arc<Self>, permit: OwnedSemaphorePermit) -> Result<Lease> {
        let writer = self.idle().pop();
        let writer = writer.ok_or_else(|| Error::unavailable("no writing connection is left"))?;
        Ok(Lease {
            gate: Arc::clone(self),
            writer: Some(writer),
            _permit: permit,
        })
    }

    fn idle(&self) -> MutexGuard<'_, Idle> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many wait for their turn.
    pub(crate) fn waiting(&self) -> usize {
        self.waiting.load(SeqCst)
    }

    /// Sees to a group that was handed over to somebody who then gave up.
    fn tend(self: &Arc<Self>) {
        if !self.shares || self.waiting() > 0 {
            return;
        }
        // Whoever has the writer tends the group when leaving.
        let Ok(permit) = Arc::clone(&self.permits).try_acquire_owned() else {
            return;
        };
        if let Ok(lease) = self.lease(permit)
            && lease.group.is_some()
        {
            drop(Turn::new(lease));
        }
    }

    /// Commits `writer`'s group and tells its members.
    async fn commit(&self, writer: &mut Writer) {
        let Some(group) = writer.group.take() else {
            return;
        };
        let start = Instant::now();
        let result = writer.connection.commit().await;
        match &result {
            Ok(()) => {
                self.stats.committed(group.members, start.elapsed());
                if group.emitted {
                    self.bell.ring();
                }
            }
            Err(error) => {
                self.stats.commit_failed();
                tracing::error!(
                    error = %Chain(error),
                    members = group.members,
                    "a group was not committed; its members see the database as unavailable"
                );
                writer.connection.rollback().await;
            }
        }
        group
            .outcome
            .send_replace(Some(result.map_err(not_committed)));
    }
}

/// What the members of a group are told.
fn not_committed(error: Error) -> Error {
    let kind = if error.is_full() {
        Kind::Full
    } else {
        Kind::Unavailable
    };
    error.while_doing("committing the group").seen_as(kind)
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

impl Group {
    fn new() -> Self {
        Self {
            begun: Instant::now(),
            members: 0,
            emitted: false,
            outcome: watch::Sender::new(None),
        }
    }
}

impl Writer {
    /// A serious error (a full disk, a lost connection) ends the whole transaction: then none of
    /// the group's members is kept, and all are told.
    fn mourn(&mut self, error: &Error) {
        if self.connection.in_transaction() {
            return;
        }
        if let Some(group) = self.group.take() {
            let lost = Error::unavailable("the group's transaction was ended by an error")
                .because(error.clone());
            group.outcome.send_replace(Some(Err(lost)));
        }
    }
}

#[expect(clippy::expect_used, reason = "the writer is there until the drop")]
impl Deref for Lease {
    type Target = Writer;

    fn deref(&self) -> &Writer {
        self.writer.as_deref().expect("a lease has a writer")
    }
}

#[expect(clippy::expect_used, reason = "the writer is there until the drop")]
impl DerefMut for Lease {
    fn deref_mut(&mut self) -> &mut Writer {
        self.writer.as_deref_mut().expect("a lease has a writer")
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.gate.idle().extend(self.writer.take());
    }
}
