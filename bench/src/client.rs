//! librdkafka with the same settings for everybody, topics and loads.

use std::fmt::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::ClientContext;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer, ProducerContext};
use rdkafka::{Offset, TopicPartitionList};
use uuid::Uuid;

use crate::Outcome;
use crate::process;
use crate::report::Run;
use crate::target::Broker;

/// Bytes of each record's value.
pub(crate) const VALUE_BYTES: usize = 100;
/// Different keys of a load.
const KEYS: u64 = 10_000;
/// How long one poll waits.
pub(crate) const POLL_MAX: Duration = Duration::from_millis(100);
/// Records between two looks at the acknowledgements.
const POLL_EVERY: u64 = 1000;
/// How long a client waits for anything before the benchmark fails.
pub(crate) const WAIT_MAX: Duration = Duration::from_secs(60);

/// A name that no earlier run on the same broker has used.
pub(crate) fn fresh(what: &str) -> String {
    format!("{what}-{}", Uuid::now_v7().simple())
}

/// What every client here is given.
pub(crate) fn settings(broker: &Broker) -> ClientConfig {
    let mut settings = ClientConfig::new();
    settings.set("bootstrap.servers", broker.address());
    settings
}

/// A consumer of the reference side: set up as well as Ackwell sets up its own, so that the
/// comparison is of what is done with the records.
pub(crate) fn consumer(broker: &Broker, group: &str) -> Outcome<BaseConsumer> {
    consumer_with(broker, group, &[])
}

/// As [`consumer`], with further settings.
pub(crate) fn consumer_with(
    broker: &Broker,
    group: &str,
    further: &[(&str, &str)],
) -> Outcome<BaseConsumer> {
    let mut settings = settings(broker);
    settings
        .set("group.id", group)
        .set("auto.offset.reset", "earliest")
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        // As Ackwell's: damaged batches are noticed.
        .set("check.crcs", "true")
        // With librdkafka's default of 1000 ms a full local queue stops fetching for a second.
        .set("fetch.queue.backoff.ms", "5");
    for (name, value) in further.iter().copied().chain(broker.settings()) {
        settings.set(name, value);
    }
    Ok(settings.create()?)
}

/// Creates a topic and waits until the broker has it.
pub(crate) fn create_topic(broker: &Broker, name: &str, partitions: i32) -> Outcome<()> {
    let admin: AdminClient<DefaultClientContext> = settings(broker).create()?;
    let topic = NewTopic::new(name, partitions, TopicReplication::Fixed(1));
    let options = AdminOptions::new().operation_timeout(Some(WAIT_MAX));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    for result in runtime.block_on(admin.create_topics([&topic], &options))? {
        result.map_err(|(name, code)| format!("creating topic {name}: {code}"))?;
    }
    Ok(())
}

/// Deletes a topic, so that a long comparison does not fill the disk.
pub(crate) fn delete_topic(broker: &Broker, name: &str) -> Outcome<()> {
    let admin: AdminClient<DefaultClientContext> = settings(broker).create()?;
    let options = AdminOptions::new().operation_timeout(Some(WAIT_MAX));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    for result in runtime.block_on(admin.delete_topics(&[name], &options))? {
        result.map_err(|(name, code)| format!("deleting topic {name}: {code}"))?;
    }
    Ok(())
}

/// The sum of a group's committed offsets on a topic: records it will not get again.
pub(crate) fn committed(
    broker: &Broker,
    group: &str,
    topic: &str,
    partitions: i32,
) -> Outcome<i64> {
    let mut wanted = TopicPartitionList::new();
    wanted.add_partition_range(topic, 0, partitions - 1);
    let answered = consumer(broker, group)?.committed_offsets(wanted, WAIT_MAX)?;
    Ok(answered
        .elements()
        .iter()
        .filter_map(|partition| partition.offset().to_raw())
        .filter(|offset| *offset > 0)
        .sum())
}

/// One record to send; its buffers are used again for the next.
#[derive(Default)]
pub(crate) struct Outgoing {
    pub(crate) key: String,
    pub(crate) value: Vec<u8>,
    pub(crate) headers: Option<OwnedHeaders>,
}

/// Makes `record` the plain record of this number: 100 bytes and a key.
pub(crate) fn plain_record(number: u64, record: &mut Outgoing) -> fmt::Result {
    record.key.clear();
    write!(record.key, "key-{:06}", number % KEYS)?;
    record.value.resize(VALUE_BYTES, b'x');
    record.value[..8].copy_from_slice(&number.to_be_bytes());
    Ok(())
}

