//! The primitive types of Kafka's flexible messages (KIP-482), as far as these records need them:
//! lengths are variable, one more than they say, and 0 is null.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use kafka_protocol::protocol::StrBytes;
use uuid::Uuid;

use super::Malformed;

/// Writes a flexible message.
#[derive(Debug, Default)]
pub(super) struct Message(BytesMut);

impl Message {
    pub(super) fn version(version: i16) -> Self {
        let mut message = Self(BytesMut::with_capacity(128));
        message.0.put_i16(version);
        message
    }

    pub(super) fn int8(&mut self, value: i8) {
        self.0.put_i8(value);
    }

    pub(super) fn int32(&mut self, value: i32) {
        self.0.put_i32(value);
    }

    pub(super) fn uuid(&mut self, value: Uuid) {
        self.0.put_slice(value.as_bytes());
    }

    pub(super) fn string(&mut self, value: &str) {
        self.length(value.len());
        self.0.put_slice(value.as_bytes());
    }

    pub(super) fn bytes(&mut self, value: &[u8]) {
        self.length(value.len());
        self.0.put_slice(value);
    }

    pub(super) fn nullable_string(&mut self, value: Option<&StrBytes>) {
        match value {
            Some(value) => self.string(value),
            None => self.0.put_u8(0),
        }
    }

    /// How many elements follow.
    pub(super) fn length(&mut self, count: usize) {
        self.uvarint(u32::try_from(count).unwrap_or(u32::MAX - 1) + 1);
    }

    pub(super) fn no_tags(&mut self) {
        self.0.put_u8(0);
    }

    /// One tagged field, the only one of its struct.
    pub(super) fn tagged_int64(&mut self, tag: u32, value: i64) {
        self.tagged(tag, &value.to_be_bytes());
    }

    /// As [`Message::tagged_int64`], with bytes that are encoded already.
    pub(super) fn tagged(&mut self, tag: u32, value: &[u8]) {
        self.uvarint(1);
        self.uvarint(tag);
        self.uvarint(u32::try_from(value.len()).unwrap_or(u32::MAX));
        self.0.put_slice(value);
    }

    pub(super) fn finish(self) -> Bytes {
        self.0.freeze()
    }

    fn uvarint(&mut self, mut value: u32) {
        while value >= 0x80 {
            self.0.put_u8((value & 0x7f) as u8 | 0x80);
            value >>= 7;
        }
        self.0.put_u8(value as u8);
    }
}

/// Reads a flexible message. What it gives owns its memory: it outlives the batch it came in.
pub(super) struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    /// The fields behind the version, which must be the only one that there is.
    pub(super) fn of(value: &'a Bytes) -> Result<Self, Malformed> {
        let mut fields = Self(value);
        match fields.0.try_get_i16() {
            Ok(0) => Ok(fields),
            Ok(_) => Err(Malformed("unknown version of a consumer group's record")),
            Err(_) => Err(Malformed("cut in a version")),
        }
    }

    /// The fields of a struct that is a tagged field: it has no version of its own.
    pub(super) fn within(value: &'a [u8]) -> Self {
        Self(value)
    }

    pub(super) fn bytes(&mut self) -> Result<Bytes, Malformed> {
        let length = self.length()?.unwrap_or(0);
        Ok(Bytes::copy_from_slice(self.take(length)?))
    }

    pub(super) fn int8(&mut self) -> Result<i8, Malformed> {
        self.0.try_get_i8().map_err(|_| Malformed("cut in an int8"))
    }

    pub(super) fn int32(&mut self) -> Result<i32, Malformed> {
        self.0
            .try_get_i32()
            .map_err(|_| Malformed("cut in an int32"))
    }

    pub(super) fn uuid(&mut self) -> Result<Uuid, Malformed> {
        Uuid::from_slice(self.take(16)?).map_err(|_| Malformed("cut in a uuid"))
    }

    pub(super) fn string(&mut self) -> Result<StrBytes, Malformed> {
        self.nullable_string()?
            .ok_or(Malformed("null where a string must be"))
    }

    pub(super) fn nullable_string(&mut self) -> Result<Option<StrBytes>, Malformed> {
        let Some(length) = self.length()? else {
            return Ok(None);
        };
        let bytes = Bytes::copy_from_slice(self.take(length)?);
        StrBytes::from_utf8(bytes)
            .map(Some)
            .map_err(|_| Malformed("not UTF-8"))
    }

    /// An array; null is none. Every element takes at least one byte of what is left.
    pub(super) fn array<T>(
        &mut self,
        mut element: impl FnMut(&mut Self) -> Result<T, Malformed>,
    ) -> Result<Vec<T>, Malformed> {
        let count = self.length()?.unwrap_or(0);
        if count > self.0.len() {
            return Err(Malformed("more elements than bytes"));
        }
        (0..count).map(|_| element(self)).collect()
    }

    /// Tagged fields by number; what a newer version adds is passed over.
    pub(super) fn tags(&mut self) -> Result<Vec<(u32, &'a [u8])>, Malformed> {
        let count = self.uvarint()?;
        let mut tags = Vec::new();
        for _ in 0..count {
            let tag = self.uvarint()?;
            let length = self.uvarint()? as usize;
            tags.push((tag, self.take(length)?));
        }
        Ok(tags)
    }

    fn length(&mut self) -> Result<Option<usize>, Malformed> {
        Ok(self.uvarint()?.checked_sub(1).map(|length| length as usize))
    }

    fn uvarint(&mut self) -> Result<u32, Malformed> {
        let mut value = 0_u32;
        for shift in [0, 7, 14, 21, 28] {
            let byte = self
                .0
                .try_get_u8()
                .map_err(|_| Malformed("cut in a length"))?;
            value |= u32::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(Malformed("a length does not end"))
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], Malformed> {
        let (taken, rest) = self
            .0
            .split_at_checked(length)
            .ok_or(Malformed("cut in a field"))?;
        self.0 = rest;
        Ok(taken)
    }
}
