//! By what a record is recognised when it comes again, at the same place or at another.
//!
//! A redelivery has the same place. A record that a retry topic or a replay brings back has
//! another one, and must be recognised all the same, or it would take effect a second time. And
//! a dead letter must not be taken for the record that it holds: who notes a failed order has
//! not handled the order.

use ackwell_core::envelope::{EVENT_ID, RETRY_INFIX, failure, original, replay};
use uuid::Uuid;

use crate::record::Record;

/// Spring's retry topics are named `<topic>-retry`, `<topic>-retry-<n>`.
const SPRING_RETRY: &str = "-retry";

/// Kafka's word for a record without one.
const NO_TIMESTAMP: i64 = -1;

/// Where a record was first read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Origin<'a> {
    /// The topic.
    pub topic: &'a str,
    /// The partition.
    pub partition: i32,
    /// The offset.
    pub offset: i64,
    /// Its timestamp there, in milliseconds since the Unix epoch.
    pub timestamp: Option<i64>,
}

/// By what a record is recognised when it comes again. Two records of one identity are one for a
/// consumer group: an inbox applies the first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Identity<'a> {
    /// By the id in its header [`EVENT_ID`]. The nil UUID is what a forgotten field looks like,
    /// and no id.
    Event(Uuid),
    /// By where it was first read, without a usable id, and by its timestamp there: it tells it from
    /// a record of a topic that was deleted and created again under this name.
    Place(Origin<'a>),
    /// A dead letter: not by the event that it holds, but by where that failed, in which group,
    /// after how many replays.
    DeadLetter {
        /// Where the record that failed was first read.
        origin: Origin<'a>,
        /// The group in which it failed.
        group: &'a str,
        /// How often it had been replayed.
        hops: u32,
    },
}

impl Record {
    /// Where it was first read: here, or, where a retry topic or a replay has brought it back,
    /// what its `original.*` headers say. Those are believed on the topic that they name and on
    /// its retry topics, so that headers copied to other records mean nothing.
    pub fn origin(&self) -> Origin<'_> {
        let named = named_origin(self).filter(|origin| is_return(self.topic(), origin.topic));
        named.unwrap_or_else(|| self.place())
    }

    /// Where it stands.
    pub(crate) fn place(&self) -> Origin<'_> {
        Origin {
            topic: self.topic(),
            partition: self.partition(),
            offset: self.offset(),
            timestamp: self.timestamp(),
        }
    }

    /// How often it has been replayed from a dead-letter topic.
    pub fn hops(&self) -> u32 {
        let hops = self.headers().get_str(replay::HOPS);
        hops.and_then(|hops| hops.parse().ok()).unwrap_or(0)
    }

    /// By what it is recognised when it comes again.
    pub fn identity(&self) -> Identity<'_> {
        if let Some((origin, group)) = as_dead_letter(self) {
            let hops = self.hops();
            return Identity::DeadLetter {
                origin,
                group,
                hops,
            };
        }
        match event_id(self) {
            Some(id) => Identity::Event(id),
            None => Identity::Place(self.origin()),
        }
    }
}

impl Identity<'_> {
    /// As bytes, different for each identity: a UUID's 16, or more behind a tag.
    pub fn to_bytes(&self) -> Vec<u8> {
        match self {
            Identity::Event(id) => id.into_bytes().to_vec(),
            Identity::Place(origin) => origin.tagged(b"@pos:", &[]),
            Identity::DeadLetter {
                origin,
                group,
                hops,
            } => {
                let rest = [group.as_bytes(), &hops.to_be_bytes()].concat();
                origin.tagged(b"@dlq:", &rest)
            }
        }
    }
}

impl Origin<'_> {
    /// Longer than a UUID, so that the two never meet. With the timestamp, because a topic that was
    /// deleted and created again has other records at the same places.
    fn tagged(&self, tag: &[u8], rest: &[u8]) -> Vec<u8> {
        let topic = self.topic.as_bytes();
        let mut bytes = Vec::with_capacity(tag.len() + topic.len() + 21 + rest.len());
        bytes.extend_from_slice(tag);
        bytes.extend_from_slice(topic);
        bytes.push(0);
        bytes.extend_from_slice(&self.partition.to_be_bytes());
        bytes.extend_from_slice(&self.offset.to_be_bytes());
        let timestamp = self.timestamp.unwrap_or(NO_TIMESTAMP);
        bytes.extend_from_slice(&timestamp.to_be_bytes());
        bytes.extend_from_slice(rest);
        bytes
    }
}

impl std::fmt::Display for Origin<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}/{}", self.topic, self.partition, self.offset)
    }
}

fn event_id(record: &Record) -> Option<Uuid> {
    let id = Uuid::try_parse(record.headers().get_str(EVENT_ID)?).ok()?;
    (!id.is_nil()).then_some(id)
}

/// What a record's `original.*` headers say.
pub(crate) fn named_origin(record: &Record) -> Option<Origin<'_>> {
    let headers = record.headers();
    let number = |name| headers.get_str(name)?.parse::<i64>().ok();
    let origin = Origin {
        topic: headers.get_str(original::TOPIC)?,
        partition: i32::try_from(number(original::PARTITION)?).ok()?,
        offset: number(original::OFFSET)?,
        timestamp: number(original::TIMESTAMP),
    };
    (origin.partition >= 0 && origin.offset >= 0).then_some(origin)
}

