//! Who runs, who doesn't, and why.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::watch;

/// The health of an app: its listeners, its services, and the broker. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Health {
    components: Arc<Mutex<Vec<Entry>>>,
    changed: watch::Sender<u64>,
}

#[derive(Clone, Debug)]
struct Entry {
    name: Arc<str>,
    kind: Kind,
    status: Status,
    since: Instant,
}

/// What kind of component it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The connection to the brokers.
    Broker,
    /// A listener.
    Listener,
    /// A background service.
    Service,
}

impl Kind {
    /// `"broker"`, `"listener"`, `"service"`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Broker => "broker",
            Self::Listener => "listener",
            Self::Service => "service",
        }
    }
}

/// What a component is doing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Status {
    /// Not yet at work; the reason says what it waits for.
    Starting(String),
    /// At work.
    Running,
    /// Paused on request: alive, not at work.
    Paused,
    /// At work as far as it can be, or waiting for something that is away.
    Degraded(String),
    /// Stopped on request.
    Stopped,
    /// Stopped by itself. It stays so until it is started again, or the process is.
    Failed(String),
}

impl Status {
    /// One word for it.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Starting(_) => "starting",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Degraded(_) => "degraded",
            Self::Stopped => "stopped",
            Self::Failed(_) => "failed",
        }
    }

    /// Why it is not running.
    pub fn reason(&self) -> Option<&str> {
        match self {
            Self::Starting(reason) | Self::Degraded(reason) | Self::Failed(reason) => Some(reason),
            Self::Running | Self::Paused | Self::Stopped => None,
        }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.reason() {
            Some(reason) => write!(f, "{}: {reason}", self.as_str()),
            None => f.write_str(self.as_str()),
        }
    }
}

/// One component as it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Component {
    /// Its name.
    pub name: String,
    /// What it is.
    pub kind: Kind,
    /// What it is doing.
    pub status: Status,
    /// For how long.
    pub for_: Duration,
}

/// An answer to a probe, with the components that speak against it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// The answer.
    pub ok: bool,
    /// Why not; empty when `ok`.
    pub against: Vec<Component>,
}

impl Default for Health {
    fn default() -> Self {
        Self {
            components: Arc::default(),
            changed: watch::Sender::new(0),
        }
    }
}

impl Health {
    /// Adds a component, which is starting. Components of one name are told apart by nothing, so
    /// give each its own.
    pub fn add(&self, kind: Kind, name: impl Into<Arc<str>>) -> Reporter {
        let mut entries = self.lock();
        entries.push(Entry {
            name: name.into(),
            kind,
            status: Status::Starting("not started yet".to_owned()),
            since: Instant::now(),
        });
        Reporter {
            health: self.clone(),
            index: entries.len() - 1,
        }
    }

    /// All components.
    pub fn components(&self) -> Vec<Component> {
        self.lock().iter().map(Entry::component).collect()
    }

    /// Whether the process is worth keeping: nothing has stopped by itself. What waits for a
    /// broker or a database is alive, since a restart would not bring them back.
    pub fn live(&self) -> Verdict {
        self.verdict(|status| !matches!(status, Status::Failed(_)))
    }

    /// Whether everything is at work.
    pub fn ready(&self) -> Verdict {
        self.verdict(|status| matches!(status, Status::Running))
    }

    /// Waits until everything is at work.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn until_ready(&self) {
        self.until(|health| health.ready().ok).await;
    }

    /// Waits until `condition` holds; it is asked again after each change.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn until(&self, condition: impl Fn(&Self) -> bool) {
        let mut changed = self.changed.subscribe();
        while !condition(self) {
            if changed.changed().await.is_err() {
                return;
            }
        }
    }

    fn verdict(&self, fine: impl Fn(&Status) -> bool) -> Verdict {
        let entries = self.lock();
        let against: Vec<_> = entries
            .iter()
            .filter(|entry| !fine(&entry.status))
            .map(Entry::component)
            .collect();
        Verdict {
            ok: against.is_empty(),
            against,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Entry>> {
        self.components
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entry {
    fn component(&self) -> Component {
        Component {
            name: self.name.to_string(),
            kind: self.kind,
            status: self.status.clone(),
            for_: self.since.elapsed(),
        }
    }
}

/// Through which one component reports its status. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Reporter {
    health: Health,
    index: usize,
}

impl Reporter {
    /// Reports a status; changes are logged. A failed component stays failed.
    pub fn report(&self, status: Status) {
        let mut entries = self.health.lock();
        let Some(entry) = entries.get_mut(self.index) else {
            return;
        };
        if entry.status == status || matches!(entry.status, Status::Failed(_)) {
            return;
        }
        let (component, kind) = (Arc::clone(&entry.name), entry.kind.as_str());
        entry.status = status.clone();
        entry.since = Instant::now();
        drop(entries);
        let (status, reason) = (status.as_str(), status.reason());
        match status {
            "failed" => tracing::error!(%component, kind, status, reason, "component failed"),
            "degraded" => tracing::warn!(%component, kind, status, reason, "component degraded"),
            _ => tracing::info!(%component, kind, status, reason, "component changed"),
        }
        self.health
            .changed
            .send_modify(|count| *count = count.wrapping_add(1));
    }

    /// As [`report`](Reporter::report), even if it had failed: it was started again.
    pub(crate) fn revive(&self, status: Status) {
        if let Some(entry) = self.health.lock().get_mut(self.index)
            && matches!(entry.status, Status::Failed(_))
        {
            entry.status = Status::Stopped;
        }
        self.report(status);
    }

    /// Reports that it is at work, if it was starting; a problem reported meanwhile stands.
    pub fn started(&self) {
        if matches!(self.status(), Status::Starting(_)) {
            self.report(Status::Running);
        }
    }

    /// What was reported last.
    pub fn status(&self) -> Status {
        self.health
            .lock()
            .get(self.index)
            .map_or(Status::Stopped, |entry| entry.status.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_that_stopped_by_itself_makes_the_process_not_alive() {
        let health = Health::default();
        let listener = health.add(Kind::Listener, "orders");
        listener.report(Status::Failed("handler said stop".to_owned()));
        listener.report(Status::Running);
        assert!(!health.live().ok);
        assert_eq!(
            health.live().against[0].status.reason(),
            Some("handler said stop")
        );
    }

    #[test]
    fn a_broker_that_is_away_makes_it_not_ready_but_leaves_it_alive() {
        let health = Health::default();
        let broker = health.add(Kind::Broker, "kafka");
        assert!(!health.ready().ok, "starting is not ready");
        broker.report(Status::Running);
        assert!(health.ready().ok);
        broker.report(Status::Degraded("no broker answers".to_owned()));
        assert!(!health.ready().ok && health.live().ok);
    }

    #[tokio::test]
    async fn readiness_can_be_awaited() {
        let health = Health::default();
        let broker = health.add(Kind::Broker, "kafka");
        let waiting = tokio::spawn({
            let health = health.clone();
            async move { health.until_ready().await }
        });
        broker.report(Status::Running);
        waiting.await.unwrap();
    }
}
