//! Topics read from a place to where they ended when asked, outside any group.
//!
//! Audits, reports and operators ask what a topic holds. A listener is no way to find out: it has
//! a group, commits, and never comes to an end.

use std::collections::HashMap;
use std::fmt;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::Message;
use rdkafka::metadata::Metadata;
use rdkafka::{Offset, TopicPartitionList};

use crate::config::Kafka;
use crate::container::{self, Names};
use crate::record::Record;

mod positions;

pub use positions::{Partition, Positions};

/// The group named to the broker; nothing is ever committed to it.
const GROUP: &str = "ackwell-reader";
/// How long a request to the broker may take.
const REQUEST_MAX: Duration = Duration::from_secs(10);
/// How long one poll waits: the time in which an error of the client is noticed.
const POLL_MAX: Duration = Duration::from_millis(200);
/// How long reading may stand still before it is given up.
const STILL_MAX: Duration = Duration::from_secs(30);
/// What a partition may be fetched ahead: with some more for the batch at its end, the memory
/// that reading takes.
const AHEAD_KBYTES: &str = "8192";

/// Why a topic could not be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// The broker did not answer, or said no.
    #[error("reading topic {topic} from {servers}; is the broker running there?")]
    Kafka {
        /// Which topic.
        topic: String,
        /// From where.
        servers: String,
        /// What the client library says.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// No record came for too long.
    #[error("reading topic {topic} from {servers}: nothing came for {} s", STILL_MAX.as_secs())]
    Still {
        /// Which topic.
        topic: String,
        /// From where.
        servers: String,
    },
}

/// How much of a topic there was.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Extent {
    /// Records read.
    pub records: u64,
    /// Whether records are gone from the beginning, by retention or deletion.
    pub shortened: bool,
}

/// A part of a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// Which partition.
    pub partition: i32,
    /// The first offset.
    pub from: i64,
    /// The offset behind the last one.
    pub end: i64,
}

/// Gives `each` every record of `topic`, in order within a partition, one in memory at a time. A
/// topic that does not exist has no records. Blocks: call it on a blocking thread.
///
/// # Errors
///
/// [`ReadError`], when the broker can't be reached or stops answering; `each` may have been given
/// records by then.
pub fn read(
    kafka: &Kafka,
    topic: &str,
    mut each: impl FnMut(&Record),
) -> Result<Extent, ReadError> {
    let mut reader = Reader::open(kafka, topic)?;
    let spans = reader.spans()?;
    let records = reader.read(&spans, |record| {
        each(record);
        ControlFlow::Continue(())
    })?;
    Ok(Extent {
        records,
        shortened: spans.iter().any(|span| span.from > 0),
    })
}

/// Reads parts of one topic. Its functions block: call them on a blocking thread.
pub struct Reader {
    consumer: BaseConsumer,
    topic: Arc<str>,
    servers: String,
    names: Names,
}

impl Reader {
    /// A reader of `topic`, which need not exist.
    ///
    /// # Errors
    ///
    /// When the client refuses its settings.
    pub fn open(kafka: &Kafka, topic: &str) -> Result<Self, ReadError> {
        Self::in_group(kafka, GROUP, topic)
    }

    fn in_group(kafka: &Kafka, group: &str, topic: &str) -> Result<Self, ReadError> {
        let mut config = kafka.reader(group);
        config
            .set("enable.partition.eof", "true")
            .set("queued.max.messages.kbytes", AHEAD_KBYTES);
        let servers = kafka.bootstrap_servers.clone();
        match config.create() {
            Ok(consumer) => Ok(Self {
                consumer,
                topic: topic.into(),
                servers,
                names: Names::default(),
            }),
            Err(source) => Err(failed(topic, servers, source)),
        }
    }

    /// What each partition holds now, the empty ones too; nothing for a topic that does not
    /// exist.
    ///
    /// # Errors
    ///
    /// When the broker can't be reached.
    pub fn spans(&self) -> Result<Vec<Span>, ReadError> {
        self.spans_of(&self.topic)
    }

    /// The same of another topic.
    ///
    /// # Errors
    ///
    /// When the broker can't be reached.
    pub fn spans_of(&self, topic: &str) -> Result<Vec<Span>, ReadError> {
        let found = self.find_spans(topic);
        found.map_err(|source| failed(topic, self.servers.clone(), source))
    }

    /// How many partitions a topic has; 0 if it does not exist.
    ///
    /// # Errors
    ///
    /// When the broker can't be reached.
    pub fn partitions_of(&self, topic: &str) -> Result<i32, ReadError> {
        let found = self.consumer.fetch_metadata(Some(topic), REQUEST_MAX);
        let count = found.map(|metadata| partitions(&metadata, topic).count());
        let count = count.map_err(|source| self.failed(source))?;
        Ok(i32::try_from(count).unwrap_or(i32::MAX))
    }

    /// The names of all topics.
    ///
    /// # Errors
    ///
    /// When the broker can't be reached.
    pub fn topics(&self) -> Result<Vec<String>, ReadError> {
        let found = self.consumer.fetch_metadata(None, REQUEST_MAX);
        let found = found.map_err(|source| self.failed(source))?;
        let topics = found.topics().iter();
        Ok(topics.map(|topic| topic.name().to_owned()).collect())
    }

