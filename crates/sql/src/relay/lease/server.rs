//! On PostgreSQL: an advisory lock of a session that the server believes in only while it speaks.
//!
//! A row with a time to live would be judged by clocks and would be taken over late. A
//! session's lock passes on the moment its process dies; and where the process is only stopped or cut off, when
//! the server has heard nothing for [`SILENCE_MAX`]. The holder gives up before that, since it
//! asks more often.

use std::time::Duration;

use crate::backend::{Listener, Session};
use crate::database::Database;
use crate::error::{Error, Result};

/// How often the holder speaks, and how long it waits for an answer.
const BEAT: Duration = Duration::from_secs(1);
const ANSWER_MAX: Duration = Duration::from_secs(4);

/// How long the server believes in a session that does not speak.
const SILENCE_MAX: Duration = Duration::from_secs(10);

/// The lock is that of the outbox's table, whichever its schema; the first number tells it from
/// locks of others.
const TAKE: &str = "SELECT pg_try_advisory_lock(1633905525, \
                    ('ackwell_outbox'::regclass::oid::bigint - 2147483648)::int)";

/// Whether a session has it. The server keeps the two numbers without a sign.
const HELD: &str = "SELECT EXISTS (SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND granted \
                    AND database = (SELECT oid FROM pg_database WHERE datname = current_database()) \
                    AND classid = 1633905525 AND objsubid = 2 AND objid::bigint = \
                    (('ackwell_outbox'::regclass::oid::bigint - 2147483648) & 4294967295)) AS held";

/// Rows whose transaction numbers are those of another server, from which the tables were copied,
/// belong to no snapshot of this one.
const ADOPT: &str = "WITH foreign_rows AS (UPDATE ackwell_outbox SET written_by = pg_current_xact_id() \
                     WHERE written_by >= pg_snapshot_xmax(pg_current_snapshot()) RETURNING 1) \
                     SELECT count(*) FROM foreign_rows";

/// A session that asks for the lease.
#[derive(Debug)]
pub(super) struct Candidate {
    listener: Listener,
    backend: i32,
}

/// The session that has the lease. It also hears what is committed.
#[derive(Debug)]
pub(crate) struct Held(Candidate);

impl Candidate {
    pub(super) async fn connect(database: &Database) -> Result<Self> {
        let Some(server) = database.location().server() else {
            return Err(Error::usage("leasing from a file"));
        };
        let settings = database.settings();
        let session = Session {
            lock_wait: settings.lock_wait,
            idle_max: settings.idle_max,
            read_only: false,
        };
        let told = database.clone();
        let heard = move || told.bell().heard();
        let listener = Listener::connect(server, &session, SILENCE_MAX, heard).await?;
        let backend = listener.ask("SELECT pg_backend_pid()").await?;
        Ok(Self { listener, backend })
    }

    /// The lease; or, while another session has it, the candidate again.
    pub(super) async fn attempt(self) -> Result<Result<Held, Self>> {
        let taken = tokio::time::timeout(ANSWER_MAX, self.listener.ask::<bool>(TAKE));
        if !taken.await.map_err(|_| silent())?? {
            return Ok(Err(self));
        }
        let adopted: i64 = self.listener.ask(ADOPT).await?;
        if adopted > 0 {
            tracing::info!(rows = adopted, "events of another server are taken over");
        }
        Ok(Ok(Held(self)))
    }
}

pub(super) async fn is_held(database: &Database) -> Result<bool> {
    let row = database.query_opt(HELD, &[]).await?;
    row.map_or(Ok(false), |row| row.get("held"))
}

impl Held {
    /// Speaks to the server until it does not answer.
    pub(super) async fn lost(&mut self) -> Error {
        loop {
            tokio::select! {
                ended = self.0.listener.ended() => return ended,
                () = tokio::time::sleep(BEAT) => {}
            }
            let answer = self.0.listener.ask::<i32>("SELECT pg_backend_pid()");
            match tokio::time::timeout(ANSWER_MAX, answer).await {
                Ok(Ok(backend)) if backend == self.0.backend => {}
                Ok(Ok(_)) => return pooled(),
                Ok(Err(error)) => return error,
                Err(_) => return silent(),
            }
        }
    }
}

fn silent() -> Error {
    Error::unavailable(format!("the database has not answered for {ANSWER_MAX:?}"))
}

fn pooled() -> Error {
    Error::unavailable(
        "the relay's statements go to different sessions of the database: a pooler stands before it; \
         let it pool sessions, or connect without it",
    )
}
