//! A running listener in the hands of the program: pause, seek, stop, start, look.

use std::fmt;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use std::time::Duration;

use ackwell_core::seek::SeekTo;
use futures_util::future::join_all;
use tokio::task::JoinHandle;

use crate::StartError;
use crate::container::{
    self, AssignedPartition, Container, ControlError, End, Notice, Pauses, Spec, Stats,
    TopicPartition,
};
use crate::observe::{Metrics, Reporter, Status, watch_queues};

/// Looks at the poll thread within the limit after which it counts as stuck. One look alone says
/// nothing: the whole process may have slept.
const LOOKS: u32 = 10;

/// A listener of a running app, see [`RunningApp::listener`](crate::RunningApp::listener). Cheap
/// to clone. Handlers get it as an argument: it is an [extractor](crate::extract).
///
/// # Seeking
///
/// A seek lets the records in work of its partition finish (up to
/// [`revoke_drain`](crate::listener::ListenerBuilder::revoke_drain), then they are cancelled),
/// starts none behind them, and reads on from exactly the wanted offset. What finishes later than
/// that, of records before the seek, is recognised and ignored. The position is
/// committed at once, so a restart goes on from there.
///
/// Forwards, records in between are passed over, unsettled ones too: that is what a seek is for
/// when one of them can't be handled. Backwards, records come again: a handler with a transaction
/// recognises those that it has applied as duplicates and does nothing, since the inbox
/// remembers them; to apply them anew, prune the inbox or read them in another group.
///
/// # Pausing
///
/// A pause lets the record in work finish and starts none behind it. It survives
/// rebalances and [`stop`](ListenerHandle::stop), and ends with the process.
#[derive(Clone)]
pub struct ListenerHandle {
    core: Arc<Core>,
}

struct Core {
    name: Arc<str>,
    health: Reporter,
    metrics: Metrics,
    spec: OnceLock<Spec>,
    pauses: Arc<Pauses>,
    current: Mutex<Option<Arc<Container>>>,
    turn: tokio::sync::Mutex<Turn>,
}

/// What only one start or stop at a time may touch.
#[derive(Default)]
struct Turn {
    watch: Option<JoinHandle<()>>,
    /// A stop was begun.
    stopping: bool,
    /// The app stops.
    closed: bool,
}

/// A handle that does not keep its listener.
#[derive(Clone)]
pub(crate) struct WeakHandle(Weak<Core>);

impl WeakHandle {
    pub(crate) fn upgrade(&self) -> Option<ListenerHandle> {
        self.0.upgrade().map(|core| ListenerHandle { core })
    }
}

impl fmt::Debug for WeakHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("WeakHandle")
    }
}

impl ListenerHandle {
    pub(crate) fn new(name: &str, health: Reporter, metrics: Metrics) -> Self {
        ListenerHandle {
            core: Arc::new(Core {
                name: name.into(),
                health,
                metrics,
                spec: OnceLock::new(),
                pauses: Arc::default(),
                current: Mutex::default(),
                turn: tokio::sync::Mutex::default(),
            }),
        }
    }

    /// What it starts; the handler in it may hold the handle, which therefore comes first.
    pub(crate) fn set_spec(&self, spec: Spec) {
        // Set once, by the plan that made the handle.
        let _ = self.core.spec.set(spec);
    }

    pub(crate) fn spec(&self) -> Option<&Spec> {
        self.core.spec.get()
    }

    pub(crate) fn downgrade(&self) -> WeakHandle {
        WeakHandle(Arc::downgrade(&self.core))
    }

    pub(crate) fn health(&self) -> &Reporter {
        &self.core.health
    }

    /// The listener's name.
    pub fn name(&self) -> &str {
        &self.core.name
    }

    /// What it is doing, as the app's health says.
    pub fn status(&self) -> Status {
        self.core.health.status()
    }

    /// What it has done since it was started last; all zero while it is stopped.
    pub fn stats(&self) -> Stats {
        self.current()
            .map(|container| container.stats())
            .unwrap_or_default()
    }

