//! Processes killed with SIGKILL in the middle of the work.

mod system;

use std::process::Stdio;

use ackwell_broker::Broker;
use serde_json::json;
use system::{System, kill, sample, shown};

/// The services die under a running import; it waits for them and goes on.
#[tokio::test(flavor = "multi_thread")]
async fn killed_in_the_middle_and_started_again_no_order_is_lost_or_doubled() {
    let mut system = System::start().await;
    let mut importing = system.importing(&sample(), &["--rate", "80"]);
    let importing = importing.stdout(Stdio::piped()).stderr(system.log("import")).spawn().unwrap();
    for accepted in [20, 80, 140] {
        system.accepted(accepted).await;
        system.kill().await;
        system.restart().await;
    }
    let output = importing.wait_with_output().await.unwrap();
    assert!(output.status.success(), "{}", shown(&output));

    let (report, output) = system.import(&sample(), &[]).await;
    assert!(output.status.success(), "{}", shown(&output));
    assert_eq!((&report["repeated"], &report["confirmed"]), (&json!(200), &json!(200)), "{report}");
    let books = system.clean_audit().await;
    assert_eq!(books["orders"]["total"], 200);
    assert_eq!(books["confirmed_units"], books["units"]["reserved"]);
}

/// Two product services on one database and in one group.
#[tokio::test(flavor = "multi_thread")]
async fn one_of_two_product_services_is_killed_and_the_other_takes_over() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = ackwell_broker::Config::new(folder.path());
    config.listen = "127.0.0.1:0".to_owned();
    let broker = Broker::start(config).await.unwrap();
    let mut system = System::apart(broker.local_addr().to_string());
    let (_order, order_url) = system.serve("order").await;
    let (first, _) = system.serve("product").await;
    let (_second, product_url) = system.serve("product").await;
    (system.order, system.product) = (order_url, product_url);

    let mut importing = system.importing(&sample(), &["--rate", "80"]);
    let importing = importing.stdout(Stdio::piped()).stderr(system.log("import")).spawn().unwrap();
    system.accepted(60).await;
    kill(first).await;
    let output = importing.wait_with_output().await.unwrap();
    assert!(output.status.success(), "{}", shown(&output));
    let books = system.clean_audit().await;
    assert_eq!(books["orders"]["confirmed"], 200, "{books}");
    drop(system);
    broker.shutdown().await.unwrap();
}
