//! The way back: from librdkafka's delivery report to the one who waits for it.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Instant;

use rdkafka::ClientContext;
use rdkafka::error::KafkaError;
use rdkafka::message::Message;
use rdkafka::producer::{DeliveryResult, ProducerContext};
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::error::SendError;
use crate::observe::ProducerMetrics;

/// Where a record came to stand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordMetadata {
    /// Its topic.
    pub topic: String,
    /// Its partition.
    pub partition: i32,
    /// Its offset.
    pub offset: i64,
    /// Milliseconds since the Unix epoch; `None` if the broker gave none.
    pub timestamp: Option<i64>,
}

/// The acknowledgement to come. Dropping it does not stop the record: a failure that nobody
/// awaits is logged and counted.
#[derive(Debug)]
#[must_use = "a dropped delivery hides a failure in the log"]
pub struct Delivery {
    result: oneshot::Receiver<Result<RecordMetadata, SendError>>,
}

impl Future for Delivery {
    type Output = Result<RecordMetadata, SendError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let result = Pin::new(&mut self.result).poll(cx);
        result.map(|result| result.unwrap_or_else(|_| Err(SendError::closed(""))))
    }
}

/// What travels with a record through librdkafka; its permits make room when it is done with.
pub(super) struct Pending {
    started: Instant,
    result: oneshot::Sender<Result<RecordMetadata, SendError>>,
    _room: (OwnedSemaphorePermit, OwnedSemaphorePermit),
}

impl Pending {
    pub(super) fn new(
        record: OwnedSemaphorePermit,
        bytes: OwnedSemaphorePermit,
    ) -> (Self, Delivery) {
        let (sender, receiver) = oneshot::channel();
        let pending = Self {
            started: Instant::now(),
            result: sender,
            _room: (record, bytes),
        };
        (pending, Delivery { result: receiver })
    }
}

/// Receives delivery reports on librdkafka's polling thread.
pub(super) struct Reports {
    metrics: ProducerMetrics,
}

impl Reports {
    pub(super) fn new(metrics: ProducerMetrics) -> Self {
        Self { metrics }
    }
}

impl ClientContext for Reports {
    fn error(&self, error: KafkaError, reason: &str) {
        tracing::warn!(%error, reason, "the producer's client reports a problem");
    }
}

impl ProducerContext for Reports {
    type DeliveryOpaque = Box<Pending>;

    fn delivery(&self, report: &DeliveryResult<'_>, pending: Box<Pending>) {
        let Pending {
            started,
            result,
            _room,
        } = *pending;
        let outcome = match report {
            Ok(message) => {
                self.metrics
                    .acknowledged(message.topic(), started.elapsed());
                Ok(RecordMetadata {
                    topic: message.topic().to_owned(),
                    partition: message.partition(),
                    offset: message.offset(),
                    timestamp: message.timestamp().to_millis(),
                })
            }
            Err((error, message)) => {
                self.metrics.failed(message.topic(), true);
                Err(SendError::client(message.topic(), error.clone()))
            }
        };
        if let Err(Err(error)) = result.send(outcome) {
            tracing::error!(%error, cause = error.cause(), "a record was not sent, and nobody waits for its result");
        }
    }
}
