//! Encryption, and who does not take part in it.

use std::fs;
use std::time::Duration;

use ackwell_broker::{Broker, Config, Listener, Mechanism, Tls};
use kafka_protocol::messages::create_topics_request::CreatableTopic;
use kafka_protocol::messages::{
    ApiKey, CreateTopicsRequest, CreateTopicsResponse, MetadataRequest, MetadataResponse, TopicName,
};
use kafka_protocol::protocol::StrBytes;

use crate::Node;
use crate::certificates::Certificates;
use crate::client::Client;

fn encrypted(tls: Tls) -> Listener {
    let mut listener = Listener::new("encrypted", "127.0.0.1:0");
    listener.tls = Some(tls);
    listener
}

#[tokio::test]
async fn requests_go_through_tls_whatever_their_size() {
    let certificates = Certificates::new();
    let node = Node::start(|config| config.listeners = vec![encrypted(certificates.tls())]).await;
    let mut client = Client::tls(node.address("encrypted"), certificates.client(false))
        .await
        .unwrap();
    // Some hundred kilobytes each way: more than a record of TLS, and than a socket takes at once.
    let names: Vec<TopicName> = (0..2000)
        .map(|number| StrBytes::from_string(format!("{number:0>200}")).into())
        .collect();
    let topics = names.iter().map(|name| {
        CreatableTopic::default()
            .with_name(name.clone())
            .with_num_partitions(1)
            .with_replication_factor(1)
    });
    let create = CreateTopicsRequest::default()
        .with_topics(topics.collect())
        .with_validate_only(true);
    let created: CreateTopicsResponse =
        client.call(ApiKey::CreateTopics, 7, &create).await.unwrap();
    assert_eq!(created.topics.len(), names.len());
    assert!(created.topics.iter().all(|topic| topic.error_code == 0));
    let all = MetadataRequest::default().with_topics(None);
    let told: MetadataResponse = client.call(ApiKey::Metadata, 9, &all).await.unwrap();
    assert_eq!(told.brokers.len(), 1);
}

#[tokio::test]
async fn passwords_travel_within_tls() {
    let certificates = Certificates::new();
    let node = Node::start(|config| {
        let mut listener = encrypted(certificates.tls());
        listener.sasl = Mechanism::ALL.to_vec();
        config.listeners = vec![listener];
    })
    .await;
    for mechanism in Mechanism::ALL {
        for (password, right) in [("s3cret", true), ("wrong", false)] {
            let mut client = Client::tls(node.address("encrypted"), certificates.client(false))
                .await
                .unwrap();
            let answer = client.log_in(mechanism, "orders", password).await.unwrap();
            assert_eq!(answer.error_code == 0, right);
            match right {
                true => assert!(client.metadata().await.is_ok()),
                false => client.assert_closed().await,
            }
        }
    }
}

#[tokio::test]
async fn a_plain_client_on_a_tls_port_is_disconnected_and_so_is_the_reverse() {
    let certificates = Certificates::new();
    let node = Node::start(|config| {
        config.listeners = vec![
            encrypted(certificates.tls()),
            Listener::new("plain", "127.0.0.1:0"),
        ];
    })
    .await;
    let mut client = Client::plain(node.address("encrypted")).await;
    assert!(client.metadata().await.is_err());
    let trusting = certificates.client(false);
    let refused = Client::tls(node.address("plain"), trusting.clone()).await;
    assert!(refused.is_err());
    // Others are served as before.
    let mut client = Client::tls(node.address("encrypted"), trusting)
        .await
        .unwrap();
    assert!(client.metadata().await.is_ok());
    let mut client = Client::plain(node.address("plain")).await;
    assert!(client.metadata().await.is_ok());
}

#[tokio::test]
async fn who_does_not_begin_with_tls_in_time_is_disconnected() {
    let certificates = Certificates::new();
    let node = Node::start(|config| {
        config.listeners = vec![encrypted(certificates.tls())];
        config.limits.login_max = Duration::from_millis(200);
    })
    .await;
    Client::plain(node.address("encrypted"))
        .await
        .assert_closed()
        .await;
}

