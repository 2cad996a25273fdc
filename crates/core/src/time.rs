//! Moments as arguments.
//!
//! Nothing in this crate reads a clock, so that a simulation can move time at will. The shell
//! reads one clock and passes the moment with each event.

use std::ops::{Add, AddAssign, Sub};
use std::time::Duration;

/// A moment: milliseconds since the Unix epoch.
///
/// Arithmetic saturates; the shell is expected to pass moments that never go backwards, and
/// nothing worse than a late or early timer happens if they do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Timestamp(i64);

impl Timestamp {
    /// The Unix epoch.
    pub const EPOCH: Timestamp = Timestamp(0);

    /// The moment `millis` milliseconds after the Unix epoch.
    pub const fn from_millis(millis: i64) -> Self {
        Timestamp(millis)
    }

    /// Milliseconds since the Unix epoch.
    pub const fn as_millis(self) -> i64 {
        self.0
    }

    /// The time from `earlier` to this moment; zero if `earlier` is later.
    pub fn since(self, earlier: Timestamp) -> Duration {
        Duration::from_millis(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }
}

impl Add<Duration> for Timestamp {
    type Output = Timestamp;

    /// Rounds up to a whole millisecond, so that a wait is never cut short.
    fn add(self, wait: Duration) -> Timestamp {
        let millis = wait.as_nanos().div_ceil(1_000_000);
        Timestamp(
            self.0
                .saturating_add(i64::try_from(millis).unwrap_or(i64::MAX)),
        )
    }
}

impl AddAssign<Duration> for Timestamp {
    fn add_assign(&mut self, wait: Duration) {
        *self = *self + wait;
    }
}

impl Sub<Duration> for Timestamp {
    type Output = Timestamp;

    fn sub(self, wait: Duration) -> Timestamp {
        let millis = i64::try_from(wait.as_millis()).unwrap_or(i64::MAX);
        Timestamp(self.0.saturating_sub(millis))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_is_rounded_up_to_a_whole_millisecond() {
        let start = Timestamp::from_millis(10);
        assert_eq!(start + Duration::from_micros(1), Timestamp::from_millis(11));
        assert_eq!(start + Duration::from_millis(1), Timestamp::from_millis(11));
    }

    #[test]
    fn moments_at_the_end_of_time_do_not_overflow() {
        let end = Timestamp::from_millis(i64::MAX);
        assert_eq!(end + Duration::MAX, end);
        assert_eq!(Timestamp::EPOCH.since(end), Duration::ZERO);
    }
}
