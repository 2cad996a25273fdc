//! What metrics say about sagas.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use ackwell::core::saga::Status;
use jiff::Timestamp;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Unit;

use super::sagas::{Saga, Sagas};
use super::view::Open;
use crate::database::Database;

/// How often the open sagas are counted; where that takes long, so many times longer passes until the next time.
const SAMPLE: Duration = Duration::from_secs(2);
const SAMPLE_REST: u32 = 20;

/// What this process has done, counted when it is decided: a transaction that is taken back and done again counts
/// twice.
#[derive(Debug, Clone, Default)]
pub(super) struct Counted(Arc<Counts>);

#[derive(Debug, Default)]
struct Counts {
    completed: AtomicU64,
    compensated: AtomicU64,
    reviews: AtomicU64,
    fired: AtomicU64,
    pruned: AtomicU64,
    unknown: AtomicU64,
}

impl Counted {
    pub(super) fn moved(&self, before: Option<Status>, now: Status) {
        let counter = match now {
            _ if before == Some(now) => return,
            Status::Completed => &self.0.completed,
            Status::Compensated => &self.0.compensated,
            Status::ManualReview => &self.0.reviews,
            Status::Running | Status::Compensating => return,
        };
        counter.fetch_add(1, Relaxed);
    }

    pub(super) fn fired(&self) {
        self.0.fired.fetch_add(1, Relaxed);
    }

    pub(super) fn pruned(&self, sagas: u64) {
        self.0.pruned.fetch_add(sagas, Relaxed);
    }

    pub(super) fn unknown(&self) {
        self.0.unknown.fetch_add(1, Relaxed);
    }
}

type Sampled = Arc<Mutex<Vec<Open>>>;

/// Counts the open sagas again and again.
pub(super) async fn sample<S: Saga>(sagas: &Sagas<S>, database: &Database, open: &Sampled) {
    loop {
        let since = Instant::now();
        let counted = sagas.open(database).await.unwrap_or_default();
        *open.lock().unwrap_or_else(PoisonError::into_inner) = counted;
        tokio::time::sleep(SAMPLE.max(since.elapsed() * SAMPLE_REST)).await;
    }
}

/// Reads the figures when they are asked for.
#[derive(Debug)]
pub(super) struct Observed {
    name: &'static str,
    counted: Counted,
    open: Sampled,
}

impl Observed {
    pub(super) fn new<S: Saga>(sagas: &Sagas<S>) -> Self {
        Self {
            name: sagas.plan().name(),
            counted: sagas.counted().clone(),
            open: Sampled::default(),
        }
    }

    pub(super) fn open(&self) -> Sampled {
        Arc::clone(&self.open)
    }
}

impl Collector for Observed {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let open = self
            .open
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        let labels = |status: Status| [("saga", self.name), ("status", status.name())];
        let mut gauge =
            encoder.encode_descriptor("ackwell_sagas", "Open sagas", None, MetricType::Gauge)?;
        for open in &open {
            let count = i64::try_from(open.count).unwrap_or(i64::MAX);
            ConstGauge::new(count).encode(gauge.encode_family(&labels(open.status))?)?;
        }
        let mut gauge = encoder.encode_descriptor(
            "ackwell_sagas_oldest_age",
            "Age of the oldest open saga",
            Some(&Unit::Seconds),
            MetricType::Gauge,
        )?;
        for open in &open {
            let age = Timestamp::now().duration_since(open.oldest).as_secs_f64();
            ConstGauge::new(age).encode(gauge.encode_family(&labels(open.status))?)?;
        }
        let mut counter = encoder.encode_descriptor(
            "ackwell_sagas_reached",
            "Sagas that came to this status",
            None,
            MetricType::Counter,
        )?;
        let counts = &self.counted.0;
        for (status, count) in [
            (Status::Completed, &counts.completed),
            (Status::Compensated, &counts.compensated),
            (Status::ManualReview, &counts.reviews),
        ] {
            let labels = labels(status);
            let family = counter.encode_family(&labels)?;
            ConstCounter::new(count.load(Relaxed)).encode(family)?;
        }
        for (name, help, count) in [
            (
                "ackwell_saga_deadlines_fired",
                "Deadlines of sagas that passed without an answer",
                &counts.fired,
            ),
            (
                "ackwell_sagas_pruned",
                "Finished sagas that were forgotten after their retention",
                &counts.pruned,
            ),
            (
                "ackwell_saga_unknown",
                "Replies, cancels and decisions for a saga that there is not, or no longer",
                &counts.unknown,
            ),
        ] {
            let mut counter = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
            let label = [("saga", self.name)];
            let family = counter.encode_family(&label)?;
            ConstCounter::new(count.load(Relaxed)).encode(family)?;
        }
        Ok(())
    }
}
