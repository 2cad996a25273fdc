//! What metrics say about a database and its outbox.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use ackwell::observe::Metrics;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Unit;

use crate::database::{Database, Outbox};

/// How often the outbox is looked at for metrics; where that takes long because much waits, so many times longer
/// passes until the next look.
const SAMPLE: Duration = Duration::from_secs(2);
const SAMPLE_REST: u32 = 20;

/// What the relay has published, and what it has left.
#[derive(Debug, Default)]
pub(super) struct Published {
    count: AtomicU64,
    outbox: Mutex<Option<Outbox>>,
}

impl Published {
    /// Nothing so far. From now on `metrics` tell of it and of the database.
    pub(super) fn observed(database: &Database, metrics: &Metrics) -> Arc<Self> {
        let published = Arc::new(Self::default());
        let observed = Observed {
            database: database.clone(),
            published: Arc::clone(&published),
        };
        metrics.register(|registry| registry.register_collector(Box::new(observed)));
        published
    }

    pub(super) fn add_one(&self) {
        self.count.fetch_add(1, Relaxed);
    }

    pub(super) fn count(&self) -> u64 {
        self.count.load(Relaxed)
    }

    /// What waited when it was looked at last.
    pub(super) fn outbox(&self) -> Option<Outbox> {
        *self.outbox.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks at the outbox again and again; relays that stand by do so as well.
    pub(super) async fn sample(&self, database: &Database) {
        loop {
            let since = Instant::now();
            let outbox = database.outbox().await.ok();
            *self.outbox.lock().unwrap_or_else(PoisonError::into_inner) = outbox;
            tokio::time::sleep(SAMPLE.max(since.elapsed() * SAMPLE_REST)).await;
        }
    }
}

/// Reads the figures when they are asked for.
#[derive(Debug)]
struct Observed {
    database: Database,
    published: Arc<Published>,
}

impl Collector for Observed {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let counts = self.database.counts();
        let outbox = self.published.outbox();
        let counters: [(&str, &str, u64); 7] = [
            (
                "outbox_published",
                "Events that the brokers acknowledged",
                self.published.count(),
            ),
            (
                "database_commits",
                "Group commits: waits for the disk",
                counts.commits,
            ),
            (
                "database_units",
                "Units of work that were committed",
                counts.members,
            ),
            (
                "database_failed_commits",
                "Group commits that failed",
                counts.failed_commits,
            ),
            (
                "database_rollbacks",
                "Units of work that were taken back alone",
                counts.rolled_back,
            ),
            (
                "database_gave_way",
                "Records that were handled again because their group and another one waited for each other's locks",
                counts.gave_way,
            ),
            (
                "inbox_duplicates",
                "Records that were handled before",
                counts.duplicates,
            ),
        ];
        for (name, help, value) in counters {
            let name = format!("ackwell_{name}");
            let metric = encoder.encode_descriptor(&name, help, None, MetricType::Counter)?;
            ConstCounter::new(value).encode(metric)?;
        }
        let time = encoder.encode_descriptor(
            "ackwell_database_commit",
            "Time spent in group commits",
            Some(&Unit::Seconds),
            MetricType::Counter,
        )?;
        ConstCounter::new(counts.commit_time.as_secs_f64()).encode(time)?;
        let Some(outbox) = outbox else { return Ok(()) };
        let depth = encoder.encode_descriptor(
            "ackwell_outbox_depth",
            "Events that wait to be published",
            None,
            MetricType::Gauge,
        )?;
        ConstGauge::new(i64::try_from(outbox.depth).unwrap_or(i64::MAX)).encode(depth)?;
        let age = encoder.encode_descriptor(
            "ackwell_outbox_age",
            "Age of the oldest event that waits",
            Some(&Unit::Seconds),
            MetricType::Gauge,
        )?;
        ConstGauge::new(outbox.age().as_secs_f64()).encode(age)
    }
}
