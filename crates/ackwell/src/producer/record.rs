use bytes::Bytes;
use rdkafka::message::OwnedHeaders;
use rdkafka::producer::BaseRecord;
use rdkafka::util::IntoOpaque;

use crate::codec::{Codec, CodecError};
use crate::encode::{CONTENT_TYPE, EncodedEvent};
use crate::record::Headers;

/// A record to be sent, by topic name. Events need none: see [`Producer::send`](super::Producer::send).
///
/// ```
/// use ackwell::producer::OutgoingRecord;
///
/// let record = OutgoingRecord::to("audit-events").key("user-7").value("signed in").partition(3);
/// assert_eq!(record.topic(), "audit-events");
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutgoingRecord {
    topic: std::borrow::Cow<'static, str>,
    partition: Option<i32>,
    key: Option<Bytes>,
    value: Option<Bytes>,
    timestamp: Option<i64>,
    headers: Headers,
}

impl OutgoingRecord {
    /// A record without key and value: a value of null is a tombstone.
    pub fn to(topic: impl Into<std::borrow::Cow<'static, str>>) -> Self {
        Self {
            topic: topic.into(),
            partition: None,
            key: None,
            value: None,
            timestamp: None,
            headers: Headers::new(),
        }
    }

    /// The key. Records of a key go to the same partition, as with the Java client.
    #[must_use]
    pub fn key(mut self, key: impl Into<Bytes>) -> Self {
        self.key = Some(key.into());
        self
    }

    /// The value.
    #[must_use]
    pub fn value(mut self, value: impl Into<Bytes>) -> Self {
        self.value = Some(value.into());
        self
    }

    /// The value as `codec` writes it, and the header `contentType` that says so.
    ///
    /// # Errors
    /// When the codec can't write it.
    pub fn encoded<T>(mut self, codec: &impl Codec<T>, value: &T) -> Result<Self, CodecError> {
        self.value = Some(codec.encode(value)?.into());
        let content_type = Bytes::from_static(codec.content_type().as_bytes());
        self.headers.push_static(CONTENT_TYPE, content_type);
        Ok(self)
    }

    /// An explicit partition in place of the key's.
    #[must_use]
    pub fn partition(mut self, partition: i32) -> Self {
        self.partition = Some(partition);
        self
    }

    /// When it was created, in milliseconds since the Unix epoch; default now.
    #[must_use]
    pub fn timestamp(mut self, millis: i64) -> Self {
        self.timestamp = Some(millis);
        self
    }

    /// Its headers.
    #[must_use]
    pub fn headers(mut self, headers: Headers) -> Self {
        self.headers = headers;
        self
    }

    /// Where it goes.
    pub fn topic(&self) -> &str {
        &self.topic
    }

    #[cfg(test)]
    pub(crate) fn own_headers(&self) -> &Headers {
        &self.headers
    }

    /// The same without these headers; `None` if it has none of them.
    pub(crate) fn without(&self, names: &[&str]) -> Option<Self> {
        let mut headers = self.headers.clone();
        names.iter().for_each(|name| headers.remove(name));
        let fewer = headers.len() < self.headers.len();
        fewer.then(|| self.clone().headers(headers))
    }

    /// Bytes of key, value and headers.
    pub(crate) fn size(&self) -> usize {
        let len = |bytes: &Option<Bytes>| bytes.as_ref().map_or(0, Bytes::len);
        let headers = self
            .headers
            .iter()
            .map(|h| h.name().len() + h.value().map_or(0, <[u8]>::len));
        len(&self.key) + len(&self.value) + headers.sum::<usize>()
    }

    /// With what comes back with its delivery report.
    pub(crate) fn to_client<D: IntoOpaque>(&self, opaque: D) -> BaseRecord<'_, [u8], [u8], D> {
        let mut record = BaseRecord::with_opaque_to(&self.topic, opaque);
        record.partition = self.partition;
        record.key = self.key.as_deref();
        record.payload = self.value.as_deref();
        record.timestamp = self.timestamp;
        if !self.headers.is_empty() {
            let room = OwnedHeaders::new_with_capacity(self.headers.len());
            record.headers = Some(self.headers.behind(room));
        }
        record
    }
}

impl From<EncodedEvent> for OutgoingRecord {
    fn from(event: EncodedEvent) -> Self {
        Self::to(event.topic)
            .key(event.key)
            .value(event.value)
            .headers(event.headers)
    }
}
