//! The records of a run that a batch handler takes at once, and what becomes of them.

use crate::batch::Outcomes;
use crate::failure::{Class, Failure};
use crate::record::Record;

/// A list of a run's records on its way through a batch handler.
///
/// A unit of work takes one from [`Run::next_portion`](super::Run::next_portion), has it handled
/// as often as [`judge`](Portion::judge) says, and gives it back to
/// [`Run::close_portion`](super::Run::close_portion) once the work is durable.
#[derive(Debug)]
pub struct Portion {
    records: Vec<Record>,
    attempt: u32,
    /// Places of records that were handled before, in order.
    duplicates: Vec<usize>,
    pub(super) end: PortionEnd,
}

/// How a list ended.
#[derive(Debug)]
pub(super) enum PortionEnd {
    /// All are handled.
    Handled,
    /// Those before the place are handled; it failed; those behind come again, except for these.
    Failed {
        place: usize,
        failure: Failure,
        handled_behind: Vec<usize>,
    },
    /// The first `count` failed, and nobody knows who is to blame.
    Whole { count: usize, failure: Failure },
}

/// What a unit of work does with what the handler did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Judgement {
    /// It stays.
    Keep,
    /// The handler failed: it is taken back, where that is possible. Then the list is handled
    /// once more if it [has work](Portion::has_work), without those that failed.
    TakeBack,
}

impl Portion {
    pub(super) fn new(records: Vec<Record>, attempt: u32) -> Self {
        let (duplicates, end) = (Vec::new(), PortionEnd::Handled);
        Self {
            records,
            attempt,
            duplicates,
            end,
        }
    }

    /// A record that must not reach the handler.
    pub(super) fn refused(record: Record, attempt: u32, failure: Failure) -> Self {
        let mut portion = Self::new(vec![record], attempt);
        portion.fail(0, failure, Vec::new());
        portion
    }

    /// The records that are still to be handled, in order.
    pub fn records(&self) -> impl Iterator<Item = &Record> {
        self.open().filter_map(|place| self.records.get(place))
    }

    /// Whether there are any.
    pub fn has_work(&self) -> bool {
        self.open().next().is_some()
    }

    /// Attempt of the first one.
    pub(super) fn attempt(&self) -> u32 {
        self.attempt
    }

    /// Takes those out that were handled before.
    pub fn take_out(&mut self, mut is_duplicate: impl FnMut(&Record) -> bool) {
        let found: Vec<_> = self
            .open()
            .filter(|place| self.records.get(*place).is_some_and(&mut is_duplicate))
            .collect();
        self.duplicates.extend(found);
        self.duplicates.sort_unstable();
    }

    /// Notes how the handler ended on [`records`](Portion::records).
    pub fn judge(&mut self, result: Result<(), Failure>) -> Judgement {
        let Err(failure) = result else {
            return Judgement::Keep;
        };
        let places: Vec<_> = self.open().collect();
        let mut outcomes = Outcomes::from_failure(failure, places.len());
        let place = |index: usize| places.get(index).copied().unwrap_or(self.records.len());
        match outcomes.whole.take() {
            Some(failure) if outcomes.end == 1 && concerns_a_record(&failure) => {
                let first = place(0);
                self.fail(first, failure, Vec::new());
            }
            Some(failure) => {
                let count = outcomes.end.max(1);
                self.end = PortionEnd::Whole { count, failure };
            }
            None => {
                let failed: Vec<_> = outcomes.failed.iter().map(|(index, _)| *index).collect();
                let Some((first, failure)) = outcomes.failed.into_iter().next() else {
                    return Judgement::Keep;
                };
                let behind = (first + 1..outcomes.end).filter(|index| !failed.contains(index));
                let behind = behind.map(place).collect();
                self.fail(place(first), failure, behind);
            }
        }
        if outcomes.by_handler {
            Judgement::TakeBack
        } else {
            Judgement::Keep
        }
    }

    /// Forgets what was handled behind a record that failed: it was taken back.
    pub fn taken_back(&mut self) {
        if let PortionEnd::Failed { handled_behind, .. } = &mut self.end {
            handled_behind.clear();
        }
    }

    pub(super) fn len(&self) -> usize {
        self.records.len()
    }

    pub(super) fn duplicates_before(&self, place: usize) -> usize {
        self.duplicates.iter().filter(|at| **at < place).count()
    }

    pub(super) fn offset(&self, place: usize) -> Option<i64> {
        self.records.get(place).map(Record::offset)
    }

    fn fail(&mut self, place: usize, failure: Failure, handled_behind: Vec<usize>) {
        self.end = PortionEnd::Failed {
            place,
            failure,
            handled_behind,
        };
    }

    /// Places of those that are still to be handled: nothing behind a failure.
    fn open(&self) -> impl Iterator<Item = usize> + '_ {
        let end = match &self.end {
            PortionEnd::Handled => self.records.len(),
            PortionEnd::Failed { place, .. } => *place,
            PortionEnd::Whole { .. } => 0,
        };
        (0..end).filter(|place| self.duplicates.binary_search(place).is_err())
    }
}

/// Whether a failure is about records at all, and not about what they all need.
pub(super) fn concerns_a_record(failure: &Failure) -> bool {
    match failure.class() {
        Class::Transient | Class::Permanent | Class::Skip => true,
        Class::Unavailable | Class::Stop => false,
    }
}