    /// The same spans without the records that were written before `millis` (since the Unix
    /// epoch).
    ///
    /// # Errors
    ///
    /// When the broker can't be reached.
    pub fn since(&self, millis: i64, spans: &[Span]) -> Result<Vec<Span>, ReadError> {
        let find = || {
            let mut list = TopicPartitionList::new();
            for span in spans {
                let at = Offset::Offset(millis);
                list.add_partition_offset(&self.topic, span.partition, at)?;
            }
            self.consumer.offsets_for_times(list, REQUEST_MAX)
        };
        let found = find().map_err(|source| self.failed(source))?;
        let later = |span: &Span| {
            let element = found.find_partition(&self.topic, span.partition);
            let from = match element.map(|element| element.offset()) {
                Some(Offset::Offset(at)) => at.max(span.from),
                _ => span.end,
            };
            Span { from, ..*span }
        };
        Ok(spans.iter().map(later).collect())
    }

    /// Gives `each` the records of `spans`, in order within a partition, one in memory at a time,
    /// until there are no more or it breaks; answers how many it was given.
    ///
    /// # Errors
    ///
    /// When the broker can't be reached or stops answering.
    pub fn read(
        &mut self,
        spans: &[Span],
        mut each: impl FnMut(&Record) -> ControlFlow<()>,
    ) -> Result<u64, ReadError> {
        let mut open = self.assign(spans)?;
        let (mut records, mut moved) = (0, Instant::now());
        while !open.is_empty() {
            match self.consumer.poll(POLL_MAX) {
                Some(Ok(message)) => {
                    moved = Instant::now();
                    let (partition, offset) = (message.partition(), message.offset());
                    let Some(span) = open.get(&partition).copied() else {
                        continue;
                    };
                    if (span.from..span.end).contains(&offset) {
                        records += 1;
                        let record = container::record(&self.topic, message, &self.names);
                        if each(&record).is_break() {
                            break;
                        }
                    }
                    if offset + 1 >= span.end {
                        open.remove(&partition);
                    }
                }
                // What lies between the last record and the end is no record: a marker, or
                // compacted.
                Some(Err(KafkaError::PartitionEOF(partition))) => {
                    open.remove(&partition);
                }
                Some(Err(source)) if moved.elapsed() > STILL_MAX => return Err(self.failed(source)),
                None if moved.elapsed() > STILL_MAX => {
                    return Err(ReadError::Still {
                        topic: self.topic.to_string(),
                        servers: self.servers.clone(),
                    });
                }
                Some(Err(_)) | None => {}
            }
        }
        Ok(records)
    }

    fn assign(&self, spans: &[Span]) -> Result<HashMap<i32, Span>, ReadError> {
        let filled = spans.iter().filter(|span| span.from < span.end);
        let open: HashMap<i32, Span> = filled.map(|span| (span.partition, *span)).collect();
        let assign = || {
            let mut list = TopicPartitionList::new();
            for span in open.values() {
                let from = Offset::Offset(span.from);
                list.add_partition_offset(&self.topic, span.partition, from)?;
            }
            self.consumer.assign(&list)
        };
        assign().map_err(|source| self.failed(source))?;
        Ok(open)
    }

    /// Asks again while a partition has no leader that knows that it leads: a new topic's, or one
    /// that moves.
    fn find_spans(&self, topic: &str) -> Result<Vec<Span>, KafkaError> {
        let began = Instant::now();
        loop {
            match self.spans_now(topic) {
                Err(error) if is_moving(&error) && began.elapsed() < REQUEST_MAX => {
                    std::thread::sleep(POLL_MAX);
                }
                found => return found,
            }
        }
    }

    fn spans_now(&self, topic: &str) -> Result<Vec<Span>, KafkaError> {
        let consumer = &self.consumer;
        let metadata = consumer.fetch_metadata(Some(topic), REQUEST_MAX)?;
        let mut spans = Vec::new();
        for partition in partitions(&metadata, topic) {
            match consumer.fetch_watermarks(topic, partition, REQUEST_MAX) {
                Ok((from, end)) => spans.push(Span {
                    partition,
                    from,
                    end,
                }),
                Err(error) if is_unknown(&error) => {}
                Err(error) => return Err(error),
            }
        }
        spans.sort_unstable_by_key(|span| span.partition);
        Ok(spans)
    }

    fn failed(&self, source: KafkaError) -> ReadError {
        failed(&self.topic, self.servers.clone(), source)
    }
}

impl fmt::Debug for Reader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reader")
            .field("topic", &self.topic)
            .finish_non_exhaustive()
    }
}

fn partitions<'a>(metadata: &'a Metadata, topic: &'a str) -> impl Iterator<Item = i32> + 'a {
    let found = metadata.topics().iter().filter(move |t| t.name() == topic);
    let partitions = found.flat_map(|topic| topic.partitions());
    partitions.map(|partition| partition.id())
}

fn failed(topic: &str, servers: String, source: KafkaError) -> ReadError {
    ReadError::Kafka {
        topic: topic.to_owned(),
        servers,
        source: Box::new(source),
    }
}

fn is_unknown(error: &KafkaError) -> bool {
    error.rdkafka_error_code() == Some(RDKafkaErrorCode::UnknownTopicOrPartition)
}

fn is_moving(error: &KafkaError) -> bool {
    matches!(
        error.rdkafka_error_code(),
        Some(RDKafkaErrorCode::NotLeaderForPartition | RDKafkaErrorCode::LeaderNotAvailable)
    )
}
