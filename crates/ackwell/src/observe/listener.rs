//! From what a container observes to metrics and health.

use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use prometheus_client::metrics::counter::Counter;

use super::health::{Reporter, Status};
use super::histogram::{Histogram, Tally};
use super::metrics::{ByListener, ByOutcome, ByPartition, ByReason, ByTopic, Metrics};
use crate::container::{Container, Observation, Observer};
use crate::failure::{
    Class, Destination, FailedAttempt, Notice, Notifier, Place, Recovered, RecoveryFailed,
};
use crate::unit::Parking;

/// Listens to one container. What each run reports is at hand without a look-up.
pub(crate) struct ListenerObserver {
    listener: String,
    metrics: Metrics,
    health: Reporter,
    handled: Histogram,
    retries: Counter,
    dropped_notices: Counter,
    notifiers: Vec<Notifier>,
    assigned: AtomicI64,
    /// Whether it has ever been in its group.
    joined: AtomicBool,
    /// Whether it is paused by request.
    paused: AtomicBool,
    problem: Mutex<Option<String>>,
}

impl ListenerObserver {
    pub(crate) fn new(
        listener: &str,
        metrics: &Metrics,
        health: Reporter,
        notifiers: Vec<Notifier>,
    ) -> Self {
        let by = ByListener {
            listener: listener.to_owned(),
        };
        let ok = ByOutcome {
            listener: listener.to_owned(),
            outcome: "ok",
        };
        let families = &metrics.listeners;
        Self {
            listener: listener.to_owned(),
            handled: families.handling.get_or_create_owned(&ok),
            retries: families.retries.get_or_create_owned(&by),
            dropped_notices: families.dropped_notices.get_or_create_owned(&by),
            notifiers,
            metrics: metrics.clone(),
            health,
            assigned: AtomicI64::new(0),
            joined: AtomicBool::new(false),
            paused: AtomicBool::new(false),
            problem: Mutex::default(),
        }
    }

    /// A counter for what the listener's extractors refuse.
    pub(crate) fn undecodable(&self) -> Counter {
        self.metrics
            .listeners
            .undecodable
            .get_or_create_owned(&self.by())
    }

    /// Handlers that waited are timed one by one, the others by their mean.
    fn time(
        &self,
        settled: usize,
        elapsed: Duration,
        waited: &Tally,
        failed: Option<(Class, Option<Duration>)>,
    ) {
        let quick = settled.saturating_sub(waited.count() as usize) as u64;
        let mut left = elapsed.saturating_sub(waited.total());
        if let Some((class, took)) = failed {
            let attempts = u32::try_from(quick).unwrap_or(u32::MAX).saturating_add(1);
            let took = took.unwrap_or(left / attempts);
            left = left.saturating_sub(took);
            let failed = self.by_outcome(class.as_str());
            let times = &self.metrics.listeners.handling;
            times.get_or_create(&failed).observe(took);
        }
        self.handled.observe_many(left, quick);
        self.handled.add(waited);
    }

    /// Tells those who want to hear of failures.
    fn notify(&self, observation: &Observation<'_>) {
        if self.notifiers.is_empty() {
            return;
        }
        let Some(notice) = notice(&self.listener, observation) else {
            return;
        };
        let told = self.notifiers.iter().filter(|to| !to.tell(notice.clone()));
        self.dropped_notices.inc_by(told.count() as u64);
    }

    fn by(&self) -> ByListener {
        ByListener {
            listener: self.listener.clone(),
        }
    }

    fn by_outcome(&self, outcome: &'static str) -> ByOutcome {
        ByOutcome {
            listener: self.listener.clone(),
            outcome,
        }
    }

    fn by_topic(&self, topic: &str) -> ByTopic {
        ByTopic {
            listener: self.listener.clone(),
            topic: topic.to_owned(),
        }
    }

