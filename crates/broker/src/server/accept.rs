//! Takes connections at every listener, as many as the limit allows, and sees them all end.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use kafka_protocol::protocol::StrBytes;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout_at};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::{connection, tls};
use crate::api::{Caller, Entrance, Node};
use crate::error::Kind;
use crate::metrics::add;
use crate::{Error, Listener};

/// How long accepting rests after the operating system refused it (no file descriptors left).
const REFUSED_PAUSE: Duration = Duration::from_millis(100);

/// A listener that has its address, and does not serve yet.
pub(crate) struct Door {
    listener: TcpListener,
    pub(crate) local_addr: SocketAddr,
    entrance: Arc<Entrance>,
    tls: Option<TlsAcceptor>,
}

impl Door {
    /// Takes the address and reads the files of TLS.
    ///
    /// # Errors
    /// When the address is used by another process, does not exist on this machine, or needs rights;
    /// when a file can't be read or is not what it should be.
    pub(crate) async fn bind(wanted: &Listener) -> Result<Self, Error> {
        let advertised = wanted
            .advertised
            .as_deref()
            .map(host_and_port)
            .transpose()?;
        let tls = wanted.tls.as_ref().map(tls::acceptor).transpose()?;
        let address = &wanted.listen;
        let listener = TcpListener::bind(address)
            .await
            .map_err(|error| not_bound(address, error))?;
        let local_addr = listener
            .local_addr()
            .map_err(|error| not_bound(address, error))?;
        let entrance = Arc::new(Entrance {
            name: wanted.name.clone(),
            advertised,
            mechanisms: wanted.sasl.clone(),
            protocol: wanted.protocol(),
        });
        Ok(Self {
            listener,
            local_addr,
            entrance,
            tls,
        })
    }

    pub(crate) fn name(&self) -> &str {
        &self.entrance.name
    }
}

fn host_and_port(address: &str) -> Result<(StrBytes, i32), Error> {
    let parts = address
        .rsplit_once(':')
        .and_then(|(host, port)| Some((host, port.parse::<u16>().ok()?)))
        .filter(|(host, port)| !host.is_empty() && *port != 0);
    let (host, port) = parts.ok_or_else(|| {
        Error::new(
            Kind::Config,
            format!("advertised address {address}: it must be host:port, as in broker.local:9092"),
        )
    })?;
    let host = host.trim_start_matches('[').trim_end_matches(']');
    Ok((StrBytes::from_string(host.to_owned()), i32::from(port)))
}

/// Serves at every door until it is shut down or dropped.
#[derive(Debug)]
pub(crate) struct Server {
    accepting: Vec<JoinHandle<()>>,
    connections: TaskTracker,
    /// Ends connections that did not end by themselves.
    cut: CancellationToken,
}

impl Server {
    /// Begins to serve. `node.stopping` ends it.
    pub(crate) fn start(node: &Arc<Node>, doors: Vec<Door>) -> Self {
        let connections = TaskTracker::new();
        let cut = CancellationToken::new();
        let seats = Arc::new(Semaphore::new(node.config.limits.connections_max));
        let addresses = Addresses::new(node.config.limits.connections_per_address_max);
        let accepting = doors.into_iter().map(|door| {
            let accepting = Accepting {
                node: Arc::clone(node),
                seats: Arc::clone(&seats),
                addresses: addresses.clone(),
                connections: connections.clone(),
                cut: cut.clone(),
            };
            tokio::spawn(accepting.run(door))
        });
        Self {
            accepting: accepting.collect(),
            connections,
            cut,
        }
    }

