//! Records that were polled together, and what each of them is.

use std::fmt;
use std::ops::Range;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use bytes::Bytes;
use rdkafka::message::OwnedHeaders;

use super::{Headers, Record};
use crate::returned::Returned;

/// Records of one partition that were polled together.
///
/// Where they stand and how long they are is known at once. What they hold is
/// [read](Batch::contents) when somebody first looks: by the thread that handles them, as a rule,
/// while the one that polls goes on.
pub(crate) struct Batch {
    pub(super) topic: Arc<str>,
    pub(super) partition: i32,
    pub(super) places: Vec<Place>,
    contents: OnceLock<Contents>,
    unread: Mutex<Option<Read>>,
}

/// Reads what a batch holds.
type Read = Box<dyn FnOnce() -> Contents + Send>;

/// Where one record stands.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    pub(super) offset: i64,
    /// Where its key begins, directly followed by its value.
    start: usize,
    key_len: Option<u32>,
    value_len: Option<u32>,
    /// How many bytes of headers it is taken to have: about as many as those before it.
    header_bytes: u32,
    /// How it came back by a retry topic.
    pub(super) returned: Option<Box<Returned>>,
}

/// What records hold.
#[derive(Debug, Default)]
pub(crate) struct Contents {
    /// The keys and values of all of them.
    pub(crate) data: Bytes,
    /// What else there is to each.
    pub(crate) details: Vec<Detail>,
}

/// What there is to a record besides its key and value.
#[derive(Debug, Clone)]
pub(crate) struct Detail {
    /// Milliseconds since the Unix epoch; -1 is none.
    pub(crate) timestamp: i64,
    /// Whether the timestamp is the broker's, from when the record was appended.
    pub(crate) appended: bool,
    pub(crate) headers: Headers,
    /// Headers that are no text, as the client library holds them: nobody can read them, and yet
    /// they can be passed on as they are.
    pub(crate) unreadable: Option<OwnedHeaders>,
}

impl Detail {
    pub(super) const NONE: Self = Detail {
        timestamp: -1,
        appended: false,
        headers: Headers::new(),
        unreadable: None,
    };
}

impl Contents {
    /// Bytes of headers a record.
    pub(crate) fn header_bytes(&self) -> usize {
        let bytes: usize = self
            .details
            .iter()
            .map(|detail| detail.headers.size())
            .sum();
        bytes.checked_div(self.details.len()).unwrap_or(0)
    }
}

impl Batch {
    /// Records whose contents are read later. `read` gives a detail for each place.
    pub(crate) fn unread(
        topic: Arc<str>,
        partition: i32,
        places: Vec<Place>,
        read: impl FnOnce() -> Contents + Send + 'static,
    ) -> Self {
        Batch {
            topic,
            partition,
            places,
            contents: OnceLock::new(),
            unread: Mutex::new(Some(Box::new(read))),
        }
    }

    /// One record.
    pub(super) fn of_one(
        topic: Arc<str>,
        partition: i32,
        place: Place,
        contents: Contents,
    ) -> Self {
        Batch {
            topic,
            partition,
            places: vec![place],
            contents: OnceLock::from(contents),
            unread: Mutex::new(None),
        }
    }

    /// Its records, in order.
    pub(crate) fn into_records(self: Arc<Self>) -> Vec<Record> {
        let count = self.places.len();
        let shared = std::iter::repeat_n(self, count);
        let records = shared.zip(0..count);
        records
            .map(|(batch, index)| Record { batch, index })
            .collect()
    }

    /// What its records hold; the first to ask reads it, and others wait for that.
    pub(crate) fn contents(&self) -> &Contents {
        self.contents.get_or_init(|| {
            let read = self
                .unread
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .take();
            read.map_or_else(Contents::default, |read| read())
        })
    }

    /// Whether somebody has looked at what its records hold.
    pub(crate) fn is_read(&self) -> bool {
        self.contents.get().is_some()
    }
}

