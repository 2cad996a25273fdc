//! How long to wait before trying again, and when to give up.
//!
//! One record that fails forever must neither spin nor wait forever; many records that fail
//! together must not come back together, hence the jitter.

use std::time::Duration;

/// When a failed attempt is repeated. Built by [`fixed`](Policy::fixed) or
/// [`exponential`](Policy::exponential) and narrowed by the other methods.
#[derive(Debug, Clone, PartialEq)]
pub struct Policy {
    initial: Duration,
    multiplier: f64,
    interval_max: Duration,
    elapsed_max: Option<Duration>,
    attempts_max: Option<u32>,
    jitter: f64,
    /// A value that could not be taken as it was given.
    wrong: Option<&'static str>,
}

impl Policy {
    /// The same wait before each attempt. Unlimited until
    /// [`max_attempts`](Policy::max_attempts) or [`within`](Policy::within) says otherwise.
    pub fn fixed(interval: Duration) -> Self {
        Policy {
            initial: interval,
            multiplier: 1.0,
            interval_max: interval,
            elapsed_max: None,
            attempts_max: None,
            jitter: 0.0,
            wrong: None,
        }
    }

    /// A first wait of `initial`, each later one `multiplier` times the one before, up to
    /// 30 seconds unless [`max`](Policy::max) says otherwise. A multiplier below 1 counts as 1,
    /// and is a [`problem`](Policy::problem).
    pub fn exponential(initial: Duration, multiplier: f64) -> Self {
        let fits = multiplier.is_finite() && multiplier >= 1.0;
        Policy {
            multiplier: if fits { multiplier } else { 1.0 },
            wrong: (!fits).then_some("a multiplier must be a number from 1 up"),
            interval_max: Duration::from_secs(30).max(initial),
            ..Policy::fixed(initial)
        }
    }

    /// No second attempt.
    pub fn none() -> Self {
        Policy::fixed(Duration::ZERO).max_attempts(1)
    }

    /// No single wait is longer than `interval`.
    #[must_use]
    pub fn max(mut self, interval: Duration) -> Self {
        self.interval_max = interval;
        self.initial = self.initial.min(interval);
        self
    }

    /// Gives up when the next attempt would start later than `elapsed` after the first failure.
    #[must_use]
    pub fn within(mut self, elapsed: Duration) -> Self {
        self.elapsed_max = Some(elapsed);
        self
    }

    /// Gives up after this many attempts, the first one included. 0 counts as 1, and is a
    /// [`problem`](Policy::problem).
    #[must_use]
    pub fn max_attempts(mut self, attempts: u32) -> Self {
        self.attempts_max = Some(attempts.max(1));
        if attempts == 0 {
            self.wrong = Some("0 attempts leave a record unhandled; the least is 1");
        }
        self
    }

    /// Spreads each wait evenly over `1 - part .. 1 + part` of itself; what is outside of
    /// `0.0..=1.0` is clamped, and is a [`problem`](Policy::problem). The interval's maximum still
    /// holds.
    #[must_use]
    pub fn jitter(mut self, part: f64) -> Self {
        let fits = (0.0..=1.0).contains(&part);
        self.jitter = if part.is_finite() {
            part.clamp(0.0, 1.0)
        } else {
            0.0
        };
        if !fits {
            self.wrong = Some("a jitter is a part of the wait, from 0.0 to 1.0");
        }
        self
    }