#[tokio::test]
async fn a_listener_can_demand_certificates_of_clients() {
    let certificates = Certificates::new();
    let node = Node::start(|config| {
        let mut tls = certificates.tls();
        tls.client_authorities = Some(certificates.path("authority.pem"));
        config.listeners = vec![encrypted(tls)];
    })
    .await;
    let with = Client::tls(node.address("encrypted"), certificates.client(true)).await;
    assert!(with.unwrap().metadata().await.is_ok());
    // In TLS 1.3 a client learns of its refusal only when it reads.
    let without = Client::tls(node.address("encrypted"), certificates.client(false)).await;
    if let Ok(mut without) = without {
        assert!(without.metadata().await.is_err());
    }
    let strangers = Certificates::new();
    let mut stranger = (*strangers.client(true)).clone();
    stranger
        .dangerous()
        .set_certificate_verifier(trusts_anyone());
    let refused = Client::tls(node.address("encrypted"), stranger.into()).await;
    if let Ok(mut refused) = refused {
        assert!(refused.metadata().await.is_err());
    }
}

#[tokio::test]
async fn files_that_cannot_work_are_named_at_the_start() {
    let certificates = Certificates::new();
    let (certificate, key) = (
        certificates.path("broker.pem"),
        certificates.path("broker.key"),
    );
    let empty = certificates.path("empty.pem");
    fs::write(&empty, "").unwrap();
    let torn = certificates.path("torn.pem");
    fs::write(&torn, "-----BEGIN CERTIFICATE-----\nMIIB").unwrap();
    let missing = certificates.path("missing.pem");
    let other_key = certificates.path("client.key");
    let mut authorities = certificates.tls();
    authorities.client_authorities = Some(missing.clone());
    for (tls, named) in [
        (Tls::new(&missing, &key), "missing.pem"),
        (Tls::new(&certificate, &missing), "missing.pem"),
        (Tls::new(&empty, &key), "no certificate"),
        (Tls::new(&certificate, &empty), "no private key"),
        (Tls::new(&key, &key), "no certificate"),
        (Tls::new(&certificate, &certificate), "no private key"),
        (Tls::new(&torn, &key), "torn.pem"),
        (Tls::new(&certificate, &other_key), "do not work together"),
        (authorities, "missing.pem"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let mut config = Config::new(folder.path());
        config.listeners = vec![encrypted(tls)];
        let error = Broker::start(config).await.expect_err("refused");
        assert!(error.is_config(), "{error}");
        assert!(error.to_string().contains(named), "{error}");
    }
}

/// The test is about the broker's judgement of the client.
fn trusts_anyone() -> std::sync::Arc<dyn tokio_rustls::rustls::client::danger::ServerCertVerifier> {
    std::sync::Arc::new(Credulous)
}

#[derive(Debug)]
struct Credulous;

mod credulous {
    use tokio_rustls::rustls::client::danger::{
        HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier,
    };
    use tokio_rustls::rustls::crypto::ring;
    use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName, UnixTime};
    use tokio_rustls::rustls::{DigitallySignedStruct, Error, SignatureScheme};

    impl ServerCertVerifier for super::Credulous {
        fn verify_server_cert(
            &self,
            _: &CertificateDer<'_>,
            _: &[CertificateDer<'_>],
            _: &ServerName<'_>,
            _: &[u8],
            _: UnixTime,
        ) -> Result<ServerCertVerified, Error> {
            Ok(ServerCertVerified::assertion())
        }

        fn verify_tls12_signature(
            &self,
            _: &[u8],
            _: &CertificateDer<'_>,
            _: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            Ok(HandshakeSignatureValid::assertion())
        }

        fn verify_tls13_signature(
            &self,
            _: &[u8],
            _: &CertificateDer<'_>,
            _: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            Ok(HandshakeSignatureValid::assertion())
        }

        fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
            let provider = ring::default_provider();
            provider
                .signature_verification_algorithms
                .supported_schemes()
        }
    }
}