impl fmt::Debug for Batch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Batch")
            .field("topic", &self.topic)
            .field("partition", &self.partition)
            .field("records", &self.places.len())
            .finish_non_exhaustive()
    }
}

impl Place {
    /// A record whose key and value begin at `start` of its batch's data.
    pub(crate) fn new(offset: i64, start: usize, key: Option<&[u8]>, value: Option<&[u8]>) -> Self {
        Place {
            offset,
            start,
            key_len: key.map(len),
            value_len: value.map(len),
            header_bytes: 0,
            returned: None,
        }
    }

    /// The same with so many bytes of headers.
    pub(crate) fn with_headers_of(self, bytes: usize) -> Self {
        Place {
            header_bytes: u32::try_from(bytes).unwrap_or(u32::MAX),
            ..self
        }
    }

    pub(super) fn data_size(&self) -> usize {
        self.key_len.unwrap_or(0) as usize + self.value_len.unwrap_or(0) as usize
    }

    /// Where the next one begins.
    pub(crate) fn end(&self) -> usize {
        self.start + self.data_size()
    }

    /// About how many bytes there are, without a look at them. It never changes.
    pub(crate) fn size(&self) -> usize {
        self.data_size() + self.header_bytes as usize
    }

    pub(super) fn key(&self) -> Option<Range<usize>> {
        let len = self.key_len?;
        Some(self.start..self.start + len as usize)
    }

    pub(super) fn value(&self) -> Option<Range<usize>> {
        let start = self.start + self.key_len.unwrap_or(0) as usize;
        Some(start..start + self.value_len? as usize)
    }
}

/// Kafka gives lengths as 32 bits; more does not fit into a request.
fn len(bytes: &[u8]) -> u32 {
    u32::try_from(bytes.len()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    fn unread(values: &[&'static str], reads: &Arc<AtomicUsize>) -> Vec<Record> {
        let (mut places, mut data) = (Vec::new(), Vec::new());
        for (offset, value) in (7..).zip(values) {
            let place = Place::new(offset, data.len(), None, Some(value.as_bytes()));
            places.push(place.with_headers_of(100));
            data.extend_from_slice(value.as_bytes());
        }
        let (details, reads) = (vec![Detail::NONE; values.len()], Arc::clone(reads));
        let batch = Batch::unread("t".into(), 3, places, move || {
            reads.fetch_add(1, Ordering::Relaxed);
            Contents {
                data: data.into(),
                details,
            }
        });
        Arc::new(batch).into_records()
    }

    #[test]
    fn what_a_batch_holds_is_read_once_and_only_for_who_looks() {
        let reads = Arc::default();
        let records = unread(&["first", "", "third"], &reads);
        let last = &records[2];
        assert_eq!((last.topic(), last.partition(), last.offset()), ("t", 3, 9));
        assert_eq!((records.len(), reads.load(Ordering::Relaxed)), (3, 0));
        assert_eq!(last.value(), Some(&b"third"[..]));
        assert_eq!(records[1].value(), Some(&b""[..]));
        assert_eq!(records[0].timestamp(), None);
        assert_eq!(reads.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn records_that_are_counted_before_they_are_read_count_the_same_behind() {
        use ackwell_core::engine::Record as Counted;
        let records = unread(&["first"], &Arc::default());
        let before = Counted::size(&records[0]);
        assert_eq!(records[0].size(), 5, "what it really has");
        assert_eq!((before, Counted::size(&records[0])), (105, 105));
    }

    #[test]
    fn threads_that_look_at_the_same_time_read_once() {
        let reads = Arc::default();
        let records = unread(&["first", "second"], &reads);
        std::thread::scope(|scope| {
            for record in &records {
                scope.spawn(|| assert!(record.value().is_some_and(|value| value.len() > 4)));
            }
        });
        assert_eq!(reads.load(Ordering::Relaxed), 1);
    }
}
