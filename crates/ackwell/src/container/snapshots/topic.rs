//! Snapshots in a compacted topic.
//!
//! The key names group, topic, partition and slot, so that compaction keeps the two that can be
//! referred to; the place is where the record was written, so that it is read by one fetch and
//! not by walking the topic.

use std::fmt;
use std::time::{Duration, Instant};

use futures_util::future::{BoxFuture, FutureExt, try_join_all};
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::message::Message;
use rdkafka::producer::{FutureProducer, FutureRecord};
use rdkafka::{Offset, TopicPartitionList};
use tokio::sync::OnceCell;

use super::{Origin, Snapshot, SnapshotStore, StoreError, Wanted};
use crate::config::Topics;
use crate::container::spec::Spec;
use crate::container::writer;

/// The topic of snapshots, unless another is named.
pub const SNAPSHOT_TOPIC: &str = "ackwell-snapshots";

/// How long a broker's answer about the topic is awaited.
const ANSWER_WAIT: Duration = Duration::from_secs(5);
/// How long a snapshot may wait for room in the producer's queue.
const QUEUE_WAIT: Duration = Duration::from_secs(2);
/// How long one snapshot is looked for.
const READ_WAIT: Duration = Duration::from_secs(5);
/// How long one poll of it waits.
const POLL_WAIT: Duration = Duration::from_millis(100);
/// The group named to the broker; nothing is ever committed to it.
const GROUP: &str = "ackwell-snapshots";

/// Keeps snapshots in a compacted topic.
pub(super) struct TopicStore {
    topic: String,
    producing: ClientConfig,
    consuming: ClientConfig,
    creation: Topics,
    /// Made for the first snapshot; most listeners write none.
    producer: OnceCell<FutureProducer>,
}

impl TopicStore {
    pub(super) fn new(spec: &Spec, topic: &str) -> Self {
        TopicStore {
            topic: topic.to_owned(),
            producing: writer::settings(&spec.producer),
            consuming: spec.consumer.clone(),
            creation: spec.creation.clone(),
            producer: OnceCell::new(),
        }
    }

    async fn producer(&self) -> Result<&FutureProducer, StoreError> {
        self.producer
            .get_or_try_init(|| async {
                if self.creation.create {
                    self.create().await?;
                }
                Ok(self.producing.create()?)
            })
            .await
    }

    /// Creates the topic unless it exists.
    async fn create(&self) -> Result<(), StoreError> {
        let admin: AdminClient<DefaultClientContext> = self.producing.create()?;
        let replication = TopicReplication::Fixed(self.creation.replication_factor);
        let new = NewTopic::new(&self.topic, 1, replication).set("cleanup.policy", "compact");
        let options = AdminOptions::new()
            .request_timeout(Some(ANSWER_WAIT))
            .operation_timeout(Some(ANSWER_WAIT));
        let created = admin.create_topics([&new], &options).await?;
        match created.into_iter().next() {
            None | Some(Err((_, Code::TopicAlreadyExists))) => Ok(()),
            Some(Ok(topic)) => {
                tracing::info!(topic, "topic created");
                Ok(())
            }
            Some(Err((topic, code))) => Err(format!("creating topic {topic}: {code}").into()),
        }
    }

    /// Writes one value, or its absence; where it lies.
    async fn send(
        &self,
        origin: &Origin,
        slot: u8,
        value: Option<&[u8]>,
    ) -> Result<Place, StoreError> {
        let producer = self.producer().await?;
        let key = key(origin, slot);
        let mut record = FutureRecord::<[u8], [u8]>::to(&self.topic).key(key.as_bytes());
        record.payload = value;
        let sent = producer.send(record, QUEUE_WAIT).await;
        let delivery = sent.map_err(|(error, _)| format!("writing to {}: {error}", self.topic))?;
        Ok(Place {
            partition: delivery.partition,
            offset: delivery.offset,
        })
    }
}

fn key(origin: &Origin, slot: u8) -> String {
    let Origin {
        group,
        topic,
        partition,
    } = origin;
    format!("{group}/{topic}/{partition}/{slot}")
}

/// Where in the topic a snapshot lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Place {
    partition: i32,
    offset: i64,
}

