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
    /// It is written elsewhere; the position passes it when it is safe there.
    Recover(Destination),
    /// It stays where it is; the listener pauses and probes until the outage is over.
    Probe,
    /// It stays where it is; the listener stops.
    Stop,
}

impl Settlement {
    /// Whether another attempt follows, here or by a retry topic.
    pub const fn is_retry(self) -> bool {
        match self {
            Settlement::RetryAfter(_)
            | Settlement::Probe
            | Settlement::Recover(Destination::RetryTopic { .. } | Destination::Parked) => true,
            Settlement::Done | Settlement::Stop | Settlement::Recover(Destination::DeadLetter) => {
                false
            }
        }
    }
}

/// Where a record goes that its lane does not wait for any longer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Destination {
    /// To a retry topic, to be handled again later. Its order is given up.
    RetryTopic {
        /// Which one, from 1.
        number: u32,
        /// How long it waits there, from when it is written.
        delay: Duration,
    },
    /// To the place where it waits with the later records of its key, to be handled again in
    /// their order; see [`ordered`](crate::ordered).
    Parked,
    /// To the dead-letter topic.
    DeadLetter,
}

/// A failed attempt: what the verdict on its record hangs on.
#[derive(Debug, Clone, Copy)]
pub struct Failed {
    /// What kind of failure it is.
    pub class: Class,
    /// Which attempt it was since the record was polled, from 1.
    pub attempt: u32,
    /// The time since the first of them, outages left out.
    pub elapsed: Duration,
    /// How many retry topics the record has passed.
    pub retries: u32,
    /// The wait that the handler asks for, in place of the policy's.
    pub retry_after: Option<Duration>,
}

impl Failed {
    /// Decides about the record. A transient failure is first repeated in place by `policy`, then
    /// once after each delay of `topics`; `random` in `0.0..1.0` feeds the policy's jitter.
    pub fn settle(&self, policy: &backoff::Policy, topics: &[Duration], random: f64) -> Settlement {
        match self.class {
            Class::Skip => Settlement::Done,
            Class::Permanent => Settlement::Recover(Destination::DeadLetter),
            Class::Unavailable => Settlement::Probe,
            Class::Stop => Settlement::Stop,
            Class::Transient => match self.wait(policy, random) {
                Some(wait) => Settlement::RetryAfter(wait),
                None => Settlement::Recover(self.destination(topics)),
            },
        }
    }

    /// The wait before the next attempt in place. A record that came by a retry topic has had
    /// its attempts in place at the origin.
    fn wait(&self, policy: &backoff::Policy, random: f64) -> Option<Duration> {
        if self.retries > 0 {
            return None;
        }
        let wait = self
            .retry_after
            .unwrap_or_else(|| policy.wait(self.attempt, random));
        policy
            .allows(self.attempt, self.elapsed, wait)
            .then_some(wait)
    }

    /// A wait that the handler asks for is honoured as far as the longest delay goes, so that one
    /// record does not hold back for long those behind it.
    fn destination(&self, topics: &[Duration]) -> Destination {
        let next = usize::try_from(self.retries).unwrap_or(usize::MAX);
        let longest = topics.iter().max().copied().unwrap_or_default();
        let asked = self.retry_after.unwrap_or_default().min(longest);
        topics
            .get(next)
            .map_or(Destination::DeadLetter, |delay| Destination::RetryTopic {
                number: self.retries.saturating_add(1),
                delay: asked.max(*delay),
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);
    const TOPICS: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(10)];
    const DEAD: Settlement = Settlement::Recover(Destination::DeadLetter);

    fn failed(class: Class, attempt: u32) -> Failed {
        Failed {
            class,
            attempt,
            elapsed: Duration::ZERO,
            retries: 0,
            retry_after: None,
        }
    }

    fn policy() -> backoff::Policy {
        backoff::Policy::fixed(5 * MS).max_attempts(3)
    }

    fn settled(class: Class, attempt: u32) -> Settlement {
        failed(class, attempt).settle(&policy(), &[], 0.5)
    }

    fn to_topic(number: u32, delay: Duration) -> Settlement {
        Settlement::Recover(Destination::RetryTopic { number, delay })
    }

    #[test]
    fn a_transient_failure_is_retried_until_its_attempts_are_used_up() {
        let wait = Settlement::RetryAfter(5 * MS);
        assert_eq!(settled(Class::Transient, 1), wait);
        assert_eq!(settled(Class::Transient, 2), wait);
        assert_eq!(settled(Class::Transient, 3), DEAD);
    }

    #[test]
    fn other_classes_do_not_look_at_the_attempt() {
        for attempt in [1, 2, 1_000_000] {
            assert_eq!(settled(Class::Permanent, attempt), DEAD);
            assert_eq!(settled(Class::Skip, attempt), Settlement::Done);
            assert_eq!(settled(Class::Unavailable, attempt), Settlement::Probe);
            assert_eq!(settled(Class::Stop, attempt), Settlement::Stop);
        }
    }

    #[test]
    fn retry_topics_follow_the_attempts_in_place_once_each() {
        let settle = |failed: Failed| failed.settle(&policy(), &TOPICS, 0.5);
        let transient = |attempt| failed(Class::Transient, attempt);
        assert_eq!(settle(transient(2)), Settlement::RetryAfter(5 * MS));
        assert_eq!(settle(transient(3)), to_topic(1, TOPICS[0]));
        let again = |retries| Failed {
            retries,
            ..transient(1)
        };
        assert_eq!(settle(again(1)), to_topic(2, TOPICS[1]));
        assert_eq!(settle(again(2)), DEAD);
        assert_eq!(settle(again(7)), DEAD, "topics that are declared no more");
    }

    #[test]
    fn a_permanent_failure_goes_to_no_retry_topic() {
        let settled = failed(Class::Permanent, 1).settle(&policy(), &TOPICS, 0.5);
        assert_eq!(settled, DEAD);
    }

    #[test]
    fn a_wait_that_the_handler_asks_for_replaces_the_policys_but_not_its_limits() {
        let asks = |attempt| Failed {
            retry_after: Some(70 * MS),
            ..failed(Class::Transient, attempt)
        };
        let waits = Settlement::RetryAfter(70 * MS);
        assert_eq!(asks(1).settle(&policy(), &[], 0.5), waits);
        assert_eq!(asks(3).settle(&policy(), &[], 0.5), DEAD);
        let short = policy().within(60 * MS);
        assert_eq!(asks(1).settle(&short, &[], 0.5), DEAD);
    }

    #[test]
    fn a_wait_asked_for_is_bounded_by_the_longest_delay_of_the_retry_topics() {
        let asks = |seconds| Failed {
            retry_after: Some(Duration::from_secs(seconds)),
            ..failed(Class::Transient, 3)
        };
        let settled = |seconds| asks(seconds).settle(&policy(), &TOPICS, 0.5);
        assert_eq!(settled(4), to_topic(1, Duration::from_secs(4)));
        assert_eq!(settled(400), to_topic(1, TOPICS[1]));
        assert_eq!(settled(0), to_topic(1, TOPICS[0]));
    }
}
