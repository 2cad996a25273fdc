//! Reading a partition: by offset, and by time.

use std::sync::Arc;

use bytes::Bytes;

use super::error::ReadError;
use super::partition::{Partition, Read};
use super::segment::Segment;
use crate::Error;

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
        let high_watermark = self.high_watermark();
        let records = self.records(from, high_watermark, max_bytes, min_one_batch)?;
        // While no transactions exist every visible record is stable.
        Ok(Read {
            records,
            high_watermark,
            last_stable_offset: high_watermark,
            log_start_offset: self.log_start_offset(),
        })
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
    pub(crate) fn offset_for_time(&self, ms: i64) -> Result<Option<(i64, i64)>, Error> {
        loop {
            let segments = self.segments_from(self.log_start_offset());
            let found = self.first_since(&segments, ms);
            if !segments.iter().any(|segment| segment.is_removed()) {
                return found;
            }
        }
    }

    fn first_since(&self, segments: &[Arc<Segment>], ms: i64) -> Result<Option<(i64, i64)>, Error> {
        let (start, end) = (self.log_start_offset(), self.high_watermark());
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
            Some(largest) if largest >= 0 => self.offset_for_time(largest),
            _ => Ok(None),
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
