//! When a position is worth a commit.
//!
//! A commit after every record is the least repetition after a crash and the most requests; a
//! commit after every poll is the reverse. Either way only settled records are passed: the ack
//! mode says when, the tracker says how far. Nothing else in the engine looks at the mode to
//! decide when a request is sent.

use std::time::Duration;

use crate::Timestamp;

/// How long something settled waits at the longest where a mode waits for company: the time after
/// which Kafka's own auto-commit and a poll of Spring's container come round, too.
pub const SETTLED_WAIT: Duration = Duration::from_secs(5);

/// When settled positions are committed: Spring's ack modes.
///
/// A record is *settled* when its handler returned `Ok`, when it was skipped, dead-lettered or
/// forwarded, or, in the manual modes, when it was acknowledged. In every mode but the last, only
/// settled records are ever passed by a commit.
///
/// | mode | a position is due | what rides along | nothing new comes | revoke, stop | a record fails |
/// |---|---|---|---|---|---|
/// | [`Batch`](Self::Batch) | when all records of one of the partition's polls are settled, or 5 s ([`SETTLED_WAIT`]) after the first of them | what else is settled in this partition | it does not wait for more than the poll that it has | at once | what is settled before it, at once |
/// | [`Record`](Self::Record) | at each settled record | everything settled since the last request, in all partitions | nothing is left to commit | at once | its turn comes as always |
/// | [`Time`](Self::Time) | this long after the first record settled that is not committed | everything settled, in all partitions | when the time is over | at once | as without it |
/// | [`Count`](Self::Count) | when so many records of the listener are settled and not committed | everything settled, in all partitions | 5 s after the last record settled | at once | as without it |
/// | [`CountOrTime`](Self::CountOrTime) | by whichever comes first | everything settled, in all partitions | when the time is over | at once | as without it |
/// | [`Manual`](Self::Manual) | as in `Batch`, by acknowledgements | as in `Batch` | as in `Batch` | acknowledgements are awaited up to the drain limit, then what is acknowledged is committed | its verdict; its acknowledgement is stale |
/// | [`ManualImmediate`](Self::ManualImmediate) | at each acknowledgement | everything acknowledged since the last request, in all partitions | nothing is left to commit | as in `Manual` | as in `Manual` |
/// | [`AutoCommitMayLoseRecords`](Self::AutoCommitMayLoseRecords) | this long after the first record was given to a handler | every record given to a handler, finished or not | when the time is over | at once, unfinished records included | it is retried, but a crash or a rebalance loses it |
///
/// What all of them share:
/// - One request is in flight at a time; what settles meanwhile rides on the next (pipelined).
///   Requests are at least 20 ms apart, unless a caller, the next owner of a partition or strict
///   dispatch waits for the answer. The strict setting has dispatch wait for
///   the broker's answer, in `Record` mode before the lane's next record and in `Batch` mode
///   before the partition's next poll; the other modes refuse it.
/// - A request that fails, or is not answered in time, is sent again with what has settled by then.
/// - What is settled beyond the first unsettled record travels with the position, see
///   [`metadata`](crate::metadata). `AutoCommitMayLoseRecords` has no use for it.
/// - Partitions that are lost without a handover are not committed: somebody else owns them.
///
/// Spring's container waits for the end of the poll in `Time` and `Count` mode, counts an empty
/// poll as the end of a `Count`, and commits what precedes a failure; so it is here, except that
/// nothing waits for the end of a poll, which with lanes need not come soon.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum AckMode {
    /// When the records of a poll are settled: fewest requests. The default, as in Spring.
    #[default]
    Batch,
    /// After each record: least repetition after a crash.
    Record,
    /// When this much time has passed since the first record settled that is not committed.
    Time(Duration),
    /// When this many records have settled since the last commit.
    Count(u64),
    /// Whichever of the two comes first.
    CountOrTime(u64, Duration),
    /// As `Batch`, but a record is settled by the acknowledgement of its handler, from any task
    /// and in any order, and not by the handler's return.
    Manual,
    /// As `Manual`, but each acknowledgement is committed at once.
    ManualImmediate,
    /// **May lose records**: what was given to a handler is committed after this time whether it
    /// was handled or not, as Kafka's `enable.auto.commit` does with what was polled (there the
    /// interval is 5 s by default). A crash, a rebalance or a stop that outlasts its drain skips
    /// what was in work, and what waited for a retry. It saves nothing over `Time`; it exists for
    /// those who prefer a loss to a repetition.
    AutoCommitMayLoseRecords(Duration),
}

