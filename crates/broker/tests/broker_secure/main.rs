//! Listeners with TLS, logins and addresses of their own, spoken to by a client of the tests' own:
//! it can do what librdkafka would not.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test fails by panicking"
)]

mod access;
mod certificates;
mod client;
mod listeners;
mod login;
mod tls;

use std::net::SocketAddr;

use ackwell_broker::{Broker, Config, Listener, Mechanism, User};
use tempfile::TempDir;

/// A broker in a folder of its own.
struct Node {
    broker: Broker,
    _folder: TempDir,
}

impl Node {
    async fn start(adjust: impl FnOnce(&mut Config)) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let mut config = Config::new(folder.path());
        config.users = vec![User::new("orders", "s3cret"), User::new("audit", "w0rd")];
        adjust(&mut config);
        if config.listeners.iter().all(|one| one.sasl.is_empty()) {
            config.users.clear();
        }
        let broker = Broker::start(config).await.expect("starts");
        Self {
            broker,
            _folder: folder,
        }
    }

    /// One listener that asks for a login.
    async fn with_login(mechanisms: &[Mechanism]) -> Self {
        Self::start(|config| config.listeners = vec![asking(mechanisms)]).await
    }

    fn address(&self, listener: &str) -> SocketAddr {
        let mut addresses = self.broker.addresses();
        let found = addresses.find(|(name, _)| *name == listener);
        found.expect("the listener").1
    }
}

fn asking(mechanisms: &[Mechanism]) -> Listener {
    let mut listener = Listener::new("asking", "127.0.0.1:0");
    listener.sasl = mechanisms.to_vec();
    listener
}
