//! How far a group has come, asked from outside it: whether all that stood in a topic at a moment is handled.

use std::fmt;
use std::time::Instant;

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::Message;
use rdkafka::{Offset, TopicPartitionList};

use super::{POLL_MAX, REQUEST_MAX, ReadError, Reader};
use crate::config::Kafka;

/// A partition by name: `orders` and 3.
pub type Partition = (String, i32);

/// Asks for the ends of topics, and for what a group has committed there, without being a member of it. Its
/// functions block: call them on a blocking thread.
pub struct Positions {
    reader: Reader,
    group: String,
    topics: Vec<String>,
}

impl Positions {
    /// The positions of `group` in `topics`, which need not exist.
    ///
    /// # Errors
    ///
    /// When the client refuses its settings.
    pub fn open(kafka: &Kafka, group: &str, topics: &[&str]) -> Result<Self, ReadError> {
        Ok(Self {
            reader: Reader::in_group(kafka, group, &topics.join(", "))?,
            group: group.to_owned(),
            topics: topics.iter().map(|topic| (*topic).to_owned()).collect(),
        })
    }

    /// The offset that comes next in each partition that holds a record.
    ///
    /// # Errors
    ///
    /// When the broker can't be reached.
    pub fn ends(&self) -> Result<Vec<(Partition, i64)>, ReadError> {
        let mut ends = Vec::new();
        for topic in &self.topics {
            let spans = self.reader.spans_of(topic)?;
            let filled = spans.into_iter().filter(|span| span.from < span.end);
            ends.extend(filled.map(|span| ((topic.clone(), span.partition), span.end)));
        }
        Ok(ends)
    }

    /// The committed position of each of these partitions that has one.
    ///
    /// # Errors
    ///
    /// When the broker can't be reached.
    pub fn committed<'a>(
        &self,
        partitions: impl IntoIterator<Item = &'a Partition>,
    ) -> Result<Vec<(Partition, i64)>, ReadError> {
        let mut list = TopicPartitionList::new();
        for (topic, partition) in partitions {
            list.add_partition(topic, *partition);
        }
        let found = self.consumer().committed_offsets(list, REQUEST_MAX);
        let found = found.map_err(|source| self.failed(source))?;
        let elements = found.elements();
        let position = |element: &rdkafka::topic_partition_list::TopicPartitionListElem<'_>| {
            let Offset::Offset(at) = element.offset() else {
                return None;
            };
            element.error().ok()?;
            Some(((element.topic().to_owned(), element.partition()), at))
        };
        Ok(elements.iter().filter_map(position).collect())
    }

    /// Whether a record stands between the two offsets. There may be none although offsets are: behind the last
    /// record of a transaction stands its marker, which no group commits.
    ///
    /// # Errors
    ///
    /// When the broker can't be reached, or does not say.
    pub fn has_record(
        &self,
        (topic, partition): &Partition,
        from: i64,
        end: i64,
    ) -> Result<bool, ReadError> {
        let mut list = TopicPartitionList::new();
        let assigned = list
            .add_partition_offset(topic, *partition, Offset::Offset(from))
            .and_then(|()| self.consumer().assign(&list));
        assigned.map_err(|source| self.failed(source))?;
        let found = self.first_before(end);
        let unassigned = self.consumer().unassign();
        unassigned.map_err(|source| self.failed(source))?;
        found
    }

    fn first_before(&self, end: i64) -> Result<bool, ReadError> {
        let since = Instant::now();
        while since.elapsed() < REQUEST_MAX {
            match self.consumer().poll(POLL_MAX) {
                Some(Ok(message)) => return Ok(message.offset() < end),
                Some(Err(KafkaError::PartitionEOF(_))) => return Ok(false),
                Some(Err(_)) | None => {}
            }
        }
        Err(ReadError::Still {
            topic: self.reader.topic.to_string(),
            servers: self.reader.servers.clone(),
        })
    }

    fn consumer(&self) -> &BaseConsumer {
        &self.reader.consumer
    }

    fn failed(&self, source: KafkaError) -> ReadError {
        self.reader.failed(source)
    }
}

impl fmt::Debug for Positions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Positions")
            .field("group", &self.group)
            .field("topics", &self.topics)
            .finish_non_exhaustive()
    }
}
