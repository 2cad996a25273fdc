//! When nothing has come for long enough to say so.

use std::time::Duration;

use crate::Timestamp;

/// Before the first record a partition may be quiet for so much longer: a listener that has just
/// started is not idle because its first fetch is under way. Spring's
/// `idleBeforeDataMultiplier`.
const FIRST_DATA_FACTOR: u32 = 5;

/// Watches one stream of records, of a listener or of a partition.
#[derive(Debug, Clone)]
pub struct IdleWatch {
    after: Duration,
    since: Timestamp,
    told: Option<Timestamp>,
    had_data: bool,
}

/// What has changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IdleChange {
    /// Nothing has come for so long. Said again after each further interval.
    Idle(Duration),
    /// Something has come after so long.
    Active(Duration),
}

impl IdleWatch {
    /// Begins to watch at `now`.
    pub fn new(after: Duration, now: Timestamp) -> Self {
        IdleWatch {
            after,
            since: now,
            told: None,
            had_data: false,
        }
    }

    /// Something has come, or is in work.
    pub fn active(&mut self, now: Timestamp) -> Option<IdleChange> {
        let quiet = now.since(self.since);
        self.since = now;
        self.had_data = true;
        self.told.take().map(|_| IdleChange::Active(quiet))
    }

    /// Whether it is time to say that nothing comes.
    pub fn check(&mut self, now: Timestamp) -> Option<IdleChange> {
        if now < self.deadline() {
            return None;
        }
        self.told = Some(now);
        Some(IdleChange::Idle(now.since(self.since)))
    }

    /// When to check next.
    pub fn deadline(&self) -> Timestamp {
        match self.told {
            Some(told) => told + self.after,
            None if self.had_data => self.since + self.after,
            None => self.since + self.after.saturating_mul(FIRST_DATA_FACTOR),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AFTER: Duration = Duration::from_millis(100);

    fn at(millis: i64) -> Timestamp {
        Timestamp::from_millis(millis)
    }

    #[test]
    fn before_the_first_record_five_times_the_silence_is_allowed() {
        let mut watch = IdleWatch::new(AFTER, at(0));
        assert_eq!(watch.check(at(499)), None);
        let quiet = Duration::from_millis(500);
        assert_eq!(watch.check(at(500)), Some(IdleChange::Idle(quiet)));
    }

    #[test]
    fn silence_is_told_at_each_interval_and_its_end_once() {
        let mut watch = IdleWatch::new(AFTER, at(0));
        assert_eq!(watch.active(at(10)), None);
        assert_eq!(watch.check(at(109)), None);
        assert_eq!(watch.check(at(110)), Some(IdleChange::Idle(AFTER)));
        assert_eq!(watch.check(at(111)), None);
        let quiet = Duration::from_millis(200);
        assert_eq!(watch.check(at(210)), Some(IdleChange::Idle(quiet)));
        let quiet = Duration::from_millis(205);
        assert_eq!(watch.active(at(215)), Some(IdleChange::Active(quiet)));
        assert_eq!(watch.active(at(216)), None);
    }
}
