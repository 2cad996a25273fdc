//! The HTTP interfaces: bad input, repetition, cancelling, and their own description.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests fail as tests do"
)]

mod system;

use std::collections::BTreeSet;

use reqwest::Method;
use serde_json::{Value, json};
use system::{System, until};

fn one_item(item: Value) -> String {
    json!({"customer_id": "1", "items": [item]}).to_string()
}

fn item(quantity: Value, unit_price: Value) -> Value {
    json!({"product_id": "cd-01", "quantity": quantity, "unit_price": unit_price})
}

async fn post(system: &System, key: Option<&str>, body: impl Into<reqwest::Body>) -> (u16, Value) {
    let mut request = system.http.post(format!("{}/orders", system.order));
    if let Some(key) = key {
        request = request.header("Idempotency-Key", key);
    }
    let response = request
        .header("Content-Type", "application/json")
        .body(body)
        .send()
        .await
        .unwrap();
    let status = response.status().as_u16();
    if status >= 400 {
        assert_eq!(
            response.headers()["content-type"],
            "application/problem+json"
        );
    }
    (status, response.json().await.unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_input_has_a_clear_answer_and_leaves_nothing() {
    let system = System::start().await;
    let good = one_item(item(json!(1), json!("1.00")));
    let line = item(json!(1), json!("1.00"));
    let cases: Vec<(&str, Option<&str>, String, u16, &str)> = vec![
        ("no key", None, good.clone(), 400, "Idempotency-Key"),
        (
            "a key with a space",
            Some("a b"),
            good.clone(),
            400,
            "visible ASCII",
        ),
        ("a long key", Some(LONG_KEY), good.clone(), 400, "1 to 200"),
        (
            "malformed JSON",
            Some("k"),
            "{\"customer_id\":\n nope".into(),
            400,
            "line 2",
        ),
        ("an empty body", Some("k"), String::new(), 400, "empty"),
        ("no object", Some("k"), "17".into(), 422, "line 1"),
        (
            "an unknown field",
            Some("k"),
            r#"{"customer_id":"1","items":[],"coupon":1}"#.into(),
            422,
            "coupon",
        ),
        (
            "a missing field",
            Some("k"),
            r#"{"customer_id":"1"}"#.into(),
            422,
            "items",
        ),
        (
            "no items",
            Some("k"),
            r#"{"customer_id":"1","items":[]}"#.into(),
            422,
            "1 to 100",
        ),
        (
            "too many items",
            Some("k"),
            json!({"customer_id": "1", "items": vec![line; 101]}).to_string(),
            422,
            "101",
        ),
        (
            "zero",
            Some("k"),
            one_item(item(json!(0), json!("1"))),
            422,
            "items[0].quantity",
        ),
        (
            "negative",
            Some("k"),
            one_item(item(json!(-5), json!("1"))),
            422,
            "items[0].quantity",
        ),
        (
            "huge",
            Some("k"),
            one_item(item(json!(1_000_001), json!("1"))),
            422,
            "items[0].quantity",
        ),
        (
            "beyond 64 bits",
            Some("k"),
            one_item(item(json!(1e30), json!("1"))),
            422,
            "line 1",
        ),
        (
            "half a unit",
            Some("k"),
            one_item(item(json!(0.5), json!("1"))),
            422,
            "line 1",
        ),
        (
            "seven decimals",
            Some("k"),
            one_item(item(json!(1), json!("1.0000001"))),
            422,
            "6 decimals",
        ),
        (
            "a negative price",
            Some("k"),
            one_item(item(json!(1), json!("-1"))),
            422,
            "negative",
        ),
        (
            "a price that is a number",
            Some("k"),
            one_item(item(json!(1), json!(9.77))),
            422,
            "string",
        ),
        (
            "a price in words",
            Some("k"),
            one_item(item(json!(1), json!("cheap"))),
            422,
            "decimal number",
        ),
        (
            "a huge body",
            Some("k"),
            format!("{{\"customer_id\":\"{}\"}}", "x".repeat(70_000)),
            413,
            "larger",
        ),
        ("a deep body", Some("k"), "[".repeat(60_000), 422, "line 1"),
    ];
    for (name, key, body, expected, part) in cases {
        let (status, problem) = post(&system, key, body).await;
        assert_eq!(status, expected, "{name}: {problem}");
        assert_eq!(problem["status"], expected, "{name}: {problem}");
        let detail = problem["detail"].as_str().unwrap();
        assert!(detail.contains(part), "{name}: {detail}");
    }
    let (status, _) = post(&system, Some("k"), vec![0xff, 0xfe, b'{']).await;
    assert_eq!(status, 400, "bytes that are no text");
    let text = system
        .http
        .post(format!("{}/orders", system.order))
        .header("Idempotency-Key", "k")
        .body("x=1");
    assert_eq!(text.send().await.unwrap().status(), 415);
    assert_eq!(
        system.get(format!("{}/orders", system.order)).await,
        json!({"orders": [], "next": null})
    );
}

const LONG_KEY: &str = concat!(
    "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
    "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"
);

#[tokio::test(flavor = "multi_thread")]
async fn other_questions_that_cannot_be_answered_are_problems_too() {
    let system = System::start().await;
    let (order, product) = (&system.order, &system.product);
    let gets = [
        (format!("{order}/orders/nope"), 404),
        (
            format!("{order}/orders/00000000-0000-0000-0000-000000000000"),
            404,
        ),
        (format!("{order}/orders?limit=0"), 400),
        (format!("{order}/orders?limit=1001"), 400),
        (format!("{order}/orders?limit=ten"), 400),
        (format!("{order}/orders?status=pending"), 400),
        (format!("{order}/orders?after=nope"), 400),
        (format!("{order}/orders?after={NOBODY}"), 404),
        (format!("{order}/orders?colour=red"), 400),
        (format!("{order}/nowhere"), 404),
        (format!("{product}/products/nope"), 404),
    ];
    for (url, expected) in gets {
        let response = system.http.get(&url).send().await.unwrap();
        assert_eq!(response.status(), expected, "{url}");
        assert_eq!(
            response.headers()["content-type"],
            "application/problem+json",
            "{url}"
        );
    }
    let puts = [
        ("cd-01", json!({"name": "x", "stock": -1}), 422),
        ("cd-01", json!({"name": "x", "stock": 1.5}), 422),
        ("cd-01", json!({"name": "", "stock": 1}), 422),
        ("cd-01", json!({"name": "x"}), 422),
        (
            "cd-01",
            json!({"name": "x", "stock": 1, "reserved": 1}),
            422,
        ),
        ("a%20b", json!({"name": "x", "stock": 1}), 422),
        ("cd-01", json!({"name": "x", "stock": 7}), 201),
        ("cd-01", json!({"name": "x", "stock": 7}), 200),
    ];
    for (id, body, expected) in puts {
        let response = system
            .http
            .put(format!("{product}/products/{id}"))
            .json(&body)
            .send()
            .await
            .unwrap();
        assert_eq!(response.status(), expected, "{body}");
    }
    let shown = system.get(format!("{product}/products/cd-01")).await;
    assert_eq!(
        shown,
        json!({"product_id": "cd-01", "name": "x", "stock": 7, "reserved": 0})
    );
    let missing = system
        .http
        .post(format!("{order}/orders/nope/cancel"))
        .send()
        .await
        .unwrap();
    assert_eq!(missing.status(), 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_key_has_the_same_answer_and_another_body_has_none() {
    let system = System::start().await;
    system.put_product("cd-01", 10).await;
    let body = one_item(item(json!(2), json!("14.665")));
    let request = || {
        let request = system
            .http
            .post(format!("{}/orders", system.order))
            .header("Idempotency-Key", "k-1");
        request.header("Content-Type", "application/json")
    };
    let first = request().body(body.clone()).send().await.unwrap();
    assert_eq!(first.status(), 202);
    let location = first.headers()["location"].to_str().unwrap().to_owned();
    assert!(!first.headers().contains_key("idempotency-replayed"));
    let answer: Value = first.json().await.unwrap();
    let id = answer["order_id"].as_str().unwrap();
    assert_eq!(
        (location, &answer["status"]),
        (format!("/orders/{id}"), &json!("PENDING"))
    );
    assert_eq!(system.final_order(id).await["status"], "CONFIRMED");

    let spaced = body.replace(',', " ,\n");
    for same in [body.clone(), spaced, body.replace("14.665", "14.665000")] {
        let again = request().body(same).send().await.unwrap();
        assert_eq!(again.status(), 202);
        assert_eq!(again.headers()["idempotency-replayed"], "true");
        assert_eq!(again.json::<Value>().await.unwrap(), answer);
    }
    let other = request()
        .body(body.replace("14.665", "14.67"))
        .send()
        .await
        .unwrap();
    assert_eq!(other.status(), 422);
    let list = system.get(format!("{}/orders", system.order)).await;
    assert_eq!(list["orders"].as_array().unwrap().len(), 1);
    assert_eq!(list["orders"][0]["total_amount"], "29.33");
    system.clean_audit().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_product_is_a_cancelled_order_with_a_reason() {
    let system = System::start().await;
    let id = system.place("k-1", "nope", 1).await;
    let order = system.final_order(&id).await;
    assert_eq!(
        (&order["status"], &order["reason"]),
        (&json!("CANCELLED"), &json!("there is no product nope"))
    );
    assert_eq!(order["history"].as_array().unwrap().len(), 2);
    system.clean_audit().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn cancelling_while_stock_is_being_reserved_never_leaks_stock() {
    let system = System::start().await;
    system.put_product("cd-01", 1000).await;
    let cancelling = (0..60).map(async |at| {
        let id = system.place(&format!("k-{at}"), "cd-01", 1).await;
        let url = format!("{}/orders/{id}/cancel", system.order);
        let status = system
            .http
            .post(&url)
            .send()
            .await
            .unwrap()
            .status()
            .as_u16();
        let order = system.final_order(&id).await;
        match status {
            200 => assert_eq!(order["status"], "CANCELLED", "{order}"),
            409 => assert_eq!(order["status"], "CONFIRMED", "{order}"),
            other => panic!("{other}"),
        }
        if status == 200 {
            assert_eq!(
                system.http.post(&url).send().await.unwrap().status(),
                200,
                "cancelling again"
            );
            assert_eq!(order["reason"], "withdrawn by the customer");
        }
        u64::from(status == 409)
    });
    let confirmed: u64 = futures_util::future::join_all(cancelling)
        .await
        .into_iter()
        .sum();
    let url = format!("{}/products/cd-01", system.product);
    until(async || (system.get(url.clone()).await["stock"] == 1000 - confirmed).then_some(()))
        .await;
    assert_eq!(system.get(url).await["reserved"], confirmed);
    system.clean_audit().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_lead_to_every_order_once() {
    let system = System::start().await;
    system.put_product("cd-01", 10).await;
    let mut placed = BTreeSet::new();
    for at in 0..7 {
        placed.insert(system.place(&format!("k-{at}"), "cd-01", 1).await);
    }
    let (mut seen, mut after) = (Vec::new(), String::new());
    loop {
        let page = system
            .get(format!("{}/orders?limit=3&after={after}", system.order))
            .await;
        seen.extend(
            page["orders"]
                .as_array()
                .unwrap()
                .iter()
                .map(|order| order["order_id"].as_str().unwrap().to_owned()),
        );
        match page["next"].as_str() {
            Some(next) => after = next.to_owned(),
            None => break,
        }
    }
    assert_eq!(seen.len(), 7);
    assert_eq!(seen.into_iter().collect::<BTreeSet<_>>(), placed);
}

const NOBODY: &str = "00000000-0000-0000-0000-000000000000";

/// The description names every path and method there is, and no other.
#[tokio::test(flavor = "multi_thread")]
async fn openapi_says_what_there_is() {
    let system = System::start().await;
    for base in [
        &system.order,
        &system.product,
        &system.payment,
        &system.user,
        &system.notification,
    ] {
        let description = system.get(format!("{base}/openapi.json")).await;
        assert_eq!(description["openapi"], "3.1.0");
        for (path, methods) in description["paths"].as_object().unwrap() {
            let url = format!(
                "{base}{}",
                ["{id}", "{order_id}", "{user_id}"]
                    .into_iter()
                    .fold(path.clone(), |path, name| path.replace(name, NOBODY))
            );
            for method in [
                Method::GET,
                Method::PUT,
                Method::POST,
                Method::DELETE,
                Method::PATCH,
            ] {
                let described = methods.get(method.as_str().to_lowercase()).is_some();
                let response = system
                    .http
                    .request(method.clone(), &url)
                    .send()
                    .await
                    .unwrap();
                let answered = response.status() != 405;
                assert_eq!(answered, described, "{method} {path}");
                let status = response.status().as_str().to_owned();
                if described {
                    let responses = &methods[method.as_str().to_lowercase()]["responses"];
                    assert!(
                        responses.get(&status).is_some(),
                        "{method} {path} answers {status}"
                    );
                }
            }
        }
    }
    system.put_product("cd-01", 5).await;
    let id = system.place("k-1", "cd-01", 1).await;
    let order = system.final_order(&id).await;
    let product = system
        .get(format!("{}/products/cd-01", system.product))
        .await;
    let user = json!({"email": "a@example.org", "name": "A"});
    let user = (system
        .http
        .post(format!("{}/users", system.user))
        .json(&user))
    .send()
    .await
    .unwrap();
    assert_eq!(user.status(), 201);
    let user: Value = user.json().await.unwrap();
    let told = system.told(&id).await;
    for (base, name, value) in [
        (&system.order, "Order", order),
        (&system.product, "Product", product),
        (&system.user, "User", user),
        (&system.notification, "Told", told),
    ] {
        let schema =
            &system.get(format!("{base}/openapi.json")).await["components"]["schemas"][name];
        let described: BTreeSet<_> = schema["properties"]
            .as_object()
            .unwrap()
            .keys()
            .cloned()
            .collect();
        let shown: BTreeSet<_> = value.as_object().unwrap().keys().cloned().collect();
        assert_eq!(shown, described, "{name}");
    }
}