    /// The partitions that it owns now; none while it is stopped.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn assignment(&self) -> Vec<AssignedPartition> {
        match self.current() {
            Some(container) => container.assignment().await,
            None => Vec::new(),
        }
    }

    /// Handles no new records until [`resume`](ListenerHandle::resume). Health says so.
    pub fn pause(&self) {
        match self.current() {
            Some(container) => container.pause(),
            None => self.core.pauses.set_all(true),
        }
    }

    /// Ends a [`pause`](ListenerHandle::pause).
    pub fn resume(&self) {
        match self.current() {
            Some(container) => container.resume(),
            None => self.core.pauses.set_all(false),
        }
    }

    /// Handles no new records of one partition, owned now or later, until
    /// [`resume_partition`](ListenerHandle::resume_partition).
    ///
    /// # Errors
    /// When the listener does not read the topic, or 10,000 partitions are paused already.
    pub fn pause_partition(&self, topic: &str, partition: i32) -> Result<(), ControlError> {
        let partition = self.partition(topic, partition)?;
        match self.current() {
            Some(container) => container.pause_partition(&partition),
            None => self.core.pauses.pause(&partition),
        }
    }

    /// Ends a [`pause_partition`](ListenerHandle::pause_partition).
    ///
    /// # Errors
    /// When the listener does not read the topic.
    pub fn resume_partition(&self, topic: &str, partition: i32) -> Result<(), ControlError> {
        let partition = self.partition(topic, partition)?;
        match self.current() {
            Some(container) => container.resume_partition(&partition),
            None => self.core.pauses.resume(&partition),
        }
        Ok(())
    }

    /// Reads a partition on from elsewhere, and returns the offset when that is carried out.
    /// In a handler use [`extract::Seek`](crate::extract::Seek) instead: a seek waits for the
    /// handlers in work, so one that awaits it waits for itself until it is cancelled.
    ///
    /// # Errors
    /// When the listener is stopped or does not own the partition, the log does not hold the
    /// offset, a later seek takes the place of this one, the partition is revoked before, or the
    /// broker does not say what the log holds.
    ///
    /// # Cancel safety
    /// The seek is carried out even if the future is dropped.
    pub async fn seek(&self, topic: &str, partition: i32, to: SeekTo) -> Result<i64, ControlError> {
        let partition = self.partition(topic, partition)?;
        let container = self.current().ok_or(ControlError::Stopped)?;
        container.seek(&partition, to).await
    }

    /// [Seeks](ListenerHandle::seek) in all partitions that it owns now. Other members of the
    /// group own the others.
    ///
    /// # Errors
    /// When the listener is stopped. Each partition has its own result beside.
    ///
    /// # Cancel safety
    /// What was begun is carried out even if the future is dropped.
    pub async fn seek_all(
        &self,
        to: SeekTo,
    ) -> Result<Vec<(TopicPartition, Result<i64, ControlError>)>, ControlError> {
        let container = self.current().ok_or(ControlError::Stopped)?;
        let assigned = container.assignment().await;
        let seeks = assigned.into_iter().map(async |assigned| {
            let sought = container.seek(&assigned.partition, to).await;
            (assigned.partition, sought)
        });
        Ok(join_all(seeks).await)
    }

    /// As [`seek`](ListenerHandle::seek), without waiting; a refusal is logged.
    ///
    /// # Errors
    /// When the listener is stopped or does not read the topic.
    pub fn request_seek(
        &self,
        topic: &str,
        partition: i32,
        to: SeekTo,
    ) -> Result<(), ControlError> {
        let partition = self.partition(topic, partition)?;
        let container = self.current().ok_or(ControlError::Stopped)?;
        container.request_seek(&partition, to);
        Ok(())
    }

    /// Stops the listener alone: the records in work finish within `stop.drain` or are handed
    /// back, positions are committed, the group is left. The app goes on, and its health says
    /// that this listener is stopped. Does nothing if it is.
    ///
    /// In a handler of this listener, spawn it: it waits for that handler, too.
    ///
    /// # Cancel safety
    /// The listener stops even if the future is dropped.
    pub async fn stop(&self) {
        let mut turn = self.core.turn.lock().await;
        self.end(&mut turn).await;
    }

    /// Starts the listener again after [`stop`](ListenerHandle::stop), or after it has stopped by
    /// itself. Returns when it has begun to join its group; does nothing if it runs.
    ///
    /// # Errors
    /// When the app has stopped, or the listener can't start; health then says that it failed.
    ///
    /// # Cancel safety
    /// If the future is dropped, the listener may be stopped.
    pub async fn start(&self) -> Result<(), StartError> {
        let mut turn = self.core.turn.lock().await;
        if turn.closed {
            return Err(StartError::Stopped);
        }
        let runs = self
            .current()
            .is_some_and(|container| container.is_running());
        if runs && !turn.stopping {
            return Ok(());
        }
        self.end(&mut turn).await;
        let health = &self.core.health;
        health.revive(Status::Starting("joining its group".to_owned()));
        self.launch(&mut turn).await.map_err(|error| {
            health.report(Status::Failed(error.to_string()));
            StartError::Container(Arc::new(error))
        })
    }

    /// The first start, by the app.
    pub(crate) async fn begin(&self) -> Result<(), container::StartError> {
        let mut turn = self.core.turn.lock().await;
        self.launch(&mut turn).await
    }

    /// The end, by the app: it can't be started again.
    pub(crate) async fn close(&self) {
        let mut turn = self.core.turn.lock().await;
        turn.closed = true;
        self.end(&mut turn).await;
        self.core.health.report(Status::Stopped);
    }

    async fn launch(&self, turn: &mut Turn) -> Result<(), container::StartError> {
        let core = &self.core;
        let spec = self.spec().cloned();
        let spec = spec.ok_or_else(|| container::StartError::Spec {
            listener: core.name.to_string(),
            reason: "it was not planned",
        })?;
        let limit = spec.notices.non_responsive_after;
        let container = container::start_with(spec, Arc::clone(&core.pauses)).await?;
        let container = Arc::new(container);
        watch_queues(&core.name, &core.metrics, &container);
        let watched = watch(Arc::clone(&container), core.health.clone(), limit);
        turn.watch = Some(tokio::spawn(watched));
        turn.stopping = false;
        *core.current.lock().unwrap_or_else(PoisonError::into_inner) = Some(container);
        Ok(())
    }

    async fn end(&self, turn: &mut Turn) {
        let Some(container) = self.current() else {
            return;
        };
        turn.stopping = true;
        container.stop().await;
        if let Some(watch) = &mut turn.watch
            && watch.await.is_err()
        {
            tracing::error!(listener = self.name(), "the watch of a listener panicked");
        }
        turn.watch = None;
        let mut current = self
            .core
            .current
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        *current = None;
    }

    fn current(&self) -> Option<Arc<Container>> {
        let current = self.core.current.lock();
        current.unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn partition(&self, topic: &str, partition: i32) -> Result<TopicPartition, ControlError> {
        let spec = self.spec();
        // A pattern's topics are not known here.
        let reads =
            |spec: &Spec| spec.pattern.is_some() || spec.topics.iter().any(|read| read == topic);
        if spec.is_some_and(reads) {
            Ok(TopicPartition::new(topic, partition))
        } else {
            let topic = topic.to_owned();
            Err(ControlError::NotSubscribed { topic })
        }
    }
}

