//! Records that come back by a retry topic.
//!
//! To the handler, the inbox and a dead letter such a record is the one that failed: it shows the
//! topic, partition, offset, timestamp and headers of its origin. What it carries beyond that,
//! written by `container/forward.rs`, is taken off here and kept beside it.

use std::sync::Arc;
use std::time::Duration;

use ackwell_core::Timestamp;
use ackwell_core::engine;
use ackwell_core::envelope::{RETRY_INFIX, failure, original, retry};
use bytes::Bytes;

use crate::dead_letters::first_told;

use crate::record::{Headers, Record};

/// The longest wait for a record that is not due: no listener may declare a longer delay, so one
/// that asks for more was not written by a listener.
const WAIT_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// How a record came back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Returned {
    /// Where the record that failed stood.
    pub(crate) topic: Arc<str>,
    pub(crate) partition: i32,
    pub(crate) offset: i64,
    /// Milliseconds since the Unix epoch; -1 is none.
    pub(crate) timestamp: i64,
    /// The retry topic's number.
    pub(crate) number: u32,
    /// How often it was tried before.
    pub(crate) attempts: u32,
    /// When it may be handled, by the container's clock.
    pub(crate) due: Timestamp,
    /// How it failed first.
    pub(crate) first: FirstFailure,
}

/// What is known of a record's first failure, as text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FirstFailure {
    pub(crate) timestamp: Bytes,
    pub(crate) class: Bytes,
    pub(crate) reason: Bytes,
}

impl FirstFailure {
    /// What a record brings along, from a retry topic or a replay, or else what its container
    /// knows.
    pub(crate) fn of(record: &Record, known: Option<&engine::FirstFailure>) -> Option<Self> {
        let brought = record.first_failure().cloned();
        let brought = brought.or_else(|| {
            let replayed = record.origin() != record.place();
            replayed.then(|| first_told(record.headers())).flatten()
        });
        brought.or_else(|| known.map(FirstFailure::from))
    }

    /// With so many bytes of its reason.
    pub(crate) fn shortened(mut self, most: usize) -> Self {
        let text = std::str::from_utf8(&self.reason);
        let end = text.map_or(most, |text| text.floor_char_boundary(most));
        self.reason.truncate(end);
        self
    }
}

/// The container's clock starts with the wall clock's time.
impl From<&engine::FirstFailure> for FirstFailure {
    fn from(first: &engine::FirstFailure) -> Self {
        let at = jiff::Timestamp::from_millisecond(first.at.as_millis()).unwrap_or_default();
        FirstFailure {
            timestamp: format!("{at:.3}").into(),
            class: Bytes::from_static(first.class.as_str().as_bytes()),
            reason: first.reason.clone().into(),
        }
    }
}

/// The moment at which records were read, by the container's clock, which never goes back, and
/// by the wall clock, which writers of other processes share.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Moment {
    pub(crate) container: Timestamp,
    pub(crate) wall: Timestamp,
}

/// What a record on a retry topic of `origin` turns out to be.
#[derive(Debug)]
pub(crate) enum Received {
    /// A record of this group that is to be tried again.
    Back(Record),
    /// Another group's.
    Foreign,
    /// Somebody has written it here by hand: a record like any other.
    Plain(Record),
}

/// Takes what a listener has added off a record that was read from a retry topic of `origin`.
pub(crate) fn receive(record: Record, origin: &Arc<str>, group: &str, now: Moment) -> Received {
    let headers = record.headers();
    let Some(at) = added_at(headers) else {
        return Received::Plain(record);
    };
    if headers.value_at(at, original::GROUP) != Some(group.as_bytes()) {
        return Received::Foreign;
    }
    match read(headers, at, origin, now) {
        Some(returned) => {
            let kept = headers.without(at..at + retry::HEADERS.len());
            Received::Back(record.returned(returned, kept))
        }
        None => Received::Plain(record),
    }
}

/// Where the last complete list of a retry topic's headers begins.
fn added_at(headers: &Headers) -> Option<usize> {
    let last = headers.len().checked_sub(retry::HEADERS.len())?;
    (0..=last).rev().find(|at| {
        let found = headers.iter().skip(*at).map(|header| header.name());
        found
            .zip(retry::HEADERS)
            .all(|(name, wanted)| name == wanted)
    })
}

fn read(headers: &Headers, at: usize, origin: &Arc<str>, now: Moment) -> Option<Returned> {
    let text = |name| std::str::from_utf8(headers.value_at(at, name)?).ok();
    let number = |name| text(name)?.parse::<i64>().ok();
    let bytes = |name| headers.value_at(at, name).map(Bytes::copy_from_slice);
    let topic = shared(text(original::TOPIC)?, origin)?;
    let due = Timestamp::from_millis(number(retry::DUE)?);
    let delay = Duration::from_millis(u64::try_from(number(retry::DELAY)?).ok()?);
    let first = FirstFailure {
        timestamp: bytes(failure::FIRST_TIMESTAMP)?,
        class: bytes(failure::FIRST_CLASS)?,
        reason: bytes(failure::FIRST_REASON)?,
    };
    Some(Returned {
        topic,
        partition: i32::try_from(number(original::PARTITION)?).ok()?,
        offset: number(original::OFFSET)?,
        timestamp: number(original::TIMESTAMP).unwrap_or(-1),
        number: u32::try_from(number(retry::NUMBER)?).ok()?,
        attempts: u32::try_from(number(failure::ATTEMPTS)?).ok()?,
        due: now.container + remaining(due, delay, now.wall),
        first,
    })
}

