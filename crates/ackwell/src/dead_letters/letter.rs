//! A dead letter, read.

use ackwell_core::Class;
use ackwell_core::envelope::{EVENT_TYPE, failure, original};
use jiff::Timestamp;

use super::format;
use crate::context::Context;
use crate::extract::{FromRecord, undecodable};
use crate::failure::Failure;
use crate::origin::{Origin, named_origin};
use crate::record::{Headers, Record};

/// A record that could not be handled: what it was, where it failed and why.
///
/// As an argument of a handler it reads dead letters; a record that is none is a permanent
/// failure. Dead letters of Spring's `DeadLetterPublishingRecoverer` are read as well as ours.
///
/// ```
/// use ackwell::dead_letters::DeadLetter;
/// use ackwell::{Classify, Listener};
///
/// async fn tell(letter: DeadLetter) {
///     let origin = letter.origin().map(|origin| origin.to_string());
///     tracing::error!(origin, reason = letter.reason(), "look at this");
/// }
///
/// let listener = Listener::on_dead_letters("order-events").group("on-call").handle(tell);
/// # let _ = listener;
/// ```
#[derive(Clone, Debug)]
pub struct DeadLetter {
    record: Record,
}

/// How a record failed first that was given up later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct FirstFailure<'a> {
    /// When.
    pub at: Timestamp,
    /// The class of that failure.
    pub class: &'a str,
    /// What went wrong then.
    pub reason: &'a str,
}

impl DeadLetter {
    /// A record of a dead-letter topic. One that was put there by something else is a dead letter
    /// without [`origin`](DeadLetter::origin).
    pub fn new(record: Record) -> Self {
        Self { record }
    }

    /// The dead letter as it stands on its topic, with the headers that were added.
    pub fn record(&self) -> &Record {
        &self.record
    }

    /// The key, as it was.
    pub fn key(&self) -> Option<&[u8]> {
        self.record.key()
    }

    /// The value, as it was.
    pub fn value(&self) -> Option<&[u8]> {
        self.record.value()
    }

    /// The headers as they were when it failed.
    pub fn headers(&self) -> Headers {
        let mut headers = self.record.headers().clone();
        format::take_off(&mut headers);
        headers
    }

    /// Where the record was first read.
    pub fn origin(&self) -> Option<Origin<'_>> {
        named_origin(&self.record).or_else(|| self.origin_by_spring())
    }

    /// The group in which it failed.
    pub fn group(&self) -> Option<&str> {
        self.text(original::GROUP, format::SPRING_GROUP)
    }

    /// What went wrong.
    pub fn reason(&self) -> Option<&str> {
        self.text(failure::REASON, format::SPRING_MESSAGE)
    }

    /// The class of the failure, if it is one of ours.
    pub fn class(&self) -> Option<Class> {
        let name = self.record.headers().get_str(failure::CLASS)?;
        let classes = [
            Class::Transient,
            Class::Permanent,
            Class::Skip,
            Class::Unavailable,
            Class::Stop,
        ];
        classes.into_iter().find(|class| class.as_str() == name)
    }

    /// The class of the failure as it is written: one of ours, or a Java exception.
    pub fn class_name(&self) -> Option<&str> {
        self.text(failure::CLASS, format::SPRING_CLASS)
    }

    /// When it was given up; the dead letter's own timestamp where no header says so.
    pub fn failed_at(&self) -> Option<Timestamp> {
        let said = self.record.headers().get_str(failure::TIMESTAMP);
        said.and_then(|text| text.parse().ok()).or_else(|| {
            let millis = self.record.timestamp()?;
            Timestamp::from_millisecond(millis).ok()
        })
    }

    /// How it failed first, if it had failed before it was given up.
    pub fn first_failure(&self) -> Option<FirstFailure<'_>> {
        let headers = self.record.headers();
        let text = |name| std::str::from_utf8(format::told(headers, name)?).ok();
        Some(FirstFailure {
            at: text(failure::FIRST_TIMESTAMP)?.parse().ok()?,
            class: text(failure::FIRST_CLASS)?,
            reason: text(failure::FIRST_REASON)?,
        })
    }

    /// How many attempts were made.
    pub fn attempts(&self) -> Option<u32> {
        let attempts = self.record.headers().get_str(failure::ATTEMPTS)?;
        attempts.parse().ok()
    }

    /// How often it had been replayed before it failed this time.
    pub fn hops(&self) -> u32 {
        self.record.hops()
    }

    /// The type of the event that it holds.
    pub fn event_type(&self) -> Option<&str> {
        self.record.headers().get_str(EVENT_TYPE)
    }

    fn text(&self, ours: &str, springs: &str) -> Option<&str> {
        let headers = self.record.headers();
        headers.get_str(ours).or_else(|| headers.get_str(springs))
    }

    /// Spring appends its headers once more each time; the first are the origin's.
    fn origin_by_spring(&self) -> Option<Origin<'_>> {
        let first = |name: &str| {
            let mut headers = self.record.headers().iter();
            headers.find(|header| header.name() == name)?.value()
        };
        let timestamp = first(format::SPRING_TIMESTAMP)
            .and_then(|bytes| Some(i64::from_be_bytes(bytes.try_into().ok()?)));
        let origin = Origin {
            topic: std::str::from_utf8(first(format::SPRING_TOPIC)?).ok()?,
            partition: i32::from_be_bytes(first(format::SPRING_PARTITION)?.try_into().ok()?),
            offset: i64::from_be_bytes(first(format::SPRING_OFFSET)?.try_into().ok()?),
            timestamp: timestamp.filter(|at| *at >= 0),
        };
        (origin.partition >= 0 && origin.offset >= 0).then_some(origin)
    }
}

