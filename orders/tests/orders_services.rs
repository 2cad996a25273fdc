//! Payment, product, user and notification service, spoken to as the saga and customers speak to them.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests fail as tests do"
)]

mod system;

use std::cell::RefCell;
use std::collections::BTreeSet;

use serde_json::{Value, json};
use system::System;
use system::wire::{Seen, Wire};
use uuid::Uuid;

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

#[tokio::test(flavor = "multi_thread")]
async fn stock_is_reserved_once_however_often_the_saga_asks_and_never_after_a_release() {
    let system = System::start().await;
    system.put_product("cd-01", 10).await;
    let wire = Wire::to(&system);
    let (order, withdrawn) = (Uuid::from_u128(1), Uuid::from_u128(2));
    let items = json!([{"product_id": "cd-01", "quantity": 2}]);
    for _ in 0..2 {
        wire.command(
            "inventory-events",
            "ReserveInventory",
            order,
            json!({"items": items}),
        )
        .await;
    }
    let reserved = wire
        .replies("inventory-events", order, "InventoryReserved", 2)
        .await;
    assert_eq!(reserved[0], reserved[1]);

    wire.command(
        "inventory-events",
        "ReleaseInventory",
        withdrawn,
        json!({"reason": "withdrawn"}),
    )
    .await;
    wire.command(
        "inventory-events",
        "ReserveInventory",
        withdrawn,
        json!({"items": items}),
    )
    .await;
    let refused = wire
        .replies("inventory-events", withdrawn, "InventoryRefused", 1)
        .await;
    assert_eq!(refused[0]["reason"], "withdrawn");
    wire.replies("inventory-events", withdrawn, "InventoryReleased", 1)
        .await;

    let shelf = system
        .get(format!("{}/products/cd-01", system.product))
        .await;
    assert_eq!(
        (&shelf["stock"], &shelf["reserved"]),
        (&json!(8), &json!(2))
    );

    wire.command(
        "inventory-events",
        "ReserveInventory",
        Uuid::from_u128(3),
        json!({"items": []}),
    )
    .await;
    assert!(
        wire.buried("inventory-events", Uuid::from_u128(3))
            .await
            .contains("no items")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_customer_is_charged_once_however_often_the_saga_asks() {
    let system = System::start().await;
    let wire = Wire::to(&system);
    let order = Uuid::from_u128(1);
    for _ in 0..2 {
        wire.charge(order, "29.33", "flaky").await;
    }
    let charged = wire
        .replies("payment-events", order, "PaymentCharged", 2)
        .await;
    assert_eq!(charged[0], charged[1]);
    assert_eq!(charged[0]["amount"], "29.33");
    let payment = system
        .get(format!("{}/payments/{order}", system.payment))
        .await;
    assert_eq!(
        (&payment["status"], &payment["charge_id"]),
        (&json!("CHARGED"), &charged[0]["charge_id"])
    );

    wire.charge(order, "1.00", "card").await;
    assert!(
        wire.buried("payment-events", order)
            .await
            .contains("29.33 before")
    );

    for _ in 0..2 {
        wire.command(
            "payment-events",
            "RefundPayment",
            order,
            json!({"reason": "out of stock"}),
        )
        .await;
    }
    wire.replies("payment-events", order, "PaymentRefunded", 2)
        .await;
    let payment = system
        .get(format!("{}/payments/{order}", system.payment))
        .await;
    assert_eq!(payment["status"], "REFUNDED");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_can_not_be_charged_is_answered_with_a_reason_or_dead_lettered() {
    let system = System::start().await;
    let wire = Wire::to(&system);
    for (at, amount, method, part) in [
        (1, "1.00", "declined", "declined"),
        (2, "10000.01", "card", "above the card's limit of 10000.00"),
    ] {
        let order = Uuid::from_u128(at);
        wire.charge(order, amount, method).await;
        let failed = wire
            .replies("payment-events", order, "PaymentFailed", 1)
            .await;
        assert!(
            failed[0]["reason"].as_str().unwrap().contains(part),
            "{failed:?}"
        );
    }
    let early = Uuid::from_u128(3);
    wire.command(
        "payment-events",
        "RefundPayment",
        early,
        json!({"reason": "cancelled"}),
    )
    .await;
    wire.charge(early, "1.00", "card").await;
    let failed = wire
        .replies("payment-events", early, "PaymentFailed", 1)
        .await;
    assert_eq!(failed[0]["reason"], "cancelled");
    for (at, amount) in [(4, json!(1.5)), (5, json!("-1.00"))] {
        let order = Uuid::from_u128(at);
        let charge = json!({"amount": amount, "customer_id": "1", "payment_method": "card"});
        wire.command("payment-events", "ChargePayment", order, charge)
            .await;
        assert!(
            wire.buried("payment-events", order)
                .await
                .contains("ChargePayment")
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_payment_service_that_is_killed_has_charged_each_customer_once() {
    let mut system = System::start().await;
    let orders: Vec<_> = (1..=40).map(Uuid::from_u128).collect();
    let each = i64::try_from(orders.len()).unwrap();
    {
        let wire = Wire::to(&system);
        for order in &orders {
            wire.charge(*order, "1.00", "flaky").await;
        }
        wire.replies("payment-events", orders[0], "PaymentCharged", 1)
            .await;
    }
    system.kill().await;
    system.restart().await;
    let wire = Wire::to(&system);
    let missing: BTreeSet<_> = orders.iter().map(Uuid::to_string).collect();
    let missing = RefCell::new(missing);
    let charged = |seen: &Seen| {
        seen.headers["eventType"] == "PaymentCharged" && missing.borrow_mut().remove(&seen.key)
    };
    wire.seen("payment-events", charged, orders.len()).await;
    if !system::on_postgres() {
        let ledger = rusqlite::Connection::open(system.data().join("gateway.db")).unwrap();
        let count = |sql| {
            ledger
                .query_row(sql, [], |row| row.get::<_, i64>(0))
                .unwrap()
        };
        assert_eq!(count("SELECT COUNT(*) FROM charges"), each);
        assert_eq!(
            count("SELECT COUNT(*) FROM charges WHERE outcome = 'APPROVED'"),
            each
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_trace_of_a_request_arrives_at_its_last_effect_and_the_customer_is_told_once() {
    let system = System::start().await;
    system.put_product("cd-01", 1).await;
    let place = async |key: &str| {
        let body = json!({
            "customer_id": "7",
            "items": [{"product_id": "cd-01", "quantity": 1, "unit_price": "1.00"}],
        });
        let request = (system.http.post(format!("{}/orders", system.order)))
            .header("Idempotency-Key", key)
            .header("traceparent", format!("00-{TRACE}-00f067aa0ba902b7-01"));
        let response = request.json(&body).send().await.unwrap();
        response.json::<Value>().await.unwrap()["order_id"]
            .as_str()
            .unwrap()
            .to_owned()
    };
    let wire = Wire::to(&system);
    for (key, kind, items) in [("k-1", "CONFIRMED", 1), ("k-2", "CANCELLED", 0)] {
        let id = place(key).await;
        let told = system.told(&id).await;
        assert_eq!(told["notifications"][0]["kind"], kind, "{told}");
        let shipped = told["shipment"]["items"].as_array().map_or(0, Vec::len);
        assert_eq!(shipped, items, "{told}");
        let order: Uuid = id.parse().unwrap();
        let record = wire
            .record("notification-events", order, "CustomerNotified")
            .await;
        assert_eq!(record.value["kind"], kind);
        assert!(
            record.headers["traceparent"].contains(TRACE),
            "{:?}",
            record.headers
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_is_created_once_with_its_event_and_its_audit_entry() {
    let system = System::start().await;
    let create = async |email: &str, name: &str| {
        let body = json!({"email": email, "name": name});
        let request = system
            .http
            .post(format!("{}/users", system.user))
            .json(&body);
        let response = request.send().await.unwrap();
        let status = response.status().as_u16();
        (status, response.json::<Value>().await.unwrap())
    };
    let (status, user) = create("a@example.org", "A").await;
    assert_eq!(status, 201, "{user}");
    let id: Uuid = user["user_id"].as_str().unwrap().parse().unwrap();
    assert_eq!(
        system.get(format!("{}/users/{id}", system.user)).await,
        user
    );
    assert_eq!(create("A@EXAMPLE.ORG", "B").await.0, 409);
    for (email, name, field) in [("nobody", "A", "email"), ("b@example.org", "", "name")] {
        let (status, problem) = create(email, name).await;
        assert_eq!((status, &problem["field"]), (422, &json!(field)));
    }
    let wire = Wire::to(&system);
    let created = wire.record("user-events", id, "UserCreated").await;
    assert_eq!(created.value["email"], "a@example.org");
    let audited = wire.record("audit-events", id, "ActionRecorded").await;
    assert_eq!(audited.value["action"], "created");
}
