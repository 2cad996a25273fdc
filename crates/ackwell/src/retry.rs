//! When a transient failure is repeated, and when to give up.
//!
//! ```
//! use std::time::Duration;
//! use ackwell::retry::{exponential, fixed, topics};
//!
//! let patient = exponential(Duration::from_secs(1), 2.0)
//!     .max(Duration::from_secs(10))
//!     .within(Duration::from_secs(60))
//!     .jitter(0.2);
//! let quick = fixed(Duration::from_millis(100)).max_attempts(3);
//! let later = topics([Duration::from_secs(1), Duration::from_secs(60)]).after(quick);
//! # let _ = (patient, later);
//! ```
//!
//! | kind | who waits | order per key | survives a restart |
//! |---|---|---|---|
//! | in place: [`fixed`], [`exponential`] | the record's lane | kept | the record yes, its count of attempts no |
//! | by retry topics: [`topics`] | the record alone | given up | with its count of attempts |
//! | ordered: `ackwell_sql::ordered` | the record's key | kept | with its count of attempts |
//!
//! **In place**, the listener waits, to the millisecond, not the handler: polling goes on, so a long wait never costs
//! the partition. Other lanes and partitions go on; the failing lane keeps its order.
//!
//! **By retry topics**, a record that fails is written to `<topic>.retry.1` and settled, so that
//! those behind it go on, and is read from there by the same listener when its delay has passed:
//! never earlier, by the clock of who wrote it, and later if the listener is busy or down. If it
//! fails again it goes to `<topic>.retry.2`, and after the last one to the dead-letter topic.
//! What this costs: **the order of its key is given up**, later records of the key overtake it.
//! Key, value, headers, topic, partition, offset and timestamp that the handler sees are those of
//! the origin, and so is what a dead letter says.
//!
//! **Ordered**, a record that fails waits in the listener's database, later records of its key
//! wait behind it, and all other keys go on: see the crate `ackwell-sql`.
//!
//! The topics are created at the start with the partitions of their origin, and keep their records
//! for a week; a record keeps its partition. A listener that is to have fewer of them should let
//! the last ones run empty first: nobody reads them any more. Groups that read one origin share its retry topics and leave each other's
//! records alone. Writers' and readers' clocks should agree (NTP): a reader whose clock is ahead
//! of the writer's handles a record earlier by the difference; one that is behind, later, but by
//! no more than the delay itself.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

pub use ackwell_core::RetryPolicy;
pub use ackwell_core::ordered::{Limits, Terms};

use crate::context::{Setup, SetupError};
use crate::unit::Parking;

/// The same wait before each attempt. Without [`RetryPolicy::max_attempts`] or
/// [`RetryPolicy::within`] it is never given up.
pub fn fixed(interval: Duration) -> RetryPolicy {
    RetryPolicy::fixed(interval)
}

/// A first wait of `initial`, each later one `multiplier` times longer, up to
/// [`RetryPolicy::max`]. Without a limit on attempts or time it is never given up.
pub fn exponential(initial: Duration, multiplier: f64) -> RetryPolicy {
    RetryPolicy::exponential(initial, multiplier)
}

/// No second attempt: what fails is recovered at once.
pub fn none() -> RetryPolicy {
    RetryPolicy::none()
}

/// One retry topic for each of `delays`, in which a record is tried once more. They must grow, from
/// 1 ms to at most 24 hours; up to 16 of them. Without [`Retry::after`] there is one attempt in
/// place. See the [module](self) for what they keep and what they give up.
pub fn topics(delays: impl IntoIterator<Item = Duration>) -> Retry {
    Retry {
        in_place: none(),
        later: Later::Topics(delays.into_iter().collect()),
    }
}

/// Delays for [`topics`]: the first one, and each next `multiplier` times longer, `count` in all.
///
/// ```
/// use std::time::Duration;
/// use ackwell::retry::{growing, topics};
///
/// // 1 s, 10 s, 100 s
/// let retry = topics(growing(Duration::from_secs(1), 10.0, 3));
/// # let _ = retry;
/// ```
pub fn growing(first: Duration, multiplier: f64, count: u32) -> impl Iterator<Item = Duration> {
    let delays = RetryPolicy::exponential(first, multiplier).max(Duration::MAX);
    (1..=count).map(move |number| delays.wait(number, 0.5))
}

