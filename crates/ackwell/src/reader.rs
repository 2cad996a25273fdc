//! A topic read from its beginning to where it ended when asked, outside any group.
//!
//! Audits and reports ask what a topic holds. A listener is no way to find out: it has a group,
//! commits, and never comes to an end.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::Message;
use rdkafka::{Offset, TopicPartitionList};

use crate::config::Kafka;
use crate::container::Decoder;
use crate::record::Record;

/// The group named to the broker; nothing is ever committed to it.
const GROUP: &str = "ackwell-reader";
/// How long a request to the broker may take.
const REQUEST_MAX: Duration = Duration::from_secs(10);
/// How long one poll waits: the time in which an error of the client is noticed.
const POLL_MAX: Duration = Duration::from_millis(200);
/// How long reading may stand still before it is given up.
const STILL_MAX: Duration = Duration::from_secs(30);

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
    let failed = |source: KafkaError| ReadError::Kafka {
        topic: topic.to_owned(),
        servers: kafka.bootstrap_servers.clone(),
        source: Box::new(source),
    };
    let mut config = kafka.consumer(GROUP);
    config.set("enable.partition.eof", "true");
    let consumer: BaseConsumer = config.create().map_err(failed)?;
    let mut extent = Extent::default();
    let mut ends = assign(&consumer, topic, &mut extent).map_err(failed)?;
    let (mut decoder, name) = (Decoder::default(), Arc::from(topic));
    let mut moved = Instant::now();
    while !ends.is_empty() {
        match consumer.poll(POLL_MAX) {
            Some(Ok(message)) => {
                moved = Instant::now();
                let (partition, offset) = (message.partition(), message.offset());
                let Some(end) = ends.get(&partition).copied() else {
                    continue;
                };
                if offset < end {
                    extent.records += 1;
                    decoder.push(&message);
                    decoder.finish(&name, partition).iter().for_each(&mut each);
                }
                if offset + 1 >= end {
                    ends.remove(&partition);
                }
            }
            // What lies between the last record and the end is no record: a marker, or compacted.
            Some(Err(KafkaError::PartitionEOF(partition))) => {
                ends.remove(&partition);
            }
            Some(Err(source)) if moved.elapsed() > STILL_MAX => return Err(failed(source)),
            None if moved.elapsed() > STILL_MAX => {
                let servers = kafka.bootstrap_servers.clone();
                return Err(ReadError::Still {
                    topic: topic.to_owned(),
                    servers,
                });
            }
            Some(Err(_)) | None => {}
        }
    }
    Ok(extent)
}

/// Assigns every partition from its beginning; answers where each ends, without the empty ones.
fn assign(
    consumer: &BaseConsumer,
    topic: &str,
    extent: &mut Extent,
) -> Result<HashMap<i32, i64>, KafkaError> {
    let metadata = consumer.fetch_metadata(Some(topic), REQUEST_MAX)?;
    let partitions = metadata
        .topics()
        .iter()
        .flat_map(|topic| topic.partitions());
    let mut ends = HashMap::new();
    let mut list = TopicPartitionList::new();
    for partition in partitions.map(|partition| partition.id()) {
        let (low, high) = match consumer.fetch_watermarks(topic, partition, REQUEST_MAX) {
            Ok(marks) => marks,
            Err(error) if is_unknown(&error) => continue,
            Err(error) => return Err(error),
        };
        extent.shortened |= low > 0;
        if low < high {
            ends.insert(partition, high);
            list.add_partition_offset(topic, partition, Offset::Offset(low))?;
        }
    }
    consumer.assign(&list)?;
    Ok(ends)
}

fn is_unknown(error: &KafkaError) -> bool {
    error.rdkafka_error_code() == Some(RDKafkaErrorCode::UnknownTopicOrPartition)
}
