//! PostgreSQL: several writers at a time, statements over a connection.
//!
//! A round trip costs more than most statements, so what needs no answer travels with what comes
//! next: savepoints are set and released that way, and a record is marked that way. `BEGIN` is awaited, since a statement
//! that comes after one that failed would take effect by itself.

mod ahead;
mod emitted;
mod error;
mod listener;
mod numeric;
mod outbox;
mod server;
mod tls;
mod value;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{join, join3};
use tokio::task::JoinHandle;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Statement};

use super::statement;
use crate::error::{Chain, Error, Kind, Result};
use crate::group::GROUP_LOCK_WAIT;
use crate::inbox;
use crate::row::Row;
use crate::value::Value;
use ahead::{Ahead, Mark, insert};
use emitted::Emitted;
use error::explain;
pub(crate) use listener::Listener;
pub(crate) use server::{Server, Session};
use value::Bound;

/// Distinct statements kept prepared on a connection; then they are prepared anew.
const STATEMENTS: usize = 256;

/// The channel on which is told that outbox rows were committed. What is said is the schema's name.
const EMITTED: &str = "ackwell_outbox";

/// A connection to a server; made when it is needed, and again when it was lost.
pub(crate) struct Postgres {
    server: Arc<Server>,
    session: Session,
    link: Option<Link>,
    /// Whether a transaction is open that should be.
    open: bool,
    /// Whether the server may have one open that was given up.
    stale: bool,
    /// Whose locks the transaction holds, and how long it waits for others'.
    locks: Locks,
    /// What is sent before the next statement.
    ahead: String,
    /// The mark of the member at work.
    mark: Ahead,
    /// What is written to the outbox last.
    emitted: Emitted,
}

/// Whose locks a transaction holds.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Locks {
    /// Those of the member at work: it waits as the session does.
    #[default]
    Own,
    /// Also those of members that are kept: from the next member on, it is to wait for a moment only.
    Members,
    /// The same, and the server knows how long to wait.
    Brief,
}

struct Link {
    client: Client,
    statements: HashMap<Box<str>, Prepared>,
    /// Ends when the client is dropped, or the connection lost.
    _driver: JoinHandle<()>,
}

#[derive(Clone)]
struct Prepared {
    statement: Statement,
    columns: Arc<[String]>,
}

impl Postgres {
    pub(crate) fn new(server: Arc<Server>, session: Session) -> Self {
        Self {
            server,
            session,
            link: None,
            open: false,
            stale: false,
            locks: Locks::Own,
            ahead: String::new(),
            mark: Ahead::Nothing,
            emitted: Emitted::default(),
        }
    }

    /// Begins a transaction, on a new connection where the one before was lost.
    ///
    /// # Cancel safety
    /// Dropping the future leaves nothing that the next transaction would see.
    pub(crate) async fn begin(&mut self) -> Result<()> {
        self.ahead.clear();
        self.mark = Ahead::Nothing;
        self.emitted.clear();
        self.locks = Locks::Own;
        self.open = false;
        if self.is_linked() {
            match self.send_begin().await {
                Err(error) if !self.is_linked() => {
                    tracing::debug!(error = %Chain(&error), "a connection was lost while it was idle");
                }
                begun => return begun,
            }
        }
        self.link().await?;
        self.send_begin().await
    }

    async fn send_begin(&mut self) -> Result<()> {
        let sql = if std::mem::replace(&mut self.stale, true) {
            "ROLLBACK; BEGIN"
        } else {
            "BEGIN"
        };
        self.send(sql).await?;
        self.stale = false;
        self.open = true;
        Ok(())
    }

    /// Creates the schema that the URL names, if it is missing; in the open transaction.
    pub(crate) async fn create_schema(&mut self) -> Result<()> {
        let Some(schema) = self.server.schema() else {
            return Ok(());
        };
        let found = self
            .query(
                "SELECT to_regnamespace($1) IS NOT NULL AS found",
                crate::params![schema],
            )
            .await?;
        let found = found.first().map(|row| row.get("found")).transpose()?;
        if found == Some(true) {
            return Ok(());
        }
        // Several that start at once would all not see it. Services with other schemas don't wait: the
        // lock is held until all of a schema's steps are done.
        let lock = "SELECT pg_advisory_xact_lock(hashtext('ackwell schema'), hashtext($1))";
        self.query(lock, crate::params![schema]).await?;
        self.send(&format!("CREATE SCHEMA IF NOT EXISTS {schema}"))
            .await
    }

