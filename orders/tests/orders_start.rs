//! Starting where something is in the way, and stopping.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests fail as tests do"
)]

mod system;

use std::net::TcpListener;
use std::path::Path;
use std::process::Output;

use system::{System, orders, shown};

async fn run(folder: &Path, args: &[&str], environment: &[(&str, &str)]) -> (Output, String) {
    let output = orders(folder)
        .args(args)
        .envs(environment.iter().copied())
        .output()
        .await
        .unwrap();
    let text = shown(&output);
    (output, text)
}

async fn refused(folder: &Path, args: &[&str], environment: &[(&str, &str)], parts: &[&str]) {
    let (output, text) = run(folder, args, environment).await;
    assert!(!output.status.success(), "{text}");
    for part in parts {
        assert!(text.contains(part), "`{part}` is not in: {text}");
    }
    assert!(!text.contains("panicked"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_data_folder_in_use_is_refused_with_a_mend() {
    if system::on_kafka() {
        return;
    }
    let system = System::start().await;
    let data = system.data();
    let args = [
        "all",
        "--order-port=0",
        "--product-port=0",
        "--broker-port=0",
        "--data",
        data.to_str().unwrap(),
    ];
    refused(
        system.root(),
        &args,
        &[],
        &[
            "error:",
            "another `orders` runs on this data folder",
            "ACKWELL_DATA",
        ],
    )
    .await;
    system.put_product("cd-01", 1).await;
    let id = system.place("k-1", "cd-01", 1).await;
    assert_eq!(
        system.final_order(&id).await["status"],
        "CONFIRMED",
        "the one that runs is not disturbed"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_in_use_is_refused_with_a_mend_and_nothing_is_left() {
    let folder = tempfile::tempdir().unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    for (variable, part) in [
        ("ORDERS_ORDER_PORT", "the order service can't listen"),
        ("ORDERS_PRODUCT_PORT", "the product service can't listen"),
        ("ORDERS_BROKER_PORT", "choose another port by --broker-port"),
    ] {
        let mut environment = vec![
            ("ORDERS_ORDER_PORT", "0"),
            ("ORDERS_PRODUCT_PORT", "0"),
            ("ORDERS_BROKER_PORT", "0"),
        ];
        environment.push((variable, &port));
        refused(
            folder.path(),
            &[],
            &environment,
            &["error:", part, "0 picks a free one"],
        )
        .await;
    }
    assert!(!folder.path().join("ackwell-data/order.db").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_that_cannot_be_used_are_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    refused(
        path,
        &[],
        &[("ACKWELL_ORDERS__ODER_PORT", "1")],
        &["orders.oder_port", "order_port"],
    )
    .await;
    refused(
        path,
        &["--order-port", "70000"],
        &[],
        &["orders.order_port", "--order-port"],
    )
    .await;
    refused(
        path,
        &["all"],
        &[("DATABASE_URL", "sqlite:one.db")],
        &["database.url", "each service owns its own"],
    )
    .await;
    let much = [("PAYMENT_LIMIT", "much")];
    refused(path, &["all"], &much, &["orders.payment_limit", "9.77"]).await;
    refused(
        path,
        &["serve", "kitchen"],
        &[],
        &["kitchen", "possible values"],
    )
    .await;
    if !system::on_postgres() {
        let said = ["there is no", "order.db", "ACKWELL_DATA"];
        refused(path, &["audit"], &[], &said).await;
    }
    std::fs::write(path.join("ackwell.toml"), "[orders]\nhosts = \"x\"\n").unwrap();
    refused(
        path,
        &[],
        &[],
        &["orders.hosts", "ackwell.toml, line 2", "host"],
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn it_stops_gracefully_and_goes_on_where_it_was() {
    let mut system = System::start().await;
    system.put_product("cd-01", 5).await;
    let id = system.place("k-1", "cd-01", 2).await;
    assert!(system.stop().await.success());
    system.restart().await;
    assert_eq!(system.final_order(&id).await["status"], "CONFIRMED");
    let product = system
        .get(format!("{}/products/cd-01", system.product))
        .await;
    assert_eq!(
        (&product["stock"], &product["reserved"]),
        (&3.into(), &2.into())
    );
    for probe in ["healthz", "readyz"] {
        for service in [&system.order, &system.product] {
            assert_eq!(
                system
                    .http
                    .get(format!("{service}/{probe}"))
                    .send()
                    .await
                    .unwrap()
                    .status(),
                200
            );
        }
    }
    system.clean_audit().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_database_is_a_clear_answer_and_never_overwritten() {
    if system::on_postgres() {
        return;
    }
    let mut system = System::start().await;
    system.put_product("cd-01", 5).await;
    assert!(system.stop().await.success());
    let file = system.data().join("order.db");
    let damaged = b"this is no database, and was one before".repeat(400);
    std::fs::write(&file, &damaged).unwrap();
    for leftover in ["order.db-wal", "order.db-shm"] {
        let _ = std::fs::remove_file(system.data().join(leftover));
    }
    let data = system.data();
    let args = [
        "all",
        "--order-port=0",
        "--product-port=0",
        "--broker-port=0",
        "--data",
        data.to_str().unwrap(),
    ];
    refused(system.root(), &args, &[], &["error:", "order.db"]).await;
    assert_eq!(std::fs::read(&file).unwrap(), damaged);
}
