//! What a database product must be able to do: the seam at which PostgreSQL joins.
//!
//! The rest of the crate decides when a transaction begins, who takes part and when it
//! commits; a [`Backend`] carries that out on one connection. The framework's own
//! statements are the [`Statements`] of its dialect; everything else that reaches a
//! backend is the user's SQL with `$1` placeholders.

mod file;
mod sqlite;
mod statement;

use std::time::Duration;

pub(crate) use file::{Location, open_reader, open_writer};

use crate::error::Result;
use crate::migration::Migration;
use crate::row::Row;
use crate::value::Value;

/// One connection that can hold a transaction.
///
/// Every method may block for as long as a statement takes; [`begin`](Self::begin) and
/// [`commit`](Self::commit) may also wait for locks and for the disk, and are for
/// blocking threads.
pub(crate) trait Backend: Send {
    /// Begins a writing transaction, or answers `Locked` at once.
    fn try_begin(&mut self) -> Result<()>;
    /// Begins a writing transaction; waits at most `wait` for another process.
    fn begin(&mut self, wait: Duration) -> Result<()>;
    /// Makes all of the transaction durable, or none of it.
    fn commit(&mut self) -> Result<()>;
    /// Forgets the transaction.
    fn rollback(&mut self);
    /// Whether a transaction is open; a serious error may have ended it.
    fn in_transaction(&self) -> bool;

    /// Marks the place to which [`undo`](Self::undo) goes back.
    fn savepoint(&mut self) -> Result<()>;
    /// Keeps what was done since the savepoint.
    fn release(&mut self) -> Result<()>;
    /// Takes back what was done since the savepoint.
    fn undo(&mut self) -> Result<()>;

    /// Runs a statement and says how many rows it changed.
    fn execute(&mut self, sql: &str, params: &[Value<'_>]) -> Result<u64>;
    /// Runs a query.
    fn query(&mut self, sql: &str, params: &[Value<'_>]) -> Result<Vec<Row>>;
    /// Runs a script of statements without parameters.
    fn run_script(&mut self, sql: &str) -> Result<()>;

    /// The framework's own statements, as this database says them.
    fn statements(&self) -> &'static Statements;
}

/// The framework's own statements in one dialect.
#[derive(Debug)]
pub(crate) struct Statements {
    /// Creates the framework's tables.
    pub(crate) schema: &'static [Migration],
}
