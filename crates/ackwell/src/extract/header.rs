use std::fmt;
use std::marker::PhantomData;
use std::str::FromStr;

use bytes::Bytes;

use super::{FromRecord, undecodable};
use crate::context::Context;
use crate::failure::Failure;

/// A header's name and type, as a marker for [`Header`].
///
/// ```
/// use ackwell::extract::{FromHeader, Header};
///
/// struct Tenant;
/// impl FromHeader for Tenant {
///     const NAME: &'static str = "tenant";
///     type Value = u32;
/// }
///
/// async fn handle(Header(tenant, ..): Header<Tenant>) {
///     let _: u32 = tenant;
/// }
/// # fn handler<A>(_: impl ackwell::Handler<A>) {}
/// # handler(handle);
/// ```
pub trait FromHeader: Send + 'static {
    /// The header's name.
    const NAME: &'static str;
    /// What its text is parsed into. `Option<Bytes>`-like needs are met by
    /// [`Headers`](super::Headers).
    type Value: HeaderValue;
}

/// A type that can be read from a header's text.
pub trait HeaderValue: Send + Sized + 'static {
    /// Reads it; the error says what is wrong with the text.
    ///
    /// # Errors
    /// When the text is not one of its values.
    fn read(text: &str) -> Result<Self, String>;
}

impl<T: FromStr + Send + 'static> HeaderValue for T
where
    T::Err: fmt::Display,
{
    fn read(text: &str) -> Result<Self, String> {
        text.parse().map_err(|error: T::Err| error.to_string())
    }
}

/// One header by its name, typed. Missing or malformed is a permanent failure;
/// `Option<Header<H>>` is `None` where it is missing.
pub struct Header<H: FromHeader>(
    /// Its value.
    pub H::Value,
    /// Which header it is.
    pub PhantomData<fn() -> H>,
);

impl<H: FromHeader> fmt::Debug for Header<H>
where
    H::Value: fmt::Debug,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple(H::NAME).field(&self.0).finish()
    }
}

impl<H: FromHeader> FromRecord for Header<H> {
    fn from_record(cx: &mut Context) -> Result<Self, Failure> {
        read::<H>(cx)?
            .ok_or_else(|| undecodable(format_args!("the header `{}` is missing", H::NAME)))
    }
}

impl<H: FromHeader> FromRecord for Option<Header<H>> {
    fn from_record(cx: &mut Context) -> Result<Self, Failure> {
        read::<H>(cx)
    }
}

fn read<H: FromHeader>(cx: &Context) -> Result<Option<Header<H>>, Failure> {
    let Some(bytes) = cx.record().headers().get(H::NAME) else {
        return Ok(None);
    };
    let text = std::str::from_utf8(bytes).map_err(|error| error.to_string());
    match text.and_then(H::Value::read) {
        Ok(value) => Ok(Some(Header(value, PhantomData))),
        Err(error) => Err(undecodable(format_args!(
            "the header `{}`: {error}",
            H::NAME
        ))),
    }
}

/// The key as text; `None` without a key. A key that is not UTF-8 is a permanent failure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key(
    /// The key.
    pub Option<String>,
);

impl FromRecord for Key {
    const LOOKS_AT_HEADERS: bool = false;

    fn from_record(cx: &mut Context) -> Result<Self, Failure> {
        let key = cx.record().key().map(std::str::from_utf8).transpose();
        let key =
            key.map_err(|error| undecodable(format_args!("the key is not UTF-8: {error}")))?;
        Ok(Self(key.map(str::to_owned)))
    }
}

/// The key's bytes; `None` without a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyBytes(
    /// The key.
    pub Option<Bytes>,
);

impl FromRecord for KeyBytes {
    const LOOKS_AT_HEADERS: bool = false;

    fn from_record(cx: &mut Context) -> Result<Self, Failure> {
        Ok(Self(cx.record().key_bytes()))
    }
}
