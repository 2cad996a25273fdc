//! A record batch as Kafka's format v2 lays it out (KIP-98), read without looking at its records.
//!
//! Batches are kept byte for byte. Only the base offset and the leader epoch are the broker's to write, and
//! both are outside of the checksum.

use bytes::Buf;

use super::control::ProducerEpoch;

/// Bytes of a batch before its records.
pub(super) const HEADER: usize = 61;
/// Bytes before the part that the length field counts.
const BEFORE_LENGTH: usize = 12;
/// The first byte that the checksum covers.
pub(super) const CRC_FROM: usize = 21;
pub(super) const MAGIC: i8 = 2;
const COMPRESSION_MASK: i16 = 0x07;
const LOG_APPEND_TIME: i16 = 0x08;
pub(super) const TRANSACTIONAL: i16 = 0x10;
pub(super) const CONTROL: i16 = 0x20;

/// A batch's header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) base_offset: i64,
    length: i32,
    pub(super) magic: i8,
    pub(super) crc: u32,
    pub(super) attributes: i16,
    pub(super) last_offset_delta: i32,
    pub(super) base_timestamp: i64,
    pub(super) max_timestamp: i64,
    pub(super) producer_id: i64,
    pub(super) producer_epoch: i16,
    pub(super) base_sequence: i32,
    pub(super) records: i32,
}

impl Header {
    /// Takes a header apart; `None` if `bytes` are shorter than one. Its values are not checked.
    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        bytes.first_chunk().map(Self::of)
    }

    /// Takes a header apart. Its values are not checked.
    pub(super) fn of(bytes: &[u8; HEADER]) -> Self {
        let mut from = bytes.as_slice();
        let base_offset = from.get_i64();
        let length = from.get_i32();
        let _leader_epoch = from.get_i32();
        Self {
            base_offset,
            length,
            magic: from.get_i8(),
            crc: from.get_u32(),
            attributes: from.get_i16(),
            last_offset_delta: from.get_i32(),
            base_timestamp: from.get_i64(),
            max_timestamp: from.get_i64(),
            producer_id: from.get_i64(),
            producer_epoch: from.get_i16(),
            base_sequence: from.get_i32(),
            records: from.get_i32(),
        }
    }

    /// As [`Header::parse`], for bytes of a log: `None` also when this cannot be the header of a stored batch.
    pub(super) fn stored(bytes: &[u8]) -> Option<Self> {
        Self::parse(bytes).filter(|header| {
            header.magic == MAGIC
                && header.size().is_some()
                && header.base_offset >= 0
                && header.last_offset_delta >= 0
                && header
                    .base_offset
                    .checked_add(i64::from(header.last_offset_delta) + 1)
                    .is_some()
        })
    }

    /// Bytes of the whole batch; `None` if the length field is less than a header.
    pub(super) fn size(&self) -> Option<usize> {
        let size = usize::try_from(self.length)
            .ok()?
            .checked_add(BEFORE_LENGTH)?;
        (size >= HEADER).then_some(size)
    }

    pub(super) fn is_v2(&self) -> bool {
        self.magic == MAGIC
    }

    pub(super) fn last_offset(&self) -> i64 {
        self.base_offset
            .saturating_add(i64::from(self.last_offset_delta))
    }

    pub(super) fn next_offset(&self) -> i64 {
        self.last_offset().saturating_add(1)
    }

    /// The sequence number of the last record; after `i32::MAX` comes 0.
    pub(super) fn last_sequence(&self) -> i32 {
        match self.base_sequence.checked_add(self.last_offset_delta) {
            Some(last) => last,
            None => self.last_offset_delta - (i32::MAX - self.base_sequence) - 1,
        }
    }

    /// Kafka's number of the compression: 0 is none.
    pub(super) fn compression(&self) -> u8 {
        (self.attributes & COMPRESSION_MASK) as u8
    }

    /// Whether all records have the broker's time of the append (`max_timestamp`).
    pub(super) fn is_log_append_time(&self) -> bool {
        self.attributes & LOG_APPEND_TIME != 0
    }

    pub(super) fn is_transactional(&self) -> bool {
        self.attributes & TRANSACTIONAL != 0
    }

    pub(super) fn is_control(&self) -> bool {
        self.attributes & CONTROL != 0
    }

    /// Who wrote it; without meaning unless it is idempotent.
    pub(super) fn producer(&self) -> ProducerEpoch {
        ProducerEpoch {
            id: self.producer_id,
            epoch: self.producer_epoch,
        }
    }

    pub(super) fn is_idempotent(&self) -> bool {
        self.producer_id >= 0
    }
}

/// The header of `batch` as it is stored: with its offset, leader epoch 0, and the append time if that is the topic's
/// timestamp (then the checksum is computed anew).
pub(super) fn stamp(batch: &[u8], base_offset: i64, append_time: Option<i64>) -> [u8; HEADER] {
    let mut head = [0; HEADER];
    let Some(original) = batch.first_chunk::<HEADER>() else {
        return head;
    };
    head = *original;
    head[..8].copy_from_slice(&base_offset.to_be_bytes());
    head[12..16].copy_from_slice(&0_i32.to_be_bytes());
    if let Some(time) = append_time {
        let attributes = i16::from_be_bytes([head[21], head[22]]) | LOG_APPEND_TIME;
        head[21..23].copy_from_slice(&attributes.to_be_bytes());
        head[35..43].copy_from_slice(&time.to_be_bytes());
        let crc = crc32c::crc32c_append(crc32c::crc32c(&head[CRC_FROM..]), &batch[HEADER..]);
        head[17..21].copy_from_slice(&crc.to_be_bytes());
    }
    head
}