/// What has happened since a position was last sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pending {
    /// Records settled since.
    pub settled: u64,
    /// All records of some poll have settled since, or a failure has ended it early.
    pub poll_settled: bool,
    /// When the first of them settled.
    pub since: Timestamp,
    /// When the last of them settled.
    pub last: Timestamp,
}

impl Pending {
    /// Both together.
    #[must_use]
    pub fn and(self, other: Pending) -> Pending {
        Pending {
            settled: self.settled.saturating_add(other.settled),
            poll_settled: self.poll_settled || other.poll_settled,
            since: self.since.min(other.since),
            last: self.last.max(other.last),
        }
    }
}

/// A setting of a mode that can't be meant, and what to write instead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Contradiction {
    /// What is wrong.
    pub what: &'static str,
    /// What to do about it, as an instruction.
    pub mend: &'static str,
}

impl AckMode {
    /// Whether the position of a partition is due for a commit: `own` is what is pending there,
    /// `all` what is pending in all partitions.
    pub fn due(self, own: &Pending, all: &Pending, now: Timestamp) -> bool {
        self.deadline(own, all) <= now
    }

    /// When the position is due if nothing else happens; a moment in the past means at once.
    pub fn deadline(self, own: &Pending, all: &Pending) -> Timestamp {
        match self {
            AckMode::Record | AckMode::ManualImmediate => Timestamp::EPOCH,
            AckMode::Batch | AckMode::Manual if own.poll_settled => Timestamp::EPOCH,
            AckMode::Batch | AckMode::Manual => own.since + SETTLED_WAIT,
            AckMode::Count(count) | AckMode::CountOrTime(count, _) if all.settled >= count => {
                Timestamp::EPOCH
            }
            AckMode::Count(_) => all.last + SETTLED_WAIT,
            AckMode::Time(every)
            | AckMode::CountOrTime(_, every)
            | AckMode::AutoCommitMayLoseRecords(every) => all.since + every,
        }
    }

    /// Whether a handler's `Ok` leaves its record open until it is acknowledged.
    pub const fn is_manual(self) -> bool {
        matches!(self, AckMode::Manual | AckMode::ManualImmediate)
    }

    /// Whether records count as settled when they are given to a handler.
    pub const fn settles_at_dispatch(self) -> bool {
        matches!(self, AckMode::AutoCommitMayLoseRecords(_))
    }

