//! Records that can't be handled are written down before they are passed.
//!
//! Key, value and headers stay byte for byte as they were; what went wrong is added as headers.
//! The origin's position advances only after the broker has acknowledged the dead letter.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use ackwell_core::engine::{Event, Failure, RunId};
use ackwell_core::envelope::dead_letter as name;
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{FutureProducer, FutureRecord, Producer};
use tokio::runtime::Handle;
use tokio_util::task::TaskTracker;

use super::mailbox::Mailbox;
use super::spec::{Observation, Observer, Spec, StartError};
use crate::record::Record;

/// How long a broker is awaited at the start.
const START_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a dead letter may wait in the producer's queue before it counts as failed.
const QUEUE_TIMEOUT: Duration = Duration::from_secs(5);
/// Bytes of a failure's reason that are kept.
const REASON_BYTES_MAX: usize = 1_024;

/// Writes dead letters.
#[derive(Clone)]
pub(super) struct DeadLetterWriter {
    group: Arc<str>,
    suffix: Arc<str>,
    producer: FutureProducer,
    /// Partitions of each origin's dead-letter topic.
    partitions: Arc<HashMap<String, i32>>,
    observer: Arc<dyn Observer>,
}

impl DeadLetterWriter {
    /// Connects, and makes the dead-letter topics that are missing.
    pub(super) async fn open(spec: &Spec, suffix: &str) -> Result<Self, StartError> {
        let client = |source| StartError::Client {
            listener: spec.listener.clone(),
            source,
        };
        let producer: FutureProducer = settings(&spec.producer).create().map_err(client)?;
        let admin: AdminClient<DefaultClientContext> = spec.producer.create().map_err(client)?;
        let mut partitions = HashMap::new();
        for origin in &spec.topics {
            let topic = format!("{origin}{suffix}");
            let count = ensure(&admin, &producer, origin, &topic)
                .await
                .map_err(|reason| {
                    let listener = spec.listener.clone();
                    StartError::DeadLetterTopic {
                        listener,
                        topic,
                        reason,
                    }
                })?;
            partitions.insert(origin.clone(), count);
        }
        Ok(DeadLetterWriter {
            group: spec.group.as_str().into(),
            suffix: suffix.into(),
            producer,
            partitions: Arc::new(partitions),
            observer: Arc::clone(&spec.observer),
        })
    }

    /// Writes one dead letter in the background and reports to the engine.
    pub(super) fn write(
        &self,
        recovery: RunId,
        letter: Letter,
        mailbox: Mailbox,
        tasks: &TaskTracker,
        runtime: &Handle,
    ) {
        let writer = self.clone();
        let work = async move {
            let result = writer.send(&letter).await;
            writer.tell(&letter, &result);
            mailbox.send(Event::Recovered { recovery, result });
        };
        tasks.spawn_on(work, runtime);
    }

    async fn send(&self, letter: &Letter) -> Result<(), String> {
        let Letter { record, .. } = letter;
        let topic = format!("{}{}", record.topic(), self.suffix);
        let mut message =
            FutureRecord::<[u8], [u8]>::to(&topic).headers(letter.headers(&self.group));
        message.key = record.key();
        message.payload = record.value();
        let known = self.partitions.get(record.topic()).copied().unwrap_or(0);
        message.partition = (record.partition() < known).then_some(record.partition());
        let sent = self.producer.send(message, QUEUE_TIMEOUT).await;
        sent.map(|_| ())
            .map_err(|(error, _)| format!("writing a dead letter to {topic}: {error}"))
    }

    fn tell(&self, letter: &Letter, result: &Result<(), String>) {
        let (topic, partition) = (letter.record.topic(), letter.record.partition());
        let offset = letter.record.offset();
        match result {
            Ok(()) => {
                let class = letter.failure.class;
                tracing::warn!(topic, partition, offset, %class, "a record was dead-lettered");
                self.observer
                    .observe(&Observation::DeadLettered { topic, class });
            }
            Err(error) => {
                tracing::error!(
                    topic,
                    partition,
                    offset,
                    error,
                    "a dead letter could not be written"
                );
                self.observer
                    .observe(&Observation::RecoveryFailed { topic, error });
            }
        }
    }
}

