//! The timestamps of a batch's records, for looking up offsets by time.
//!
//! The only place where the broker looks into a batch. The bytes came from a client: whatever they hold, the
//! answer is a timestamp or "cannot say", never a panic; memory is not taken by what a length field claims, and neither
//! memory nor time without end by what a batch unpacks to.

use std::io::{self, BufRead, BufReader, Read};

use bytes::Bytes;

use super::batch::{HEADER, Header};
use super::unpack;

/// What a batch may unpack to before its records are called unreadable: a second's work at most, and more than an honest
/// producer puts into one request.
const UNPACKED_MAX: u64 = 256 * 1024 * 1024;

/// The first record of `batch` at or after `from` with a timestamp of at least `ms`: offset and timestamp.
///
/// `Err` when the records cannot be read, or would unpack to more than 256 MiB: nobody can say then where in the batch
/// the time is.
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
    let packed = batch.slice(HEADER.min(batch.len())..);
    let unpacked = unpack::records(header.compression(), packed).map_err(|_| Unreadable)?;
    let mut records = BufReader::new(unpacked.take(UNPACKED_MAX));
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

/// Steps over one record: its timestamp delta and offset delta.
fn next(records: &mut impl BufRead) -> Option<(i64, i64)> {
    let length = u64::try_from(varint(records)?).ok()?;
    let mut record = records.take(length);
    let _attributes = byte(&mut record)?;
    let times = (varint(&mut record)?, varint(&mut record)?);
    let rest = record.limit();
    (io::copy(&mut record, &mut io::sink()).ok()? == rest).then_some(times)
}

/// A zigzag varint of at most ten bytes.
fn varint(from: &mut impl BufRead) -> Option<i64> {
    let mut value: u64 = 0;
    for shift in (0..64).step_by(7) {
        let byte = byte(from)?;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some((value >> 1) as i64 ^ -((value & 1) as i64));
        }
    }
    None
}

fn byte(from: &mut impl BufRead) -> Option<u8> {
    let byte = *from.fill_buf().ok()?.first()?;
    from.consume(1);
    Some(byte)
}
