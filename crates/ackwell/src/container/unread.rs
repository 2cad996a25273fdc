//! Batches that nobody has looked at yet.
//!
//! Until then they hold the client's own messages, and each message holds the whole response that
//! it came with. So they are few, those that wait are read whenever the poll thread has nothing else
//! to do, and none outlives its partition's stay.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

use rdkafka::consumer::base_consumer::PartitionQueue;

use super::consumer::Callbacks;
use super::decode::{Fetched, Names};
use crate::record::{Batch, Place};

/// Batches of a partition that may be unread. One more is read by the thread that takes it, which
/// still has it in its processor's cache: the others are behind, and it helps them.
const UNREAD_MAX: usize = 8;

/// The batches of one partition that may be unread.
pub(super) struct Unread {
    queue: Arc<PartitionQueue<Callbacks>>,
    topic: Arc<str>,
    partition: i32,
    /// The oldest first.
    batches: VecDeque<Weak<Batch>>,
    /// How many of them were there at the last look.
    seen: usize,
    names: Arc<Names>,
    /// Bytes of headers a record had in the batch that was read last.
    header_bytes: Arc<AtomicUsize>,
}

impl Unread {
    pub(super) fn of(
        queue: &Arc<PartitionQueue<Callbacks>>,
        topic: &Arc<str>,
        partition: i32,
    ) -> Self {
        Unread {
            queue: Arc::clone(queue),
            topic: Arc::clone(topic),
            partition,
            batches: VecDeque::new(),
            seen: 0,
            names: Arc::default(),
            header_bytes: Arc::default(),
        }
    }

    /// How many bytes of headers a record is taken to have, until it is read.
    pub(super) fn header_bytes(&self) -> usize {
        self.header_bytes.load(Ordering::Relaxed)
    }

    /// Messages as a batch, which is read when somebody looks at what it holds.
    pub(super) fn add(&mut self, places: Vec<Place>, fetched: Fetched) -> Arc<Batch> {
        let (topic, names) = (Arc::clone(&self.topic), Arc::clone(&self.names));
        let header_bytes = Arc::clone(&self.header_bytes);
        let read = move || {
            let contents = fetched.read(&names);
            header_bytes.store(contents.header_bytes(), Ordering::Relaxed);
            contents
        };
        let batch = Arc::new(Batch::unread(topic, self.partition, places, read));
        self.forget_read();
        if self.batches.len() < UNREAD_MAX {
            self.batches.push_back(Arc::downgrade(&batch));
        } else {
            batch.contents();
        }
        batch
    }

    /// Reads those that waited at the last call already.
    pub(super) fn read_waiting(&mut self) {
        self.forget_read();
        for _ in 0..self.seen {
            self.read_oldest();
        }
        self.seen = self.batches.len();
    }

    fn forget_read(&mut self) {
        let waits = |batch: &Weak<Batch>| batch.upgrade().is_some_and(|batch| !batch.is_read());
        while self.batches.front().is_some_and(|batch| !waits(batch)) {
            self.batches.pop_front();
            self.seen = self.seen.saturating_sub(1);
        }
    }

    fn read_oldest(&mut self) {
        let oldest = self.batches.pop_front();
        if let Some(batch) = oldest.and_then(|batch| batch.upgrade()) {
            batch.contents();
        }
        self.seen = self.seen.saturating_sub(1);
    }
}

/// A queue of the client that goes later than its partition would take away the callback of the
/// queue that replaces it, and a client that goes later than its container would leave its group
/// late. So nothing that was taken may refer to them any more.
impl Drop for Unread {
    fn drop(&mut self) {
        while !self.batches.is_empty() {
            self.read_oldest();
        }
        // Two stay: this one and its owner's. Any other is just being dropped by a thread that has
        // read or given up its batch.
        while Arc::strong_count(&self.queue) > 2 {
            std::thread::yield_now();
        }
    }
}
