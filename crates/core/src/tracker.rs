//! Which records of one partition are safe to commit.

use std::collections::BTreeMap;

use crate::mutation::{self, Fault};
use crate::offset::{CommitOffset, Generation, Offset, Span};

/// Which records of one partition are safe to commit.
///
/// Handlers finish out of order, but Kafka stores one position. It is held at the earliest
/// unfinished record: a crash may redeliver, and never skips.
///
/// Only what is delivered and unsettled is remembered, as ranges. Offsets that were never
/// delivered (compacted away, transaction markers) are therefore not in anybody's way.
#[derive(Debug, Clone)]
pub struct OffsetTracker {
    generation: Generation,
    /// The offset behind everything delivered so far; `None` before the first delivery if no
    /// position was known.
    next: Option<i64>,
    /// Delivered and not settled: start to end (exclusive), disjoint, not adjacent.
    unsettled: BTreeMap<i64, i64>,
    /// Settled by an earlier owner and not yet delivered again: start to end (exclusive).
    known: BTreeMap<i64, i64>,
    unsettled_count: u64,
}

impl OffsetTracker {
    /// Starts at the committed `position`, if there is one, with the offsets `settled` beyond it.
    pub fn new(generation: Generation, position: Option<CommitOffset>, settled: &[Span]) -> Self {
        OffsetTracker {
            generation,
            next: position.map(|position| position.0),
            unsettled: BTreeMap::new(),
            known: settled
                .iter()
                .map(|span| (span.first.0, span.end()))
                .collect(),
            unsettled_count: 0,
        }
    }

    /// The generation whose settlements count.
    pub fn generation(&self) -> Generation {
        self.generation
    }

    /// Whether an earlier owner has settled `offset`, so that it need not be handled again.
    pub fn knows(&self, offset: Offset) -> bool {
        let before = self.known.range(..=offset.0).next_back();
        before.is_some_and(|(_, end)| offset.0 < *end)
    }

    /// Whether [`knows`](OffsetTracker::knows) can be true of anything.
    pub fn knows_any(&self) -> bool {
        !self.known.is_empty()
    }

    /// Forgets what an earlier owner has settled: the log is not the one that it saw.
    pub fn forget_known(&mut self) {
        self.known.clear();
    }

    /// The offset behind everything delivered so far.
    pub fn next(&self) -> Option<CommitOffset> {
        self.next.map(CommitOffset)
    }

    /// Records have been delivered: `spans` in ascending order, all at or behind
    /// [`next`](OffsetTracker::next), and the poll has come as far as `next`. Offsets between
    /// them are gaps. Spans that lie before are ignored.
    pub fn delivered(&mut self, spans: &[Span], next: CommitOffset) {
        for span in spans {
            let mut first = span.first.0;
            if self.next.is_some_and(|next| first < next) {
                continue;
            }
            if mutation::is(Fault::GapTakenForUnsettled) {
                first = self.next.unwrap_or(first);
            }
            self.unsettled_count += u64::from(span.count);
            self.next = Some(span.end());
            match self.unsettled.last_entry() {
                Some(mut last) if *last.get() == first => *last.get_mut() = span.end(),
                _ => drop(self.unsettled.insert(first, span.end())),
            }
        }
        let reached = self.next.map_or(next.0, |reached| reached.max(next.0));
        self.next = Some(reached);
        self.forget_before(reached);
    }

    fn forget_before(&mut self, reached: i64) {
        while let Some(first) = self.known.first_entry() {
            if *first.get() > reached {
                break;
            }
            first.remove();
        }
    }

    /// Settles the records of `span`. Returns how many were unsettled until now: 0 for another
    /// generation, and for what was never delivered or is settled already.
    pub fn settle(&mut self, generation: Generation, span: Span) -> u64 {
        if generation != self.generation {
            return 0;
        }
        let (mut at, end) = (span.first.0, span.end());
        let mut settled = 0;
        while at < end {
            let Some((start, stop)) = self.range_at_or_after(at) else {
                break;
            };
            let (cut, until) = (at.max(start), end.min(stop));
            if cut >= until {
                break;
            }
            self.cut(start, stop, cut, until);
            settled += (until - cut).unsigned_abs();
            at = until;
        }
        self.unsettled_count -= settled;
        settled
    }

    fn range_at_or_after(&self, at: i64) -> Option<(i64, i64)> {
        let before = self
            .unsettled
            .range(..=at)
            .next_back()
            .filter(|(_, stop)| **stop > at);
        before
            .or_else(|| self.unsettled.range(at..).next())
            .map(|(start, stop)| (*start, *stop))
    }

    /// Takes `cut..until` out of the range `start..stop`.
    fn cut(&mut self, start: i64, stop: i64, cut: i64, until: i64) {
        if cut == start {
            self.unsettled.remove(&start);
        } else {
            self.unsettled.insert(start, cut);
        }
        if until < stop {
            self.unsettled.insert(until, stop);
        }
    }

    /// The position that may be committed: no unsettled record lies before it. `None` before
    /// anything is known.
    pub fn position(&self) -> Option<CommitOffset> {
        let mut earliest = self.unsettled.first_key_value().map(|(start, _)| *start);
        if mutation::is(Fault::UnsettledTakenForGap) {
            earliest = self.unsettled.keys().nth(1).copied().or(earliest);
        }
        earliest.or(self.next).map(CommitOffset)
    }