impl FromRecord for DeadLetter {
    fn from_record(cx: &mut Context) -> Result<Self, Failure> {
        let letter = DeadLetter::new(cx.record().clone());
        if letter.origin().is_none() {
            return Err(undecodable(
                "no dead letter: no headers say where it comes from",
            ));
        }
        Ok(letter)
    }
}

#[cfg(test)]
mod tests {
    use super::super::format::Verdict;
    use super::super::policy::Format;
    use super::*;

    fn letter(headers: Headers) -> DeadLetter {
        DeadLetter::new(Record::new("orders.DLQ", 0, 9, None, None).with_headers(headers))
    }

    #[test]
    fn springs_own_dead_letters_are_read_and_their_first_origin_counts() {
        let mut headers = Headers::new();
        headers.push("mine", "1");
        for (topic, partition) in [("orders", 7_i32), ("orders-retry", 0)] {
            headers.push(format::SPRING_TOPIC, topic);
            headers.push(format::SPRING_PARTITION, partition.to_be_bytes().to_vec());
            headers.push(format::SPRING_OFFSET, 42_i64.to_be_bytes().to_vec());
        }
        headers.push(format::SPRING_CLASS, "java.lang.NullPointerException");
        headers.push(format::SPRING_MESSAGE, "oh");
        let letter = letter(headers);
        let origin = letter.origin().unwrap();
        assert_eq!(
            (origin.topic, origin.partition, origin.offset),
            ("orders", 7, 42)
        );
        assert_eq!(letter.class_name(), Some("java.lang.NullPointerException"));
        assert_eq!((letter.class(), letter.reason()), (None, Some("oh")));
        assert_eq!(letter.headers().len(), 1);
    }

    #[test]
    fn what_is_written_is_read() {
        let verdict = Verdict {
            origin: Origin {
                topic: "orders",
                partition: 1,
                offset: 2,
                timestamp: None,
            },
            stamped_by_broker: false,
            group: "g",
            class: Class::Transient,
            reason: "boom",
            attempts: 3,
            at: Timestamp::UNIX_EPOCH,
            first: None,
        };
        for format in [Format::Ackwell, Format::Spring] {
            let letter = letter(format.write(&verdict));
            assert_eq!(letter.origin(), Some(verdict.origin));
            assert_eq!((letter.group(), letter.reason()), (Some("g"), Some("boom")));
            assert_eq!(letter.class(), Some(Class::Transient));
            assert_eq!(letter.attempts(), Some(3));
            assert_eq!(letter.failed_at(), Some(Timestamp::UNIX_EPOCH));
            assert!(letter.headers().is_empty());
        }
    }

    #[test]
    fn bytes_that_are_no_numbers_are_no_origin() {
        let mut headers = Headers::new();
        headers.push(format::SPRING_TOPIC, "orders");
        headers.push(format::SPRING_PARTITION, "3");
        headers.push(format::SPRING_OFFSET, "1234567");
        assert_eq!(letter(headers).origin(), None);
        assert_eq!(letter(Headers::new()).origin(), None);
    }
}
