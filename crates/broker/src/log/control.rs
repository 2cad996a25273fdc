//! Control batches: where in a partition a transaction ends, and how (KIP-98).
//!
//! They stand between the records and take an offset of their own. Readers of committed records go
//! by them; nobody is handed one.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::batch::{CONTROL, CRC_FROM, HEADER, MAGIC, TRANSACTIONAL};

/// A producer of transactions, in one of its lives: a newer epoch fences the older.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct ProducerEpoch {
    pub(crate) id: i64,
    pub(crate) epoch: i16,
}

/// How a transaction ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Verdict {
    Commit,
    Abort,
}

/// `ControlRecordType`.
const ABORT: i16 = 0;
const COMMIT: i16 = 1;
/// The only version of `ControlRecordKey` and `EndTxnMarker`.
const VERSION: i16 = 0;
/// With one node the coordinator never moves.
const COORDINATOR_EPOCH: i32 = 0;
/// One record with a key of 4 and a value of 6 bytes.
const RECORD: usize = 17;

impl Verdict {
    /// Reads a control record's key; `None` when it is not the end of a transaction.
    pub(crate) fn read(key: &[u8]) -> Option<Self> {
        let mut key = key;
        let version = key.try_get_i16().ok()?;
        match key.try_get_i16().ok()? {
            _ if version < 0 => None,
            ABORT => Some(Self::Abort),
            COMMIT => Some(Self::Commit),
            _ => None,
        }
    }

    /// Reads a whole control batch.
    pub(super) fn of_batch(batch: &[u8]) -> Option<Self> {
        let mut record = batch.get(HEADER..)?;
        // Length, attributes, deltas of timestamp and offset, length of the key.
        for _ in 0..5 {
            skip_varint(&mut record)?;
        }
        Self::read(record)
    }
}

/// The control batch that ends a producer's transaction.
pub(crate) fn marker(producer: ProducerEpoch, verdict: Verdict, now_ms: i64) -> Bytes {
    let mut batch = BytesMut::with_capacity(HEADER + RECORD);
    batch.put_i64(0);
    batch.put_i32((HEADER + RECORD - 12) as i32);
    batch.put_i32(0);
    batch.put_i8(MAGIC);
    batch.put_u32(0);
    batch.put_i16(TRANSACTIONAL | CONTROL);
    batch.put_i32(0);
    batch.put_i64(now_ms);
    batch.put_i64(now_ms);
    batch.put_i64(producer.id);
    batch.put_i16(producer.epoch);
    batch.put_i32(-1);
    batch.put_i32(1);
    put_record(&mut batch, verdict);
    let crc = crc32c::crc32c(&batch[CRC_FROM..]);
    batch[17..CRC_FROM].copy_from_slice(&crc.to_be_bytes());
    batch.freeze()
}

/// Lengths and deltas are zigzag varints; all of them fit into a byte.
fn put_record(batch: &mut BytesMut, verdict: Verdict) {
    let zigzag = |length: usize| (length * 2) as u8;
    batch.put_u8(zigzag(RECORD - 1));
    batch.put_slice(&[0, 0, 0]);
    batch.put_u8(zigzag(4));
    batch.put_i16(VERSION);
    batch.put_i16(match verdict {
        Verdict::Commit => COMMIT,
        Verdict::Abort => ABORT,
    });
    batch.put_u8(zigzag(6));
    batch.put_i16(VERSION);
    batch.put_i32(COORDINATOR_EPOCH);
    batch.put_u8(0);
}

fn skip_varint(from: &mut &[u8]) -> Option<()> {
    for _ in 0..10 {
        if from.try_get_u8().ok()? & 0x80 == 0 {
            return Some(());
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use kafka_protocol::records::RecordBatchDecoder;

    use super::*;

    const PRODUCER: ProducerEpoch = ProducerEpoch { id: 7, epoch: 3 };

    #[test]
    fn a_marker_is_a_control_batch_as_kafka_writes_it() {
        let mut bytes = marker(PRODUCER, Verdict::Commit, 1_700);
        let records = RecordBatchDecoder::decode(&mut bytes).unwrap().records;
        let [record] = records.as_slice() else {
            panic!("one record");
        };
        assert!(record.control && record.transactional);
        assert_eq!((record.producer_id, record.producer_epoch), (7, 3));
        assert_eq!(record.timestamp, 1_700);
        assert_eq!(record.key.as_deref(), Some(&[0, 0, 0, 1][..]));
        assert_eq!(record.value.as_deref(), Some(&[0; 6][..]));
    }

    #[test]
    fn the_verdict_is_read_back() {
        for verdict in [Verdict::Commit, Verdict::Abort] {
            assert_eq!(
                Verdict::of_batch(&marker(PRODUCER, verdict, 0)),
                Some(verdict)
            );
        }
        assert_eq!(Verdict::read(&[0, 0, 0, 2]), None, "a leader change");
        assert_eq!(Verdict::read(&[0, 0, 0]), None);
    }

    #[test]
    fn cut_markers_have_no_verdict() {
        let whole = marker(PRODUCER, Verdict::Abort, 0);
        for end in 0..HEADER + 9 {
            assert_eq!(Verdict::of_batch(&whole[..end]), None);
        }
    }
}