    /// What is settled beyond [`position`](OffsetTracker::position), in ascending order. Gaps
    /// count as settled: nothing in them needs handling.
    pub fn settled_beyond(&self) -> impl Iterator<Item = Span> + Clone + '_ {
        let ends = self.unsettled.values().copied();
        let starts = self.unsettled.keys().copied().skip(1).chain(self.next);
        let between = ends.zip(starts);
        let later = self
            .known
            .iter()
            .map(|(from, to)| (*from.max(&self.next.unwrap_or(0)), *to));
        between
            .chain(later)
            .filter(|(from, to)| from < to && !mutation::is(Fault::MetadataForgets))
            .map(|(from, to)| Span {
                first: Offset(from),
                count: u32::try_from(to - from).unwrap_or(u32::MAX)
                    + u32::from(mutation::is(Fault::MetadataClaimsMore)),
            })
    }

    /// How many delivered records are unsettled.
    pub fn unsettled(&self) -> u64 {
        self.unsettled_count
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    const GEN: Generation = Generation(1);

    fn span(first: i64, count: u32) -> Span {
        Span {
            first: Offset(first),
            count,
        }
    }

    fn tracker(position: i64) -> OffsetTracker {
        OffsetTracker::new(GEN, Some(CommitOffset(position)), &[])
    }

    fn deliver(tracker: &mut OffsetTracker, offsets: &[i64], next: i64) {
        tracker.delivered(&Span::of(offsets.iter().copied()), CommitOffset(next));
    }

    #[test]
    fn commit_waits_for_the_earliest_unfinished_record() {
        let mut tracker = tracker(10);
        deliver(&mut tracker, &[10, 11, 12], 13);
        tracker.settle(GEN, span(11, 2));
        assert_eq!(tracker.position(), Some(CommitOffset(10)));
        tracker.settle(GEN, span(10, 1));
        assert_eq!(tracker.position(), Some(CommitOffset(13)));
    }

    #[test]
    fn an_offset_gap_is_not_an_unsettled_record() {
        let mut tracker = tracker(10);
        deliver(&mut tracker, &[12, 20], 25);
        assert_eq!(tracker.position(), Some(CommitOffset(12)));
        tracker.settle(GEN, span(12, 1));
        assert_eq!(tracker.position(), Some(CommitOffset(20)));
        tracker.settle(GEN, span(20, 1));
        assert_eq!(
            tracker.position(),
            Some(CommitOffset(25)),
            "the gap at the tail commits too"
        );
    }

    #[test]
    fn a_settlement_of_an_earlier_generation_is_ignored() {
        let mut tracker = tracker(0);
        deliver(&mut tracker, &[0, 1], 2);
        assert_eq!(tracker.settle(Generation(0), span(0, 2)), 0);
        assert_eq!(tracker.position(), Some(CommitOffset(0)));
    }

    #[test]
    fn settling_twice_or_what_was_never_delivered_counts_nothing() {
        let mut tracker = tracker(0);
        deliver(&mut tracker, &[0, 1, 2], 3);
        assert_eq!(tracker.settle(GEN, span(1, 1)), 1);
        assert_eq!(tracker.settle(GEN, span(0, 3)), 2);
        assert_eq!(tracker.settle(GEN, span(0, 9)), 0);
        assert_eq!(tracker.unsettled(), 0);
    }

    #[test]
    fn what_an_earlier_owner_settled_stays_settled_until_it_is_passed() {
        let mut tracker =
            OffsetTracker::new(GEN, Some(CommitOffset(5)), &[span(7, 2), span(20, 1)]);
        assert!(tracker.knows(Offset(7)) && tracker.knows(Offset(8)) && !tracker.knows(Offset(9)));
        deliver(&mut tracker, &[5, 6, 9], 10);
        let beyond: Vec<_> = tracker.settled_beyond().collect();
        assert_eq!(beyond, [span(7, 2), span(20, 1)]);
    }

    #[test]
    fn without_a_position_the_first_record_gives_it() {
        let mut tracker = OffsetTracker::new(GEN, None, &[]);
        assert_eq!(tracker.position(), None);
        deliver(&mut tracker, &[42], 43);
        assert_eq!(tracker.position(), Some(CommitOffset(42)));
    }

    proptest! {
        #[test]
        fn agrees_with_a_set_of_unsettled_offsets(
            steps in prop::collection::vec((prop::bool::ANY, 1i64..6, 1u32..6, 0i64..60), 1..80),
        ) {
            let mut tracker = tracker(0);
            let (mut unsettled, mut next) = (BTreeSet::new(), 0i64);
            for (deliver_next, gap, count, at) in steps {
                if deliver_next {
                    let first = next + gap - 1;
                    let end = first + i64::from(count);
                    unsettled.extend(first..end);
                    next = end + gap % 2;
                    tracker.delivered(&[span(first, count)], CommitOffset(next));
                } else {
                    let settled = (at..at + i64::from(count)).filter(|o| unsettled.remove(o)).count();
                    prop_assert_eq!(tracker.settle(GEN, span(at, count)), settled as u64);
                }
                let position = unsettled.first().copied().unwrap_or(next);
                prop_assert_eq!(tracker.position(), Some(CommitOffset(position)));
                prop_assert_eq!(tracker.unsettled(), unsettled.len() as u64);
                let beyond: BTreeSet<i64> =
                    tracker.settled_beyond().flat_map(|s| s.first.0..s.end()).collect();
                let expected: BTreeSet<i64> =
                    (position..next).filter(|o| !unsettled.contains(o)).collect();
                prop_assert_eq!(beyond, expected);
            }
        }
    }
}
