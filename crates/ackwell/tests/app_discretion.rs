//! What a record holds is nobody's business but its handler's: neither logs nor metrics tell it.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod support;

use std::io::{self, Write};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ackwell::extract::{Event, Raw, State};
use ackwell::producer::OutgoingRecord;
use ackwell::record::Headers;
use ackwell::{App, Failure, Listener, Producer};
use support::{Kafka, ORDERS, OrderPlaced, within};
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};

/// What stands in the records and must not stand elsewhere.
const SECRET: &str = "4111-1111-1111-1111";
/// Failures with a text of their own each, as those that name a customer or an amount.
const FAILURES: usize = 40;

/// What was logged.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

async fn refuse(
    Event(order): Event<OrderPlaced>,
    State(heard): State<UnboundedSender<()>>,
) -> Result<(), Failure> {
    let _ = heard.send(());
    Err(Failure::permanent(format!(
        "order number {} is refused",
        order.number
    )))
}

async fn bury(Raw(_): Raw, State(heard): State<UnboundedSender<()>>) {
    let _ = heard.send(());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn neither_logs_nor_metrics_tell_what_records_hold() {
    let log = Log::default();
    let writer = log.clone();
    tracing_subscriber::fmt()
        .with_max_level(tracing_subscriber::filter::LevelFilter::DEBUG)
        .with_writer(move || writer.clone())
        .init();
    let kafka = Kafka::start().await;
    let (heard, mut hears) = unbounded_channel::<()>();
    let app = App::new(kafka.config())
        .named("discreet")
        .state(heard)
        .listener(Listener::on(ORDERS).name("orders").handle(refuse))
        .listener(
            Listener::on("order-events.DLQ")
                .without_dead_letters()
                .name("dead")
                .group("discreet-dead")
                .handle(bury),
        );
    let producer = Producer::observed(&kafka.config(), &app.metrics()).unwrap();
    let app = app.start().await.unwrap();
    within("readiness", app.ready()).await.unwrap();

    let send = async |value: String| {
        let mut headers = Headers::new();
        headers.push("eventType", "OrderPlaced");
        headers.push("card", SECRET);
        let record = OutgoingRecord::to("order-events").key(SECRET).value(value);
        producer.send_record(record.headers(headers)).await.unwrap();
    };
    let refused = |number: usize| format!(r#"{{"order":"{SECRET}","number":{number}}}"#);
    // One that its handler refuses, and those that don't get so far: a type, a field, a cut.
    send(refused(0)).await;
    send(format!(r#"{{"order":"o","number":"{SECRET}"}}"#)).await;
    send(format!(r#"{{"{SECRET}":"o"}}"#)).await;
    send(format!(r#"{{"order":"{SECRET}"#)).await;
    for number in 1..FAILURES {
        send(refused(number)).await;
    }
    // Each that is refused is heard of twice, each undecodable one as a dead letter.
    for _ in 0..FAILURES * 2 + 3 {
        within("the failures", hears.recv()).await.unwrap();
    }
    let measured = app.metrics().render();
    within("the stop", app.stop()).await.unwrap();
    producer.close(Duration::from_secs(5)).await.unwrap();

    assert!(
        measured
            .contains("ackwell_failed_attempts_total{listener=\"orders\",outcome=\"permanent\"}"),
        "failures are counted: {measured}"
    );
    assert!(
        !measured.contains(SECRET) && !measured.contains("is refused"),
        "each failure has a text of its own: {measured}"
    );
    let logged = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    assert!(
        logged.contains("order number 0 is refused") && logged.contains("invalid type: string"),
        "failures are logged: {logged}"
    );
    assert!(!logged.contains(SECRET), "{logged}");
}
