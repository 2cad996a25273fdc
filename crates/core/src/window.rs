//! How many records share a transaction where sharing may keep others waiting.
//!
//! A transaction of many records costs one wait for the disk, and keeps what all of them have locked until
//! then. Where records of several lanes change the same rows, large transactions meet, and the
//! more often the larger they are; where they don't, small ones are a waste. Nobody knows beforehand, and it
//! changes with the data. So the size is found as TCP finds how much a network carries (RFC 5681): it grows by one
//! while nothing is in the way, and is cut by half when something is.

/// Full groups without a conflict after which one more record may join. With fewer, groups that meet in the same
/// rows grow into each other again at once; with more, they stay small for long after it has passed.
pub const CLEAN_GROUPS: u32 = 8;

/// The number of records that may share a transaction now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    size: usize,
    max: usize,
    clean: u32,
}

impl Window {
    /// Nothing was in the way so far: as large as it may become, `max`, at least one.
    pub const fn new(max: usize) -> Self {
        let max = if max == 0 { 1 } else { max };
        Window {
            size: max,
            max,
            clean: 0,
        }
    }

    /// How many records may share a transaction; from 1 to the largest that is allowed.
    pub const fn size(self) -> usize {
        self.size
    }

    /// A group of this many records met another one: groups of half of it may pass. One that began before the
    /// window was cut does not cut it again unless it shows that even less is too much.
    pub fn met(&mut self, records: usize) {
        self.clean = 0;
        self.size = self.size.min((records / 2).max(1));
    }

    /// A group of this many records met nobody. It says nothing about larger ones unless it was full.
    pub fn passed(&mut self, records: usize) {
        if records < self.size {
            return;
        }
        self.clean += 1;
        if self.clean >= CLEAN_GROUPS {
            self.clean = 0;
            self.size = (self.size + 1).min(self.max);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Fills groups, of which those larger than `passes` meet others at that record; answers how many records
    /// the last half of them held, on average.
    fn filled(window: &mut Window, groups: usize, passes: usize) -> f64 {
        let mut held = 0;
        for group in 0..groups {
            let records = window.size().min(passes);
            match window.size() > passes {
                true => window.met(records),
                false => window.passed(records),
            }
            held += if group >= groups / 2 { records } else { 0 };
        }
        held as f64 / (groups - groups / 2) as f64
    }

    #[test]
    fn groups_that_meet_nobody_stay_as_large_as_they_may_be() {
        let mut window = Window::new(60);
        assert!(filled(&mut window, 1_000, 60) > 59.9);
        assert_eq!(window.size(), 60);
    }

    #[test]
    fn groups_that_meet_others_become_about_as_large_as_what_passes() {
        for passes in [2, 5, 11, 30, 59] {
            let held = filled(&mut Window::new(60), 2_000, passes);
            let passes = passes as f64;
            assert!(
                (passes * 0.5..=passes).contains(&held),
                "{held} of {passes}"
            );
        }
    }

    #[test]
    fn a_conflict_is_rare_once_the_size_is_found() {
        let mut window = Window::new(60);
        filled(&mut window, 100, 10);
        let mut met = 0;
        for _ in 0..1_000 {
            met += usize::from(window.size() > 10);
            filled(&mut window, 1, 10);
        }
        assert!(met <= 1_000 / (5 * CLEAN_GROUPS as usize), "{met}");
    }

    #[test]
    fn when_nothing_is_in_the_way_any_more_groups_become_large_again() {
        let mut window = Window::new(60);
        filled(&mut window, 100, 1);
        assert_eq!(window.size(), 1);
        filled(&mut window, 60 * CLEAN_GROUPS as usize, 60);
        assert_eq!(window.size(), 60);
    }

    #[test]
    fn a_group_that_was_not_full_says_nothing() {
        let mut window = Window::new(60);
        window.met(8);
        for _ in 0..1_000 {
            window.passed(3);
        }
        assert_eq!(window.size(), 4);
    }

    #[test]
    fn several_groups_that_meet_in_one_place_cut_it_once() {
        let mut window = Window::new(60);
        for _ in 0..6 {
            window.met(20);
        }
        assert_eq!(window.size(), 10);
    }

    #[test]
    fn one_record_always_has_room() {
        let mut window = Window::new(0);
        assert_eq!(window.size(), 1);
        for records in [0, 1, 2] {
            window.met(records);
            assert_eq!(window.size(), 1);
        }
        window.passed(usize::MAX);
        assert_eq!(window.size(), 1);
    }
}
