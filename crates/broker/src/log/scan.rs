//! Going through a segment's file batch by batch, with little memory.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;

use super::batch::{CRC_FROM, HEADER, Header};
use crate::disk::{Fault, is_built_in};

/// A window over a file that moves forward.
#[derive(Debug)]
pub(super) struct Scan<'a> {
    file: &'a File,
    end: u64,
    window: Vec<u8>,
    window_at: u64,
    window_max: usize,
}

/// Enough for headers; recovery, which reads everything, takes more at a time.
pub(super) const HEADERS_WINDOW: usize = 16 * 1024;
/// Reads whole files at the disk's speed.
pub(super) const BODIES_WINDOW: usize = 1024 * 1024;

impl<'a> Scan<'a> {
    /// Looks at the first `end` bytes of `file`.
    pub(super) fn new(file: &'a File, end: u64, window_max: usize) -> Self {
        Self {
            file,
            end,
            window: Vec::new(),
            window_at: 0,
            window_max,
        }
    }

    /// The header of the batch at `position`; `None` if there is none or it does not fit before the end.
    pub(super) fn header(&mut self, position: u64) -> io::Result<Option<(Header, u64)>> {
        let end = self.end;
        let header = Header::stored(self.bytes(position, HEADER)?);
        Ok(header.and_then(|header| {
            let size = header.size()? as u64;
            (position.checked_add(size)? <= end).then_some((header, size))
        }))
    }

    /// As [`Scan::header`], and the checksum is right.
    pub(super) fn intact(&mut self, position: u64) -> io::Result<Option<(Header, u64)>> {
        let Some((header, size)) = self.header(position)? else {
            return Ok(None);
        };
        let (mut crc, mut at) = (0, position + CRC_FROM as u64);
        while at < position + size {
            let want = usize::try_from(position + size - at)
                .unwrap_or(usize::MAX)
                .min(self.window_max);
            let bytes = self.bytes(at, want)?;
            if bytes.is_empty() {
                return Ok(None);
            }
            crc = crc32c::crc32c_append(crc, bytes);
            at += bytes.len() as u64;
        }
        let right = crc == header.crc || is_built_in(Fault::UncheckedBatches);
        Ok(right.then_some((header, size)))
    }

    /// As [`Scan::intact`], with the batch's bytes.
    pub(super) fn batch(&mut self, position: u64) -> io::Result<Option<(Header, &[u8])>> {
        let Some((header, size)) = self.intact(position)? else {
            return Ok(None);
        };
        let size = usize::try_from(size).map_err(io::Error::other)?;
        Ok(Some((header, self.bytes(position, size)?)))
    }

    /// An intact batch whose base offset is in `offsets`: at `likely`, or else the first at or behind `from`. Its position
    /// and base offset.
    pub(super) fn find_intact(
        &mut self,
        likely: Option<u64>,
        from: u64,
        offsets: Range<i64>,
    ) -> io::Result<Option<(u64, i64)>> {
        let last = self.end.saturating_sub(HEADER as u64);
        for position in likely.into_iter().chain(from..last) {
            let possible = self
                .header(position)?
                .filter(|(header, _)| offsets.contains(&header.base_offset));
            if let Some((header, _)) = possible
                && self.intact(position)?.is_some()
            {
                return Ok(Some((position, header.base_offset)));
            }
        }
        Ok(None)
    }

    /// `want` bytes at `position`, fewer at the end.
    fn bytes(&mut self, position: u64, want: usize) -> io::Result<&[u8]> {
        let want =
            want.min(usize::try_from(self.end.saturating_sub(position)).unwrap_or(usize::MAX));
        let inside = position >= self.window_at
            && position + want as u64 <= self.window_at + self.window.len() as u64;
        if !inside {
            let fill = self
                .window_max
                .max(want)
                .min(usize::try_from(self.end.saturating_sub(position)).unwrap_or(usize::MAX));
            self.window.resize(fill, 0);
            self.window_at = position;
            self.file.read_exact_at(&mut self.window, position)?;
        }
        let at = (position - self.window_at) as usize;
        Ok(&self.window[at..at + want])
    }
}
