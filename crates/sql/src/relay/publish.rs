//! Where events go: the brokers, or in tests something that can be told to fail.

use std::time::Duration;

use ackwell::Producer;
use ackwell::config::Acks;
use ackwell::producer::{OutgoingRecord, SendError};
use ackwell::service::ServiceContext;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use crate::error::Chain;

/// An acknowledgement to come, or why there will be none.
pub(super) type Delivery = BoxFuture<'static, Result<(), String>>;

/// Takes records in order; the acknowledgements come later.
pub(super) trait Publish: Send + Sync {
    fn enqueue(&self, record: OutgoingRecord) -> BoxFuture<'_, Result<Delivery, String>>;
}

/// An idempotent producer that never gives a record up by itself.
pub(super) struct Kafka(Producer);

impl Kafka {
    pub(super) fn connect(cx: &ServiceContext) -> Result<Self, String> {
        let mut config = cx.config().clone();
        // Zero is "for ever": giving one up while later ones go through would break the order.
        config.producer.delivery_timeout = Duration::ZERO;
        config.producer.acks = Acks::All;
        config.producer.idempotence = true;
        // Rows come in batches already.
        config.producer.linger = config.producer.linger.min(Duration::from_millis(1));
        let client = &mut config.kafka.producer;
        // A refused record stops the producer instead of letting later ones overtake it.
        client.insert("enable.gapless.guarantee".into(), "true".into());
        // What the outbox takes must fit; Kafka's brokers allow as much by default.
        client
            .entry("message.max.bytes".into())
            .or_insert_with(|| "1048588".into());
        Producer::observed(&config, cx.metrics())
            .map(Self)
            .map_err(text)
    }

    /// Forgets what is still queued: the next session sends it again, in order.
    pub(super) async fn close(self) {
        let _unacknowledged = self.0.close(Duration::ZERO).await;
    }
}

impl Publish for Kafka {
    fn enqueue(&self, record: OutgoingRecord) -> BoxFuture<'_, Result<Delivery, String>> {
        Box::pin(async move {
            let delivery = self.0.enqueue(record).await.map_err(text)?;
            Ok(delivery
                .map(|result| result.map(drop).map_err(text))
                .boxed())
        })
    }
}

fn text(error: SendError) -> String {
    Chain(&error).to_string()
}
