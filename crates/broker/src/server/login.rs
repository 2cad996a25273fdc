//! Carries a client's way to a user: one frame at a time, within a time and a size.
//!
//! Whoever has not said who it is may be anybody, so it gets less of everything: frames of the size
//! of a token, and seconds. What it may guess at, it may guess slowly.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};

use super::frame::{FrameError, Frames};
use crate::api::{Caller, Login, LoginRefused, Node, Progress, Refusal};

/// Bytes of a frame before the login: Kafka's `sasl.server.max.receive.size`.
const TOKEN_BYTES_MAX: usize = 512 * 1024;

/// How long a refusal takes: Kafka's `connection.failed.authentication.delay.ms`.
const REFUSAL_DELAY: Duration = Duration::from_millis(100);

/// Why a connection ends before anybody logged in.
#[derive(Debug)]
pub(super) enum NotIn {
    /// The peer left, or the broker stops.
    Gone,
    Refused(LoginRefused),
    Misplaced(Refusal),
    Malformed(FrameError),
}

/// Lets the peer log in where the listener asks for it; what it sent behind that stays in `frames`.
pub(super) async fn log_in(
    node: &Arc<Node>,
    caller: &mut Caller,
    frames: &mut Frames<impl AsyncRead + Unpin>,
    sink: &mut (impl AsyncWrite + Unpin),
) -> Result<(), NotIn> {
    if caller.entrance.mechanisms.is_empty() {
        return Ok(());
    }
    let request_bytes_max = frames.limit(TOKEN_BYTES_MAX);
    let mut login = Login::new(Arc::clone(node), caller.clone());
    loop {
        let frame = frames.next().await.map_err(NotIn::Malformed)?;
        let frame = frame.ok_or(NotIn::Gone)?;
        match login.answer(frame).await.map_err(NotIn::Misplaced)? {
            Progress::Reply(bytes) => send(sink, &bytes).await?,
            Progress::LoggedIn(bytes, user) => {
                send(sink, &bytes).await?;
                caller.user = Some(user);
                frames.limit(request_bytes_max);
                return Ok(());
            }
            Progress::Refused(bytes, refused) => {
                tokio::time::sleep(REFUSAL_DELAY).await;
                if let Some(bytes) = bytes {
                    send(sink, &bytes).await?;
                    // So that the answer is not overtaken by the end of the connection.
                    let _ = sink.shutdown().await;
                }
                return Err(NotIn::Refused(refused));
            }
        }
    }
}

async fn send(sink: &mut (impl AsyncWrite + Unpin), bytes: &[u8]) -> Result<(), NotIn> {
    let sent = async {
        sink.write_all(bytes).await?;
        sink.flush().await
    };
    sent.await
        .map_err(|error| NotIn::Malformed(FrameError::Io(error)))
}
