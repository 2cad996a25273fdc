//! A record as polled.
//!
//! Records that were polled together share one batch, bytes and all: a record is a reference to
//! it and its place in it, so it costs no allocation of its own, moves as two words, and can be
//! cloned, sent to another thread and kept for a retry.

mod headers;

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use ackwell_core::Timestamp;
use bytes::Bytes;
use rdkafka::message::OwnedHeaders;

pub use headers::{Header, Headers};

use crate::returned::{FirstFailure, Returned};

/// One Kafka record. Cheap to clone.
#[derive(Clone)]
pub struct Record {
    batch: Arc<Batch>,
    index: usize,
}

/// Records of one partition that were polled together.
#[derive(Debug)]
pub(crate) struct Batch {
    pub(crate) topic: Arc<str>,
    pub(crate) partition: i32,
    /// The bytes of all of them.
    pub(crate) data: Bytes,
    pub(crate) entries: Vec<Entry>,
}

/// What is one record's own.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) offset: i64,
    /// Milliseconds since the Unix epoch; -1 is none.
    pub(crate) timestamp: i64,
    /// Where its key begins, directly followed by its value.
    pub(crate) start: usize,
    pub(crate) key_len: Option<u32>,
    pub(crate) value_len: Option<u32>,
    /// Whether the timestamp is the broker's, from when the record was appended.
    pub(crate) appended: bool,
    pub(crate) headers: Headers,
    /// Headers that are no text, as the client library holds them: nobody can read them, and yet
    /// they can be passed on as they are.
    pub(crate) unreadable: Option<OwnedHeaders>,
    /// How it came back by a retry topic.
    pub(crate) returned: Option<Box<Returned>>,
}

impl Batch {
    /// Its records, in order.
    pub(crate) fn into_records(self) -> Vec<Record> {
        let count = self.entries.len();
        let shared = std::iter::repeat_n(Arc::new(self), count);
        let records = shared.zip(0..count);
        records
            .map(|(batch, index)| Record { batch, index })
            .collect()
    }
}

impl Entry {
    /// An entry whose key and value begin at `start`.
    pub(crate) fn new(offset: i64, start: usize, key: Option<&[u8]>, value: Option<&[u8]>) -> Self {
        Entry {
            offset,
            timestamp: -1,
            start,
            key_len: key.map(len),
            value_len: value.map(len),
            appended: false,
            headers: Headers::new(),
            unreadable: None,
            returned: None,
        }
    }

    fn key(&self) -> Option<Range<usize>> {
        let len = self.key_len?;
        Some(self.start..self.start + len as usize)
    }

    fn value(&self) -> Option<Range<usize>> {
        let start = self.start + self.key_len.unwrap_or(0) as usize;
        Some(start..start + self.value_len? as usize)
    }
}

/// Kafka gives lengths as 32 bits; more does not fit into a request.
fn len(bytes: &[u8]) -> u32 {
    u32::try_from(bytes.len()).unwrap_or(u32::MAX)
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
        let batch = Batch {
            topic: topic.into(),
            partition,
            data: data.into(),
            entries: vec![Entry::new(offset, 0, key, value)],
        };
        Record {
            batch: Arc::new(batch),
            index: 0,
        }
    }

    /// The same record with these headers.
    #[must_use]
    pub fn with_headers(self, headers: Headers) -> Self {
        self.changed(|entry| entry.headers = headers)
    }

    /// The same record with this timestamp, in milliseconds since the Unix epoch.
    #[must_use]
    pub fn with_timestamp(self, millis: i64) -> Self {
        self.changed(|entry| entry.timestamp = millis)
    }

    fn changed(self, change: impl FnOnce(&mut Entry)) -> Self {
        let mut entry = self.entry().clone();
        change(&mut entry);
        let batch = Batch {
            topic: Arc::clone(&self.batch.topic),
            partition: self.batch.partition,
            data: self.batch.data.clone(),
            entries: vec![entry],
        };
        Record {
            batch: Arc::new(batch),
            index: 0,
        }
    }

    fn entry(&self) -> &Entry {
        // A record is made for each entry of its batch, and batches don't change.
        &self.batch.entries[self.index]
    }

    /// Whether its headers could not be read: a name is no text. Such a record is dead-lettered as
    /// it is, and reaches no handler.
    pub fn has_unreadable_headers(&self) -> bool {
        self.entry().unreadable.is_some()
    }

    /// The headers that the client library could not read.
    pub(crate) fn unreadable_headers(&self) -> Option<&OwnedHeaders> {
        self.entry().unreadable.as_ref()
    }

    /// Whether the timestamp is the broker's (`message.timestamp.type=LogAppendTime`).
    pub(crate) fn is_stamped_by_broker(&self) -> bool {
        self.entry().appended
    }

    /// As it came back by a retry topic: what it shows is what it showed when it failed.
    pub(crate) fn returned(self, returned: Returned, headers: Headers) -> Self {
        self.changed(|entry| {
            entry.returned = Some(Box::new(returned));
            entry.headers = headers;
        })
    }

    fn as_returned(&self) -> Option<&Returned> {
        self.entry().returned.as_deref()
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
        let entry = self.entry();
        let came = entry.returned.as_deref();
        came.map_or(entry.offset, |came| came.offset)
    }

    /// Milliseconds since the Unix epoch: when it was created or appended, as the topic's
    /// `message.timestamp.type` says. `None` if the producer gave none.
    pub fn timestamp(&self) -> Option<i64> {
        let entry = self.entry();
        let came = entry.returned.as_deref();
        let timestamp = came.map_or(entry.timestamp, |came| came.timestamp);
        (timestamp >= 0).then_some(timestamp)
    }

    /// Topic, partition and offset from which it was read: a retry topic's, if it came back by
    /// one.
    pub fn read_from(&self) -> (&str, i32, i64) {
        let Batch {
            topic, partition, ..
        } = &*self.batch;
        (topic, *partition, self.entry().offset)
    }

    /// The offset at which it was read, also on a retry topic: the one that the engine knows, and
    /// that positions count.
    pub(crate) fn offset_read(&self) -> i64 {
        self.entry().offset
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
        let key = self.entry().key()?;
        Some(self.batch.data.get(key).unwrap_or_default())
    }

    /// The value; `None` is a tombstone, which differs from an empty one.
    pub fn value(&self) -> Option<&[u8]> {
        let value = self.entry().value()?;
        Some(self.batch.data.get(value).unwrap_or_default())
    }

    /// The key as a slice of the shared buffer, to keep beyond the record.
    pub fn key_bytes(&self) -> Option<Bytes> {
        self.key().map(|key| self.batch.data.slice_ref(key))
    }

    /// The value as a slice of the shared buffer, to keep beyond the record.
    pub fn value_bytes(&self) -> Option<Bytes> {
        self.value().map(|value| self.batch.data.slice_ref(value))
    }

    /// The headers, in the order in which they were sent.
    pub fn headers(&self) -> &Headers {
        &self.entry().headers
    }

    /// Bytes of key, value and headers.
    pub fn size(&self) -> usize {
        let entry = self.entry();
        let data = entry.key_len.unwrap_or(0) as usize + entry.value_len.unwrap_or(0) as usize;
        data + entry.headers.size()
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

    fn size(&self) -> usize {
        Record::size(self)
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
