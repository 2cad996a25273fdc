//! Why a partition refuses to append or to read, and the Kafka error that tells a client.

use kafka_protocol::error::ResponseError;

use crate::Error;

/// Why batches were not appended. Nothing of the call was appended.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AppendError {
    /// The checksum or the lengths of a batch are wrong: damaged on the way, worth sending again.
    #[error("the batch is corrupt: {0}")]
    Corrupt(&'static str),
    /// A batch that no client may write.
    #[error("the batch is invalid: {0}")]
    Invalid(&'static str),
    /// A compression that Kafka's format does not know.
    #[error("unknown compression type {0}")]
    UnsupportedCompression(u8),
    /// A batch is larger than `max.message.bytes`.
    #[error("a batch of {size} bytes exceeds max.message.bytes ({max})")]
    TooLarge {
        /// Its size in bytes.
        size: usize,
        /// The topic's limit.
        max: usize,
    },
    /// The batches together are larger than `segment.bytes`.
    #[error("batches of {size} bytes together exceed segment.bytes ({max})")]
    ListTooLarge {
        /// Their size in bytes.
        size: usize,
        /// The topic's limit.
        max: usize,
    },
    /// A timestamp too far from the broker's clock (`message.timestamp.before/after.max.ms`).
    #[error("timestamp {timestamp} is too far from the broker's clock")]
    InvalidTimestamp {
        /// The timestamp in milliseconds since the Unix epoch.
        timestamp: i64,
        /// The places of such records in their batch; empty if it cannot be read.
        records: Vec<i32>,
    },
    /// Records without key, which a compacted topic cannot keep.
    #[error("a record without key cannot be kept by a compacted topic")]
    Keyless {
        /// Their places in their batch.
        records: Vec<i32>,
    },
    /// The producer skipped or repeated a sequence number (and it is none of its last five batches).
    #[error("producer {producer_id}: sequence {found} does not follow {last}")]
    OutOfOrderSequence {
        /// The producer's id.
        producer_id: i64,
        /// The sequence number of the batch.
        found: i32,
        /// The last sequence number that was appended; -1: none of this epoch.
        last: i32,
    },
    /// The producer was fenced by a newer one with its id.
    #[error("producer {producer_id}: epoch {found} is older than {current}")]
    InvalidProducerEpoch {
        /// The producer's id.
        producer_id: i64,
        /// The epoch of the batch.
        found: i16,
        /// The newest epoch known.
        current: i16,
    },
    /// A transactional batch outside of a transaction that its coordinator knows of for this
    /// partition. Kafka's verification (KIP-890): such a record would hold up readers of committed
    /// records for ever.
    #[error("producer {producer_id} has no transaction here that the batch belongs to")]
    NoTransaction {
        /// The producer's id.
        producer_id: i64,
    },
    /// A batch that is not transactional, of a producer whose transaction is open here.
    #[error("producer {producer_id} has a transaction here, and the batch does not belong to it")]
    InTransaction {
        /// The producer's id.
        producer_id: i64,
    },
    /// The disk refused, or the partition takes no more records; earlier records are not touched.
    #[error(transparent)]
    Storage(#[from] Error),
}

impl AppendError {
    /// The error a Kafka client is answered with.
    pub(crate) fn code(&self) -> ResponseError {
        match self {
            Self::Corrupt(_) => ResponseError::CorruptMessage,
            Self::Invalid(_) | Self::Keyless { .. } => ResponseError::InvalidRecord,
            Self::UnsupportedCompression(_) => ResponseError::UnsupportedCompressionType,
            Self::TooLarge { .. } => ResponseError::MessageTooLarge,
            Self::ListTooLarge { .. } => ResponseError::RecordListTooLarge,
            Self::InvalidTimestamp { .. } => ResponseError::InvalidTimestamp,
            Self::OutOfOrderSequence { .. } => ResponseError::OutOfOrderSequenceNumber,
            Self::InvalidProducerEpoch { .. } => ResponseError::InvalidProducerEpoch,
            Self::NoTransaction { .. } | Self::InTransaction { .. } => {
                ResponseError::InvalidTxnState
            }
            Self::Storage(error) => error.code(),
        }
    }

    /// The records that are to blame, by their places in the batch (KIP-467).
    pub(crate) fn records(&self) -> &[i32] {
        match self {
            Self::InvalidTimestamp { records, .. } | Self::Keyless { records } => records,
            _ => &[],
        }
    }
}

/// Why records were not read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReadError {
    /// Before the first or behind the last record that may be read.
    #[error("offset {offset} is outside of {start} to {end}")]
    OutOfRange {
        /// The offset asked for.
        offset: i64,
        /// The log start offset.
        start: i64,
        /// The log's end.
        end: i64,
    },
    /// The partition was deleted.
    #[error("the partition was deleted")]
    Deleted,
    /// The disk refused, or what it gave is damaged.
    #[error(transparent)]
    Storage(#[from] Error),
}

impl ReadError {
    /// The error a Kafka client is answered with.
    pub(crate) fn code(&self) -> ResponseError {
        match self {
            Self::OutOfRange { .. } => ResponseError::OffsetOutOfRange,
            Self::Deleted => ResponseError::UnknownTopicOrPartition,
            Self::Storage(error) => error.code(),
        }
    }
}
