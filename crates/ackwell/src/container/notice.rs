//! What is worth telling although nothing failed: silence, and its end.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use ackwell_core::Timestamp;
use ackwell_core::engine::PartitionId;
use ackwell_core::idle::{IdleChange, IdleWatch};
use tokio::runtime::Handle;
use tokio::sync::mpsc::{Receiver, Sender, WeakSender, channel};
use tokio_util::task::TaskTracker;

use super::control::TopicPartition;
use super::observation::{Observation, Observer};
use super::poll::Poller;

/// Notices that may wait for a slow listener; more are dropped, and counted all the same.
const WAITING_MAX: usize = 1_024;

/// Something that a listener has noticed about itself.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Notice {
    /// No record has come and none was in work for so long. Repeated after each further
    /// [`idle_after`](Notices::idle_after); before the first record, five times as long is
    /// allowed.
    Idle {
        /// For how long.
        quiet: Duration,
        /// Whether the listener is paused by request, which explains it.
        paused: bool,
    },
    /// A record came after [`Notice::Idle`].
    NoLongerIdle {
        /// After how long.
        quiet: Duration,
    },
    /// As [`Notice::Idle`], for one partition.
    PartitionIdle {
        /// Which one.
        partition: TopicPartition,
        /// For how long.
        quiet: Duration,
        /// Whether it is paused by request, which explains it.
        paused: bool,
    },
    /// A record came after [`Notice::PartitionIdle`].
    PartitionNoLongerIdle {
        /// Which one.
        partition: TopicPartition,
        /// After how long.
        quiet: Duration,
    },
    /// No broker has answered for so long, or the poll thread has not moved.
    NonResponsive {
        /// What is silent.
        reason: String,
    },
    /// It is over.
    Responsive,
    /// The log did not hold the position, and the client went on from another one
    /// (`auto.offset.reset`): records were passed over, or come again. Or the topic was deleted and
    /// created again, and is read from its beginning.
    OffsetReset {
        /// What happened, where the client can tell in its words.
        reason: String,
    },
}

impl Notice {
    /// One word for it.
    pub const fn kind(&self) -> &'static str {
        match self {
            Notice::Idle { .. } => "idle",
            Notice::NoLongerIdle { .. } => "no-longer-idle",
            Notice::PartitionIdle { .. } => "partition-idle",
            Notice::PartitionNoLongerIdle { .. } => "partition-no-longer-idle",
            Notice::NonResponsive { .. } => "non-responsive",
            Notice::Responsive => "responsive",
            Notice::OffsetReset { .. } => "offset-reset",
        }
    }
}

/// Who hears of notices.
pub type NoticeListener = Arc<dyn Fn(&Notice) + Send + Sync>;

/// What is noticed, and who hears of it.
#[derive(Clone)]
pub struct Notices {
    /// After which silence a listener is idle; default: never told.
    pub idle_after: Option<Duration>,
    /// After which silence a partition is idle; default: never told.
    pub partition_idle_after: Option<Duration>,
    /// After which silence of all brokers, or standstill of the poll thread, a listener is
    /// non-responsive. Default 60 s: a broker answers a fetch or heartbeat every few seconds.
    pub non_responsive_after: Duration,
    /// Who hears of it, beside metrics: called by a task of its own, so it may take its time.
    pub listener: Option<NoticeListener>,
}

impl Default for Notices {
    fn default() -> Self {
        Notices {
            idle_after: None,
            partition_idle_after: None,
            non_responsive_after: Duration::from_secs(60),
            listener: None,
        }
    }
}

impl fmt::Debug for Notices {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Notices")
            .field("idle_after", &self.idle_after)
            .field("partition_idle_after", &self.partition_idle_after)
            .field("non_responsive_after", &self.non_responsive_after)
            .finish_non_exhaustive()
    }
}

/// Passes notices on.
#[derive(Clone)]
pub(super) struct Notifier {
    observer: Arc<dyn Observer>,
    listener: Option<Sender<Notice>>,
}

impl Notifier {
    pub(super) fn start(
        notices: &Notices,
        observer: Arc<dyn Observer>,
        tasks: &TaskTracker,
    ) -> Self {
        let listener = notices.listener.clone().map(|listener| {
            let (sender, inbox) = channel(WAITING_MAX);
            tasks.spawn_on(pass_on(inbox, listener), &Handle::current());
            sender
        });
        Notifier { observer, listener }
    }

    /// For somebody who may outlive the container: its task ends without waiting for them.
    pub(super) fn downgrade(&self) -> WeakNotifier {
        WeakNotifier {
            observer: Arc::clone(&self.observer),
            listener: self.listener.as_ref().map(Sender::downgrade),
        }
    }

