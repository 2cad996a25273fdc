//! Cuts a stream into requests: four bytes of length, then as many bytes.
//!
//! The length is somebody's claim. It is compared with the limit before memory is taken, and
//! memory then grows with what really arrives, out of what all connections share.

use std::io;
use std::sync::Arc;

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt};

use super::memory::{Held, Memory};

/// Bytes of room for small requests.
const ROOM: usize = 8 * 1024;

/// Bytes taken at once for a large request; more follow as they arrive.
const STEP: usize = 1024 * 1024;

/// How a TLS client begins: a handshake record of some version 3.
const TLS_HANDSHAKE: i32 = 0x16_03_01;

/// Why there are no more frames.
#[derive(Debug, thiserror::Error)]
pub(super) enum FrameError {
    #[error("a request of {claimed} bytes exceeds request_bytes_max ({max})")]
    TooLarge { claimed: i32, max: usize },
    #[error(
        "the peer speaks TLS, and this listener does not; it needs security.protocol=PLAINTEXT"
    )]
    Tls,
    #[error("a request of {claimed} bytes")]
    Negative { claimed: i32 },
    #[error("the connection ended in the middle of a request")]
    CutShort,
    #[error("memory_max is in use, and nobody let go of it for long enough")]
    NoMemory,
    #[error("reading from the connection")]
    Io(#[from] io::Error),
}

/// The requests of one stream.
pub(super) struct Frames<R> {
    stream: R,
    buffer: BytesMut,
    bytes_max: usize,
    memory: Arc<Memory>,
    /// The memory of the frame that arrives, or was given last.
    held: Held,
    given: bool,
}

impl<R: AsyncRead + Unpin> Frames<R> {
    pub(super) fn new(stream: R, bytes_max: usize, memory: Arc<Memory>) -> Self {
        Self {
            stream,
            buffer: BytesMut::new(),
            bytes_max,
            memory,
            held: Held::default(),
            given: false,
        }
    }

    /// Changes how many bytes a frame may have, and gives what it was.
    pub(super) fn limit(&mut self, bytes_max: usize) -> usize {
        std::mem::replace(&mut self.bytes_max, bytes_max)
    }

    /// The next request without its length; `None` when the peer closed between requests. Lets go of the
    /// memory of the one before.
    ///
    /// # Cancel safety
    /// What was read stays for the next call.
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>, FrameError> {
        if std::mem::take(&mut self.given) {
            self.held = Held::default();
        }
        loop {
            let wanted = match self.claimed()? {
                Some(length) if self.buffer.len() >= 4 + length => {
                    self.buffer.advance(4);
                    self.given = true;
                    return Ok(Some(self.buffer.split_to(length).freeze()));
                }
                Some(length) => 4 + length - self.buffer.len(),
                None => ROOM,
            };
            if self.buffer.is_empty() {
                // Gives back the memory of a large request.
                self.buffer = BytesMut::new();
            }
            let room = wanted.clamp(ROOM, STEP);
            self.hold(self.buffer.len() + room).await?;
            self.buffer.reserve(room);
            if self.stream.read_buf(&mut self.buffer).await? == 0 {
                return match self.buffer.is_empty() {
                    true => Ok(None),
                    false => Err(FrameError::CutShort),
                };
            }
        }
    }

    /// Holds memory for so many bytes of a frame; the first few are every connection's own.
    async fn hold(&mut self, bytes: usize) -> Result<(), FrameError> {
        let missing = bytes.saturating_sub(2 * ROOM + self.held.bytes());
        if missing > 0 {
            let more = self.memory.take(missing).await;
            self.held.join(more.ok_or(FrameError::NoMemory)?);
        }
        Ok(())
    }

    /// The length of the frame that begins the buffer, as far as it is there.
    fn claimed(&self) -> Result<Option<usize>, FrameError> {
        let Some(claimed) = self.buffer.first_chunk().copied().map(i32::from_be_bytes) else {
            return Ok(None);
        };
        let length = usize::try_from(claimed).map_err(|_| FrameError::Negative { claimed })?;
        match length > self.bytes_max {
            true if claimed >> 8 == TLS_HANDSHAKE => Err(FrameError::Tls),
            true => Err(FrameError::TooLarge {
                claimed,
                max: self.bytes_max,
            }),
            false => Ok(Some(length)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn frames(stream: &[u8], bytes_max: usize) -> Vec<Result<Option<Bytes>, String>> {
        let memory = Arc::new(Memory::new(1 << 20, std::time::Duration::from_secs(1)));
        let mut frames = Frames::new(stream, bytes_max, memory);
        let mut found = Vec::new();
        loop {
            let next = frames.next().await.map_err(|error| error.to_string());
            let more = matches!(next, Ok(Some(_)));
            found.push(next);
            if !more {
                return found;
            }
        }
    }

    #[tokio::test]
    async fn frames_come_one_by_one_however_they_arrive() {
        let stream = [0, 0, 0, 2, b'a', b'b', 0, 0, 0, 0, 0, 0, 0, 1, b'c'];
        let expected = vec![
            Ok(Some(Bytes::from_static(b"ab"))),
            Ok(Some(Bytes::new())),
            Ok(Some(Bytes::from_static(b"c"))),
            Ok(None),
        ];
        assert_eq!(frames(&stream, 2).await, expected);
    }

    #[tokio::test]
    async fn a_frame_beyond_the_limit_is_refused_before_it_arrives() {
        let refused = frames(&[0, 0, 0, 3], 2).await;
        assert!(
            refused[0]
                .as_ref()
                .is_err_and(|error| error.contains("request_bytes_max"))
        );
    }

    #[tokio::test]
    async fn a_client_that_speaks_tls_is_recognised() {
        let refused = frames(&[0x16, 3, 1, 2, 0, 1], 100).await;
        assert!(
            refused[0]
                .as_ref()
                .is_err_and(|error| error.contains("speaks TLS"))
        );
    }

    #[tokio::test]
    async fn a_negative_length_is_refused() {
        assert!(frames(&[0xff; 4], 100).await[0].is_err());
    }

    #[tokio::test]
    async fn an_end_inside_a_frame_is_an_error() {
        assert!(frames(&[0, 0, 0, 3, 1], 100).await[0].is_err());
        assert!(frames(&[0, 0], 100).await[0].is_err());
    }
}
