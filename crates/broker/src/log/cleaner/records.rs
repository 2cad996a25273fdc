//! The records of a batch for the cleaner: which key each has, and the batch that holds only some of them.
//!
//! A batch that cannot be read, or unpacks to more than an honest producer sends, is kept as it is: the cleaner gives
//! up only what it understands.

use std::io::{self, Read, Write};

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;

use super::super::batch::{CRC_FROM, HEADER, Header};
use super::super::scan::Scan;
use super::super::segment::Segment;
use super::super::unpack;
use super::pace::Halt;
use crate::Error;

/// What a batch may unpack to before it is left as it is: it is held in memory.
const UNPACKED_MAX: u64 = 64 * 1024 * 1024;
/// The attribute that says: the base timestamp is the time at which tombstones may go (Kafka's delete horizon).
const DELETE_HORIZON: i16 = 0x40;
/// The attributes that say the codec.
const CODEC: i16 = 0x07;
/// Bytes of a batch before the part that its length field counts.
const BEFORE_LENGTH: usize = 12;

/// The header of the batch at `position` and the batch's size.
pub(super) fn header(
    segment: &Segment,
    scan: &mut Scan<'_>,
    position: u64,
) -> Result<(Header, u64), Error> {
    scan.header(position)
        .map_err(|error| segment.error("reading", error))?
        .ok_or_else(|| segment.damaged(position))
}

/// The batch at `position`, whose checksum is right.
pub(super) fn intact<'a>(
    segment: &Segment,
    scan: &'a mut Scan<'_>,
    position: u64,
) -> Result<(Header, &'a [u8]), Halt> {
    let batch = scan
        .batch(position)
        .map_err(|error| segment.error("reading", error))?;
    Ok(batch.ok_or_else(|| segment.damaged(position))?)
}

/// Which records of a batch from a producer are wrong, by their place in it, at most `max`; none if it cannot be read.
pub(in crate::log) fn wrong_records(
    header: &Header,
    batch: &[u8],
    max: usize,
    is_wrong: impl Fn(&Record<'_>) -> bool,
) -> Vec<i32> {
    let mut unpacked = Unpacked::default();
    let Ok(records) = unpacked.open(header, batch) else {
        return Vec::new();
    };
    let wrong = records.zip(0..).filter(|(record, _)| is_wrong(record));
    wrong.map(|(_, place)| place).take(max).collect()
}

/// The batch with its records packed by another codec; `None` if it cannot be read.
pub(in crate::log) fn repack(header: &Header, batch: &[u8], compression: u8) -> Option<Vec<u8>> {
    let mut unpacked = Unpacked::default();
    unpacked.open(header, batch).ok()?;
    let patch = Patch {
        attributes: header.attributes & !CODEC | i16::from(compression),
        base_timestamp: header.base_timestamp,
        max_timestamp: header.max_timestamp,
        records: header.records,
    };
    patch
        .apply(batch, &pack(compression, &unpacked.0).ok()?)
        .ok()
}

/// The time from which tombstones of the batch may go, if a pass has set one.
pub(super) fn delete_horizon(header: &Header) -> Option<i64> {
    (header.attributes & DELETE_HORIZON != 0).then_some(header.base_timestamp)
}

/// The records of a batch are not what its header says, or too much.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the records of a batch are not what its header says")]
pub(crate) struct Unreadable;

/// A batch's records unpacked; the memory is used again for the next.
#[derive(Debug, Default)]
pub(in crate::log) struct Unpacked(Vec<u8>);

impl Unpacked {
    /// The records of `batch`, all of which can be read.
    pub(in crate::log) fn open(
        &mut self,
        header: &Header,
        batch: &[u8],
    ) -> Result<Records<'_>, Unreadable> {
        let packed = batch.get(HEADER..).ok_or(Unreadable)?;
        self.0.clear();
        match header.compression() {
            0 => self.0.extend_from_slice(packed),
            compression => {
                let unpacked = unpack::records(compression, Bytes::copy_from_slice(packed))
                    .map_err(|_| Unreadable)?;
                let size = unpacked
                    .take(UNPACKED_MAX + 1)
                    .read_to_end(&mut self.0)
                    .map_err(|_| Unreadable)?;
                if size as u64 > UNPACKED_MAX {
                    return Err(Unreadable);
                }
            }
        }
        let records = Records {
            header: *header,
            left: header.records,
            bytes: &self.0,
        };
        let mut all = records.clone();
        let readable = all.by_ref().count() == usize::try_from(header.records).unwrap_or(0);
        match readable && all.bytes.is_empty() {
            true => Ok(records),
            false => Err(Unreadable),
        }
    }
}

