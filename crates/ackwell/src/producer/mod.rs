//! Sending: every record is either acknowledged or its failure is told to somebody.
//!
//! The raw client answers a full queue with an error, forgets a result that nobody awaits, and
//! is neither idempotent nor partitions as Java does by default. Here a full queue makes the
//! sender wait, a failure whose future was dropped is logged and counted, and the defaults are
//! the safe ones (see [`config::Producer`](crate::config::Producer)).

mod delivery;
mod error;
mod record;

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::producer::{Producer as _, PurgeConfig, ThreadedProducer};
use tokio::sync::{Semaphore, SemaphorePermit};

pub use delivery::{Delivery, RecordMetadata};
pub use error::SendError;
pub use record::OutgoingRecord;

use crate::config::Config;
use crate::encode::EncodedEvent;
use crate::observe::Metrics;
use crate::topic::Event;
use delivery::{Pending, Reports};

/// How long to wait when librdkafka's queue is full although ours is not: its limits are twice
/// ours, so this happens only while it is busy purging.
const QUEUE_FULL_WAIT: Duration = Duration::from_millis(5);

/// Sends events and records. Cheap to clone; clones share one connection and queue.
///
/// ```no_run
/// # use std::borrow::Cow;
/// # use ackwell::{Event, Producer, Topic, config::Config};
/// # #[derive(serde::Serialize, serde::Deserialize)]
/// # struct OrderPlaced { order_id: String }
/// # impl Event for OrderPlaced {
/// #     const TOPIC: Topic<Self> = Topic::new("order-events");
/// #     fn event_type(&self) -> &'static str { "OrderPlaced" }
/// #     fn knows(event_type: &str) -> bool { event_type == "OrderPlaced" }
/// #     fn aggregate_id(&self) -> Cow<'_, str> { Cow::Borrowed(&self.order_id) }
/// # }
/// # async fn example() -> Result<(), ackwell::producer::SendError> {
/// let producer = Producer::new(&Config::default())?;
/// let sent = producer.send(&OrderPlaced { order_id: "42".to_owned() }).await?;
/// println!("{}-{} at {}", sent.topic, sent.partition, sent.offset);
/// producer.close(std::time::Duration::from_secs(5)).await
/// # }
/// ```
#[derive(Clone)]
pub struct Producer {
    inner: Arc<Inner>,
}

struct Inner {
    client: ThreadedProducer<Reports>,
    records: Arc<Semaphore>,
    records_max: u32,
    bytes: Arc<Semaphore>,
    bytes_max: u32,
    metrics: crate::observe::ProducerMetrics,
}

impl Producer {
    /// A producer with the settings of `config`. It connects in the background.
    ///
    /// # Errors
    /// When the client refuses its settings.
    pub fn new(config: &Config) -> Result<Self, SendError> {
        Self::observed(config, &Metrics::new())
    }

    /// The same, reporting to `metrics`.
    ///
    /// # Errors
    /// When the client refuses its settings.
    pub fn observed(config: &Config, metrics: &Metrics) -> Result<Self, SendError> {
        let settings = &config.producer;
        let metrics = metrics.producer();
        let client = (config.kafka.producer(settings))
            .create_with_context(Reports::new(metrics.clone()))
            .map_err(SendError::settings)?;
        let records_max = settings.queue_records.max(1);
        let bytes_max = settings.queue_kbytes.saturating_mul(1024).max(1024);
        let permits = |count: u32| Arc::new(Semaphore::new(count as usize));
        let inner = Inner {
            client,
            records: permits(records_max),
            records_max,
            bytes: permits(bytes_max),
            bytes_max,
            metrics,
        };
        Ok(Self {
            inner: Arc::new(inner),
        })
    }

    /// Sends an event to its topic and waits for the acknowledgement of all in-sync replicas.
    ///
    /// # Errors
    /// When it can't be encoded, is refused, or was not acknowledged within
    /// `producer.delivery_timeout`; see [`SendError`].
    ///
    /// # Cancel safety
    /// Dropped before it is queued, nothing is sent. Dropped later, the event is still sent; a
    /// failure is logged and counted.
    pub async fn send<E: Event>(&self, event: &E) -> Result<RecordMetadata, SendError> {
        self.send_encoded(EncodedEvent::new(event)?).await
    }

