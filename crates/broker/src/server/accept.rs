//! Takes connections, as many as the limit allows, and sees them all end.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::connection;
use crate::Error;
use crate::api::{Caller, Node};
use crate::error::Kind;

/// How long accepting rests after the operating system refused it (no file descriptors left).
const REFUSED_PAUSE: Duration = Duration::from_millis(100);

/// Listens and serves until it is shut down or dropped.
#[derive(Debug)]
pub(crate) struct Server {
    accepting: JoinHandle<()>,
    connections: TaskTracker,
    /// Ends connections that did not end by themselves.
    cut: CancellationToken,
}

impl Server {
    /// Takes the address.
    ///
    /// # Errors
    /// When it is used by another process, does not exist on this machine, or needs rights.
    pub(crate) async fn bind(address: &str) -> Result<(TcpListener, SocketAddr), Error> {
        let listener = TcpListener::bind(address)
            .await
            .map_err(|error| not_bound(address, error))?;
        let local = listener
            .local_addr()
            .map_err(|error| not_bound(address, error))?;
        Ok((listener, local))
    }

    /// Begins to serve. `node.stopping` ends it.
    pub(crate) fn start(node: Arc<Node>, listener: TcpListener) -> Self {
        let connections = TaskTracker::new();
        let cut = CancellationToken::new();
        let accepting = tokio::spawn(accept(node, listener, connections.clone(), cut.clone()));
        Self {
            accepting,
            connections,
            cut,
        }
    }

    /// Waits until requests in flight are answered, at most `limit`, then cuts what is left.
    /// `node.stopping` must have been cancelled.
    pub(crate) async fn drain(mut self, limit: Duration) {
        // It ends at once; an error means that it panicked, and then it has ended, too.
        let _ = (&mut self.accepting).await;
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
        self.accepting.abort();
        self.cut.cancel();
    }
}

async fn accept(
    node: Arc<Node>,
    listener: TcpListener,
    connections: TaskTracker,
    cut: CancellationToken,
) {
    let limit = node.config.limits.connections_max;
    let free = Arc::new(Semaphore::new(limit));
    loop {
        let accepted = tokio::select! {
            () = node.stopping.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        let (socket, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "accepting failed");
                tokio::time::sleep(REFUSED_PAUSE).await;
                continue;
            }
        };
        let Ok(seat) = Arc::clone(&free).try_acquire_owned() else {
            tracing::warn!(%peer, limit, "connection refused: as many as connections_max are open");
            continue;
        };
        let (node, cut) = (Arc::clone(&node), cut.clone());
        connections.spawn(async move {
            tokio::select! {
                () = cut.cancelled() => {}
                () = welcome(node, socket, peer) => {}
            }
            drop(seat);
        });
    }
}

async fn welcome(node: Arc<Node>, socket: TcpStream, peer: SocketAddr) {
    let ready = socket.set_nodelay(true).and_then(|()| socket.local_addr());
    // The peer may be gone already.
    if let Ok(local) = ready {
        connection::serve(node, Caller { peer, local }, socket).await;
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
