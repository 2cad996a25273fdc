//! How a value becomes bytes and back: JSON unless an event, or a handler, says otherwise.
//!
//! One [`Codec`] serves both directions, so what one service writes another reads. An event
//! chooses its own by [`Event::codec`](crate::Event::codec); sending it and
//! [`extract::Event`](struct@crate::extract::Event) then use that. Values without an envelope
//! name theirs where they are handled ([`extract::Coded`](crate::extract::Coded)) and sent
//! ([`OutgoingRecord::encoded`](crate::producer::OutgoingRecord::encoded)). So listeners of one
//! app can each read another format.
//!
//! ```
//! use ackwell::codec::{Codec, CodecError};
//!
//! /// Big-endian numbers.
//! #[derive(Default)]
//! struct BigEndian;
//!
//! impl Codec<u32> for BigEndian {
//!     fn content_type(&self) -> &'static str {
//!         "application/x-u32"
//!     }
//!
//!     fn encode(&self, value: &u32) -> Result<Vec<u8>, CodecError> {
//!         Ok(value.to_be_bytes().to_vec())
//!     }
//!
//!     fn decode(&self, bytes: &[u8]) -> Result<u32, CodecError> {
//!         Ok(u32::from_be_bytes(bytes.try_into()?))
//!     }
//! }
//!
//! use ackwell::extract::Coded;
//! use ackwell::producer::OutgoingRecord;
//!
//! async fn count(Coded(number, ..): Coded<u32, BigEndian>) {
//!     println!("{number}");
//! }
//! # fn handler<A>(_: impl ackwell::Handler<A>) {}
//! # handler(count);
//! # fn main() -> Result<(), CodecError> {
//! let record = OutgoingRecord::to("numbers").encoded(&BigEndian, &7)?;
//! # let _ = record;
//! # Ok(())
//! # }
//! ```

mod json;

use std::error::Error;

pub use json::Json;
pub(crate) use json::decode;

/// Why a value can't be encoded or decoded: any error will do, a text too.
pub type CodecError = Box<dyn Error + Send + Sync>;

/// Writes values of `T` as bytes and reads them back. See the [module](self) for an example.
pub trait Codec<T>: Send + Sync + 'static {
    /// The media type of what it writes, the header `contentType`: `"application/json"`.
    fn content_type(&self) -> &'static str;

    /// The bytes of `value`.
    ///
    /// # Errors
    /// When it has no representation; it is then not sent.
    fn encode(&self, value: &T) -> Result<Vec<u8>, CodecError>;

    /// The value of `bytes`, which came from outside: they may be anything.
    ///
    /// # Errors
    /// When they are no value of `T`; the record is then undecodable, see
    /// [`OnUndecodable`](crate::OnUndecodable).
    fn decode(&self, bytes: &[u8]) -> Result<T, CodecError>;
}
