//! Who replayed or parked which dead letter, when, to where, with what result.
//!
//! The trail is a topic, `<dead-letter topic>.audit`, which is kept for ever: it is what people
//! look at when they ask what happened, and what the next replay looks at to leave out what was
//! replayed before. One record a dead letter, written when the broker has acknowledged the copy.

use std::collections::HashSet;
use std::ops::ControlFlow;
use std::time::Duration;

use jiff::Timestamp;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::error::RDKafkaErrorCode;
use serde::{Deserialize, Serialize};

use super::filter::Position;
use super::letter::DeadLetter;
use crate::config::Config;
use crate::producer::OutgoingRecord;
use crate::reader::{ReadError, Reader, Span};
use crate::record::Record;

/// How long the broker's answer about the topic is awaited.
const ANSWER_WAIT: Duration = Duration::from_secs(10);
/// Entries of a history that are given at once.
pub(super) const HISTORY_MAX: usize = 10_000;

/// What was done with a dead letter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// It was sent to where it came from.
    Replay,
    /// It was put aside.
    Park,
}

/// One entry of the trail.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// When.
    pub at: Timestamp,
    /// Who.
    pub by: String,
    /// What was done.
    pub action: Action,
    /// The dead letter's partition.
    pub partition: i32,
    /// The dead letter's offset.
    pub offset: i64,
    /// The dead letter's timestamp, by which it is told from one of a topic of the same name that
    /// was deleted since.
    pub timestamp: Option<i64>,
    /// Where the record was first read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<String>,
    /// Where the copy stands, as `topic/partition/offset`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,
    /// How often the record has been replayed, this one included.
    pub hops: u32,
    /// What was edited.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub edited: Vec<String>,
    /// Why it failed; without it, it was done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

impl Entry {
    pub(super) fn record(&self, topic: &str) -> OutgoingRecord {
        let value = serde_json::to_vec(self).unwrap_or_default();
        OutgoingRecord::to(topic.to_owned())
            .key(format!("{}:{}", self.partition, self.offset))
            .value(value)
    }

    fn of(record: &Record) -> Option<Self> {
        serde_json::from_slice(record.value()?).ok()
    }
}

/// The topic of the trail.
pub(super) fn topic(letters: &str) -> String {
    format!("{letters}.audit")
}

/// What has become of the dead letters that are still there. Bounded by their number.
#[derive(Debug, Default)]
pub(super) struct Done {
    replayed: HashSet<(Position, Option<i64>)>,
    parked: HashSet<(Position, Option<i64>)>,
}

impl Done {
    /// Reads the trail; `present` are the dead letters that are still there. Blocks.
    pub(super) fn read(
        config: &Config,
        letters: &str,
        present: &[Span],
    ) -> Result<Self, ReadError> {
        let mut done = Done::default();
        let mut reader = Reader::open(&config.kafka, &topic(letters))?;
        let spans = reader.spans()?;
        reader.read(&spans, |record| {
            if let Some(entry) = Entry::of(record) {
                done.note(&entry, present);
            }
            ControlFlow::Continue(())
        })?;
        Ok(done)
    }

    fn note(&mut self, entry: &Entry, present: &[Span]) {
        let Entry {
            partition, offset, ..
        } = *entry;
        let mut spans = present.iter();
        let is_present = spans
            .any(|span| span.partition == partition && (span.from..span.end).contains(&offset));
        if entry.error.is_some() || !is_present {
            return;
        }
        let set = match entry.action {
            Action::Replay => &mut self.replayed,
            Action::Park => &mut self.parked,
        };
        set.insert((Position { partition, offset }, entry.timestamp));
    }

    /// What was done with a dead letter.
    pub(super) fn with(&self, letter: &DeadLetter) -> Option<Action> {
        let id = (letter.position(), letter.record().timestamp());
        if self.parked.contains(&id) {
            return Some(Action::Park);
        }
        self.replayed.contains(&id).then_some(Action::Replay)
    }
}

/// The latest entries, oldest first, at most `limit`. Blocks.
pub(super) fn history(
    config: &Config,
    letters: &str,
    limit: usize,
) -> Result<Vec<Entry>, ReadError> {
    let mut reader = Reader::open(&config.kafka, &topic(letters))?;
    let limit = limit.min(HISTORY_MAX);
    let last = i64::try_from(limit).unwrap_or(i64::MAX);
    let latest = |span: Span| Span {
        from: span.from.max(span.end.saturating_sub(last)),
        ..span
    };
    let spans: Vec<_> = reader.spans()?.into_iter().map(latest).collect();
    let mut entries = Vec::new();
    reader.read(&spans, |record| {
        entries.extend(Entry::of(record));
        ControlFlow::Continue(())
    })?;
    entries.sort_by_key(|entry| entry.at);
    Ok(entries.split_off(entries.len().saturating_sub(limit)))
}

