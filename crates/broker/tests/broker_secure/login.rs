//! Who is let in, and what others are told.

use std::time::Duration;

use ackwell_broker::Mechanism;
use bytes::{BufMut, BytesMut};
use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::{ApiKey, ApiVersionsRequest, ApiVersionsResponse};
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};

use crate::client::{Client, PATIENCE};
use crate::{Node, asking};

#[tokio::test]
async fn each_mechanism_lets_in_who_knows_the_password() {
    let node = Node::with_login(&Mechanism::ALL).await;
    for mechanism in Mechanism::ALL {
        let mut client = Client::plain(node.address("asking")).await;
        let answer = client.log_in(mechanism, "orders", "s3cret").await.unwrap();
        assert_eq!(answer.error_code, 0, "{mechanism}");
        assert_eq!(client.metadata().await.unwrap().brokers.len(), 1);
    }
}

#[tokio::test]
async fn a_wrong_password_and_an_unknown_user_are_told_the_same_and_disconnected() {
    let node = Node::with_login(&Mechanism::ALL).await;
    for mechanism in Mechanism::ALL {
        let mut told = Vec::new();
        for (name, password) in [
            ("orders", "wrong"),
            ("nobody", "s3cret"),
            ("audit", "s3cret"),
        ] {
            let mut client = Client::plain(node.address("asking")).await;
            let answer = client.log_in(mechanism, name, password).await.unwrap();
            let failed = ResponseError::SaslAuthenticationFailed.code();
            assert_eq!(answer.error_code, failed);
            told.push(answer.error_message);
            client.assert_closed().await;
        }
        assert!(told.iter().all(|message| *message == told[0]));
    }
}

#[tokio::test]
async fn an_unknown_mechanism_is_told_which_there_are() {
    let node = Node::with_login(&[Mechanism::ScramSha512, Mechanism::Plain]).await;
    for mechanism in ["GSSAPI", "SCRAM-SHA-256", "plain", ""] {
        let mut client = Client::plain(node.address("asking")).await;
        let answer = client.handshake(mechanism).await.unwrap();
        let unsupported = ResponseError::UnsupportedSaslMechanism.code();
        assert_eq!(answer.error_code, unsupported);
        let offered: Vec<&str> = answer.mechanisms.iter().map(|name| &**name).collect();
        assert_eq!(offered, ["SCRAM-SHA-512", "PLAIN"]);
        client.assert_closed().await;
    }
}

#[tokio::test]
async fn before_the_login_only_api_versions_is_answered() {
    let node = Node::with_login(&Mechanism::ALL).await;
    let mut client = Client::plain(node.address("asking")).await;
    let versions: ApiVersionsResponse = client
        .call(ApiKey::ApiVersions, 0, &ApiVersionsRequest::default())
        .await
        .unwrap();
    assert!(versions.api_keys.len() > 20);
    assert!(client.metadata().await.is_err());

    let mut client = Client::plain(node.address("asking")).await;
    assert!(client.token(b"\0orders\0s3cret").await.is_err());

    let mut client = Client::plain(node.address("asking")).await;
    client.handshake("PLAIN").await.unwrap();
    assert!(client.metadata().await.is_err());
}

#[tokio::test]
async fn tokens_may_come_without_a_request_around_them() {
    let node = Node::with_login(&Mechanism::ALL).await;
    for (password, right) in [("s3cret", true), ("wrong", false)] {
        let mut client = Client::plain(node.address("asking")).await;
        // SaslHandshake 0: header with client id "x", mechanism.
        client
            .send(b"\0\x11\0\0\0\0\0\x07\0\x01x\0\x05PLAIN")
            .await
            .unwrap();
        client.read().await.unwrap();
        client
            .send(format!("\0orders\0{password}").as_bytes())
            .await
            .unwrap();
        match right {
            true => {
                assert!(client.read().await.unwrap().is_empty());
                assert!(client.metadata().await.is_ok());
            }
            false => client.assert_closed().await,
        }
    }
}

#[tokio::test]
async fn a_second_login_is_refused_and_the_first_stays() {
    let node = Node::with_login(&[Mechanism::Plain]).await;
    let mut client = Client::plain(node.address("asking")).await;
    client
        .log_in(Mechanism::Plain, "orders", "s3cret")
        .await
        .unwrap();
    let again = client.handshake("PLAIN").await.unwrap();
    assert_eq!(again.error_code, ResponseError::IllegalSaslState.code());
    let again = client.token(b"\0audit\0w0rd").await.unwrap();
    assert_eq!(again.error_code, ResponseError::IllegalSaslState.code());
    assert!(client.metadata().await.is_ok());
}

#[tokio::test]
async fn a_login_has_little_time_and_little_room() {
    let node = Node::start(|config| {
        config.listeners = vec![asking(&[Mechanism::Plain])];
        config.limits.login_max = Duration::from_millis(200);
    })
    .await;
    Client::plain(node.address("asking"))
        .await
        .assert_closed()
        .await;

    let node = Node::with_login(&[Mechanism::Plain]).await;
    let mut client = Client::plain(node.address("asking")).await;
    let mut large = BytesMut::zeroed(512 * 1024);
    large.put_u8(0);
    // It may close before everything is sent.
    let _ = client.send(&large).await;
    client.assert_closed().await;
}

#[tokio::test]
async fn tokens_of_any_kind_close_at_most_their_connection() {
    let node = Node::with_login(&Mechanism::ALL).await;
    for mechanism in Mechanism::ALL {
        for token in [
            &b""[..],
            b"\0",
            b"\0\0",
            b"n,,n=,r=",
            b"\xff\xfe",
            &[0; 10_000],
        ] {
            let mut client = Client::plain(node.address("asking")).await;
            client.handshake(mechanism.name()).await.unwrap();
            let answer = client.token(token).await.unwrap();
            assert_ne!(answer.error_code, 0);
            client.assert_closed().await;
        }
    }
    let mut client = Client::plain(node.address("asking")).await;
    client
        .log_in(Mechanism::Plain, "orders", "s3cret")
        .await
        .unwrap();
}

/// The client that the framework uses, with the login that it has in every build.
#[tokio::test(flavor = "multi_thread")]
async fn librdkafka_logs_in_with_plain() {
    let node = Node::with_login(&[Mechanism::Plain]).await;
    let address = node.address("asking").to_string();
    for (password, right) in [("s3cret", true), ("wrong", false)] {
        let consumer: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", &address)
            .set("security.protocol", "sasl_plaintext")
            .set("sasl.mechanism", "PLAIN")
            .set("sasl.username", "orders")
            .set("sasl.password", password)
            .create()
            .unwrap();
        let limit = if right {
            PATIENCE
        } else {
            Duration::from_secs(1)
        };
        let asked = tokio::task::spawn_blocking(move || consumer.fetch_metadata(None, limit));
        assert_eq!(asked.await.unwrap().is_ok(), right);
    }
}
