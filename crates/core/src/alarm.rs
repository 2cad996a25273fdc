//! When something happens too often to be left to itself.
//!
//! A hundred failures must not ring a hundred times, and a storm that goes on must not fall
//! silent for ever after its first alarm.

use std::collections::VecDeque;
use std::time::Duration;

use crate::Timestamp;

/// How often is too often, and for how long an alarm stays silent once it was raised.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Threshold {
    /// How many times.
    pub count: u32,
    /// Within which time.
    pub within: Duration,
    /// How long it stays silent after it was raised; then it counts anew.
    pub quiet: Duration,
}

/// Counts against a [`Threshold`]. Holds no more than `count` moments.
#[derive(Debug, Clone)]
pub struct Alarm {
    threshold: Threshold,
    recent: VecDeque<Timestamp>,
    quiet_until: Option<Timestamp>,
}

impl Alarm {
    /// An alarm that has counted nothing.
    pub fn new(threshold: Threshold) -> Self {
        Alarm {
            threshold,
            recent: VecDeque::new(),
            quiet_until: None,
        }
    }

    /// It has happened once more; whether the alarm is raised.
    pub fn count(&mut self, now: Timestamp) -> bool {
        let Threshold {
            count,
            within,
            quiet,
        } = self.threshold;
        if self.quiet_until.is_some_and(|until| now < until) {
            return false;
        }
        self.recent.push_back(now);
        while self
            .recent
            .front()
            .is_some_and(|first| now.since(*first) > within)
        {
            self.recent.pop_front();
        }
        let raised = self.recent.len() >= usize::try_from(count).unwrap_or(usize::MAX);
        if raised {
            self.recent.clear();
            self.quiet_until = Some(now + quiet);
        }
        raised
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn alarm() -> Alarm {
        Alarm::new(Threshold {
            count: 3,
            within: 10 * SECOND,
            quiet: 60 * SECOND,
        })
    }

    fn raised(alarm: &mut Alarm, seconds: &[i64]) -> Vec<bool> {
        let at = |second: &i64| Timestamp::from_millis(second * 1_000);
        seconds
            .iter()
            .map(|second| alarm.count(at(second)))
            .collect()
    }

    #[test]
    fn it_is_raised_when_enough_happens_in_time() {
        assert_eq!(raised(&mut alarm(), &[0, 1, 2]), [false, false, true]);
        assert_eq!(raised(&mut alarm(), &[0, 5, 10]), [false, false, true]);
    }

    #[test]
    fn what_is_spread_over_a_longer_time_raises_nothing() {
        assert_eq!(raised(&mut alarm(), &[0, 6, 12, 18, 24]), [false; 5]);
    }

    #[test]
    fn a_storm_is_told_once_until_the_quiet_time_is_over_and_then_again() {
        let mut alarm = alarm();
        assert_eq!(
            raised(&mut alarm, &[0, 0, 0, 1, 30, 59]),
            [false, false, true, false, false, false]
        );
        assert_eq!(raised(&mut alarm, &[60, 60, 61]), [false, false, true]);
    }
}