/// Sends `count` records as fast as they go, and waits until the broker has acknowledged each.
///
/// The time is from the first record until the last acknowledgement, the CPU time this process's.
pub(crate) fn send(
    broker: &Broker,
    topic: &str,
    count: u64,
    fill: impl FnMut(u64, &mut Outgoing) -> fmt::Result,
) -> Outcome<Run> {
    let sender = Sender::connect(broker, topic)?;
    let (cpu_before, started) = (process::cpu(std::process::id())?, Instant::now());
    sender.send(count, fill)?;
    let cpu = process::cpu(std::process::id())? - cpu_before;
    Ok(Run::new(count, started.elapsed(), cpu))
}

/// A producer that knows its topic and counts what is acknowledged.
pub(crate) struct Sender {
    producer: BaseProducer<Receiver>,
    receipts: Arc<Receipts>,
    topic: String,
}

impl Sender {
    /// Connects, so that the first record finds everything ready.
    pub(crate) fn connect(broker: &Broker, topic: &str) -> Outcome<Self> {
        let receipts = Arc::new(Receipts::default());
        let producer: BaseProducer<Receiver> =
            sending(broker).create_with_context(Receiver(Arc::clone(&receipts)))?;
        producer.client().fetch_metadata(Some(topic), WAIT_MAX)?;
        Ok(Sender {
            producer,
            receipts,
            topic: topic.to_owned(),
        })
    }

    /// Sends one record and waits for it. With its first record an idempotent client asks for a producer id, and lets
    /// half a second pass between two tries: on a quick broker the first try comes before the connection.
    pub(crate) fn warm_up(&self) -> Outcome<()> {
        self.send(1, plain_record)
    }

    /// Sends `count` records as fast as they go, and waits until the broker has acknowledged each.
    pub(crate) fn send(
        &self,
        count: u64,
        mut fill: impl FnMut(u64, &mut Outgoing) -> fmt::Result,
    ) -> Outcome<()> {
        let before = self.receipts.acknowledged.load(Ordering::Relaxed);
        let mut record = Outgoing::default();
        for number in 0..count {
            fill(number, &mut record)?;
            enqueue(&self.producer, &self.topic, &mut record)?;
            if number % POLL_EVERY == 0 {
                self.producer.poll(Duration::ZERO);
            }
        }
        self.producer.flush(WAIT_MAX)?;
        let acknowledged = self.receipts.acknowledged.load(Ordering::Relaxed) - before;
        let failed = self.receipts.failed.load(Ordering::Relaxed);
        if (acknowledged, failed) != (count, 0) {
            return Err(format!(
                "of {count} records, {acknowledged} were acknowledged and {failed} failed"
            )
            .into());
        }
        Ok(())
    }
}

fn sending(broker: &Broker) -> ClientConfig {
    let mut settings = settings(broker);
    settings
        .set("enable.idempotence", "true")
        .set("acks", "all")
        .set("linger.ms", "5")
        .set("queue.buffering.max.messages", "500000");
    settings
}

fn enqueue(producer: &BaseProducer<Receiver>, topic: &str, record: &mut Outgoing) -> Outcome<()> {
    let mut entry = BaseRecord::to(topic)
        .key(&record.key)
        .payload(&record.value);
    if let Some(headers) = record.headers.take() {
        entry = entry.headers(headers);
    }
    while let Err((error, again)) = producer.send(entry) {
        if error != KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull) {
            return Err(error.into());
        }
        producer.poll(Duration::from_millis(10));
        entry = again;
    }
    Ok(())
}

#[derive(Default)]
struct Receipts {
    acknowledged: AtomicU64,
    failed: AtomicU64,
}

struct Receiver(Arc<Receipts>);

impl ClientContext for Receiver {}

impl ProducerContext for Receiver {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        let counter = if result.is_ok() {
            &self.0.acknowledged
        } else {
            &self.0.failed
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

/// Gives a consumer every partition of a topic from the beginning, without a group.
pub(crate) fn assign_all(consumer: &BaseConsumer, topic: &str) -> Outcome<()> {
    let metadata = consumer.fetch_metadata(Some(topic), WAIT_MAX)?;
    let topic = metadata
        .topics()
        .first()
        .ok_or("the broker does not know the topic")?;
    let mut all = TopicPartitionList::new();
    for partition in topic.partitions() {
        all.add_partition_offset(topic.name(), partition.id(), Offset::Beginning)?;
    }
    Ok(consumer.assign(&all)?)
}