    /// Makes the transaction durable. An error without a word from the server leaves open whether it is.
    pub(super) async fn commit(&mut self) -> Result<()> {
        let committed = match self.wait_for_the_commit() {
            Ok(()) => self.place_and_commit().await,
            Err(error) => Err(error),
        };
        self.emitted.clear();
        self.open = false;
        self.stale = committed.is_err();
        committed
    }

    /// Tells who listens that outbox rows were committed; on a connection without a transaction.
    pub(crate) async fn notify(&mut self) -> Result<()> {
        if !self.is_linked() {
            self.link().await?;
        }
        let schema = self.server.schema_name();
        self.send(&format!("NOTIFY {EMITTED}, '{schema}'")).await
    }

    /// Leaves the connection; the next use makes another one.
    pub(crate) fn unlink(&mut self) {
        self.link = None;
    }

    pub(crate) async fn rollback(&mut self) {
        self.ahead.clear();
        self.mark = Ahead::Nothing;
        self.emitted.clear();
        self.open = false;
        self.stale = true;
        if self.is_linked() && self.send("ROLLBACK").await.is_ok() {
            self.stale = false;
        }
    }

    pub(super) fn in_transaction(&self) -> bool {
        self.open
    }

    pub(super) fn savepoint(&mut self) -> Result<()> {
        if self.locks == Locks::Members {
            // Before the savepoint, it holds until the transaction ends.
            self.wait_for_locks(GROUP_LOCK_WAIT.min(self.session.lock_wait))?;
            self.locks = Locks::Brief;
        }
        self.later("SAVEPOINT member; ")
    }

    /// What is checked at the commit concerns all members, and none can be taken back alone any more.
    fn wait_for_the_commit(&mut self) -> Result<()> {
        match std::mem::take(&mut self.locks) {
            Locks::Brief => self.wait_for_locks(self.session.lock_wait),
            Locks::Own | Locks::Members => Ok(()),
        }
    }

    /// In the open transaction, statements wait so long for what another one has locked.
    fn wait_for_locks(&mut self, wait: Duration) -> Result<()> {
        self.later(&format!("SET LOCAL lock_timeout = {}; ", wait.as_millis()))
    }

    pub(super) fn release(&mut self) -> Result<()> {
        if !matches!(self.mark, Ahead::Nothing) {
            return Err(Error::usage("keeping work without its mark"));
        }
        self.emitted.keep();
        if self.locks == Locks::Own {
            self.locks = Locks::Members;
        }
        self.later("RELEASE member; ")
    }

    pub(super) async fn undo(&mut self) -> Result<()> {
        self.mark = Ahead::Nothing;
        self.emitted.take_back();
        self.later("ROLLBACK TO member; RELEASE member; ")?;
        let sql = std::mem::take(&mut self.ahead);
        self.send(&sql).await
    }

    fn later(&mut self, sql: &str) -> Result<()> {
        if !self.open {
            return Err(Error::unavailable("the transaction was ended by an error"));
        }
        self.ahead.push_str(sql);
        Ok(())
    }

