//! Fires the deadlines of sagas.
//!
//! A deadline fires in a transaction that reads the saga, moves it and sends what follows, so it fires once
//! however many instances look, and one that passed while all were stopped fires when one starts. The monitor
//! sleeps until the earliest deadline; what another instance has set, and did not live to fire, it finds by a
//! look now and then.

use std::time::Duration;

use ackwell::service::{Service, ServiceContext, ServiceError};
use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream;
use jiff::Timestamp;
use uuid::Uuid;

use super::observe::{self, Observed};
use super::sagas::{Answer, Saga, Sagas};
use crate::database::Database;
use crate::error::{Chain, Result};
use crate::params;

/// How often to look for deadlines that another instance has set.
const LOOK: Duration = Duration::from_secs(1);
/// How long to wait when something could not be done.
const PAUSE: Duration = Duration::from_secs(1);
/// Deadlines read at a time, and fired at a time.
const PAGE: i64 = 500;
const AT_A_TIME: usize = 8;

/// Fires deadlines, as a [`Service`] of the app; see [`Sagas::monitor`].
pub struct Monitor<S: Saga> {
    sagas: Sagas<S>,
    database: Database,
}

/// What has passed.
struct Due {
    saga_id: Uuid,
    at: Timestamp,
    seq: i64,
}

impl<S: Saga> Monitor<S> {
    pub(super) fn new(sagas: Sagas<S>, database: Database) -> Self {
        Self { sagas, database }
    }

    async fn watch(&self, cx: &ServiceContext) {
        loop {
            self.sagas.alarm().clear();
            let pause = match self.fire_all(cx).await {
                Ok(0) => {
                    cx.running();
                    LOOK
                }
                Ok(failed) => {
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

    /// Fires what has passed, and sets the alarm to what comes next. Answers how many could not be fired: they
    /// are tried again later, and hold up nobody else.
    async fn fire_all(&self, cx: &ServiceContext) -> Result<usize> {
        let now = Timestamp::now();
        let (mut failed, mut place) = (0, (Timestamp::UNIX_EPOCH, 0));
        while !cx.is_stopped() {
            let due = self.due(now, place).await?;
            let Some(last) = due.last() else { break };
            place = (last.at, last.seq);
            let full = due.len() == PAGE as usize;
            let fired = stream::iter(due).map(|due| self.fire(due.saga_id));
            let fired = fired.buffer_unordered(AT_A_TIME);
            failed += fired
                .filter(|fired| std::future::ready(!fired))
                .count()
                .await;
            if !full {
                break;
            }
        }
        if let Some(next) = self.next(now).await? {
            self.sagas.alarm().set(next.as_millisecond() + 1);
        }
        Ok(failed)
    }

    /// Answers whether it could be fired, or was no longer due.
    async fn fire(&self, saga_id: Uuid) -> bool {
        let mut tx = self.database.begin();
        let outcome = match self.sagas.deadline_passed(&mut tx, saga_id).await {
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

    async fn due(&self, now: Timestamp, (at, seq): (Timestamp, i64)) -> Result<Vec<Due>> {
        let name = self.sagas.plan().name();
        let rows = self
            .database
            .query(
                "SELECT saga_id, due_at, seq FROM ackwell_sagas \
                 WHERE name = $1 AND due_at <= $2 AND (due_at, seq) > ($3, $4) \
                 ORDER BY due_at, seq LIMIT $5",
                params![name, now, at, seq, PAGE],
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

    async fn next(&self, now: Timestamp) -> Result<Option<Timestamp>> {
        let name = self.sagas.plan().name();
        let row = self
            .database
            .query_opt(
                "SELECT due_at FROM ackwell_sagas WHERE name = $1 AND due_at > $2 ORDER BY due_at LIMIT 1",
                params![name, now],
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
