//! One member's time at a writing connection.

use std::time::{Duration, Instant};

use ackwell::EncodedEvent;

use super::leave::leave;
use super::{Group, Lease, Outcome};
use crate::backend::{Connection, Dialect};
use crate::error::{Error, Kind, Result};
use crate::row::Row;
use crate::value::Value;

/// A turn held longer than this keeps everybody waiting, and is worth a line in the log.
const TURN_WORTH_A_WARNING: Duration = Duration::from_secs(1);

/// The right to use a writing connection, with the group open.
///
/// Dropping it gives it up: what was not kept is taken back; the group is handed to the next who
/// waits, or committed in the background.
///
/// # Cancel safety
/// Of all its async functions: a future that is dropped may have done its work all the same; then
/// drop the turn.
pub(crate) struct Turn {
    lease: Option<Lease>,
    outcome: Outcome,
    /// Whether there is work that is neither kept nor taken back.
    pending: bool,
    since: Instant,
}

impl Turn {
    pub(super) fn new(lease: Lease) -> Self {
        let outcome = match &lease.group {
            Some(group) => Outcome(group.outcome.subscribe()),
            None => Outcome::lost(),
        };
        Self {
            lease: Some(lease),
            outcome,
            pending: false,
            since: Instant::now(),
        }
    }

    /// The first turn of the group whose transaction has just begun.
    pub(super) fn of_new_group(mut lease: Lease) -> Self {
        lease.group = Some(Group::new());
        Self::new(lease)
    }

    /// Marks where [`undo`](Self::undo) goes back to.
    pub(crate) fn start(&mut self) -> Result<()> {
        let marked = self.open()?.connection.savepoint();
        self.concluded(marked)?;
        self.pending = true;
        Ok(())
    }

    pub(crate) async fn execute(&mut self, sql: &str, params: &[Value<'_>]) -> Result<u64> {
        let changed = self.open()?.connection.execute(sql, params).await;
        self.concluded(changed)
    }

    pub(crate) async fn query(&mut self, sql: &str, params: &[Value<'_>]) -> Result<Vec<Row>> {
        let rows = self.open()?.connection.query(sql, params).await;
        self.concluded(rows)
    }

    /// Adds an event to the outbox.
    pub(crate) async fn emit(&mut self, event: EncodedEvent) -> Result<()> {
        let emitted = self.open()?.connection.emit(event).await;
        self.concluded(emitted)
    }

    /// Marks events as handled by `group`, all in one statement; answers those that are new. `None` on a file,
    /// where many statements cost no more than one.
    pub(crate) async fn mark(
        &mut self,
        group: &str,
        events: &[&[u8]],
    ) -> Result<Option<Vec<Vec<u8>>>> {
        let Connection::Postgres(server) = &mut self.open()?.connection else {
            return Ok(None);
        };
        let new = server.mark(group, events).await;
        self.concluded(new).map(Some)
    }

    /// Has an event marked as handled by `group` with the statement that comes next, which must come at once;
    /// answers `false` on a file, where nothing is gained by that.
    pub(crate) fn mark_ahead(
        &mut self,
        group: &str,
        event: impl FnOnce() -> Vec<u8>,
    ) -> Result<bool> {
        let Connection::Postgres(server) = &mut self.open()?.connection else {
            return Ok(false);
        };
        server.mark_ahead(group, event());
        Ok(true)
    }

    /// Whether a mark goes with the statement that comes next.
    pub(crate) fn is_marking(&self) -> bool {
        let lease = self.lease.as_ref();
        lease.is_some_and(|lease| match &lease.connection {
            Connection::Postgres(server) => server.is_marking(),
            Connection::Sqlite(_) => false,
        })
    }

    /// Whether the last statement brought to light that its record was marked before.
    pub(crate) fn is_duplicate(&self) -> bool {
        let lease = self.lease.as_ref();
        lease.is_some_and(|lease| match &lease.connection {
            Connection::Postgres(server) => server.is_duplicate(),
            Connection::Sqlite(_) => false,
        })
    }

    /// The writer, as long as its group is open.
    fn open(&mut self) -> Result<&mut Lease> {
        let open = self.lease.as_mut().filter(|lease| lease.group.is_some());
        open.ok_or_else(|| Error::unavailable("the group's transaction was ended by an error"))
    }

    /// Looks whether the transaction is still there.
    fn concluded<T>(&mut self, result: Result<T>) -> Result<T> {
        let Some(lease) = &mut self.lease else {
            return result;
        };
        match result {
            Err(error) => {
                lease.mourn(&error);
                Err(error)
            }
            // Ended by the statement itself, which the check of statements did not catch.
            Ok(_) if !lease.connection.in_transaction() => {
                let error = Error::usage("a statement ended the shared transaction");
                lease.mourn(&error);
                Err(error)
            }
            done => done,
        }
    }

    /// Keeps the work: it becomes durable with the group.
    pub(crate) fn keep(&mut self, emitted: bool) -> Result<()> {
        let kept = self.open()?.connection.release();
        self.concluded(kept)?;
        self.pending = false;
        let lease = self.open()?;
        let shares = lease.gate.shares;
        if let Some(group) = &mut lease.group {
            if group.members == 0 && !shares {
                // Its first member may have waited for locks. From now on the group has locks that others wait for.
                group.begun = Instant::now();
            }
            group.members += 1;
            group.emitted |= emitted;
        }
        Ok(())
    }

    /// Takes the work back, and only this work.
    pub(crate) async fn undo(&mut self) {
        if self.pending
            && let Some(lease) = &mut self.lease
        {
            lease.undo().await;
            self.pending = false;
        }
    }

    /// Whether the member at work failed only because its group holds locks of members before it, so that it is
    /// to be taken back, and handled again when they are committed.
    pub(crate) fn gives_way(&self, error: &Error) -> bool {
        matches!(error.kind(), Kind::Locked | Kind::Conflict) && self.members() > 0
    }

    /// Takes the member at work back and gives the turn up, so that those before it are committed; answers how
    /// many they are.
    pub(crate) async fn give_way(mut self) -> usize {
        self.undo().await;
        if let Some(lease) = &self.lease {
            lease.gate.stats.gave_way();
        }
        self.members()
    }

    /// Members of the group that are kept.
    pub(crate) fn members(&self) -> usize {
        let group = self.lease.as_ref().and_then(|lease| lease.group.as_ref());
        group.map_or(0, |group| group.members)
    }

    /// Whether the group should be committed before it takes another member.
    pub(crate) fn is_full(&self) -> bool {
        let Some(lease) = &self.lease else {
            return true;
        };
        let Some(group) = &lease.group else {
            return true;
        };
        let gate = &lease.gate;
        group.members >= gate.group_members || group.begun.elapsed() >= gate.settings.group_time
    }

    /// Whether it belongs to the group of this outcome.
    pub(crate) fn is_of(&self, outcome: &Outcome) -> bool {
        self.outcome.is_same(outcome)
    }

    /// The outcome of the group that this turn belongs to.
    pub(crate) fn outcome(&self) -> Outcome {
        self.outcome.clone()
    }

    /// Which SQL is spoken.
    pub(crate) fn dialect(&self) -> Dialect {
        let lease = self.lease.as_ref();
        lease.map_or(Dialect::Sqlite, |lease| lease.connection.dialect())
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let held = self.since.elapsed();
        if held > TURN_WORTH_A_WARNING {
            tracing::warn!(
                held_ms = held.as_millis() as u64,
                "a transaction was kept open for long; do slow work before its first statement"
            );
        }
        if let Some(lease) = self.lease.take() {
            leave(lease, self.pending);
        }
    }
}
