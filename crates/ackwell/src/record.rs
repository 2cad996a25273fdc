//! A record as polled.
//!
//! The bytes of all records of a poll lie in one shared buffer, so that a record costs no
//! allocation of its own and can be cloned, sent to another thread and kept for a retry.

use std::sync::Arc;

use bytes::Bytes;

/// One Kafka record. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Record {
    topic: Arc<str>,
    partition: i32,
    offset: i64,
    timestamp: i64,
    key_len: Option<u32>,
    has_value: bool,
    undecodable: bool,
    /// The key, directly followed by the value.
    data: Bytes,
    headers: Headers,
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
        let mut data = Vec::new();
        data.extend_from_slice(key.unwrap_or_default());
        data.extend_from_slice(value.unwrap_or_default());
        Record::from_slice(
            Place {
                topic: topic.into(),
                partition,
                offset,
                timestamp: -1,
            },
            key.map(|key| u32::try_from(key.len()).unwrap_or(u32::MAX)),
            value.is_some(),
            data.into(),
        )
    }

    /// A record whose key (its first `key_len` bytes) and value lie next to each other in `data`.
    pub(crate) fn from_slice(
        place: Place,
        key_len: Option<u32>,
        has_value: bool,
        data: Bytes,
    ) -> Self {
        let Place {
            topic,
            partition,
            offset,
            timestamp,
        } = place;
        let headers = Headers::new();
        Record {
            topic,
            partition,
            offset,
            timestamp,
            key_len,
            has_value,
            undecodable: false,
            data,
            headers,
        }
    }

    /// The same record with these headers.
    #[must_use]
    pub fn with_headers(mut self, headers: Headers) -> Self {
        self.headers = headers;
        self
    }

    /// The same record with this timestamp, in milliseconds since the Unix epoch.
    #[must_use]
    pub fn with_timestamp(mut self, millis: i64) -> Self {
        self.timestamp = millis;
        self
    }

    pub(crate) fn with_unreadable_headers(mut self) -> Self {
        self.undecodable = true;
        self
    }

    /// Whether the client library could not read the record's headers.
    pub(crate) fn has_unreadable_headers(&self) -> bool {
        self.undecodable
    }

    /// The topic it was read from.
    pub fn topic(&self) -> &str {
        &self.topic
    }

    /// The topic's name, shared by all of its records.
    pub fn shared_topic(&self) -> Arc<str> {
        Arc::clone(&self.topic)
    }

    /// The partition it was read from.
    pub fn partition(&self) -> i32 {
        self.partition
    }

    /// Its offset within the partition.
    pub fn offset(&self) -> i64 {
        self.offset
    }

    /// Milliseconds since the Unix epoch: when it was created or appended, as the topic's
    /// `message.timestamp.type` says. `None` if the producer gave none.
    pub fn timestamp(&self) -> Option<i64> {
        (self.timestamp >= 0).then_some(self.timestamp)
    }

    /// The key; `None` is no key, which differs from an empty one.
    pub fn key(&self) -> Option<&[u8]> {
        self.key_len
            .map(|len| self.data.get(..len as usize).unwrap_or_default())
    }

    /// The value; `None` is a tombstone, which differs from an empty one.
    pub fn value(&self) -> Option<&[u8]> {
        let start = self.key_len.unwrap_or(0) as usize;
        self.has_value
            .then(|| self.data.get(start..).unwrap_or_default())
    }

    /// The key as a slice of the shared buffer, to keep beyond the record.
    pub fn key_bytes(&self) -> Option<Bytes> {
        self.key().map(|key| self.data.slice_ref(key))
    }

    /// The value as a slice of the shared buffer, to keep beyond the record.
    pub fn value_bytes(&self) -> Option<Bytes> {
        self.value().map(|value| self.data.slice_ref(value))
    }

    /// The headers, in the order in which they were sent.
    pub fn headers(&self) -> &Headers {
        &self.headers
    }

    /// Bytes of key, value and headers.
    pub fn size(&self) -> usize {
        self.data.len() + self.headers.size()
    }
}

impl ackwell_core::engine::Record for Record {
    fn offset(&self) -> i64 {
        self.offset
    }

    fn key_hash(&self) -> Option<u64> {
        self.key()
            .map(|key| u64::from(ackwell_core::murmur2::hash(key)))
    }

    fn size(&self) -> usize {
        Record::size(self)
    }
}

/// Where and when a record stands.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    pub(crate) topic: Arc<str>,
    pub(crate) partition: i32,
    pub(crate) offset: i64,
    /// Milliseconds since the Unix epoch; -1 is none.
    pub(crate) timestamp: i64,
}

/// A record's headers in order; a name may occur more than once. Cheap to clone.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Headers {
    list: Option<Arc<Vec<Header>>>,
}

/// One header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    name: HeaderName,
    value: Option<Bytes>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum HeaderName {
    Static(&'static str),
    Shared(Arc<str>),
}

impl Headers {
    /// No headers.
    pub const fn new() -> Self {
        Headers { list: None }
    }

    /// Appends a header; headers of the same name stay.
    pub fn push(&mut self, name: impl AsRef<str>, value: impl Into<Bytes>) {
        self.push_header(HeaderName::Shared(name.as_ref().into()), Some(value.into()));
    }

    /// Appends a header whose value is null, which Kafka tells apart from an empty one.
    pub fn push_null(&mut self, name: impl AsRef<str>) {
        self.push_header(HeaderName::Shared(name.as_ref().into()), None);
    }

    /// As [`push`](Headers::push), without a copy of the name.
    pub fn push_static(&mut self, name: &'static str, value: impl Into<Bytes>) {
        self.push_header(HeaderName::Static(name), Some(value.into()));
    }

    /// Headers whose names and values are shared with other records.
    pub(crate) fn from_shared(list: impl Iterator<Item = (Arc<str>, Option<Bytes>)>) -> Self {
        let headers = list.map(|(name, value)| Header {
            name: HeaderName::Shared(name),
            value,
        });
        Headers {
            list: Some(Arc::new(headers.collect())),
        }
    }

    fn push_header(&mut self, name: HeaderName, value: Option<Bytes>) {
        Arc::make_mut(self.list.get_or_insert_default()).push(Header { name, value });
    }

    /// The last header of this name (as Kafka's `lastHeader`), if its value is not null.
    pub fn get(&self, name: &str) -> Option<&[u8]> {
        self.iter()
            .rev()
            .find(|header| header.name() == name)?
            .value()
    }

    /// As [`get`](Headers::get), if the value is UTF-8.
    pub fn get_str(&self, name: &str) -> Option<&str> {
        self.get(name)
            .and_then(|value| std::str::from_utf8(value).ok())
    }

    /// All headers in order.
    pub fn iter(&self) -> std::slice::Iter<'_, Header> {
        self.list
            .as_deref()
            .map(Vec::as_slice)
            .unwrap_or_default()
            .iter()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.list.as_ref().map_or(0, |list| list.len())
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn size(&self) -> usize {
        self.iter()
            .map(|header| header.name().len() + header.value.as_ref().map_or(0, Bytes::len))
            .sum()
    }
}

impl<'a> IntoIterator for &'a Headers {
    type Item = &'a Header;
    type IntoIter = std::slice::Iter<'a, Header>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl Header {
    /// Its name.
    pub fn name(&self) -> &str {
        match &self.name {
            HeaderName::Static(name) => name,
            HeaderName::Shared(name) => name,
        }
    }

    /// Its value; `None` is null, which differs from empty.
    pub fn value(&self) -> Option<&[u8]> {
        self.value.as_deref()
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