    pub(super) fn send(&self, notice: Notice) {
        tracing::debug!(kind = notice.kind(), ?notice, "noticed");
        self.observer
            .observe(&Observation::Noticed { notice: &notice });
        if let Some(sender) = &self.listener
            && sender.try_send(notice).is_err()
        {
            tracing::warn!("a notice was dropped: its listener does not keep up");
        }
    }
}

/// Passes notices on as long as the container runs; then they are only counted.
pub(super) struct WeakNotifier {
    observer: Arc<dyn Observer>,
    listener: Option<WeakSender<Notice>>,
}

impl WeakNotifier {
    pub(super) fn send(&self, notice: Notice) {
        let notifier = Notifier {
            observer: Arc::clone(&self.observer),
            listener: self.listener.as_ref().and_then(WeakSender::upgrade),
        };
        notifier.send(notice);
    }
}

async fn pass_on(mut inbox: Receiver<Notice>, listener: Arc<dyn Fn(&Notice) + Send + Sync>) {
    while let Some(notice) = inbox.recv().await {
        let call = std::panic::AssertUnwindSafe(|| listener(&notice));
        if std::panic::catch_unwind(call).is_err() {
            tracing::error!("a listener of notices panicked");
        }
    }
}

/// Watches for silence, as far as it was asked for.
#[derive(Debug, Default)]
pub(super) struct Watches {
    partition_after: Option<Duration>,
    listener: Option<IdleWatch>,
    partitions: BTreeMap<PartitionId, IdleWatch>,
}

impl Watches {
    pub(super) fn new(notices: &Notices, now: Timestamp) -> Self {
        Watches {
            partition_after: notices.partition_idle_after,
            listener: notices.idle_after.map(|after| IdleWatch::new(after, now)),
            partitions: BTreeMap::new(),
        }
    }

    /// When to look next.
    pub(super) fn deadline(&self) -> Option<Timestamp> {
        let partitions = self.partitions.values();
        let watches = self.listener.iter().chain(partitions);
        watches.map(IdleWatch::deadline).min()
    }
}

impl Poller {
    pub(super) fn watch_partitions(&mut self, ids: &[PartitionId]) {
        if let Some(after) = self.watches.partition_after {
            let now = self.clock.now();
            let watches = ids.iter().map(|id| (*id, IdleWatch::new(after, now)));
            self.watches.partitions.extend(watches);
        }
    }

    pub(super) fn forget_watches(&mut self, ids: &[PartitionId]) {
        for id in ids {
            self.watches.partitions.remove(id);
        }
    }

    /// Records have come.
    pub(super) fn not_idle(&mut self, id: PartitionId) {
        if self.watches.listener.is_none() && self.watches.partitions.is_empty() {
            return;
        }
        let now = self.clock.now();
        let listener = self.watches.listener.as_mut();
        if let Some(IdleChange::Active(quiet)) = listener.and_then(|watch| watch.active(now)) {
            self.notify(Notice::NoLongerIdle { quiet });
        }
        let partition = self.watches.partitions.get_mut(&id);
        if let Some(IdleChange::Active(quiet)) = partition.and_then(|watch| watch.active(now))
            && let Some(partition) = self.partition(id)
        {
            self.notify(Notice::PartitionNoLongerIdle { partition, quiet });
        }
    }

    /// Tells of silence when it is time.
    pub(super) fn look_for_silence(&mut self) {
        let now = self.clock.now();
        if self.watches.deadline().is_none_or(|at| now < at) {
            return;
        }
        let works = self.engine.queued_records() > 0;
        if let Some(watch) = &mut self.watches.listener {
            let change = if works {
                watch.active(now)
            } else {
                watch.check(now)
            };
            if let Some(IdleChange::Idle(quiet)) = change {
                let paused = self.engine.is_paused_whole();
                self.notify(Notice::Idle { quiet, paused });
            }
        }
        let ids: Vec<_> = self.watches.partitions.keys().copied().collect();
        for id in ids {
            let works = self.engine.queued_records_of(id) > 0;
            let Some(watch) = self.watches.partitions.get_mut(&id) else {
                continue;
            };
            let change = if works {
                watch.active(now)
            } else {
                watch.check(now)
            };
            if let (Some(IdleChange::Idle(quiet)), Some(partition)) = (change, self.partition(id)) {
                let paused = self.engine.is_paused(id);
                self.notify(Notice::PartitionIdle {
                    partition,
                    quiet,
                    paused,
                });
            }
        }
    }

    pub(super) fn notify(&self, notice: Notice) {
        self.notifier.send(notice);
    }

    fn partition(&self, id: PartitionId) -> Option<TopicPartition> {
        let (topic, partition) = self.partitions.name(id)?.clone();
        Some(TopicPartition { topic, partition })
    }
}
