//! Records are written to other topics: dead letters, and what is to be tried again later.
//!
//! A record that is passed on is settled only when its copy is safe: the producer is idempotent,
//! every write is acknowledged by all in-sync replicas, and an error keeps the record where it is.

use std::collections::HashMap;
use std::fmt;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::FutureExt;
use rdkafka::ClientConfig;
use rdkafka::admin::{
    AdminClient, AdminOptions, NewPartitions, NewTopic, ResourceSpecifier, TopicReplication,
};
use rdkafka::client::DefaultClientContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::message::OwnedHeaders;
use rdkafka::producer::{FutureProducer, FutureRecord, Producer};

use super::spec::{Spec, StartError};
use super::transactions::{Claim, Transactional};
use crate::config::Topics;
use crate::record::{Headers, Record};
use crate::rights::{self, Rights};

/// How long a broker's answer about topics is awaited.
const ANSWER_WAIT: Duration = Duration::from_secs(10);
/// How long a record may wait for room in the producer's queue before it counts as failed.
const QUEUE_TIMEOUT: Duration = Duration::from_secs(5);
/// How long the broker's answer to a copy is awaited, whatever `producer.delivery_timeout` grants to
/// what handlers send.
const WRITE_WAIT_MS: &str = "10000";
/// How long a retry topic keeps its records: a week, seven times the longest delay, so that a
/// listener that is down for days misses none.
const WAITING_KEPT: Duration = Duration::from_secs(7 * 24 * 60 * 60);
/// What a copy may be larger than its record: headers that say where it comes from and why.
const ADDED_BYTES_MAX: u64 = 16 << 10;

/// Where a record is passed on to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Destination {
    pub(super) topic: String,
    /// Wanted, and taken if the topic has it; otherwise the key chooses, as everywhere.
    pub(super) partition: Option<i32>,
}

/// Writes records to other topics. Cheap to clone.
#[derive(Clone)]
pub(super) struct Writer {
    inner: Arc<Inner>,
    /// Where copies and positions are committed together.
    transactions: Option<Arc<Transactional>>,
    claim: Option<Claim>,
}

struct Inner {
    settings: ClientConfig,
    producer: Mutex<FutureProducer>,
    rights: Rights,
    admin: AdminClient<DefaultClientContext>,
    creation: Topics,
    /// Partitions of the topics that were prepared.
    known: Mutex<HashMap<String, i32>>,
}

/// Why a record could not be passed on; it stays where it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct WriteError {
    what: String,
    too_large: bool,
}

impl Writer {
    /// Connects in the background.
    pub(super) fn new(
        spec: &Spec,
        transactions: Option<Arc<Transactional>>,
    ) -> Result<Self, StartError> {
        let client = |source| StartError::Client {
            listener: spec.listener.clone(),
            source,
        };
        let settings = settings(&spec.producer);
        let inner = Inner {
            producer: Mutex::new(settings.create().map_err(client)?),
            rights: Rights::of(&settings),
            settings,
            admin: spec.producer.create().map_err(client)?,
            creation: spec.creation.clone(),
            known: Mutex::default(),
        };
        Ok(Writer {
            inner: Arc::new(inner),
            transactions,
            claim: None,
        })
    }

    /// The same for this record, whose partition is owned now: where there are transactions, its
    /// copy is written in one with its position.
    pub(super) fn claiming(&self, record: &Record) -> Self {
        let transactions = self.transactions.as_ref();
        let claim = transactions.map(|found| found.claim(record));
        Writer {
            claim,
            ..self.clone()
        }
    }

    /// Writes `record` to `to` and returns when all in-sync replicas have it: key and value as
    /// they are, then the headers `kept`, then those `added`. Headers that can't be read are
    /// passed on as they are, in place of `kept`.
    pub(super) async fn write(
        &self,
        record: &Record,
        (kept, added): (&Headers, &Headers),
        to: &Destination,
    ) -> Result<(), WriteError> {
        let first = match record.unreadable_headers() {
            Some(unreadable) => unreadable.clone(),
            None => kept.behind(OwnedHeaders::new_with_capacity(kept.len() + added.len())),
        };
        let mut message = FutureRecord::<[u8], [u8]>::to(&to.topic).headers(added.behind(first));
        message.key = record.key();
        message.payload = record.value();
        let known = self.known().get(&to.topic).copied().unwrap_or(0);
        message.partition = to.partition.filter(|wanted| *wanted < known);
        if let (Some(transactions), Some(claim)) = (&self.transactions, &self.claim) {
            let sent = transactions.pass_on(claim, record, message).await;
            return sent.map_err(|error| {
                self.known().remove(&to.topic);
                match error.client_error() {
                    Some(client) => WriteError::new(&to.topic, client, &self.inner.rights),
                    None => error.to_string().into(),
                }
            });
        }
        let producer = self.producer();
        let sent = producer.send(message, QUEUE_TIMEOUT).await;
        sent.map(drop).map_err(|(error, _)| {
            // The topic is not what it was; the next attempt looks again.
            self.known().remove(&to.topic);
            self.replace_if_broken();
            WriteError::new(&to.topic, &error, &self.inner.rights)
        })
    }

