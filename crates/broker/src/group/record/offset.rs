//! `OffsetCommitValue`: how far a group got in a partition.

use bytes::{Bytes, BytesMut};
use kafka_protocol::protocol::StrBytes;

use crate::coordinator::{Malformed, Reader, Writer};

/// A group's position in a partition, as it was committed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CommittedOffset {
    /// The next offset to read.
    pub(crate) offset: i64,
    /// The leader epoch of the last record read; -1: not told.
    pub(crate) leader_epoch: i32,
    /// What the client stored beside it; empty when it stored nothing.
    pub(crate) metadata: StrBytes,
    /// When it was committed, in milliseconds since the Unix epoch.
    pub(crate) commit_ms: i64,
    /// When it expires by its own retention, which clients up to OffsetCommit version 4 could ask for.
    pub(crate) expire_ms: Option<i64>,
}

/// The version that has an expiry of its own, and no leader epoch.
const WITH_EXPIRY: i16 = 1;
/// The version that is written here, and by Kafka up to 4.0: with a leader epoch.
const WITH_EPOCH: i16 = 3;
/// A flexible version, with the topic's id as a tagged field: Apache Kafka 4.4 writes it.
const FLEXIBLE: i16 = 4;

impl CommittedOffset {
    pub(super) fn encode(&self) -> Bytes {
        let mut value = BytesMut::with_capacity(24 + self.metadata.len());
        value.int16(if self.expire_ms.is_some() {
            WITH_EXPIRY
        } else {
            WITH_EPOCH
        });
        value.int64(self.offset);
        if self.expire_ms.is_none() {
            value.int32(self.leader_epoch);
        }
        value.string(&self.metadata);
        value.int64(self.commit_ms);
        if let Some(expire_ms) = self.expire_ms {
            value.int64(expire_ms);
        }
        value.freeze()
    }

    pub(super) fn decode(value: &Bytes) -> Result<Self, Malformed> {
        let mut value = Reader::new(value);
        let version = value.int16()?;
        if !(0..=FLEXIBLE).contains(&version) {
            return Err(Malformed("unknown version of OffsetCommitValue"));
        }
        Ok(Self {
            offset: value.int64()?,
            leader_epoch: if version >= WITH_EPOCH {
                value.int32()?
            } else {
                -1
            },
            metadata: if version >= FLEXIBLE {
                value.compact_string()?
            } else {
                value.string()?
            },
            commit_ms: value.int64()?,
            expire_ms: if version == WITH_EXPIRY {
                Some(value.int64()?).filter(|ms| *ms >= 0)
            } else {
                None
            },
        })
    }
}