impl Place {
    fn to_bytes(self) -> Vec<u8> {
        let (partition, offset) = (self.partition.to_be_bytes(), self.offset.to_be_bytes());
        [&partition[..], &offset[..]].concat()
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (partition, offset) = bytes.split_first_chunk::<4>()?;
        Some(Place {
            partition: i32::from_be_bytes(*partition),
            offset: i64::from_be_bytes(offset.try_into().ok()?),
        })
    }
}

impl SnapshotStore for TopicStore {
    fn write<'a>(
        &'a self,
        snapshots: &'a [Snapshot],
    ) -> BoxFuture<'a, Result<Vec<Vec<u8>>, StoreError>> {
        let sends = snapshots.iter().map(|snapshot| {
            let sent = self.send(&snapshot.origin, snapshot.slot, Some(&snapshot.bytes));
            sent.map(|place| place.map(Place::to_bytes))
        });
        try_join_all(sends).boxed()
    }

    fn read<'a>(
        &'a self,
        wanted: &'a [Wanted],
    ) -> BoxFuture<'a, Result<Vec<Option<Vec<u8>>>, StoreError>> {
        let places: Vec<_> = wanted
            .iter()
            .map(|wanted| Place::from_bytes(&wanted.place))
            .collect();
        let (config, topic) = (self.consuming.clone(), self.topic.clone());
        async move {
            let reading = tokio::task::spawn_blocking(move || {
                let reader = Reader::open(config, topic)?;
                let found = places.into_iter();
                let found = found.map(|place| place.map_or(Ok(None), |at| reader.read(at)));
                found.collect::<Result<Vec<_>, KafkaError>>()
            });
            Ok(reading.await??)
        }
        .boxed()
    }

    fn remove<'a>(&'a self, origins: &'a [Origin]) -> BoxFuture<'a, Result<(), StoreError>> {
        let slots = origins.iter().flat_map(|origin| [(origin, 0), (origin, 1)]);
        let sends = slots.map(|(origin, slot)| self.send(origin, slot, None));
        try_join_all(sends).map(|sent| sent.map(drop)).boxed()
    }
}

impl fmt::Debug for TopicStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TopicStore")
            .field("topic", &self.topic)
            .finish_non_exhaustive()
    }
}

/// Reads single records.
struct Reader {
    consumer: BaseConsumer,
    topic: String,
}

impl Reader {
    fn open(mut config: ClientConfig, topic: String) -> Result<Self, KafkaError> {
        config
            .set("group.id", GROUP)
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            .set("enable.partition.eof", "true")
            // One is wanted, not those behind it.
            .set("queued.min.messages", "1")
            .set("auto.offset.reset", "latest")
            .remove("group.instance.id");
        Ok(Reader {
            consumer: config.create()?,
            topic,
        })
    }

    /// The record at `place`; none if it is gone.
    fn read(&self, place: Place) -> Result<Option<Vec<u8>>, KafkaError> {
        let mut list = TopicPartitionList::with_capacity(1);
        let from = Offset::Offset(place.offset);
        list.add_partition_offset(&self.topic, place.partition, from)?;
        self.consumer.assign(&list)?;
        let until = Instant::now() + READ_WAIT;
        while Instant::now() < until {
            match self.consumer.poll(POLL_WAIT) {
                Some(Ok(message)) if message.partition() != place.partition => {}
                Some(Ok(message)) if message.offset() < place.offset => {}
                Some(Ok(message)) if message.offset() == place.offset => {
                    return Ok(message.payload().map(<[u8]>::to_vec));
                }
                Some(Ok(_)) | Some(Err(KafkaError::PartitionEOF(_))) => return Ok(None),
                Some(Err(error)) => tracing::debug!(%error, "reading a snapshot"),
                None => {}
            }
        }
        Err(KafkaError::MessageConsumption(Code::OperationTimedOut))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_read_as_it_was_written() {
        let place = Place {
            partition: 3,
            offset: 1 << 40,
        };
        assert_eq!(Place::from_bytes(&place.to_bytes()), Some(place));
        assert_eq!(Place::from_bytes(&[1, 2, 3]), None);
        assert_eq!(Place::from_bytes(&[0; 13]), None);
    }
}
