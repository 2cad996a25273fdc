//! What a handler knows besides its request.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use kafka_protocol::messages::BrokerId;
use kafka_protocol::protocol::StrBytes;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::access::Judge;
use crate::group::{Client, Coordinator};
use crate::metrics::Counters;
use crate::sasl::Users;
use crate::server::{Held, Memory};
use crate::store::Store;
use crate::transaction;
use crate::{Config, Error, Mechanism};

/// The id of the only node. Kafka's examples begin at 1, too.
pub(crate) const NODE_ID: BrokerId = BrokerId(1);

/// The leader epoch of every partition: with one node there is never an election.
pub(crate) const LEADER_EPOCH: i32 = 0;

/// What all connections share.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) config: Config,
    pub(crate) store: Arc<Store>,
    pub(crate) groups: Coordinator,
    pub(crate) transactions: transaction::Coordinator,
    /// Who may log in.
    pub(crate) users: Arc<Users>,
    /// Who may do what.
    pub(crate) judge: Judge,
    pub(crate) counters: Counters,
    /// What requests and responses may take.
    pub(crate) memory: Arc<Memory>,
    /// Partitions that waiting fetches may follow.
    pub(crate) watches: Arc<Semaphore>,
    /// Files of segments that responses may hold open.
    pub(crate) files: Arc<Semaphore>,
    /// Cancelled when the broker stops: nobody waits for more records then.
    pub(crate) stopping: CancellationToken,
}

/// Both ends of a connection, and who is at the other.
#[derive(Debug, Clone)]
pub(crate) struct Caller {
    pub(crate) peer: SocketAddr,
    pub(crate) local: SocketAddr,
    pub(crate) entrance: Arc<Entrance>,
    /// Who logged in; `None` where nobody is asked, or not yet.
    pub(crate) user: Option<Arc<str>>,
}

/// A listener, as those who came by it know it.
#[derive(Debug)]
pub(crate) struct Entrance {
    pub(crate) name: String,
    /// Host and port from the settings; without it, clients are told the address they came by.
    pub(crate) advertised: Option<(StrBytes, i32)>,
    /// How to log in; empty where nobody is asked.
    pub(crate) mechanisms: Vec<Mechanism>,
    /// Kafka's name for TLS and SASL together.
    pub(crate) protocol: &'static str,
}

/// One request's surroundings.
#[derive(Debug)]
pub(crate) struct Context {
    pub(crate) node: Arc<Node>,
    pub(crate) caller: Caller,
    pub(crate) version: i16,
    pub(crate) correlation_id: i32,
    pub(crate) client_id: StrBytes,
    /// The memory of the response.
    pub(crate) held: Mutex<Held>,
}

impl Context {
    /// Keeps `held` until the response is sent.
    pub(super) fn hold(&self, held: Held) {
        *self.held.lock().unwrap_or_else(PoisonError::into_inner) = held;
    }

    pub(super) fn store(&self) -> &Arc<Store> {
        &self.node.store
    }

    pub(super) fn groups(&self) -> &Coordinator {
        &self.node.groups
    }

    pub(super) fn transactions(&self) -> &transaction::Coordinator {
        &self.node.transactions
    }

    /// Where clients find this node: as set, else where this client found it.
    pub(super) fn advertised(&self) -> (StrBytes, i32) {
        match &self.caller.entrance.advertised {
            Some(advertised) => advertised.clone(),
            None => {
                let local = &self.caller.local;
                let host = StrBytes::from_string(local.ip().to_string());
                (host, i32::from(local.port()))
            }
        }
    }

    pub(super) fn cluster_id(&self) -> StrBytes {
        StrBytes::from_string(self.store().cluster_id().to_owned())
    }

    /// Who asks, as DescribeGroups shows it.
    pub(super) fn client(&self) -> Client {
        Client {
            id: self.client_id.clone(),
            host: StrBytes::from_string(format!("/{}", self.caller.peer.ip())),
        }
    }

    /// Runs `work`, which waits for the disk, where it holds up no connection.
    pub(super) async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Store) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let store = Arc::clone(self.store());
        tokio::task::spawn_blocking(move || work(&store))
            .await
            .unwrap_or_else(|failed| {
                Err(
                    Error::new(crate::error::Kind::Closed, "carrying out a request")
                        .caused_by(failed),
                )
            })
    }
}

/// The broker's clock in milliseconds since the Unix epoch.
pub(crate) fn now_ms() -> i64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
