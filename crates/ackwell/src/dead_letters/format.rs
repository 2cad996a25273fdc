//! The headers by which a dead letter says where it comes from and why.
//!
//! What a record had of its own stays in front of them, so that whoever takes them off has the
//! record as it was. Names and encodings of Spring's are those of its
//! `DeadLetterPublishingRecoverer` and `KafkaHeaders`.

use ackwell_core::Class;
use ackwell_core::envelope::{failure, original, retry};
use bytes::Bytes;
use jiff::Timestamp;

use super::policy::Format;
use crate::origin::Origin;
use crate::record::Headers;
use crate::returned::FirstFailure;

/// Everything of Spring's begins so.
pub(super) const SPRING_PREFIX: &str = "kafka_dlt-";
pub(super) const SPRING_TOPIC: &str = "kafka_dlt-original-topic";
pub(super) const SPRING_PARTITION: &str = "kafka_dlt-original-partition";
pub(super) const SPRING_OFFSET: &str = "kafka_dlt-original-offset";
pub(super) const SPRING_TIMESTAMP: &str = "kafka_dlt-original-timestamp";
const SPRING_TIMESTAMP_TYPE: &str = "kafka_dlt-original-timestamp-type";
pub(super) const SPRING_GROUP: &str = "kafka_dlt-original-consumer-group";
pub(super) const SPRING_CLASS: &str = "kafka_dlt-exception-fqcn";
const SPRING_CAUSE: &str = "kafka_dlt-exception-cause-fqcn";
pub(super) const SPRING_MESSAGE: &str = "kafka_dlt-exception-message";
const SPRING_STACKTRACE: &str = "kafka_dlt-exception-stacktrace";

/// What is known of a record that is given up.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Verdict<'a> {
    pub(crate) origin: Origin<'a>,
    /// Whether the origin's timestamp is the broker's (`LogAppendTime`).
    pub(crate) stamped_by_broker: bool,
    pub(crate) group: &'a str,
    pub(crate) class: Class,
    pub(crate) reason: &'a str,
    pub(crate) attempts: u32,
    pub(crate) at: Timestamp,
    /// How it failed first, if it failed more than once.
    pub(crate) first: Option<&'a FirstFailure>,
}

impl Format {
    /// The headers that say so.
    pub(crate) fn write(self, verdict: &Verdict<'_>) -> Headers {
        let mut headers = Headers::new();
        write_ours(&mut headers, verdict);
        if self == Format::Spring {
            write_springs(&mut headers, verdict);
        }
        headers
    }
}

/// The `original.*` headers, as dead letters, retry topics and replays carry them.
pub(crate) fn write_origin(headers: &mut Headers, origin: &Origin<'_>, group: &str) {
    let timestamp = origin.timestamp.map(|at| at.to_string());
    headers.push_static(original::TOPIC, origin.topic.to_owned());
    headers.push_static(original::PARTITION, origin.partition.to_string());
    headers.push_static(original::OFFSET, origin.offset.to_string());
    headers.push_static(original::TIMESTAMP, timestamp.unwrap_or_default());
    headers.push_static(original::GROUP, group.to_owned());
}

/// Takes off what was added to a record's own headers.
pub(crate) fn take_off(headers: &mut Headers) {
    let retried = retry::HEADERS.iter().all(|name| headers.contains(name));
    if retried {
        let names = retry::HEADERS.iter();
        names.for_each(|name| headers.remove_last(name));
    } else {
        let said = failure::ALL.iter().chain(&failure::FIRST);
        let said: Vec<_> = said.filter(|name| told(headers, name).is_some()).collect();
        let ours = original::ALL.iter().chain(said);
        ours.for_each(|name| headers.remove_last(name));
    }
    headers.retain(|header| !header.name().starts_with(SPRING_PREFIX));
}

/// How a record failed first, as a dead letter or a replay says it.
pub(crate) fn first_told(headers: &Headers) -> Option<FirstFailure> {
    told_in(headers, failure::FIRST)
}

/// How a record failed last, as a dead letter says it.
pub(crate) fn last_told(headers: &Headers) -> Option<FirstFailure> {
    let [reason, class, timestamp, _] = failure::ALL;
    told_in(headers, [timestamp, class, reason])
}

fn told_in(headers: &Headers, [at, class, reason]: [&str; 3]) -> Option<FirstFailure> {
    let bytes = |name| told(headers, name).map(Bytes::copy_from_slice);
    Some(FirstFailure {
        timestamp: bytes(at)?,
        class: bytes(class)?,
        reason: bytes(reason)?,
    })
}

/// A header of ours that is not always there. It stands behind the `original.*` headers; one before
/// them is the record's own.
pub(super) fn told<'a>(headers: &'a Headers, name: &str) -> Option<&'a [u8]> {
    let origin = (headers.iter()).rposition(|header| header.name() == original::TOPIC)?;
    let behind = headers.iter().skip(origin);
    let found = behind.filter(|header| header.name() == name).last()?;
    found.value()
}

/// The `failure.first.*` headers.
pub(crate) fn write_first(headers: &mut Headers, first: &FirstFailure) {
    headers.push_static(failure::FIRST_TIMESTAMP, first.timestamp.clone());
    headers.push_static(failure::FIRST_CLASS, first.class.clone());
    headers.push_static(failure::FIRST_REASON, first.reason.clone());
}

