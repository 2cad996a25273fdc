//! Batches that hold the client's own messages.
//!
//! Each message pins the whole response that it came with, until all of its batch is read or the
//! batch is gone. So such batches are few, the poll thread reads those that have stood for a while,
//! and none outlives its partition's stay.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use ackwell_core::Timestamp;
use bytes::Bytes;
use rdkafka::consumer::base_consumer::PartitionQueue;

use super::consumer::Callbacks;
use super::decode::{Fetched, Names};
use crate::record::{Batch, Detail, Place, Source};

/// Batches of a partition that may be unread. One more is read by the thread that takes it, which
/// still has it in its processor's cache: the others are behind, and it helps them.
const UNREAD_MAX: usize = 8;
/// How long one may be unread: many times what a handler needs that does little, and too short for
/// the responses of a slow one's to add up.
const UNREAD_FOR_MAX: Duration = Duration::from_millis(20);

/// The batches of one partition that may be unread.
pub(super) struct Unread {
    queue: Arc<PartitionQueue<Callbacks>>,
    topic: Arc<str>,
    partition: i32,
    /// The oldest first, with the time at which it was taken.
    batches: VecDeque<(Timestamp, Weak<Batch>)>,
    names: Arc<Names>,
    /// Bytes of headers a record had in the batch whose headers were read last.
    header_bytes: Arc<AtomicUsize>,
}

/// The messages of a batch, and what is learned from them.
struct Messages {
    fetched: Fetched,
    names: Arc<Names>,
    header_bytes: Arc<AtomicUsize>,
}

impl Source for Messages {
    fn data(&self) -> Bytes {
        self.fetched.data()
    }

    fn details(&self) -> Vec<Detail> {
        let details = self.fetched.details(&self.names);
        let bytes: usize = details.iter().map(|detail| detail.headers.size()).sum();
        let each = bytes.checked_div(details.len()).unwrap_or(0);
        self.header_bytes.store(each, Ordering::Relaxed);
        details
    }
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
            names: Arc::default(),
            header_bytes: Arc::default(),
        }
    }

    /// How many bytes of headers a record is taken to have, until they are read.
    pub(super) fn header_bytes(&self) -> usize {
        self.header_bytes.load(Ordering::Relaxed)
    }

    /// Messages as a batch, which is read when somebody looks at what it holds.
    pub(super) fn add(
        &mut self,
        now: Timestamp,
        places: Vec<Place>,
        fetched: Fetched,
    ) -> Arc<Batch> {
        let messages = Messages {
            fetched,
            names: Arc::clone(&self.names),
            header_bytes: Arc::clone(&self.header_bytes),
        };
        let topic = Arc::clone(&self.topic);
        let batch = Arc::new(Batch::unread(topic, self.partition, places, messages));
        self.forget_read();
        if self.batches.len() < UNREAD_MAX {
            self.batches.push_back((now, Arc::downgrade(&batch)));
        } else {
            batch.details();
        }
        batch
    }

    /// Reads those that have been unread for too long; gives the time at which there is one more.
    pub(super) fn read_late(&mut self, now: Timestamp) -> Option<Timestamp> {
        while let Some(late) = self.late() {
            if late > now {
                return Some(late);
            }
            self.read_oldest();
        }
        None
    }

    /// When the oldest is unread for too long.
    fn late(&self) -> Option<Timestamp> {
        let (since, _) = self.batches.front()?;
        Some(*since + UNREAD_FOR_MAX)
    }

    fn forget_read(&mut self) {
        let waits = |batch: &Weak<Batch>| batch.upgrade().is_some_and(|batch| !batch.is_read());
        while let Some((_, batch)) = self.batches.front()
            && !waits(batch)
        {
            self.batches.pop_front();
        }
    }

    fn read_oldest(&mut self) {
        let oldest = self.batches.pop_front();
        if let Some(batch) = oldest.and_then(|(_, batch)| batch.upgrade()) {
            batch.details();
        }
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
