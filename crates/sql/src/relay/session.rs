//! From outbox to brokers and back: many events in flight, deleted in order.

use std::collections::VecDeque;
use std::time::Duration;

use ackwell::service::ServiceContext;
use futures_util::FutureExt;
use tokio::time::Instant;

use super::observe::Published;
use super::publish::{Delivery, Publish};
use super::rows::{self, Mark, Rows};
use crate::database::Database;
use crate::error::{Chain, Result};
use crate::mutation::{self, Fault};

/// Events sent and not yet acknowledged: enough to fill the pipe, little enough to hold.
const IN_FLIGHT_MAX: usize = 2_000;
const IN_FLIGHT_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Published events are deleted when there are as many, or after as long. Deleting each at
/// once would cost a commit of its own; later ones are published again after a crash.
const DELETE_ROWS: usize = 500;
const DELETE_AFTER: Duration = Duration::from_millis(50);

/// How often to look for what another process committed to the same file; this one's commits wake
/// the relay, and on a server everybody's. There it looks in case that one was not told.
const LOOK: Duration = Duration::from_millis(100);
const LOOK_SERVER: Duration = Duration::from_secs(2);

/// How long the brokers may leave an event unacknowledged before health says so.
const STALLED: Duration = Duration::from_secs(5);

/// What may be the matter then, and what to do: the client itself waits without a word.
const UNACKNOWLEDGED: &str = "events wait in the outbox: the brokers have not acknowledged them for 5 s. They are \
    away, a topic has fewer in-sync replicas than its `min.insync.replicas`, or a disk is full: see `kafka` here, \
    the warnings of the producer's client in the log, and the brokers' logs. Nothing is lost, and publishing goes \
    on by itself once they take records again";

/// How long to wait on stopping for what is in flight; the rest is sent by the next relay.
const DRAIN: Duration = Duration::from_secs(5);

/// How long to leave a database alone that is unavailable.
const DATABASE_PAUSE: Duration = Duration::from_millis(500);

/// Publishing with one producer.
pub(super) struct Session<'a> {
    database: &'a Database,
    publisher: &'a dyn Publish,
    published: &'a Published,
    in_flight: VecDeque<Sent>,
    bytes: usize,
    /// What was sent already, and what comes next.
    rows: Rows,
    look: Duration,
    /// What may be deleted: up to the last acknowledged one before the first gap, since when, how many.
    done: Option<Done>,
    /// Why the database does not answer, while it does not.
    trouble: Option<String>,
}

struct Sent {
    mark: Mark,
    bytes: usize,
    at: Instant,
    delivery: Delivery,
}

struct Done {
    mark: Mark,
    since: Instant,
    rows: usize,
}

impl<'a> Session<'a> {
    pub(super) fn new(
        database: &'a Database,
        publisher: &'a dyn Publish,
        published: &'a Published,
    ) -> Self {
        let in_flight = VecDeque::new();
        let look = match database.location().server() {
            None => LOOK,
            Some(_) => LOOK_SERVER,
        };
        Self {
            database,
            publisher,
            published,
            in_flight,
            bytes: 0,
            rows: Rows::new(database),
            look,
            done: None,
            trouble: None,
        }
    }

    /// Publishes until told to stop, or until the producer fails, which is the error. A
    /// database that is unavailable is waited for, and nothing is forgotten meanwhile.
    pub(super) async fn run(&mut self, cx: &ServiceContext) -> Result<(), String> {
        let mut look = true;
        while !cx.is_stopped() {
            if look && self.has_room() {
                look = self.send_next(cx).await?;
            }
            self.collect()?;
            if let Err(error) = self.delete_when_due().await {
                self.database_fails(cx, &error).await;
            }
            self.report(cx);
            look |= self.wait(cx, look).await?;
        }
        self.drain().await
    }

    /// Sends what comes next; answers whether there may be more.
    async fn send_next(&mut self, cx: &ServiceContext) -> Result<bool, String> {
        let (rows, more) = match self.rows.next(self.database).await {
            Ok(read) => read,
            Err(error) => {
                self.database_fails(cx, &error).await;
                return Ok(true);
            }
        };
        self.trouble = None;
        for rows::Waiting {
            mark,
            bytes,
            record,
        } in rows
        {
            let delivery = self.publisher.enqueue(record).await;
            let delivery = delivery.map_err(|error| format!("event {}: {error}", mark.id))?;
            if mutation::is(Fault::DeletedBeforePublished) {
                let (since, rows) = (Instant::now(), DELETE_ROWS);
                let mark = mark.clone();
                self.done = Some(Done { mark, since, rows });
            }
            self.in_flight.push_back(Sent {
                mark,
                bytes,
                at: Instant::now(),
                delivery,
            });
            self.bytes += bytes;
        }
        Ok(more)
    }