    /// Waits until requests in flight are answered, at most `limit`, then cuts what is left.
    /// `node.stopping` must have been cancelled.
    pub(crate) async fn drain(mut self, limit: Duration) {
        for accepting in self.accepting.drain(..) {
            // It ends at once; an error means that it panicked, and then it has ended, too.
            let _ = accepting.await;
        }
        self.connections.close();
        if tokio::time::timeout(limit, self.connections.wait())
            .await
            .is_err()
        {
            let left = self.connections.len();
            tracing::warn!(connections = left, "cutting connections that did not drain");
            self.cut.cancel();
            self.connections.wait().await;
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        for accepting in &self.accepting {
            accepting.abort();
        }
        self.cut.cancel();
    }
}

/// What one door needs of the server.
struct Accepting {
    node: Arc<Node>,
    /// One for each connection that may be open, at whatever door.
    seats: Arc<Semaphore>,
    addresses: Addresses,
    connections: TaskTracker,
    cut: CancellationToken,
}

impl Accepting {
    async fn run(self, door: Door) {
        let limit = self.node.config.limits.connections_max;
        let counters = &self.node.counters;
        let refused = &counters.connections_refused;
        loop {
            let accepted = tokio::select! {
                () = self.node.stopping.cancelled() => return,
                accepted = door.listener.accept() => accepted,
            };
            let (socket, peer) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(error = &error as &dyn std::error::Error, "accepting failed");
                    tokio::time::sleep(REFUSED_PAUSE).await;
                    continue;
                }
            };
            let Ok(seat) = Arc::clone(&self.seats).try_acquire_owned() else {
                add(&refused[0], 1);
                tracing::warn!(%peer, limit, "connection refused: as many as connections_max are open");
                continue;
            };
            let Some(place) = self.addresses.take(peer.ip()) else {
                add(&refused[1], 1);
                let limit = self.addresses.max;
                tracing::warn!(%peer, limit, "connection refused: as many as connections_per_address_max are open from its address");
                continue;
            };
            add(&counters.connections_taken, 1);
            // The peer may be gone already.
            let Ok(local) = socket.set_nodelay(true).and_then(|()| socket.local_addr()) else {
                continue;
            };
            let caller = Caller {
                peer,
                local,
                entrance: Arc::clone(&door.entrance),
                user: None,
            };
            let welcome = welcome(Arc::clone(&self.node), caller, socket, door.tls.clone());
            let cut = self.cut.clone();
            self.connections.spawn(async move {
                tokio::select! {
                    () = cut.cancelled() => {}
                    () = welcome => {}
                }
                drop((seat, place));
            });
        }
    }
}

/// How many connections each address has open.
#[derive(Debug, Clone)]
struct Addresses {
    open: Arc<Mutex<HashMap<IpAddr, usize>>>,
    max: Option<usize>,
}

/// One of an address's connections, until it is dropped.
struct Place {
    addresses: Addresses,
    address: IpAddr,
}

impl Addresses {
    fn new(max: Option<usize>) -> Self {
        Self {
            open: Arc::default(),
            max,
        }
    }

    fn take(&self, address: IpAddr) -> Option<Place> {
        let address = address.to_canonical();
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let count = open.entry(address).or_default();
        if self.max.is_some_and(|max| *count >= max) {
            return None;
        }
        *count += 1;
        Some(Place {
            addresses: self.clone(),
            address,
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut open = self
            .addresses
            .open
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Entry::Occupied(mut count) = open.entry(self.address) {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
    }
}

async fn welcome(node: Arc<Node>, caller: Caller, socket: TcpStream, tls: Option<TlsAcceptor>) {
    let login_by = Instant::now() + node.config.limits.login_max;
    let Some(tls) = tls else {
        let (stream, sink) = socket.into_split();
        return connection::serve(node, caller, stream, sink, login_by).await;
    };
    let (peer, listener) = (caller.peer, Arc::clone(&caller.entrance));
    let agreed = tokio::select! {
        () = node.stopping.cancelled() => return,
        agreed = timeout_at(login_by, tls.accept(socket)) => agreed,
    };
    match agreed {
        Ok(Ok(encrypted)) => {
            let (stream, sink) = tokio::io::split(encrypted);
            connection::serve(node, caller, stream, sink, login_by).await;
        }
        Ok(Err(error)) => tracing::warn!(
            %peer,
            listener = %listener.name,
            error = &error as &dyn std::error::Error,
            "connection closed: no TLS was agreed on; does the client use security.protocol=SSL or SASL_SSL?"
        ),
        Err(_elapsed) => tracing::warn!(
            %peer,
            listener = %listener.name,
            "connection closed: TLS was not agreed on in time"
        ),
    }
}

fn not_bound(address: &str, cause: io::Error) -> Error {
    let (kind, mend) = match cause.kind() {
        io::ErrorKind::AddrInUse => (
            Kind::AddressInUse,
            "another process listens there; stop it, or choose another port (0 picks a free one)",
        ),
        io::ErrorKind::AddrNotAvailable => (
            Kind::Config,
            "the address does not belong to this machine; 127.0.0.1 does",
        ),
        io::ErrorKind::InvalidInput => (Kind::Config, "it must be host:port, as in 127.0.0.1:9092"),
        io::ErrorKind::PermissionDenied => (
            Kind::Io,
            "ports below 1024 need rights; choose a higher one",
        ),
        _ => (Kind::Io, "it must be host:port of this machine"),
    };
    Error::new(kind, format!("cannot listen on {address}: {mend}")).caused_by(cause)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_so_many_connections_and_others_have_theirs() {
        let addresses = Addresses::new(Some(2));
        let [one, other]: [IpAddr; 2] = [[10, 0, 0, 1].into(), [10, 0, 0, 2].into()];
        let first = addresses.take(one);
        let _second = addresses.take(one);
        assert!(first.is_some() && addresses.take(one).is_none());
        assert!(addresses.take(other).is_some());
        drop(first);
        assert!(addresses.take(one).is_some());
    }
}
