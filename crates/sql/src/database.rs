//! A service's database: one writer that all units of work share, and readers beside it.

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use crate::backend::{Connection, Location, Postgres, Server, Session, at_once, open_writer};
use crate::bell::Bell;
use crate::error::{Error, Result};
use crate::group::Gate;
use crate::migration::{Migration, migrate};
use crate::readers::Readers;
use crate::row::Row;
use crate::stats::{Counts, Stats};
use crate::tx::Tx;
use crate::value::Value;

/// Limits of a database. [`Settings::default`] has the values named here.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct Settings {
    /// Units of work in one group commit; 500. More gain little, and repeat more on a crash.
    /// On PostgreSQL at most 60: a transaction with more savepoints slows all others down. Less there while records
    /// of a listener's lanes have to wait for each other's locks.
    pub group_members: usize,
    /// Age at which a group commits although others wait; 20 ms, which bounds what a
    /// member of a busy group waits for. On PostgreSQL it is also how long others wait for its locks.
    pub group_time: Duration,
    /// How long a unit waits for its turn; 10 s. Longer means that somebody keeps the
    /// transaction open, and is answered with an error that says so.
    pub turn_wait: Duration,
    /// How many may wait for their turn; 10,000. More are answered at once as unavailable.
    pub waiters_max: usize,
    /// How long to wait for another process that writes to the same SQLite file, and for a row or
    /// table that another transaction has locked on PostgreSQL; 5 s. There, a record that shares a transaction with
    /// records before it waits 5 ms; then they are committed, and it is handled again by itself, at the same
    /// attempt. Otherwise two lanes that lock the same rows in another order would wait for each other.
    pub lock_wait: Duration,
    /// Connections for [`Database::query`]; 4.
    pub readers: usize,
    /// Transactions that write at a time on PostgreSQL, each on a connection of its own; 8. Made
    /// when they are needed. A SQLite file has one writer.
    pub writers: usize,
    /// How long a transaction may stand still on PostgreSQL before the server ends it; 30 s. Its
    /// process may be stopped or cut off, and others wait for what it has locked.
    pub idle_max: Duration,
    /// Bytes that a SQLite file may grow to; no limit. Beyond it the database answers
    /// that it is full, as it does when the disk is.
    pub size_max: Option<u64>,
    /// Bytes of an emitted event, key and headers included; 1,000,000, what brokers take
    /// by default. A larger one is refused when it is emitted, while the caller is there
    /// to hear it; in the outbox it would stop all that follow.
    pub message_bytes_max: usize,
    /// How long the inbox remembers a record; 7 days, the retention of topics that declare none. At
    /// least the retention of the topics that listeners read: a record that comes again after its mark
    /// is gone takes effect again. All apps on a database should have the same.
    pub inbox_retention: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            group_members: 500,
            group_time: Duration::from_millis(20),
            turn_wait: Duration::from_secs(10),
            waiters_max: 10_000,
            lock_wait: Duration::from_secs(5),
            readers: 4,
            writers: 8,
            idle_max: Duration::from_secs(30),
            size_max: None,
            message_bytes_max: 1_000_000,
            inbox_retention: Duration::from_secs(7 * 24 * 3600),
        }
    }
}

/// The events that wait to be published.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Outbox {
    /// How many there are.
    pub depth: u64,
    /// When the oldest was emitted; on PostgreSQL, when its transaction committed.
    pub oldest: Option<Timestamp>,
}

impl Outbox {
    /// How long the oldest has waited; zero when there is none.
    pub fn age(&self) -> Duration {
        let age = self
            .oldest
            .map(|oldest| Timestamp::now().duration_since(oldest));
        age.and_then(|age| Duration::try_from(age).ok())
            .unwrap_or_default()
    }
}

/// A database; cheap to clone, all clones share its connections.
///
/// Give it to the app as state: handlers then ask for a [`Tx`], and everything they do
/// with it commits together with the mark that their record was handled.
#[derive(Clone)]
pub struct Database {
    shared: Arc<Shared>,
}