impl fmt::Debug for ListenerHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ListenerHandle")
            .field("name", &self.core.name)
            .field("status", &self.status())
            .finish_non_exhaustive()
    }
}

/// Reports how a container ends, and while its poll thread does not move.
async fn watch(container: Arc<Container>, health: Reporter, limit: Duration) {
    let mut standstill = Standstill::default();
    let mut before = None;
    let end = loop {
        let look = tokio::time::timeout(limit / LOOKS, container.wait());
        if let Ok(end) = look.await {
            break end;
        }
        match standstill.look(container.stats().turns) {
            Some(true) => {
                let limit_ms = limit.as_millis();
                let reason = format!(
                    "its poll thread has not moved for {limit_ms} ms; if it stays so, restart the process, and report its stack as a bug"
                );
                before = Some(health.status());
                health.report(Status::Failed(reason.clone()));
                container.notify(Notice::NonResponsive { reason });
            }
            Some(false) => {
                if let Some(before) = before.take() {
                    health.revive(before);
                    container.notify(Notice::Responsive);
                }
            }
            None => {}
        }
    };
    health.report(match end {
        End::Stopped => Status::Stopped,
        End::Failed(reason) => Status::Failed(reason),
    });
}

/// Whether a counter that should grow stands still.
#[derive(Debug, Default)]
struct Standstill {
    seen: u64,
    looks: u32,
}

impl Standstill {
    /// `true` when it has begun to stand still, `false` when it moves again.
    fn look(&mut self, count: u64) -> Option<bool> {
        let stood = self.looks >= LOOKS;
        self.looks = if count == self.seen {
            self.looks.saturating_add(1)
        } else {
            0
        };
        self.seen = count;
        let stands = self.looks >= LOOKS;
        (stands != stood).then_some(stands)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_poll_thread_stands_still_when_every_look_sees_it_so() {
        let mut standstill = Standstill::default();
        assert_eq!(standstill.look(7), None);
        for _ in 1..LOOKS {
            assert_eq!(standstill.look(7), None);
        }
        assert_eq!(standstill.look(7), Some(true));
        assert_eq!(standstill.look(7), None);
        assert_eq!(standstill.look(8), Some(false));
    }

    #[test]
    fn a_process_that_slept_is_not_taken_for_a_thread_that_hangs() {
        let mut standstill = Standstill::default();
        standstill.look(7);
        assert_eq!(standstill.look(7), None, "one look after the sleep");
        assert_eq!(standstill.look(9), None);
    }
}
