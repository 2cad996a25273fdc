//! Looks after a database whose app has listeners and no relay.
//!
//! Another app may have the relay, which is fine. If none has, events would wait for ever and the inbox
//! would grow for ever, both in silence. So this tells how much waits, says in health when nobody
//! publishes it, and prunes the inbox where no relay does.

use std::time::{Duration, Instant};

use ackwell::service::{Service, ServiceContext, ServiceError};
use ackwell::{SetupError, TopicDeclaration};
use futures_util::future::BoxFuture;

use super::observe::Published;
use super::{check_retention, lease, name, prune};
use crate::database::{Database, Outbox};
use crate::error::Chain;

/// What is waited for.
#[derive(Debug, Clone, Copy)]
struct Times {
    /// How often to look.
    look: Duration,
    /// How old an event gets before anybody asks who publishes it: a relay that starts or takes
    /// over needs less.
    patience: Duration,
    /// How long no relay must have been at work before the inbox is pruned in its place: it may keep
    /// marks for longer, and be away for the time of a deployment.
    absence: Duration,
}

const TIMES: Times = Times {
    look: Duration::from_secs(5),
    patience: Duration::from_secs(30),
    absence: Duration::from_secs(600),
};

/// The companion of listeners that use a database.
pub(crate) struct Caretaker {
    database: Database,
    times: Times,
}

impl Caretaker {
    pub(crate) fn new(database: Database) -> Self {
        let times = TIMES;
        Self { database, times }
    }

    async fn look_after(&self, cx: &ServiceContext) {
        let published = Published::observed(&self.database, cx.metrics());
        tokio::select! {
            () = published.sample(&self.database) => {}
            () = self.watch(cx, &published) => {}
            () = self.prune() => {}
            () = cx.stopped() => {}
        }
    }

    /// Says in health when events wait that nobody publishes. While a relay is at work, its own app
    /// says what it waits for; while the database is away, the listeners do.
    async fn watch(&self, cx: &ServiceContext, published: &Published) {
        loop {
            let waited = published
                .outbox()
                .as_ref()
                .map_or(Duration::ZERO, Outbox::age);
            if waited < self.times.patience {
                cx.running();
            } else {
                match lease::is_held(&self.database).await {
                    Ok(true) => cx.running(),
                    Ok(false) => cx.degraded(unpublished(self.times.patience)),
                    Err(error) => {
                        tracing::debug!(error = %Chain(&error), "looking for a relay failed; tried again later");
                    }
                }
            }
            tokio::time::sleep(self.times.look).await;
        }
    }

    /// Prunes the inbox whenever no relay has done it for long enough.
    async fn prune(&self) {
        let mut absent = None;
        loop {
            tokio::time::sleep(self.times.look.min(self.times.absence)).await;
            if !matches!(lease::is_held(&self.database).await, Ok(false)) {
                absent = None;
                continue;
            }
            if absent.get_or_insert_with(Instant::now).elapsed() < self.times.absence {
                continue;
            }
            let retention = self.database.settings().inbox_retention;
            tokio::select! {
                () = prune::prune(&self.database, retention) => {}
                () = self.relay_is_back() => absent = None,
            }
        }
    }

    async fn relay_is_back(&self) {
        while !matches!(lease::is_held(&self.database).await, Ok(true)) {
            tokio::time::sleep(self.times.look).await;
        }
    }
}

/// Without the time that it has been, which would be news every time.
fn unpublished(patience: Duration) -> String {
    format!(
        "events have waited in the outbox for more than {patience:?} and no relay is at work on it: add \
         `.service(Relay::new(db))` to the app, or start the one that has it; nothing is lost meanwhile"
    )
}

impl Service for Caretaker {
    fn name(&self) -> String {
        name(&self.database)
    }

    fn check(&self, read: &[TopicDeclaration]) -> Result<(), SetupError> {
        check_retention(self.database.settings().inbox_retention, read)
    }

    fn run(self: Box<Self>, cx: ServiceContext) -> BoxFuture<'static, Result<(), ServiceError>> {
        Box::pin(async move {
            self.look_after(&cx).await;
            Ok(())
        })
    }
}

#[cfg(test)]
mod tests;