struct Shared {
    location: Location,
    settings: Settings,
    /// Closed before the writer: a connection that cannot write would leave the write-ahead log behind, and a
    /// database file without it is not whole.
    readers: Arc<Readers>,
    gate: Arc<Gate>,
    stats: Arc<Stats>,
    bell: Arc<Bell>,
}

impl Database {
    /// Opens the database that `url` names and brings its schema up to date.
    ///
    /// `sqlite:path/to/file.db` is a file; it and its folder are created where they are
    /// missing. `postgres://user:password@host:port/database` is a PostgreSQL server, 13 or newer;
    /// with `?schema=name` the tables are in a schema of that name, which is created where it is missing.
    ///
    /// TLS is asked for as with libpq: `sslmode` (`disable`; `prefer`, the default, if the server can;
    /// `require`; `verify-ca`, signed by whom `sslrootcert` names; `verify-full`, and for this host),
    /// `sslrootcert` (a file, or `system`), and `sslcert` with `sslkey` for servers that want to know
    /// their clients. Only `verify-full` keeps out who answers in the server's place.
    ///
    /// # Errors
    /// When the file is damaged or no database, was written by a newer program, an applied
    /// migration has changed, or another process keeps it locked for longer than
    /// [`Settings::lock_wait`]. The error says what mends it.
    pub async fn open(url: &str, migrations: &[Migration]) -> Result<Self> {
        Self::open_with(url, migrations, Settings::default()).await
    }

    /// Like [`open`](Self::open), with other limits.
    ///
    /// # Errors
    /// Those of [`open`](Self::open).
    pub async fn open_with(
        url: &str,
        migrations: &[Migration],
        settings: Settings,
    ) -> Result<Self> {
        let location = Location::parse(url)?;
        let writers = match &location {
            Location::File(path) => {
                let (path, migrations) = (path.clone(), migrations.to_vec());
                let opened =
                    tokio::task::spawn_blocking(move || open_file(&path, &migrations, &settings));
                let opened = opened
                    .await
                    .map_err(|gone| Error::unavailable("opening the database").because(gone))?;
                opened.map(|file| vec![file])
            }
            Location::Server(server) => open_server(server, migrations, &settings).await,
        };
        let writers =
            writers.map_err(|error| error.while_doing(format_args!("opening {location}")))?;
        Ok(Self::new(location, writers, settings))
    }

    fn new(location: Location, writers: Vec<Connection>, settings: Settings) -> Self {
        let session = session(&settings, true);
        let readers = Readers::new(location.clone(), settings.readers, session);
        let stats = Arc::new(Stats::default());
        let far = location
            .server()
            .map(|server| Postgres::new(Arc::clone(server), self::session(&settings, false)));
        let bell = Arc::new(Bell::new(far));
        let gate = Gate::new(writers, settings, Arc::clone(&stats), Arc::clone(&bell));
        let shared = Shared {
            location,
            settings,
            gate: Arc::new(gate),
            readers: Arc::new(readers),
            stats,
            bell,
        };
        Self {
            shared: Arc::new(shared),
        }
    }

    /// A transaction outside of a listener, such as an HTTP request's.
    ///
    /// It opens at its first statement. Dropped without [`Tx::commit`], it leaves nothing.
    ///
    /// ```no_run
    /// # use ackwell_sql::{Database, params};
    /// # async fn f(db: Database) -> Result<(), ackwell_sql::Error> {
    /// let mut tx = db.begin();
    /// tx.execute("INSERT INTO orders (id, total) VALUES ($1, $2)", params!["o-1", 1250_i64]).await?;
    /// tx.commit().await?;
    /// # Ok(()) }
    /// ```
    pub fn begin(&self) -> Tx {
        Tx::own(self.clone())
    }