    /// What must be mended before a container can start in this mode.
    ///
    /// # Errors
    /// With a count or a time of zero, and for strict commits in a mode that does not commit after
    /// each record or poll.
    pub const fn check(self, strict: bool) -> Result<(), Contradiction> {
        let (what, mend) = match self {
            AckMode::Count(0) | AckMode::CountOrTime(0, _) => (
                "its ack mode counts to 0 records",
                "write a positive count, or `AckMode::Record` to commit after each record",
            ),
            AckMode::Time(time)
            | AckMode::CountOrTime(_, time)
            | AckMode::AutoCommitMayLoseRecords(time)
                if time.is_zero() =>
            {
                (
                    "its ack mode waits for a time of 0",
                    "write a positive time, or `AckMode::Record` to commit after each record",
                )
            }
            AckMode::Manual | AckMode::ManualImmediate if strict => (
                "strict commits have no meaning where handlers acknowledge",
                "remove `.strict_commits()` and await `Ack::commit` where an answer is needed",
            ),
            AckMode::AutoCommitMayLoseRecords(_) if strict => (
                "strict commits contradict a mode that commits before records are handled",
                "use `AckMode::Record` or `AckMode::Batch`, or remove `.strict_commits()`",
            ),
            AckMode::Time(_) | AckMode::Count(_) | AckMode::CountOrTime(..) if strict => (
                "strict commits contradict a mode that puts commits off",
                "use `AckMode::Record` or `AckMode::Batch`, or remove `.strict_commits()`",
            ),
            _ => return Ok(()),
        };
        Err(Contradiction { what, mend })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn at(millis: i64) -> Timestamp {
        Timestamp::from_millis(millis)
    }

    fn pending(settled: u64) -> Pending {
        Pending {
            settled,
            poll_settled: false,
            since: at(0),
            last: at(0),
        }
    }

    fn due(mode: AckMode, own: Pending, now: i64) -> bool {
        mode.due(&own, &own, at(now))
    }

    #[test]
    fn batch_waits_for_the_poll_and_record_does_not() {
        let whole = Pending {
            poll_settled: true,
            ..pending(500)
        };
        assert!(!due(AckMode::Batch, pending(499), 5));
        assert!(due(AckMode::Batch, whole, 5));
        assert!(due(AckMode::Record, pending(1), 5));
    }

    #[test]
    fn a_poll_that_one_slow_record_keeps_open_does_not_hold_the_others_for_long() {
        assert!(!due(AckMode::Batch, pending(499), 4_999));
        assert!(due(AckMode::Batch, pending(499), 5_000));
        assert!(due(AckMode::Manual, pending(499), 5_000));
    }

    #[test]
    fn batch_looks_at_its_own_partition_and_count_at_all() {
        let whole = Pending {
            poll_settled: true,
            ..pending(9)
        };
        let all = pending(1).and(whole);
        assert!(!AckMode::Batch.due(&pending(1), &all, at(0)));
        assert!(AckMode::Count(10).due(&pending(1), &all, at(0)));
        assert!(!AckMode::Count(11).due(&pending(1), &all, at(0)));
    }

    #[test]
    fn count_or_time_is_due_by_whichever_comes_first() {
        let mode = AckMode::CountOrTime(10, Duration::from_millis(100));
        assert!(due(mode, pending(10), 1));
        assert!(due(mode, pending(1), 100));
        assert!(!due(mode, pending(9), 99));
        let own = pending(1);
        assert_eq!(mode.deadline(&own, &own), at(100));
    }

    #[test]
    fn a_count_that_is_never_reached_ends_when_nothing_settles_any_more() {
        let trickle = Pending {
            last: at(4_000),
            ..pending(3)
        };
        assert!(!due(AckMode::Count(10), trickle, 8_999));
        assert!(due(AckMode::Count(10), trickle, 9_000));
    }

    #[test]
    fn the_deadline_is_when_it_becomes_due() {
        let modes = [
            AckMode::Batch,
            AckMode::Record,
            AckMode::Time(SECOND),
            AckMode::Count(7),
            AckMode::CountOrTime(7, SECOND),
            AckMode::Manual,
            AckMode::ManualImmediate,
            AckMode::AutoCommitMayLoseRecords(SECOND),
        ];
        for mode in modes {
            for (settled, poll_settled) in [(1, false), (7, true), (7, false)] {
                let own = Pending {
                    poll_settled,
                    since: at(1_000),
                    last: at(2_000),
                    settled,
                };
                let deadline = mode.deadline(&own, &own);
                let early = deadline - Duration::from_millis(1);
                assert!(mode.due(&own, &own, deadline), "{mode:?} {own:?}");
                assert!(!mode.due(&own, &own, early), "{mode:?} {own:?}");
            }
        }
    }

    #[test]
    fn zeros_and_contradictions_are_refused_with_a_mend() {
        let refused = [
            (AckMode::Count(0), false),
            (AckMode::Time(Duration::ZERO), false),
            (AckMode::CountOrTime(0, SECOND), false),
            (AckMode::CountOrTime(1, Duration::ZERO), false),
            (AckMode::AutoCommitMayLoseRecords(Duration::ZERO), false),
            (AckMode::AutoCommitMayLoseRecords(SECOND), true),
            (AckMode::Time(SECOND), true),
            (AckMode::Count(5), true),
            (AckMode::Manual, true),
            (AckMode::ManualImmediate, true),
        ];
        for (mode, strict) in refused {
            let found = mode.check(strict).expect_err("a contradiction");
            assert!(!found.mend.is_empty(), "{mode:?}");
        }
        for (mode, strict) in [
            (AckMode::Batch, true),
            (AckMode::Record, true),
            (AckMode::Manual, false),
        ] {
            assert_eq!(mode.check(strict), Ok(()));
        }
    }
}
