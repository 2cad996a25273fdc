//! A call when failures are too many to be left to themselves.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ackwell_core::Timestamp;
use ackwell_core::alarm::{Alarm, Threshold};

use super::listener::{Destination, FailedAttempt, FailureListener, Recovered, RecoveryFailed};

/// The largest threshold: as many moments are remembered.
const COUNT_MAX: u32 = 10_000;

/// How many failures of a kind, in which time, are worth a call.
///
/// ```
/// use std::time::Duration;
/// use ackwell::failure::Alert;
///
/// // More than a few dead letters in ten minutes; told again at most every hour.
/// let alert = Alert::dead_letters(5)
///     .within(Duration::from_secs(600))
///     .quiet_for(Duration::from_secs(3_600));
/// # let _ = alert;
/// ```
///
/// Once raised, it stays silent for the quiet time and then counts anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Alert {
    counted: Counted,
    threshold: Threshold,
}

/// What an alert counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Counted {
    /// Attempts that failed, whatever became of the record.
    FailedAttempts,
    /// Records that were dead-lettered.
    DeadLetters,
    /// Dead letters and retries that could not be written.
    FailedRecoveries,
}

/// An alert that was raised.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Raised {
    /// What was counted.
    pub counted: Counted,
    /// How many times it happened.
    pub count: u32,
    /// Within which time.
    pub within: Duration,
    /// When it happened last.
    pub at: SystemTime,
    /// The listener to which it happened last.
    pub listener: Arc<str>,
    /// The topic of that record.
    pub topic: String,
    /// What went wrong there, if it is told: not for dead letters.
    pub reason: Option<String>,
}

impl Alert {
    /// When `count` attempts have failed within a minute.
    pub const fn failed_attempts(count: u32) -> Self {
        Alert::new(Counted::FailedAttempts, count)
    }

    /// When `count` records were dead-lettered within a minute.
    pub const fn dead_letters(count: u32) -> Self {
        Alert::new(Counted::DeadLetters, count)
    }

    /// When `count` dead letters or retries could not be written within a minute.
    pub const fn failed_recoveries(count: u32) -> Self {
        Alert::new(Counted::FailedRecoveries, count)
    }

    const fn new(counted: Counted, count: u32) -> Self {
        Alert {
            counted,
            threshold: Threshold {
                count,
                within: Duration::from_secs(60),
                quiet: Duration::from_secs(15 * 60),
            },
        }
    }

    /// Within this time; default a minute.
    #[must_use]
    pub const fn within(mut self, time: Duration) -> Self {
        self.threshold.within = time;
        self
    }

    /// How long it stays silent after it was raised; default 15 minutes.
    #[must_use]
    pub const fn quiet_for(mut self, time: Duration) -> Self {
        self.threshold.quiet = time;
        self
    }

    /// What is wrong with it, if anything.
    pub(crate) fn problem(&self) -> Option<String> {
        let Threshold { count, within, .. } = self.threshold;
        if !(1..=COUNT_MAX).contains(&count) {
            return Some(format!("an alert's count must be from 1 to {COUNT_MAX}"));
        }
        within
            .is_zero()
            .then(|| "an alert needs a time `within` which it counts".to_owned())
    }
}

/// A listener to failures as it was declared, and what is wrong with it.
pub(crate) struct Hook {
    pub(crate) listener: Arc<dyn FailureListener>,
    pub(crate) problem: Option<String>,
}

impl Hook {
    pub(crate) fn new(listener: impl FailureListener) -> Self {
        Hook {
            listener: Arc::new(listener),
            problem: None,
        }
    }

    pub(crate) fn alert(alert: Alert, call: impl Fn(&Raised) + Send + Sync + 'static) -> Self {
        Hook {
            problem: alert.problem(),
            ..Hook::new(AlertHook::new(alert, call))
        }
    }
}

/// Counts what it hears, and calls.
pub(crate) struct AlertHook<F> {
    alert: Alert,
    alarm: Mutex<Alarm>,
    call: F,
}

impl<F: Fn(&Raised) + Send + Sync + 'static> AlertHook<F> {
    pub(crate) fn new(alert: Alert, call: F) -> Self {
        AlertHook {
            alert,
            alarm: Mutex::new(Alarm::new(alert.threshold)),
            call,
        }
    }

    fn count(&self, counted: Counted, at: SystemTime, raised: impl FnOnce(&Alert) -> Raised) {
        if counted != self.alert.counted {
            return;
        }
        let now = timestamp(at);
        let mut alarm = self.alarm.lock().unwrap_or_else(PoisonError::into_inner);
        let is_raised = alarm.count(now);
        drop(alarm);
        if is_raised {
            (self.call)(&raised(&self.alert));
        }
    }
}

impl<F: Fn(&Raised) + Send + Sync + 'static> FailureListener for AlertHook<F> {
    fn attempt_failed(&self, attempt: &FailedAttempt) {
        self.count(Counted::FailedAttempts, attempt.at, |alert| Raised {
            reason: Some(attempt.reason.clone()),
            ..alert.raised(attempt.at, &attempt.place)
        });
    }

    fn recovered(&self, recovered: &Recovered) {
        if recovered.destination == Destination::DeadLetter {
            self.count(Counted::DeadLetters, recovered.at, |alert| {
                alert.raised(recovered.at, &recovered.place)
            });
        }
    }

    fn recovery_failed(&self, failed: &RecoveryFailed) {
        self.count(Counted::FailedRecoveries, failed.at, |alert| Raised {
            reason: Some(failed.error.clone()),
            ..alert.raised(failed.at, &failed.place)
        });
    }
}

impl Alert {
    fn raised(&self, at: SystemTime, place: &super::Place) -> Raised {
        Raised {
            counted: self.counted,
            count: self.threshold.count,
            within: self.threshold.within,
            at,
            listener: Arc::clone(&place.listener),
            topic: place.topic.clone(),
            reason: None,
        }
    }
}

impl<F> fmt::Debug for AlertHook<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.alert.fmt(f)
    }
}

fn timestamp(at: SystemTime) -> Timestamp {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp::from_millis(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_threshold_that_counts_nothing_or_too_much_is_named() {
        assert_eq!(Alert::dead_letters(1).problem(), None);
        assert!(Alert::dead_letters(0).problem().is_some());
        assert!(Alert::failed_attempts(10_001).problem().is_some());
        assert!(
            Alert::dead_letters(1)
                .within(Duration::ZERO)
                .problem()
                .is_some()
        );
    }
}
