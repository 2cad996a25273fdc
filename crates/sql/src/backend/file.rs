//! Where a database is, and opening it so that what is wrong is said at once.

use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};

use super::Backend;
use super::sqlite::{Sqlite, explain};
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

/// Which database a URL means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Location {
    /// A SQLite file.
    File(PathBuf),
}

impl Location {
    /// Reads `sqlite:path`.
    pub(crate) fn parse(url: &str) -> Result<Self> {
        if let Some(path) = url.strip_prefix("sqlite:") {
            let path = path.strip_prefix("//").unwrap_or(path);
            return match path {
                "" | ":memory:" => Err(Error::usage(format!(
                    "opening {url:?}: a database needs a file that outlives the program; \
                     write sqlite:path/to/file.db"
                ))),
                path => Ok(Self::File(PathBuf::from(path))),
            };
        }
        if url.starts_with("postgres:") || url.starts_with("postgresql:") {
            return Err(Error::usage(
                "opening DATABASE_URL: PostgreSQL is not supported yet; \
                 use sqlite:path/to/file.db",
            ));
        }
        Err(Error::usage(
            "opening DATABASE_URL: it begins with neither sqlite: nor postgres:; \
             write sqlite:path/to/file.db",
        ))
    }

    pub(crate) fn path(&self) -> &Path {
        match self {
            Self::File(path) => path,
        }
    }
}

/// Opens the one writing connection; creates folder and file where they are missing.
/// Blocks, and waits at most `wait` for another process.
pub(crate) fn open_writer(
    location: &Location,
    wait: Duration,
    size_max: Option<u64>,
) -> Result<Box<dyn Backend>> {
    let Location::File(path) = location;
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
        // Waiting happens where it is bounded and off the async threads: in `Backend::begin`.
        connection.busy_timeout(Duration::ZERO)
    };
    ready().map_err(|error| mended(path, explain("reading the database", error)))?;
    Ok(Box::new(Sqlite(connection)))
}

/// Opens a connection that can only read, for blocking threads: it waits for locks itself.
pub(crate) fn open_reader(location: &Location, wait: Duration) -> Result<Box<dyn Backend>> {
    let Location::File(path) = location;
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY;
    let connection = open(path, flags, wait, READER_CACHE_KIB)?;
    Ok(Box::new(Sqlite(connection)))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_names_a_file() {
        for url in ["sqlite:data/orders.db", "sqlite://data/orders.db"] {
            assert_eq!(
                Location::parse(url).unwrap().path(),
                Path::new("data/orders.db")
            );
        }
        assert_eq!(
            Location::parse("sqlite:///srv/x.db").unwrap().path(),
            Path::new("/srv/x.db")
        );
    }

    #[test]
    fn postgres_is_answered_with_not_yet_and_without_its_password() {
        let error = Location::parse("postgres://ackwell:secret@db/orders").unwrap_err();
        assert!(
            error
                .to_string()
                .contains("PostgreSQL is not supported yet")
        );
        assert!(!error.to_string().contains("secret"));
    }

    #[test]
    fn a_database_in_memory_is_refused() {
        assert!(Location::parse("sqlite::memory:").is_err());
        assert!(Location::parse("sqlite:").is_err());
        assert!(Location::parse("orders.db").is_err());
    }
}
