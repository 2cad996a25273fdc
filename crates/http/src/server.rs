//! Serving with limits on connections, which `axum::serve` leaves to a proxy in front.

use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream, ToSocketAddrs};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::guard;
use crate::limits::Limits;

/// After an accept that failed for want of something (file descriptors): long enough to get some
/// back, short enough not to be noticed.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Binds an address, `"127.0.0.1:8080"`; port 0 picks a free one. A bare port is taken on
/// loopback: a service is open to the network only where somebody wrote so.
///
/// # Errors
/// When the address is taken or not ours; the text names it.
pub async fn bind(address: &str) -> io::Result<TcpListener> {
    let port: Option<u16> = address.trim_start_matches(':').parse().ok();
    let bound = match port {
        Some(port) => listen(("127.0.0.1", port)).await,
        None => listen(address).await,
    };
    bound.map_err(|error| {
        let mend = match error.kind() {
            io::ErrorKind::AddrInUse => "; another process listens there: stop it, or choose another port (0 picks a free one)",
            io::ErrorKind::PermissionDenied => "; ports below 1024 need a privilege: choose a higher one",
            _ => "",
        };
        io::Error::new(error.kind(), format!("listening on {address}: {error}{mend}"))
    })
}

async fn listen(address: impl ToSocketAddrs) -> io::Result<TcpListener> {
    TcpListener::bind(address).await
}

/// Serves `router` with the default [`Limits`] until `shutdown`, then finishes what is in work.
///
/// # Errors
/// When the listener breaks down.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    shutdown: impl Future<Output = ()> + Send,
) -> io::Result<()> {
    Server::new(router).serve(listener, shutdown).await
}

/// A router with its limits.
#[derive(Clone, Debug)]
pub struct Server {
    router: Router,
    limits: Limits,
}

impl Server {
    /// `router` with the default limits.
    pub fn new(router: Router) -> Self {
        Self {
            router,
            limits: Limits::default(),
        }
    }

    /// Other limits.
    #[must_use]
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Serves until `shutdown`: no new connections, requests in work finish within
    /// [`Limits::stop_wait`], then connections are closed.
    ///
    /// # Errors
    /// When the listener breaks down.
    ///
    /// # Cancel safety
    /// Dropped, no further connections are accepted; those open end at their next request.
    pub async fn serve(
        self,
        listener: TcpListener,
        shutdown: impl Future<Output = ()> + Send,
    ) -> io::Result<()> {
        let router = guard::guarded(self.router, &self.limits);
        let connections = Arc::new(Semaphore::new(self.limits.connections));
        let (stop, abort) = (CancellationToken::new(), CancellationToken::new());
        let tasks = TaskTracker::new();
        let _stop_on_drop = stop.clone().drop_guard();
        let mut shutdown = pin!(shutdown);
        loop {
            let accepted = tokio::select! {
                () = &mut shutdown => break,
                accepted = accept(&listener, &connections) => accepted,
            };
            let (stream, place) = match accepted {
                Ok(accepted) => accepted,
                Err(error) if is_of_the_connection(&error) => continue,
                Err(error) => {
                    tracing::warn!(%error, "accepting a connection failed");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            let connection = connection(
                stream,
                router.clone(),
                self.limits.header_wait,
                stop.clone(),
            );
            let abort = abort.clone();
            tasks.spawn(async move {
                abort.run_until_cancelled(connection).await;
                drop(place);
            });
        }
        drop(listener);
        stop.cancel();
        tasks.close();
        if tokio::time::timeout(self.limits.stop_wait, tasks.wait())
            .await
            .is_err()
        {
            tracing::warn!(
                connections = tasks.len(),
                "requests did not finish in time and are dropped"
            );
            abort.cancel();
            tasks.wait().await;
        }
        Ok(())
    }
}

/// The next connection, once there is a place for it.
async fn accept(
    listener: &TcpListener,
    places: &Arc<Semaphore>,
) -> io::Result<(TcpStream, OwnedSemaphorePermit)> {
    let place = Arc::clone(places)
        .acquire_owned()
        .await
        .map_err(io::Error::other)?;
    let (stream, _) = listener.accept().await?;
    Ok((stream, place))
}

async fn connection(
    stream: TcpStream,
    router: Router,
    header_wait: Duration,
    stop: CancellationToken,
) {
    // Answers are small and whole; waiting for more would only delay them.
    let _ = stream.set_nodelay(true);
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(header_wait);
    let mut connection =
        pin!(builder.serve_connection(TokioIo::new(stream), TowerToHyperService::new(router)));
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "an HTTP connection ended early");
    }
}

fn is_of_the_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(
        error.kind(),
        ConnectionAborted | ConnectionRefused | ConnectionReset
    )
}
