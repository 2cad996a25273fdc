//! Where responses go: bytes from memory, and records from files without a way through memory where the system
//! can do that.

use std::fs::File;
use std::io::{self, ErrorKind};
use std::os::unix::fs::FileExt;

use tokio::io::{AsyncWrite, AsyncWriteExt, WriteHalf};
use tokio::net::TcpStream;
use tokio::net::tcp::OwnedWriteHalf;
use tokio_rustls::server::TlsStream;

use crate::log::Stretch;

/// Bytes that are copied at once where the system does not do it.
const COPY: usize = 64 * 1024;

/// The sending half of a connection.
pub(super) trait Sink: AsyncWrite + Unpin + Send {
    /// Sends records that lie in a file.
    fn send_records(&mut self, records: &Stretch) -> impl Future<Output = io::Result<()>> + Send {
        let (file, position) = records.place();
        copy(self, file, position, records.len())
    }
}

/// What is sent must be encrypted first.
impl Sink for WriteHalf<TlsStream<TcpStream>> {}

impl Sink for OwnedWriteHalf {
    #[cfg(target_os = "linux")]
    async fn send_records(&mut self, records: &Stretch) -> io::Result<()> {
        let (file, mut position) = records.place();
        let end = position + records.len() as u64;
        while position < end {
            let left = usize::try_from(end - position).unwrap_or(usize::MAX);
            let socket: &TcpStream = (*self).as_ref();
            socket.writable().await?;
            let sent = socket.try_io(tokio::io::Interest::WRITABLE, || {
                Ok(rustix::fs::sendfile(
                    socket,
                    file,
                    Some(&mut position),
                    left,
                )?)
            });
            match sent {
                Ok(0) => return Err(cut_short()),
                Ok(_) => {}
                Err(error) => match error.kind() {
                    ErrorKind::WouldBlock | ErrorKind::Interrupted => {}
                    // A file system that cannot; nothing of this piece was sent.
                    ErrorKind::InvalidInput | ErrorKind::Unsupported => {
                        return copy(self, file, position, left).await;
                    }
                    _ => return Err(error),
                },
            }
        }
        Ok(())
    }
}

async fn copy<S: AsyncWrite + Unpin + ?Sized>(
    sink: &mut S,
    file: &File,
    mut position: u64,
    mut left: usize,
) -> io::Result<()> {
    let mut buffer = vec![0; left.min(COPY)];
    while left > 0 {
        let piece = buffer.get_mut(..left.min(COPY)).ok_or_else(cut_short)?;
        file.read_exact_at(piece, position)?;
        sink.write_all(piece).await?;
        position += piece.len() as u64;
        left -= piece.len();
    }
    Ok(())
}

fn cut_short() -> io::Error {
    io::Error::new(
        ErrorKind::UnexpectedEof,
        "a segment is shorter than its records",
    )
}
