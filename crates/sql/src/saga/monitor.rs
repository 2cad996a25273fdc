//! Fires the deadlines of sagas; beside it, those that are over are forgotten after a time.
//!
//! A deadline fires in a transaction that reads the saga, moves it and sends what follows, so it fires once
//! however many instances look, and one that passed while all were stopped fires when one starts; but not while
//! a reply may lie unread that came before it (`handled.rs`). The monitor
//! sleeps until the earliest deadline; what another instance has set, and did not live to fire, it finds by a
//! look now and then.

use std::time::Duration;

use ackwell::service::{Service, ServiceContext, ServiceError};
use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream;
use jiff::Timestamp;
use uuid::Uuid;

use super::handled::{Handled, Held};
use super::observe::{self, Observed};
use super::prune;
use super::sagas::{Answer, Saga, Sagas};
use crate::database::Database;
use crate::error::{Chain, Result};
use crate::params;

/// How often to look for deadlines that another instance has set.
const LOOK: Duration = Duration::from_secs(1);
/// How often to look whether replies have been read that a deadline waits for.
const CATCH_UP: Duration = Duration::from_millis(200);
/// How long to wait when something could not be done.
const PAUSE: Duration = Duration::from_secs(1);
/// Deadlines read at a time, and fired at a time.
const PAGE: i64 = 500;
const AT_A_TIME: usize = 8;

/// Fires deadlines, as a [`Service`] of the app; see [`Sagas::monitor`].
pub struct Monitor<S: Saga> {
    sagas: Sagas<S>,
    database: Database,
    /// The group that reads the replies, and the topics where they come.
    replies: Option<(String, Vec<String>)>,
    patience: Duration,
    retention: Duration,
}

/// What became of the deadlines that are over.
struct Fired {
    failed: usize,
    /// Why some wait for replies.
    held: Option<Held>,
}

/// A deadline that has passed.
struct Due {
    saga_id: Uuid,
    at: Timestamp,
    seq: i64,
}

impl<S: Saga> Monitor<S> {
    /// How long a deadline waits for replies to be read by default: 10 min, longer than a listener is away in a
    /// rolling update or behind after an import, and short enough for somebody who waits for the outcome.
    pub const PATIENCE: Duration = Duration::from_secs(600);

    /// How long a finished saga is kept by default: 30 days. It must be longer than anything can still be delivered to
    /// it, which is the retention of the topics, 7 days if they declare none; the rest is for people who ask what
    /// became of something last month.
    pub const RETENTION: Duration = Duration::from_secs(30 * 24 * 3600);

    pub(super) fn new(sagas: Sagas<S>, database: Database) -> Self {
        Self {
            sagas,
            database,
            replies: None,
            patience: Self::PATIENCE,
            retention: Self::RETENTION,
        }
    }

    /// Makes deadlines wait for the replies that had come by then: those in `topics`, read by the listeners of
    /// `group`. A reply that waits behind a backlog counts from when it came, not from when it is read.
    ///
    /// A deadline fires when the group has committed all that stood in the topics after its time, by whichever of
    /// its members: it makes no difference whether this instance reads any of them. While no deadline is over,
    /// brokers are not asked. A reply that a listener has parked or dead-lettered is committed, and not waited
    /// for; nor is one that a transaction has not committed. The wait ends after the [`patience`](Self::patience).
    #[must_use]
    pub fn replies(mut self, group: &str, topics: &[&str]) -> Self {
        let topics = topics.iter().map(|topic| (*topic).to_owned()).collect();
        self.replies = Some((group.to_owned(), topics));
        self
    }

    /// How long after its time a deadline fires although replies may wait to be read; default
    /// [`PATIENCE`](Self::PATIENCE). A partition that nobody reads, or brokers that don't answer, hold all deadlines
    /// for so long.
    #[must_use]
    pub fn patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// How long a finished saga is kept, with its history; default [`RETENTION`](Self::RETENTION). Those in review are
    /// not finished. What is said to a saga that was forgotten is [`Answer::Unknown`] and moves nothing; started
    /// again, its business key has a new saga.
    #[must_use]
    pub fn retention(mut self, retention: Duration) -> Self {
        self.retention = retention;
        self
    }

    async fn watch(&self, cx: &ServiceContext) {
        let mut handled = self.handled(cx);
        loop {
            self.sagas.alarm().clear();
            let pause = match self.fire_all(cx, &mut handled).await {
                Ok(Fired { failed: 0, held }) => {
                    let pause = if held.is_some() { CATCH_UP } else { LOOK };
                    match held {
                        Some(Held::Unknown(error)) => cx.degraded(error),
                        Some(Held::Unread) | None => cx.running(),
                    }
                    pause
                }
                Ok(Fired { failed, .. }) => {
                    cx.degraded(format!("{failed} sagas can't go on; the log says why"));
                    PAUSE
                }
                Err(error) => {
                    cx.degraded(format!("deadlines of sagas wait: {}", Chain(&error)));
                    self.sagas.alarm().clear();
                    PAUSE
                }
            };
            tokio::select! {
                () = self.sagas.alarm().rings() => {}
                () = tokio::time::sleep(pause) => {}
                () = cx.stopped() => return,
            }
        }
    }

