//! When a position is worth a commit.
//!
//! A commit after every record is the least repetition after a crash and the most requests; a
//! commit after every poll is the reverse. Either way only settled records are passed: the
//! schedule says when, the tracker says how far.

use std::time::Duration;

use crate::Timestamp;

/// When the settled position of a partition is committed: Spring's ack modes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Schedule {
    /// When all records of a poll are settled. The default.
    #[default]
    Batch,
    /// After each record. Commits are pipelined, so what settles while one is under way rides
    /// on the next.
    Record,
    /// When this much time has passed since the last commit.
    Time(Duration),
    /// When this many records have settled since the last commit.
    Count(u64),
    /// Whichever of the two comes first.
    CountOrTime(u64, Duration),
}

/// What has happened to one partition since its position was last sent.
#[derive(Debug, Clone, Copy)]
pub struct Pending {
    /// Records settled since.
    pub settled: u64,
    /// All records of some poll have settled since.
    pub poll_settled: bool,
    /// When the first of them settled.
    pub since: Timestamp,
}

impl Schedule {
    /// Whether the position is due for a commit.
    pub fn due(self, pending: &Pending, now: Timestamp) -> bool {
        match self {
            Schedule::Batch => pending.poll_settled,
            Schedule::Record => true,
            Schedule::Time(every) => now.since(pending.since) >= every,
            Schedule::Count(count) => pending.settled >= count,
            Schedule::CountOrTime(count, every) => {
                pending.settled >= count || now.since(pending.since) >= every
            }
        }
    }

    /// When [`due`](Schedule::due) turns true by the passing of time alone.
    pub fn deadline(self, pending: &Pending) -> Option<Timestamp> {
        match self {
            Schedule::Batch | Schedule::Record | Schedule::Count(_) => None,
            Schedule::Time(every) | Schedule::CountOrTime(_, every) => Some(pending.since + every),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pending(settled: u64) -> Pending {
        Pending {
            settled,
            poll_settled: false,
            since: Timestamp::EPOCH,
        }
    }

    #[test]
    fn batch_waits_for_the_poll_and_record_does_not() {
        let now = Timestamp::from_millis(5);
        assert!(!Schedule::Batch.due(&pending(499), now));
        assert!(Schedule::Batch.due(
            &Pending {
                poll_settled: true,
                ..pending(500)
            },
            now
        ));
        assert!(Schedule::Record.due(&pending(1), now));
    }

    #[test]
    fn count_or_time_is_due_by_whichever_comes_first() {
        let mode = Schedule::CountOrTime(10, Duration::from_millis(100));
        assert!(mode.due(&pending(10), Timestamp::from_millis(1)));
        assert!(mode.due(&pending(1), Timestamp::from_millis(100)));
        assert!(!mode.due(&pending(9), Timestamp::from_millis(99)));
        assert_eq!(
            mode.deadline(&pending(1)),
            Some(Timestamp::from_millis(100))
        );
    }
}
