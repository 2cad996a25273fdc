//! Flow B on the real program: a saga reserves, charges and confirms, or takes back what it has done.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "helpers of tests"
)]

mod system;

use serde_json::{Value, json};
use system::wire::{Seen, Wire};
use system::{System, until};
use uuid::Uuid;

const SAGA: &str = "[orders]\nflow = \"saga\"\n";

/// Places an order of two units at 1.00 that is paid in this way; its id.
async fn placed(system: &System, key: &str, method: &str) -> String {
    let body = json!({
        "customer_id": "1",
        "items": [{"product_id": "cd-01", "quantity": 2, "unit_price": "1.00"}],
        "payment_method": method,
    });
    let request = system.http.post(format!("{}/orders", system.order));
    let response = request
        .header("Idempotency-Key", key)
        .json(&body)
        .send()
        .await
        .unwrap();
    assert_eq!(response.status(), 202);
    let body: Value = response.json().await.unwrap();
    body["order_id"].as_str().unwrap().to_owned()
}

/// The saga of an order, once it has this status.
async fn saga(system: &System, order: &str, status: &str) -> Value {
    let url = format!("{}/sagas?status={status}", system.order);
    let line = until(async || {
        let page = system.get(url.clone()).await;
        let sagas = page["sagas"].as_array().unwrap().clone();
        sagas.into_iter().find(|saga| saga["order_id"] == order)
    })
    .await;
    let id = line["saga_id"].as_str().unwrap();
    system.get(format!("{}/sagas/{id}", system.order)).await
}

async fn stock(system: &System) -> (i64, i64) {
    let product = system
        .get(format!("{}/products/cd-01", system.product))
        .await;
    let number = |name: &str| product[name].as_i64().unwrap();
    (number("stock"), number("reserved"))
}