    pub(super) async fn execute(&mut self, sql: &str, params: &[Value<'_>]) -> Result<u64> {
        let mark = self.mark_with(sql, params).await?;
        let prepared = self.prepare(sql, params).await?;
        let bound = bound(params);
        let bound = references(&bound);
        let ahead = std::mem::take(&mut self.ahead);
        let client = self.client()?;
        let (first, marked, answer) = join3(
            batch(client, &ahead),
            insert(client, mark.as_ref()),
            client.execute(&prepared.statement, &bound),
        )
        .await;
        self.marked(marking(&mark, sql), first.and(marked)).await?;
        self.ended(sql, answer).await
    }

    pub(super) async fn query(&mut self, sql: &str, params: &[Value<'_>]) -> Result<Vec<Row>> {
        let mark = self.mark_with(sql, params).await?;
        let prepared = self.prepare(sql, params).await?;
        let bound = bound(params);
        let bound = references(&bound);
        let ahead = std::mem::take(&mut self.ahead);
        let client = self.client()?;
        let (first, marked, answer) = join3(
            batch(client, &ahead),
            insert(client, mark.as_ref()),
            client.query(&prepared.statement, &bound),
        )
        .await;
        self.marked(marking(&mark, sql), first.and(marked)).await?;
        let rows = self.ended(sql, answer).await?;
        let read = |row| value::row(row, &prepared.columns);
        rows.iter().map(read).collect()
    }

    /// Runs a script inside the open transaction, and fails if it ended that.
    pub(super) async fn run_script(&mut self, sql: &str) -> Result<()> {
        self.send("SAVEPOINT script").await?;
        self.send(sql).await?;
        self.send("RELEASE script").await.map_err(|_| {
            self.open = false;
            self.stale = true;
            Error::new(Kind::Schema, "a script ended the transaction")
        })
    }

    /// The statement, prepared on this connection.
    async fn prepare(&mut self, sql: &str, params: &[Value<'_>]) -> Result<Prepared> {
        statement::check(sql)?;
        let prepared = self.prepared(sql).await?;
        let needed = prepared.statement.params().len();
        if needed != params.len() {
            return Err(statement::wrong_count(sql, needed, params.len()));
        }
        Ok(prepared)
    }

    async fn prepared(&mut self, sql: &str) -> Result<Prepared> {
        if self.link.is_none() && self.session.read_only {
            self.link().await?;
        }
        let known = self
            .link
            .as_ref()
            .and_then(|link| link.statements.get(sql))
            .cloned();
        match known {
            Some(prepared) => Ok(prepared),
            None => self.prepare_anew(sql).await,
        }
    }

    async fn prepare_anew(&mut self, sql: &str) -> Result<Prepared> {
        let ahead = std::mem::take(&mut self.ahead);
        let client = self.client()?;
        let (first, answer) = join(batch(client, &ahead), client.prepare(sql)).await;
        let statement = self.ended(sql, first.and(answer)).await?;
        let columns = statement.columns();
        let columns = columns.iter().map(|column| column.name().to_owned());
        let prepared = Prepared {
            columns: columns.collect(),
            statement,
        };
        if let Some(link) = &mut self.link {
            if link.statements.len() >= STATEMENTS {
                link.statements.clear();
            }
            link.statements.insert(sql.into(), prepared.clone());
        }
        Ok(prepared)
    }

    async fn send(&mut self, sql: &str) -> Result<()> {
        let answer = self.client()?.batch_execute(sql).await;
        self.ended(sql, answer).await
    }

    /// Notes what an error means for the connection and its transaction.
    async fn ended<T>(&mut self, sql: &str, answer: Result<T, tokio_postgres::Error>) -> Result<T> {
        let error = match answer {
            Ok(answer) => return Ok(answer),
            Err(error) => error,
        };
        if error.is_closed() || !self.is_linked() {
            self.link = None;
            self.open = false;
        }
        let code = error.code().map(|code| code.code().to_owned());
        match code.as_deref() {
            // Its snapshot is too old: no statement after this one can succeed.
            Some("40001") if self.open => Box::pin(self.rollback()).await,
            // Prepared anew, it works again.
            Some("0A000" | "26000") => {
                if let Some(link) = &mut self.link {
                    link.statements.clear();
                }
            }
            _ => {}
        }
        Err(explain(sql, error))
    }

    async fn link(&mut self) -> Result<()> {
        self.link = None;
        self.stale = false;
        let (client, connection) = self.server.connect().await?;
        let server = self.server.to_string();
        let driver = tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(server, error = %Chain(&error), "a connection ended");
            }
        });
        self.server.prepare(&client, &self.session).await?;
        self.link = Some(Link {
            client,
            statements: HashMap::new(),
            _driver: driver,
        });
        Ok(())
    }

    /// Whether the connection is there, as far as is known.
    pub(crate) fn is_linked(&self) -> bool {
        self.link
            .as_ref()
            .is_some_and(|link| !link.client.is_closed())
    }

    fn client(&self) -> Result<&Client> {
        let link = self.link.as_ref();
        let client = link.map(|link| &link.client);
        client.ok_or_else(|| Error::unavailable("the connection to the database was lost"))
    }
}

/// What is said to be at work until the mark is answered.
fn marking<'a>(mark: &Option<Mark>, sql: &'a str) -> &'a str {
    match mark {
        Some(_) => inbox::INSERT,
        None => sql,
    }
}

/// Sent before what comes next, without waiting for its answer.
async fn batch(client: &Client, sql: &str) -> Result<(), tokio_postgres::Error> {
    if sql.is_empty() {
        return Ok(());
    }
    client.batch_execute(sql).await
}

fn bound<'a>(params: &'a [Value<'a>]) -> Vec<Bound<'a>> {
    params.iter().map(Bound).collect()
}

fn references<'a>(bound: &'a [Bound<'a>]) -> Vec<&'a (dyn ToSql + Sync)> {
    bound.iter().map(|value| value as _).collect()
}
