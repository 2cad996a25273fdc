//! One peer: its requests in order, the responses in the same order.
//!
//! Clients send the next request before the last one is answered. Each is begun when the one
//! before it has been carried out, and what is still awaited then (a flush) does not hold up the
//! next: its response waits in a queue. The queue is bounded by number and by bytes, and a full
//! queue stops the reading, which TCP passes on to the peer.

use std::io;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use tokio::io::{AsyncRead, AsyncWriteExt};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::{Instant, timeout, timeout_at};

use super::frame::{FrameError, Frames};
use super::login::{NotIn, log_in};
use super::memory::Held;
use super::sink::Sink;
use crate::api::{self, Caller, LoginRefused, Node, Piece, Refusal, Reply};
use crate::metrics::{Gauged, add};

/// Unsent bytes are counted in steps of this size, so that any limit fits the semaphore.
const BUDGET_STEP: usize = 1024;

/// How long the end of a connection may take to be said.
const GOODBYE_MAX: Duration = Duration::from_secs(1);

/// Serves a connection until the peer closes it, a request is refused, or the broker stops.
/// `login_by` is when the peer must have said who it is.
pub(super) async fn serve(
    node: Arc<Node>,
    mut caller: Caller,
    stream: impl AsyncRead + Unpin,
    mut sink: impl Sink,
    login_by: Instant,
) {
    let limits = &node.config.limits;
    let _open = Gauged::new(&node.counters.connections);
    let memory = Arc::clone(&node.memory);
    let mut frames = Frames::new(stream, limits.request_bytes_max, memory);
    let logging_in = log_in(&node, &mut caller, &mut frames, &mut sink);
    let logged_in = tokio::select! {
        () = node.stopping.cancelled() => return,
        logged_in = timeout_at(login_by, logging_in) => logged_in,
    };
    match logged_in {
        Ok(Ok(())) => {}
        Ok(Err(not_in)) => return Closing::from(not_in).log(&caller),
        Err(_elapsed) => return Closing::LoginLate(limits.login_max).log(&caller),
    }
    let (replies, queue) = mpsc::channel(limits.in_flight_max.max(1));
    let mut sending = std::pin::pin!(send(&node, queue, sink, limits.idle_max));
    let mut reading = std::pin::pin!(read(&node, &caller, frames, replies));
    let sent = tokio::select! {
        sent = &mut sending => sent,
        read = &mut reading => {
            if let Err(closing) = read {
                closing.count(&node);
                closing.log(&caller);
            }
            // Earlier requests are still answered.
            sending.await
        }
    };
    if let Err(closing) = sent {
        closing.log(&caller);
    }
}

