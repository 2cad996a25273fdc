//! How a list of records that failed as a whole is taken apart.
//!
//! A batch handler that only says "it failed" names no record, and one poison record must not
//! take its neighbours along. The failed list is repeated in halves: whoever stands alone at the
//! end is to blame, and the others are settled on the way. A poison record among `n` costs about
//! `2 log2 n` further calls; a list that failed by chance costs `log2 n`.

use crate::mutation::{self, Fault};

/// Records at the front of what is left, at least one of which made a list fail.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Suspects {
    count: usize,
}

impl Suspects {
    /// Nobody has failed.
    pub const fn none() -> Self {
        Suspects { count: 0 }
    }

    /// The first record has failed before: it is handled alone.
    pub const fn first() -> Self {
        Suspects { count: 1 }
    }

    /// How many of the `waiting` records the next list holds.
    pub fn next(self, waiting: usize) -> usize {
        match self.count {
            0 => waiting,
            count if mutation::is(Fault::ListNeverHalved) => count.min(waiting),
            count => (count / 2).max(1).min(waiting),
        }
    }

    /// The first `count` records were handled.
    pub fn cleared(&mut self, count: usize) {
        self.count = self.count.saturating_sub(count);
    }

    /// A list of the first `count` records failed as a whole. Answers whether its one record is
    /// to blame; otherwise the list is to be repeated in parts.
    pub fn failed(&mut self, count: usize) -> bool {
        if count <= 1 || mutation::is(Fault::FirstOfListBlamed) {
            return true;
        }
        self.count = count;
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Handles `records` with a handler that fails on any list that `fails` says; answers who
    /// was blamed and how many calls it took.
    fn take_apart(
        records: std::ops::Range<usize>,
        mut fails: impl FnMut(&[usize]) -> bool,
    ) -> (Vec<usize>, usize) {
        let mut waiting: Vec<usize> = records.collect();
        let (mut suspects, mut blamed, mut calls) = (Suspects::none(), Vec::new(), 0);
        while !waiting.is_empty() {
            let count = suspects.next(waiting.len());
            calls += 1;
            if !fails(&waiting[..count]) {
                suspects.cleared(count);
                waiting.drain(..count);
            } else if suspects.failed(count) {
                suspects.cleared(1);
                blamed.extend(waiting.drain(..1));
            }
        }
        (blamed, calls)
    }

    #[test]
    fn a_list_that_succeeds_is_handled_in_one_call() {
        assert_eq!(take_apart(0..500, |_| false), (vec![], 1));
    }

    #[test]
    fn a_poison_record_is_found_alone_wherever_it_stands() {
        for poison in 0..500 {
            let (blamed, calls) = take_apart(0..500, |list| list.contains(&poison));
            assert_eq!(blamed, [poison]);
            assert!(calls <= 20, "{calls} calls for {poison}");
        }
    }

    #[test]
    fn every_poison_record_is_found_and_nobody_else() {
        let poison = [0, 1, 7, 8, 63, 99];
        let (blamed, _) = take_apart(0..100, |list| list.iter().any(|r| poison.contains(r)));
        assert_eq!(blamed, poison);
    }

    #[test]
    fn nobody_is_blamed_for_a_list_that_failed_by_chance_or_was_too_long() {
        let mut first = true;
        let (blamed, calls) = take_apart(0..64, |_| std::mem::take(&mut first));
        assert_eq!((blamed, calls), (vec![], 8));
        let (blamed, _) = take_apart(0..64, |list| list.len() > 20);
        assert!(blamed.is_empty());
    }

    #[test]
    fn a_record_that_failed_before_is_handled_alone_first() {
        let mut suspects = Suspects::first();
        assert_eq!(suspects.next(500), 1);
        suspects.cleared(1);
        assert_eq!(suspects.next(499), 499);
    }
}
