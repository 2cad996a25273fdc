//! Writing many rows in one statement: events to the outbox, marks to the inbox.

use std::time::SystemTime;

use ackwell::EncodedEvent;
use futures_util::future::{join, join3};
use tokio_postgres::types::ToSql;

use super::{Postgres, Prepared, batch};
use crate::error::{Error, Result};
use crate::outbox::encode_headers;

/// Ids are given in the order of the arrays.
const INSERT: &str = "INSERT INTO ackwell_outbox (topic, key, value, headers, created_at) \
    SELECT topic, key, value, headers, $5::timestamptz \
    FROM unnest($1::text[], $2::bytea[], $3::bytea[], $4::bytea[]) \
    WITH ORDINALITY AS event (topic, key, value, headers, place) ORDER BY place";

/// The same, and the lowest id.
const INSERT_EARLY: &str = "WITH written AS (\
    INSERT INTO ackwell_outbox (topic, key, value, headers, created_at) \
    SELECT topic, key, value, headers, $5::timestamptz \
    FROM unnest($1::text[], $2::bytea[], $3::bytea[], $4::bytea[]) \
    WITH ORDINALITY AS event (topic, key, value, headers, place) ORDER BY place RETURNING id) \
    SELECT min(id) FROM written";

/// Gives this transaction's rows from id `$1` on new ids, in the same order.
const MOVE: &str = "WITH moved AS (\
    DELETE FROM ackwell_outbox WHERE id >= $1 AND written_by = pg_current_xact_id() RETURNING *) \
    INSERT INTO ackwell_outbox (topic, key, value, headers, created_at) \
    SELECT topic, key, value, headers, $2::timestamptz FROM moved ORDER BY id";

/// What is checked at the commit, and may wait for locks, is checked before the rows get their ids.
const CHECK: &str = "SET CONSTRAINTS ALL IMMEDIATE; ";

/// After a failure the server would answer COMMIT by rolling back, without an error.
const COMMIT: &str = "SELECT 1; COMMIT";

const MARK: &str = "INSERT INTO ackwell_inbox (consumer_group, event, handled_at) \
    SELECT $1::text, event, $3::timestamptz FROM unnest($2::bytea[]) WITH ORDINALITY AS mark (event, place) \
    ORDER BY place ON CONFLICT DO NOTHING RETURNING event";

impl Postgres {
    /// Adds an event to the open transaction.
    pub(crate) async fn emit(&mut self, event: EncodedEvent) -> Result<()> {
        if !self.open {
            return Err(Error::unavailable("the transaction was ended by an error"));
        }
        if self.emitted.push(event) {
            self.write_early().await?;
        }
        Ok(())
    }

    /// Writes what was emitted, all in one, and commits: one round trip.
    pub(super) async fn place_and_commit(&mut self) -> Result<()> {
        if self.emitted.waiting().is_empty() && self.emitted.early().is_none() {
            let sql = format!("{}{COMMIT}", std::mem::take(&mut self.ahead));
            return self.send(&sql).await;
        }
        self.ahead.push_str(CHECK);
        let insert = self.prepared(INSERT).await?;
        if let Some(first) = self.emitted.early() {
            self.write_rest_and_move(&insert, first).await?;
            return self.send(COMMIT).await;
        }
        let ahead = std::mem::take(&mut self.ahead);
        let client = self.client()?;
        let rows = Rows::of(self.emitted.waiting());
        let (first, written, committed) = join3(
            batch(client, &ahead),
            client.execute(&insert.statement, &rows.params()),
            client.batch_execute(COMMIT),
        )
        .await;
        self.ended(INSERT, first.and(written).and(committed)).await
    }

    async fn write_early(&mut self) -> Result<()> {
        let insert = self.prepared(INSERT_EARLY).await?;
        let ahead = std::mem::take(&mut self.ahead);
        let client = self.client()?;
        let rows = Rows::of(self.emitted.waiting());
        let params = rows.params();
        let answer = join(
            batch(client, &ahead),
            client.query_one(&insert.statement, &params),
        );
        let (before, written) = answer.await;
        let first = before.and(written).and_then(|row| row.try_get(0));
        let first = self.ended(INSERT_EARLY, first).await?;
        self.emitted.written(first);
        Ok(())
    }

    async fn write_rest_and_move(&mut self, insert: &Prepared, first: i64) -> Result<()> {
        let mover = self.prepared(MOVE).await?;
        let ahead = std::mem::take(&mut self.ahead);
        let client = self.client()?;
        let rows = Rows::of(self.emitted.waiting());
        let now = SystemTime::now();
        let (before, written, moved) = join3(
            batch(client, &ahead),
            client.execute(&insert.statement, &rows.params()),
            client.execute(&mover.statement, &[&first, &now]),
        )
        .await;
        self.ended(MOVE, before.and(written).and(moved)).await?;
        Ok(())
    }

    /// Marks events as handled by `group`, in the order in which they stand; answers those that are new.
    pub(crate) async fn mark(&mut self, group: &str, events: &[&[u8]]) -> Result<Vec<Vec<u8>>> {
        let mark = self.prepared(MARK).await?;
        let ahead = std::mem::take(&mut self.ahead);
        let client = self.client()?;
        let now = SystemTime::now();
        let params: [&(dyn ToSql + Sync); 3] = [&group, &events, &now];
        let answer = join(
            batch(client, &ahead),
            client.query(&mark.statement, &params),
        );
        let (before, marked) = answer.await;
        let rows = self.ended(MARK, before.and(marked)).await?;
        let events = rows.iter().map(|row| row.try_get(0));
        let events: Result<_, _> = events.collect();
        self.ended(MARK, events).await
    }
}

/// Rows of the outbox, column by column.
struct Rows<'a> {
    topics: Vec<&'a str>,
    keys: Vec<&'a [u8]>,
    values: Vec<&'a [u8]>,
    headers: Vec<Vec<u8>>,
    now: SystemTime,
}

impl<'a> Rows<'a> {
    fn of(events: &'a [EncodedEvent]) -> Self {
        Self {
            topics: events.iter().map(|event| event.topic).collect(),
            keys: events.iter().map(|event| &event.key[..]).collect(),
            values: events.iter().map(|event| &event.value[..]).collect(),
            headers: events
                .iter()
                .map(|event| encode_headers(&event.headers))
                .collect(),
            now: SystemTime::now(),
        }
    }

    fn params(&self) -> [&(dyn ToSql + Sync); 5] {
        [
            &self.topics,
            &self.keys,
            &self.values,
            &self.headers,
            &self.now,
        ]
    }
}
