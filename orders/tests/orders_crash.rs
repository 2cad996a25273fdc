//! Processes killed with SIGKILL in the middle of the work, and records that nobody understands.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod system;

use std::process::Stdio;

use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{FutureProducer, FutureRecord};
use rusqlite::Connection;
use serde_json::json;
use system::{PATIENCE, System, kill, on_postgres, sample, shown, until};

/// The services die under a running import; it waits for them and goes on.
#[tokio::test(flavor = "multi_thread")]
async fn killed_in_the_middle_and_started_again_no_order_is_lost_or_doubled() {
    let mut system = System::start().await;
    let mut importing = system.importing(&sample(), &["--rate", "80"]);
    let importing = importing
        .stdout(Stdio::piped())
        .stderr(system.log("import"))
        .spawn()
        .unwrap();
    for accepted in [20, 80, 140] {
        system.accepted(accepted).await;
        system.kill().await;
        system.restart().await;
    }
    let output = importing.wait_with_output().await.unwrap();
    assert!(output.status.success(), "{}", shown(&output));

    let (report, output) = system.import(&sample(), &[]).await;
    assert!(output.status.success(), "{}", shown(&output));
    assert_eq!(
        (&report["repeated"], &report["confirmed"]),
        (&json!(200), &json!(200)),
        "{report}"
    );
    let books = system.clean_audit().await;
    assert_eq!(books["orders"]["total"], 200);
    assert_eq!(books["confirmed_units"], books["units"]["reserved"]);
}

/// Two product services on one database and in one group.
#[tokio::test(flavor = "multi_thread")]
async fn one_of_two_product_services_is_killed_and_the_other_takes_over() {
    let mut system = System::on_a_broker().await;
    let (_order, order_url) = system.serve("order").await;
    let (_notification, _) = system.serve("notification").await;
    let (_payment, _) = system.serve("payment").await;
    let (first, _) = system.serve("product").await;
    let (_second, product_url) = system.serve("product").await;
    (system.order, system.product) = (order_url, product_url);

    let mut importing = system.importing(&sample(), &["--rate", "80"]);
    let importing = importing
        .stdout(Stdio::piped())
        .stderr(system.log("import"))
        .spawn()
        .unwrap();
    system.accepted(60).await;
    kill(first).await;
    let output = importing.wait_with_output().await.unwrap();
    assert!(output.status.success(), "{}", shown(&output));
    let books = system.clean_audit().await;
    assert_eq!(books["orders"]["confirmed"], 200, "{books}");
}

/// What nobody understands goes to the dead letters, and orders go on beside it.
#[tokio::test(flavor = "multi_thread")]
async fn records_that_are_no_events_are_dead_lettered_and_stop_no_order() {
    let system = System::start().await;
    system.put_product("cd-01", 10).await;
    let producer: FutureProducer = ClientConfig::new()
        .set("bootstrap.servers", &system.broker)
        .create()
        .unwrap();
    let unknown_order = json!({
        "event_type": "StockValidResponded", "order_id": uuid::Uuid::nil(), "status_code": 200, "reason": null,
        "request": {"order_id": uuid::Uuid::nil(), "items": [{"product_id": "cd-01", "quantity": 1}]},
    });
    let no_items =
        json!({"event_type": "StockValidRequested", "order_id": uuid::Uuid::nil(), "items": []});
    let strange = [
        (
            "stock-valid-request",
            "StockValidRequested",
            "no JSON".to_owned(),
        ),
        ("stock-valid-request", "StockEaten", "{}".to_owned()),
        (
            "stock-valid-request",
            "StockValidRequested",
            no_items.to_string(),
        ),
        (
            "stock-valid-response",
            "StockValidResponded",
            "{\"status_code\":200}".to_owned(),
        ),
        (
            "stock-valid-response",
            "StockValidResponded",
            unknown_order.to_string(),
        ),
    ];
    for (topic, event_type, value) in &strange {
        let event_id = uuid::Uuid::now_v7().to_string();
        let headers = OwnedHeaders::new()
            .insert(Header {
                key: "eventType",
                value: Some(*event_type),
            })
            .insert(Header {
                key: "eventId",
                value: Some(&event_id),
            });
        let record = FutureRecord::<str, str>::to(topic)
            .key("k")
            .payload(value)
            .headers(headers);
        producer.send(record, PATIENCE).await.unwrap();
    }
    for at in 0..10 {
        let id = system.place(&format!("k-{at}"), "cd-01", 1).await;
        assert_eq!(system.final_order(&id).await["status"], "CONFIRMED");
    }
    let buried = |topic: &'static str| {
        let servers = system.broker.clone();
        move || records_on(&servers, topic)
    };
    for (topic, expected) in [
        ("stock-valid-request.DLQ", 3),
        ("stock-valid-response.DLQ", 2),
    ] {
        let count = buried(topic);
        until(async || (count() == expected).then_some(())).await;
    }
}

fn records_on(servers: &str, topic: &str) -> i64 {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", servers)
        .create()
        .unwrap();
    let marks = (0..6).map(|partition| {
        consumer
            .fetch_watermarks(topic, partition, PATIENCE)
            .unwrap()
    });
    marks.map(|(low, high)| high - low).sum()
}

/// The payment service is killed when the gateway has charged and its own transaction is not committed: the test holds
/// its database, so that it stands exactly there.
#[tokio::test(flavor = "multi_thread")]
async fn a_payment_service_killed_between_the_charge_and_its_commit_has_charged_once() {
    if on_postgres() {
        return;
    }
    let mut system = System::start().await;
    system.put_product("cd-01", 10).await;
    let held = Connection::open(system.data().join("payment.db")).unwrap();
    until(async || held.execute_batch("BEGIN IMMEDIATE").ok()).await;
    let order = system.place("k", "cd-01", 1).await;
    let ledger = Connection::open(system.data().join("gateway.db")).unwrap();
    let count = |db: &Connection, sql| db.query_row(sql, [], |row| row.get::<_, i64>(0)).unwrap();
    let approved = "SELECT count(*) FROM charges WHERE outcome = 'APPROVED'";
    until(async || (count(&ledger, approved) == 1).then_some(())).await;
    system.kill().await;
    assert_eq!(count(&held, "SELECT count(*) FROM payments"), 0);
    held.execute_batch("ROLLBACK").unwrap();

    system.restart().await;
    assert_eq!(system.final_order(&order).await["status"], "CONFIRMED");
    assert_eq!(count(&ledger, approved), 1);
    let asked = "SELECT asked FROM charges";
    assert!(count(&ledger, asked) > 1, "it was asked again with its key");
    system.told(&order).await;
    system.clean_audit().await;
}
