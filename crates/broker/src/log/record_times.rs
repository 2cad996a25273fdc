//! The timestamps of a batch's records, for looking up offsets by time.
//!
//! The only place where the broker looks into a batch. The bytes came from a client: whatever they hold, the
//! answer is a timestamp or "cannot say", never a panic, and memory is not taken by what a length field claims.

use bytes::{Buf, Bytes};
use kafka_protocol::compression::{Decompressor, Gzip, Lz4, Snappy, Zstd};

use super::batch::{HEADER, Header};

/// The first record of `batch` at or after `from` with a timestamp of at least `ms`: offset and timestamp.
///
/// `Err` when the records cannot be read: nobody can say then where in the batch the time is.
pub(super) fn first_since(
    header: &Header,
    batch: &Bytes,
    ms: i64,
    from: i64,
) -> Result<Option<(i64, i64)>, Unreadable> {
    if header.is_log_append_time() {
        let first = header.base_offset.max(from);
        return Ok(
            (header.max_timestamp >= ms && first <= header.last_offset())
                .then_some((first, header.max_timestamp)),
        );
    }
    let mut records = decompress(header.compression(), batch.slice(HEADER.min(batch.len())..))?;
    for _ in 0..header.records {
        let (timestamp_delta, offset_delta) = next(&mut records).ok_or(Unreadable)?;
        let timestamp = header.base_timestamp.saturating_add(timestamp_delta);
        let offset = header.base_offset.saturating_add(offset_delta);
        if timestamp >= ms && offset >= from {
            return Ok(Some((offset, timestamp)));
        }
    }
    Ok(None)
}

/// The records of a batch are not what its header says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Unreadable;

fn decompress(compression: u8, mut records: Bytes) -> Result<Bytes, Unreadable> {
    let done = match compression {
        0 => return Ok(records),
        1 => Gzip::decompress(&mut records, |plain| {
            Ok(plain.copy_to_bytes(plain.remaining()))
        }),
        2 => Snappy::decompress(&mut records, |plain| {
            Ok(plain.copy_to_bytes(plain.remaining()))
        }),
        3 => Lz4::decompress(&mut records, |plain| {
            Ok(plain.copy_to_bytes(plain.remaining()))
        }),
        4 => Zstd::decompress(&mut records, |plain| {
            Ok(plain.copy_to_bytes(plain.remaining()))
        }),
        _ => return Err(Unreadable),
    };
    done.map_err(|_| Unreadable)
}

/// Steps over one record: its timestamp delta and offset delta.
fn next(records: &mut Bytes) -> Option<(i64, i64)> {
    let length = usize::try_from(varint(records)?).ok()?;
    if length > records.len() {
        return None;
    }
    let mut record = records.split_to(length);
    let _attributes = record.try_get_i8().ok()?;
    Some((varint(&mut record)?, varint(&mut record)?))
}

/// A zigzag varint of at most ten bytes.
fn varint(from: &mut Bytes) -> Option<i64> {
    let mut value: u64 = 0;
    for shift in (0..64).step_by(7) {
        let byte = from.try_get_u8().ok()?;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some((value >> 1) as i64 ^ -((value & 1) as i64));
        }
    }
    None
}
