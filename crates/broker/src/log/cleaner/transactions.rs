//! What compaction has to know of transactions: records of aborted ones go, and supersede nothing; a marker goes
//! when nothing of its transaction is left (Kafka's `CleanedTransactionMetadata`).

use std::sync::Arc;

use rustc_hash::{FxHashMap, FxHashSet};

use super::super::batch::{HEADER, Header};
use super::super::scan::{BODIES_WINDOW, Scan};
use super::super::segment::Segment;
use super::pace::{Halt, Pace};
use super::records::{self, Unpacked};

/// The type of an abort marker in its key, behind two bytes of version.
const ABORT: [u8; 2] = [0, 0];

/// The aborted transactions of the dirty part.
#[derive(Debug, Default)]
pub(super) struct Aborted {
    /// By producer: the first and last offset of each aborted transaction.
    ranges: FxHashMap<i64, Vec<(i64, i64)>>,
    end: i64,
}

impl Aborted {
    /// Goes over the batches from `first_dirty` to `end`, or to the first transaction whose end is not among them.
    pub(super) fn find(
        segments: &[Arc<Segment>],
        first_dirty: i64,
        end: i64,
        pace: &mut Pace<'_>,
    ) -> Result<Self, Halt> {
        let mut found = Self {
            end,
            ..Self::default()
        };
        let mut open: FxHashMap<i64, i64> = FxHashMap::default();
        let mut unpacked = Unpacked::default();
        for segment in segments {
            let (file, size) = (segment.file()?, segment.size());
            let mut scan = Scan::new(&file, size, BODIES_WINDOW);
            let mut position = 0;
            while position < size {
                let (header, batch_size) = records::header(segment, &mut scan, position)?;
                let inside = header.last_offset() >= first_dirty && header.base_offset < end;
                if inside && header.is_control() {
                    let (header, batch) = records::intact(segment, &mut scan, position)?;
                    found.close(&header, is_abort(&header, batch, &mut unpacked), &mut open);
                } else if inside && header.is_transactional() {
                    open.entry(header.producer_id).or_insert(header.base_offset);
                }
                position += batch_size;
                pace.spend(HEADER as u64)?;
            }
        }
        found.end = open.values().copied().fold(end, i64::min);
        Ok(found)
    }

    fn close(&mut self, header: &Header, aborted: bool, open: &mut FxHashMap<i64, i64>) {
        if let Some(first) = open.remove(&header.producer_id).filter(|_| aborted) {
            let ranges = self.ranges.entry(header.producer_id).or_default();
            ranges.push((first, header.base_offset));
        }
    }

    /// The offset up to which every transaction is decided.
    pub(super) fn end(&self) -> i64 {
        self.end
    }

    /// Whether a batch of data belongs to an aborted transaction.
    pub(super) fn has(&self, header: &Header) -> bool {
        header.is_transactional()
            && self.ranges.get(&header.producer_id).is_some_and(|ranges| {
                let at = ranges.partition_point(|(_, last)| *last < header.base_offset);
                ranges
                    .get(at)
                    .is_some_and(|(first, _)| *first <= header.base_offset)
            })
    }
}

fn is_abort(header: &Header, batch: &[u8], unpacked: &mut Unpacked) -> bool {
    unpacked.open(header, batch).is_ok_and(|mut records| {
        records
            .next()
            .and_then(|marker| marker.key)
            .is_some_and(|key| key.get(2..4) == Some(&ABORT))
    })
}

/// Which markers have nothing of their transaction before them any more.
#[derive(Debug, Default)]
pub(super) struct Markers {
    with_data: FxHashSet<i64>,
}

impl Markers {
    /// A batch of data was met.
    pub(super) fn data(&mut self, header: &Header) {
        if header.is_transactional() {
            self.with_data.insert(header.producer_id);
        }
    }

    /// A marker was met: whether its transaction is empty.
    pub(super) fn marker_is_bare(&mut self, header: &Header) -> bool {
        !self.with_data.remove(&header.producer_id)
    }
}
