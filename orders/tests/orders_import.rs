//! Importing a file of orders into the running system.

mod system;

use serde_json::json;
use system::{CHOREOGRAPHY, System, sample, shown};

#[tokio::test(flavor = "multi_thread")]
async fn every_order_of_the_sample_is_confirmed_and_a_repetition_changes_nothing() {
    let mut system = System::start().await;
    let (report, output) = system.import(&sample(), &[]).await;
    assert!(output.status.success(), "{}", shown(&output));
    for (field, expected) in [
        ("rows", 200),
        ("accepted", 200),
        ("repeated", 0),
        ("confirmed", 200),
        ("cancelled", 0),
        ("manual_review", 0),
        ("failed", 0),
    ] {
        assert_eq!(report[field], expected, "{field}: {report}");
    }
    assert!(report["p50_ms"].as_f64().unwrap() > 0.0, "{report}");
    let books = system.clean_audit().await;

    let (report, output) = system.import(&sample(), &[]).await;
    assert!(output.status.success(), "{}", shown(&output));
    assert_eq!(
        (&report["accepted"], &report["repeated"]),
        (&json!(0), &json!(200))
    );
    assert_eq!(report["confirmed"], 200);
    assert_eq!(system.clean_audit().await, books);

    assert!(system.stop().await.success());
    assert_eq!(
        system.clean_audit().await["units"],
        books["units"],
        "the books can be read at rest, too"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn orders_beyond_the_stock_are_cancelled_with_a_reason_and_nothing_is_below_zero() {
    let system = System::start().await;
    let (report, output) = system.import(&sample(), &["--stock", "3"]).await;
    assert!(output.status.success(), "{}", shown(&output));
    let count = |field: &str| report[field].as_u64().unwrap();
    assert!(count("cancelled") > 0 && count("confirmed") > 0, "{report}");
    assert_eq!(count("cancelled") + count("confirmed"), 200);

    let products = system.get(format!("{}/products", system.product)).await;
    for product in products["products"].as_array().unwrap() {
        assert!(product["stock"].as_i64().unwrap() >= 0, "{product}");
        assert_eq!(
            product["stock"].as_i64().unwrap() + product["reserved"].as_i64().unwrap(),
            3,
            "{product}"
        );
    }
    let page = system
        .get(format!("{}/orders?status=CANCELLED&limit=1", system.order))
        .await;
    assert!(
        page["orders"][0]["reason"]
            .as_str()
            .unwrap()
            .starts_with("not enough stock of cd-"),
        "{page}"
    );
    system.clean_audit().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn broken_rows_are_reported_by_line_and_the_rest_is_imported() {
    let system = System::start().await;
    let text = "customer_id,date,quantity,amount\n\
                00001,1997-01-01,1,11.77\n\
                00002,1997-01-01,-1,12.00\n\
                00003,1997-13-01,1,12.00\n\
                \"00004,1997-01-01,2,29.33\n\
                00005,1997-01-01,2\n\
                00006,1997-01-01,2000000,2000000.00\n\
                00007,1997-01-01,2,0.00\n";
    let file = system.file("broken.csv", text);
    let (report, output) = system.import(&file, &[]).await;
    assert!(!output.status.success(), "failed rows are a failure");
    assert_eq!(
        (&report["rows"], &report["confirmed"], &report["failed"]),
        (&json!(7), &json!(2), &json!(5))
    );
    let errors = String::from_utf8_lossy(&output.stderr);
    for line in [
        "line 3: quantity must be a whole number from 1, not `-1`",
        "line 4: date must be YYYY-MM-DD, not `1997-13-01`",
        "line 5: a quotation mark is not closed on its line",
        "line 6: 3 fields instead of 4",
        "line 7: refused with 422: items[0].quantity must be from 1 to 1000000, not 2000000",
    ] {
        assert!(errors.contains(line), "{line} is not in:\n{errors}");
    }
    let order = system.get(format!("{}/orders?limit=1", system.order)).await["orders"][0].clone();
    assert_eq!(
        (&order["customer_id"], &order["total_amount"]),
        (&json!("00001"), &json!("11.77"))
    );
    assert_eq!(
        order["items"],
        json!([{"product_id": "cd-01", "quantity": 1, "unit_price": "11.77"}])
    );
    system.clean_audit().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_audit_names_what_was_tampered_with() {
    if system::on_postgres() {
        return;
    }
    let mut system = System::start_with(CHOREOGRAPHY).await;
    let file = system.file(
        "two.csv",
        "customer_id,date,quantity,amount\n1,1997-01-01,2,2.00\n2,1997-01-01,1,1.00\n",
    );
    system.import(&file, &["--stock", "10"]).await;
    system.clean_audit().await;
    assert!(system.stop().await.success());

    let db = rusqlite::Connection::open(system.data().join("product.db")).unwrap();
    db.execute_batch(
        "PRAGMA foreign_keys = OFF;
         UPDATE products SET stock = stock + 1 WHERE product_id = 'cd-01';
         DELETE FROM reservations WHERE seq = 2;",
    )
    .unwrap();
    let db = rusqlite::Connection::open(system.data().join("notification.db")).unwrap();
    db.execute_batch("DELETE FROM notifications WHERE customer_id = '1'; DELETE FROM shipments WHERE customer_id = '2';")
        .unwrap();
    let orders = system.data().join("order.db");
    let ledger = rusqlite::Connection::open(system.data().join("gateway.db")).unwrap();
    ledger
        .execute("ATTACH ?1 AS orders", [orders.to_str().unwrap()])
        .unwrap();
    ledger
        .execute_batch(
            "INSERT INTO charges (idempotency_key, reference, charge_id, amount_cents, outcome, asked, at)
             SELECT order_id, order_id, order_id, 200, 'APPROVED', 1, 0 FROM orders.orders WHERE customer_id = '1';",
        )
        .unwrap();
    drop((db, ledger));
    let (clean, report) = system.audit().await;
    assert!(!clean);
    let differences = report["differences"].to_string();
    assert!(
        differences.contains("product cd-01 had 10 at start, and has 11 now"),
        "{differences}"
    );
    for part in [
        "product.db has no reservation of it",
        "is CONFIRMED, and its customer was not told",
        "is CONFIRMED, and its shipping is not prepared",
        "goes without payment, and was charged 2.00",
        "was charged, and payment.db does not know it",
    ] {
        assert!(differences.contains(part), "{part}: {differences}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_import_without_services_says_where_it_looked() {
    let folder = tempfile::tempdir().unwrap();
    let output = system::orders(folder.path())
        .args([
            "import",
            "--patience",
            "1",
            "--order-url",
            "http://127.0.0.1:9",
            "--product-url",
            "http://127.0.0.1:9",
        ])
        .arg(sample())
        .output()
        .await
        .unwrap();
    assert!(!output.status.success());
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(
        errors.contains("http://127.0.0.1:9 does not answer"),
        "{errors}"
    );
    assert!(errors.contains("is it running?"), "{errors}");
}
