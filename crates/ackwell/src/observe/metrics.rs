//! The app's metrics: every label bounded by what the program declares.
//!
//! Labels are listeners, topics, partitions and a handful of words; never keys, exception texts
//! or anything else that records bring along.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};

use super::histogram::Histogram;

/// The metrics of an app, in a registry of its own. Cheap to clone.
#[derive(Clone)]
pub struct Metrics {
    registry: Arc<Mutex<Registry>>,
    refreshed: Arc<Mutex<Vec<Refresh>>>,
    pub(super) listeners: ListenerFamilies,
    producers: ProducerFamilies,
}

/// Brings gauges up to date before they are read; `false` when there is nothing left to read.
type Refresh = Box<dyn FnMut() -> bool + Send>;

/// Labels of a listener.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct ByListener {
    pub(super) listener: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct ByTopic {
    pub(super) listener: String,
    pub(super) topic: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct ByPartition {
    pub(super) listener: String,
    pub(super) topic: String,
    pub(super) partition: i32,
}

/// `word` is one of a fixed few: an outcome, an error class, a kind of rebalance.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct ByOutcome {
    pub(super) listener: String,
    pub(super) outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct ByReason {
    pub(super) listener: String,
    pub(super) topic: String,
    pub(super) reason: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct BySend {
    topic: String,
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct ByTarget {
    topic: String,
}

#[derive(Clone, Default)]
pub(super) struct ListenerFamilies {
    pub(super) consumed: Family<ByTopic, Counter>,
    pub(super) duplicates: Family<ByTopic, Counter>,
    pub(super) filtered: Family<ByTopic, Counter>,
    pub(super) handling: Family<ByOutcome, Histogram>,
    pub(super) failed_attempts: Family<ByOutcome, Counter>,
    pub(super) retries: Family<ByListener, Counter>,
    pub(super) dead_letters: Family<ByReason, Counter>,
    pub(super) dead_letter_bytes: Family<ByReason, Counter>,
    pub(super) postponed: Family<ByTopic, Counter>,
    pub(super) recovery_failures: Family<ByListener, Counter>,
    pub(super) dropped_notices: Family<ByListener, Counter>,
    pub(super) undecodable: Family<ByListener, Counter>,
    pub(super) lag: Family<ByPartition, Gauge>,
    pub(super) rebalances: Family<ByOutcome, Counter>,
    pub(super) assigned: Family<ByListener, Gauge>,
    pub(super) paused: Family<ByListener, Gauge>,
    pub(super) in_work: Family<ByListener, Gauge>,
    pub(super) commits: Family<ByOutcome, Counter>,
    pub(super) transactions: Family<ByOutcome, Counter>,
    pub(super) transaction_commits: Family<ByListener, Histogram>,
    pub(super) notices: Family<ByOutcome, Counter>,
    pub(super) unacknowledged: Family<ByListener, Gauge>,
    pub(super) nacks: Family<ByOutcome, Counter>,
    pub(super) parked_keys: Family<ByListener, Gauge>,
    pub(super) parked_records: Family<ByListener, Gauge>,
    pub(super) parked_oldest: Family<ByListener, Gauge>,
}

#[derive(Clone, Default)]
struct ProducerFamilies {
    sent: Family<BySend, Counter>,
    latency: Family<ByTarget, Histogram>,
    waiting: Gauge,
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// An empty registry with the framework's metrics, each named `ackwell_..`.
    pub fn new() -> Self {
        let mut registry = Registry::default();
        let listeners = ListenerFamilies::default();
        let producers = ProducerFamilies::default();
        let framework = registry.sub_registry_with_prefix("ackwell");
        listeners.register(framework);
        producers.register(framework);
        Self {
            registry: Arc::new(Mutex::new(registry)),
            refreshed: Arc::default(),
            listeners,
            producers,
        }
    }

    /// Adds metrics of one's own.
    pub fn register(&self, add: impl FnOnce(&mut Registry)) {
        add(&mut self.registry.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// Has `refresh` called before each reading, for gauges that are cheaper to ask for than to
    /// keep. It is dropped when it returns `false`.
    pub fn refresh(&self, refresh: impl FnMut() -> bool + Send + 'static) {
        let mut refreshed = self
            .refreshed
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        refreshed.push(Box::new(refresh));
    }

    /// All metrics as OpenMetrics text
    /// (`application/openmetrics-text; version=1.0.0; charset=utf-8`).
    pub fn render(&self) -> String {
        let mut refreshed = self
            .refreshed
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        refreshed.retain_mut(|refresh| refresh());
        drop(refreshed);
        let mut text = String::new();
        let registry = self.registry.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(error) = prometheus_client::encoding::text::encode(&mut text, &registry) {
            tracing::error!(%error, "metrics could not be written");
        }
        text
    }

    pub(crate) fn producer(&self) -> ProducerMetrics {
        ProducerMetrics {
            families: self.producers.clone(),
        }
    }

    pub(crate) fn transactions(&self) -> TransactionMetrics {
        TransactionMetrics {
            families: self.listeners.clone(),
        }
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

impl ListenerFamilies {
    fn register(&self, to: &mut Registry) {
        to.register(
            "consumed_records",
            "Records settled, however they ended",
            self.consumed.clone(),
        );
        to.register(
            "duplicate_records",
            "Records that an earlier delivery had settled",
            self.duplicates.clone(),
        );
        to.register(
            "filtered_records",
            "Records that the listener's filter passed over",
            self.filtered.clone(),
        );
        to.register_with_unit(
            "handling",
            "Time of an attempt at a record, by how it ended: ok, or the class of the failure",
            Unit::Seconds,
            self.handling.clone(),
        );
        to.register(
            "failed_attempts",
            "Attempts that failed, by error class",
            self.failed_attempts.clone(),
        );
        to.register(
            "retries",
            "Failed attempts that another one follows",
            self.retries.clone(),
        );
        to.register(
            "dead_letters",
            "Records written to a dead-letter topic, by reason class",
            self.dead_letters.clone(),
        );
        to.register_with_unit(
            "dead_letter",
            "Size of the records written to a dead-letter topic, by reason class",
            Unit::Bytes,
            self.dead_letter_bytes.clone(),
        );
        to.register(
            "postponed_records",
            "Records written to a retry topic, each time",
            self.postponed.clone(),
        );
        to.register(
            "dead_letter_failures",
            "Dead letters and retries that could not be written; their records are kept",
            self.recovery_failures.clone(),
        );
        to.register(
            "dropped_notices",
            "Notices of failures dropped because a failure listener is slow",
            self.dropped_notices.clone(),
        );
        to.register(
            "undecodable_records",
            "Records that the handler's extractors refused",
            self.undecodable.clone(),
        );
        to.register(
            "lag_records",
            "Records between the settled position and the partition's end",
            self.lag.clone(),
        );
        to.register(
            "rebalances",
            "Partitions assigned, revoked or lost",
            self.rebalances.clone(),
        );
        to.register(
            "assigned_partitions",
            "Partitions that the listener owns",
            self.assigned.clone(),
        );
        to.register(
            "paused_partitions",
            "Partitions whose fetching is paused: their queues are full, or on request",
            self.paused.clone(),
        );
        to.register(
            "in_work_records",
            "Records that wait or are in work",
            self.in_work.clone(),
        );
        to.register(
            "unacknowledged_records",
            "Handled records that wait for their acknowledgement",
            self.unacknowledged.clone(),
        );
        to.register(
            "nacks",
            "Acknowledgements refused, by whether they were asked for or dropped",
            self.nacks.clone(),
        );
        to.register(
            "parked_keys",
            "Keys whose records wait for a failed one to be retried",
            self.parked_keys.clone(),
        );
        to.register(
            "parked_records",
            "Records that wait for a failed one of their key, and those",
            self.parked_records.clone(),
        );
        to.register_with_unit(
            "parked_oldest",
            "How long the key has waited that waits longest",
            Unit::Seconds,
            self.parked_oldest.clone(),
        );
        to.register(
            "commits",
            "Offset commits, by outcome",
            self.commits.clone(),
        );
        to.register(
            "transactions",
            "Transactions of Kafka: committed, or why not; those outside of listeners have no listener",
            self.transactions.clone(),
        );
        to.register_with_unit(
            "transaction_commit",
            "Time that the commit of a transaction took, those included that failed",
            Unit::Seconds,
            self.transaction_commits.clone(),
        );
        to.register(
            "notices",
            "What listeners noticed: silence, its end, positions that the log did not hold",
            self.notices.clone(),
        );
    }
}

impl ProducerFamilies {
    fn register(&self, to: &mut Registry) {
        to.register(
            "producer_records",
            "Records sent, by outcome",
            self.sent.clone(),
        );
        to.register_with_unit(
            "producer_send",
            "Time from send to the broker's acknowledgement",
            Unit::Seconds,
            self.latency.clone(),
        );
        to.register(
            "producer_waiting_records",
            "Records not yet acknowledged",
            self.waiting.clone(),
        );
    }
}

/// What a producer reports.
#[derive(Clone)]
pub(crate) struct ProducerMetrics {
    families: ProducerFamilies,
}

impl ProducerMetrics {
    pub(crate) fn queued(&self) {
        self.families.waiting.inc();
    }

    pub(crate) fn acknowledged(&self, topic: &str, latency: std::time::Duration) {
        self.families.waiting.dec();
        self.outcome(topic, "ok");
        let by = ByTarget {
            topic: topic.to_owned(),
        };
        self.families.latency.get_or_create(&by).observe(latency);
    }

    pub(crate) fn failed(&self, topic: &str, was_queued: bool) {
        if was_queued {
            self.families.waiting.dec();
        }
        self.outcome(topic, "failed");
    }

    fn outcome(&self, topic: &str, outcome: &'static str) {
        self.families
            .sent
            .get_or_create(&BySend {
                topic: topic.to_owned(),
                outcome,
            })
            .inc();
    }
}

/// What transactions outside of listeners report: the same as those of listeners, whose name is empty.
#[derive(Clone)]
pub(crate) struct TransactionMetrics {
    families: ListenerFamilies,
}

impl TransactionMetrics {
    /// A commit has ended so.
    pub(crate) fn committed(&self, outcome: &'static str, elapsed: std::time::Duration) {
        let listener = String::new();
        let commits = &self.families.transaction_commits;
        commits
            .get_or_create(&ByListener { listener })
            .observe(elapsed);
        self.ended(outcome);
    }

    /// A transaction has ended so, without a commit.
    pub(crate) fn ended(&self, outcome: &'static str) {
        let by = ByOutcome {
            listener: String::new(),
            outcome,
        };
        self.families.transactions.get_or_create(&by).inc();
    }
}
