//! Records that were polled together, and what each of them is.

use std::fmt;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use bytes::Bytes;
use rdkafka::message::OwnedHeaders;

use super::{Headers, Record};
use crate::returned::Returned;

/// Records of one partition that were polled together.
///
/// Where they stand and how long they are is known at once. Their [keys and values](Batch::data)
/// and the [rest](Batch::details) are read when somebody first looks: by the thread that handles
/// them, as a rule, while the one that polls goes on. Headers cost as much as all else, so records
/// whose handler does not look at them are never asked for any.
pub(crate) struct Batch {
    pub(super) topic: Arc<str>,
    pub(super) partition: i32,
    pub(super) places: Vec<Place>,
    data: OnceLock<Bytes>,
    details: OnceLock<Vec<Detail>>,
    /// Where both are read from, until the details have been.
    source: Mutex<Option<Box<dyn Source>>>,
}

/// What a batch is read from.
pub(crate) trait Source: Send {
    /// The keys and values of all records, each behind the one before.
    fn data(&self) -> Bytes;

    /// What else there is to each of them.
    fn details(&self) -> Vec<Detail>;
}

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
    pub(crate) const NONE: Self = Detail {
        timestamp: -1,
        appended: false,
        headers: Headers::new(),
        unreadable: None,
    };
}

impl Batch {
    /// Records that are read later. `source` has a detail for each place.
    pub(crate) fn unread(
        topic: Arc<str>,
        partition: i32,
        places: Vec<Place>,
        source: impl Source + 'static,
    ) -> Self {
        Batch {
            topic,
            partition,
            places,
            data: OnceLock::new(),
            details: OnceLock::new(),
            source: Mutex::new(Some(Box::new(source))),
        }
    }

    /// One record.
    pub(super) fn of_one(
        topic: Arc<str>,
        partition: i32,
        place: Place,
        data: Bytes,
        detail: Detail,
    ) -> Self {
        Batch {
            topic,
            partition,
            places: vec![place],
            data: OnceLock::from(data),
            details: OnceLock::from(vec![detail]),
            source: Mutex::new(None),
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

    /// The keys and values of its records; the first to ask reads them, and others wait for that.
    pub(crate) fn data(&self) -> &Bytes {
        self.data.get_or_init(|| {
            let source = self.source();
            source
                .as_ref()
                .map_or_else(Bytes::default, |source| source.data())
        })
    }

    /// What else there is to its records; the first to ask reads all that is not read yet, and
    /// others wait for that.
    pub(crate) fn details(&self) -> &[Detail] {
        self.details.get_or_init(|| {
            self.data();
            // Taken first: nobody waits for the lock while it is read and let go.
            let source = self.source().take();
            source.map_or_else(Vec::new, |source| source.details())
        })
    }

    fn source(&self) -> MutexGuard<'_, Option<Box<dyn Source>>> {
        self.source.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether all is read, so that it holds nothing but its own memory.
    pub(crate) fn is_read(&self) -> bool {
        self.details.get().is_some()
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

    /// How often data and details were read.
    #[derive(Default)]
    struct Reads {
        data: AtomicUsize,
        details: AtomicUsize,
    }

    impl Reads {
        fn counted(&self) -> (usize, usize) {
            let load = |count: &AtomicUsize| count.load(Ordering::Relaxed);
            (load(&self.data), load(&self.details))
        }
    }

    struct Values(&'static [&'static str], Arc<Reads>);

    impl Source for Values {
        fn data(&self) -> Bytes {
            self.1.data.fetch_add(1, Ordering::Relaxed);
            self.0.concat().into()
        }

        fn details(&self) -> Vec<Detail> {
            self.1.details.fetch_add(1, Ordering::Relaxed);
            vec![Detail::NONE; self.0.len()]
        }
    }

    fn unread(values: &'static [&'static str], reads: &Arc<Reads>) -> Vec<Record> {
        let (mut places, mut start) = (Vec::new(), 0);
        for (offset, value) in (7..).zip(values) {
            let place = Place::new(offset, start, None, Some(value.as_bytes()));
            start = place.end();
            places.push(place.with_headers_of(100));
        }
        let source = Values(values, Arc::clone(reads));
        Arc::new(Batch::unread("t".into(), 3, places, source)).into_records()
    }

    #[test]
    fn what_a_batch_holds_is_read_once_and_only_for_who_looks() {
        let reads = Arc::default();
        let records = unread(&["first", "", "third"], &reads);
        let last = &records[2];
        assert_eq!((last.topic(), last.partition(), last.offset()), ("t", 3, 9));
        assert_eq!((records.len(), reads.counted()), (3, (0, 0)));
        assert_eq!(last.value(), Some(&b"third"[..]));
        assert_eq!(records[1].value(), Some(&b""[..]));
        assert_eq!(reads.counted(), (1, 0), "nobody has looked at headers");
        assert_eq!(records[0].timestamp(), None);
        assert!(records[1].headers().is_empty());
        assert_eq!(reads.counted(), (1, 1));
    }

    #[test]
    fn who_looks_at_the_rest_first_finds_the_values_later() {
        let reads = Arc::default();
        let records = unread(&["first", "second"], &reads);
        assert!(!records[0].has_unreadable_headers());
        assert_eq!(records[1].value(), Some(&b"second"[..]));
        assert_eq!(reads.counted(), (1, 1));
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
                scope.spawn(|| assert!(record.headers().is_empty()));
            }
        });
        assert_eq!(reads.counted(), (1, 1));
    }
}
