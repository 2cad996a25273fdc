//! The primitive types of Kafka's non-flexible messages, as far as these records need them.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use kafka_protocol::protocol::StrBytes;

/// A record that is not of the format that it claims.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("malformed record of a coordinator: {0}")]
pub(crate) struct Malformed(pub(crate) &'static str);

/// Writes Kafka's primitive types.
///
/// Strings are bounded where they enter the coordinator, far below what their length field holds;
/// a longer one is cut here rather than written with a length that lies.
pub(crate) trait Writer {
    fn int16(&mut self, value: i16);
    fn int32(&mut self, value: i32);
    fn int64(&mut self, value: i64);
    fn string(&mut self, value: &str);
    fn nullable_string(&mut self, value: Option<&StrBytes>);
    fn bytes(&mut self, value: &[u8]);
    fn unsigned_varint(&mut self, value: u32);
    /// A string of the flexible versions.
    fn compact_string(&mut self, value: &str);
}

impl Writer for BytesMut {
    fn int16(&mut self, value: i16) {
        self.put_i16(value);
    }

    fn int32(&mut self, value: i32) {
        self.put_i32(value);
    }

    fn int64(&mut self, value: i64) {
        self.put_i64(value);
    }

    fn string(&mut self, value: &str) {
        let value = &value[..value.floor_char_boundary(i16::MAX as usize)];
        self.put_u16(value.len() as u16);
        self.put_slice(value.as_bytes());
    }

    fn nullable_string(&mut self, value: Option<&StrBytes>) {
        match value {
            Some(value) => self.string(value),
            None => self.put_i16(-1),
        }
    }

    fn bytes(&mut self, value: &[u8]) {
        self.put_u32(value.len() as u32);
        self.put_slice(value);
    }

    fn unsigned_varint(&mut self, mut value: u32) {
        while value >= 0x80 {
            self.put_u8(value as u8 | 0x80);
            value >>= 7;
        }
        self.put_u8(value as u8);
    }

    fn compact_string(&mut self, value: &str) {
        let value = &value[..value.floor_char_boundary(i16::MAX as usize)];
        self.unsigned_varint(value.len() as u32 + 1);
        self.put_slice(value.as_bytes());
    }
}

/// Reads Kafka's primitive types. What it gives owns its memory: it outlives the batch it came in.
pub(crate) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub(crate) fn int8(&mut self) -> Result<i8, Malformed> {
        self.0.try_get_i8().map_err(|_| Malformed("cut in an int8"))
    }

    pub(crate) fn unsigned_varint(&mut self) -> Result<u32, Malformed> {
        let mut value = 0_u32;
        for shift in (0..32).step_by(7) {
            let byte = self
                .0
                .try_get_u8()
                .map_err(|_| Malformed("cut in a varint"))?;
            value |= u32::from(byte & 0x7f).wrapping_shl(shift);
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(Malformed("a varint does not end"))
    }

    /// A string of the flexible versions.
    pub(crate) fn compact_string(&mut self) -> Result<StrBytes, Malformed> {
        let length = self
            .compact_count()?
            .ok_or(Malformed("null where a string must be"))?;
        let bytes = Bytes::copy_from_slice(self.take(length)?);
        StrBytes::from_utf8(bytes).map_err(|_| Malformed("not UTF-8"))
    }

    /// The length of a string or an array of the flexible versions; `None` for null.
    pub(crate) fn compact_count(&mut self) -> Result<Option<usize>, Malformed> {
        let Some(count) = self.unsigned_varint()?.checked_sub(1) else {
            return Ok(None);
        };
        match count as usize {
            count if count > self.0.len() => Err(Malformed("more elements than bytes")),
            count => Ok(Some(count)),
        }
    }

    /// Tagged fields: `take` is given each with its number.
    pub(crate) fn tagged(
        &mut self,
        mut take: impl FnMut(u32, &mut Reader<'_>) -> Result<(), Malformed>,
    ) -> Result<(), Malformed> {
        for _ in 0..self.unsigned_varint()? {
            let tag = self.unsigned_varint()?;
            let length = self.unsigned_varint()? as usize;
            take(tag, &mut Reader(self.take(length)?))?;
        }
        Ok(())
    }

    pub(crate) fn int16(&mut self) -> Result<i16, Malformed> {
        self.0
            .try_get_i16()
            .map_err(|_| Malformed("cut in an int16"))
    }

    pub(crate) fn int32(&mut self) -> Result<i32, Malformed> {
        self.0
            .try_get_i32()
            .map_err(|_| Malformed("cut in an int32"))
    }

    pub(crate) fn int64(&mut self) -> Result<i64, Malformed> {
        self.0
            .try_get_i64()
            .map_err(|_| Malformed("cut in an int64"))
    }

    pub(crate) fn string(&mut self) -> Result<StrBytes, Malformed> {
        self.nullable_string()?
            .ok_or(Malformed("null where a string must be"))
    }

    pub(crate) fn nullable_string(&mut self) -> Result<Option<StrBytes>, Malformed> {
        let length = self.int16()?;
        if length == -1 {
            return Ok(None);
        }
        let length = usize::try_from(length).map_err(|_| Malformed("negative length"))?;
        let bytes = Bytes::copy_from_slice(self.take(length)?);
        StrBytes::from_utf8(bytes)
            .map(Some)
            .map_err(|_| Malformed("not UTF-8"))
    }

    pub(crate) fn bytes(&mut self) -> Result<Bytes, Malformed> {
        let length = usize::try_from(self.int32()?).map_err(|_| Malformed("negative length"))?;
        Ok(Bytes::copy_from_slice(self.take(length)?))
    }

    /// Bytes; null is none.
    pub(crate) fn nullable_bytes(&mut self) -> Result<Bytes, Malformed> {
        let length = self.nullable_count()?.unwrap_or(0);
        Ok(Bytes::copy_from_slice(self.take(length)?))
    }

    /// As [`Reader::count`]; `None` for null.
    pub(crate) fn nullable_count(&mut self) -> Result<Option<usize>, Malformed> {
        match self.0.first_chunk::<4>() {
            Some(&[0xff, 0xff, 0xff, 0xff]) => self.int32().map(|_null| None),
            _ => self.count().map(Some),
        }
    }

    /// A count of elements, of which each takes at least one byte of what is left.
    pub(crate) fn count(&mut self) -> Result<usize, Malformed> {
        let count = usize::try_from(self.int32()?).map_err(|_| Malformed("negative count"))?;
        if count > self.0.len() {
            return Err(Malformed("more elements than bytes"));
        }
        Ok(count)
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], Malformed> {
        let (taken, rest) = self
            .0
            .split_at_checked(length)
            .ok_or(Malformed("cut in a string"))?;
        self.0 = rest;
        Ok(taken)
    }
}
