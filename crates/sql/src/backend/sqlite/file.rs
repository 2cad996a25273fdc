//! Opening a file so that what is wrong is said at once.

use std::path::Path;
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};

use super::{Sqlite, explain};
use crate::error::{Error, Kind, Result};

/// Distinct statements kept prepared on a connection; more are prepared anew each time.
const STATEMENTS: usize = 256;

/// Settings of every connection. FULL makes a commit durable before it returns; a lower
/// checkpoint rate than SQLite's 1,000 pages costs 16 MiB of log and saves fsyncs.
const CONNECTION: &str = "PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON;
    PRAGMA temp_store = MEMORY; PRAGMA wal_autocheckpoint = 4000;";

/// Pages that the writing connection keeps, in KiB: the inner pages of a large inbox and of
/// indexes on random ids. What is not among them is read from the system's cache.
const WRITER_CACHE_KIB: u32 = 4096;

/// Pages that a reading connection keeps, in KiB. Little: with each commit of another
/// connection SQLite forgets them all.
const READER_CACHE_KIB: u32 = 1024;

/// Opens the one writing connection; creates folder and file where they are missing.
/// Blocks, and waits at most `wait` for another process.
pub(crate) fn open_writer(path: &Path, wait: Duration, size_max: Option<u64>) -> Result<Sqlite> {
    if let Some(folder) = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty())
    {
        std::fs::create_dir_all(folder).map_err(|error| {
            Error::unavailable(format!("creating the data folder {}", folder.display()))
                .because(error)
        })?;
    }
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE;
    let connection = open(path, flags, wait, WRITER_CACHE_KIB)?;
    let ready = || -> rusqlite::Result<()> {
        let mode: String =
            connection.query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0))?;
        if !mode.eq_ignore_ascii_case("wal") {
            tracing::warn!(path = %path.display(), mode, "the file system refuses a write-ahead log");
        }
        connection.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(()))?;
        if let Some(size_max) = size_max {
            let page: i64 = connection.query_row("PRAGMA page_size", [], |row| row.get(0))?;
            let pages = i64::try_from(size_max).unwrap_or(i64::MAX) / page;
            connection.query_row(&format!("PRAGMA max_page_count = {pages}"), [], |_| Ok(()))?;
        }
        // Waiting happens where it is bounded and off the async threads: in `Sqlite::begin`.
        connection.busy_timeout(Duration::ZERO)
    };
    ready().map_err(|error| mended(path, explain("reading the database", error)))?;
    Ok(Sqlite(connection))
}

/// Opens a connection that can only read, for blocking threads: it waits for locks itself.
pub(crate) fn open_reader(path: &Path, wait: Duration) -> Result<Sqlite> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY;
    let connection = open(path, flags, wait, READER_CACHE_KIB)?;
    Ok(Sqlite(connection))
}

fn open(path: &Path, flags: OpenFlags, wait: Duration, cache_kib: u32) -> Result<Connection> {
    // Each connection is used by one thread at a time, behind a lock of ours.
    let flags = flags | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags).and_then(|connection| {
        connection.set_prepared_statement_cache_capacity(STATEMENTS);
        connection.busy_timeout(wait)?;
        // One plan for a statement, whatever is bound to it. Otherwise SQLite parses and plans
        // anew, each time, what has a parameter in its LIMIT or in a range.
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
        connection.execute_batch(CONNECTION)?;
        // Below zero it counts KiB instead of pages.
        connection.pragma_update(None, "cache_size", -i64::from(cache_kib))?;
        Ok(connection)
    });
    connection.map_err(|error| mended(path, explain("opening the database", error)))
}

/// Adds which file it is and what to do about it.
fn mended(path: &Path, error: Error) -> Error {
    let path = path.display();
    match error.kind() {
        Kind::Damaged => error.while_doing(format_args!(
            "opening {path}: the file is damaged, cut short, or not a SQLite database; \
             restore it and its -wal file from a backup, or move it away to begin anew"
        )),
        Kind::Locked => error.while_doing(format_args!(
            "opening {path}: another process has locked it"
        )),
        _ => error.while_doing(format_args!("opening {path}")),
    }
}
