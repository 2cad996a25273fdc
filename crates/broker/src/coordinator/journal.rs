//! One partition of a coordinator's topic: where a shard's changes are kept, and read back from.
//!
//! Every change is a record, so the log would grow without end while the live state stays small.
//! When it has grown enough, the live state is written anew behind it, and once that is durable
//! everything before is deleted. A crash in between leaves both, and replaying both gives the same
//! state, so there is no moment at which the state exists only in memory.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use kafka_protocol::records::{
    Compression, NO_PARTITION_LEADER_EPOCH, NO_PRODUCER_EPOCH, NO_PRODUCER_ID, NO_SEQUENCE, Record,
    RecordBatchEncoder, RecordEncodeOptions, TimestampType,
};
use tracing::{info, warn};

use super::{Framing, Machine, Malformed, Now, ProducerEpoch, Record as Change};
use crate::Error;
use crate::error::Kind;
use crate::log::{Appended, OwnRecord, Partition, Verdict, each_record, marker};

/// Bytes of keys and values that are put into one batch. Larger ones gain nothing, and a replay
/// holds one batch in memory.
const BATCH_BYTES: usize = 256 * 1024;
/// About what a marker takes in the log.
const MARKER_BYTES: u64 = 78;
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
    /// Records that were read back.
    replayed: u64,
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
    pub(super) fn replay<M: Machine>(
        partition: Arc<Partition>,
        machine: &mut M,
        now: Now,
    ) -> Result<Self, Error> {
        let mut journal = Self {
            partition,
            grown: 0,
            live: 0,
            replayed: 0,
        };
        let mut records = 0;
        let mut next = journal.partition.log_start_offset();
        while next < journal.partition.high_watermark() {
            let read = journal
                .partition
                .read(next, READ_BYTES, true)
                .map_err(|error| journal.unreadable(next, error))?;
            let Some(end) = read.end else { break };
            journal.grown += read.records.len() as u64;
            let taken = each_record(&read.records, |record| {
                if record.offset >= next {
                    journal.take_up(machine, &record);
                    records += 1;
                }
            });
            taken.map_err(|error| journal.unreadable(next, error))?;
            next = end.max(next);
        }
        machine.replay_done(now);
        journal.replayed = records;
        Ok(journal)
    }

    /// Tells what was read back.
    pub(super) fn tell_replayed(&self) {
        info!(
            topic = self.partition.topic(),
            partition = self.partition.index(),
            records = self.replayed,
            bytes = self.grown,
            "a coordinator's log read back"
        );
    }

    /// A record that is not of a format known here is passed over: it was not written by this
    /// coordinator, and refusing to start would take all other groups down with it.
    fn take_up<M: Machine>(&self, machine: &mut M, record: &OwnRecord) {
        match read(record) {
            Ok(Some(change)) => machine.replay(change),
            Ok(None) => warn!(
                topic = self.partition.topic(),
                partition = self.partition.index(),
                offset = record.offset,
                "record of an unknown kind"
            ),
            Err(error) => {
                warn!(topic = self.partition.topic(), partition = self.partition.index(), offset = record.offset, %error, "unreadable record")
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
    pub(super) fn append<C: Change>(&mut self, changes: &[C], unix_ms: i64) -> Result<i64, Error> {
        let written = self.write(changes.iter().cloned(), unix_ms)?;
        self.grown += written.bytes;
        Ok(written.last_offset)
    }

    /// Whether the log has grown by so much that the live state should be written anew.
    pub(super) fn is_long(&self, snapshot_bytes: u64) -> bool {
        self.grown > snapshot_bytes.max(2 * self.live)
    }

    /// Writes the live state behind the log; `None` when there is nothing alive and nothing to drop.
    pub(super) fn snapshot<M: Machine>(
        &mut self,
        machine: &M,
        unix_ms: i64,
    ) -> Result<Option<Snapshot>, Error> {
        let end = self.partition.log_end_offset();
        let written = self.write(machine.live(), unix_ms)?;
        info!(
            topic = self.partition.topic(),
            partition = self.partition.index(),
            was = self.grown,
            is = written.bytes,
            "a coordinator's log written anew"
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
            warn!(topic = partition.topic(), partition = partition.index(), %error, "what a snapshot replaced could not be deleted; the next one tries again");
        }
    }

    pub(super) fn partition(&self) -> &Arc<Partition> {
        &self.partition
    }

    fn write<C: Change>(
        &self,
        changes: impl Iterator<Item = C>,
        unix_ms: i64,
    ) -> Result<Written, Error> {
        let end = self.partition.log_end_offset();
        let mut written = Written {
            first_offset: end,
            last_offset: end - 1,
            bytes: 0,
        };
        let mut batch = Batch::default();
        for change in changes {
            let framing = change.framing();
            if batch.bytes >= BATCH_BYTES || batch.framing != framing {
                self.write_batch(&mut batch, unix_ms, &mut written)?;
                batch.framing = framing;
            }
            match framing {
                Framing::Marker(producer, verdict) => {
                    self.write_marker(producer, verdict, unix_ms, &mut written)?;
                }
                Framing::Plain | Framing::Transactional(_) => batch.push(&change, unix_ms),
            }
        }
        self.write_batch(&mut batch, unix_ms, &mut written)?;
        Ok(written)
    }

    fn write_batch(
        &self,
        batch: &mut Batch,
        unix_ms: i64,
        written: &mut Written,
    ) -> Result<(), Error> {
        let batch = std::mem::take(batch);
        if batch.records.is_empty() {
            return Ok(());
        }
        let bytes = batch
            .encode()
            .map_err(|error| Error::new(Kind::Corrupt, self.appending()).caused_by(error))?;
        let size = bytes.len() as u64;
        let appended = self
            .partition
            .append_own(bytes, unix_ms)
            .map_err(|error| Error::new(Kind::Io, self.appending()).caused_by(error))?;
        written.add(appended, size);
        Ok(())
    }

    fn write_marker(
        &self,
        producer: ProducerEpoch,
        verdict: Verdict,
        unix_ms: i64,
        written: &mut Written,
    ) -> Result<(), Error> {
        let appended = self
            .partition
            .append_own(marker(producer, verdict, unix_ms), unix_ms)
            .map_err(|error| Error::new(Kind::Io, self.appending()).caused_by(error))?;
        written.add(appended, MARKER_BYTES);
        Ok(())
    }

    fn appending(&self) -> String {
        format!(
            "appending to {}-{}",
            self.partition.topic(),
            self.partition.index()
        )
    }
}

impl Written {
    fn add(&mut self, appended: Appended, bytes: u64) {
        if self.bytes == 0 {
            self.first_offset = appended.base_offset;
        }
        self.last_offset = appended.last_offset;
        self.bytes += bytes;
    }
}

/// What a record of the log says; `None` when that is of an unknown kind.
pub(super) fn read<C: Change>(record: &OwnRecord) -> Result<Option<C>, Malformed> {
    if record.is_control {
        let ended = record.producer.zip(Verdict::read(&record.key));
        return Ok(ended.and_then(|(producer, verdict)| C::marker(producer, verdict)));
    }
    C::decode(&record.key, record.value.as_ref(), record.producer)
}

/// Records that go into one batch.
#[derive(Debug)]
struct Batch {
    framing: Framing,
    records: Vec<Record>,
    bytes: usize,
}

impl Default for Batch {
    fn default() -> Self {
        Self {
            framing: Framing::Plain,
            records: Vec::new(),
            bytes: 0,
        }
    }
}

impl Batch {
    fn push<C: Change>(&mut self, change: &C, unix_ms: i64) {
        let (key, value) = change.encode();
        self.bytes += key.len() + value.as_ref().map_or(0, Bytes::len);
        let producer = match self.framing {
            Framing::Transactional(producer) => Some(producer),
            Framing::Plain | Framing::Marker(..) => None,
        };
        let offset = self.records.len();
        self.records.push(Record {
            transactional: producer.is_some(),
            control: false,
            delete_horizon: false,
            partition_leader_epoch: NO_PARTITION_LEADER_EPOCH,
            producer_id: producer.map_or(NO_PRODUCER_ID, |producer| producer.id),
            producer_epoch: producer.map_or(NO_PRODUCER_EPOCH, |producer| producer.epoch),
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
