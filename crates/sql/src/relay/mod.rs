//! The relay: publishes the outbox in the order of its commits.
//!
//! An event is published after it was committed and deleted after the brokers have
//! acknowledged it, so it is never lost and never announces what did not happen; a crash in
//! between publishes it again, with the same event id. Order holds because one relay works
//! on a database at a time, reads in commit order, and sends through an idempotent producer
//! that never gives an event up: a broker that is away is waited for.

mod caretaker;
mod lease;
mod observe;
mod prune;
mod publish;
mod rows;
mod session;

use std::time::Duration;

use ackwell::service::{Service, ServiceContext, ServiceError};
use ackwell::{SetupError, TopicDeclaration};
use futures_util::future::BoxFuture;

use crate::database::Database;
use crate::error::{Chain, Error};
pub(crate) use caretaker::Caretaker;
use lease::{Candidate, Lease};
use observe::Published;
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
///
/// An app whose listeners use a database and that has no relay for it looks whether another app has one:
/// health says so where events wait and nobody publishes them. The inbox is pruned there as well, where no relay
/// has been at work for ten minutes.
#[derive(Debug)]
pub struct Relay {
    database: Database,
    inbox_retention: Duration,
}

impl Relay {
    /// A relay for the outbox of `database`.
    pub fn new(database: Database) -> Self {
        let inbox_retention = database.settings().inbox_retention;
        Self {
            database,
            inbox_retention,
        }
    }

    /// How long the inbox remembers a record; default
    /// [`Settings::inbox_retention`](crate::Settings::inbox_retention), which is 7 days.
    ///
    /// It must be at least the retention of the topics that the listeners read: a record
    /// that comes again after its row is gone takes effect again. An app does not start if one of
    /// its listeners with a transaction reads a topic that declares a longer one; of topics whose
    /// retention only the broker knows, and of listeners in other apps, nobody can tell it.
    #[must_use]
    pub fn inbox_retention(mut self, retention: Duration) -> Self {
        self.inbox_retention = retention;
        self
    }

    async fn relay(&self, cx: ServiceContext) {
        let published = Published::observed(&self.database, cx.metrics());
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

/// What looks after the outbox of `database` in an app: the relay, or in its absence the caretaker.
fn name(database: &Database) -> String {
    format!("outbox of {}", database.name())
}

/// Refuses to forget records while they may still be read again.
fn check_retention(retention: Duration, read: &[TopicDeclaration]) -> Result<(), SetupError> {
    let longer = |topic: &&TopicDeclaration| topic.retention.is_some_and(|kept| kept > retention);
    let Some(topic) = read.iter().find(longer) else {
        return Ok(());
    };
    let kept = topic.retention.unwrap_or_default();
    Err(SetupError::new(format!(
        "the inbox forgets records after {retention:?}, and topic `{}` keeps them for {kept:?}: one that is \
         read again in between would take effect twice",
        topic.name
    ))
    .mend(format!(
        "set `inbox_retention` of the database's `Settings` (or of the `Relay`) to {kept:?} or more"
    )))
}

fn waiting(error: &Error) -> String {
    format!("events wait in the outbox: {}", Chain(error))
}

impl Service for Relay {
    fn name(&self) -> String {
        name(&self.database)
    }

    fn check(&self, read: &[TopicDeclaration]) -> Result<(), SetupError> {
        check_retention(self.inbox_retention, read)
    }

    fn run(self: Box<Self>, cx: ServiceContext) -> BoxFuture<'static, Result<(), ServiceError>> {
        Box::pin(async move {
            self.relay(cx).await;
            Ok(())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_secs(24 * 3600);

    #[test]
    fn an_inbox_that_forgets_before_a_topic_does_is_refused_with_a_mend() {
        let keeps = |retention| {
            let mut topic = TopicDeclaration::named("orders");
            topic.retention = retention;
            [topic]
        };
        assert!(check_retention(7 * DAY, &keeps(None)).is_ok());
        assert!(check_retention(7 * DAY, &keeps(Some(7 * DAY))).is_ok());
        let refused = check_retention(7 * DAY, &keeps(Some(30 * DAY))).unwrap_err();
        let told = refused.to_string();
        assert!(
            told.contains("`orders`") && told.contains("twice"),
            "{told}"
        );
        assert!(told.contains("`inbox_retention`"), "{told}");
    }
}