    fn problem(&self) -> MutexGuard<'_, Option<String>> {
        self.problem.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reports what it is doing, as far as it is known here.
    fn report(&self) {
        let problem = self.problem().clone();
        self.health.report(match problem {
            Some(problem) => Status::Degraded(problem),
            None if self.paused.load(Ordering::Relaxed) => Status::Paused,
            None if self.joined.load(Ordering::Relaxed) => Status::Running,
            None => Status::Starting("joining its group".to_owned()),
        });
    }

    fn count_assigned(&self, change: i64) {
        let now = self
            .assigned
            .fetch_add(change, Ordering::Relaxed)
            .saturating_add(change);
        self.metrics
            .listeners
            .assigned
            .get_or_create(&self.by())
            .set(now.max(0));
    }
}

/// What is told of an observation, if it is one of failure.
fn notice(listener: &str, observation: &Observation<'_>) -> Option<Notice> {
    let at = SystemTime::now();
    let place = |topic: &str, partition, offset| Place {
        listener: listener.into(),
        topic: topic.to_owned(),
        partition,
        offset,
    };
    Some(match *observation {
        Observation::Failed {
            topic,
            partition,
            offset,
            class,
            reason,
            attempt,
            settlement,
        } => Notice::Failed(FailedAttempt {
            place: place(topic, partition, offset),
            at,
            class,
            reason: reason.to_owned(),
            attempt,
            next: settlement,
        }),
        Observation::Postponed {
            topic,
            partition,
            offset,
            number,
            delay,
        } => Notice::Recovered(Recovered {
            place: place(topic, partition, offset),
            at,
            destination: Destination::RetryTopic { number, delay },
        }),
        Observation::DeadLettered {
            topic,
            partition,
            offset,
            ..
        } => Notice::Recovered(Recovered {
            place: place(topic, partition, offset),
            at,
            destination: Destination::DeadLetter,
        }),
        Observation::RecoveryFailed {
            topic,
            partition,
            offset,
            error,
        } => Notice::RecoveryFailed(RecoveryFailed {
            place: place(topic, partition, offset),
            at,
            error: error.to_owned(),
        }),
        _ => return None,
    })
}

/// Tells a container's queues whenever metrics are read.
pub(crate) fn watch_queues(listener: &str, metrics: &Metrics, container: &Arc<Container>) {
    let by = ByListener {
        listener: listener.to_owned(),
    };
    let paused = metrics.listeners.paused.get_or_create_owned(&by);
    let in_work = metrics.listeners.in_work.get_or_create_owned(&by);
    let open = metrics.listeners.unacknowledged.get_or_create_owned(&by);
    let container = Arc::downgrade(container);
    metrics.refresh(move || {
        let stats = container.upgrade().map(|container| container.stats());
        let gauge = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        paused.set(stats.map_or(0, |stats| gauge(stats.paused)));
        in_work.set(stats.map_or(0, |stats| gauge(stats.in_flight)));
        open.set(stats.map_or(0, |stats| gauge(stats.unacknowledged)));
        stats.is_some()
    });
}

/// Tells what is parked whenever metrics are read.
pub(crate) fn watch_parked(listener: &str, metrics: &Metrics, parking: &Arc<dyn Parking>) {
    let by = ByListener {
        listener: listener.to_owned(),
    };
    let families = &metrics.listeners;
    let keys = families.parked_keys.get_or_create_owned(&by);
    let records = families.parked_records.get_or_create_owned(&by);
    let oldest = families.parked_oldest.get_or_create_owned(&by);
    let parking = Arc::downgrade(parking);
    metrics.refresh(move || {
        let found = parking.upgrade().map(|parking| parking.waiting());
        let waiting = found.unwrap_or_default();
        let gauge = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        keys.set(gauge(waiting.keys));
        records.set(gauge(waiting.records));
        oldest.set(i64::try_from(waiting.oldest.as_secs()).unwrap_or(i64::MAX));
        found.is_some()
    });
}