    /// What is wrong with it: a value out of range, or retries that neither wait nor end.
    pub fn problem(&self) -> Option<&'static str> {
        let spins = self.initial.is_zero() && !self.is_limited();
        let spinning = spins.then_some("it repeats without a wait and without an end");
        self.wrong.or(spinning)
    }

    /// The wait after the `attempt`th failure (from 1), or `None` to give up. `elapsed` is the
    /// time since the first failure; `random` in `0.0..1.0` feeds the jitter.
    pub fn next(&self, attempt: u32, elapsed: Duration, random: f64) -> Option<Duration> {
        let wait = self.wait(attempt, random);
        self.allows(attempt, elapsed, wait).then_some(wait)
    }

    /// Whether another attempt may follow the `attempt`th failure after `wait`.
    pub fn allows(&self, attempt: u32, elapsed: Duration, wait: Duration) -> bool {
        let more = self.attempts_max.is_none_or(|max| attempt < max);
        let in_time = |max: Duration| elapsed.checked_add(wait).is_some_and(|end| end <= max);
        more && self.elapsed_max.is_none_or(in_time)
    }

    /// Whether it ever gives up, by attempts or by time.
    pub fn is_limited(&self) -> bool {
        self.attempts_max.is_some() || self.elapsed_max.is_some()
    }

    /// The wait after the `attempt`th failure, without any limit on attempts or time: for things
    /// that are never given up, such as writing a dead letter or probing an outage.
    pub fn wait(&self, attempt: u32, random: f64) -> Duration {
        let exponent = f64::from(attempt.saturating_sub(1));
        let max = self.interval_max.as_secs_f64();
        let grown = self.initial.as_secs_f64() * self.multiplier.powf(exponent);
        let grown = if grown.is_finite() {
            grown.min(max)
        } else {
            max
        };
        let spread = 1.0 + self.jitter * (2.0 * random.clamp(0.0, 1.0) - 1.0);
        Duration::try_from_secs_f64((grown * spread).min(max)).unwrap_or(self.interval_max)
    }
}

impl Default for Policy {
    /// 10 attempts, from 500 ms doubling up to 10 s, with a tenth of jitter: about a minute,
    /// long enough for a restart of what the handler talks to.
    fn default() -> Self {
        Policy::exponential(Duration::from_millis(500), 2.0)
            .max(Duration::from_secs(10))
            .max_attempts(10)
            .jitter(0.1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn exponential_waits_grow_up_to_the_interval_maximum() {
        let policy = Policy::exponential(100 * MS, 2.0).max(350 * MS);
        let waits: Vec<_> = (1..=4)
            .filter_map(|n| policy.next(n, Duration::ZERO, 0.5))
            .collect();
        assert_eq!(waits, [100 * MS, 200 * MS, 350 * MS, 350 * MS]);
    }

    #[test]
    fn the_next_attempt_must_start_within_the_elapsed_limit() {
        let policy = Policy::fixed(100 * MS).within(250 * MS);
        assert_eq!(policy.next(2, 150 * MS, 0.5), Some(100 * MS));
        assert_eq!(policy.next(3, 151 * MS, 0.5), None);
    }

    #[test]
    fn no_policy_means_one_attempt() {
        assert_eq!(Policy::none().next(1, Duration::ZERO, 0.5), None);
    }

    #[test]
    fn what_is_out_of_range_is_named() {
        let policy = || Policy::fixed(MS);
        assert_eq!(policy().jitter(0.2).max_attempts(1).problem(), None);
        assert!(policy().max_attempts(0).problem().is_some());
        assert!(policy().jitter(1.5).problem().is_some());
        assert!(policy().jitter(f64::NAN).problem().is_some());
        assert!(Policy::exponential(MS, 0.5).problem().is_some());
        assert!(Policy::exponential(MS, f64::INFINITY).problem().is_some());
    }

    #[test]
    fn retries_that_neither_wait_nor_end_are_a_problem() {
        let spinning = Policy::fixed(Duration::ZERO);
        assert!(spinning.problem().is_some());
        assert_eq!(spinning.max_attempts(3).problem(), None);
    }

    proptest! {
        #[test]
        fn waits_stay_within_their_bounds(
            initial in 0u64..100_000, multiplier in 0.0f64..1e6, max in 1u64..1_000_000,
            jitter in 0.0f64..2.0, attempt in 1u32..u32::MAX, random in 0.0f64..1.0,
        ) {
            let max = Duration::from_millis(max);
            let policy = Policy::exponential(Duration::from_millis(initial), multiplier)
                .max(max).jitter(jitter);
            prop_assert!(policy.wait(attempt, random) <= max);
        }

        #[test]
        fn without_jitter_waits_never_shrink(
            initial in 1u64..10_000, multiplier in 1.0f64..10.0, attempt in 1u32..200,
        ) {
            let policy = Policy::exponential(Duration::from_millis(initial), multiplier);
            prop_assert!(policy.wait(attempt, 0.3) <= policy.wait(attempt + 1, 0.9));
        }
    }
}
