//! The records of a run that a batch handler takes at once, and what becomes of them.

use super::{Handling, Run};
use crate::batch::Outcomes;
use crate::extensions::Extensions;
use crate::failure::{Class, Failure};
use crate::record::Record;

/// A list of a run's records on its way through a batch handler.
///
/// A unit of work takes one from [`Run::next_portion`], has it handled as often as
/// [`judge`](Portion::judge) says, and gives it back to [`Run::close_portion`] once the work is
/// durable.
#[derive(Debug)]
pub struct Portion {
    records: Vec<Record>,
    attempt: u32,
    /// Places of records that were handled before, in order.
    duplicates: Vec<usize>,
    end: PortionEnd,
}

/// How a list ended.
#[derive(Debug)]
enum PortionEnd {
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
    fn new(records: Vec<Record>, attempt: u32) -> Self {
        let (duplicates, end) = (Vec::new(), PortionEnd::Handled);
        Self {
            records,
            attempt,
            duplicates,
            end,
        }
    }

    /// A record that must not reach the handler.
    fn refused(record: Record, attempt: u32, failure: Failure) -> Self {
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
    fn attempt(&self) -> u32 {
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

    /// Where what is done ends: the offset of its first record that is not done, or the position
    /// behind its last; `None` if nothing is done.
    pub(crate) fn position(&self) -> Option<i64> {
        match &self.end {
            PortionEnd::Handled => self
                .read_at(self.records.len().checked_sub(1)?)?
                .checked_add(1),
            PortionEnd::Failed { place: 0, .. } | PortionEnd::Whole { .. } => None,
            PortionEnd::Failed { place, .. } => self.read_at(*place),
        }
    }

    /// The offset of its first record.
    pub(crate) fn first_offset(&self) -> Option<i64> {
        self.read_at(0)
    }

    /// The offset at which a record was read, also on a retry topic.
    fn read_at(&self, place: usize) -> Option<i64> {
        self.records.get(place).map(Record::offset_read)
    }

    /// What its records share has failed, and nobody knows who is to blame.
    pub(crate) fn undone(&mut self, failure: Failure) {
        let count = self.open().count().max(1);
        let place = self.open().next().unwrap_or(0);
        if count == 1 && concerns_a_record(&failure) {
            return self.fail(place, failure, Vec::new());
        }
        self.end = PortionEnd::Whole { count, failure };
    }

    fn len(&self) -> usize {
        self.records.len()
    }

    fn duplicates_before(&self, place: usize) -> usize {
        self.duplicates.iter().filter(|at| **at < place).count()
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

impl Run {
    /// Whether its handler takes lists: then it is carried out by portions.
    pub fn is_batch(&self) -> bool {
        self.handler.is_batch()
    }

    /// The next records to be handled together; `None` at the end, after a failure, or when
    /// cancelled. The portion before must have been closed.
    pub fn next_portion(&mut self) -> Option<Portion> {
        self.waited_last = None;
        let attempt = self.attempt();
        let mut records = Vec::new();
        while let Some(record) = self.peek().cloned() {
            if let Some(refusal) = self.refusal(&record) {
                if !records.is_empty() {
                    self.look_again();
                    break;
                }
                self.started += 1;
                return Some(Portion::refused(record, attempt, refusal));
            }
            if records.is_empty() {
                let waiting = self.records.len() - self.started;
                records.reserve_exact(self.suspects.next(waiting));
            }
            records.push(record);
            self.started += 1;
            if records.len() == records.capacity() {
                break;
            }
        }
        (!records.is_empty()).then(|| Portion::new(records, attempt))
    }

    /// Lets the filter see the next record once more.
    pub(super) fn look_again(&mut self) {
        if let Some(filtering) = &mut self.filtering {
            filtering.seen = self.started;
        }
    }

    /// Has the records of a portion handled that are still to be; `extensions` are at hand for
    /// extractors.
    pub fn start_portion(&mut self, portion: &Portion, extensions: Extensions) -> Handling {
        let records = portion.records().cloned().collect();
        let handler = &self.handler;
        Handling::begin(|| handler.call_batch(records, portion.attempt(), extensions))
    }

    /// Settles what a portion's records have come to; what was done for them is durable. What
    /// failed without naming a record comes again in smaller portions.
    pub fn close_portion(&mut self, portion: Portion) {
        match portion.end {
            PortionEnd::Handled => self.settle_portion(&portion, portion.len()),
            PortionEnd::Failed { place, .. } => {
                self.settle_portion(&portion, place);
                self.fail_portion(portion);
            }
            PortionEnd::Whole { count, failure } => {
                if !concerns_a_record(&failure) || self.suspects.failed(count) {
                    return self.failed(failure);
                }
                tracing::warn!(
                    group = &*self.group,
                    records = count,
                    class = failure.class().as_str(),
                    reason = failure.summary(),
                    "a batch failed and is repeated in parts"
                );
                self.begin_again();
            }
        }
    }

    fn settle_portion(&mut self, portion: &Portion, count: usize) {
        self.suspects.cleared(count);
        self.duplicates += portion.duplicates_before(count);
        self.settled(count);
    }

    fn fail_portion(&mut self, portion: Portion) {
        let PortionEnd::Failed {
            ref handled_behind, ..
        } = portion.end
        else {
            return;
        };
        let behind = handled_behind.iter();
        self.settled_behind
            .extend(behind.filter_map(|place| portion.read_at(*place)));
        if let PortionEnd::Failed { failure, .. } = portion.end {
            self.failed(failure);
        }
    }
}
