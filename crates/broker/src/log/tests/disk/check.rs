//! What must hold after every start, and after every pass of compaction.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::super::super::Isolation;
use super::super::super::control::Verdict;
use super::super::{Bytes, RecordBatchDecoder};
use super::model::{Content, Slot, Written};
use super::{TRANSACTIONAL, World};

impl World {
    pub(super) fn check(&mut self) {
        let partition = Arc::clone(&self.partition);
        let (start, end) = (partition.log_start_offset(), partition.log_end_offset());
        assert_eq!(partition.high_watermark(), end);
        assert!(
            end >= self.safe,
            "acknowledged to {}, ends at {end}",
            self.safe
        );
        assert!(end <= self.end(), "more than was written");
        assert!(self.start <= start, "deleted records are back");
        assert!(start <= self.start_begun, "the start went to {start}");
        self.start = start;
        self.slots.truncate(end as usize);
        self.check_records(start, end);
        self.forget(end);
        // What is visible now stays.
        self.safe = end;
        self.check_committed(start, end);
    }

    /// A pass of compaction removed what may go, and nothing else.
    pub(super) fn check_compacted(&mut self) {
        let (start, visible) = (
            self.partition.log_start_offset(),
            self.partition.high_watermark(),
        );
        self.check_records(start, visible);
    }

    /// Every offset has what was written there; only what nobody was promised may be gone, and what compaction
    /// need not keep.
    fn check_records(&mut self, start: i64, end: i64) {
        let mut found = self.seen(Isolation::Uncommitted).into_iter().peekable();
        let mut missing = Vec::new();
        for offset in start..end {
            let there = found.next_if(|(at, _)| *at == offset);
            let slot = &mut self.slots[offset as usize];
            match (&*slot, there) {
                (Slot::Record(written), Some((_, Some(content)))) => {
                    assert_eq!(written.content, content, "at {offset}");
                }
                (Slot::Marker(_), Some((_, None))) | (Slot::Lost | Slot::Compacted(_), None) => {}
                (_, None) if offset >= self.safe => *slot = Slot::Lost,
                (_, None) if self.compaction.is_some() => missing.push(offset),
                (slot, there) => panic!("at {offset} {slot:?} was written, there is {there:?}"),
            }
        }
        assert_eq!(found.next(), None);
        self.check_missing(&missing);
    }

    /// A record may be missing if a later one of its key counts, if its transaction was aborted, or if it says that its
    /// key is gone and has been there for long enough; an end, if nothing of its transaction is left.
    fn check_missing(&mut self, missing: &[i64]) {
        // The later ones first: they tell whether an earlier one may go.
        for &offset in missing.iter().rev() {
            if let Slot::Record(written) = &self.slots[offset as usize] {
                let may_go = self.is_aborted(written)
                    || self.is_superseded(written, offset)
                    || self.is_past_its_time(written, offset, missing);
                assert!(may_go, "{written:?} at {offset} is gone");
                let written = written.clone();
                self.slots[offset as usize] = Slot::Compacted(Some(written));
            }
        }
        for &offset in missing {
            if let Slot::Marker(transaction) = self.slots[offset as usize] {
                let is_left =
                    |slot: &Slot| matches!(slot, Slot::Record(_)) && slot.is_of(transaction);
                let left = self.slots[self.start as usize..].iter().position(is_left);
                assert_eq!(left, None, "the end at {offset} is gone before its records");
                self.slots[offset as usize] = Slot::Compacted(None);
            }
        }
    }

    fn is_aborted(&self, written: &Written) -> bool {
        let end = written
            .transaction
            .map(|number| self.transactions[number].end);
        matches!(end, Some(Some((Verdict::Abort, _))))
    }

    fn is_superseded(&self, written: &Written, offset: i64) -> bool {
        let later = self.slots[offset as usize + 1..].iter();
        let mut later = later.filter_map(Slot::written);
        later.any(|later| later.content.key == written.content.key && self.counts(later))
    }

