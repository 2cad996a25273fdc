//! A record as polled.
//!
//! Records that were polled together share one batch, bytes and all: a record is a reference to
//! it and its place in it, so it costs no allocation of its own, moves as two words, and can be
//! cloned, sent to another thread and kept for a retry.

mod batch;
mod headers;

use std::fmt;
use std::sync::Arc;

use ackwell_core::Timestamp;
use bytes::Bytes;
use rdkafka::message::OwnedHeaders;

pub(crate) use batch::{Batch, Detail, Place, Source};
pub use headers::{Header, Headers};

use crate::returned::{FirstFailure, Returned};

/// One Kafka record. Cheap to clone.
pub struct Record {
    batch: Arc<Batch>,
    index: usize,
}

impl Clone for Record {
    fn clone(&self) -> Self {
        Record {
            batch: Arc::clone(&self.batch),
            index: self.index,
        }
    }

    /// Costs next to nothing between records that were polled together.
    fn clone_from(&mut self, source: &Self) {
        if !Arc::ptr_eq(&self.batch, &source.batch) {
            self.batch = Arc::clone(&source.batch);
        }
        self.index = source.index;
    }
}

impl Record {
    /// A record from its parts; mostly for tests of handlers.
    pub fn new(
        topic: impl Into<Arc<str>>,
        partition: i32,
        offset: i64,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
    ) -> Self {
        let data = [key.unwrap_or_default(), value.unwrap_or_default()].concat();
        let place = Place::new(offset, 0, key, value);
        Self::read(topic.into(), partition, place, data.into(), Detail::NONE)
    }

    /// A record that was read: its key directly followed by its value, and the rest.
    pub(crate) fn read(
        topic: Arc<str>,
        partition: i32,
        place: Place,
        data: Bytes,
        detail: Detail,
    ) -> Self {
        Record {
            batch: Arc::new(Batch::of_one(topic, partition, place, data, detail)),
            index: 0,
        }
    }

    /// The same record with these headers.
    #[must_use]
    pub fn with_headers(self, headers: Headers) -> Self {
        self.changed(|_, detail| detail.headers = headers)
    }

    /// The same record with this timestamp, in milliseconds since the Unix epoch.
    #[must_use]
    pub fn with_timestamp(self, millis: i64) -> Self {
        self.changed(|_, detail| detail.timestamp = millis)
    }

    fn changed(self, change: impl FnOnce(&mut Place, &mut Detail)) -> Self {
        let (mut place, mut detail) = (self.placed().clone(), self.detail().clone());
        change(&mut place, &mut detail);
        let topic = Arc::clone(&self.batch.topic);
        let data = self.batch.data().clone();
        Self::read(topic, self.batch.partition, place, data, detail)
    }

    fn placed(&self) -> &Place {
        // A record is made for each place of its batch, and batches don't change.
        &self.batch.places[self.index]
    }

    fn detail(&self) -> &Detail {
        // What reads a batch gives a detail for each place of it.
        &self.batch.details()[self.index]
    }

    /// Whether its headers could not be read: a name is no text. Such a record is dead-lettered as
    /// it is, and reaches no handler that [may look at them](crate::FromRecord::LOOKS_AT_HEADERS).
    pub fn has_unreadable_headers(&self) -> bool {
        self.detail().unreadable.is_some()
    }

    /// The headers that the client library could not read.
    pub(crate) fn unreadable_headers(&self) -> Option<&OwnedHeaders> {
        self.detail().unreadable.as_ref()
    }

    /// Whether the timestamp is the broker's (`message.timestamp.type=LogAppendTime`).
    pub(crate) fn is_stamped_by_broker(&self) -> bool {
        self.detail().appended
    }

    /// As it came back by a retry topic: what it shows is what it showed when it failed.
    pub(crate) fn returned(self, returned: Returned, headers: Headers) -> Self {
        self.changed(|place, detail| {
            place.returned = Some(Box::new(returned));
            detail.headers = headers;
        })
    }

    fn as_returned(&self) -> Option<&Returned> {
        self.placed().returned.as_deref()
    }

    /// Its topic. For a record that came back by a retry topic, here and in all that follows, it
    /// is that of the record that failed; see [`read_from`](Record::read_from).
    pub fn topic(&self) -> &str {
        self.as_returned()
            .map_or(&self.batch.topic, |came| &came.topic)
    }

    /// The topic's name, shared by all of its records.
    pub fn shared_topic(&self) -> Arc<str> {
        let came = self.as_returned();
        Arc::clone(came.map_or(&self.batch.topic, |came| &came.topic))
    }

    /// Its partition.
    pub fn partition(&self) -> i32 {
        let came = self.as_returned();
        came.map_or(self.batch.partition, |came| came.partition)
    }

    /// Its offset within the partition.
    pub fn offset(&self) -> i64 {
        let came = self.as_returned();
        came.map_or(self.placed().offset, |came| came.offset)
    }

    /// Milliseconds since the Unix epoch: when it was created or appended, as the topic's
    /// `message.timestamp.type` says. `None` if the producer gave none.
    pub fn timestamp(&self) -> Option<i64> {
        let came = self.as_returned();
        let timestamp = came.map_or_else(|| self.detail().timestamp, |came| came.timestamp);
        (timestamp >= 0).then_some(timestamp)
    }