/// Whether records of `topic` come back on `own`.
pub(crate) fn is_return(own: &str, topic: &str) -> bool {
    own.strip_prefix(topic).is_some_and(|rest| {
        rest.is_empty() || rest.starts_with(RETRY_INFIX) || rest.starts_with(SPRING_RETRY)
    })
}

/// Where the record that a dead letter holds was first read, and in which group it failed.
pub(crate) fn as_dead_letter(record: &Record) -> Option<(Origin<'_>, &str)> {
    let headers = record.headers();
    headers.get(failure::CLASS)?;
    let origin = named_origin(record)?;
    let group = headers.get_str(original::GROUP).unwrap_or_default();
    (!is_return(record.topic(), origin.topic)).then_some((origin, group))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Headers;

    fn headers(list: &[(&'static str, &str)]) -> Headers {
        let mut headers = Headers::new();
        for (name, value) in list {
            headers.push(name, (*value).to_owned());
        }
        headers
    }

    const ORIGIN: [(&str, &str); 4] = [
        (original::TOPIC, "orders"),
        (original::PARTITION, "3"),
        (original::OFFSET, "42"),
        (original::GROUP, "g"),
    ];

    fn came_back_on(topic: &str) -> Record {
        Record::new(topic, 0, 7, None, None).with_headers(headers(&ORIGIN))
    }

    #[test]
    fn a_record_is_known_by_its_event_id() {
        let id = Uuid::now_v7();
        let record = came_back_on("orders");
        let mut with_id = record.headers().clone();
        with_id.push(EVENT_ID, id.to_string());
        assert_eq!(record.with_headers(with_id).identity(), Identity::Event(id));
    }

    #[test]
    fn nonsense_as_id_is_no_id() {
        for id in ["", "null", "17", &*Uuid::nil().to_string()] {
            let record =
                Record::new("t", 1, 42, None, None).with_headers(headers(&[(EVENT_ID, id)]));
            assert!(
                matches!(record.identity(), Identity::Place(at) if at.offset == 42),
                "{id:?}"
            );
        }
    }

    #[test]
    fn a_record_that_came_back_is_known_by_where_it_was_first_read() {
        let first = Record::new("orders", 3, 42, None, None);
        for topic in ["orders", "orders.retry.1", "orders-retry-1000"] {
            let back = came_back_on(topic);
            assert_eq!(
                back.identity().to_bytes(),
                first.identity().to_bytes(),
                "{topic}"
            );
        }
    }

    #[test]
    fn headers_that_were_copied_to_another_topic_mean_nothing() {
        for topic in ["orders-enriched", "ordersX", "other", "order"] {
            let copy = came_back_on(topic);
            assert_eq!(copy.origin(), copy.place(), "{topic}");
        }
    }

    #[test]
    fn places_that_are_no_places_mean_nothing() {
        for (name, wrong) in [
            (original::PARTITION, "-1"),
            (original::PARTITION, "99999999999"),
            (original::OFFSET, "x"),
            (original::OFFSET, "-5"),
        ] {
            let mut all = headers(&ORIGIN);
            all.push(name, wrong.to_owned());
            let record = Record::new("orders", 0, 7, None, None).with_headers(all);
            assert_eq!(record.origin().offset, 7, "{name}={wrong}");
        }
    }

    #[test]
    fn a_dead_letter_is_not_the_event_that_it_holds() {
        let mut all = headers(&ORIGIN);
        all.push(EVENT_ID, Uuid::now_v7().to_string());
        all.push(failure::CLASS, "permanent");
        let letter = Record::new("orders.DLQ", 0, 1, None, None).with_headers(all.clone());
        let again = Record::new("orders.DLQ", 0, 2, None, None).with_headers(all.clone());
        assert!(matches!(letter.identity(), Identity::DeadLetter { .. }));
        assert_eq!(
            letter.identity(),
            again.identity(),
            "written twice by a crash"
        );
        all.push(replay::HOPS, "1");
        let later = Record::new("orders.DLQ", 0, 3, None, None).with_headers(all.clone());
        assert_ne!(
            letter.identity(),
            later.identity(),
            "failed again after a replay"
        );
        let copied_back = Record::new("orders", 3, 99, None, None).with_headers(all);
        assert!(matches!(copied_back.identity(), Identity::Event(_)));
    }

    #[test]
    fn a_place_is_never_taken_for_an_id() {
        let place = |partition, offset| {
            let record = Record::new("t", partition, offset, None, None);
            record.identity().to_bytes()
        };
        assert!(place(1, 42).len() > 16);
        assert_ne!(place(1, 42), place(1, 43));
        assert_ne!(place(1, 42), place(2, 42));
    }

    #[test]
    fn a_record_of_a_topic_that_was_created_again_is_not_the_one_at_its_place_before() {
        let at = |timestamp| {
            let record = Record::new("orders", 3, 42, None, None).with_timestamp(timestamp);
            record.identity().to_bytes()
        };
        assert_eq!(at(1_000), at(1_000));
        assert_ne!(at(1_000), at(1_001));
    }
}
