//! SQLite: one file, one writer at a time, statements in the caller's thread.

mod file;

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use rusqlite::types::{ToSqlOutput, ValueRef};
use rusqlite::{CachedStatement, ErrorCode, ffi};

pub(crate) use file::{open_reader, open_writer};

use super::statement::{self, shortened};
use crate::error::{Chain, Error, Kind, Result};
use crate::row::{Cell, Row};
use crate::value::Value;

/// How often a locked file is tried again. Short, because the other process leaves the
/// lock for moments only while it is busy.
const LOCK_RETRY: Duration = Duration::from_millis(1);

/// A connection to a SQLite file.
pub(crate) struct Sqlite(rusqlite::Connection);

impl Sqlite {
    fn simple(&self, sql: &'static str) -> Result<()> {
        let mut statement = self
            .0
            .prepare_cached(sql)
            .map_err(|error| explain(sql, error))?;
        statement
            .raw_execute()
            .map(drop)
            .map_err(|error| explain(sql, error))
    }

    fn prepare(&self, sql: &str, params: &[Value<'_>]) -> Result<CachedStatement<'_>> {
        statement::check(sql)?;
        let mut prepared = self
            .0
            .prepare_cached(sql)
            .map_err(|error| explain(sql, error))?;
        let mut used = 0;
        for index in 1..=prepared.parameter_count() {
            let number = statement::number(prepared.parameter_name(index))?;
            let value = params
                .get(number - 1)
                .ok_or_else(|| statement::wrong_count(sql, number, params.len()))?;
            prepared
                .raw_bind_parameter(index, stored(value))
                .map_err(|error| explain(sql, error))?;
            used = used.max(number);
        }
        if used != params.len() {
            return Err(statement::wrong_count(sql, used, params.len()));
        }
        Ok(prepared)
    }
}

impl Sqlite {
    /// Begins a writing transaction, or answers `Locked` at once.
    pub(crate) fn try_begin(&mut self) -> Result<()> {
        self.simple("BEGIN IMMEDIATE")
    }

    /// Begins a writing transaction; waits at most `wait` for another process, and so is for
    /// blocking threads.
    pub(crate) fn begin(&mut self, wait: Duration) -> Result<()> {
        let start = Instant::now();
        loop {
            match self.try_begin() {
                Err(error) if error.kind() == Kind::Locked && start.elapsed() < wait => {
                    thread::sleep(LOCK_RETRY);
                }
                result => return result,
            }
        }
    }

    pub(super) fn commit(&mut self) -> Result<()> {
        self.simple("COMMIT")
    }

    pub(super) fn rollback(&mut self) {
        if self.in_transaction()
            && let Err(error) = self.simple("ROLLBACK")
        {
            tracing::warn!(error = %Chain(&error), "rolling back failed");
        }
    }

    pub(super) fn in_transaction(&self) -> bool {
        !self.0.is_autocommit()
    }

    pub(super) fn savepoint(&mut self) -> Result<()> {
        self.simple("SAVEPOINT member")
    }

    pub(super) fn release(&mut self) -> Result<()> {
        self.simple("RELEASE member")
    }

    pub(super) fn undo(&mut self) -> Result<()> {
        self.simple("ROLLBACK TO member")?;
        self.simple("RELEASE member")
    }

    pub(crate) fn execute(&mut self, sql: &str, params: &[Value<'_>]) -> Result<u64> {
        let changed = self.prepare(sql, params)?.raw_execute();
        changed
            .map(|rows| rows as u64)
            .map_err(|error| explain(sql, error))
    }

    pub(super) fn query(&mut self, sql: &str, params: &[Value<'_>]) -> Result<Vec<Row>> {
        let mut prepared = self.prepare(sql, params)?;
        let columns: Arc<[String]> = prepared.column_names().map(String::from).collect();
        let mut found = Vec::new();
        let mut rows = prepared.raw_query();
        while let Some(row) = rows.next().map_err(|error| explain(sql, error))? {
            let cells = (0..columns.len())
                .map(|place| {
                    row.get_ref(place)
                        .map_err(|error| explain(sql, error))
                        .and_then(cell)
                })
                .collect::<Result<_>>()?;
            found.push(Row::new(Arc::clone(&columns), cells));
        }
        Ok(found)
    }

    pub(super) fn run_script(&mut self, sql: &str) -> Result<()> {
        self.0
            .execute_batch(sql)
            .map_err(|error| explain(sql, error))
    }
}

/// How a parameter is stored; the table of [`Value`].
fn stored<'a>(value: &'a Value<'_>) -> ToSqlOutput<'a> {
    use rusqlite::types::Value as Owned;
    match value {
        Value::Null => ToSqlOutput::Owned(Owned::Null),
        Value::Bool(value) => ToSqlOutput::Owned(Owned::Integer((*value).into())),
        Value::Integer(value) => ToSqlOutput::Owned(Owned::Integer(*value)),
        Value::Real(value) => ToSqlOutput::Owned(Owned::Real(*value)),
        Value::Text(value) => ToSqlOutput::Borrowed(ValueRef::Text(value.as_bytes())),
        Value::Bytes(value) => ToSqlOutput::Borrowed(ValueRef::Blob(value)),
        Value::Uuid(value) => ToSqlOutput::Borrowed(ValueRef::Blob(value.as_bytes())),
        Value::Timestamp(value) => ToSqlOutput::Owned(Owned::Integer(value.as_microsecond())),
    }
}

fn cell(value: ValueRef<'_>) -> Result<Cell> {
    Ok(match value {
        ValueRef::Null => Cell::Null,
        ValueRef::Integer(value) => Cell::Integer(value),
        ValueRef::Real(value) => Cell::Real(value),
        ValueRef::Text(value) => Cell::Text(
            String::from_utf8(value.to_vec())
                .map_err(|error| Error::usage("reading a row: text is not UTF-8").because(error))?,
        ),
        ValueRef::Blob(value) => Cell::Bytes(value.to_vec()),
    })
}

/// Says which statement failed, and sorts SQLite's code into what callers act on.
pub(super) fn explain(sql: &str, error: rusqlite::Error) -> Error {
    let kind = kind(&error);
    let text = format!("running {:?}: {}", shortened(sql), words(kind));
    Error::new(kind, text)
        .violating(constraint(&error))
        .because(error)
}

/// What SQLite says of a constraint: the name of a check, table and columns of a key.
fn constraint(error: &rusqlite::Error) -> Option<String> {
    let rusqlite::Error::SqliteFailure(failure, Some(text)) = error else {
        return None;
    };
    let name = text.split_once("constraint failed: ")?.1;
    (failure.code == ErrorCode::ConstraintViolation).then(|| name.to_owned())
}

/// What a dead letter says, where the cause is not shown.
fn words(kind: Kind) -> &'static str {
    match kind {
        Kind::Unavailable => "the database is unavailable",
        Kind::Full => "the disk or the database is full",
        Kind::Locked => "another process has locked the database",
        Kind::Conflict => "another transaction was in the way",
        Kind::Unique => "a unique key exists already",
        Kind::ForeignKey => "a row that it refers to is missing",
        Kind::Constraint => "a constraint of the table is violated",
        Kind::Damaged => "the file is damaged or not a database",
        Kind::Schema | Kind::Usage | Kind::TooLarge | Kind::Fenced | Kind::Occupied => {
            "the statement is wrong"
        }
    }
}

fn kind(error: &rusqlite::Error) -> Kind {
    let rusqlite::Error::SqliteFailure(failure, _) = error else {
        return Kind::Usage;
    };
    match (failure.code, failure.extended_code) {
        (_, ffi::SQLITE_CONSTRAINT_UNIQUE | ffi::SQLITE_CONSTRAINT_PRIMARYKEY) => Kind::Unique,
        (_, ffi::SQLITE_CONSTRAINT_ROWID) => Kind::Unique,
        (_, ffi::SQLITE_CONSTRAINT_FOREIGNKEY) => Kind::ForeignKey,
        (ErrorCode::ConstraintViolation, _) => Kind::Constraint,
        (ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked, _) => Kind::Locked,
        (ErrorCode::DiskFull, _) => Kind::Full,
        (ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase, _) => Kind::Damaged,
        (
            ErrorCode::SystemIoFailure
            | ErrorCode::CannotOpen
            | ErrorCode::OutOfMemory
            | ErrorCode::ReadOnly
            | ErrorCode::PermissionDenied
            | ErrorCode::FileLockingProtocolFailed
            | ErrorCode::OperationInterrupted
            | ErrorCode::OperationAborted,
            _,
        ) => Kind::Unavailable,
        _ => Kind::Usage,
    }
}
