//! The topics, from their beginning to where they ended when the audit looked.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use ackwell::Event;
use ackwell::config::Kafka;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Headers, Message};
use rdkafka::{Offset, TopicPartitionList};
use uuid::Uuid;

/// The group named to the broker; nothing is ever committed.
const GROUP: &str = "orders-audit";
/// How long a request to the broker may take.
const REQUEST_MAX: Duration = Duration::from_secs(10);
/// How long reading may stand still before it is given up.
const STILL_MAX: Duration = Duration::from_secs(30);

/// Why a topic could not be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TopicError {
    /// The broker did not answer, or said no.
    #[error("reading topic {topic} from {servers}: {cause}; is the broker running there?")]
    Kafka {
        /// Which topic.
        topic: &'static str,
        /// Where.
        servers: String,
        /// What librdkafka says.
        cause: KafkaError,
    },
    /// No record came for too long.
    #[error("reading topic {topic} from {servers}: nothing came for {} s", STILL_MAX.as_secs())]
    Still {
        /// Which topic.
        topic: &'static str,
        /// Where.
        servers: String,
    },
}

/// What was read.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Reading {
    /// Records.
    pub(crate) records: u64,
    /// Records that are no event of this topic; they are dead-lettered by those who listen.
    pub(crate) strange: u64,
    /// Retention has taken records from the beginning.
    pub(crate) shortened: bool,
}

/// Reads every event of `E`'s topic, one record in memory at a time. Blocks.
///
/// # Errors
/// [`TopicError`]; a topic that does not exist has no records.
pub(crate) fn read<E: Event>(
    kafka: &Kafka,
    mut each: impl FnMut(Uuid, E),
) -> Result<Reading, TopicError> {
    let topic = E::TOPIC.name();
    let failed = |cause| TopicError::Kafka {
        topic,
        servers: kafka.bootstrap_servers.clone(),
        cause,
    };
    let mut config = kafka.consumer(GROUP);
    config.set("enable.partition.eof", "true");
    let consumer: BaseConsumer = config.create().map_err(failed)?;
    let mut reading = Reading::default();
    let mut ends = assign(&consumer, topic, &mut reading).map_err(failed)?;
    let mut moved = Instant::now();
    while !ends.is_empty() {
        match consumer.poll(Duration::from_millis(200)) {
            Some(Ok(record)) => {
                moved = Instant::now();
                let end = ends.get(&record.partition()).copied();
                if end.is_some_and(|end| record.offset() < end) {
                    reading.records += 1;
                    match decode::<E>(&record) {
                        Some((event_id, event)) => each(event_id, event),
                        None => reading.strange += 1,
                    }
                }
                if end.is_some_and(|end| record.offset() + 1 >= end) {
                    ends.remove(&record.partition());
                }
            }
            Some(Err(KafkaError::PartitionEOF(partition))) => {
                ends.remove(&partition);
            }
            Some(Err(cause)) if moved.elapsed() > STILL_MAX => return Err(failed(cause)),
            None if moved.elapsed() > STILL_MAX => {
                return Err(TopicError::Still {
                    topic,
                    servers: kafka.bootstrap_servers.clone(),
                });
            }
            Some(Err(_)) | None => {}
        }
    }
    Ok(reading)
}

/// Assigns every partition from its beginning; answers where each ends, without the empty ones.
fn assign(
    consumer: &BaseConsumer,
    topic: &str,
    reading: &mut Reading,
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
            Err(error)
                if error.rdkafka_error_code()
                    == Some(RDKafkaErrorCode::UnknownTopicOrPartition) =>
            {
                continue;
            }
            Err(error) => return Err(error),
        };
        reading.shortened |= low > 0;
        if low < high {
            ends.insert(partition, high);
            list.add_partition_offset(topic, partition, Offset::Offset(low))?;
        }
    }
    consumer.assign(&list)?;
    Ok(ends)
}

fn decode<E: Event>(record: &BorrowedMessage<'_>) -> Option<(Uuid, E)> {
    let header = |name: &str| {
        let found = record.headers()?.iter().find(|header| header.key == name)?;
        std::str::from_utf8(found.value?).ok()
    };
    let event_id = header(ackwell::EVENT_ID)?.parse().ok()?;
    let event_type = header(ackwell::EVENT_TYPE).filter(|event_type| E::knows(event_type))?;
    let event: E = serde_json::from_slice(record.payload()?).ok()?;
    (event.event_type() == event_type).then_some((event_id, event))
}
