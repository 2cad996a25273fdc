//! What a failed attempt at a parked record leads to, and how much may be parked.

use std::fmt;
use std::time::Duration;

use crate::Timestamp;
use crate::backoff::Policy;
use crate::settle::Class;

/// What is agreed for the parked records of a listener.
#[derive(Debug, Clone)]
pub struct Terms {
    /// When the head of a key is tried again, and when it is given up.
    pub retry: Policy,
    /// Between attempts to put away what was given up. Never given up itself.
    pub recovery: Policy,
    /// How much may be parked.
    pub limits: Limits,
}

/// How much of one partition may be parked. Where a limit is reached, the partition takes no new
/// records until there is room; nothing is dropped. Lanes that fail at the same moment may pass a
/// limit by one record each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Keys; records without a key count as one each. Default 10,000: with keys of 36 bytes less
    /// than 2 MiB of memory. More failing keys than that are no longer an exception.
    pub keys_max: usize,
    /// Records of one key. Default 10,000.
    pub records_per_key_max: usize,
    /// Records of all keys together. Default 100,000.
    pub records_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            keys_max: 10_000,
            records_per_key_max: 10_000,
            records_max: 100_000,
        }
    }
}

/// The limit that stands in the way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limit {
    /// [`Limits::keys_max`].
    Keys,
    /// [`Limits::records_per_key_max`].
    RecordsPerKey,
    /// [`Limits::records_max`].
    Records,
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Limit::Keys => "keys_max",
            Limit::RecordsPerKey => "records_per_key_max",
            Limit::Records => "records_max",
        })
    }
}

/// How often a record was tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Attempts {
    /// Everywhere, those in place included.
    pub all: u32,
    /// Those in place after which another one followed in place.
    pub in_place: u32,
    /// When it failed first; `None` if it has not been tried.
    pub since: Option<Timestamp>,
}

impl Attempts {
    /// A record that failed in place for the `attempt`th time and is parked at `now`.
    pub fn in_place(attempt: u32, now: Timestamp) -> Self {
        Attempts {
            all: attempt.max(1),
            in_place: attempt.saturating_sub(1),
            since: Some(now),
        }
    }

    /// One more failure, at `now`.
    #[must_use]
    pub fn failed(self, now: Timestamp) -> Self {
        Attempts {
            all: self.all.saturating_add(1),
            since: self.since.or(Some(now)),
            ..self
        }
    }
}

/// What follows a failed attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It is tried again at this time; its key waits.
    Again(Timestamp),
    /// It is put away (dead-lettered), and then its key goes on.
    GiveUp,
    /// It is done with (skipped).
    Done,
    /// Nothing has happened: something that all records need is away.
    Keep,
    /// The listener stops; the record stays as it was.
    Stop,
}

impl Terms {
    /// Decides about a record that failed at `now`; `attempts` counts this failure, `asked` is the
    /// wait that the handler asks for in place of the policy's. `random` in `0.0..1.0` feeds the
    /// jitter.
    pub fn judge(
        &self,
        class: Class,
        attempts: Attempts,
        asked: Option<Duration>,
        now: Timestamp,
        random: f64,
    ) -> Verdict {
        match class {
            Class::Skip => Verdict::Done,
            Class::Permanent => Verdict::GiveUp,
            Class::Unavailable => Verdict::Keep,
            Class::Stop => Verdict::Stop,
            Class::Transient => {
                let attempt = attempts.all.saturating_sub(attempts.in_place);
                let elapsed = now.since(attempts.since.unwrap_or(now));
                let wait = asked.unwrap_or_else(|| self.retry.wait(attempt, random));
                if self.retry.allows(attempt, elapsed, wait) {
                    Verdict::Again(now + wait)
                } else {
                    Verdict::GiveUp
                }
            }
        }
    }

    /// When putting away a record is tried again after the `tries`th failure.
    pub fn recover_at(&self, tries: u32, now: Timestamp, random: f64) -> Timestamp {
        now + self.recovery.wait(tries, random)
    }
}
