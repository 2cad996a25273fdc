//! A record's headers.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use rdkafka::message::OwnedHeaders;

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

    /// Takes out the last header of this name, if there is one; those before it stay.
    pub fn remove_last(&mut self, name: &str) {
        if let Some(at) = self.iter().rposition(|header| header.name() == name) {
            Arc::make_mut(self.list.get_or_insert_default()).remove(at);
        }
    }

    /// Takes out all headers of this name.
    pub fn remove(&mut self, name: &str) {
        self.retain(|header| header.name() != name);
    }

    /// Keeps those for which `keep` says so.
    pub fn retain(&mut self, keep: impl Fn(&Header) -> bool) {
        if !self.iter().all(&keep) {
            Arc::make_mut(self.list.get_or_insert_default()).retain(keep);
        }
    }

    /// Appends the headers of another list.
    pub fn append(&mut self, other: &Headers) {
        if !other.is_empty() {
            Arc::make_mut(self.list.get_or_insert_default()).extend(other.iter().cloned());
        }
    }

    /// Without those at these places.
    pub(crate) fn without(&self, places: Range<usize>) -> Headers {
        let mut headers = self.clone();
        if let Some(list) = headers.list.as_mut() {
            Arc::make_mut(list).drain(places);
        }
        headers
    }

    /// As the client library wants them, behind those that it already has.
    pub(crate) fn behind(&self, first: OwnedHeaders) -> OwnedHeaders {
        self.iter().fold(first, |all, header| {
            all.insert(rdkafka::message::Header {
                key: header.name(),
                value: header.value(),
            })
        })
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

    /// Whether there is one of this name, its value null or not.
    pub fn contains(&self, name: &str) -> bool {
        self.iter().any(|header| header.name() == name)
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

    pub(crate) fn size(&self) -> usize {
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
