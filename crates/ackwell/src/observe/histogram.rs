//! A histogram for the hot path: no lock, and many equal observations at the price of one.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use prometheus_client::encoding::{EncodeMetric, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::{MetricType, TypedMetric};

/// Upper bounds in microseconds: from the cost of a no-op handler to that of a slow gateway.
const BOUNDS: [u64; 14] = [
    5, 25, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 100_000, 500_000, 2_500_000,
    10_000_000,
];

/// Durations, as a Prometheus histogram in seconds. Cheap to clone.
#[derive(Clone, Default)]
pub struct Histogram {
    inner: Arc<Inner>,
}

#[derive(Default)]
struct Inner {
    /// One more than bounds: the last is everything above.
    buckets: [AtomicU64; BOUNDS.len() + 1],
    nanos: AtomicU64,
}

impl Histogram {
    /// Adds one duration.
    pub fn observe(&self, duration: Duration) {
        self.observe_many(duration, 1);
    }

    /// Adds `count` observations that took `total` together, each as their mean.
    pub fn observe_many(&self, total: Duration, count: u64) {
        if count == 0 {
            return;
        }
        let nanos = u64::try_from(total.as_nanos()).unwrap_or(u64::MAX);
        let micros = (nanos / count).div_ceil(1_000);
        let bucket = BOUNDS.partition_point(|bound| *bound < micros);
        if let Some(bucket) = self.inner.buckets.get(bucket) {
            bucket.fetch_add(count, Ordering::Relaxed);
        }
        self.inner.nanos.fetch_add(nanos, Ordering::Relaxed);
    }

    /// Adds what was gathered.
    pub fn add(&self, tally: &Tally) {
        if tally.count == 0 {
            return;
        }
        for (bucket, count) in self.inner.buckets.iter().zip(tally.buckets) {
            if count > 0 {
                bucket.fetch_add(u64::from(count), Ordering::Relaxed);
            }
        }
        let nanos = u64::try_from(tally.total.as_nanos()).unwrap_or(u64::MAX);
        self.inner.nanos.fetch_add(nanos, Ordering::Relaxed);
    }

    /// How many observations it holds.
    pub fn count(&self) -> u64 {
        self.inner
            .buckets
            .iter()
            .map(|bucket| bucket.load(Ordering::Relaxed))
            .sum()
    }
}

/// Durations gathered in one place before they go to a [`Histogram`] together: no atomics, no
/// allocation.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    buckets: [u32; BOUNDS.len() + 1],
    count: u32,
    total: Duration,
}

impl Tally {
    /// Adds one duration.
    pub fn add(&mut self, duration: Duration) {
        if let Some(bucket) = self.buckets.get_mut(bucket(duration)) {
            *bucket += 1;
        }
        self.count += 1;
        self.total += duration;
    }

    /// Takes back one that was added.
    pub(crate) fn take_back(&mut self, duration: Duration) {
        if let Some(bucket) = self.buckets.get_mut(bucket(duration)) {
            *bucket = bucket.saturating_sub(1);
        }
        self.count = self.count.saturating_sub(1);
        self.total = self.total.saturating_sub(duration);
    }

    /// How many there are.
    pub fn count(&self) -> u32 {
        self.count
    }

    /// Their sum.
    pub fn total(&self) -> Duration {
        self.total
    }
}

fn bucket(duration: Duration) -> usize {
    let micros = u64::try_from(duration.as_nanos().div_ceil(1_000)).unwrap_or(u64::MAX);
    BOUNDS.partition_point(|bound| *bound < micros)
}

impl TypedMetric for Histogram {
    const TYPE: MetricType = MetricType::Histogram;
}

impl EncodeMetric for Histogram {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> fmt::Result {
        #[expect(
            clippy::cast_precision_loss,
            reason = "a sum of seconds needs no more than 52 bits"
        )]
        let seconds = |nanos: u64| nanos as f64 / 1e9;
        let bounds = BOUNDS
            .iter()
            .map(|micros| seconds(micros * 1_000))
            .chain([f64::MAX]);
        let counts = self
            .inner
            .buckets
            .iter()
            .map(|bucket| bucket.load(Ordering::Relaxed));
        let buckets: Vec<(f64, u64)> = bounds.zip(counts).collect();
        let count = buckets.iter().map(|(_, count)| count).sum();
        let sum = seconds(self.inner.nanos.load(Ordering::Relaxed));
        encoder.encode_histogram::<NoLabelSet>(sum, count, &buckets, None)
    }

    fn metric_type(&self) -> MetricType {
        Self::TYPE
    }
}

impl fmt::Debug for Histogram {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Histogram")
            .field("count", &self.count())
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tally_counts_each_duration_as_it_was() {
        let (histogram, mut tally) = (Histogram::default(), Tally::default());
        for millis in [1, 2, 60_000, 7] {
            tally.add(Duration::from_millis(millis));
        }
        tally.take_back(Duration::from_millis(7));
        histogram.add(&tally);
        assert_eq!((histogram.count(), tally.count()), (3, 3));
        assert_eq!(histogram.inner.buckets[5].load(Ordering::Relaxed), 1);
        assert_eq!(
            histogram.inner.buckets[BOUNDS.len()].load(Ordering::Relaxed),
            1
        );
    }

    #[test]
    fn many_observations_count_as_their_mean() {
        let histogram = Histogram::default();
        histogram.observe_many(Duration::from_millis(500), 500);
        histogram.observe(Duration::from_secs(60));
        histogram.observe_many(Duration::from_secs(1), 0);
        assert_eq!(histogram.count(), 501);
        assert_eq!(histogram.inner.buckets[5].load(Ordering::Relaxed), 500);
        assert_eq!(
            histogram.inner.buckets[BOUNDS.len()].load(Ordering::Relaxed),
            1
        );
    }
}