/// How a listener repeats transient failures: in place, and then perhaps later.
#[derive(Debug, Clone)]
pub struct Retry {
    pub(crate) in_place: RetryPolicy,
    pub(crate) later: Later,
}

/// What follows the attempts in place.
#[derive(Debug, Clone)]
pub(crate) enum Later {
    /// The dead letter.
    Never,
    /// Retry topics with these delays.
    Topics(Vec<Duration>),
    /// A durable place where later records of the key wait behind it.
    Ordered(Ordered),
}

/// Retry that keeps the order of each key, in a durable place. Made by what has such a place:
/// `ackwell_sql::ordered`.
#[derive(Clone)]
pub struct Ordered {
    pub(crate) policy: RetryPolicy,
    pub(crate) limits: Limits,
    place: Arc<dyn ParkingPlace>,
}

/// Something durable in which records can be parked.
pub trait ParkingPlace: Send + Sync + 'static {
    /// Makes it ready for a listener that is about to start.
    ///
    /// # Errors
    /// What it needs is missing.
    fn open(&self, setup: &Setup<'_>, terms: Terms) -> Result<Arc<dyn Parking>, SetupError>;
}

impl Ordered {
    /// Retries by `policy` what is parked in `place`. The failure with which a record is parked
    /// counts as the first of the policy's attempts.
    pub fn new(policy: RetryPolicy, place: impl ParkingPlace) -> Self {
        Ordered {
            policy,
            limits: Limits::default(),
            place: Arc::new(place),
        }
    }

    /// The attempts in place that come first; none by default. They must be limited, or what
    /// follows would never be reached.
    #[must_use]
    pub fn after(self, in_place: RetryPolicy) -> Retry {
        Retry::from(self).after(in_place)
    }

    /// How many keys of a partition may be parked at a time; default 10,000. Records without a
    /// key count as one each. When a limit is reached, the partition takes no new records until
    /// there is room, and health says so; nothing is dropped. Lanes that fail at the same moment
    /// may pass it by one key each.
    #[must_use]
    pub fn keys_max(mut self, keys: usize) -> Self {
        self.limits.keys_max = keys;
        self
    }

    /// How many records of one key may wait; default 10,000.
    #[must_use]
    pub fn records_per_key_max(mut self, records: usize) -> Self {
        self.limits.records_per_key_max = records;
        self
    }

    /// How many records of a partition may wait, of all keys together; default 100,000.
    #[must_use]
    pub fn records_max(mut self, records: usize) -> Self {
        self.limits.records_max = records;
        self
    }

    pub(crate) fn open(
        &self,
        setup: &Setup<'_>,
        recovery: RetryPolicy,
    ) -> Result<Arc<dyn Parking>, SetupError> {
        let terms = Terms {
            retry: self.policy.clone(),
            recovery,
            limits: self.limits,
        };
        self.place.open(setup, terms)
    }
}

impl fmt::Debug for Ordered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ordered")
            .field("policy", &self.policy)
            .field("limits", &self.limits)
            .finish_non_exhaustive()
    }
}

impl From<Ordered> for Retry {
    fn from(ordered: Ordered) -> Self {
        Retry {
            in_place: none(),
            later: Later::Ordered(ordered),
        }
    }
}

impl Retry {
    pub(crate) fn parking(
        &self,
        setup: &Setup<'_>,
        recovery: &RetryPolicy,
    ) -> Result<Option<Arc<dyn Parking>>, SetupError> {
        match &self.later {
            Later::Ordered(ordered) => ordered.open(setup, recovery.clone()).map(Some),
            Later::Never | Later::Topics(_) => Ok(None),
        }
    }

    /// The attempts in place that come first. They must be limited, or what follows would never
    /// be reached.
    #[must_use]
    pub fn after(mut self, in_place: RetryPolicy) -> Self {
        self.in_place = in_place;
        self
    }
}

impl From<RetryPolicy> for Retry {
    fn from(in_place: RetryPolicy) -> Self {
        Retry {
            in_place,
            later: Later::Never,
        }
    }
}

impl Default for Retry {
    /// [`RetryPolicy::default`], in place.
    fn default() -> Self {
        RetryPolicy::default().into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn growing_delays_grow_by_their_multiplier() {
        let seconds: Vec<_> = growing(Duration::from_secs(1), 10.0, 4)
            .map(|delay| delay.as_secs())
            .collect();
        assert_eq!(seconds, [1, 10, 100, 1_000]);
    }
}
