//! The producer on a real broker: every record is acknowledged, or its failure is told.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod support;

use std::time::Duration;

use ackwell::core::murmur2;
use ackwell::observe::Metrics;
use ackwell::producer::OutgoingRecord;
use ackwell::{App, Classify, Producer, Topic};
use support::{Kafka, ORDERS, order, within};

/// Puts the topic in place.
async fn topic(kafka: &Kafka) {
    let app = App::new(kafka.config())
        .topic(ORDERS)
        .start()
        .await
        .unwrap();
    within("the stop", app.stop()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sent_event_says_where_it_stands_and_its_key_decides_the_partition_as_in_java() {
    let kafka = Kafka::start().await;
    topic(&kafka).await;
    let producer = Producer::new(&kafka.config()).unwrap();
    for number in 0..20 {
        let sent = producer.send(&order(number)).await.unwrap();
        let key = format!("o-{number}");
        assert_eq!(sent.topic, "order-events");
        assert_eq!(
            u32::try_from(sent.partition).unwrap(),
            murmur2::partition(key.as_bytes(), 3)
        );
        assert!(sent.timestamp.is_some());
    }
    let explicit = OutgoingRecord::to("order-events")
        .key("o-1")
        .partition(2)
        .timestamp(1_700_000_000_000);
    let sent = producer.send_record(explicit).await.unwrap();
    assert_eq!(
        (sent.partition, sent.timestamp),
        (2, Some(1_700_000_000_000))
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_has_one_result_for_each_record_and_a_full_queue_waits() {
    let kafka = Kafka::start().await;
    topic(&kafka).await;
    let mut config = kafka.config();
    config.producer.queue_records = 10;
    config.producer.queue_kbytes = 1;
    let producer = Producer::new(&config).unwrap();
    let good = (0..500).map(|n| {
        OutgoingRecord::to("order-events")
            .key(n.to_string())
            .value("x".repeat(100))
    });
    let absurd = OutgoingRecord::to("order-events").partition(99);
    let large = OutgoingRecord::to("order-events").value(vec![0; 2_000_000]);
    let results = within(
        "the batch",
        producer.send_batch(good.chain([absurd, large])),
    )
    .await;
    assert_eq!(results.len(), 502);
    assert!(results[..500].iter().all(Result::is_ok));
    for refused in &results[500..] {
        let error = refused.as_ref().unwrap_err();
        assert!(error.is_permanent(), "{error}: {:?}", error.class());
    }
    within("the flush", producer.flush(Duration::from_secs(30)))
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_can_not_be_sent_is_told_even_if_nobody_waits() {
    let kafka = Kafka::absent().await;
    let mut config = kafka.config();
    config.producer.delivery_timeout = Duration::from_millis(500);
    let metrics = Metrics::new();
    let producer = Producer::observed(&config, &metrics).unwrap();
    drop(
        producer
            .enqueue(OutgoingRecord::to("order-events").value("forgotten"))
            .await
            .unwrap(),
    );
    let error = within("the failure", producer.send(&order(1)))
        .await
        .unwrap_err();
    assert!(error.is_unavailable(), "{error:?}");
    assert_eq!(error.to_string(), "sending to order-events");
    within("the flush", producer.flush(Duration::from_secs(30)))
        .await
        .unwrap();
    let text = metrics.render();
    assert!(
        text.contains(
            "ackwell_producer_records_total{topic=\"order-events\",outcome=\"failed\"} 2"
        ),
        "{text}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_closed_producer_gives_up_what_is_left_and_takes_nothing_more() {
    let kafka = Kafka::absent().await;
    let producer = Producer::new(&kafka.config()).unwrap();
    let waiting = producer
        .enqueue(OutgoingRecord::to("order-events").value("x"))
        .await
        .unwrap();
    let error = producer
        .close(Duration::from_millis(100))
        .await
        .unwrap_err();
    assert!(
        error.to_string().contains("1 records are not acknowledged"),
        "{error}"
    );
    assert!(within("the purge", waiting).await.is_err());
    let refused = producer.send(&order(1)).await.unwrap_err();
    assert!(refused.to_string().contains("closed"), "{refused}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_of_a_key_keep_the_order_in_which_they_were_queued() {
    let kafka = Kafka::start().await;
    let numbers: Topic<()> = Topic::new("numbers").partitions(1);
    let app = App::new(kafka.config())
        .topic(numbers)
        .start()
        .await
        .unwrap();
    let producer = Producer::new(&kafka.config()).unwrap();
    let mut deliveries = Vec::new();
    for n in 0..1_000 {
        deliveries.push(
            producer
                .enqueue(OutgoingRecord::to("numbers").key("k").value(n.to_string()))
                .await
                .unwrap(),
        );
    }
    for (n, delivery) in (0..).zip(deliveries) {
        assert_eq!(
            within("an acknowledgement", delivery).await.unwrap().offset,
            n
        );
    }
    within("the stop", app.stop()).await.unwrap();
}
