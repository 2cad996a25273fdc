//! The records of a compressed batch, unpacked a piece at a time.
//!
//! A batch of some kilobytes can unpack to gigabytes. Nothing here takes memory by what the bytes claim, or in
//! proportion to what they unpack to: who reads decides how far.

use std::io::{self, Cursor, Error, ErrorKind, Read};

use bytes::{Buf, Bytes};
use flate2::bufread::MultiGzDecoder;

/// zstd's window, as a power of two: 8 MiB is what its highest ordinary level takes. Only its "ultra" levels go beyond,
/// and no producer needs them for batches of a megabyte.
const ZSTD_WINDOW_LOG_MAX: u32 = 23;
/// What snappy can make of one byte: its longest copy is 64 bytes for three.
const SNAPPY_RATIO_MAX: usize = 22;
/// How the blocks of Java's snappy streams begin; producers write either these, or one block alone.
const SNAPPY_STREAM: [u8; 8] = *b"\x82SNAPPY\0";
/// The mark above and two version numbers.
const SNAPPY_STREAM_HEADER: usize = 16;

/// Unpacks what follows a batch's header; `compression` is Kafka's number of it.
pub(super) fn records(compression: u8, packed: Bytes) -> io::Result<Box<dyn Read>> {
    Ok(match compression {
        0 => Box::new(packed.reader()),
        1 => Box::new(MultiGzDecoder::new(packed.reader())),
        2 => Box::new(Snappy::new(packed)),
        3 => Box::new(lz4::Decoder::new(packed.reader())?),
        4 => {
            let mut zstd = zstd::stream::read::Decoder::with_buffer(packed.reader())?;
            zstd.window_log_max(ZSTD_WINDOW_LOG_MAX)?;
            Box::new(zstd)
        }
        _ => return Err(ErrorKind::Unsupported.into()),
    })
}

/// Snappy's blocks, one at a time.
struct Snappy {
    packed: Bytes,
    stream: bool,
    block: Cursor<Vec<u8>>,
}

impl Snappy {
    fn new(mut packed: Bytes) -> Self {
        let stream = packed.starts_with(&SNAPPY_STREAM) && packed.len() >= SNAPPY_STREAM_HEADER;
        if stream {
            packed.advance(SNAPPY_STREAM_HEADER);
        }
        Self {
            packed,
            stream,
            block: Cursor::default(),
        }
    }

    fn next_block(&mut self) -> io::Result<Bytes> {
        if !self.stream {
            return Ok(std::mem::take(&mut self.packed));
        }
        let length = self.packed.try_get_u32().map_err(Error::other)? as usize;
        if length > self.packed.len() {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        Ok(self.packed.split_to(length))
    }
}

impl Read for Snappy {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        while !self.block.has_remaining() && !self.packed.is_empty() {
            let packed = self.next_block()?;
            let size = snap::raw::decompress_len(&packed).map_err(Error::other)?;
            if size > packed.len().saturating_mul(SNAPPY_RATIO_MAX) {
                return Err(ErrorKind::InvalidData.into());
            }
            let unpacked = snap::raw::Decoder::new()
                .decompress_vec(&packed)
                .map_err(Error::other)?;
            self.block = Cursor::new(unpacked);
        }
        self.block.read(into)
    }
}