/// Goes over the records of a batch; ends early at one that is not as the format says.
#[derive(Debug, Clone)]
pub(in crate::log) struct Records<'a> {
    header: Header,
    left: i32,
    bytes: &'a [u8],
}

/// One record as it stands in its batch.
#[derive(Debug, Clone, Copy)]
pub(in crate::log) struct Record<'a> {
    pub(in crate::log) offset: i64,
    pub(in crate::log) timestamp: i64,
    pub(in crate::log) key: Option<&'a [u8]>,
    pub(in crate::log) value: Option<&'a [u8]>,
    attributes: u8,
    /// All of it.
    raw: &'a [u8],
    /// What follows the timestamp.
    rest: &'a [u8],
}

impl<'a> Iterator for Records<'a> {
    type Item = Record<'a>;

    fn next(&mut self) -> Option<Record<'a>> {
        if self.left <= 0 {
            return None;
        }
        let mut bytes = self.bytes;
        let length = usize::try_from(varint(&mut bytes)?).ok()?;
        let (body, behind) = bytes.split_at_checked(length)?;
        let raw = &self.bytes[..self.bytes.len() - behind.len()];
        let record = parse(&self.header, raw, body)?;
        (self.bytes, self.left) = (behind, self.left - 1);
        Some(record)
    }
}

fn parse<'a>(header: &Header, raw: &'a [u8], mut body: &'a [u8]) -> Option<Record<'a>> {
    let (&attributes, behind) = body.split_first()?;
    body = behind;
    let timestamp = header.base_timestamp.saturating_add(varint(&mut body)?);
    let rest = body;
    let offset_delta = varint(&mut body)?;
    if !(0..=i64::from(header.last_offset_delta)).contains(&offset_delta) {
        return None;
    }
    let key = field(&mut body)?;
    let value = field(&mut body)?;
    Some(Record {
        offset: header.base_offset + offset_delta,
        timestamp,
        key,
        value,
        attributes,
        raw,
        rest,
    })
}

/// Bytes behind their length; -1 is null.
fn field<'a>(body: &mut &'a [u8]) -> Option<Option<&'a [u8]>> {
    match varint(body)? {
        -1 => Some(None),
        length => {
            let (value, behind) = body.split_at_checked(usize::try_from(length).ok()?)?;
            *body = behind;
            Some(Some(value))
        }
    }
}

/// A zigzag varint of at most ten bytes.
fn varint(bytes: &mut &[u8]) -> Option<i64> {
    let mut value: u64 = 0;
    for shift in (0..64).step_by(7) {
        let (&byte, behind) = bytes.split_first()?;
        *bytes = behind;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some((value >> 1) as i64 ^ -((value & 1) as i64));
        }
    }
    None
}

fn put_varint(into: &mut Vec<u8>, value: i64) {
    let mut left = (value << 1 ^ value >> 63) as u64;
    while left >= 0x80 {
        into.push(left as u8 | 0x80);
        left >>= 7;
    }
    into.push(left as u8);
}

