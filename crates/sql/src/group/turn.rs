//! One member's time at the writing connection.

use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::time::{Duration, Instant};

use tokio::runtime::Handle;
use tokio::sync::OwnedMutexGuard;

use super::{Commit, Gate, Leave, Outcome, Writer, decide};
use crate::backend::Backend;
use crate::database::Settings;
use crate::error::{Error, Result};
use crate::row::Row;
use crate::value::Value;

/// A turn held longer than this keeps everybody waiting, and is worth a line in the log.
const TURN_WORTH_A_WARNING: Duration = Duration::from_secs(1);

/// The right to use the writing connection, with the group open.
pub(crate) struct Turn {
    gate: Arc<Gate>,
    writer: Option<OwnedMutexGuard<Writer>>,
    outcome: Outcome,
    /// Whether there is work that is neither kept nor taken back.
    pending: bool,
    since: Instant,
}

impl Turn {
    pub(super) fn new(gate: Arc<Gate>, writer: OwnedMutexGuard<Writer>) -> Self {
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

    /// Whether it belongs to the group of this outcome.
    pub(crate) fn is_of(&self, outcome: &Outcome) -> bool {
        self.outcome.is_same(outcome)
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