    fn handled(&self, cx: &ServiceContext) -> Handled {
        match &self.replies {
            None => Handled::ByTheClock,
            Some((group, topics)) => {
                Handled::replies(cx.config().kafka.clone(), group, topics, self.patience)
            }
        }
    }

    /// Fires what has passed, and sets the alarm to what comes next. What can't be fired is tried again later, and
    /// holds up nobody else.
    async fn fire_all(&self, cx: &ServiceContext, handled: &mut Handled) -> Result<Fired> {
        let now = Timestamp::now();
        let mut held = None;
        while let Some(due) = self.first(handled.at(now), now).await? {
            held = tokio::select! {
                held = handled.ask(due) => held,
                () = cx.stopped() => return Ok(Fired { failed: 0, held: None }),
            };
            if held.is_some() {
                break;
            }
        }
        let failed = self.fire_until(cx, handled.at(now)).await?;
        if let Some(next) = self.first(now, Timestamp::MAX).await? {
            self.sagas.alarm().set(next.as_millisecond() + 1);
        }
        Ok(Fired { failed, held })
    }

    /// Answers how many could not be fired.
    async fn fire_until(&self, cx: &ServiceContext, handled: Timestamp) -> Result<usize> {
        let (mut failed, mut place) = (0, (Timestamp::UNIX_EPOCH, 0));
        while !cx.is_stopped() {
            let due = self.due(handled, place).await?;
            let Some(last) = due.last() else { break };
            place = (last.at, last.seq);
            let full = due.len() == PAGE as usize;
            let fired = stream::iter(due).map(|due| self.fire(due.saga_id, handled));
            let fired = fired.buffer_unordered(AT_A_TIME);
            failed += fired
                .filter(|fired| std::future::ready(!fired))
                .count()
                .await;
            if !full {
                break;
            }
        }
        Ok(failed)
    }

    /// Answers whether it could be fired, or was no longer due.
    async fn fire(&self, saga_id: Uuid, handled: Timestamp) -> bool {
        let mut tx = self.database.begin();
        let outcome = match self.sagas.deadline_passed(&mut tx, saga_id, handled).await {
            Ok(Answer::Moved(status)) => {
                let committed = tx.commit().await.map_err(S::Error::from);
                if committed.is_ok() {
                    self.sagas.counted().fired();
                    tracing::info!(%saga_id, %status, "a saga was not answered in time");
                }
                committed
            }
            Ok(_) => Ok(()),
            Err(error) => Err(error),
        };
        if let Err(error) = &outcome {
            tracing::warn!(%saga_id, error = %Chain(error), "the deadline of a saga could not be fired; tried again");
        }
        outcome.is_ok()
    }

    async fn prune(&self) {
        let (name, counted) = (self.sagas.plan().name(), self.sagas.counted());
        prune::prune(&self.database, name, self.retention, counted).await;
    }

    async fn due(&self, until: Timestamp, (at, seq): (Timestamp, i64)) -> Result<Vec<Due>> {
        let name = self.sagas.plan().name();
        let rows = self
            .database
            .query(
                "SELECT saga_id, due_at, seq FROM ackwell_sagas \
                 WHERE name = $1 AND due_at <= $2 AND (due_at, seq) > ($3, $4) \
                 ORDER BY due_at, seq LIMIT $5",
                params![name, until, at, seq, PAGE],
            )
            .await?;
        let due = |row: &crate::Row| {
            Ok(Due {
                saga_id: row.get("saga_id")?,
                at: row.get("due_at")?,
                seq: row.get("seq")?,
            })
        };
        rows.iter().map(due).collect()
    }

    /// The first deadline after a moment, up to another.
    async fn first(&self, after: Timestamp, until: Timestamp) -> Result<Option<Timestamp>> {
        let name = self.sagas.plan().name();
        let row = self
            .database
            .query_opt(
                "SELECT due_at FROM ackwell_sagas WHERE name = $1 AND due_at > $2 AND due_at <= $3 \
                 ORDER BY due_at LIMIT 1",
                params![name, after, until],
            )
            .await?;
        row.map(|row| row.get("due_at")).transpose()
    }
}

impl<S: Saga> Service for Monitor<S> {
    fn name(&self) -> String {
        format!(
            "sagas {} of {}",
            self.sagas.plan().name(),
            self.database.name()
        )
    }

    fn run(self: Box<Self>, cx: ServiceContext) -> BoxFuture<'static, Result<(), ServiceError>> {
        Box::pin(async move {
            let observed = Observed::new(&self.sagas);
            let open = observed.open();
            cx.metrics()
                .register(|registry| registry.register_collector(Box::new(observed)));
            tokio::select! {
                () = observe::sample(&self.sagas, &self.database, &open) => {}
                () = self.watch(&cx) => {}
                () = self.prune() => {}
            }
            Ok(())
        })
    }
}

impl<S: Saga> std::fmt::Debug for Monitor<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Monitor").field(&self.sagas).finish()
    }
}