/// `batch` with only the `kept` records, in the place and under the producer's numbers of the old one. With `horizon`,
/// it says when its tombstones may go.
pub(super) fn rebuild(
    header: &Header,
    batch: &[u8],
    kept: &[Record<'_>],
    horizon: Option<i64>,
) -> io::Result<Vec<u8>> {
    let base_timestamp = horizon.unwrap_or(header.base_timestamp);
    let mut records = Vec::with_capacity(kept.iter().map(|record| record.raw.len() + 8).sum());
    let mut start = Vec::with_capacity(11);
    for record in kept {
        if base_timestamp == header.base_timestamp {
            records.extend_from_slice(record.raw);
            continue;
        }
        start.clear();
        start.push(record.attributes);
        put_varint(&mut start, record.timestamp.saturating_sub(base_timestamp));
        put_varint(&mut records, (start.len() + record.rest.len()) as i64);
        records.extend_from_slice(&start);
        records.extend_from_slice(record.rest);
    }
    let newest = kept.iter().map(|record| record.timestamp).max();
    let patch = Patch {
        base_timestamp,
        max_timestamp: newest
            .filter(|_| !header.is_log_append_time())
            .unwrap_or(header.max_timestamp),
        attributes: match horizon {
            Some(_) => header.attributes | DELETE_HORIZON,
            None => header.attributes,
        },
        records: i32::try_from(kept.len()).map_err(io::Error::other)?,
    };
    patch.apply(batch, &pack(header.compression(), &records)?)
}

/// `batch` without its records: it keeps the producer's numbers and the offsets.
pub(super) fn empty(header: &Header, batch: &[u8]) -> io::Result<Vec<u8>> {
    let patch = Patch {
        base_timestamp: header.base_timestamp,
        max_timestamp: header.max_timestamp,
        attributes: header.attributes & !CODEC,
        records: 0,
    };
    patch.apply(batch, &[])
}

/// What changes in a header.
struct Patch {
    attributes: i16,
    base_timestamp: i64,
    max_timestamp: i64,
    records: i32,
}

impl Patch {
    fn apply(&self, batch: &[u8], records: &[u8]) -> io::Result<Vec<u8>> {
        let head = batch
            .first_chunk::<HEADER>()
            .ok_or(io::ErrorKind::UnexpectedEof)?;
        let mut new = Vec::with_capacity(HEADER + records.len());
        new.extend_from_slice(head);
        new.extend_from_slice(records);
        let length = i32::try_from(new.len() - BEFORE_LENGTH).map_err(io::Error::other)?;
        new[8..12].copy_from_slice(&length.to_be_bytes());
        new[21..23].copy_from_slice(&self.attributes.to_be_bytes());
        new[27..35].copy_from_slice(&self.base_timestamp.to_be_bytes());
        new[35..43].copy_from_slice(&self.max_timestamp.to_be_bytes());
        new[57..61].copy_from_slice(&self.records.to_be_bytes());
        let crc = crc32c::crc32c(&new[CRC_FROM..]);
        new[17..21].copy_from_slice(&crc.to_be_bytes());
        Ok(new)
    }
}

/// Packs records by Kafka's number of the codec.
fn pack(compression: u8, records: &[u8]) -> io::Result<Vec<u8>> {
    match compression {
        0 => Ok(records.to_vec()),
        1 => {
            let mut gzip = GzEncoder::new(Vec::new(), Compression::default());
            gzip.write_all(records)?;
            gzip.finish()
        }
        2 => snap::raw::Encoder::new()
            .compress_vec(records)
            .map_err(io::Error::other),
        3 => {
            // Java's client reads frames of independent blocks only.
            let mut frame = lz4::EncoderBuilder::new()
                .block_mode(lz4::BlockMode::Independent)
                .block_size(lz4::BlockSize::Max64KB)
                .checksum(lz4::ContentChecksum::NoChecksum)
                .build(Vec::new())?;
            frame.write_all(records)?;
            let (packed, finished) = frame.finish();
            finished.map(|()| packed)
        }
        4 => zstd::stream::encode_all(records, zstd::DEFAULT_COMPRESSION_LEVEL),
        _ => Err(io::ErrorKind::Unsupported.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn varints_are_written_as_they_are_read() {
        for value in [0, 1, -1, 63, 64, -64, -65, 300, i64::MAX, i64::MIN] {
            let mut bytes = Vec::new();
            put_varint(&mut bytes, value);
            let mut left = bytes.as_slice();
            assert_eq!(varint(&mut left), Some(value));
            assert!(left.is_empty());
        }
    }

    #[test]
    fn what_is_packed_can_be_unpacked() {
        let records: Vec<u8> = (0..200_000_u32).map(|at| (at % 251) as u8).collect();
        for compression in 0..=4 {
            let packed = pack(compression, &records).unwrap();
            let mut unpacked = Vec::new();
            unpack::records(compression, packed.into())
                .unwrap()
                .read_to_end(&mut unpacked)
                .unwrap();
            assert_eq!(unpacked, records, "compression {compression}");
        }
    }
}
