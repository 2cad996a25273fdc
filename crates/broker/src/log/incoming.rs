//! What a produce request may append: the checks of Kafka's `LogValidator` that need no decoding of records.
//!
//! The checksum covers the records, and compressed batches are passed through, so a batch costs one pass over its
//! bytes, however many records it has. Only a topic that compacts looks at its records, and one with a codec of its own
//! packs them anew.

use bytes::Bytes;

use super::batch::{CRC_FROM, HEADER, Header};
use super::cleaner::{repack, wrong_records};
use super::error::AppendError;
use crate::store::{TimestampType, TopicConfig};

/// Kafka's compression types end here (zstd).
const COMPRESSION_LAST: u8 = 4;
/// The smallest record: length, attributes, timestamp, offset, key, value and headers at one byte each.
const RECORD_MIN: usize = 7;
/// How many records of a batch an answer blames: enough to see what is wrong.
const TOLD_RECORDS_MAX: usize = 1_000;

/// A batch that may be appended.
#[derive(Debug, Clone)]
pub(super) struct Incoming {
    pub(super) header: Header,
    pub(super) bytes: Bytes,
}

/// Takes the records field of a produce request apart and checks every batch.
pub(super) fn check(
    mut records: Bytes,
    config: &TopicConfig,
    now_ms: i64,
) -> Result<Vec<Incoming>, AppendError> {
    let total = records.len();
    if total > config.segment_bytes {
        return Err(AppendError::ListTooLarge {
            size: total,
            max: config.segment_bytes,
        });
    }
    let mut batches = Vec::with_capacity(1);
    while !records.is_empty() {
        let (header, size) = frame(&records)?;
        if size > config.max_message_bytes {
            return Err(AppendError::TooLarge {
                size,
                max: config.max_message_bytes,
            });
        }
        let bytes = records.split_to(size);
        check_batch(&header, &bytes)?;
        check_timestamps(&header, &bytes, config, now_ms)?;
        check_keys(&header, &bytes, config)?;
        batches.push(packed(header, bytes, config)?);
    }
    match batches.as_slice() {
        [] => Err(AppendError::Invalid("no batch")),
        [_, _, ..] if batches.iter().any(|batch| batch.header.is_idempotent()) => {
            Err(AppendError::Invalid(
                "an idempotent producer sends one batch per partition and request",
            ))
        }
        _ => Ok(batches),
    }
}

/// Takes batches apart that this broker made itself.
pub(super) fn own(mut records: Bytes) -> Result<Vec<Incoming>, AppendError> {
    let mut batches = Vec::with_capacity(1);
    while !records.is_empty() {
        let (header, size) = frame(&records)?;
        let bytes = records.split_to(size);
        batches.push(Incoming { header, bytes });
    }
    Ok(batches)
}

fn frame(records: &[u8]) -> Result<(Header, usize), AppendError> {
    let header = Header::parse(records).ok_or(AppendError::Corrupt("cut short"))?;
    if !header.is_v2() {
        return Err(AppendError::Invalid("message format is not v2"));
    }
    match header.size() {
        Some(size) if size <= records.len() => Ok((header, size)),
        _ => Err(AppendError::Corrupt("its length is wrong")),
    }
}

fn check_batch(header: &Header, bytes: &[u8]) -> Result<(), AppendError> {
    if crc32c::crc32c(&bytes[CRC_FROM..]) != header.crc {
        return Err(AppendError::Corrupt("its checksum is wrong"));
    }
    let records = usize::try_from(header.records).unwrap_or(0);
    if records == 0 || header.last_offset_delta.checked_add(1) != Some(header.records) {
        return Err(AppendError::Invalid(
            "its record count and last offset do not agree",
        ));
    }
    match header.compression() {
        0 if (bytes.len() - HEADER) / RECORD_MIN < records => {
            return Err(AppendError::Corrupt(
                "it has fewer bytes than its records need",
            ));
        }
        0..=COMPRESSION_LAST => {}
        unknown => return Err(AppendError::UnsupportedCompression(unknown)),
    }
    if header.is_control() {
        return Err(AppendError::Invalid(
            "clients may not write control batches",
        ));
    }
    check_producer(header)
}

fn check_producer(header: &Header) -> Result<(), AppendError> {
    let identified = header.is_idempotent();
    let complete = header.producer_epoch >= 0 && header.base_sequence >= 0;
    match (identified, complete) {
        (false, _) if header.is_transactional() => Err(AppendError::Invalid(
            "a transactional batch needs a producer id",
        )),
        (true, false) => Err(AppendError::Invalid(
            "a producer id needs an epoch and a sequence",
        )),
        _ => Ok(()),
    }
}

fn check_timestamps(
    header: &Header,
    bytes: &[u8],
    config: &TopicConfig,
    now_ms: i64,
) -> Result<(), AppendError> {
    if config.timestamp_type == TimestampType::LogAppendTime {
        return Ok(());
    }
    let is_too_late = |time: i64| time.saturating_sub(now_ms) > config.timestamp_after_max_ms;
    let is_too_early =
        |time: i64| time >= 0 && now_ms.saturating_sub(time) > config.timestamp_before_max_ms;
    let timestamp = match header {
        late if is_too_late(late.max_timestamp) => header.max_timestamp,
        early if is_too_early(early.base_timestamp) => header.base_timestamp,
        _ => return Ok(()),
    };
    let records = wrong_records(header, bytes, TOLD_RECORDS_MAX, |record| {
        is_too_late(record.timestamp) || is_too_early(record.timestamp)
    });
    Err(AppendError::InvalidTimestamp { timestamp, records })
}

/// Apache Kafka's rule; compaction would remove such a record at once.
fn check_keys(header: &Header, bytes: &[u8], config: &TopicConfig) -> Result<(), AppendError> {
    if !config.compacts {
        return Ok(());
    }
    let records = wrong_records(header, bytes, TOLD_RECORDS_MAX, |record| {
        record.key.is_none()
    });
    match records.is_empty() {
        true => Ok(()),
        false => Err(AppendError::Keyless { records }),
    }
}

/// The batch as the topic wants it packed (`compression.type`).
fn packed(header: Header, bytes: Bytes, config: &TopicConfig) -> Result<Incoming, AppendError> {
    let wanted = config.compression.unwrap_or(header.compression());
    if wanted == header.compression() {
        return Ok(Incoming { header, bytes });
    }
    let anew = repack(&header, &bytes, wanted).ok_or(AppendError::Invalid(
        "its records cannot be read, so they cannot be packed as the topic wants them",
    ))?;
    let (header, size) = frame(&anew)?;
    match size > config.max_message_bytes {
        true => Err(AppendError::TooLarge {
            size,
            max: config.max_message_bytes,
        }),
        false => Ok(Incoming {
            header,
            bytes: anew.into(),
        }),
    }
}
