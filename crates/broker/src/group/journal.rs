//! One partition of `__consumer_offsets`: where a shard's changes are kept, and read back from.
//!
//! Every commit is a record, so the log would grow without end while the live state stays small.
//! When it has grown enough, the live state is written anew behind it, and once that is durable
//! everything before is deleted. A crash in between leaves both, and replaying both gives the same
//! state, so there is no moment at which the state exists only in memory.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use kafka_protocol::records::{
    Compression, NO_PARTITION_LEADER_EPOCH, NO_PRODUCER_EPOCH, NO_PRODUCER_ID, NO_SEQUENCE, Record,
    RecordBatchDecoder, RecordBatchEncoder, RecordEncodeOptions, TimestampType,
};
use tracing::{info, warn};

use super::machine::{Machine, Now};
use super::record::Change;
use crate::Error;
use crate::error::Kind;
use crate::log::Partition;

/// Bytes of keys and values that are put into one batch. Larger ones gain nothing, and a replay
/// holds one batch in memory.
const BATCH_BYTES: usize = 256 * 1024;
/// Bytes that a replay reads at a time.
const READ_BYTES: usize = 1024 * 1024;

/// A shard's log.
#[derive(Debug)]
pub(super) struct Journal {
    partition: Arc<Partition>,
    /// Bytes appended since the live state was last written.
    grown: u64,
    /// Bytes of the live state when it was last written.
    live: u64,
}

/// A snapshot of the live state: when its last record is durable, all before its first may go.
#[derive(Debug, Clone, Copy)]
pub(super) struct Snapshot {
    pub(super) first_offset: i64,
    pub(super) last_offset: i64,
}

/// What an append put into the log.
#[derive(Debug, Clone, Copy)]
struct Written {
    first_offset: i64,
    last_offset: i64,
    bytes: u64,
}

impl Journal {
    /// Feeds the machine with the whole log, some batches at a time. Blocking.
    pub(super) fn replay(
        partition: Arc<Partition>,
        machine: &mut Machine,
        now: Now,
    ) -> Result<Self, Error> {
        let mut journal = Self {
            partition,
            grown: 0,
            live: 0,
        };
        let mut records = 0_u64;
        let mut next = journal.partition.log_start_offset();
        while next < journal.partition.high_watermark() {
            let read = journal
                .partition
                .read(next, READ_BYTES, true)
                .map_err(|error| journal.unreadable(next, error))?;
            let mut batches = read.records;
            if batches.is_empty() {
                break;
            }
            journal.grown += batches.len() as u64;
            while !batches.is_empty() {
                let set = RecordBatchDecoder::decode(&mut batches)
                    .map_err(|error| journal.unreadable(next, error))?;
                for record in set
                    .records
                    .iter()
                    .filter(|record| record.offset >= next && !record.control)
                {
                    journal.take_up(machine, record);
                    records += 1;
                }
                next = set
                    .records
                    .last()
                    .map_or(next, |record| record.offset + 1)
                    .max(next);
            }
        }
        machine.replay_done(now);
        info!(
            partition = journal.partition.index(),
            records,
            bytes = journal.grown,
            "groups read back"
        );
        Ok(journal)
    }

    /// A record that is not of a format known here is passed over: it was not written by this
    /// coordinator, and refusing to start would take all other groups down with it.
    fn take_up(&self, machine: &mut Machine, record: &Record) {
        let key = record.key.clone().unwrap_or_default();
        match Change::decode(&key, record.value.as_ref()) {
            Ok(Some(change)) => machine.replay(change),
            Ok(None) => warn!(
                partition = self.partition.index(),
                offset = record.offset,
                "record of an unknown kind"
            ),
            Err(error) => {
                warn!(partition = self.partition.index(), offset = record.offset, %error, "unreadable record")
            }
        }
    }

