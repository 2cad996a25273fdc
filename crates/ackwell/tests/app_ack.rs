//! Ack modes as an app declares them, on a real broker.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod support;

use std::collections::BTreeSet;
use std::time::Duration;

use ackwell::batch::Batch;
use ackwell::extract::{Ack, Acknowledged, Event, State};
use ackwell::{AckMode, App, Listener, Producer, StartError, by_key};
use support::{Kafka, ORDERS, OrderPlaced, order, within};
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};

type Jobs = UnboundedSender<(u32, Ack)>;

async fn queue(Event(order): Event<OrderPlaced>, ack: Ack, State(jobs): State<Jobs>) {
    let _ = jobs.send((order.number, ack));
}

async fn at_once(Event(_): Event<OrderPlaced>) {}

async fn batch(Batch(_): Batch<Event<OrderPlaced>>) {}

async fn twice(_: Ack, _: Ack) {}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_elsewhere_acknowledges_what_handlers_queue() {
    let kafka = Kafka::start().await;
    let (jobs, mut queued): (Jobs, _) = unbounded_channel();
    let app = App::new(kafka.config())
        .named("workers")
        .state(jobs)
        .listener(
            Listener::on(ORDERS)
                .concurrency(by_key(8))
                .ack_mode(AckMode::ManualImmediate)
                .handle(queue),
        );
    let producer = Producer::observed(&kafka.config(), &app.metrics()).unwrap();
    let app = app.start().await.unwrap();
    within("readiness", app.ready()).await.unwrap();
    for number in 0..200 {
        producer.send(&order(number)).await.unwrap();
    }
    let (mut refused, mut done) = (BTreeSet::new(), BTreeSet::new());
    while done.len() < 200 {
        let (number, ack) = within("a job", queued.recv()).await.unwrap();
        if number % 50 == 0 && refused.insert(number) {
            let wait = Duration::from_millis(20);
            assert_eq!(ack.nack(wait), Acknowledged::InTime);
        } else if number % 50 == 0 {
            within("its commit", ack.commit()).await.unwrap();
            done.insert(number);
        } else {
            assert_eq!(ack.acknowledge(), Acknowledged::InTime);
            assert!(done.insert(number), "{number} came twice");
        }
    }
    assert_eq!(refused.len(), 4);
    app.stop().await.unwrap();
}

/// The mend of the start-up error of a listener.
async fn refused(listener: Listener) -> String {
    let kafka = Kafka::start().await;
    let app = App::new(kafka.config()).named("refused").listener(listener);
    match app.start().await {
        Err(error @ StartError::Listener { .. }) => error.to_string(),
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_an_ack_mode_cannot_give_is_refused_at_the_start_with_a_mend() {
    let on = || Listener::on(ORDERS);
    let second = Duration::from_secs(1);
    let cases = [
        (on().handle(queue), ".ack_mode(AckMode::Manual)"),
        (on().ack_mode(AckMode::Manual).handle(at_once), "ack: Ack"),
        (on().ack_mode(AckMode::Manual).handle(twice), "once"),
        (
            on().ack_mode(AckMode::Manual).handle_batch(batch),
            "single records",
        ),
        (on().ack_mode(AckMode::Count(0)).handle(at_once), "positive"),
        (
            on().ack_mode(AckMode::Time(Duration::ZERO)).handle(at_once),
            "positive",
        ),
        (
            on().ack_mode(AckMode::AutoCommitMayLoseRecords(second))
                .strict_commits()
                .handle(at_once),
            "strict_commits",
        ),
        (
            on().ack_mode(AckMode::Manual)
                .strict_commits()
                .handle(queue),
            "Ack::commit",
        ),
        (
            on().ack_mode(AckMode::Time(second))
                .strict_commits()
                .handle(at_once),
            "AckMode::Batch",
        ),
        (
            on().unacknowledged_limit(Duration::ZERO).handle(at_once),
            "in between",
        ),
    ];
    for (listener, mend) in cases {
        let error = refused(listener).await;
        assert!(error.contains(mend), "{error}");
    }
}
