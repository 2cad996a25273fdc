//! Until when replies have been handled, so that a deadline does not count the time that a reply waits to be read.
//!
//! A reply that came in time may lie unread for minutes: behind a bulk import, after a pause, while a partition
//! changes hands. The clock alone would take such a saga back although all was done. So a deadline passes when the
//! group that reads the replies has handled all that had come by it: the ends of the reply topics are noted, and
//! once the group has committed them, all that had come when they were asked for is handled, by whichever instance.
//! A commit is what tells, and not what an instance has read itself: the one that fires a deadline need not own the
//! partition of its reply, and need not know who does.
//!
//! A partition that nobody reads must not hold deadlines for ever, so after `patience` they pass all the same.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::Timestamp;

/// Until when replies have been handled; `P` names a partition.
///
/// ```
/// # use std::time::Duration;
/// # use ackwell_core::Timestamp;
/// # use ackwell_core::saga::{Ask, Watermark};
/// let at = Timestamp::from_millis;
/// let mut watermark = Watermark::new(Duration::from_secs(600));
/// assert_eq!(watermark.ask(at(700_000)), Ask::Ends);
/// watermark.ends(at(700_000), [("replies-0", 12)]);
/// watermark.committed([("replies-0", 11)]);
/// assert_eq!(watermark.at(at(700_100)), at(100_100));
/// watermark.committed([("replies-0", 12)]);
/// assert_eq!(watermark.at(at(700_200)), at(700_000));
/// ```
#[derive(Debug, Clone)]
pub struct Watermark<P> {
    patience: Duration,
    reached: Option<Timestamp>,
    mark: Option<Mark<P>>,
}

/// What to ask the brokers for next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ask {
    /// Nothing: it is known.
    Nothing,
    /// The ends of the topics, and then the positions.
    Ends,
    /// The committed positions.
    Positions,
}

/// Where the topics ended when somebody looked.
#[derive(Debug, Clone)]
struct Mark<P> {
    asked_at: Timestamp,
    /// The ends that have not been committed yet.
    missing: BTreeMap<P, i64>,
}

impl<P: Ord> Watermark<P> {
    /// Nothing is known yet. A deadline passes at the latest so long after its time.
    pub fn new(patience: Duration) -> Self {
        Self {
            patience,
            reached: None,
            mark: None,
        }
    }

    /// What is missing to know that a deadline of this time has passed. Ends that were noted are waited for even
    /// if they are too old for it: replaced again and again, they would never be reached under load.
    pub fn ask(&self, deadline: Timestamp) -> Ask {
        match &self.mark {
            _ if self.reached.is_some_and(|reached| reached >= deadline) => Ask::Nothing,
            Some(_) => Ask::Positions,
            None => Ask::Ends,
        }
    }

    /// The ends of all partitions: the offsets that come next. `asked_at` must be from before they were asked for.
    pub fn ends(&mut self, asked_at: Timestamp, ends: impl IntoIterator<Item = (P, i64)>) {
        let missing = ends.into_iter().filter(|(_, end)| *end > 0).collect();
        self.mark = Some(Mark { asked_at, missing });
        self.look();
    }

    /// Positions that the group has committed; of partitions without one nothing is said.
    pub fn committed(&mut self, positions: impl IntoIterator<Item = (P, i64)>) {
        let Some(mark) = &mut self.mark else { return };
        for (partition, position) in positions {
            if mark
                .missing
                .get(&partition)
                .is_some_and(|end| *end <= position)
            {
                mark.missing.remove(&partition);
            }
        }
        self.look();
    }

    /// The partitions whose noted ends have not been committed yet, with these ends.
    pub fn missing(&self) -> impl Iterator<Item = (&P, i64)> {
        let mark = self.mark.iter();
        mark.flat_map(|mark| {
            mark.missing
                .iter()
                .map(|(partition, end)| (partition, *end))
        })
    }

    /// Deadlines up to this moment have passed.
    pub fn at(&self, now: Timestamp) -> Timestamp {
        let given_up = now - self.patience;
        self.reached
            .map_or(given_up, |reached| reached.max(given_up))
            .min(now)
    }

    fn look(&mut self) {
        if let Some(mark) = self.mark.take_if(|mark| mark.missing.is_empty()) {
            self.reached = self.reached.max(Some(mark.asked_at));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(600);
    const NOW: Timestamp = Timestamp::from_millis(10_000_000);

    fn asked(ends: &[(u32, i64)]) -> Watermark<u32> {
        let mut watermark = Watermark::new(PATIENCE);
        assert_eq!(watermark.ask(NOW), Ask::Ends);
        watermark.ends(NOW, ends.iter().copied());
        watermark
    }

    #[test]
    fn before_anything_is_known_only_what_patience_gave_up_has_passed() {
        let watermark = Watermark::<u32>::new(PATIENCE);
        assert_eq!(watermark.at(NOW), NOW - PATIENCE);
    }

    #[test]
    fn topics_without_a_record_hold_nothing_up() {
        assert_eq!(asked(&[(0, 0), (1, 0)]).at(NOW), NOW);
        assert_eq!(asked(&[]).at(NOW), NOW);
    }

    #[test]
    fn every_partition_must_be_read_to_its_end() {
        let mut watermark = asked(&[(0, 5), (1, 7)]);
        watermark.committed([(0, 9), (1, 6)]);
        assert_eq!(watermark.at(NOW), NOW - PATIENCE);
        assert_eq!(watermark.missing().collect::<Vec<_>>(), [(&1, 7)]);
        watermark.committed([(1, 7)]);
        assert_eq!(watermark.at(NOW), NOW);
    }

    #[test]
    fn what_was_read_once_stays_read_whatever_an_older_answer_says() {
        let mut watermark = asked(&[(0, 5), (1, 7)]);
        watermark.committed([(0, 5)]);
        watermark.committed([(0, 3), (1, 7)]);
        assert_eq!(watermark.at(NOW), NOW);
    }

    #[test]
    fn ends_are_waited_for_though_a_later_deadline_asks() {
        let mut watermark = asked(&[(0, 5)]);
        let later = NOW + Duration::from_secs(1);
        assert_eq!(watermark.ask(later), Ask::Positions);
        watermark.committed([(0, 5)]);
        assert_eq!(watermark.ask(NOW), Ask::Nothing);
        assert_eq!(watermark.ask(later), Ask::Ends);
    }

    #[test]
    fn a_partition_that_nobody_reads_holds_deadlines_for_no_longer_than_the_patience() {
        let watermark = asked(&[(0, 5)]);
        assert_eq!(watermark.at(NOW + PATIENCE), NOW);
    }

    #[test]
    fn a_clock_that_is_set_back_lets_nothing_pass_early() {
        let watermark = asked(&[]);
        let back = NOW - Duration::from_secs(3);
        assert_eq!(watermark.at(back), back);
    }
}
