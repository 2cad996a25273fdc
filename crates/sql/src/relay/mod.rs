//! The relay: publishes the outbox in the order of its commits.
//!
//! An event is published after it was committed and deleted after the brokers have
//! acknowledged it, so it is never lost and never announces what did not happen; a crash in
//! between publishes it again, with the same event id. Order holds because one relay works
//! on a database at a time, reads in commit order, and sends through an idempotent producer
//! that never gives an event up: a broker that is away is waited for.

mod lock;
mod observe;
mod prune;
mod publish;
mod rows;
mod session;

use std::sync::Arc;
use std::time::Duration;

use ackwell::service::{Service, ServiceContext, ServiceError};
use futures_util::future::BoxFuture;

use crate::database::Database;
use crate::error::Chain;
use lock::Lock;
use observe::{Observed, Published};
use publish::Kafka;
use session::Session;

/// How long to wait after a failure before beginning anew, at first and at most.
const PAUSE: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// How often a relay that stands by looks whether it is needed.
const STAND_BY: Duration = Duration::from_millis(250);

/// Publishes what transactions emitted, as a [`Service`] of the app; and prunes the inbox.
///
/// ```no_run
/// # use ackwell::{App, Config};
/// # use ackwell_sql::{Database, Relay};
/// # fn f(config: Config, db: Database) {
/// let app = App::new(config).state(db.clone()).service(Relay::new(db));
/// # }
/// ```
///
/// Of several instances on one database, one relays and the others stand by: the operating
/// system's lock on a file beside the database decides, and passes on at once when its
/// holder dies.
#[derive(Debug)]
pub struct Relay {
    database: Database,
    inbox_retention: Duration,
}

impl Relay {
    /// How long an inbox row is kept by default: 7 days, the retention of topics that declare none.
    pub const INBOX_RETENTION: Duration = Duration::from_secs(7 * 24 * 3600);

    /// A relay for the outbox of `database`.
    pub fn new(database: Database) -> Self {
        Self {
            database,
            inbox_retention: Self::INBOX_RETENTION,
        }
    }

    /// How long the inbox remembers a record; default [`INBOX_RETENTION`](Self::INBOX_RETENTION).
    ///
    /// It must be at least the retention of the topics that the listeners read: a record
    /// that comes again after its row is gone takes effect again.
    #[must_use]
    pub fn inbox_retention(mut self, retention: Duration) -> Self {
        self.inbox_retention = retention;
        self
    }

    async fn relay(&self, cx: ServiceContext) {
        let published = Arc::new(Published::default());
        let observed = Observed::new(self.database.clone(), Arc::clone(&published));
        cx.metrics()
            .register(|registry| registry.register_collector(Box::new(observed)));
        tokio::select! {
            () = published.sample(&self.database) => {}
            () = self.work(&cx, &published) => {}
        }
    }

    async fn work(&self, cx: &ServiceContext, published: &Published) {
        let Some(_lock) = self.stand_by(cx).await else {
            return;
        };
        tokio::select! {
            () = prune::prune(&self.database, self.inbox_retention) => {}
            () = self.publish(cx, published) => {}
        }
    }

    /// Waits until this relay is the one; `None` when it is told to stop before.
    async fn stand_by(&self, cx: &ServiceContext) -> Option<Lock> {
        loop {
            match Lock::try_new(self.database.location()) {
                Ok(Some(lock)) => return Some(lock),
                Ok(None) => cx.running(),
                Err(error) => cx.degraded(Chain(&error).to_string()),
            }
            tokio::select! {
                () = tokio::time::sleep(STAND_BY) => {}
                () = cx.stopped() => return None,
            }
        }
    }

    /// Publishes until told to stop. A session ends when the producer fails; the next one
    /// begins at the earliest event that is not known to be published.
    async fn publish(&self, cx: &ServiceContext, published: &Published) {
        let mut pause = PAUSE;
        while !cx.is_stopped() {
            let failure = match Kafka::connect(cx) {
                Err(error) => error,
                Ok(kafka) => {
                    let before = published.count();
                    let mut session = Session::new(&self.database, &kafka, published);
                    let ended = session.run(cx).await;
                    kafka.close().await;
                    match ended {
                        Ok(()) => return,
                        Err(failure) => {
                            if published.count() > before {
                                pause = PAUSE;
                            }
                            failure
                        }
                    }
                }
            };
            cx.degraded(format!("events wait in the outbox: {failure}"));
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = cx.stopped() => {}
            }
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }
}

impl Service for Relay {
    fn name(&self) -> String {
        format!("outbox of {}", self.database.name())
    }

    fn run(self: Box<Self>, cx: ServiceContext) -> BoxFuture<'static, Result<(), ServiceError>> {
        Box::pin(async move {
            self.relay(cx).await;
            Ok(())
        })
    }
}
