//! What a failure leads to.
//!
//! Every outcome of a handler gets exactly one verdict here; there is no path on which an error
//! is seen and then forgotten (inventory section 14).

use std::fmt;
use std::time::Duration;

use crate::backoff;

/// Why a handler failed decides what happens next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Class {
    /// May succeed when repeated: retried by the listener's policy, then recovered.
    Transient,
    /// Will fail again however often it is repeated: recovered at once (dead letter).
    Permanent,
    /// Not for this listener: settled, counted, logged with its reason.
    Skip,
    /// Something that all records need (database, broker) is away: the listener pauses and
    /// probes; no attempt is used up, nothing is dead-lettered.
    Unavailable,
    /// The listener must not go on: it stops, unsettled and visibly unhealthy.
    Stop,
}

impl Class {
    /// The name used in dead-letter headers, metrics and logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Class::Transient => "transient",
            Class::Permanent => "permanent",
            Class::Skip => "skip",
            Class::Unavailable => "unavailable",
            Class::Stop => "stop",
        }
    }
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What happens to a record that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Settlement {
    /// It is done with; the position may pass it.
    Done,
    /// It is handled again after this wait, before anything behind it in its lane.
    RetryAfter(Duration),
    /// It is recovered: by default written to the dead-letter topic.
    Recover,
    /// It stays where it is; the listener pauses and probes until the outage is over.
    Probe,
    /// It stays where it is; the listener stops.
    Stop,
}

/// Decides about a record that failed for the `attempt`th time (from 1), `elapsed` after its
/// first failure. `random` in `0.0..1.0` feeds the jitter of the policy.
pub fn settle(
    class: Class,
    attempt: u32,
    elapsed: Duration,
    policy: &backoff::Policy,
    random: f64,
) -> Settlement {
    match class {
        Class::Skip => Settlement::Done,
        Class::Permanent => Settlement::Recover,
        Class::Unavailable => Settlement::Probe,
        Class::Stop => Settlement::Stop,
        Class::Transient => match policy.next(attempt, elapsed, random) {
            Some(wait) => Settlement::RetryAfter(wait),
            None => Settlement::Recover,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settled(class: Class, attempt: u32) -> Settlement {
        let policy = backoff::Policy::fixed(Duration::from_millis(5)).max_attempts(3);
        settle(class, attempt, Duration::ZERO, &policy, 0.5)
    }

    #[test]
    fn a_transient_failure_is_retried_until_its_attempts_are_used_up() {
        let wait = Settlement::RetryAfter(Duration::from_millis(5));
        assert_eq!(settled(Class::Transient, 1), wait);
        assert_eq!(settled(Class::Transient, 2), wait);
        assert_eq!(settled(Class::Transient, 3), Settlement::Recover);
    }

    #[test]
    fn other_classes_do_not_look_at_the_attempt() {
        for attempt in [1, 2, 1_000_000] {
            assert_eq!(settled(Class::Permanent, attempt), Settlement::Recover);
            assert_eq!(settled(Class::Skip, attempt), Settlement::Done);
            assert_eq!(settled(Class::Unavailable, attempt), Settlement::Probe);
            assert_eq!(settled(Class::Stop, attempt), Settlement::Stop);
        }
    }
}