    fn has_room(&self) -> bool {
        self.in_flight.len() < IN_FLIGHT_MAX && self.bytes < IN_FLIGHT_BYTES_MAX
    }

    /// Takes in the acknowledgements that are there, up to the first that is missing.
    fn collect(&mut self) -> Result<(), String> {
        while let Some(first) = self.in_flight.front_mut() {
            let Some(result) = (&mut first.delivery).now_or_never() else {
                return Ok(());
            };
            self.acknowledged(result)?;
        }
        Ok(())
    }

    /// The earliest event in flight was acknowledged, or refused.
    fn acknowledged(&mut self, result: Result<(), String>) -> Result<(), String> {
        let Some(Sent { mark, bytes, .. }) = self.in_flight.pop_front() else {
            return Ok(());
        };
        self.bytes -= bytes;
        result.map_err(|error| format!("event {}: {error}", mark.id))?;
        self.published.add_one();
        let since = self
            .done
            .as_ref()
            .map_or_else(Instant::now, |done| done.since);
        let rows = self.done.as_ref().map_or(0, |done| done.rows) + 1;
        let mark = mark.covering(self.done.as_ref().map(|done| &done.mark));
        self.done = Some(Done { mark, since, rows });
        Ok(())
    }

    async fn delete_when_due(&mut self) -> Result<()> {
        match &self.done {
            Some(done) if done.rows >= DELETE_ROWS || done.since.elapsed() >= DELETE_AFTER => {
                self.delete().await
            }
            _ => Ok(()),
        }
    }

    /// Deletes what is published.
    async fn delete(&mut self) -> Result<()> {
        let Some(done) = &self.done else {
            return Ok(());
        };
        rows::delete(self.database, &done.mark).await?;
        self.done = None;
        self.trouble = None;
        Ok(())
    }

    /// Waits for whatever comes first; answers whether to look for more rows.
    async fn wait(&mut self, cx: &ServiceContext, look: bool) -> Result<bool, String> {
        if look && self.has_room() {
            return Ok(true);
        }
        let due = self.done.as_ref().map(|done| done.since + DELETE_AFTER);
        let wake = due.unwrap_or_else(|| Instant::now() + self.look);
        let front = self.in_flight.front_mut();
        tokio::select! {
            result = acknowledgement(front) => {
                self.acknowledged(result)?;
                Ok(false)
            }
            () = self.database.bell().rung() => Ok(true),
            () = tokio::time::sleep_until(wake) => Ok(true),
            () = cx.stopped() => Ok(false),
        }
    }

    fn report(&self, cx: &ServiceContext) {
        let stalled = self
            .in_flight
            .front()
            .is_some_and(|first| first.at.elapsed() >= STALLED);
        match &self.trouble {
            Some(trouble) => cx.degraded(format!("events wait in the outbox: {trouble}")),
            None if stalled => {
                cx.degraded(UNACKNOWLEDGED);
            }
            None => cx.running(),
        }
    }

    async fn database_fails(&mut self, cx: &ServiceContext, error: &crate::Error) {
        self.trouble = Some(Chain(error).to_string());
        self.report(cx);
        tokio::select! {
            () = tokio::time::sleep(DATABASE_PAUSE) => {}
            () = cx.stopped() => {}
        }
    }

    /// On stopping: what the brokers still acknowledge within the limit is deleted.
    async fn drain(&mut self) -> Result<(), String> {
        let acknowledged = async {
            while let Some(first) = self.in_flight.front_mut() {
                let result = (&mut first.delivery).await;
                self.acknowledged(result)?;
            }
            Ok::<_, String>(())
        };
        let failed = tokio::time::timeout(DRAIN, acknowledged)
            .await
            .unwrap_or(Ok(()))
            .err();
        if let Some(error) = failed {
            tracing::warn!(
                error,
                "stopping before all events were published; they are kept"
            );
        }
        if let Err(error) = self.delete().await {
            tracing::warn!(error = %Chain(&error), "published events are kept and will be published again");
        }
        Ok(())
    }
}

async fn acknowledgement(first: Option<&mut Sent>) -> Result<(), String> {
    match first {
        Some(first) => (&mut first.delivery).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests;
