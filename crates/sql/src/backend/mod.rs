//! What a database product must be able to do: the seam between SQLite and PostgreSQL.
//!
//! The rest of the crate decides when a transaction begins, who takes part and when it
//! commits; a [`Connection`] carries that out. The framework's own statements that differ are the
//! [`Statements`] of its dialect; everything else that reaches a connection is the same SQL on
//! both, the user's included, with `$1` placeholders.
//!
//! SQLite answers in the caller's thread: its futures never wait. PostgreSQL's do, and may be dropped
//! at any point; what was sent is carried out all the same, and what follows on the connection comes after it.

mod location;
mod postgres;
mod sqlite;
mod statement;

use ackwell::EncodedEvent;
use futures_util::FutureExt;

pub(crate) use location::Location;
pub(crate) use postgres::{Listener, Postgres, Server, Session};
pub(crate) use sqlite::{Sqlite, open_reader, open_writer};

use crate::error::{Error, Result};
use crate::migration::Migration;
use crate::outbox;
use crate::row::Row;
use crate::value::Value;

/// One connection that can hold a transaction.
pub(crate) enum Connection {
    /// To a file.
    Sqlite(Sqlite),
    /// To a server.
    Postgres(Box<Postgres>),
}

impl Connection {
    /// Makes all of the transaction durable, or none of it. On SQLite it waits for the disk, and
    /// is for blocking threads.
    pub(crate) async fn commit(&mut self) -> Result<()> {
        match self {
            Self::Sqlite(file) => file.commit(),
            Self::Postgres(server) => server.commit().await,
        }
    }

    /// Forgets the transaction.
    pub(crate) async fn rollback(&mut self) {
        match self {
            Self::Sqlite(file) => file.rollback(),
            Self::Postgres(server) => server.rollback().await,
        }
    }

    /// Whether a transaction is open; a serious error may have ended it.
    pub(crate) fn in_transaction(&self) -> bool {
        match self {
            Self::Sqlite(file) => file.in_transaction(),
            Self::Postgres(server) => server.in_transaction(),
        }
    }

    /// Marks the place to which [`undo`](Self::undo) goes back.
    pub(crate) fn savepoint(&mut self) -> Result<()> {
        match self {
            Self::Sqlite(file) => file.savepoint(),
            Self::Postgres(server) => server.savepoint(),
        }
    }

    /// Keeps what was done since the savepoint.
    pub(crate) fn release(&mut self) -> Result<()> {
        match self {
            Self::Sqlite(file) => file.release(),
            Self::Postgres(server) => server.release(),
        }
    }

    /// Takes back what was done since the savepoint.
    pub(crate) async fn undo(&mut self) -> Result<()> {
        match self {
            Self::Sqlite(file) => file.undo(),
            Self::Postgres(server) => server.undo().await,
        }
    }

    /// Adds an event to the outbox. On a server its row is written when the transaction commits.
    pub(crate) async fn emit(&mut self, event: EncodedEvent) -> Result<()> {
        match self {
            Self::Sqlite(file) => outbox::insert(file, &event),
            Self::Postgres(server) => server.emit(event).await,
        }
    }

    /// Runs a statement and says how many rows it changed.
    pub(crate) async fn execute(&mut self, sql: &str, params: &[Value<'_>]) -> Result<u64> {
        match self {
            Self::Sqlite(file) => file.execute(sql, params),
            Self::Postgres(server) => server.execute(sql, params).await,
        }
    }

    /// Runs a query.
    pub(crate) async fn query(&mut self, sql: &str, params: &[Value<'_>]) -> Result<Vec<Row>> {
        match self {
            Self::Sqlite(file) => file.query(sql, params),
            Self::Postgres(server) => server.query(sql, params).await,
        }
    }

    /// Runs a script of statements without parameters.
    pub(crate) async fn run_script(&mut self, sql: &str) -> Result<()> {
        match self {
            Self::Sqlite(file) => file.run_script(sql),
            Self::Postgres(server) => server.run_script(sql).await,
        }
    }

    /// Whether it is there, as far as is known.
    pub(crate) fn is_linked(&self) -> bool {
        match self {
            Self::Sqlite(_) => true,
            Self::Postgres(server) => server.is_linked(),
        }
    }

    /// What this database says in its own words.
    pub(crate) fn dialect(&self) -> Dialect {
        match self {
            Self::Sqlite(_) => Dialect::Sqlite,
            Self::Postgres(_) => Dialect::Postgres,
        }
    }
}

/// Which SQL a database speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dialect {
    /// SQLite's.
    Sqlite,
    /// PostgreSQL's.
    Postgres,
}

impl Dialect {
    /// The framework's own statements.
    pub(crate) fn statements(self) -> &'static Statements {
        match self {
            Self::Sqlite => &crate::schema::SQLITE,
            Self::Postgres => &crate::schema::POSTGRES,
        }
    }
}

/// The framework's own statements where the dialects differ.
#[derive(Debug)]
pub(crate) struct Statements {
    /// Before the schema is looked at: nobody else may change it until the transaction ends.
    pub(crate) lock_schema: Option<&'static str>,
    /// Creates the table of applied migrations, if it is missing.
    pub(crate) history: &'static str,
    /// Creates the framework's tables.
    pub(crate) schema: &'static [Migration],
    /// Waits for all transactions that rely on being the owner of partition `$3` of group `$1` and topic `$2`.
    pub(crate) await_owners: Option<&'static str>,
    /// The epoch of ordered partition `$1`, which nobody can count up before the transaction ends.
    pub(crate) epoch: &'static str,
}

/// The end of a future that never waits, as SQLite's are.
pub(crate) fn at_once<T>(future: impl Future<Output = Result<T>>) -> Result<T> {
    let waits = || Err(Error::usage("a connection waits that must not"));
    future.now_or_never().unwrap_or_else(waits)
}
