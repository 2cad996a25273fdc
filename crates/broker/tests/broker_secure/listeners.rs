//! Several addresses, each with a name of its own.

use ackwell_broker::{Broker, Config, Listener, Mechanism};

use crate::Node;
use crate::client::Client;

#[tokio::test]
async fn clients_are_told_the_address_of_the_listener_that_they_came_by() {
    let node = Node::start(|config| {
        let mut outside = Listener::new("outside", "127.0.0.1:0");
        outside.advertised = Some("broker.example.com:9094".to_owned());
        outside.sasl = vec![Mechanism::ScramSha256];
        config.listeners = vec![Listener::new("inside", "127.0.0.1:0"), outside];
    })
    .await;
    assert_eq!(node.broker.local_addr(), node.address("inside"));

    let mut inside = Client::plain(node.address("inside")).await;
    let told = inside.metadata().await.unwrap().brokers.remove(0);
    assert_eq!(&*told.host, "127.0.0.1");
    assert_eq!(told.port, i32::from(node.address("inside").port()));

    let mut outside = Client::plain(node.address("outside")).await;
    let answer = outside
        .log_in(Mechanism::ScramSha256, "orders", "s3cret")
        .await;
    assert_eq!(answer.unwrap().error_code, 0);
    let told = outside.metadata().await.unwrap().brokers.remove(0);
    assert_eq!((&*told.host, told.port), ("broker.example.com", 9094));
}

#[tokio::test]
async fn connections_are_counted_over_all_listeners() {
    let node = Node::start(|config| {
        config.listeners = ["one", "two"]
            .map(|name| Listener::new(name, "127.0.0.1:0"))
            .to_vec();
        config.limits.connections_max = 1;
    })
    .await;
    let mut first = Client::plain(node.address("one")).await;
    assert!(first.metadata().await.is_ok());
    let mut second = Client::plain(node.address("two")).await;
    assert!(second.metadata().await.is_err());
}

#[tokio::test]
async fn an_address_that_two_listeners_want_is_a_start_up_error() {
    let folder = tempfile::tempdir().unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let mut config = Config::new(folder.path());
    config.listeners = vec![
        Listener::new("one", "127.0.0.1:0"),
        Listener::new("two", address.clone()),
    ];
    let error = Broker::start(config).await.expect_err("refused");
    assert!(error.is_address_in_use(), "{error}");
    assert!(error.to_string().contains(&address), "{error}");
}
