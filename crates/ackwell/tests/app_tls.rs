//! TLS with a login: services on a broker under an authority of its own, and what they say when it can't be reached.
//!
//! They run where the client can speak TLS: `.ci/run tls`, or `cargo test --workspace --features ackwell/tls --test app_tls`.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod support;

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use ackwell::extract::{Event, State};
use ackwell::{App, Config, Listener, Producer};
use ackwell_broker::{Broker, Mechanism, Tls, User};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use support::{ORDERS, OrderPlaced, order, within};
use tempfile::TempDir;
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};

const USER: &str = "orders";
const PASSWORD: &str = "orders-secret";

/// A broker whose only listener speaks TLS and asks who is there.
struct Secured {
    broker: Broker,
    folder: TempDir,
}

impl Secured {
    async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        write_certificates(&folder);
        let path = |name: &str| folder.path().join(name);
        let mut listener = ackwell_broker::Listener::new("secured", "127.0.0.1:0");
        listener.tls = Some(Tls::new(path("broker.pem"), path("broker.key")));
        listener.sasl = Mechanism::ALL.to_vec();
        let mut config = ackwell_broker::Config::new(path("data"));
        config.listeners = vec![listener];
        config.users = vec![User::new(USER, PASSWORD)];
        let broker = Broker::start(config).await.unwrap();
        Self { broker, folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The settings of a service that trusts the broker's authority and logs in.
    fn config(&self, mechanism: &str) -> Config {
        let address = self.broker.local_addr().to_string();
        let mut config = Config::with_bootstrap_servers(address);
        let authority = self.path("authority.pem");
        for (name, value) in [
            ("security.protocol", "sasl_ssl"),
            ("ssl.ca.location", authority.to_str().unwrap()),
            ("sasl.mechanism", mechanism),
            ("sasl.username", USER),
            ("sasl.password", PASSWORD),
        ] {
            config.kafka.extra.insert(name.to_owned(), value.to_owned());
        }
        config
    }
}

/// An authority, a certificate for 127.0.0.1 that it signed, and an authority that signed none.
fn write_certificates(folder: &TempDir) {
    let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
    let authority = |name: &str| {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
    };
    let (ours, another) = (authority("ours"), authority("another"));
    write("authority.pem", &ours.pem());
    write("another.pem", &another.pem());
    let key = KeyPair::generate().unwrap();
    let mut names = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
    // A certificate whose subject is its authority's counts as signed by itself.
    names.distinguished_name.push(DnType::CommonName, "broker");
    write("broker.pem", &names.signed_by(&key, &ours).unwrap().pem());
    write("broker.key", &key.serialize_pem());
}

async fn hear(Event(order): Event<OrderPlaced>, State(heard): State<UnboundedSender<OrderPlaced>>) {
    let _ = heard.send(order);
}

/// Why a service with these settings is not ready.
async fn refusal(config: Config) -> String {
    let app = App::new(config).named("refused").topic(ORDERS);
    let app = within("the start", app.start()).await.unwrap();
    let verdict = app.health().ready();
    assert!(!verdict.ok, "it is ready");
    let reason = verdict.against[0].status.reason().unwrap().to_owned();
    within("the stop", app.stop()).await.unwrap();
    reason
}

fn assert_says(said: &str, parts: &[&str]) {
    for part in parts {
        assert!(said.contains(part), "`{part}` is not in: {said}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[cfg_attr(not(feature = "tls"), ignore = "needs the feature `tls`")]
async fn a_service_sends_and_hears_over_tls_by_every_login() {
    let secured = Secured::start().await;
    for mechanism in Mechanism::ALL {
        let config = secured.config(mechanism.name());
        let (orders, mut heard) = unbounded_channel::<OrderPlaced>();
        let app = App::new(config.clone())
            .named("orders")
            .state(orders)
            .listener(Listener::on(ORDERS).group(mechanism.name()).handle(hear));
        let app = app.start().await.unwrap();
        within("readiness", app.ready()).await.unwrap();
        let producer = Producer::new(&config).unwrap();
        for number in 0..100 {
            producer.send(&order(number)).await.unwrap();
        }
        let mut numbers = BTreeSet::new();
        while numbers.len() < 100 {
            numbers.insert(within("an order", heard.recv()).await.unwrap().number);
        }
        within("the stop", app.stop()).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[cfg_attr(not(feature = "tls"), ignore = "needs the feature `tls`")]
async fn a_broker_under_another_authority_is_not_trusted_and_health_says_which_file_to_correct() {
    let secured = Secured::start().await;
    let mut config = secured.config("SCRAM-SHA-512");
    let another = secured.path("another.pem").to_str().unwrap().to_owned();
    (config.kafka.extra).insert("ssl.ca.location".to_owned(), another);
    let said = refusal(config).await;
    assert_says(&said, &["certificate verify failed", "`ssl.ca.location`"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[cfg_attr(not(feature = "tls"), ignore = "needs the feature `tls`")]
async fn a_wrong_password_is_refused_and_health_says_what_to_correct() {
    let secured = Secured::start().await;
    for mechanism in Mechanism::ALL {
        let mut config = secured.config(mechanism.name());
        (config.kafka.extra).insert("sasl.password".to_owned(), "guessed".to_owned());
        let said = refusal(config).await;
        assert_says(&said, &["uthentication", "`sasl.password`"]);
        assert!(!said.contains("guessed"), "{said}");
    }
}

/// In every build: a client without TLS can be pointed at a port with it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_does_not_speak_tls_to_a_port_with_it_is_told_so() {
    let secured = Secured::start().await;
    let address = secured.broker.local_addr().to_string();
    let said = refusal(Config::with_bootstrap_servers(address)).await;
    assert_says(
        &said,
        &["Disconnected", "`security.protocol`", "`sasl_ssl`"],
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[cfg_attr(feature = "tls", ignore = "needs a build without the feature `tls`")]
async fn a_build_without_tls_says_how_to_get_it() {
    let secured = Secured::start().await;
    let app = App::new(secured.config("SCRAM-SHA-512")).named("plain");
    let error = app.start().await.err().unwrap().to_string();
    assert_says(&error, &["security.protocol", "feature `tls`"]);
}
