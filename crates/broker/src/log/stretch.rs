//! Whole batches where they lie: a stretch of a segment's file.
//!
//! What goes to clients is not brought into the process's memory; the system copies it from its page cache to the
//! socket. The bytes of a stretch never change, and its file stays open as long as somebody holds it, even when
//! retention or compaction has removed the name.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use bytes::Bytes;

/// Bytes of one segment, from the start of a batch to the end of one.
#[derive(Debug, Clone)]
pub(crate) struct Stretch {
    pub(super) file: Arc<File>,
    pub(super) position: u64,
    pub(super) len: usize,
    /// The offset behind the last batch.
    pub(super) next_offset: i64,
}

impl Stretch {
    /// The file, and where in it the bytes begin.
    pub(crate) fn place(&self) -> (&File, u64) {
        (&self.file, self.position)
    }

    /// How many bytes they are; never 0.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// The offset behind the last record.
    pub(crate) fn next_offset(&self) -> i64 {
        self.next_offset
    }

    /// The bytes, in memory. Blocking.
    pub(crate) fn read(&self) -> io::Result<Bytes> {
        let mut bytes = vec![0; self.len];
        self.file.read_exact_at(&mut bytes, self.position)?;
        Ok(bytes.into())
    }
}
