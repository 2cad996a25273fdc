//! Where a run's tables are, and what took effect there.

use std::path::{Path, PathBuf};

use rusqlite::Connection;
use tokio::runtime::{Builder, Runtime};
use tokio_postgres::{Client, NoTls};

use crate::Outcome;

const RESERVED: &str = "SELECT sum(reserved) FROM stock";

/// The database of one run.
pub(super) enum Store {
    /// A SQLite file.
    File(PathBuf),
    /// A schema of a PostgreSQL server.
    Schema {
        /// The server's URL.
        server: String,
        name: String,
    },
}

/// What a report says of it.
pub(super) fn name(is_server: bool) -> &'static str {
    match is_server {
        false => "SQLite, WAL, synchronous=FULL",
        true => "PostgreSQL with its own settings",
    }
}

/// A connection that the caller's thread drives.
pub(super) fn connect(server: &str) -> Outcome<(Runtime, Client)> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let (client, connection) = runtime.block_on(tokio_postgres::connect(server, NoTls))?;
    // It ends with its client, and a statement's error says why.
    drop(runtime.spawn(connection));
    Ok((runtime, client))
}

impl Store {
    pub(super) fn new(server: Option<&str>, folder: &Path, run: &str) -> Self {
        match server {
            None => Self::File(folder.join(format!("{run}.db"))),
            Some(server) => Self::Schema {
                server: server.to_owned(),
                name: run.to_owned(),
            },
        }
    }

    /// As Ackwell is told of it.
    pub(super) fn url(&self) -> String {
        match self {
            Self::File(path) => format!("sqlite:{}", path.display()),
            Self::Schema { server, name } => {
                let separator = if server.contains('?') { '&' } else { '?' };
                format!("{server}{separator}schema={name}")
            }
        }
    }

    /// Ackwell's table of stock.
    pub(super) fn stock(&self) -> &'static str {
        match self {
            Self::File(_) => {
                "CREATE TABLE stock (product INTEGER PRIMARY KEY, reserved INTEGER NOT NULL) STRICT"
            }
            Self::Schema { .. } => {
                "CREATE TABLE stock (product BIGINT PRIMARY KEY, reserved BIGINT NOT NULL)"
            }
        }
    }

    /// How many records took effect.
    pub(super) fn reserved(&self) -> Outcome<i64> {
        match self {
            Self::File(path) => {
                Ok(Connection::open(path)?.query_row(RESERVED, [], |row| row.get(0))?)
            }
            Self::Schema { server, name } => {
                let (runtime, client) = connect(server)?;
                let sum = format!("SELECT sum(reserved)::bigint FROM \"{name}\".stock");
                Ok(runtime.block_on(client.query_one(&sum, &[]))?.get(0))
            }
        }
    }

    /// What it leaves on a server. A file lies in a folder that goes with the benchmark.
    pub(super) fn remove(&self) -> Outcome<()> {
        if let Self::Schema { server, name } = self {
            let (runtime, client) = connect(server)?;
            let drop = format!("DROP SCHEMA \"{name}\" CASCADE");
            runtime.block_on(client.batch_execute(&drop))?;
        }
        Ok(())
    }
}