    /// A tombstone goes last: what it is about would be back otherwise.
    fn is_past_its_time(&self, written: &Written, offset: i64, missing: &[i64]) -> bool {
        let is_left = |at: &i64| {
            let slot = &self.slots[*at as usize];
            matches!(slot, Slot::Record(earlier)
                if earlier.content.key == written.content.key && !self.is_aborted(earlier))
                && missing.binary_search(at).is_err()
        };
        written.content.value.is_none()
            && self.compaction.is_some_and(|rules| rules.tombstones_go)
            && !(self.start..offset).any(|at| is_left(&at))
    }

    fn check_committed(&self, start: i64, end: i64) {
        let open = self.transactions.iter().filter(|one| one.end.is_none());
        // Deleting records may take the beginning of an open transaction, not its end.
        let stable = open.map(|open| open.first).fold(end, i64::min).max(start);
        assert_eq!(self.partition.last_stable_offset(), stable);
        let expected: Vec<_> = (start..stable)
            .filter_map(|offset| match &self.slots[offset as usize] {
                Slot::Record(written) if self.counts(written) => {
                    Some((offset, Some(written.content.clone())))
                }
                Slot::Record(_) | Slot::Marker(_) | Slot::Lost | Slot::Compacted(_) => None,
            })
            .collect();
        let mut seen = self.seen(Isolation::Committed);
        seen.retain(|(_, content)| content.is_some());
        assert_eq!(seen, expected);
    }

    fn counts(&self, written: &Written) -> bool {
        written.transaction.is_none_or(|transaction| {
            let end = self.transactions[transaction].end;
            end.is_some_and(|(verdict, _)| verdict == Verdict::Commit)
        })
    }

    /// What is gone never happened, and its producers send it again.
    fn forget(&mut self, end: i64) {
        let slots = &self.slots;
        let is_gone = |offset: i64| offset >= end || slots[offset as usize] == Slot::Lost;
        for (number, transaction) in self.transactions.iter_mut().enumerate() {
            transaction.end = transaction.end.filter(|(_, marker)| !is_gone(*marker));
            match slots.iter().position(|slot| slot.is_of(number)) {
                Some(first) => transaction.first = first as i64,
                // It never began; an end keeps it from being looked for.
                None => transaction.end = Some((Verdict::Abort, transaction.first)),
            }
        }
        for (&id, producer) in &mut self.producers {
            for batch in &mut producer.in_flight {
                if batch.base >= 0 && is_gone(batch.base) {
                    batch.base = -1;
                }
            }
            let mut transactions = self.transactions.iter();
            producer.open = transactions.position(|of| of.producer == id && of.end.is_none());
            producer.marker = None;
        }
        self.ask_where_to_go_on();
    }

    /// A transactional producer begins a new life with a new epoch; here it goes on with its sequence.
    fn ask_where_to_go_on(&mut self) {
        let last: BTreeMap<_, _> = self
            .partition
            .active_producers()
            .into_iter()
            .map(|active| (active.producer.id, active.last_sequence))
            .collect();
        for (id, producer) in &mut self.producers {
            if *id >= TRANSACTIONAL {
                producer.sequence = last.get(id).map_or(0, |last| last + 1);
            }
        }
    }

    /// What a reader gets, as a client filters it (KIP-98); the ends of transactions have no content.
    fn seen(&self, isolation: Isolation) -> Vec<(i64, Option<Content>)> {
        let (mut from, mut seen) = (self.partition.log_start_offset(), Vec::new());
        loop {
            let read = self.partition.find(from, 700, true, isolation).unwrap();
            let Some(end) = read.end else { return seen };
            assert!(end > from, "a reader goes on");
            let mut records = read.records.unwrap().read().unwrap();
            while !records.is_empty() {
                for record in RecordBatchDecoder::decode(&mut records).unwrap().records {
                    let is_aborted = record.transactional
                        && read.aborted.iter().any(|aborted| {
                            aborted.producer_id == record.producer_id
                                && (aborted.first_offset..=aborted.last_offset)
                                    .contains(&record.offset)
                        });
                    if is_aborted || record.offset < from {
                        continue;
                    }
                    let text = |bytes: Bytes| String::from_utf8(bytes.to_vec()).unwrap();
                    let content = (!record.control).then(|| Content {
                        key: record.key.map(text),
                        value: record.value.map(text),
                    });
                    seen.push((record.offset, content));
                }
            }
            from = end;
        }
    }
}