fn steps(saga: &Value) -> Vec<&str> {
    let steps = saga["steps"].as_array().unwrap().iter();
    steps.map(|step| step["status"].as_str().unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_is_confirmed_or_taken_back_and_its_saga_says_how() {
    let system = System::start_with(SAGA).await;
    system.put_product("cd-01", 10).await;

    let confirmed = placed(&system, "a", "card").await;
    assert_eq!(system.final_order(&confirmed).await["status"], "CONFIRMED");
    let seen = saga(&system, &confirmed, "COMPLETED").await;
    assert_eq!(steps(&seen), ["DONE", "DONE", "DONE"]);
    assert_eq!(seen["history"].as_array().unwrap().len(), 4);
    assert_eq!(stock(&system).await, (8, 2));
    let told = system.told(&confirmed).await;
    assert_eq!(told["notifications"][0]["kind"], "CONFIRMED");

    let declined = placed(&system, "b", "declined").await;
    let order = system.final_order(&declined).await;
    assert_eq!(order["status"], "CANCELLED");
    let seen = saga(&system, &declined, "COMPENSATED").await;
    assert_eq!(steps(&seen), ["UNDONE", "REFUSED", "WAITING"]);
    assert_eq!(seen["reason"], order["reason"]);
    assert_eq!(stock(&system).await, (8, 2));

    let cancelled = placed(&system, "c", "card").await;
    let url = format!("{}/orders/{cancelled}/cancel", system.order);
    let answer = system.http.post(url).send().await.unwrap();
    // The saga may have been quicker.
    match answer.status().as_u16() {
        200 => {
            let order: Value = answer.json().await.unwrap();
            assert_eq!(order["status"], "CANCELLED");
            saga(&system, &cancelled, "COMPENSATED").await;
            assert_eq!(stock(&system).await, (8, 2));
        }
        409 => {
            let order = system.final_order(&cancelled).await;
            assert_eq!(order["status"], "CONFIRMED");
            assert_eq!(stock(&system).await, (6, 4));
        }
        status => panic!("{status}"),
    }
    asked_wrongly(&system, &confirmed).await;
}

/// What the interface refuses, and in which words.
async fn asked_wrongly(system: &System, confirmed: &str) {
    let seen = saga(system, confirmed, "COMPLETED").await;
    let id = seen["saga_id"].as_str().unwrap();
    let nobody = "00000000-0000-0000-0000-000000000000";
    let get = async |path: &str| {
        let url = format!("{}{path}", system.order);
        system.http.get(url).send().await.unwrap().status().as_u16()
    };
    assert_eq!(get("/sagas?status=LOST").await, 400);
    assert_eq!(get("/sagas?limit=0").await, 400);
    assert_eq!(get("/sagas?after=x").await, 400);
    assert_eq!(get(&format!("/sagas?after={nobody}")).await, 404);
    assert_eq!(get(&format!("/sagas/{nobody}")).await, 404);
    assert_eq!(get("/sagas/x").await, 404);
    let resolve = async |id: &str, body: Value| {
        let url = format!("{}/sagas/{id}/resolve", system.order);
        let answer = system.http.post(url).json(&body).send().await.unwrap();
        answer.status().as_u16()
    };
    assert_eq!(resolve(id, json!({"decision": "cancel"})).await, 409);
    assert_eq!(resolve(id, json!({"decision": "perhaps"})).await, 422);
    assert_eq!(resolve(nobody, json!({"decision": "cancel"})).await, 404);
    let page = system.get(format!("{}/sagas?limit=1", system.order)).await;
    assert_eq!(page["sagas"].as_array().unwrap().len(), 1);
    let next = page["next"].as_str().unwrap();
    let page = system
        .get(format!("{}/sagas?after={next}", system.order))
        .await;
    assert_eq!(page["sagas"].as_array().unwrap().len(), 2);
}

/// A reply that comes when nobody remembers its saga, and one for an order that there never was.
#[tokio::test(flavor = "multi_thread")]
async fn a_late_reply_to_a_saga_that_was_forgotten_is_ignored_and_counted() {
    let system = System::start_with(&format!("{SAGA}saga_retention_days = 0\n")).await;
    system.put_product("cd-01", 10).await;
    let order = placed(&system, "a", "card").await;
    assert_eq!(system.final_order(&order).await["status"], "CONFIRMED");
    let sagas = format!("{}/sagas", system.order);
    until(async || {
        let page = system.get(sagas.clone()).await;
        page["sagas"].as_array().unwrap().is_empty().then_some(())
    })
    .await;
    let wire = Wire::to(&system);
    let (late, strange) = (order.parse().unwrap(), Uuid::from_u128(7));
    for about in [late, strange] {
        let topic = "inventory-events";
        wire.command(topic, "InventoryReserved", about, json!({}))
            .await;
    }
    let metrics = format!("{}/metrics", system.order);
    until(async || {
        let text = system.http.get(&metrics).send().await.unwrap();
        let text = text.text().await.unwrap();
        let counted = "ackwell_saga_unknown_total{saga=\"order\"} ";
        let count = text.lines().find_map(|line| line.strip_prefix(counted))?;
        (count.parse::<u64>().unwrap() >= 2).then_some(())
    })
    .await;
    let of_saga = |seen: &Seen| seen.headers["original.group"] == "order-saga";
    let letters = wire.seen("inventory-events.DLQ", of_saga, 1).await;
    assert_eq!(letters[0].key, strange.to_string());
    assert_eq!(system.final_order(&order).await["status"], "CONFIRMED");
    assert_eq!(stock(&system).await, (8, 2));
    system.clean_audit().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_payment_that_succeeds_after_its_timeout_is_refunded() {
    let settings = format!("{SAGA}payment_timeout_ms = 300\nslow_payment_ms = 1500\n");
    let system = System::start_with(&settings).await;
    system.put_product("cd-01", 10).await;
    let order = placed(&system, "a", "slow").await;
    let seen = system.final_order(&order).await;
    assert_eq!(seen["status"], "CANCELLED");
    assert!(seen["reason"].as_str().unwrap().contains("charge payment"));
    let seen = saga(&system, &order, "COMPENSATED").await;
    assert_eq!(steps(&seen), ["UNDONE", "UNDONE", "WAITING"]);
    assert_eq!(stock(&system).await, (10, 0));
    let url = format!("{}/payments/{order}", system.payment);
    until(async || {
        let payment = system.get(url.clone()).await;
        (payment["status"] == "REFUNDED").then_some(())
    })
    .await;
}
