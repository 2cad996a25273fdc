//! The listener itself, for handlers that steer it.

use ackwell_core::seek::SeekTo;

use crate::container::TopicPartition;
use crate::context::Context;
use crate::extract::FromRecord;
use crate::failure::Failure;
use crate::listener::ListenerHandle;

/// Moves the listener from within a handler.
///
/// A seek is carried out when the records in work of its partition are finished, this one
/// included: it is settled as the handler says, and then the partition is read on from elsewhere.
/// A seek that is refused is logged, and so is one that a later seek of its partition overtakes. See [`ListenerHandle`] for what a seek does.
///
/// ```
/// use ackwell::extract::{Seek, Text};
/// use ackwell::core::seek::SeekTo;
///
/// async fn handle(Text(command): Text, seek: Seek) {
///     if command == "again" {
///         seek.to(SeekTo::Beginning);
///     }
/// }
/// # fn handler<A>(_: impl ackwell::Handler<A>) {}
/// # handler(handle);
/// ```
#[derive(Debug, Clone)]
pub struct Seek {
    listener: ListenerHandle,
    partition: TopicPartition,
}

impl Seek {
    /// Reads the record's own partition on from `to`.
    pub fn to(&self, to: SeekTo) {
        let TopicPartition { topic, partition } = &self.partition;
        self.in_partition(topic, *partition, to);
    }

    /// Reads another partition of the listener on from `to`.
    pub fn in_partition(&self, topic: &str, partition: i32, to: SeekTo) {
        if let Err(problem) = self.listener.request_seek(topic, partition, to) {
            tracing::warn!(topic, partition, ?to, %problem, "a seek was refused");
        }
    }
}

impl FromRecord for Seek {
    const LOOKS_AT_HEADERS: bool = false;

    fn from_record(cx: &mut Context) -> Result<Self, Failure> {
        let listener = listener(cx)?;
        let record = cx.record();
        let partition = TopicPartition::new(record.topic(), record.partition());
        Ok(Self {
            listener,
            partition,
        })
    }
}

impl FromRecord for ListenerHandle {
    const LOOKS_AT_HEADERS: bool = false;

    fn from_record(cx: &mut Context) -> Result<Self, Failure> {
        listener(cx)
    }
}

fn listener(cx: &Context) -> Result<ListenerHandle, Failure> {
    let missing = || Failure::permanent("this handler is called outside a listener");
    cx.listener().ok_or_else(missing)
}
