//! A partition as the rest of the broker sees it.

use bytes::Bytes;
use tokio::sync::watch;

use super::error::{AppendError, ReadError};
use crate::Error;

/// Where batches went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Appended {
    /// The offset of the first record.
    pub(crate) base_offset: i64,
    /// The offset of the last record: what to give to [`Partition::durable`].
    pub(crate) last_offset: i64,
    /// The broker's timestamp if the topic has `message.timestamp.type=LogAppendTime`, else -1.
    pub(crate) log_append_time: i64,
    /// The first offset of the partition.
    pub(crate) log_start_offset: i64,
    /// An idempotent producer sent these records before; the offsets are the original ones.
    pub(crate) duplicate: bool,
}

/// What was read: whole batches, byte for byte.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Read {
    /// Whole batches; the first holds the offset asked for (it may begin before it). Empty at the high watermark.
    pub(crate) records: Bytes,
    /// The offset behind the last record that consumers may see.
    pub(crate) high_watermark: i64,
    /// The offset behind the last record that is not part of an open transaction.
    pub(crate) last_stable_offset: i64,
    /// The first offset of the partition.
    pub(crate) log_start_offset: i64,
}

/// One partition's log. Shared; all methods take `&self`.
#[derive(Debug)]
pub(crate) struct Partition {
    topic: String,
    index: i32,
    high_watermark: watch::Sender<i64>,
}

impl Partition {
    pub(crate) fn new(topic: &str, index: i32) -> Self {
        Self {
            topic: topic.to_owned(),
            index,
            high_watermark: watch::Sender::new(0),
        }
    }

    /// The topic's name.
    pub(crate) fn topic(&self) -> &str {
        &self.topic
    }

    /// The partition's number in its topic, from 0.
    pub(crate) fn index(&self) -> i32 {
        self.index
    }

    /// Checks batches (as they came in a produce request) and appends them: all, or none.
    ///
    /// Writes to the page cache, without waiting for the disk: see [`Partition::durable`]. `now_ms` is the
    /// broker's clock in milliseconds since the Unix epoch.
    pub(crate) fn append(&self, batches: Bytes, now_ms: i64) -> Result<Appended, AppendError> {
        let _ = (batches, now_ms);
        Err(AppendError::Deleted)
    }

    /// Waits until everything up to and with `last_offset` is as safe as the flush setting promises.
    ///
    /// # Cancel safety
    /// Dropping the future gives up waiting; the records are flushed anyway.
    pub(crate) async fn durable(&self, last_offset: i64) -> Result<(), Error> {
        let _ = last_offset;
        Ok(())
    }

    /// Reads whole batches from the one that holds `from`, at most `max_bytes`, never beyond the high watermark.
    ///
    /// With `min_one_batch` the first batch is given even when it alone exceeds `max_bytes`.
    pub(crate) fn read(
        &self,
        from: i64,
        max_bytes: usize,
        min_one_batch: bool,
    ) -> Result<Read, ReadError> {
        let _ = (max_bytes, min_one_batch);
        Err(ReadError::OutOfRange {
            offset: from,
            start: 0,
            end: 0,
        })
    }

    /// Follows the high watermark: wakes when records become visible.
    pub(crate) fn watch(&self) -> watch::Receiver<i64> {
        self.high_watermark.subscribe()
    }

    /// The first offset that can be read.
    pub(crate) fn log_start_offset(&self) -> i64 {
        0
    }

    /// The offset behind the last record that consumers may see (`latest`).
    pub(crate) fn high_watermark(&self) -> i64 {
        *self.high_watermark.borrow()
    }

    /// The offset that the next record gets.
    pub(crate) fn log_end_offset(&self) -> i64 {
        0
    }

    /// The bytes of all segments.
    pub(crate) fn size_bytes(&self) -> u64 {
        0
    }

    /// The first record with a timestamp of at least `ms`: its offset and timestamp.
    pub(crate) fn offset_for_time(&self, ms: i64) -> Result<Option<(i64, i64)>, Error> {
        let _ = ms;
        Ok(None)
    }

    /// The record with the largest timestamp: its offset and timestamp (`ListOffsets` with -3, KIP-734).
    pub(crate) fn offset_of_max_timestamp(&self) -> Result<Option<(i64, i64)>, Error> {
        Ok(None)
    }

    /// Makes the records before the offset unreadable and gives the new log start offset. -1 means all up to the high
    /// watermark. Durable when it returns.
    pub(crate) fn delete_records(&self, before: i64) -> Result<i64, ReadError> {
        Err(ReadError::OutOfRange {
            offset: before,
            start: 0,
            end: 0,
        })
    }
}