    fn producer(&self) -> FutureProducer {
        let producer = self.inner.producer.lock();
        producer.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// An idempotent producer that the broker refuses for want of a right never works again, also
    /// when the right is granted.
    fn replace_if_broken(&self) {
        let producer = self.inner.producer.lock();
        let mut producer = producer.unwrap_or_else(PoisonError::into_inner);
        let Some((code, reason)) = producer.client().fatal_error() else {
            return;
        };
        tracing::warn!(%code, reason, "a producer has broken down and is replaced");
        if let Ok(new) = self.inner.settings.create() {
            *producer = new;
        }
    }

    /// Makes `topic` ready for copies of records of `origin`: looks how many partitions it has,
    /// and creates it with those of `origin` where it is missing.
    pub(super) async fn prepare(&self, origin: &str, topic: &str) -> Result<(), String> {
        if self.known().contains_key(topic) {
            return Ok(());
        }
        let count = match self.partitions(topic, Rights::to_write).await? {
            Some(count) => count,
            None => self.create(origin, topic, None).await?,
        };
        self.known().insert(topic.to_owned(), count);
        Ok(())
    }

    /// The same for a topic of whose partitions there must be as many as of `origin`: missing
    /// ones are added, also when a record of a `partition` comes that `origin` did not have before.
    pub(super) async fn prepare_like(
        &self,
        origin: &str,
        topic: &str,
        partition: i32,
    ) -> Result<(), String> {
        if (self.known().get(topic)).is_some_and(|count| partition < *count) {
            return Ok(());
        }
        self.known().remove(topic);
        if self.partitions(topic, Rights::to_write).await?.is_none() {
            self.create(origin, topic, Some(WAITING_KEPT)).await?;
        }
        self.prepare(origin, topic).await?;
        let wanted = self.partitions(origin, reading).await?.unwrap_or(0);
        let found = self.known().get(topic).copied().unwrap_or(0);
        if found < wanted {
            self.grow(topic, wanted).await.inspect_err(|_| {
                self.known().remove(topic);
            })?;
            self.known().insert(topic.to_owned(), wanted);
        }
        Ok(())
    }

    async fn grow(&self, topic: &str, count: i32) -> Result<(), String> {
        let total = usize::try_from(count).unwrap_or(0);
        let more = NewPartitions::new(topic, total);
        let grown = self
            .inner
            .admin
            .create_partitions([&more], &options())
            .await;
        match grown.map_err(|error| error.to_string())?.into_iter().next() {
            None | Some(Ok(_)) => {
                tracing::info!(topic, partitions = count, "partitions added");
                Ok(())
            }
            Some(Err((_, code))) => Err(format!(
                "it needs {count} partitions, as its origin: {code}"
            )),
        }
    }

    /// Creates a topic with the partitions of `origin`. Copies of different records have the same
    /// key, so it must not be compacted, whatever the broker does by default.
    async fn create(
        &self,
        origin: &str,
        topic: &str,
        retention: Option<Duration>,
    ) -> Result<i32, String> {
        let Some(count) = self.partitions(origin, reading).await? else {
            return Err(format!(
                "the topic {origin} does not exist; create it first"
            ));
        };
        let creation = &self.inner.creation;
        if !creation.create {
            return Err(format!(
                "it does not exist, and `topics.create` is false; create it with {count} partitions, or set `topics.create = true`"
            ));
        }
        let replication = TopicReplication::Fixed(creation.replication_factor);
        let size = self.size_for_copies_of(origin).await;
        let retention = retention.map(|kept| kept.as_millis().to_string());
        let mut new = NewTopic::new(topic, count, replication).set("cleanup.policy", "delete");
        if let Some(retention) = &retention {
            new = new.set("retention.ms", retention);
        }
        if let Some(size) = &size {
            new = new.set("max.message.bytes", size);
        }
        let created = self.inner.admin.create_topics([&new], &options()).await;
        let created = created.map_err(|error| error.to_string())?;
        match created.into_iter().next() {
            None | Some(Ok(_)) => {
                tracing::info!(topic, partitions = count, "topic created");
                Ok(count)
            }
            Some(Err((_, Code::TopicAlreadyExists))) => Ok(count),
            Some(Err((_, code))) if rights::is_missing(code) => {
                Err(format!("{code}; {}", self.inner.rights.to_create(topic)))
            }
            Some(Err((_, code))) => Err(code.to_string()),
        }
    }

    /// The largest record of `origin` must fit as a copy, which has more headers. `None` leaves
    /// it to the broker, as where the right to ask is missing.
    async fn size_for_copies_of(&self, origin: &str) -> Option<String> {
        let resource = [ResourceSpecifier::Topic(origin)];
        let described = self.inner.admin.describe_configs(&resource, &options());
        let found = described.await.ok()?.into_iter().next()?.ok()?;
        let size = found.get("max.message.bytes")?.value.clone()?;
        let size: u64 = size.parse().ok()?;
        let most = u64::from(i32::MAX.unsigned_abs());
        Some((size + ADDED_BYTES_MAX).min(most).to_string())
    }

    /// Partitions of a topic; `None` if it does not exist. Where it may not be seen, `granting`
    /// says what is missing.
    async fn partitions(
        &self,
        topic: &str,
        granting: fn(&Rights, &str) -> String,
    ) -> Result<Option<i32>, String> {
        let (producer, name) = (self.producer(), topic.to_owned());
        let found = tokio::task::spawn_blocking(move || {
            let metadata = producer.client().fetch_metadata(Some(&name), ANSWER_WAIT)?;
            let found = metadata.topics().iter().find(|found| found.name() == name);
            let error = found.and_then(|found| found.error()).map(Code::from);
            if let Some(code) = error.filter(|code| rights::is_missing(*code)) {
                return Err(KafkaError::MetadataFetch(code));
            }
            let found = found.filter(|found| found.error().is_none());
            let count = found.map_or(0, |found| found.partitions().len());
            Ok(i32::try_from(count).unwrap_or(i32::MAX))
        });
        let found: Result<i32, KafkaError> = found.await.map_err(|error| error.to_string())?;
        let count = found.map_err(|error| match error.rdkafka_error_code() {
            Some(code) if rights::is_missing(code) => {
                format!("{topic}: {code}; {}", granting(&self.inner.rights, topic))
            }
            _ => error.to_string(),
        })?;
        Ok((count > 0).then_some(count))
    }

    fn known(&self) -> MutexGuard<'_, HashMap<String, i32>> {
        self.inner
            .known
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// Awaits a recovery's write. A panic on the way is a failed write: were it not answered, the
/// record's lane would wait for ever.
pub(super) async fn answered(
    write: impl Future<Output = Result<(), String>>,
) -> Result<(), String> {
    let panicked = |_| Err("writing it panicked".to_owned());
    AssertUnwindSafe(write)
        .catch_unwind()
        .await
        .unwrap_or_else(panicked)
}

impl WriteError {
    fn new(topic: &str, error: &KafkaError, rights: &Rights) -> Self {
        let code = error.rdkafka_error_code();
        // Before its first record an idempotent producer needs the right to write somewhere.
        let refused = code.is_some_and(|code| code == Code::Fatal || rights::is_missing(code));
        let mend = refused.then(|| format!("; {}", rights.to_write(topic)));
        WriteError {
            what: format!("writing to {topic}: {error}{}", mend.unwrap_or_default()),
            too_large: matches!(
                code,
                Some(Code::MessageSizeTooLarge | Code::InvalidMessageSize)
            ),
        }
    }

    /// Whether the broker takes no record of this size on that topic.
    pub(super) fn is_too_large(&self) -> bool {
        self.too_large
    }
}

impl From<String> for WriteError {
    fn from(what: String) -> Self {
        WriteError {
            what,
            too_large: false,
        }
    }
}

impl fmt::Display for WriteError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

fn reading(rights: &Rights, topic: &str) -> String {
    rights.to_read([topic])
}

fn options() -> AdminOptions {
    AdminOptions::new()
        .request_timeout(Some(ANSWER_WAIT))
        .operation_timeout(Some(ANSWER_WAIT))
}

/// Settings of a producer whose writes are safe when they are acknowledged.
pub(super) fn settings(base: &ClientConfig) -> ClientConfig {
    let mut config = base.clone();
    if config.get("partitioner").is_none() {
        config.set("partitioner", "murmur2_random");
    }
    config
        // Health says after this time what is wrong; the write is repeated for as long as it takes.
        .set("message.timeout.ms", WRITE_WAIT_MS)
        .set("enable.idempotence", "true")
        .set("acks", "all")
        // Looking for a topic must not create it, with whatever partitions the broker thinks of.
        .set("allow.auto.create.topics", "false")
        // The topic's own limit decides what is too large, not the client's guess.
        .set("message.max.bytes", "1000000000")
        // A record that fits must not be refused for the company that it keeps in a batch.
        .set("batch.num.messages", "1")
        .set("linger.ms", "0");
    config
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Kafka, Producer};

    #[test]
    fn a_copy_that_is_not_taken_is_known_soon_whatever_producers_wait() {
        for delivery_timeout in [Duration::ZERO, Duration::from_secs(120)] {
            let producer = Producer {
                delivery_timeout,
                ..Producer::default()
            };
            let settings = settings(&Kafka::default().producer(&producer));
            assert_eq!(settings.get("message.timeout.ms"), Some(WRITE_WAIT_MS));
        }
    }
}
