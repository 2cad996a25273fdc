//! A poll's records, copied into one shared buffer.
//!
//! The client's own messages would each pin a whole fetch response and cost an allocation to
//! keep; one buffer a batch costs neither.

use std::ops::Range;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use rdkafka::message::{BorrowedHeaders, BorrowedMessage, Headers as _, Message, Timestamp};

use crate::record::{Batch, Entry, Headers, Record};

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
    /// Which entries have headers, and how many.
    with_headers: Vec<(usize, usize)>,
    names: Vec<Arc<str>>,
}

impl Decoder {
    pub(super) fn is_full(&self) -> bool {
        self.is_full_with(0, 0)
    }

    /// Whether it is full once so many records with so many bytes of values are pushed.
    pub(super) fn is_full_with(&self, records: usize, bytes: usize) -> bool {
        self.entries.len() + records >= BATCH_RECORDS || self.buffer.len() + bytes >= BATCH_BYTES
    }

    pub(crate) fn push(&mut self, message: &BorrowedMessage<'_>) {
        let start = self.buffer.len();
        let (key, value) = (message.key(), message.payload());
        self.buffer.extend_from_slice(key.unwrap_or_default());
        self.buffer.extend_from_slice(value.unwrap_or_default());
        let mut entry = Entry::new(message.offset(), start, key, value);
        entry.timestamp = message.timestamp().to_millis().unwrap_or(-1);
        entry.appended = matches!(message.timestamp(), Timestamp::LogAppendTime(_));
        let before = self.headers.len();
        // The client library panics on a header name that is not UTF-8.
        let copied = std::panic::catch_unwind(AssertUnwindSafe(|| self.push_headers(message)));
        if copied.is_err() {
            self.headers.truncate(before);
            entry.unreadable = message.headers().map(BorrowedHeaders::detach);
        }
        let headers = self.headers.len() - before;
        if headers > 0 {
            self.with_headers.push((self.entries.len(), headers));
        }
        self.entries.push(entry);
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

    /// The records gathered, which all share one batch.
    pub(crate) fn finish(&mut self, topic: &Arc<str>, partition: i32) -> Vec<Record> {
        let (size, count) = (self.buffer.len(), self.entries.len());
        let data: Bytes = self.buffer.split().freeze();
        // A partition's batches tend to be alike.
        self.buffer.reserve(size);
        let mut entries = std::mem::replace(&mut self.entries, Vec::with_capacity(count));
        let mut headers = self.headers.drain(..);
        for (index, count) in self.with_headers.drain(..) {
            let list = headers.by_ref().take(count);
            let list = list.map(|(name, value)| (name, value.map(|at| data.slice(at))));
            if let Some(entry) = entries.get_mut(index) {
                entry.headers = Headers::from_shared(list);
            }
        }
        let batch = Batch {
            topic: Arc::clone(topic),
            partition,
            data,
            entries,
        };
        batch.into_records()
    }
}
