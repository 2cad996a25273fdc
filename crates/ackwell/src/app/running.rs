use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::StartError;
use crate::listener::ListenerHandle;
use crate::observe::{Health, Metrics};

/// How an app ended; `None` while it runs.
pub(super) type Ending = Option<Result<(), StartError>>;

/// An app at work. Cheap to clone; when the last clone is dropped, the app stops in the
/// background.
#[derive(Clone)]
pub struct RunningApp {
    health: Health,
    metrics: Metrics,
    listeners: Arc<BTreeMap<String, ListenerHandle>>,
    ending: watch::Receiver<Ending>,
    stop: CancellationToken,
    _stop_on_drop: Arc<DropGuard>,
}

impl RunningApp {
    pub(super) fn new(
        health: Health,
        metrics: Metrics,
        listeners: impl Iterator<Item = ListenerHandle>,
        ending: watch::Receiver<Ending>,
        stop: CancellationToken,
    ) -> Self {
        let named = listeners.map(|handle| (handle.name().to_owned(), handle));
        let listeners = Arc::new(named.collect());
        let guard = Arc::new(stop.clone().drop_guard());
        Self {
            health,
            metrics,
            listeners,
            ending,
            stop,
            _stop_on_drop: guard,
        }
    }

    /// The health of its listeners and services.
    pub fn health(&self) -> &Health {
        &self.health
    }

    /// Its metrics.
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// The listener with this name (given by
    /// [`ListenerBuilder::name`](crate::listener::ListenerBuilder::name), or `<group>:<topic>`),
    /// to pause, seek, stop and start it.
    pub fn listener(&self, name: &str) -> Option<ListenerHandle> {
        self.listeners.get(name).cloned()
    }

    /// All listeners, in the order of their names.
    pub fn listeners(&self) -> impl Iterator<Item = &ListenerHandle> {
        self.listeners.values()
    }

    /// Waits until everything is at work.
    ///
    /// # Errors
    /// When the app ended before.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn ready(&self) -> Result<(), StartError> {
        tokio::select! {
            () = self.health.until_ready() => Ok(()),
            ended = self.wait() => ended,
        }
    }

    /// Stops: no new records, those in work finish within `stop.drain` or are handed back,
    /// positions are committed, groups are left, services end. Returns when all is done.
    ///
    /// # Errors
    /// When the app had failed before.
    ///
    /// # Cancel safety
    /// The app stops even if this is dropped.
    pub async fn stop(&self) -> Result<(), StartError> {
        self.stop.cancel();
        self.wait().await
    }

    /// Waits until the app has ended.
    ///
    /// # Errors
    /// When starting failed after [`App::start`](super::App::start) had returned, for instance
    /// when the broker that came up lacks partitions.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn wait(&self) -> Result<(), StartError> {
        let mut ending = self.ending.clone();
        let ended = ending.wait_for(Option::is_some).await;
        ended.ok().and_then(|ended| ended.clone()).unwrap_or(Ok(()))
    }
}

impl fmt::Debug for RunningApp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RunningApp")
            .field("health", &self.health)
            .finish_non_exhaustive()
    }
}

/// Waits for SIGINT (Ctrl-C) or SIGTERM.
pub(super) async fn interrupted() {
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        if let Ok(mut terminate) = signal(SignalKind::terminate()) {
            tokio::select! {
                _ = tokio::signal::ctrl_c() => {}
                _ = terminate.recv() => {}
            }
            return;
        }
    }
    if tokio::signal::ctrl_c().await.is_err() {
        std::future::pending::<()>().await;
    }
}
