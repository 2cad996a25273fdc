//! The model of a broker: logs with gaps, committed positions, owners.

use std::collections::BTreeMap;

use ackwell_core::metadata::{Metadata, Reference, decode};
use ackwell_core::offset::CommitOffset;

use crate::checker::MemberId;
use crate::dice::Dice;
use crate::member::Record;
use crate::parked::Shelf;

/// One partition as the broker knows it.
#[derive(Debug, Default)]
pub(crate) struct Partition {
    pub log: Vec<Record>,
    pub end: i64,
    pub committed: Option<(CommitOffset, String)>,
    /// What is settled beyond it and had no room in the metadata, by slot.
    pub snapshots: BTreeMap<u8, Vec<u8>>,
    /// What can't be read, and until when.
    pub damaged: BTreeMap<i64, u64>,
    /// Where records of failing keys wait.
    pub shelf: Shelf,
    pub owner: Option<MemberId>,
    /// Which assignment the owner has it by: commits of an earlier one are fenced.
    pub assignment: u64,
    /// A handover under way: who shall own it next.
    pub next_owner: Option<MemberId>,
}

impl Partition {
    /// The snapshot that metadata refers to.
    pub(crate) fn referred(&self, position: CommitOffset, metadata: &str) -> Option<Vec<u8>> {
        match decode(position, metadata) {
            Metadata::Referring(reference, _) => self.snapshots.get(&reference.slot).cloned(),
            _ => None,
        }
    }

    /// Whether the slot is in use for another snapshot.
    pub(crate) fn refers_to_another(&self, written: &Reference) -> bool {
        let Some((position, text)) = &self.committed else {
            return false;
        };
        match decode(*position, text) {
            Metadata::Referring(in_use, _) => {
                in_use.slot == written.slot && in_use.checksum != written.checksum
            }
            _ => false,
        }
    }

    /// Appends records; some offsets are left out, as transaction markers and compaction do.
    pub(crate) fn append(&mut self, dice: &mut Dice, id: u32, count: u64, gaps: bool) -> &[Record] {
        let before = self.log.len();
        for _ in 0..count {
            if gaps && dice.percent(10) {
                self.end += dice.in_range(1, 5) as i64;
            }
            let key = dice.percent(95).then(|| dice.in_range(0, 12));
            self.log.push(Record {
                offset: self.end,
                key,
                origin: (id, self.end),
                retries: 0,
                earlier: 0,
                due: None,
            });
            self.end += 1;
        }
        if gaps && dice.percent(20) {
            self.end += 1;
        }
        &self.log[before..]
    }

    /// Appends a record that was read elsewhere.
    pub(crate) fn forward(&mut self, record: Record) -> &Record {
        let offset = self.end;
        self.end += 1;
        self.log.push(Record { offset, ..record });
        &self.log[self.log.len() - 1]
    }

    pub(crate) fn at(&self, offset: i64) -> Option<&Record> {
        let place = self.log.partition_point(|record| record.offset < offset);
        self.log.get(place).filter(|record| record.offset == offset)
    }

    pub(crate) fn is_damaged(&self, offset: i64, now: u64) -> bool {
        self.damaged.get(&offset).is_some_and(|until| now < *until)
    }

    /// Up to `count` records from `position` on, and where to go on.
    pub(crate) fn fetch(&self, position: i64, count: usize) -> (Vec<Record>, i64) {
        let from = self.log.partition_point(|record| record.offset < position);
        let records: Vec<_> = self.log[from..].iter().take(count).cloned().collect();
        let next = match records.last() {
            _ if from + records.len() == self.log.len() => self.end,
            Some(last) => last.offset + 1,
            None => position,
        };
        (records, next.max(position))
    }
}
