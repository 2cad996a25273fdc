//! How far consumers of committed records may read: to the first record whose transaction is open.
//!
//! An end that the disk does not have yet is none: a power cut could take it back, so a
//! transaction counts as open until the high watermark has passed its marker.

use std::collections::{BTreeSet, VecDeque};

/// The transactions of a partition that are not known to have ended.
#[derive(Debug, Default)]
pub(super) struct Undecided {
    /// First offsets of open transactions.
    open: BTreeSet<i64>,
    /// First offset and marker of those that ended, in the order of their markers.
    ended: VecDeque<(i64, i64)>,
}

impl Undecided {
    pub(super) fn begin(&mut self, first_offset: i64) {
        self.open.insert(first_offset);
    }

    pub(super) fn end(&mut self, first_offset: i64, marker: i64) {
        if self.open.remove(&first_offset) {
            self.ended.push_back((first_offset, marker));
        }
    }

    /// The last stable offset when records below `high_watermark` are visible.
    pub(super) fn stable(&mut self, high_watermark: i64) -> i64 {
        while self
            .ended
            .front()
            .is_some_and(|(_, marker)| *marker < high_watermark)
        {
            self.ended.pop_front();
        }
        let ended = self.ended.iter().map(|(first, _)| *first).min();
        let open = self.open.first().copied();
        open.into_iter().chain(ended).fold(high_watermark, i64::min)
    }

    /// Where the last stable offset will be once everything before `end` is visible.
    pub(super) fn stable_then(&self, end: i64) -> i64 {
        self.open.first().map_or(end, |first| end.min(*first))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_open_transaction_holds_readers_at_its_first_record() {
        let mut undecided = Undecided::default();
        assert_eq!(undecided.stable(10), 10);
        undecided.begin(4);
        undecided.begin(6);
        assert_eq!(undecided.stable(3), 3);
        assert_eq!(undecided.stable(10), 4);
        undecided.end(4, 9);
        assert_eq!(undecided.stable(10), 6);
    }

    #[test]
    fn an_end_counts_when_its_marker_is_visible() {
        let mut undecided = Undecided::default();
        undecided.begin(4);
        undecided.end(4, 8);
        assert_eq!(undecided.stable(8), 4);
        assert_eq!(undecided.stable_then(9), 9);
        assert_eq!(undecided.stable(9), 9);
    }

    #[test]
    fn an_end_without_records_changes_nothing() {
        let mut undecided = Undecided::default();
        undecided.begin(4);
        undecided.end(5, 8);
        assert_eq!(undecided.stable(9), 4);
    }
}