/// The topic that the record came from: the origin, or a retry topic of it to which somebody has
/// written by hand. Others are not believed.
fn shared(topic: &str, origin: &Arc<str>) -> Option<Arc<str>> {
    match topic.strip_prefix(&**origin)? {
        "" => Some(Arc::clone(origin)),
        rest => rest.starts_with(RETRY_INFIX).then(|| topic.into()),
    }
}

/// How long is still to wait. A writer whose clock is ahead can't make it longer than the whole
/// delay.
fn remaining(due: Timestamp, delay: Duration, wall: Timestamp) -> Duration {
    due.since(wall).min(delay).min(WAIT_MAX)
}

/// What a record takes with it to a retry topic.
pub(crate) struct Departure<'a> {
    pub(crate) record: &'a Record,
    pub(crate) group: &'a str,
    pub(crate) reason: &'a str,
    /// Bytes that a reason may have.
    pub(crate) reason_max: usize,
    pub(crate) class: &'static str,
    /// How it failed first, if its container knows of a failure before this one.
    pub(crate) first: Option<&'a engine::FirstFailure>,
    /// How often it was tried, everywhere.
    pub(crate) attempts: u32,
    pub(crate) number: u32,
    pub(crate) delay: Duration,
    /// The wall clock's time.
    pub(crate) now: jiff::Timestamp,
}

impl Departure<'_> {
    /// The headers to add behind the record's own.
    pub(crate) fn headers(&self) -> Headers {
        let record = self.record;
        let now = format!("{:.3}", self.now);
        let end = self.reason.floor_char_boundary(self.reason_max);
        let reason = Bytes::copy_from_slice(&self.reason.as_bytes()[..end]);
        let first = FirstFailure::of(record, self.first);
        let first = first.map(|first| first.shortened(self.reason_max));
        let first = first.unwrap_or_else(|| FirstFailure {
            timestamp: Bytes::from(now.clone()),
            class: Bytes::from_static(self.class.as_bytes()),
            reason: reason.clone(),
        });
        let timestamp = record
            .timestamp()
            .map_or_else(String::new, |at| at.to_string());
        // Both rounded up: whole milliseconds must not make the wait shorter.
        let delay = i64::try_from(self.delay.as_nanos().div_ceil(1_000_000)).unwrap_or(i64::MAX);
        let due = self
            .now
            .as_millisecond()
            .saturating_add(1)
            .saturating_add(delay);
        let values = [
            Bytes::copy_from_slice(record.topic().as_bytes()),
            record.partition().to_string().into(),
            record.offset().to_string().into(),
            timestamp.into(),
            Bytes::copy_from_slice(self.group.as_bytes()),
            reason,
            Bytes::from_static(self.class.as_bytes()),
            now.into(),
            self.attempts.to_string().into(),
            first.timestamp,
            first.class,
            first.reason,
            self.number.to_string().into(),
            due.to_string().into(),
            delay.to_string().into(),
        ];
        let mut headers = Headers::new();
        for (name, value) in retry::HEADERS.into_iter().zip(values) {
            headers.push_static(name, value);
        }
        headers
    }
}

