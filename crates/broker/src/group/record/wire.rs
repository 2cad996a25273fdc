//! The primitive types of Kafka's non-flexible messages, as far as these records need them.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use kafka_protocol::protocol::StrBytes;

/// A record that is not of the format that it claims.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("malformed record of __consumer_offsets: {0}")]
pub(crate) struct Malformed(pub(super) &'static str);

/// Writes Kafka's primitive types.
///
/// Strings are bounded where they enter the coordinator, far below what their length field holds;
/// a longer one is cut here rather than written with a length that lies.
pub(super) trait Writer {
    fn int16(&mut self, value: i16);
    fn int32(&mut self, value: i32);
    fn int64(&mut self, value: i64);
    fn string(&mut self, value: &str);
    fn nullable_string(&mut self, value: Option<&StrBytes>);
    fn bytes(&mut self, value: &[u8]);
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
}

/// Reads Kafka's primitive types. What it gives owns its memory: it outlives the batch it came in.
pub(super) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub(super) fn int16(&mut self) -> Result<i16, Malformed> {
        self.0
            .try_get_i16()
            .map_err(|_| Malformed("cut in an int16"))
    }

    pub(super) fn int32(&mut self) -> Result<i32, Malformed> {
        self.0
            .try_get_i32()
            .map_err(|_| Malformed("cut in an int32"))
    }

    pub(super) fn int64(&mut self) -> Result<i64, Malformed> {
        self.0
            .try_get_i64()
            .map_err(|_| Malformed("cut in an int64"))
    }

    pub(super) fn string(&mut self) -> Result<StrBytes, Malformed> {
        self.nullable_string()?
            .ok_or(Malformed("null where a string must be"))
    }

    pub(super) fn nullable_string(&mut self) -> Result<Option<StrBytes>, Malformed> {
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

    pub(super) fn bytes(&mut self) -> Result<Bytes, Malformed> {
        let length = usize::try_from(self.int32()?).map_err(|_| Malformed("negative length"))?;
        Ok(Bytes::copy_from_slice(self.take(length)?))
    }

    /// A count of elements, of which each takes at least one byte of what is left.
    pub(super) fn count(&mut self) -> Result<usize, Malformed> {
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
