use super::{FromRecord, FromValue, undecodable, value_of};
use crate::context::{Context, KnownEvents, Setup, SetupError, short_name};
use crate::encode::EVENT_TYPE;
use crate::failure::Failure;
use crate::record::Record;
use crate::topic;

/// The record's event, told by its header `eventType` and decoded by its
/// [codec](crate::Event::codec).
///
/// A record without the header, of a type that [`E::knows`](crate::Event::knows) not, or whose
/// value does not decode, is dead-lettered at once with the reason `undecodable`; the listener may
/// choose otherwise ([`on_undecodable`](crate::listener::ListenerBuilder::on_undecodable),
/// [`on_unknown_event`](crate::listener::ListenerBuilder::on_unknown_event)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event<E>(
    /// The event.
    pub E,
);

impl<E: topic::Event> Event<E> {
    /// Decodes the event of a record that no listener brought, such as one of
    /// [`reader::read`](crate::reader::read).
    ///
    /// # Errors
    ///
    /// A permanent failure that says what is wrong with the record.
    pub fn decode(record: &Record) -> Result<E, Failure> {
        let event_type = event_type(record)?;
        if !E::knows(event_type) {
            return Err(unknown_event(event_type));
        }
        let event = (E::codec().decode(value_of(record)?))
            .map_err(|error| undecodable(format_args!("`{event_type}`: {error}")))?;
        if event.event_type() != event_type {
            let decoded = event.event_type();
            return Err(undecodable(format_args!(
                "the header says `{event_type}`, the value is a `{decoded}`"
            )));
        }
        Ok(event)
    }
}

impl<E: topic::Event> FromRecord for Event<E> {
    fn from_record(cx: &mut Context) -> Result<Self, Failure> {
        Self::decode(cx.record()).map(Self)
    }

    fn prepare(setup: &mut Setup<'_>) -> Result<(), SetupError> {
        let (name, types) = (short_name::<E>(), E::TYPES);
        if let Some(denied) = types.iter().find(|event_type| !E::knows(event_type)) {
            return Err(SetupError::new(format!(
                "`{name}` lists the event type `{denied}` and does not know it"
            ))
            .mend(format!("leave `knows` out of `impl Event for {name}`")));
        }
        setup.knows(KnownEvents { name, types });
        Ok(())
    }
}

impl<E: topic::Event> FromValue for Event<E> {}

/// The cause of a failure: nobody here knows the record's event type.
#[derive(Debug, thiserror::Error)]
#[error("unknown event type")]
pub(crate) struct UnknownEvent;

pub(crate) fn unknown_event(event_type: &str) -> Failure {
    let shown = Shown(event_type);
    undecodable(format_args!("unknown event type `{shown}`")).with_source(UnknownEvent)
}

pub(crate) fn event_type(record: &Record) -> Result<&str, Failure> {
    let headers = record.headers();
    if headers.get(EVENT_TYPE).is_none() {
        return Err(undecodable(format_args!(
            "the header `{EVENT_TYPE}` is missing"
        )));
    }
    headers
        .get_str(EVENT_TYPE)
        .ok_or_else(|| undecodable(format_args!("the header `{EVENT_TYPE}` is not UTF-8")))
}

/// A text from outside, cut to what belongs in a message.
struct Shown<'a>(&'a str);

impl std::fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        const LIMIT: usize = 80;
        let mut chars = self.0.chars();
        for c in chars.by_ref().take(LIMIT) {
            write!(f, "{}", c.escape_debug())?;
        }
        if chars.next().is_some() {
            f.write_str("..")
        } else {
            Ok(())
        }
    }
}