    /// Topic, partition and offset from which it was read: a retry topic's, if it came back by
    /// one.
    pub fn read_from(&self) -> (&str, i32, i64) {
        let Batch {
            topic, partition, ..
        } = &*self.batch;
        (topic, *partition, self.placed().offset)
    }

    /// The offset at which it was read, also on a retry topic: the one that the engine knows, and
    /// that positions count.
    pub(crate) fn offset_read(&self) -> i64 {
        self.placed().offset
    }

    /// How many retry topics it has passed: 0 where it was first read.
    pub fn retries(&self) -> u32 {
        self.as_returned().map_or(0, |came| came.number)
    }

    /// How often it was tried before it came back by a retry topic.
    pub fn earlier_attempts(&self) -> u32 {
        self.as_returned().map_or(0, |came| came.attempts)
    }

    /// What its first failure was, if it came back by a retry topic.
    pub(crate) fn first_failure(&self) -> Option<&FirstFailure> {
        self.as_returned().map(|came| &came.first)
    }

    /// The key; `None` is no key, which differs from an empty one.
    pub fn key(&self) -> Option<&[u8]> {
        let key = self.placed().key()?;
        Some(self.batch.data().get(key).unwrap_or_default())
    }

    /// The value; `None` is a tombstone, which differs from an empty one.
    pub fn value(&self) -> Option<&[u8]> {
        let value = self.placed().value()?;
        Some(self.batch.data().get(value).unwrap_or_default())
    }

    /// The key as a slice of the shared buffer, to keep beyond the record.
    pub fn key_bytes(&self) -> Option<Bytes> {
        self.key().map(|key| self.batch.data().slice_ref(key))
    }

    /// The value as a slice of the shared buffer, to keep beyond the record.
    pub fn value_bytes(&self) -> Option<Bytes> {
        self.value().map(|value| self.batch.data().slice_ref(value))
    }

    /// The headers, in the order in which they were sent.
    pub fn headers(&self) -> &Headers {
        &self.detail().headers
    }

    /// Bytes of key, value and headers.
    pub fn size(&self) -> usize {
        self.placed().data_size() + self.headers().size()
    }
}

/// Where it stands and how large it is; what it holds may be nobody's business.
impl fmt::Debug for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Record")
            .field("topic", &self.topic())
            .field("partition", &self.partition())
            .field("offset", &self.offset())
            .field("size", &self.size())
            .finish_non_exhaustive()
    }
}

/// The engine works where the record was read; what the record shows may be its origin.
impl ackwell_core::engine::Record for Record {
    fn offset(&self) -> i64 {
        self.offset_read()
    }

    fn key_hash(&self) -> Option<u64> {
        self.key()
            .map(|key| u64::from(ackwell_core::murmur2::hash(key)))
    }

    /// With its headers estimated, which nobody may have read yet.
    fn size(&self) -> usize {
        self.placed().size()
    }

    fn due(&self) -> Option<Timestamp> {
        self.as_returned().map(|came| came.due)
    }

    fn retries(&self) -> u32 {
        Record::retries(self)
    }

    fn earlier_attempts(&self) -> u32 {
        Record::earlier_attempts(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn null_and_empty_are_told_apart() {
        let record = Record::new("t", 0, 1, None, Some(b""));
        assert_eq!((record.key(), record.value()), (None, Some(&b""[..])));
        let record = Record::new("t", 0, 1, Some(b""), None);
        assert_eq!((record.key(), record.value()), (Some(&b""[..]), None));
    }

    #[test]
    fn key_and_value_share_one_buffer() {
        let record = Record::new("t", 0, 1, Some(b"key"), Some(b"value"));
        assert_eq!(record.key(), Some(&b"key"[..]));
        assert_eq!(record.value_bytes().as_deref(), Some(&b"value"[..]));
        assert_eq!(record.size(), 8);
    }

    #[test]
    fn a_changed_record_leaves_the_one_it_came_from_as_it_was() {
        let before = Record::new("t", 0, 1, Some(b"key"), Some(b"value"));
        let after = before.clone().with_timestamp(7);
        assert_eq!((before.timestamp(), after.timestamp()), (None, Some(7)));
        assert_eq!((after.key(), after.value()), (before.key(), before.value()));
    }

    #[test]
    fn of_a_repeated_header_the_last_one_is_taken_out_first() {
        let mut headers = Headers::new();
        headers.push("hop", &b"1"[..]);
        headers.push("other", &b""[..]);
        headers.push("hop", &b"2"[..]);
        headers.remove_last("hop");
        assert_eq!((headers.len(), headers.get("hop")), (2, Some(&b"1"[..])));
        headers.remove("hop");
        headers.remove_last("hop");
        assert_eq!(headers.len(), 1);
    }

    #[test]
    fn a_repeated_header_is_kept_and_the_last_one_is_read() {
        let mut headers = Headers::new();
        headers.push("hop", &b"1"[..]);
        headers.push_static("hop", &b"2"[..]);
        headers.push_null("none");
        assert_eq!(headers.len(), 3);
        assert_eq!(headers.get("hop"), Some(&b"2"[..]));
        assert_eq!(headers.get("none"), None);
    }
}
