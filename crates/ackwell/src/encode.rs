//! From an event to the record that carries it: the one place where envelopes are written.
//!
//! `Producer::send` and the outbox write the same bytes, so a consumer can't tell them apart, and
//! an event that was written to the outbox keeps its id through every attempt to publish it.

use bytes::Bytes;
use jiff::Timestamp;
use uuid::Uuid;

use crate::codec::CodecError;
use crate::record::Headers;
use crate::topic::Event;
use crate::trace;

pub use ackwell_core::envelope::{
    AGGREGATE_ID, CONTENT_TYPE, EVENT_ID, EVENT_TYPE, OCCURRED_AT, TRACEPARENT,
};

/// The value's media type, as events are written unless they choose another
/// [codec](crate::codec).
pub const JSON: &str = "application/json";

/// An event as a record: what `Producer::send` and `Tx::emit` write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EncodedEvent {
    /// Where it goes.
    pub topic: &'static str,
    /// The aggregate id.
    pub key: Bytes,
    /// The event as its codec writes it.
    pub value: Bytes,
    /// The envelope.
    pub headers: Headers,
    /// The same as the header `eventId`.
    pub event_id: Uuid,
}

impl EncodedEvent {
    /// Encodes `event`, which happened now. Within a handler, the record's `traceparent` is passed
    /// along.
    ///
    /// # Errors
    /// When its codec can't write it (as JSON: a map with keys that are no texts, for instance), or
    /// when it is of a type that it does [not know](Event::knows) itself: nobody could read it.
    pub fn new<E: Event>(event: &E) -> Result<Self, EncodeError> {
        Self::with_trace(event, trace::current().as_deref())
    }

    /// The same, with a `traceparent` to pass along.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn with_trace<E: Event>(event: &E, traceparent: Option<&str>) -> Result<Self, EncodeError> {
        let event_type = event.event_type();
        let codec = E::codec();
        let content_type = codec.content_type();
        let failed = |source| EncodeError {
            event_type,
            content_type,
            source,
        };
        if !E::knows(event_type) {
            return Err(failed("`Event::knows` denies it".into()));
        }
        let value = codec.encode(event).map_err(failed)?;
        let event_id = event.event_id().unwrap_or_else(Uuid::now_v7);
        let key = Bytes::from(event.aggregate_id().into_owned());
        let mut headers = Headers::new();
        headers.push_static(EVENT_ID, event_id.to_string());
        headers.push_static(EVENT_TYPE, Bytes::from_static(event_type.as_bytes()));
        headers.push_static(OCCURRED_AT, format!("{:.3}", Timestamp::now()));
        headers.push_static(AGGREGATE_ID, key.clone());
        headers.push_static(CONTENT_TYPE, Bytes::from_static(content_type.as_bytes()));
        if let Some(traceparent) = traceparent {
            headers.push_static(TRACEPARENT, traceparent.to_owned());
        }
        Ok(Self {
            topic: E::TOPIC.name(),
            key,
            value: value.into(),
            headers,
            event_id,
        })
    }
}

/// An event that does not serialize.
#[derive(Debug, thiserror::Error)]
#[error("encoding an event of type `{event_type}` as {content_type}")]
pub struct EncodeError {
    event_type: &'static str,
    content_type: &'static str,
    source: CodecError,
}

impl crate::failure::Classify for EncodeError {
    fn class(&self) -> crate::failure::Class {
        crate::failure::Class::Permanent
    }
}
