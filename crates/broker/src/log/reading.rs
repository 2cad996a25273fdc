//! Reading a partition: by offset, and by time.

use std::sync::Arc;

use bytes::Bytes;

use super::aborted::AbortedTransaction;
use super::batch::Header;
use super::error::ReadError;
use super::partition::{Partition, Read};
use super::segment::Segment;
use crate::Error;

/// Which records a reader is shown (`isolation.level`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Isolation {
    /// All.
    Uncommitted,
    /// Those before the first transaction that is open, and what it must leave out of them is told.
    Committed,
}

impl Read {
    /// The offset behind the last batch; `None` when nothing was read.
    pub(crate) fn end(&self) -> Option<i64> {
        end_of(&self.records)
    }
}

/// The offset behind the last of some whole batches.
fn end_of(mut batches: &[u8]) -> Option<i64> {
    let mut end = None;
    while let Some(header) = Header::stored(batches) {
        end = Some(header.next_offset());
        batches = batches.get(header.size()?..)?;
    }
    end
}

impl Partition {
    /// Reads whole batches from the one that holds `from`, at most `max_bytes`, never beyond the high watermark.
    ///
    /// With `min_one_batch` the first batch is given even when it alone exceeds `max_bytes`.
    pub(crate) fn read(
        &self,
        from: i64,
        max_bytes: usize,
        min_one_batch: bool,
    ) -> Result<Read, ReadError> {
        self.read_isolated(from, max_bytes, min_one_batch, Isolation::Uncommitted)
    }

    /// As [`Partition::read`]; for readers of committed records never beyond the last stable offset, and with the
    /// aborted transactions whose records they must leave out.
    pub(crate) fn read_isolated(
        &self,
        from: i64,
        max_bytes: usize,
        min_one_batch: bool,
        isolation: Isolation,
    ) -> Result<Read, ReadError> {
        // In this order: the last stable offset is never ahead of the high watermark.
        let last_stable_offset = self.last_stable_offset();
        let high_watermark = self.high_watermark();
        let below = match isolation {
            Isolation::Uncommitted => high_watermark,
            Isolation::Committed => last_stable_offset.min(high_watermark),
        };
        let records = self.records(from, below, max_bytes, min_one_batch)?;
        let aborted = match isolation {
            Isolation::Committed => self.aborted_among(from, &records),
            Isolation::Uncommitted => Vec::new(),
        };
        Ok(Read {
            records,
            high_watermark,
            last_stable_offset: last_stable_offset.min(high_watermark),
            log_start_offset: self.log_start_offset(),
            aborted,
        })
    }

    /// Most partitions have none, and look at no batch for it.
    fn aborted_among(&self, from: i64, records: &Bytes) -> Vec<AbortedTransaction> {
        if self.aborted().is_empty() {
            return Vec::new();
        }
        self.aborted_in(from, end_of(records).unwrap_or(from))
    }

    fn records(
        &self,
        from: i64,
        below: i64,
        max_bytes: usize,
        min_one_batch: bool,
    ) -> Result<Bytes, ReadError> {
        self.check_readable(from)?;
        let mut segments = self.segments_from(from).into_iter();
        while let Some(segment) = segments.next() {
            if segment.base() >= below {
                break;
            }
            let read = segment.read(from, below, max_bytes, min_one_batch);
            if segment.is_removed() {
                // It was compacted or deleted meanwhile: what was read may not be its own.
                self.check_readable(from)?;
                segments = self.segments_from(from).into_iter();
                continue;
            }
            match read {
                Ok(None) => {}
                Ok(Some(records)) => return Ok(records),
                Err(error) => {
                    // The segment may have been deleted meanwhile.
                    self.check_readable(from)?;
                    return Err(error.into());
                }
            }
        }
        Ok(Bytes::new())
    }

    fn check_readable(&self, from: i64) -> Result<(), ReadError> {
        let (start, end) = (self.log_start_offset(), self.log_end_offset());
        if self.is_deleted() {
            return Err(ReadError::Deleted);
        }
        if from < start || from > end {
            return Err(ReadError::OutOfRange {
                offset: from,
                start,
                end,
            });
        }
        Ok(())
    }

    /// The first record with a timestamp of at least `ms`: its offset and timestamp.
    ///
    /// Readers of committed records find none behind the last stable offset.
    pub(crate) fn offset_for_time(
        &self,
        ms: i64,
        isolation: Isolation,
    ) -> Result<Option<(i64, i64)>, Error> {
        loop {
            let segments = self.segments_from(self.log_start_offset());
            let found = self.first_since(&segments, ms, isolation);
            if !segments.iter().any(|segment| segment.is_removed()) {
                return found;
            }
        }
    }

    fn first_since(
        &self,
        segments: &[Arc<Segment>],
        ms: i64,
        isolation: Isolation,
    ) -> Result<Option<(i64, i64)>, Error> {
        let (start, end) = (self.log_start_offset(), self.end_for(isolation));
        for (at, segment) in segments.iter().enumerate() {
            if segment.max_timestamp() < ms {
                continue;
            }
            if at + 1 < segments.len() {
                segment.check_index()?;
            }
            if let Some(found) = segment.first_since(ms, start)? {
                return Ok(Some(found).filter(|(offset, _)| *offset < end));
            }
        }
        Ok(None)
    }

    /// The record with the largest timestamp: its offset and timestamp (`ListOffsets` with -3, KIP-734).
    pub(crate) fn offset_of_max_timestamp(&self) -> Result<Option<(i64, i64)>, Error> {
        let largest = self
            .segments_from(self.log_start_offset())
            .iter()
            .map(|segment| segment.max_timestamp())
            .max();
        match largest {
            Some(largest) if largest >= 0 => self.offset_for_time(largest, Isolation::Uncommitted),
            _ => Ok(None),
        }
    }

    /// The offset behind the last record that a reader may see.
    pub(crate) fn end_for(&self, isolation: Isolation) -> i64 {
        match isolation {
            Isolation::Uncommitted => self.high_watermark(),
            Isolation::Committed => self.last_stable_offset(),
        }
    }

    /// The segment that holds `offset` and those behind it.
    fn segments_from(&self, offset: i64) -> Vec<Arc<Segment>> {
        let segments = self.segments();
        let first = segments
            .partition_point(|segment| segment.base() <= offset)
            .saturating_sub(1);
        segments.get(first..).unwrap_or_default().to_vec()
    }
}
