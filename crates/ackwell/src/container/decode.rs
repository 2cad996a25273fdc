//! A poll's records, copied into one shared buffer.
//!
//! The client's own messages would each pin a whole fetch response and cost an allocation to
//! keep; one buffer a batch costs neither.

use std::ops::Range;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use rdkafka::message::{BorrowedMessage, Headers as _, Message};

use crate::record::{Headers, Place, Record};

/// Records taken from a partition at once, as Kafka's `max.poll.records`.
pub(super) const BATCH_RECORDS: usize = 500;
/// Their bytes: a kept record keeps its batch in memory, so a batch stays small.
const BATCH_BYTES: usize = 1 << 20;
/// Header names remembered, so that they are not allocated again for each record.
const NAMES_MAX: usize = 64;

/// Gathers records of one partition.
#[derive(Debug, Default)]
pub(crate) struct Decoder {
    buffer: BytesMut,
    entries: Vec<Entry>,
    headers: Vec<(Arc<str>, Option<Range<usize>>)>,
    names: Vec<Arc<str>>,
}

#[derive(Debug)]
struct Entry {
    offset: i64,
    timestamp: i64,
    data: Range<usize>,
    key_len: Option<u32>,
    has_value: bool,
    headers: usize,
    readable: bool,
}

impl Decoder {
    pub(super) fn is_full(&self) -> bool {
        self.entries.len() >= BATCH_RECORDS || self.buffer.len() >= BATCH_BYTES
    }

    pub(crate) fn push(&mut self, message: &BorrowedMessage<'_>) {
        let start = self.buffer.len();
        let (key, value) = (message.key(), message.payload());
        self.buffer.extend_from_slice(key.unwrap_or_default());
        self.buffer.extend_from_slice(value.unwrap_or_default());
        let data = start..self.buffer.len();
        let before = self.headers.len();
        // The client library panics on a header name that is not UTF-8.
        let copied = std::panic::catch_unwind(AssertUnwindSafe(|| self.push_headers(message)));
        if copied.is_err() {
            self.headers.truncate(before);
        }
        self.entries.push(Entry {
            offset: message.offset(),
            timestamp: message.timestamp().to_millis().unwrap_or(-1),
            data,
            key_len: key.map(|key| u32::try_from(key.len()).unwrap_or(u32::MAX)),
            has_value: value.is_some(),
            headers: self.headers.len() - before,
            readable: copied.is_ok(),
        });
    }

    fn push_headers(&mut self, message: &BorrowedMessage<'_>) {
        let Some(headers) = message.headers() else {
            return;
        };
        for header in headers.iter() {
            let value = header.value.map(|value| {
                let start = self.buffer.len();
                self.buffer.extend_from_slice(value);
                start..self.buffer.len()
            });
            let name = self.name(header.key);
            self.headers.push((name, value));
        }
    }

    fn name(&mut self, name: &str) -> Arc<str> {
        if let Some(known) = self.names.iter().find(|known| &***known == name) {
            return Arc::clone(known);
        }
        let name: Arc<str> = name.into();
        if self.names.len() < NAMES_MAX {
            self.names.push(Arc::clone(&name));
        }
        name
    }

    /// The records gathered, which all share one buffer.
    pub(crate) fn finish(&mut self, topic: &Arc<str>, partition: i32) -> Vec<Record> {
        let size = self.buffer.len();
        let shared: Bytes = self.buffer.split().freeze();
        // A partition's batches tend to be alike.
        self.buffer.reserve(size);
        let mut headers = self.headers.drain(..);
        let mut records = Vec::with_capacity(self.entries.len());
        for entry in self.entries.drain(..) {
            let place = Place {
                topic: Arc::clone(topic),
                partition,
                offset: entry.offset,
                timestamp: entry.timestamp,
            };
            let data = shared.slice(entry.data);
            let mut record = Record::from_slice(place, entry.key_len, entry.has_value, data);
            if entry.headers > 0 {
                let list = headers.by_ref().take(entry.headers);
                let list = list.map(|(name, value)| (name, value.map(|at| shared.slice(at))));
                record = record.with_headers(Headers::from_shared(list));
            }
            if !entry.readable {
                record = record.with_unreadable_headers();
            }
            records.push(record);
        }
        records
    }
}
