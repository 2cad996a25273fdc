//! Kafka, as the saga and observers see it.

use std::collections::BTreeMap;
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::{Header, Headers, Message, OwnedHeaders};
use rdkafka::producer::{FutureProducer, FutureRecord};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use serde_json::{Value, json};
use uuid::Uuid;

use super::{System, until};

/// The name space of saga ids.
const SAGA_IDS: Uuid = Uuid::from_u128(0x5c1b_93d4_0e8f_4b6a_8d27_61c0_a9f3_2e75);

/// Kafka, as the saga and observers see it.
pub(crate) struct Wire {
    servers: String,
    producer: FutureProducer,
}

/// A record on a topic.
pub(crate) struct Seen {
    pub(crate) key: String,
    pub(crate) value: Value,
    pub(crate) headers: BTreeMap<String, String>,
}

impl Wire {
    pub(crate) fn to(system: &System) -> Self {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &system.broker);
        Self {
            servers: system.broker.clone(),
            producer: config.create().unwrap(),
        }
    }

    pub(crate) async fn charge(&self, order: Uuid, amount: &str, method: &str) {
        let fields = json!({"amount": amount, "customer_id": "1", "payment_method": method});
        self.command("payment-events", "ChargePayment", order, fields)
            .await;
    }

    /// Sends a command about an order, as an event of its own.
    pub(crate) async fn command(
        &self,
        topic: &str,
        event_type: &str,
        order: Uuid,
        mut fields: Value,
    ) {
        fields["event_type"] = json!(event_type);
        fields["order_id"] = json!(order);
        fields["saga_id"] = json!(Uuid::new_v5(&SAGA_IDS, order.to_string().as_bytes()));
        let (id, key, value) = (
            Uuid::now_v7().to_string(),
            order.to_string(),
            fields.to_string(),
        );
        let header = |key, value| Header {
            key,
            value: Some(value),
        };
        let headers = OwnedHeaders::new()
            .insert(header("eventId", id.as_str()))
            .insert(header("eventType", event_type));
        let record = FutureRecord::to(topic)
            .key(&key)
            .payload(&value)
            .headers(headers);
        self.producer
            .send(record, Duration::from_secs(30))
            .await
            .unwrap();
    }

    /// Waits for so many events of a type about an order; their values.
    pub(crate) async fn replies(
        &self,
        topic: &str,
        order: Uuid,
        event_type: &str,
        count: usize,
    ) -> Vec<Value> {
        let seen = self
            .seen(topic, |seen| seen.is(order, event_type), count)
            .await;
        seen.into_iter().map(|seen| seen.value).collect()
    }

    /// Waits for one event of a type about something.
    pub(crate) async fn record(&self, topic: &str, about: Uuid, event_type: &str) -> Seen {
        let seen = self.seen(topic, |seen| seen.is(about, event_type), 1).await;
        seen.into_iter().next().unwrap()
    }

    /// Waits for the dead letter about an order; its reason.
    pub(crate) async fn buried(&self, topic: &str, order: Uuid) -> String {
        // The orchestrator knows nothing of these orders, and dead-letters what it is answered.
        let of_order = |seen: &Seen| {
            seen.key == order.to_string() && seen.headers["original.group"] != "order-saga"
        };
        let letters = self.seen(&format!("{topic}.DLQ"), of_order, 1).await;
        letters[0].headers["failure.reason"].clone()
    }

    /// Reads a topic from its beginning until so many records are as wanted.
    pub(crate) async fn seen(
        &self,
        topic: &str,
        wanted: impl Fn(&Seen) -> bool,
        count: usize,
    ) -> Vec<Seen> {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &self.servers);
        config
            .set("group.id", "nobody")
            .set("enable.auto.commit", "false");
        let consumer: BaseConsumer = config.create().unwrap();
        let partitions = until(async || {
            let fetch = || consumer.fetch_metadata(Some(topic), Duration::from_secs(5));
            let metadata = tokio::task::block_in_place(fetch).ok()?;
            let partitions = metadata.topics()[0].partitions().len();
            (partitions > 0).then_some(partitions)
        })
        .await;
        let mut places = TopicPartitionList::new();
        for partition in 0..i32::try_from(partitions).unwrap() {
            let added = places.add_partition_offset(topic, partition, Offset::Beginning);
            added.unwrap();
        }
        consumer.assign(&places).unwrap();
        let mut found = Vec::new();
        until(async || {
            let poll = || consumer.poll(Duration::from_millis(200));
            if let Some(Ok(record)) = tokio::task::block_in_place(poll) {
                found.extend(Some(Seen::of(&record)).filter(&wanted));
            }
            (found.len() >= count).then_some(())
        })
        .await;
        found
    }
}

impl Seen {
    fn of(record: &impl Message<Headers: Headers>) -> Self {
        let text =
            |bytes: Option<&[u8]>| String::from_utf8_lossy(bytes.unwrap_or_default()).into_owned();
        let headers = record.headers().into_iter().flat_map(Headers::iter);
        Self {
            key: text(record.key()),
            value: serde_json::from_slice(record.payload().unwrap_or_default()).unwrap_or_default(),
            headers: headers
                .map(|header| (header.key.to_owned(), text(header.value)))
                .collect(),
        }
    }

    pub(crate) fn is(&self, about: Uuid, event_type: &str) -> bool {
        self.key == about.to_string()
            && self
                .headers
                .get("eventType")
                .is_some_and(|name| name == event_type)
    }
}
