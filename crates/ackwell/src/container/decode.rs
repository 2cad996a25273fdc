//! A poll's records, copied into one shared buffer.
//!
//! Kept, the client's own messages would each pin a whole fetch response; one buffer a batch pins
//! nothing. They are copied when somebody looks at what they hold: the thread that polls, which
//! all partitions share, leaves that to the threads that handle them.

use std::ops::Range;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use rdkafka::consumer::base_consumer::PartitionQueue;
use rdkafka::message::{BorrowedHeaders, BorrowedMessage, Headers as _, Message, Timestamp};
use self_cell::self_cell;

use super::consumer::Callbacks;
use crate::record::{Detail, Headers, Place, Record};

/// Header names remembered, so that they are not allocated again for each batch.
const NAMES_MAX: usize = 64;

type Messages<'queue> = Vec<BorrowedMessage<'queue>>;

self_cell!(
    /// Messages with the queue that they were taken from, which has to outlive them.
    pub(super) struct Fetched {
        owner: Arc<PartitionQueue<Callbacks>>,

        #[not_covariant]
        dependent: Messages,
    }
);

impl Fetched {
    /// Their keys and values, in one buffer.
    pub(super) fn data(&self) -> Bytes {
        self.with_dependent(|_, messages| data(messages))
    }

    /// What else there is to them.
    pub(super) fn details(&self, names: &Names) -> Vec<Detail> {
        self.with_dependent(|_, messages| details(messages, names))
    }
}

/// Header names that records share.
#[derive(Debug, Default)]
pub(crate) struct Names(Mutex<Vec<Arc<str>>>);

impl Names {
    fn get(&self, name: &str) -> Arc<str> {
        let mut names = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = find(&names, name) {
            return known;
        }
        let name: Arc<str> = name.into();
        if names.len() < NAMES_MAX {
            names.push(Arc::clone(&name));
        }
        name
    }
}

fn find(names: &[Arc<str>], name: &str) -> Option<Arc<str>> {
    names.iter().find(|known| &***known == name).cloned()
}

/// The place of a message whose key and value begin at `start` of its batch. Its headers are not
/// looked at: librdkafka only finds out whether there are any by building a buffer for them.
pub(super) fn place(message: &BorrowedMessage<'_>, start: usize, header_bytes: usize) -> Place {
    Place::new(message.offset(), start, message.key(), message.payload())
        .with_headers_of(header_bytes)
}

/// One message as a record.
pub(crate) fn record(topic: &Arc<str>, message: BorrowedMessage<'_>, names: &Names) -> Record {
    let (place, partition) = (place(&message, 0, 0), message.partition());
    let messages = [message];
    let detail = details(&messages, names).pop().unwrap_or(Detail::NONE);
    Record::read(Arc::clone(topic), partition, place, data(&messages), detail)
}

fn data(messages: &[BorrowedMessage<'_>]) -> Bytes {
    let sizes = messages
        .iter()
        .map(|message| message.key_len() + message.payload_len());
    let mut data = Vec::with_capacity(sizes.sum());
    for message in messages {
        data.extend_from_slice(message.key().unwrap_or_default());
        data.extend_from_slice(message.payload().unwrap_or_default());
    }
    data.into()
}

fn details(messages: &[BorrowedMessage<'_>], names: &Names) -> Vec<Detail> {
    let mut details = Vec::with_capacity(messages.len());
    let mut headers = HeaderReader::new(names);
    for message in messages {
        let (timestamp, appended) = match message.timestamp() {
            Timestamp::NotAvailable => (-1, false),
            Timestamp::CreateTime(millis) => (millis, false),
            Timestamp::LogAppendTime(millis) => (millis, true),
        };
        details.push(Detail {
            timestamp,
            appended,
            headers: Headers::new(),
            unreadable: headers.read(message),
        });
    }
    headers.finish(&mut details);
    details
}

/// Gathers the headers of a batch.
struct HeaderReader<'names> {
    shared: &'names Names,
    names: Vec<Arc<str>>,
    values: Vec<u8>,
    headers: Vec<(Arc<str>, Option<Range<usize>>)>,
    /// Which messages have headers, and how many.
    counts: Vec<(usize, usize)>,
    messages: usize,
}

impl<'names> HeaderReader<'names> {
    fn new(shared: &'names Names) -> Self {
        HeaderReader {
            shared,
            names: Vec::new(),
            values: Vec::new(),
            headers: Vec::new(),
            counts: Vec::new(),
            messages: 0,
        }
    }

    /// Takes the next message; gives back headers that can't be read.
    fn read(&mut self, message: &BorrowedMessage<'_>) -> Option<rdkafka::message::OwnedHeaders> {
        let index = self.messages;
        self.messages += 1;
        let headers = message.headers()?;
        let before = self.headers.len();
        // The client library panics on a header name that is not UTF-8.
        let copied = std::panic::catch_unwind(AssertUnwindSafe(|| self.push(headers)));
        if copied.is_err() {
            self.headers.truncate(before);
            return Some(BorrowedHeaders::detach(headers));
        }
        self.counts.push((index, self.headers.len() - before));
        None
    }

    fn push(&mut self, headers: &BorrowedHeaders) {
        for header in headers.iter() {
            let value = header.value.map(|value| {
                let start = self.values.len();
                self.values.extend_from_slice(value);
                start..self.values.len()
            });
            let name = self.name(header.key);
            self.headers.push((name, value));
        }
    }

    fn name(&mut self, name: &str) -> Arc<str> {
        if let Some(known) = find(&self.names, name) {
            return known;
        }
        let name = self.shared.get(name);
        if self.names.len() < NAMES_MAX {
            self.names.push(Arc::clone(&name));
        }
        name
    }

    fn finish(self, details: &mut [Detail]) {
        let values = Bytes::from(self.values);
        let mut headers = self.headers.into_iter();
        for (index, count) in self.counts {
            let list = headers.by_ref().take(count);
            let list = list.map(|(name, value)| (name, value.map(|at| values.slice(at))));
            if let Some(detail) = details.get_mut(index) {
                detail.headers = Headers::from_shared(list);
            }
        }
    }
}
