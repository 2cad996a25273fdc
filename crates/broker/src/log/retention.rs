//! Giving up old records: by age, by size, and on request.
//!
//! The log start moves first, durably; then segments that lie wholly before it are removed. A crash between the two
//! leaves files that the next start removes.

use std::fs;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::UNIX_EPOCH;

use super::checkpoint;
use super::error::ReadError;
use super::partition::Partition;
use super::segment::Segment;
use crate::Error;
use crate::store::TopicConfig;

impl Partition {
    /// Makes the records before the offset unreadable and gives the new log start offset. -1 means all up to the high
    /// watermark. Durable when it returns.
    pub(crate) fn delete_records(&self, before: i64) -> Result<i64, ReadError> {
        if self.is_deleted() {
            return Err(ReadError::Deleted);
        }
        let (start, end) = (self.log_start_offset(), self.high_watermark());
        let before = if before == -1 { end } else { before };
        if before < 0 || before > end {
            return Err(ReadError::OutOfRange {
                offset: before,
                start,
                end,
            });
        }
        self.move_start(before)?;
        Ok(self.log_start_offset())
    }

    /// Removes segments that are too old or too many, and forgets idle producers.
    pub(crate) fn retain(&self, now_ms: i64) -> Result<(), Error> {
        let config = self.config();
        {
            let mut writer = self.writer();
            if writer.stopped.is_some() {
                return Ok(());
            }
            writer.producers.forget_idle(now_ms);
            let expired = config.deletes && is_expired(&writer.active, &config, now_ms);
            if writer.active.size() > 0
                && (expired || writer.is_older_than(config.segment_ms, now_ms))
            {
                self.roll(&mut writer)?;
                self.publish(writer);
            }
        }
        if config.deletes {
            self.move_start(self.first_retained(&config, now_ms))?;
        }
        self.remove_before_start()
    }

    /// The base offset of the first segment to keep.
    fn first_retained(&self, config: &TopicConfig, now_ms: i64) -> i64 {
        let segments = self.segments();
        let mut left: u64 = segments.iter().map(|segment| segment.size()).sum();
        let mut keep = self.log_start_offset();
        for (segment, next) in segments.iter().zip(segments.iter().skip(1)) {
            left -= segment.size();
            let too_much = config.retention_bytes.is_some_and(|max| left >= max);
            // Compaction may leave a segment empty; there is nothing in it to keep.
            let is_empty = segment.size() == 0;
            if next.base() > self.high_watermark()
                || !(too_much || is_empty || is_expired(segment, config, now_ms))
            {
                break;
            }
            keep = keep.max(next.base());
        }
        keep
    }

    fn move_start(&self, to: i64) -> Result<(), Error> {
        let _moves = self
            .start_moves
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if to <= self.log_start_offset() {
            return Ok(());
        }
        let mut noted = checkpoint::write_log_start(&self.place.folder, to);
        if noted.is_err() && self.segments().iter().any(|segment| segment.base() == to) {
            // On a full disk, what makes room must not need room.
            self.log_start.store(to, Ordering::Release);
            self.remove_before_start()?;
            noted = checkpoint::write_log_start(&self.place.folder, to);
        }
        noted?;
        self.log_start.store(to, Ordering::Release);
        self.aborted().forget_before(to);
        tracing::info!(
            topic = self.topic(),
            partition = self.index(),
            log_start = to,
            "the log start moved"
        );
        Ok(())
    }

    fn remove_before_start(&self) -> Result<(), Error> {
        let start = self.log_start_offset();
        self.note_producers_before(start)?;
        let removed: Vec<Arc<Segment>> = {
            let mut segments = self.segments_mut();
            let behind = segments
                .iter()
                .skip(1)
                .take_while(|next| next.base() <= start)
                .count();
            segments.drain(..behind).collect()
        };
        removed.iter().try_for_each(|segment| segment.remove())
    }

    /// Who wrote what, and whose transaction ended, is read from the segments after a crash, unless a checkpoint says it:
    /// there is one behind all that is removed. On a full disk there may be none, and recovery does without.
    fn note_producers_before(&self, start: i64) -> Result<(), Error> {
        let kept = {
            let segments = self.segments();
            let mut bases = segments.iter().skip(1).map(|segment| segment.base());
            bases.rfind(|base| *base <= start)
        };
        let Some(kept) = kept else { return Ok(()) };
        if self.checkpointed()? < kept {
            self.writer().request_checkpoint();
            self.flush(false);
        }
        Ok(())
    }
}

fn is_expired(segment: &Segment, config: &TopicConfig, now_ms: i64) -> bool {
    let Some(max_age) = config.retention_ms else {
        return false;
    };
    segment.size() > 0 && now_ms.saturating_sub(newest_ms(segment, now_ms)) > max_age
}

/// The time of a segment's newest record; where its records have none, of its last change.
pub(super) fn newest_ms(segment: &Segment, now_ms: i64) -> i64 {
    match segment.max_timestamp() {
        -1 => modified_ms(segment).unwrap_or(now_ms),
        timestamp => timestamp,
    }
}

fn modified_ms(segment: &Segment) -> Option<i64> {
    let modified = fs::metadata(segment.path()).ok()?.modified().ok()?;
    i64::try_from(modified.duration_since(UNIX_EPOCH).ok()?.as_millis()).ok()
}
