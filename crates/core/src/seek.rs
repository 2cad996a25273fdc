//! Where a partition shall be read on from.

use std::fmt;

use crate::Timestamp;
use crate::offset::CommitOffset;

/// Where to read on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SeekTo {
    /// This offset; refused if the log does not hold it.
    Offset(i64),
    /// The earliest record that the log holds.
    Beginning,
    /// Behind the last record: only what comes from now on.
    End,
    /// The first record with this timestamp or a later one; the end if there is none.
    Time(Timestamp),
    /// This many offsets ahead of the earliest unsettled record, or back if it is negative; not
    /// beyond what the log holds.
    Relative(i64),
    /// The last so many offsets.
    Last(u64),
}

/// What a partition's log holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogRange {
    /// Its first offset.
    pub start: i64,
    /// The offset behind its last.
    pub end: i64,
}

/// The log does not hold the wanted offset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OutOfRange {
    /// What was wanted.
    pub wanted: i64,
    /// What there is.
    pub log: LogRange,
}

impl fmt::Display for OutOfRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let LogRange { start, end } = self.log;
        write!(
            f,
            "offset {} is not in the log, which holds {start} to {end}",
            self.wanted
        )
    }
}

impl std::error::Error for OutOfRange {}

impl SeekTo {
    /// The offset to read on from. `current` is the earliest unsettled one, if it is known, and
    /// `at_time` what the broker found for [`SeekTo::Time`].
    ///
    /// # Errors
    ///
    /// When an offset is asked for by number and the log does not hold it.
    pub fn resolve(
        self,
        log: LogRange,
        current: Option<CommitOffset>,
        at_time: Option<i64>,
    ) -> Result<CommitOffset, OutOfRange> {
        let within = |offset: i64| offset.clamp(log.start, log.end.max(log.start));
        let offset = match self {
            SeekTo::Offset(wanted) if within(wanted) == wanted => wanted,
            SeekTo::Offset(wanted) => return Err(OutOfRange { wanted, log }),
            SeekTo::Beginning => log.start,
            SeekTo::End => log.end,
            SeekTo::Time(_) => within(at_time.unwrap_or(log.end)),
            SeekTo::Relative(by) => {
                let current = current.map_or(log.start, |current| current.0);
                within(current.saturating_add(by))
            }
            SeekTo::Last(count) => {
                let back = i64::try_from(count).unwrap_or(i64::MAX);
                within(log.end.saturating_sub(back))
            }
        };
        Ok(CommitOffset(offset))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: LogRange = LogRange { start: 10, end: 20 };

    fn from_15(to: SeekTo) -> Result<i64, OutOfRange> {
        to.resolve(LOG, Some(CommitOffset(15)), None).map(|at| at.0)
    }

    #[test]
    fn an_offset_must_be_in_the_log_or_just_behind_it() {
        assert_eq!(from_15(SeekTo::Offset(10)), Ok(10));
        assert_eq!(from_15(SeekTo::Offset(20)), Ok(20));
        let refused = from_15(SeekTo::Offset(9)).expect_err("it is not there any more");
        assert_eq!(
            refused.to_string(),
            "offset 9 is not in the log, which holds 10 to 20"
        );
        assert!(from_15(SeekTo::Offset(21)).is_err());
    }

    #[test]
    fn relative_seeks_stop_at_the_ends_of_the_log() {
        assert_eq!(from_15(SeekTo::Relative(-2)), Ok(13));
        assert_eq!(from_15(SeekTo::Relative(-200)), Ok(10));
        assert_eq!(from_15(SeekTo::Relative(i64::MAX)), Ok(20));
        assert_eq!(from_15(SeekTo::Last(3)), Ok(17));
        assert_eq!(from_15(SeekTo::Last(u64::MAX)), Ok(10));
    }

    #[test]
    fn a_time_after_every_record_is_the_end() {
        let time = SeekTo::Time(Timestamp::from_millis(1));
        assert_eq!(time.resolve(LOG, None, Some(12)), Ok(CommitOffset(12)));
        assert_eq!(time.resolve(LOG, None, None), Ok(CommitOffset(20)));
    }

    #[test]
    fn an_empty_log_has_one_place() {
        let empty = LogRange { start: 7, end: 7 };
        for to in [
            SeekTo::Beginning,
            SeekTo::End,
            SeekTo::Last(1),
            SeekTo::Relative(5),
        ] {
            assert_eq!(to.resolve(empty, None, None), Ok(CommitOffset(7)));
        }
    }
}