/// Creates a topic where it is missing.
pub(super) async fn ensure(
    config: &Config,
    topic: &str,
    partitions: i32,
    settings: &[(&str, &str)],
) -> Result<(), String> {
    let admin: AdminClient<DefaultClientContext> = (config.kafka.admin().create())
        .map_err(|error| format!("the client refuses its settings: {error}"))?;
    let replication = TopicReplication::Fixed(config.topics.replication_factor);
    let mut new = NewTopic::new(topic, partitions, replication);
    for (name, value) in settings {
        new = new.set(name, value);
    }
    let options = AdminOptions::new()
        .request_timeout(Some(ANSWER_WAIT))
        .operation_timeout(Some(ANSWER_WAIT));
    let made = admin.create_topics([&new], &options).await;
    match made.map_err(|error| error.to_string())?.into_iter().next() {
        None | Some(Ok(_) | Err((_, RDKafkaErrorCode::TopicAlreadyExists))) => Ok(()),
        Some(Err((_, code))) => Err(code.to_string()),
    }
}

/// The same for copies of another topic's records: what fits there must fit, and copies of different
/// records have the same key, so it is not compacted, whatever the broker does by default.
pub(super) async fn ensure_like(
    config: &Config,
    topic: &str,
    partitions: i32,
    other: &str,
) -> Result<(), String> {
    let size = largest(config, other).await;
    let mut settings = vec![("cleanup.policy", "delete")];
    settings.extend(size.as_deref().map(|size| ("max.message.bytes", size)));
    ensure(config, topic, partitions, &settings).await
}

/// `None` leaves it to the broker, as where the right to ask is missing.
async fn largest(config: &Config, topic: &str) -> Option<String> {
    let admin: AdminClient<DefaultClientContext> = config.kafka.admin().create().ok()?;
    let resource = [ResourceSpecifier::Topic(topic)];
    let options = AdminOptions::new().request_timeout(Some(ANSWER_WAIT));
    let described = admin.describe_configs(&resource, &options).await;
    let found = described.ok()?.into_iter().next()?.ok()?;
    found.get("max.message.bytes")?.value.clone()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(offset: i64, timestamp: i64) -> Entry {
        Entry {
            at: Timestamp::UNIX_EPOCH,
            by: "me".to_owned(),
            action: Action::Replay,
            partition: 0,
            offset,
            timestamp: Some(timestamp),
            origin: None,
            to: None,
            hops: 1,
            edited: Vec::new(),
            error: None,
        }
    }

    fn letter(offset: i64, timestamp: i64) -> DeadLetter {
        let record = Record::new("t.DLQ", 0, offset, None, None);
        DeadLetter::new(record.with_timestamp(timestamp))
    }

    const PRESENT: [Span; 1] = [Span {
        partition: 0,
        from: 5,
        end: 10,
    }];

    #[test]
    fn what_was_replayed_is_known_and_what_is_gone_is_forgotten() {
        let mut done = Done::default();
        done.note(&entry(7, 70), &PRESENT);
        done.note(&entry(3, 30), &PRESENT);
        assert_eq!(done.with(&letter(7, 70)), Some(Action::Replay));
        assert_eq!(done.replayed.len(), 1);
        assert_eq!(done.with(&letter(8, 80)), None);
    }

    #[test]
    fn a_dead_letter_at_the_place_of_an_earlier_topics_is_another_one() {
        let mut done = Done::default();
        done.note(&entry(7, 70), &PRESENT);
        assert_eq!(done.with(&letter(7, 99)), None);
    }

    #[test]
    fn what_failed_is_not_done() {
        let mut failed = entry(7, 70);
        failed.error = Some("away".to_owned());
        let mut done = Done::default();
        done.note(&failed, &PRESENT);
        assert_eq!(done.with(&letter(7, 70)), None);
    }

    #[test]
    fn an_entry_is_read_as_it_was_written() {
        let mut written = entry(7, 70);
        written.edited = vec!["value".to_owned()];
        let value = serde_json::to_vec(&written).unwrap();
        let record = Record::new("t.DLQ.audit", 0, 0, None, Some(&value));
        assert_eq!(Entry::of(&record), Some(written));
        assert_eq!(Entry::of(&Record::new("x", 0, 0, None, Some(b"{"))), None);
    }
}
