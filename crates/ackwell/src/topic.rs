//! Topics and the events that live on them.
//!
//! A topic's name, its event type and its declared partitions belong together. Where they are
//! written apart, a service sends the right event to the wrong topic, or a broker creates a
//! topic with one partition and makes concurrency useless. [`Topic`] ties them into one constant
//! and [`Event`] names it, so sending takes an event and never a topic string.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use uuid::Uuid;

use crate::codec::{self, Codec};

/// What is appended to a topic's name for its dead letters.
pub const DEAD_LETTER_SUFFIX: &str = ackwell_core::envelope::DEAD_LETTER_SUFFIX;

/// A topic: its name, the events on it, and how it is created where it is missing.
///
/// ```
/// use std::time::Duration;
/// # use std::borrow::Cow;
/// use ackwell::{Event, Topic};
///
/// # #[derive(serde::Serialize, serde::Deserialize)]
/// # struct OrderPlaced { order_id: String }
/// # impl Event for OrderPlaced {
/// #     const TOPIC: Topic<Self> = ORDER_EVENTS;
/// #     fn event_type(&self) -> &'static str { "OrderPlaced" }
/// #     fn knows(event_type: &str) -> bool { event_type == "OrderPlaced" }
/// #     fn aggregate_id(&self) -> Cow<'_, str> { Cow::Borrowed(&self.order_id) }
/// # }
/// const ORDER_EVENTS: Topic<OrderPlaced> = Topic::new("order-events")
///     .partitions(12)
///     .retention(Duration::from_secs(7 * 24 * 3600));
///
/// assert_eq!(ORDER_EVENTS.dead_letter_name(), "order-events.DLQ");
/// ```
pub struct Topic<E> {
    name: &'static str,
    partitions: Option<u16>,
    retention: Option<Duration>,
    event_types: &'static [&'static str],
    event: PhantomData<fn() -> E>,
}

impl<E> Topic<E> {
    /// With how many partitions a topic is created if it declares none: enough for two instances with three
    /// lanes each, few enough for a laptop.
    pub const DEFAULT_PARTITIONS: u16 = 6;

    /// The topic `name`; where it is missing, it is created with [`Topic::DEFAULT_PARTITIONS`]
    /// partitions and the broker's retention.
    ///
    /// # Panics
    /// When the name is empty: a compile error in a constant.
    pub const fn new(name: &'static str) -> Self {
        assert!(!name.is_empty(), "a topic needs a name");
        Self {
            name,
            partitions: None,
            retention: None,
            event_types: &[],
            event: PhantomData,
        }
    }

    /// The number of partitions with which the topic is created. A topic on the broker with fewer
    /// is an error at start; one with more is fine.
    ///
    /// # Panics
    /// When it is 0: a compile error in a constant.
    #[must_use]
    pub const fn partitions(mut self, partitions: u16) -> Self {
        assert!(partitions > 0, "a topic has at least one partition");
        self.partitions = Some(partitions);
        self
    }

    /// How long records are kept (`retention.ms`). Without it the broker decides.
    #[must_use]
    pub const fn retention(mut self, retention: Duration) -> Self {
        self.retention = Some(retention);
        self
    }

    /// Every event type that is sent to the topic. A listener on it whose handlers do not know one
    /// of them, or know one that is none of them, then does not start.
    #[must_use]
    pub const fn event_types(mut self, types: &'static [&'static str]) -> Self {
        self.event_types = types;
        self
    }

    /// The topic's name.
    pub const fn name(&self) -> &'static str {
        self.name
    }

    /// The topic's dead letters live on `<name>.DLQ`.
    pub fn dead_letter_name(&self) -> String {
        format!("{}{DEAD_LETTER_SUFFIX}", self.name)
    }

    /// The same without its event type: what creating and checking need.
    pub const fn declaration(&self) -> TopicDeclaration {
        TopicDeclaration {
            name: Cow::Borrowed(self.name),
            partitions: self.partitions,
            retention: self.retention,
            event_types: self.event_types,
        }
    }
}

impl<E> Clone for Topic<E> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<E> Copy for Topic<E> {}

impl<E> fmt::Debug for Topic<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Topic")
            .field("name", &self.name)
            .field("partitions", &self.partitions)
            .field("retention", &self.retention)
            .finish()
    }
}

/// What a topic must look like on the broker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicDeclaration {
    /// Its name.
    pub name: Cow<'static, str>,
    /// The least number of partitions, and the number with which it is created; `None` creates
    /// [`Topic::DEFAULT_PARTITIONS`] and takes the topic as it is.
    pub partitions: Option<u16>,
    /// How long records are kept; `None` leaves it to the broker.
    pub retention: Option<Duration>,
    /// The event types that are sent to it; empty if that is not told.
    pub event_types: &'static [&'static str],
}

impl TopicDeclaration {
    /// A topic known by name only, as in configuration files.
    pub fn named(name: impl Into<Cow<'static, str>>) -> Self {
        Self {
            name: name.into(),
            partitions: None,
            retention: None,
            event_types: &[],
        }
    }
}

impl<E> From<Topic<E>> for TopicDeclaration {
    fn from(topic: Topic<E>) -> Self {
        topic.declaration()
    }
}

impl From<&'static str> for TopicDeclaration {
    fn from(name: &'static str) -> Self {
        Self::named(name)
    }
}

/// Something that happened to an aggregate, as it stands on a topic.
///
/// One type stands for all that a listener expects on a topic: a struct for one event, an enum
/// for several. With an enum, let serde carry the variant's fields only and tell the variants
/// apart by `#[serde(tag = "..")]`, or untagged; the header `eventType` must agree with
/// [`Event::event_type`]. Where handlers of their own shall take the events of one topic, give each
/// its own struct and join the handlers by
/// [`on_event`](crate::listener::ListenerBuilder::on_event).
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not an event",
    label = "implement `ackwell::Event` for it",
    note = "an event says its topic, type and aggregate id; for values without an envelope use `Json<T>` or `Payload<T>`"
)]
pub trait Event: Serialize + DeserializeOwned + Send + Sync + Sized + 'static {
    /// Where it is sent.
    const TOPIC: Topic<Self>;

    /// The types that this type decodes, by their names in the header `eventType`. What is listed
    /// here can be checked when a listener starts.
    const TYPES: &'static [&'static str] = &[];

    /// Its type, the header `eventType`: `"StockValidRequested"`.
    fn event_type(&self) -> &'static str;

    /// Whether `event_type` is one of those that this type decodes. A record of another type is a
    /// permanent failure and is dead-lettered: an unknown event is never skipped in silence.
    ///
    /// Default: those of [`TYPES`](Event::TYPES). Write one of the two.
    fn knows(event_type: &str) -> bool {
        Self::TYPES.contains(&event_type)
    }

    /// The aggregate that it happened to: the record's key, which keeps its events in order.
    fn aggregate_id(&self) -> Cow<'_, str>;

    /// An id that follows from the event itself, so that sending twice is the same event.
    /// `None` gives it a new UUIDv7.
    fn event_id(&self) -> Option<Uuid> {
        None
    }

    /// How its value is written and read; default: JSON.
    fn codec() -> &'static dyn Codec<Self> {
        &codec::Json
    }
}
