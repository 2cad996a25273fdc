//! Listeners on topics by a pattern, on a real broker.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod support;

use std::collections::BTreeSet;
use std::time::Duration;

use ackwell::extract::{State, Text, TopicName};
use ackwell::listener::Pattern;
use ackwell::producer::OutgoingRecord;
use ackwell::{App, Failure, Listener, Producer};
use support::{Kafka, within};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

type Heard = (String, String);

async fn hear(
    TopicName(topic): TopicName,
    Text(text): Text,
    State(heard): State<UnboundedSender<Heard>>,
) -> Result<(), Failure> {
    let _ = heard.send((topic.to_string(), text.clone()));
    match &*text {
        "poison" => Err(Failure::permanent("poison")),
        _ => Ok(()),
    }
}

async fn next(heard: &mut UnboundedReceiver<Heard>) -> Heard {
    within("a record", heard.recv()).await.unwrap()
}

fn heard(topic: &str, text: &str) -> Heard {
    (topic.to_owned(), text.to_owned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn topics_that_match_are_read_also_those_that_appear_later_and_never_dead_letters() {
    let kafka = Kafka::start().await;
    for topic in [
        "orders-eu",
        "bills-eu",
        "orders-old.DLQ",
        "orders-us.retry.1",
    ] {
        kafka.create_topic(topic, 1).await;
    }
    let producer = Producer::new(&kafka.config()).unwrap();
    let send = async |topic: &'static str, text: &'static str| {
        let record = OutgoingRecord::to(topic).value(text);
        producer.send_record(record).await.unwrap();
    };
    for topic in [
        "orders-eu",
        "bills-eu",
        "orders-old.DLQ",
        "orders-us.retry.1",
    ] {
        send(topic, "first").await;
    }
    let (told, mut listening) = unbounded_channel();
    let pattern = Pattern::new("orders-.*").refresh(Duration::from_millis(200));
    let app = App::new(kafka.config())
        .named("all-orders")
        .state(told)
        .listener(Listener::matching(pattern).handle(hear));
    let app = within("the start", app.start()).await.unwrap();
    assert_eq!(next(&mut listening).await, heard("orders-eu", "first"));
    within("readiness", app.ready()).await.unwrap();

    kafka.create_topic("orders-us", 2).await;
    send("orders-us", "poison").await;
    assert_eq!(next(&mut listening).await, heard("orders-us", "poison"));
    let line = "ackwell_dead_letters_total{listener=\"all-orders:orders-.*\",topic=\"orders-us\",reason=\"permanent\"} 1";
    within(line, async {
        while !app.metrics().render().lines().any(|found| found == line) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    kafka.create_topic("orders-apac", 1).await;
    let mut rest = BTreeSet::new();
    for topic in ["orders-eu", "orders-us", "orders-apac"] {
        send(topic, "last").await;
        rest.insert(heard(topic, "last"));
    }
    let mut found = BTreeSet::new();
    while found.len() < rest.len() {
        found.insert(next(&mut listening).await);
    }
    assert_eq!(found, rest, "the dead letter was not read");
    within("the stop", app.stop()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_listener_whose_pattern_matches_nothing_yet_is_not_ready_and_says_so() {
    let kafka = Kafka::start().await;
    kafka.create_topic("later-1.DLQ", 1).await;
    let (told, mut listening) = unbounded_channel();
    let pattern = Pattern::new("later-.*").refresh(Duration::from_millis(200));
    let app = App::new(kafka.config())
        .named("patient")
        .state(told)
        .listener(Listener::matching(pattern).name("patient").handle(hear));
    let app = within("the start", app.start()).await.unwrap();
    let waits = within("the reason", async {
        loop {
            let against = app.health().ready().against;
            let reasons = against.iter().filter_map(|found| found.status.reason());
            let reason = reasons
                .map(str::to_owned)
                .find(|reason| reason.contains("later-"));
            match reason {
                Some(reason) => break reason,
                None => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    })
    .await;
    assert!(
        waits.contains("no topic matches `later-.*` yet, except 1"),
        "{waits}"
    );
    assert!(app.health().live().ok);

    kafka.create_topic("later-1", 1).await;
    within("readiness", app.ready()).await.unwrap();
    let producer = Producer::new(&kafka.config()).unwrap();
    let record = OutgoingRecord::to("later-1").value("here");
    producer.send_record(record).await.unwrap();
    assert_eq!(next(&mut listening).await, heard("later-1", "here"));
    within("the stop", app.stop()).await.unwrap();
}