/// A response in its place in the queue.
enum Queued {
    Now(Vec<Piece>, OwnedSemaphorePermit, Held),
    Later(futures_util::future::BoxFuture<'static, Result<Bytes, Refusal>>),
}

/// Why a connection is closed from this side.
#[derive(Debug)]
enum Closing {
    Refused(Refusal),
    Malformed(FrameError),
    NotLoggedIn(LoginRefused),
    LoginLate(Duration),
    Gone,
    Idle(Duration),
    Unsent(Duration),
    Panicked,
}

async fn read(
    node: &Arc<Node>,
    caller: &Caller,
    mut frames: Frames<impl AsyncRead + Unpin>,
    replies: mpsc::Sender<Queued>,
) -> Result<(), Closing> {
    let limits = &node.config.limits;
    let budget_max = u32::try_from(limits.unsent_bytes_max / BUDGET_STEP)
        .unwrap_or(u32::MAX >> 4)
        .max(1);
    let budget = Arc::new(Semaphore::new(budget_max as usize));
    loop {
        let next = tokio::select! {
            biased;
            () = node.stopping.cancelled() => return Ok(()),
            next = timeout(limits.idle_max, frames.next()) => next,
        };
        let frame = match next {
            Ok(Ok(Some(frame))) => frame,
            Ok(Ok(None)) => return Ok(()),
            Ok(Err(error)) => return Err(Closing::Malformed(error)),
            Err(_elapsed) => return Err(Closing::Idle(limits.idle_max)),
        };
        add(&node.counters.received_bytes, frame.len() as u64 + 4);
        let answering = AssertUnwindSafe(api::answer(node, caller, frame)).catch_unwind();
        let (reply, held) = answering
            .await
            .map_err(|_panic| Closing::Panicked)?
            .map_err(Closing::Refused)?;
        let pieces = match reply {
            Reply::Now(bytes) => Ok(vec![Piece::Bytes(bytes)]),
            Reply::Pieces(pieces) => Ok(pieces),
            Reply::Later(response) => Err(response),
            Reply::Silent => continue,
        };
        let queued = match pieces {
            Ok(pieces) => {
                let in_memory: usize = pieces.iter().map(Piece::in_memory).sum();
                let steps = u32::try_from(in_memory.div_ceil(BUDGET_STEP)).unwrap_or(budget_max);
                let permit = Arc::clone(&budget)
                    .acquire_many_owned(steps.min(budget_max))
                    .await;
                match permit {
                    Ok(permit) => Queued::Now(pieces, permit, held),
                    Err(_never_closed) => return Ok(()),
                }
            }
            Err(response) => Queued::Later(response),
        };
        if replies.send(queued).await.is_err() {
            return Ok(());
        }
    }
}

async fn send(
    node: &Node,
    mut queue: mpsc::Receiver<Queued>,
    mut sink: impl Sink,
    limit: Duration,
) -> Result<(), Closing> {
    while let Some(queued) = queue.recv().await {
        let (pieces, _permits) = match queued {
            Queued::Now(pieces, permit, held) => (pieces, Some((permit, held))),
            Queued::Later(response) => {
                let response = AssertUnwindSafe(response).catch_unwind().await;
                let bytes = response
                    .map_err(|_panic| Closing::Panicked)?
                    .map_err(Closing::Refused)?;
                (vec![Piece::Bytes(bytes)], None)
            }
        };
        match timeout(limit, send_pieces(&mut sink, &pieces)).await {
            Ok(Ok(sent)) => add(&node.counters.sent_bytes, sent),
            Ok(Err(error)) => return Err(Closing::Malformed(error.into())),
            Err(_elapsed) => return Err(Closing::Unsent(limit)),
        }
    }
    // The peer learns that the end is meant (TLS's close_notify); whether it does changes nothing.
    let _ = timeout(GOODBYE_MAX, sink.shutdown()).await;
    Ok(())
}

/// Answers how many bytes they were.
async fn send_pieces(sink: &mut impl Sink, pieces: &[Piece]) -> io::Result<u64> {
    let mut sent = 0;
    for piece in pieces {
        match piece {
            Piece::Bytes(bytes) => {
                sink.write_all(bytes).await?;
                sent += bytes.len();
            }
            Piece::Records(found) => {
                sink.send_records(&found.records).await?;
                sent += found.records.len();
            }
        }
    }
    // TLS keeps what the socket does not take at once until it is flushed.
    sink.flush().await?;
    Ok(sent as u64)
}

impl From<NotIn> for Closing {
    fn from(not_in: NotIn) -> Self {
        match not_in {
            NotIn::Gone => Self::Gone,
            NotIn::Refused(refused) => Self::NotLoggedIn(refused),
            NotIn::Misplaced(refusal) => Self::Refused(refusal),
            NotIn::Malformed(error) => Self::Malformed(error),
        }
    }
}

impl Closing {
    fn count(&self, node: &Node) {
        match self {
            Self::Malformed(FrameError::NoMemory) => {
                add(&node.counters.connections_out_of_memory, 1);
            }
            Self::Malformed(FrameError::Io(_)) => {}
            Self::Refused(_) | Self::Malformed(_) => add(&node.counters.requests_refused, 1),
            Self::NotLoggedIn(_)
            | Self::LoginLate(_)
            | Self::Gone
            | Self::Idle(_)
            | Self::Unsent(_)
            | Self::Panicked => {}
        }
    }

    /// One line for each connection that is closed from this side.
    fn log(&self, caller: &Caller) {
        let (peer, listener) = (caller.peer, &caller.entrance.name);
        match self {
            Self::Refused(refusal) => tracing::warn!(
                %peer,
                %listener,
                api_key = refusal.api_key,
                version = refusal.version,
                reason = %refusal.reason,
                "connection closed: request refused"
            ),
            Self::Malformed(FrameError::Io(error)) => tracing::debug!(
                %peer,
                error = error as &dyn std::error::Error,
                "connection lost"
            ),
            Self::Malformed(FrameError::NoMemory) => tracing::warn!(
                %peer,
                "connection closed: no memory for its request, memory_max is in use"
            ),
            Self::Malformed(error) => tracing::warn!(
                %peer,
                %listener,
                reason = %error,
                "connection closed: malformed request"
            ),
            Self::NotLoggedIn(refused) => tracing::warn!(
                %peer,
                %listener,
                mechanism = refused.mechanism.map(tracing::field::display),
                user = refused.user.as_deref(),
                reason = refused.why,
                "connection closed: login refused"
            ),
            Self::LoginLate(limit) => tracing::warn!(
                %peer,
                %listener,
                limit_ms = limit.as_millis(),
                "connection closed: it did not log in in time"
            ),
            Self::Gone => {}
            Self::Idle(limit) => tracing::debug!(
                %peer,
                limit_ms = limit.as_millis(),
                "connection closed: idle"
            ),
            Self::Unsent(limit) => tracing::warn!(
                %peer,
                limit_ms = limit.as_millis(),
                "connection closed: the peer does not read its responses"
            ),
            Self::Panicked => tracing::error!(
                %peer,
                "connection closed: a handler panicked; this is a bug in the broker"
            ),
        }
    }
}