fn write_ours(headers: &mut Headers, verdict: &Verdict<'_>) {
    write_origin(headers, &verdict.origin, verdict.group);
    headers.push_static(failure::REASON, verdict.reason.to_owned());
    headers.push_static(failure::CLASS, verdict.class.as_str());
    headers.push_static(failure::TIMESTAMP, format!("{:.3}", verdict.at));
    headers.push_static(failure::ATTEMPTS, verdict.attempts.to_string());
    if let Some(first) = verdict.first {
        write_first(headers, first);
    }
}

fn write_springs(headers: &mut Headers, verdict: &Verdict<'_>) {
    let Origin {
        topic,
        partition,
        offset,
        timestamp,
    } = verdict.origin;
    // Kafka's `TimestampType` by its Java text.
    let kind = match (timestamp, verdict.stamped_by_broker) {
        (None, _) => "NoTimestampType",
        (Some(_), true) => "LogAppendTime",
        (Some(_), false) => "CreateTime",
    };
    let class = java_class(verdict.class);
    let number = |bytes: &[u8]| bytes.to_vec();
    headers.push_static(SPRING_TOPIC, topic.to_owned());
    headers.push_static(SPRING_PARTITION, number(&partition.to_be_bytes()));
    headers.push_static(SPRING_OFFSET, number(&offset.to_be_bytes()));
    let timestamp = timestamp.unwrap_or(-1);
    headers.push_static(SPRING_TIMESTAMP, number(&timestamp.to_be_bytes()));
    headers.push_static(SPRING_TIMESTAMP_TYPE, kind);
    headers.push_static(SPRING_GROUP, verdict.group.to_owned());
    headers.push_static(SPRING_CLASS, class);
    headers.push_static(SPRING_CAUSE, class);
    headers.push_static(SPRING_MESSAGE, verdict.reason.to_owned());
    headers.push_static(SPRING_STACKTRACE, format!("{class}: {}", verdict.reason));
}

/// What stands where Java has the exception's class.
fn java_class(class: Class) -> &'static str {
    match class {
        Class::Transient => "ackwell.TransientFailure",
        Class::Permanent => "ackwell.PermanentFailure",
        Class::Skip => "ackwell.SkipFailure",
        Class::Unavailable => "ackwell.UnavailableFailure",
        Class::Stop => "ackwell.StopFailure",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(topic: &str) -> Verdict<'_> {
        Verdict {
            origin: Origin {
                topic,
                partition: 3,
                offset: 4_294_967_298,
                timestamp: Some(1_700_000_000_000),
            },
            stamped_by_broker: false,
            group: "g",
            class: Class::Permanent,
            reason: "boom",
            attempts: 2,
            at: Timestamp::UNIX_EPOCH,
            first: None,
        }
    }

    #[test]
    fn springs_numbers_are_big_endian() {
        let headers = Format::Spring.write(&verdict("orders"));
        assert_eq!(headers.get(SPRING_TOPIC), Some(&b"orders"[..]));
        assert_eq!(headers.get(SPRING_PARTITION), Some(&[0, 0, 0, 3][..]));
        assert_eq!(
            headers.get(SPRING_OFFSET),
            Some(&[0, 0, 0, 1, 0, 0, 0, 2][..])
        );
        let timestamp = 1_700_000_000_000_i64.to_be_bytes();
        assert_eq!(headers.get(SPRING_TIMESTAMP), Some(&timestamp[..]));
        assert_eq!(headers.get_str(SPRING_TIMESTAMP_TYPE), Some("CreateTime"));
        assert_eq!(headers.get_str(SPRING_GROUP), Some("g"));
        assert_eq!(headers.get_str(SPRING_MESSAGE), Some("boom"));
    }

    #[test]
    fn a_record_without_a_timestamp_says_so_to_spring() {
        let mut none = verdict("orders");
        none.origin.timestamp = None;
        let headers = Format::Spring.write(&none);
        assert_eq!(headers.get(SPRING_TIMESTAMP), Some(&[255; 8][..]));
        assert_eq!(
            headers.get_str(SPRING_TIMESTAMP_TYPE),
            Some("NoTimestampType")
        );
        assert_eq!(headers.get(original::TIMESTAMP), Some(&b""[..]));
    }

    #[test]
    fn what_was_added_comes_off_and_what_was_the_records_own_stays() {
        let mut own = Headers::new();
        own.push(failure::REASON, "the sender's own");
        own.push(failure::FIRST_REASON, "the sender's own");
        own.push("trace", "a");
        own.push_null("trace");
        let first = FirstFailure {
            timestamp: "1970-01-01T00:00:00.000Z".into(),
            class: "transient".into(),
            reason: "not yet".into(),
        };
        for first in [None, Some(&first)] {
            let verdict = Verdict {
                first,
                ..verdict("orders")
            };
            let mut letter = own.clone();
            letter.append(&Format::Spring.write(&verdict));
            assert_eq!(first_told(&letter).as_ref(), first);
            take_off(&mut letter);
            assert_eq!(letter, own);
        }
    }
}
