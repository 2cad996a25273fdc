use std::fmt;
use std::marker::PhantomData;

use bytes::Bytes;
use serde::de::DeserializeOwned;

use super::{FromRecord, FromValue, undecodable, value_of};
use crate::codec::{self, Codec};
use crate::context::Context;
use crate::failure::Failure;

/// The value decoded as JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Json<T>(
    /// The decoded value.
    pub T,
);

impl<T: DeserializeOwned + Send + 'static> FromRecord for Json<T> {
    const LOOKS_AT_HEADERS: bool = false;

    fn from_record(cx: &mut Context) -> Result<Self, Failure> {
        codec::decode(value_of(cx.record())?)
            .map(Self)
            .map_err(undecodable)
    }
}

impl<T: DeserializeOwned + Send + 'static> FromValue for Json<T> {}

/// A value that decodes itself, for [`Payload`]. To send it as well, write a [`Codec`].
pub trait Decode: Sized + Send + 'static {
    /// Why a value can't be decoded.
    type Error: std::fmt::Display;

    /// Decodes the value's bytes.
    ///
    /// # Errors
    /// When the bytes are not one of its values; the record is dead-lettered.
    fn decode(value: &[u8]) -> Result<Self, Self::Error>;
}

/// The value decoded by its own codec, see [`Decode`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Payload<T>(
    /// The decoded value.
    pub T,
);

impl<T: Decode> FromRecord for Payload<T> {
    const LOOKS_AT_HEADERS: bool = false;

    fn from_record(cx: &mut Context) -> Result<Self, Failure> {
        T::decode(value_of(cx.record())?)
            .map(Self)
            .map_err(undecodable)
    }
}

impl<T: Decode> FromValue for Payload<T> {}

/// The value decoded by the [codec](crate::codec) `C`.
pub struct Coded<T, C>(
    /// The decoded value.
    pub T,
    /// By which codec.
    pub PhantomData<fn() -> C>,
);

impl<T: fmt::Debug, C> fmt::Debug for Coded<T, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Coded").field(&self.0).finish()
    }
}

impl<T, C> FromRecord for Coded<T, C>
where
    T: Send + 'static,
    C: Codec<T> + Default,
{
    const LOOKS_AT_HEADERS: bool = false;

    fn from_record(cx: &mut Context) -> Result<Self, Failure> {
        let codec = C::default();
        let decoded = codec.decode(value_of(cx.record())?);
        let decoded = decoded
            .map_err(|error| undecodable(format_args!("as {}: {error}", codec.content_type())))?;
        Ok(Self(decoded, PhantomData))
    }
}

impl<T: Send + 'static, C: Codec<T> + Default> FromValue for Coded<T, C> {}

/// The value's bytes, a slice of the poll's buffer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Raw(
    /// The bytes.
    pub Bytes,
);

impl FromRecord for Raw {
    const LOOKS_AT_HEADERS: bool = false;

    fn from_record(cx: &mut Context) -> Result<Self, Failure> {
        value_of(cx.record())?;
        Ok(Self(cx.record().value_bytes().unwrap_or_default()))
    }
}

impl FromValue for Raw {}

/// The value as UTF-8 text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Text(
    /// The text.
    pub String,
);

impl FromRecord for Text {
    const LOOKS_AT_HEADERS: bool = false;

    fn from_record(cx: &mut Context) -> Result<Self, Failure> {
        let text = std::str::from_utf8(value_of(cx.record())?).map_err(undecodable)?;
        Ok(Self(text.to_owned()))
    }
}

impl FromValue for Text {}
