//! Reading the outbox in bounded pieces, and deleting what is published.
//!
//! In a file ids grow in the order of commits, so the last id says what was read. On a server
//! an id is given long before its transaction commits: rows appear behind others that were read
//! before, and a relay that goes by ids alone skips them for ever. There the outbox is
//! read in rounds. A round is what became visible from one snapshot of the server to the next: each row says which
//! transaction wrote it, a snapshot which transactions had ended, so that each row is in one round, however
//! late it was committed. Nobody waits for a transaction that stays open, as they would if the oldest
//! one at work were the limit.
//!
//! Order holds, too. A transaction that waited for another's lock, or read what it has committed, is in
//! the same round or a later one, since the server counts a transaction as ended before it gives its locks
//! back; and in the same one has the higher ids, since ids are given when all locks are taken
//! (`backend/postgres/emitted.rs`), also where a handler has emitted before it waited.

use std::borrow::Cow;
use std::sync::Arc;

use ackwell::Headers;
use ackwell::producer::OutgoingRecord;

use crate::database::Database;
use crate::error::{Error, Kind, Result};
use crate::outbox;
use crate::params;
use crate::row::Row;

/// Rows and bytes of one piece: enough for full batches on the wire, little enough to hold.
const ROWS: i64 = 500;
const BYTES: i64 = 8 * 1024 * 1024;

/// A snapshot in which no transaction had ended; the first has the number 3.
const NOTHING: &str = "1:1:";

/// The next rows of round `$2` to `$3`, or of the round that ends now, after id `$1`.
const SIZES: &str = "SELECT id, \
     coalesce(length(value), 0) + coalesce(length(key), 0) + length(headers) AS bytes, \
     pg_current_snapshot()::text AS snapshot FROM ackwell_outbox WHERE id > $1 \
     AND NOT pg_visible_in_snapshot(written_by, (SELECT $2::text::pg_snapshot)) \
     AND ($3::text IS NULL \
          OR pg_visible_in_snapshot(written_by, (SELECT $3::text::pg_snapshot))) \
     ORDER BY id LIMIT $4";

const CONTENTS: &str = "SELECT id, topic, key, value, headers FROM ackwell_outbox \
     WHERE id > $1 AND id <= $2 \
     AND NOT pg_visible_in_snapshot(written_by, (SELECT $3::text::pg_snapshot)) \
     AND pg_visible_in_snapshot(written_by, (SELECT $4::text::pg_snapshot)) ORDER BY id";

/// All of the rounds before `$3`, and of the round from there to `$4` up to id `$2`. None is above `$1`.
const DELETE: &str = "DELETE FROM ackwell_outbox WHERE id <= $1 \
     AND (pg_visible_in_snapshot(written_by, (SELECT $3::text::pg_snapshot)) \
          OR id <= $2 AND pg_visible_in_snapshot(written_by, (SELECT $4::text::pg_snapshot)))";

/// An event that waits.
pub(super) struct Waiting {
    pub(super) mark: Mark,
    pub(super) bytes: usize,
    pub(super) record: OutgoingRecord,
}

/// A place in what was read: an event and all before it.
#[derive(Debug, Clone)]
pub(super) struct Mark {
    /// The event's id.
    pub(super) id: i64,
    /// The highest id among those before it that are still there.
    highest: i64,
    /// On a server.
    round: Option<Arc<Round>>,
}

/// What became visible between two snapshots.
#[derive(Debug)]
struct Round {
    from: Arc<str>,
    to: Arc<str>,
}

impl Mark {
    fn new(id: i64, round: Option<&Arc<Round>>) -> Self {
        Self {
            id,
            highest: id,
            round: round.cloned(),
        }
    }

    /// The same place, when what is before `earlier` is still there.
    pub(super) fn covering(mut self, earlier: Option<&Self>) -> Self {
        let highest = earlier.map_or(self.id, |earlier| earlier.highest);
        self.highest = self.highest.max(highest);
        self
    }
}

/// Deletes what is published: the event at `mark` and all before it.
pub(super) async fn delete(database: &Database, mark: &Mark) -> Result<()> {
    let mut tx = database.begin();
    match &mark.round {
        None => {
            let delete = "DELETE FROM ackwell_outbox WHERE id <= $1";
            tx.execute(delete, params![mark.id]).await?;
        }
        Some(round) => {
            let (from, to) = (&*round.from, &*round.to);
            tx.execute(DELETE, params![mark.highest, mark.id, from, to])
                .await?;
        }
    }
    tx.commit().await
}

/// What was read, and what comes next.
#[derive(Debug)]
pub(super) enum Rows {
    /// Of a file: everything up to this id was read.
    File(i64),
    /// Of a server.
    Server(Rounds),
}