impl Observer for ListenerObserver {
    fn observe(&self, observation: &Observation<'_>) {
        self.notify(observation);
        let families = &self.metrics.listeners;
        match *observation {
            Observation::Handled {
                topic,
                settled,
                duplicates,
                filtered,
                elapsed,
                waited,
                failed,
                ..
            } => {
                let by = self.by_topic(topic);
                families.consumed.get_or_create(&by).inc_by(settled as u64);
                if duplicates > 0 {
                    families
                        .duplicates
                        .get_or_create(&by)
                        .inc_by(duplicates as u64);
                }
                if filtered > 0 {
                    families.filtered.get_or_create(&by).inc_by(filtered as u64);
                }
                self.time(settled, elapsed, waited, failed);
            }
            Observation::Failed {
                topic,
                class,
                settlement,
                ..
            } => {
                families
                    .failed_attempts
                    .get_or_create(&self.by_outcome(class.as_str()))
                    .inc();
                if settlement.is_retry() {
                    self.retries.inc();
                }
                if class == Class::Skip {
                    families.consumed.get_or_create(&self.by_topic(topic)).inc();
                }
            }
            Observation::DeadLettered {
                topic,
                class,
                bytes,
                ..
            } => {
                families.consumed.get_or_create(&self.by_topic(topic)).inc();
                let by = ByReason {
                    listener: self.listener.clone(),
                    topic: topic.to_owned(),
                    reason: class.as_str(),
                };
                families.dead_letters.get_or_create(&by).inc();
                families
                    .dead_letter_bytes
                    .get_or_create(&by)
                    .inc_by(bytes as u64);
            }
            Observation::Postponed { topic, .. } => {
                families
                    .postponed
                    .get_or_create(&self.by_topic(topic))
                    .inc();
            }
            Observation::Nacked { dropped, .. } => {
                let how = if dropped { "dropped" } else { "asked" };
                families.nacks.get_or_create(&self.by_outcome(how)).inc();
            }
            Observation::RecoveryFailed { .. } => {
                families.recovery_failures.get_or_create(&self.by()).inc();
            }
            Observation::Committed { .. } => {
                families.commits.get_or_create(&self.by_outcome("ok")).inc();
            }
            Observation::CommitFailed { .. } => {
                families
                    .commits
                    .get_or_create(&self.by_outcome("failed"))
                    .inc();
            }
            Observation::TransactionEnded { outcome, elapsed } => {
                let commits = families.transaction_commits.get_or_create(&self.by());
                commits.observe(elapsed);
                let by = self.by_outcome(outcome);
                families.transactions.get_or_create(&by).inc();
            }
            Observation::Lag {
                topic,
                partition,
                records,
            } => {
                let (listener, topic) = (self.listener.clone(), topic.to_owned());
                families
                    .lag
                    .get_or_create(&ByPartition {
                        listener,
                        topic,
                        partition,
                    })
                    .set(records.max(0));
            }
            Observation::Assigned { partitions } => {
                families
                    .rebalances
                    .get_or_create(&self.by_outcome("assigned"))
                    .inc();
                self.count_assigned(i64::try_from(partitions).unwrap_or(0));
                self.joined.store(true, Ordering::Relaxed);
                self.report();
            }
            Observation::Revoked { partitions, lost } => {
                let kind = if lost { "lost" } else { "revoked" };
                families
                    .rebalances
                    .get_or_create(&self.by_outcome(kind))
                    .inc();
                self.count_assigned(-i64::try_from(partitions).unwrap_or(0));
            }
            Observation::Health { problem } => {
                *self.problem() = problem.map(str::to_owned);
                self.report();
            }
            Observation::Paused { paused } => {
                self.paused.store(paused, Ordering::Relaxed);
                self.report();
            }
            Observation::Noticed { notice } => {
                let by = self.by_outcome(notice.kind());
                families.notices.get_or_create(&by).inc();
            }
            Observation::Ended => {
                self.joined.store(false, Ordering::Relaxed);
                *self.problem() = None;
                let assigned = self.assigned.load(Ordering::Relaxed);
                self.count_assigned(assigned.saturating_neg());
            }
        }
    }
}