/// A record and why it can't be handled.
pub(super) struct Letter {
    pub(super) record: Record,
    pub(super) failure: Failure,
    pub(super) attempts: u32,
}

impl Letter {
    fn headers(&self, group: &str) -> OwnedHeaders {
        let Letter {
            record,
            failure,
            attempts,
        } = self;
        let mut headers = OwnedHeaders::new_with_capacity(record.headers().len() + 9);
        for header in record.headers() {
            headers = headers.insert(Header {
                key: header.name(),
                value: header.value(),
            });
        }
        let timestamp = record
            .timestamp()
            .map_or_else(String::new, |at| at.to_string());
        let added = [
            (name::ORIGINAL_TOPIC, record.topic().to_owned()),
            (name::ORIGINAL_PARTITION, record.partition().to_string()),
            (name::ORIGINAL_OFFSET, record.offset().to_string()),
            (name::ORIGINAL_TIMESTAMP, timestamp),
            (name::ORIGINAL_GROUP, group.to_owned()),
            (name::FAILURE_REASON, shortened(&failure.summary).to_owned()),
            (name::FAILURE_CLASS, failure.class.as_str().to_owned()),
            (name::FAILURE_TIMESTAMP, jiff::Timestamp::now().to_string()),
            (name::FAILURE_ATTEMPTS, attempts.to_string()),
        ];
        for (key, value) in &added {
            headers = headers.insert(Header {
                key,
                value: Some(value),
            });
        }
        headers
    }
}

fn shortened(reason: &str) -> &str {
    reason
        .get(..reason.floor_char_boundary(REASON_BYTES_MAX))
        .unwrap_or(reason)
}

fn settings(base: &ClientConfig) -> ClientConfig {
    let mut config = base.clone();
    for (name, value) in [
        ("message.timeout.ms", "10000"),
        ("partitioner", "murmur2_random"),
    ] {
        if config.get(name).is_none() {
            config.set(name, value);
        }
    }
    config.set("enable.idempotence", "true").set("acks", "all");
    config
}

/// Makes the dead-letter topic if it is missing; returns how many partitions it has.
async fn ensure(
    admin: &AdminClient<DefaultClientContext>,
    producer: &FutureProducer,
    origin: &str,
    topic: &str,
) -> Result<i32, String> {
    if let Some(count) = partitions(producer, topic).await? {
        return Ok(count);
    }
    let Some(count) = partitions(producer, origin).await? else {
        return Err(format!(
            "the topic {origin} does not exist; create it first"
        ));
    };
    let new = NewTopic::new(topic, count, TopicReplication::Fixed(-1));
    let options = AdminOptions::new().request_timeout(Some(START_TIMEOUT));
    let created = admin
        .create_topics([&new], &options)
        .await
        .map_err(|error| error.to_string())?;
    match created.into_iter().next() {
        None | Some(Ok(_) | Err((_, RDKafkaErrorCode::TopicAlreadyExists))) => Ok(count),
        Some(Err((_, code))) => Err(code.to_string()),
    }
}

/// Partitions of a topic; `None` if it does not exist.
async fn partitions(producer: &FutureProducer, topic: &str) -> Result<Option<i32>, String> {
    let (producer, topic) = (producer.clone(), topic.to_owned());
    let found = tokio::task::spawn_blocking(move || {
        let metadata = producer
            .client()
            .fetch_metadata(Some(&topic), START_TIMEOUT);
        metadata.map(|metadata| {
            let found = metadata.topics().iter().find(|found| found.name() == topic);
            let found = found.filter(|found| found.error().is_none());
            found.map(|found| i32::try_from(found.partitions().len()).unwrap_or(i32::MAX))
        })
    });
    let found = found.await.map_err(|error| error.to_string())?;
    Ok(found
        .map_err(|error| error.to_string())?
        .filter(|count| *count > 0))
}