/// How far a server's outbox was read.
#[derive(Debug)]
pub(super) struct Rounds {
    /// Everything that is visible in it was read.
    seen: Arc<str>,
    /// The round that is being read, and the last id that was.
    current: Option<(Arc<Round>, i64)>,
}

impl Rows {
    pub(super) fn new(database: &Database) -> Self {
        match database.location().server() {
            None => Self::File(0),
            Some(_) => Self::Server(Rounds {
                seen: NOTHING.into(),
                current: None,
            }),
        }
    }

    /// The next events, in the order of their commits, and whether there may be more.
    ///
    /// # Cancel safety
    /// Dropped, it has read nothing.
    pub(super) async fn next(&mut self, database: &Database) -> Result<(Vec<Waiting>, bool)> {
        match self {
            Self::File(after) => next_of_file(database, after).await,
            Self::Server(rounds) => rounds.next(database).await,
        }
    }
}

async fn next_of_file(database: &Database, after: &mut i64) -> Result<(Vec<Waiting>, bool)> {
    let sizes = database
        .query(
            "SELECT id, coalesce(length(value), 0) + coalesce(length(key), 0) + length(headers) AS bytes \
             FROM ackwell_outbox WHERE id > $1 ORDER BY id LIMIT $2",
            params![*after, ROWS],
        )
        .await?;
    let Some((last, complete)) = last_that_fits(&sizes)? else {
        return Ok((Vec::new(), false));
    };
    let rows = database
        .query(
            "SELECT id, topic, key, value, headers FROM ackwell_outbox \
             WHERE id > $1 AND id <= $2 ORDER BY id",
            params![*after, last],
        )
        .await?;
    let waiting = rows.iter().map(|row| waiting(row, None));
    let waiting = waiting.collect::<Result<_>>()?;
    *after = last;
    Ok((waiting, !complete || sizes.len() as i64 == ROWS))
}

impl Rounds {
    async fn next(&mut self, database: &Database) -> Result<(Vec<Waiting>, bool)> {
        let (after, to) = match &self.current {
            None => (0, None),
            Some((round, after)) => (*after, Some(&*round.to)),
        };
        let sizes = database
            .query(SIZES, params![after, &*self.seen, to, ROWS])
            .await?;
        let Some((last, complete)) = last_that_fits(&sizes)? else {
            let was_reading = self.current.is_some();
            self.close();
            return Ok((Vec::new(), was_reading));
        };
        let round = match &self.current {
            Some((round, _)) => Arc::clone(round),
            None => Arc::new(Round {
                from: Arc::clone(&self.seen),
                to: sizes[0].get::<String>("snapshot")?.into(),
            }),
        };
        let rows = database
            .query(CONTENTS, params![after, last, &*round.from, &*round.to])
            .await?;
        let waiting = rows.iter().map(|row| waiting(row, Some(&round)));
        let waiting = waiting.collect::<Result<_>>()?;
        let more = !complete || sizes.len() as i64 == ROWS;
        self.current = Some((round, last));
        if !more {
            self.close();
        }
        Ok((waiting, more))
    }

    /// The round was read to its end.
    fn close(&mut self) {
        if let Some((round, _)) = self.current.take() {
            self.seen = Arc::clone(&round.to);
        }
    }
}

/// The last row within the limit of bytes, at least the first; and whether it is the last of all.
fn last_that_fits(sizes: &[Row]) -> Result<Option<(i64, bool)>> {
    let mut last = None;
    let mut bytes = 0;
    for (place, row) in sizes.iter().enumerate() {
        bytes += row.get::<i64>("bytes")?;
        if bytes > BYTES && last.is_some() {
            break;
        }
        last = Some((row.get("id")?, place + 1 == sizes.len()));
    }
    Ok(last)
}

fn waiting(row: &Row, round: Option<&Arc<Round>>) -> Result<Waiting> {
    let id: i64 = row.get("id")?;
    let topic: String = row.get("topic")?;
    let packed: Vec<u8> = row.get("headers")?;
    let mut headers = Headers::new();
    let unpacked = outbox::decode_headers(&packed).ok_or_else(|| {
        Error::new(
            Kind::Damaged,
            format!("reading outbox row {id}: its headers are damaged"),
        )
    })?;
    for (name, value) in unpacked {
        match value {
            Some(value) => headers.push(name, value.to_vec()),
            None => headers.push_null(name),
        }
    }
    let mut record = OutgoingRecord::to(Cow::<'static, str>::Owned(topic)).headers(headers);
    let mut bytes = packed.len();
    if let Some(key) = row.get::<Option<Vec<u8>>>("key")? {
        bytes += key.len();
        record = record.key(key);
    }
    if let Some(value) = row.get::<Option<Vec<u8>>>("value")? {
        bytes += value.len();
        record = record.value(value);
    }
    Ok(Waiting {
        mark: Mark::new(id, round),
        bytes,
        record,
    })
}
