//! The relay: publishes the outbox in the order of its commits.
//!
//! An event is published after it was committed and deleted after the brokers have
//! acknowledged it, so it is never lost and never announces what did not happen; a crash in
//! between publishes it again, with the same event id. Order holds because one relay works
//! on a database at a time, reads in commit order, and sends through an idempotent producer
//! that never gives an event up: a broker that is away is waited for.

mod lease;
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
use crate::error::{Chain, Error};
use lease::{Candidate, Lease};
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
/// Of several instances on one database, one relays and the others stand by. On SQLite the operating
/// system's lock on a file beside the database decides, and passes on at once when its
/// holder dies. On PostgreSQL it is an advisory lock of a session: it passes on at once, too, and
/// within 10 s when its holder is stopped or cut off. The relay needs one connection of its own there, which a
/// pooler must leave it (session pooling).
///
/// On PostgreSQL several transactions are at work at a time, and an event is published when its own has
/// committed: a transaction that stays open holds up nobody else's events.
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
        while let Some(mut lease) = self.stand_by(cx).await {
            let _here = self.database.bell().relay_is_here();
            let lost = tokio::select! {
                () = prune::prune(&self.database, self.inbox_retention) => return,
                lost = self.publish(cx, published, &mut lease) => lost,
            };
            let Some(lost) = lost else { return };
            tracing::warn!(error = %Chain(&lost), "the relay has lost its lease and asks for it again");
            cx.degraded(waiting(&lost));
        }
    }

    /// Waits until this relay is the one; `None` when it is told to stop before.
    async fn stand_by(&self, cx: &ServiceContext) -> Option<Lease> {
        let mut candidate = Candidate::default();
        loop {
            tokio::select! {
                attempt = candidate.attempt(&self.database) => match attempt {
                    Ok(Some(lease)) => return Some(lease),
                    Ok(None) => cx.running(),
                    Err(error) => cx.degraded(waiting(&error)),
                },
                () = cx.stopped() => return None,
            }
            tokio::select! {
                () = tokio::time::sleep(STAND_BY) => {}
                () = cx.stopped() => return None,
            }
        }
    }

    /// Publishes until told to stop, or until the lease is lost, which is the answer. A session ends when
    /// the producer fails; the next one begins at the earliest event that is not known to be
    /// published.
    async fn publish(
        &self,
        cx: &ServiceContext,
        published: &Published,
        lease: &mut Lease,
    ) -> Option<Error> {
        let mut pause = PAUSE;
        while !cx.is_stopped() {
            let failure = match Kafka::connect(cx) {
                Err(error) => error,
                Ok(kafka) => {
                    let before = published.count();
                    let ended = self.session(cx, published, &kafka, lease).await;
                    kafka.close().await;
                    if published.count() > before {
                        pause = PAUSE;
                    }
                    match ended {
                        Ended::Stopped => return None,
                        Ended::Lost(error) => return Some(error),
                        Ended::Failed(failure) => failure,
                    }
                }
            };
            cx.degraded(format!("events wait in the outbox: {failure}"));
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                lost = lease.lost() => return Some(lost),
                () = cx.stopped() => {}
            }
            pause = (pause * 2).min(PAUSE_MAX);
        }
        None
    }

    async fn session(
        &self,
        cx: &ServiceContext,
        published: &Published,
        kafka: &Kafka,
        lease: &mut Lease,
    ) -> Ended {
        let mut session = Session::new(&self.database, kafka, published);
        tokio::select! {
            ended = session.run(cx) => ended.map_or_else(Ended::Failed, |()| Ended::Stopped),
            error = lease.lost() => Ended::Lost(error),
        }
    }
}

/// Why a session has ended.
enum Ended {
    /// It was told to.
    Stopped,
    /// Another relay may work now.
    Lost(Error),
    /// The producer failed.
    Failed(String),
}

fn waiting(error: &Error) -> String {
    format!("events wait in the outbox: {}", Chain(error))
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
