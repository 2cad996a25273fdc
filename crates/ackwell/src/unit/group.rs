//! Records of a run that share something which can only fail as a whole, such as a transaction of
//! Kafka.
//!
//! If it fails, nobody knows whose fault it was: the records are handled again in smaller groups,
//! until the one to blame is alone.

use super::Run;
use super::portion::concerns_a_record;
use crate::failure::Failure;

impl Run {
    /// How many records the next group may have.
    pub(crate) fn group_max(&self) -> usize {
        let waiting = self.records.len().saturating_sub(self.started);
        self.suspects.next(waiting).max(1)
    }

    /// Where the records that were started end: the position behind the last of them.
    pub(crate) fn position(&self) -> Option<i64> {
        let last = self.records.get(self.started.checked_sub(1)?)?;
        last.offset_read().checked_add(1)
    }

    /// The earliest `count` started but unsettled records are durable.
    pub(crate) fn group_settled(&mut self, count: usize) {
        self.suspects.cleared(count);
        self.settled(count);
    }

    /// What the earliest `count` unsettled records share has failed and left nothing. Answers
    /// whether they are to be started again; otherwise the run has ended.
    pub(crate) fn group_failed(&mut self, count: usize, failure: Failure) -> bool {
        if !concerns_a_record(&failure) || self.suspects.failed(count) {
            self.failed(failure);
            return false;
        }
        tracing::warn!(
            group = &*self.group,
            records = count,
            class = failure.class().as_str(),
            reason = failure.summary(),
            "a group of records failed together and is repeated in parts"
        );
        self.begin_again();
        true
    }

    /// Starts what is not settled once more.
    pub(super) fn begin_again(&mut self) {
        self.started = self.settled;
        if let Some(filtering) = &mut self.filtering {
            filtering.waiting.clear();
        }
        self.look_again();
    }
}