    /// Reads what is committed, beside the writers and without waiting for them.
    ///
    /// # Errors
    /// When the statement is wrong or would write, or the database is unavailable.
    ///
    /// # Cancel safety
    /// Dropping the future drops the answer; the query itself still runs to its end.
    pub async fn query(&self, sql: &str, params: &[Value<'_>]) -> Result<Vec<Row>> {
        self.shared.readers.query(sql, params).await
    }

    /// Like [`query`](Self::query), for at most one row: the first, if there are several.
    ///
    /// # Errors
    /// Those of [`query`](Self::query).
    pub async fn query_opt(&self, sql: &str, params: &[Value<'_>]) -> Result<Option<Row>> {
        Ok(self.query(sql, params).await?.into_iter().next())
    }

    /// The events that wait to be published. On PostgreSQL they are counted, which takes some
    /// 100 ms for a million.
    ///
    /// # Errors
    /// When the database is unavailable.
    pub async fn outbox(&self) -> Result<Outbox> {
        let depth = match self.location() {
            // Ids are given in a row and deleted in a row, so their ends tell the depth without counting.
            Location::File(_) => {
                "coalesce((SELECT max(id) FROM ackwell_outbox) \
                 - (SELECT min(id) FROM ackwell_outbox) + 1, 0)"
            }
            // What is rolled back leaves gaps, and a row that is committed late is behind one.
            Location::Server(_) => "(SELECT count(*) FROM ackwell_outbox)",
        };
        let oldest = "(SELECT created_at FROM ackwell_outbox ORDER BY id LIMIT 1)";
        let sql = format!("SELECT {depth} AS depth, {oldest} AS oldest");
        let row = self.query_opt(&sql, &[]).await?;
        let Some(row) = row else {
            return Ok(Outbox::default());
        };
        let depth = u64::try_from(row.get::<i64>("depth")?).unwrap_or(0);
        Ok(Outbox {
            depth,
            oldest: row.get("oldest")?,
        })
    }

    /// What this database has done since it was opened.
    pub fn counts(&self) -> Counts {
        self.shared.stats.counts()
    }

    /// How many wait for their turn to write.
    pub fn waiting(&self) -> usize {
        self.shared.gate.waiting()
    }

    /// A short name for health and logs: the file's, without its ending; on PostgreSQL the schema's
    /// or the database's.
    pub fn name(&self) -> String {
        self.shared.location.name()
    }

    pub(crate) fn location(&self) -> &Location {
        &self.shared.location
    }

    pub(crate) fn settings(&self) -> &Settings {
        &self.shared.settings
    }

    pub(crate) fn gate(&self) -> &Arc<Gate> {
        &self.shared.gate
    }

    pub(crate) fn stats(&self) -> &Stats {
        &self.shared.stats
    }

    /// Rung after each commit that has outbox rows.
    pub(crate) fn bell(&self) -> &Arc<Bell> {
        &self.shared.bell
    }
}

/// The one writer of a file, with the schema up to date. Blocks.
fn open_file(path: &Path, migrations: &[Migration], settings: &Settings) -> Result<Connection> {
    let mut file = open_writer(path, settings.lock_wait, settings.size_max)?;
    file.begin(settings.lock_wait)?;
    let mut connection = Connection::Sqlite(file);
    at_once(migrate(&mut connection, migrations))?;
    at_once(connection.commit())?;
    Ok(connection)
}

/// The writers of a server, with the schema up to date. One of them is connected.
async fn open_server(
    server: &Arc<Server>,
    migrations: &[Migration],
    settings: &Settings,
) -> Result<Vec<Connection>> {
    let session = session(settings, false);
    let mut first = Postgres::new(Arc::clone(server), session);
    first.begin().await?;
    first.create_schema().await?;
    let mut first = Connection::Postgres(Box::new(first));
    migrate(&mut first, migrations).await?;
    first.commit().await?;
    let others = (1..settings.writers).map(|_| {
        let postgres = Postgres::new(Arc::clone(server), session);
        Connection::Postgres(Box::new(postgres))
    });
    let mut writers: Vec<_> = others.collect();
    // The last one is taken first.
    writers.push(first);
    Ok(writers)
}

fn session(settings: &Settings, read_only: bool) -> Session {
    Session {
        lock_wait: settings.lock_wait,
        idle_max: settings.idle_max,
        read_only,
    }
}

impl fmt::Debug for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Database")
            .field("location", &self.shared.location)
            .finish_non_exhaustive()
    }
}
