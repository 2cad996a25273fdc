//! Reading a partition: by offset, and by time.

use std::sync::Arc;

use bytes::Bytes;

use super::aborted::AbortedTransaction;
use super::error::ReadError;
use super::partition::Partition;
use super::segment::{self, Segment};
use super::stretch::Stretch;
use crate::Error;

/// Which records a reader is shown (`isolation.level`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Isolation {
    /// All.
    Uncommitted,
    /// Those before the first transaction that is open, and what it must leave out of them is told.
    Committed,
}

/// What there is for a reader: whole batches, byte for byte.
#[derive(Debug)]
pub(crate) struct Read<R> {
    /// The first holds the offset asked for (it may begin before it). Nothing at the high watermark.
    pub(crate) records: R,
    /// The offset behind the last batch; `None` when there is none.
    pub(crate) end: Option<i64>,
    /// The offset behind the last record that consumers may see.
    pub(crate) high_watermark: i64,
    /// The offset behind the last record that is not part of an open transaction.
    pub(crate) last_stable_offset: i64,
    /// The first offset of the partition.
    pub(crate) log_start_offset: i64,
    /// For readers of committed records: aborted transactions with records among these.
    pub(crate) aborted: Vec<AbortedTransaction>,
}

impl Partition {
    /// Finds whole batches from the one that holds `from`, at most `max_bytes`, never beyond the high watermark.
    ///
    /// With `min_one_batch` the first batch is given even when it alone exceeds `max_bytes`. Readers of committed
    /// records get none beyond the last stable offset, and the aborted transactions whose records they must leave out.
    pub(crate) fn find(
        &self,
        from: i64,
        max_bytes: usize,
        min_one_batch: bool,
        isolation: Isolation,
    ) -> Result<Read<Option<Stretch>>, ReadError> {
        // In this order: the last stable offset is never ahead of the high watermark.
        let last_stable_offset = self.last_stable_offset();
        let high_watermark = self.high_watermark();
        let below = match isolation {
            Isolation::Uncommitted => high_watermark,
            Isolation::Committed => last_stable_offset.min(high_watermark),
        };
        let records = self.records(from, below, max_bytes, min_one_batch)?;
        let aborted = match (isolation, &records) {
            // Most partitions have none.
            (Isolation::Committed, Some(records)) if !self.aborted().is_empty() => {
                self.aborted_in(from, records.next_offset())
            }
            _ => Vec::new(),
        };
        Ok(Read {
            end: records.as_ref().map(Stretch::next_offset),
            records,
            high_watermark,
            last_stable_offset: last_stable_offset.min(high_watermark),
            log_start_offset: self.log_start_offset(),
            aborted,
        })
    }

    /// Reads what [`Partition::find`] finds below the high watermark.
    pub(crate) fn read(
        &self,
        from: i64,
        max_bytes: usize,
        min_one_batch: bool,
    ) -> Result<Read<Bytes>, ReadError> {
        let Read {
            records,
            end,
            high_watermark,
            last_stable_offset,
            log_start_offset,
            aborted,
        } = self.find(from, max_bytes, min_one_batch, Isolation::Uncommitted)?;
        let read = records.map_or(Ok(Bytes::new()), |records| records.read());
        let failed = |error| {
            let (topic, partition) = (self.topic(), self.index());
            Error::io(format_args!("reading {topic}-{partition}"), error)
        };
        Ok(Read {
            records: read.map_err(failed)?,
            end,
            high_watermark,
            last_stable_offset,
            log_start_offset,
            aborted,
        })
    }

    fn records(
        &self,
        from: i64,
        below: i64,
        max_bytes: usize,
        min_one_batch: bool,
    ) -> Result<Option<Stretch>, ReadError> {
        self.check_readable(from)?;
        let mut segments = self.segments_from(from).into_iter();
        while let Some(segment) = segments.next() {
            if segment.base() >= below {
                break;
            }
            let found = segment.find(from, below, max_bytes, min_one_batch);
            if segment.is_removed() {
                // It was compacted or deleted meanwhile: what was found may not be its own.
                self.check_readable(from)?;
                segments = self.segments_from(from).into_iter();
                continue;
            }
            match found {
                Ok(None) => {}
                Ok(Some(segment::Found::Stretch(records))) => return Ok(Some(records)),
                Ok(Some(segment::Found::TooLarge)) => return Ok(None),
                Err(error) => {
                    // The segment may have been deleted meanwhile.
                    self.check_readable(from)?;
                    return Err(error.into());
                }
            }
        }
        Ok(None)
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
