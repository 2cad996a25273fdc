//! What a handler can ask for, by the types of its arguments.
//!
//! | extractor | gives |
//! |---|---|
//! | [`Event<E>`](struct@Event) | the event, decoded by its `eventType` |
//! | [`Json<T>`], [`Coded<T, C>`](Coded), [`Payload<T>`] | the value, decoded as JSON; by the [codec](crate::codec) `C`; by its own [`Decode`] |
//! | [`Raw`], [`Text`] | the value as bytes; as UTF-8 |
//! | [`Key`], [`KeyBytes`] | the key |
//! | [`Header<H>`](struct@Header), [`Headers`] | one header by name; all |
//! | [`TopicName`], [`Partition`], [`Offset`], [`Timestamp`], [`Attempt`] | where, when, how often |
//! | [`Record`] | the whole record |
//! | [`Ack`] | the record's acknowledgement, in the manual ack modes |
//! | [`Seek`], [`ListenerHandle`](crate::ListenerHandle) | the listener, to seek, pause or look |
//! | [`State<T>`](struct@State) | a value given to [`App::state`](crate::App::state) |
//! | [`Extension<T>`](struct@Extension) | a value that a [layer](crate::layer) put into the request |
//! | a tuple of up to four of them | for each record of a [batch](crate::batch) |
//!
//! `Option<T>` of an extractor of the value is `None` for a tombstone (a record whose value is
//! null); without the `Option` a tombstone is a permanent failure, never a default value.

mod ack;
mod event;
mod extension;
mod header;
mod place;
mod seek;
mod state;
#[cfg(test)]
mod tests;
mod tuple;
mod value;

pub use ack::{Ack, Acknowledged, NotCommitted};
pub use event::Event;
pub(crate) use event::{UnknownEvent, event_type, unknown_event};
pub use extension::Extension;
pub use header::{FromHeader, Header, HeaderValue, Key, KeyBytes};
pub use place::{Attempt, Offset, Partition, Timestamp, TopicName};
pub use seek::Seek;
pub use state::State;
pub use value::{Coded, Decode, Json, Payload, Raw, Text};

use crate::context::{Context, Setup, SetupError};
use crate::failure::Failure;
pub use crate::record::{Headers, Record};

/// Something that a handler can ask for.
#[diagnostic::on_unimplemented(
    message = "`{Self}` can't be taken from a record",
    label = "not an extractor",
    note = "see `ackwell::extract` for what a handler can ask for; events are asked for as `Event<{Self}>`, JSON values as `Json<{Self}>`, shared state as `State<{Self}>`",
    note = "arguments are taken by value; a handler that takes a `Batch` is given to `.handle_batch(..)`"
)]
pub trait FromRecord: Sized + Send + 'static {
    /// Whether it may look at the record's headers. Where no argument of a handler does, they are
    /// not even read, which is a good part of what a record costs, and a record with a header name
    /// that is no text is handled; where one may, such a record is dead-lettered.
    const LOOKS_AT_HEADERS: bool = true;

    /// Takes it from the record.
    ///
    /// # Errors
    /// With a failure whose class decides what happens to the record: what can't be decoded is
    /// permanent, since it can't be decoded the next time either.
    fn from_record(cx: &mut Context) -> Result<Self, Failure>;

    /// Called once when the listener starts: asks for state, installs a unit of work.
    ///
    /// # Errors
    /// When something that every record would miss is missing.
    fn prepare(setup: &mut Setup<'_>) -> Result<(), SetupError> {
        let _ = setup;
        Ok(())
    }
}

impl FromRecord for Record {
    fn from_record(cx: &mut Context) -> Result<Self, Failure> {
        Ok(cx.record().clone())
    }
}

impl FromRecord for Headers {
    fn from_record(cx: &mut Context) -> Result<Self, Failure> {
        Ok(cx.record().headers().clone())
    }
}

/// `None` for a tombstone.
impl<T: FromValue> FromRecord for Option<T> {
    const LOOKS_AT_HEADERS: bool = T::LOOKS_AT_HEADERS;

    fn from_record(cx: &mut Context) -> Result<Self, Failure> {
        if cx.record().value().is_none() {
            Ok(None)
        } else {
            T::from_record(cx).map(Some)
        }
    }

    fn prepare(setup: &mut Setup<'_>) -> Result<(), SetupError> {
        T::prepare(setup)
    }
}

/// An extractor that decodes the record's value, and for which a tombstone has none.
pub trait FromValue: FromRecord {}

/// The value's bytes, or the failure that says that there are none.
pub(crate) fn value_of(record: &Record) -> Result<&[u8], Failure> {
    record.value().ok_or_else(|| {
        undecodable("the value is null (a tombstone); ask for `Option<..>` to handle tombstones")
    })
}

/// A permanent failure whose text starts with the word by which dead letters are found.
pub(crate) fn undecodable(why: impl std::fmt::Display) -> Failure {
    Failure::permanent(format!("undecodable: {why}"))
}
