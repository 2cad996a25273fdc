//! A broker of one's own, and events to send.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]
#![allow(dead_code, reason = "each test binary uses its part")]

use std::borrow::Cow;
use std::future::Future;
use std::time::Duration;

use ackwell::{Config, Event, Topic};
use ackwell_broker::Broker;
use serde::{Deserialize, Serialize};
use tempfile::TempDir;

/// Longer than anything here takes on a busy machine; a test that waits for it has failed.
pub(crate) const LIMIT: Duration = Duration::from_secs(60);

pub(crate) struct Kafka {
    pub(crate) broker: Option<Broker>,
    pub(crate) address: String,
    folder: TempDir,
}

impl Kafka {
    pub(crate) async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let broker = broker(&folder, "127.0.0.1:0").await;
        let address = broker.local_addr().to_string();
        Self {
            broker: Some(broker),
            address,
            folder,
        }
    }

    /// A broker that is not up yet, on an address that it will take.
    pub(crate) async fn absent() -> Self {
        let mut kafka = Self::start().await;
        kafka.stop().await;
        kafka
    }

    pub(crate) async fn stop(&mut self) {
        if let Some(broker) = self.broker.take() {
            broker.shutdown().await.unwrap();
        }
    }

    pub(crate) async fn restart(&mut self) {
        self.stop().await;
        self.broker = Some(broker(&self.folder, &self.address).await);
    }

    pub(crate) fn config(&self) -> Config {
        Config::with_bootstrap_servers(self.address.clone())
    }
}

async fn broker(folder: &TempDir, listen: &str) -> Broker {
    let mut config = ackwell_broker::Config::new(folder.path());
    config.listen = listen.to_owned();
    Broker::start(config).await.unwrap()
}

/// Awaits `future`, and names what was waited for if it takes too long.
pub(crate) async fn within<F: Future>(what: &str, future: F) -> F::Output {
    match tokio::time::timeout(LIMIT, future).await {
        Ok(output) => output,
        Err(_) => panic!("waited too long for {what}"),
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct OrderPlaced {
    pub(crate) order: String,
    pub(crate) number: u32,
}

pub(crate) const ORDERS: Topic<OrderPlaced> = Topic::new("order-events")
    .partitions(3)
    .retention(Duration::from_secs(3_600));

impl Event for OrderPlaced {
    const TOPIC: Topic<Self> = ORDERS;

    fn event_type(&self) -> &'static str {
        "OrderPlaced"
    }

    fn knows(event_type: &str) -> bool {
        event_type == "OrderPlaced"
    }

    fn aggregate_id(&self) -> Cow<'_, str> {
        Cow::Borrowed(&self.order)
    }
}

pub(crate) fn order(number: u32) -> OrderPlaced {
    OrderPlaced {
        order: format!("o-{number}"),
        number,
    }
}