    fn unreadable(
        &self,
        offset: i64,
        cause: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Error {
        let what = format!(
            "reading {}-{} at {offset}",
            self.partition.topic(),
            self.partition.index()
        );
        Error::new(Kind::Corrupt, what).caused_by(cause)
    }

    /// Appends changes and gives the offset of the last one, to be awaited with [`Journal::durable`].
    pub(super) fn append(&mut self, changes: &[Change], unix_ms: i64) -> Result<i64, Error> {
        let written = self.write(changes.iter().cloned(), unix_ms)?;
        self.grown += written.bytes;
        Ok(written.last_offset)
    }

    /// Whether the log has grown by so much that the live state should be written anew.
    pub(super) fn is_long(&self, snapshot_bytes: u64) -> bool {
        self.grown > snapshot_bytes.max(2 * self.live)
    }

    /// Writes the live state behind the log; `None` when there is nothing alive and nothing to drop.
    pub(super) fn snapshot(
        &mut self,
        machine: &Machine,
        unix_ms: i64,
    ) -> Result<Option<Snapshot>, Error> {
        let end = self.partition.log_end_offset();
        let written = self.write(machine.live(), unix_ms)?;
        info!(
            partition = self.partition.index(),
            was = self.grown,
            is = written.bytes,
            "group log written anew"
        );
        self.grown = 0;
        self.live = written.bytes;
        if written.bytes == 0 {
            return Ok((end > 0).then_some(Snapshot {
                first_offset: end,
                last_offset: end - 1,
            }));
        }
        Ok(Some(Snapshot {
            first_offset: written.first_offset,
            last_offset: written.last_offset,
        }))
    }

    /// Deletes what is before a snapshot that has become durable. Blocking.
    pub(super) fn drop_before(partition: &Partition, snapshot: Snapshot) {
        if let Err(error) = partition.delete_records(snapshot.first_offset) {
            warn!(partition = partition.index(), %error, "old group records could not be deleted; the next snapshot tries again");
        }
    }

    pub(super) fn partition(&self) -> &Arc<Partition> {
        &self.partition
    }

    fn write(&self, changes: impl Iterator<Item = Change>, unix_ms: i64) -> Result<Written, Error> {
        let end = self.partition.log_end_offset();
        let mut written = Written {
            first_offset: end,
            last_offset: end - 1,
            bytes: 0,
        };
        let mut batch = Batch::default();
        for change in changes {
            batch.push(&change, unix_ms);
            if batch.bytes >= BATCH_BYTES {
                self.write_batch(std::mem::take(&mut batch), unix_ms, &mut written)?;
            }
        }
        self.write_batch(batch, unix_ms, &mut written)?;
        Ok(written)
    }

    fn write_batch(&self, batch: Batch, unix_ms: i64, written: &mut Written) -> Result<(), Error> {
        if batch.records.is_empty() {
            return Ok(());
        }
        let doing = || {
            format!(
                "appending to {}-{}",
                self.partition.topic(),
                self.partition.index()
            )
        };
        let bytes = batch
            .encode()
            .map_err(|error| Error::new(Kind::Corrupt, doing()).caused_by(error))?;
        let size = bytes.len() as u64;
        let appended = self
            .partition
            .append(bytes, unix_ms)
            .map_err(|error| Error::new(Kind::Io, doing()).caused_by(error))?;
        if written.bytes == 0 {
            written.first_offset = appended.base_offset;
        }
        written.last_offset = appended.last_offset;
        written.bytes += size;
        Ok(())
    }
}

/// Records that go into one batch.
#[derive(Debug, Default)]
struct Batch {
    records: Vec<Record>,
    bytes: usize,
}

impl Batch {
    fn push(&mut self, change: &Change, unix_ms: i64) {
        let (key, value) = change.encode();
        self.bytes += key.len() + value.as_ref().map_or(0, Bytes::len);
        let offset = self.records.len();
        self.records.push(Record {
            transactional: false,
            control: false,
            delete_horizon: false,
            partition_leader_epoch: NO_PARTITION_LEADER_EPOCH,
            producer_id: NO_PRODUCER_ID,
            producer_epoch: NO_PRODUCER_EPOCH,
            timestamp_type: TimestampType::Creation,
            offset: offset as i64,
            // The encoder takes records with the same distance of sequence and offset into one batch.
            sequence: NO_SEQUENCE + offset as i32,
            timestamp: unix_ms,
            key: Some(key),
            value,
            headers: Default::default(),
        });
    }

    fn encode(&self) -> Result<Bytes, Box<dyn std::error::Error + Send + Sync>> {
        let options = RecordEncodeOptions {
            version: 2,
            compression: Compression::None,
        };
        let mut buffer = BytesMut::with_capacity(self.bytes + self.records.len() * 16 + 64);
        RecordBatchEncoder::encode(&mut buffer, &self.records, &options)?;
        Ok(buffer.freeze())
    }
}