impl Headers {
    /// The value of a header of the list that begins at `at`, if it is not null.
    fn value_at(&self, at: usize, name: &str) -> Option<&[u8]> {
        let place = retry::HEADERS.iter().position(|header| *header == name)?;
        self.iter().nth(at + place)?.value()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DELAY: Duration = Duration::from_secs(10);

    fn now(millis: i64) -> Moment {
        // The container's clock need not agree with the wall clock.
        Moment {
            container: Timestamp::from_millis(millis + 500),
            wall: Timestamp::from_millis(millis),
        }
    }

    fn failed() -> Record {
        let mut headers = Headers::new();
        headers.push("trace", &b"a"[..]);
        headers.push(retry::DUE, &b"a user's own"[..]);
        let record = Record::new("orders", 3, 42, Some(b"k"), None);
        record.with_headers(headers).with_timestamp(7)
    }

    fn departing<'a>(record: &'a Record, attempts: u32, number: u32) -> Departure<'a> {
        Departure {
            record,
            group: "g",
            reason: "the gateway is away",
            reason_max: 256,
            class: "transient",
            first: None,
            attempts,
            number,
            delay: DELAY,
            now: jiff::Timestamp::from_millisecond(1_000).expect("a time"),
        }
    }

    /// The record as it stands on the retry topic.
    fn written(departure: &Departure<'_>) -> Record {
        let mut headers = departure.record.headers().clone();
        for header in &departure.headers() {
            headers.push(header.name(), header.value().unwrap_or_default().to_vec());
        }
        let record = departure.record;
        Record::new("orders.retry.1", 3, 900, record.key(), record.value()).with_headers(headers)
    }

    fn back(record: Record, at: Moment) -> Record {
        match receive(record, &"orders".into(), "g", at) {
            Received::Back(record) => record,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_record_comes_back_as_the_one_that_failed() {
        let failed = failed();
        let back = back(written(&departing(&failed, 3, 1)), now(2_000));
        assert_eq!(
            (back.topic(), back.partition(), back.offset()),
            ("orders", 3, 42)
        );
        assert_eq!(
            (back.timestamp(), back.key(), back.value()),
            (Some(7), Some(&b"k"[..]), None)
        );
        assert_eq!(back.headers(), failed.headers());
        assert_eq!(back.read_from(), ("orders.retry.1", 3, 900));
        assert_eq!(back.identity().to_bytes(), failed.identity().to_bytes());
        assert_eq!((back.earlier_attempts(), back.retries()), (3, 1));
    }

    #[test]
    fn the_engine_sees_where_it_was_read_and_when_it_is_due() {
        use ackwell_core::engine::Record as _;
        let failed = failed();
        let back = back(written(&departing(&failed, 3, 1)), now(2_000));
        assert_eq!(ackwell_core::engine::Record::offset(&back), 900);
        // Written at 1.000, due at 11.001; it is 2.000 by the wall clock, 2.500 here.
        assert_eq!(back.due(), Some(Timestamp::from_millis(11_501)));
    }

    #[test]
    fn the_first_failure_is_kept_over_hops() {
        let failed = failed();
        let once = back(written(&departing(&failed, 3, 1)), now(2_000));
        let again = Departure {
            reason: "another one",
            class: "permanent",
            now: jiff::Timestamp::from_millisecond(20_000).expect("a time"),
            ..departing(&once, 4, 2)
        };
        let twice = back(written(&again), now(30_000));
        assert_eq!(twice.first_failure(), once.first_failure());
        assert_eq!((twice.offset(), twice.earlier_attempts()), (42, 4));
        assert_eq!(twice.headers(), failed.headers());
    }

    #[test]
    fn a_writers_clock_that_is_ahead_costs_one_delay_at_most() {
        use ackwell_core::engine::Record as _;
        let failed = failed();
        let back = back(written(&departing(&failed, 1, 1)), now(-3_600_000));
        assert_eq!(back.due(), Some(now(-3_600_000).container + DELAY));
    }

    #[test]
    fn another_groups_records_are_left_alone() {
        let failed = failed();
        let record = written(&departing(&failed, 1, 1));
        let received = receive(record, &"orders".into(), "other", now(0));
        assert!(matches!(received, Received::Foreign));
    }

    #[test]
    fn a_record_without_the_whole_list_is_one_like_any_other() {
        let failed = failed();
        let whole = written(&departing(&failed, 1, 1));
        let mut part = Headers::new();
        for header in whole.headers().iter().take(whole.headers().len() - 1) {
            part.push(header.name(), header.value().unwrap_or_default().to_vec());
        }
        let record = whole.with_headers(part);
        let received = receive(record, &"orders".into(), "g", now(0));
        let Received::Plain(plain) = received else {
            panic!("{received:?}")
        };
        assert_eq!((plain.topic(), plain.offset()), ("orders.retry.1", 900));
    }

    #[test]
    fn headers_added_behind_the_list_stay() {
        let failed = failed();
        let record = written(&departing(&failed, 1, 1));
        let mut headers = record.headers().clone();
        headers.push("proxy", &b"1"[..]);
        let back = back(record.with_headers(headers), now(0));
        assert_eq!(back.headers().len(), failed.headers().len() + 1);
        assert_eq!(back.headers().get("proxy"), Some(&b"1"[..]));
    }

    #[test]
    fn an_origin_that_is_not_the_topics_is_not_believed() {
        let failed = failed();
        let record = written(&departing(&failed, 1, 1));
        let received = receive(record, &"order".into(), "g", now(0));
        assert!(matches!(received, Received::Plain(_)), "{received:?}");
    }

    #[test]
    fn values_that_are_none_are_not_believed() {
        let failed = failed();
        for name in [
            retry::DUE,
            retry::NUMBER,
            original::OFFSET,
            failure::ATTEMPTS,
        ] {
            let record = written(&departing(&failed, 1, 1));
            let mut headers = Headers::new();
            for header in record.headers() {
                let value = header.value().unwrap_or_default().to_vec();
                let wrong = header.name() == name && value != b"a user's own";
                headers.push(header.name(), if wrong { b"-x".to_vec() } else { value });
            }
            let record = record.with_headers(headers);
            let received = receive(record, &"orders".into(), "g", now(0));
            assert!(
                matches!(received, Received::Plain(_)),
                "{name}: {received:?}"
            );
        }
    }
}