    /// Sends an event that was encoded before, as an outbox holds it.
    ///
    /// # Errors
    /// As [`Producer::send`].
    ///
    /// # Cancel safety
    /// As [`Producer::send`].
    pub async fn send_encoded(&self, event: EncodedEvent) -> Result<RecordMetadata, SendError> {
        self.send_record(event.into()).await
    }

    /// Sends a record.
    ///
    /// # Errors
    /// As [`Producer::send`].
    ///
    /// # Cancel safety
    /// As [`Producer::send`].
    pub async fn send_record(&self, record: OutgoingRecord) -> Result<RecordMetadata, SendError> {
        self.enqueue(record).await?.await
    }

    /// Sends records together and returns one result for each, in their order.
    ///
    /// # Cancel safety
    /// Dropped, those that were queued are still sent.
    pub async fn send_batch(
        &self,
        records: impl IntoIterator<Item = OutgoingRecord>,
    ) -> Vec<Result<RecordMetadata, SendError>> {
        let mut deliveries = Vec::new();
        for record in records {
            deliveries.push(self.enqueue(record).await);
        }
        let mut results = Vec::with_capacity(deliveries.len());
        for delivery in deliveries {
            results.push(match delivery {
                Ok(delivery) => delivery.await,
                Err(error) => Err(error),
            });
        }
        results
    }

    /// Puts a record into the queue, waiting while it is full, and returns the future of its
    /// acknowledgement. Records of a key are sent in the order in which this is called.
    ///
    /// # Errors
    /// When the producer is closed or the client refuses the record at once (it is too large).
    ///
    /// # Cancel safety
    /// Dropped, the record is not sent.
    pub async fn enqueue(&self, record: OutgoingRecord) -> Result<Delivery, SendError> {
        let inner = &self.inner;
        let size = u32::try_from(record.size())
            .unwrap_or(u32::MAX)
            .clamp(1, inner.bytes_max);
        let closed = |_| SendError::closed(record.topic());
        let one = Arc::clone(&inner.records)
            .acquire_owned()
            .await
            .map_err(closed)?;
        let bytes = Arc::clone(&inner.bytes)
            .acquire_many_owned(size)
            .await
            .map_err(closed)?;
        let (pending, delivery) = Pending::new(one, bytes);
        inner.metrics.queued();
        let mut outgoing = record.to_client(Box::new(pending));
        loop {
            let Err((error, refused)) = inner.client.send(outgoing) else {
                return Ok(delivery);
            };
            if !SendError::is_queue_full(&error) {
                inner.metrics.failed(record.topic(), true);
                return Err(SendError::client(record.topic(), error));
            }
            outgoing = refused;
            tokio::time::sleep(QUEUE_FULL_WAIT).await;
        }
    }

    /// Waits until every record queued before is acknowledged or has failed.
    ///
    /// # Errors
    /// When that takes longer than `limit`.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn flush(&self, limit: Duration) -> Result<(), SendError> {
        self.all_permits(limit).await.map(drop)
    }

    /// Flushes, then refuses further records. What is not acknowledged within `limit` is given
    /// up, logged and counted.
    ///
    /// # Errors
    /// When records had to be given up.
    ///
    /// # Cancel safety
    /// Dropped, the producer stays open.
    pub async fn close(&self, limit: Duration) -> Result<(), SendError> {
        let flushed = self.flush(limit).await;
        self.inner.records.close();
        if flushed.is_err() {
            self.inner
                .client
                .purge(PurgeConfig::default().queue().inflight());
        }
        flushed
    }

    async fn all_permits(&self, limit: Duration) -> Result<SemaphorePermit<'_>, SendError> {
        let started = Instant::now();
        let all = self.inner.records.acquire_many(self.inner.records_max);
        match tokio::time::timeout(limit, all).await {
            Ok(Ok(permit)) => Ok(permit),
            Ok(Err(_)) => Err(SendError::closed("")),
            Err(_) => Err(SendError::unflushed(
                self.inner.client.in_flight_count(),
                started.elapsed(),
            )),
        }
    }
}

impl fmt::Debug for Producer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let waiting = self.inner.records_max as usize - self.inner.records.available_permits();
        f.debug_struct("Producer")
            .field("waiting", &waiting)
            .finish()
    }
}
