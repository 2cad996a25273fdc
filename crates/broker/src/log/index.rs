//! Where in a segment an offset or a time is, to within some 4 KiB.
//!
//! One sparse index answers both: an entry says that the batch at this position begins with this offset, and how
//! large the timestamps before it get. All three only grow, so either can be searched. (Apache Kafka keeps two
//! files.)
//!
//! The index is a shortcut and may be anything after a crash: missing, torn, of another log. What an entry says of the
//! times before it can't be seen in the log without reading all of that, and a wrong one would make a reader skip records. So each
//! entry carries a checksum over itself and over the checksum of the batch that it was written for: the one entry that a
//! look-up ends at is compared with its batch, and the index is built anew from the log if it is not right.
//! Wrong entries elsewhere can only make the search end earlier, and the walk from there longer.
//!
//! The newest entries are held in memory and written in blocks; a lookup reads the file where needed, some
//! 18 small reads for a segment of 1 GiB, so that memory does not grow with the log.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use bytes::Buf;

use super::batch::Header;

/// Bytes of log between two entries, as Kafka's `index.interval.bytes`.
pub(super) const INTERVAL: u64 = 4096;
/// Entries in memory at which the older half is written.
const TAIL_MAX: usize = 512;
/// Offset from the segment's base, position, time, checksum.
const ENTRY: usize = 20;
/// The checksum's place in an entry.
const SEAL: usize = 16;

/// The batch at `position` begins with `offset`; no timestamp before it exceeds `max_timestamp_before`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) offset: i64,
    pub(super) position: u64,
    pub(super) max_timestamp_before: i64,
    /// Over the rest, the segment's base, and the batch's own checksum.
    seal: u32,
}

impl Entry {
    /// The entry of `batch`, which lies at `position` of the segment that begins with `base`.
    pub(super) fn of(base: i64, position: u64, max_timestamp_before: i64, batch: &Header) -> Self {
        let entry = Self::unsealed(batch.base_offset, position, max_timestamp_before);
        entry.sealed(base, Some(batch))
    }

    /// The entry behind the last batch of a closed segment; `offset` is the next one.
    pub(super) fn of_end(base: i64, position: u64, max_timestamp: i64, offset: i64) -> Self {
        Self::unsealed(offset, position, max_timestamp).sealed(base, None)
    }

    /// Whether it was made for `batch`, or for the end where there is none. What the end says of offsets and times is
    /// compared with nothing.
    pub(super) fn is_of(&self, base: i64, batch: Option<&Header>) -> bool {
        self.sealed(base, batch) == *self && batch.is_none_or(|it| it.base_offset == self.offset)
    }

    fn unsealed(offset: i64, position: u64, max_timestamp_before: i64) -> Self {
        Self {
            offset,
            position,
            max_timestamp_before,
            seal: 0,
        }
    }

    fn sealed(self, base: i64, batch: Option<&Header>) -> Self {
        let text = crc32c::crc32c(&self.encode(base)[..SEAL]);
        let place = crc32c::crc32c_append(text, &base.to_be_bytes());
        let crc = batch.map_or(0, |batch| batch.crc);
        Self {
            seal: crc32c::crc32c_append(place, &crc.to_be_bytes()),
            ..self
        }
    }

    /// Segments end before either of the narrow fields overflows.
    fn encode(&self, base: i64) -> [u8; ENTRY] {
        let narrow = |wide: Option<u32>| wide.unwrap_or(u32::MAX).to_be_bytes();
        let offset = self.offset.checked_sub(base);
        let mut bytes = [0; ENTRY];
        bytes[..4].copy_from_slice(&narrow(offset.and_then(|it| u32::try_from(it).ok())));
        bytes[4..8].copy_from_slice(&narrow(u32::try_from(self.position).ok()));
        bytes[8..SEAL].copy_from_slice(&self.max_timestamp_before.to_be_bytes());
        bytes[SEAL..].copy_from_slice(&self.seal.to_be_bytes());
        bytes
    }

    fn decode(base: i64, bytes: &[u8; ENTRY]) -> Self {
        let mut bytes = bytes.as_slice();
        Self {
            offset: base.saturating_add(i64::from(bytes.get_u32())),
            position: u64::from(bytes.get_u32()),
            max_timestamp_before: bytes.get_i64(),
            seal: bytes.get_u32(),
        }
    }
}

/// The index of one segment.
#[derive(Debug)]
pub(super) struct Index {
    path: PathBuf,
    base: i64,
    state: RwLock<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Entries in the file; `None` until somebody needs to know.
    written: Option<u64>,
    tail: Vec<Entry>,
    last_position: u64,
    /// The file at the path is another segment's now, or will be.
    retired: bool,
}

impl Index {
    /// The index at `path` of the segment that begins with `base`. Touches no file.
    pub(super) fn new(path: PathBuf, base: i64) -> Self {
        Self {
            path,
            base,
            state: RwLock::default(),
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Notes a batch; every some 4 KiB this makes an entry.
    pub(super) fn note(&self, batch: &Header, position: u64, max_timestamp_before: i64) {
        let mut state = self.write_state();
        if position < state.last_position + INTERVAL {
            return;
        }
        state.last_position = position;
        let entry = Entry::of(self.base, position, max_timestamp_before, batch);
        state.tail.push(entry);
        if state.tail.len() >= TAIL_MAX {
            self.write_tail(&mut state, TAIL_MAX / 2);
        }
    }

    /// Ends the index: an entry for the end of the segment, by which a complete index is known.
    pub(super) fn finish(&self, end: Entry) {
        let mut state = self.write_state();
        state.tail.push(end);
        let all = state.tail.len();
        self.write_tail(&mut state, all);
    }

    /// From now on the file is left alone; or that is taken back.
    pub(super) fn retire(&self, retired: bool) {
        self.write_state().retired = retired;
    }

    fn flush(&self) {
        let mut state = self.write_state();
        let all = state.tail.len();
        self.write_tail(&mut state, all);
    }

    /// Writes the entries held in memory to the disk: the length of the index in bytes.
    pub(super) fn sync(&self) -> io::Result<u64> {
        self.flush();
        match File::open(&self.path) {
            Ok(file) => {
                crate::disk::sync_file(&file, &self.path)?;
                Ok(file.metadata()?.len())
            }
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(0),
            Err(error) => Err(error),
        }
    }

    /// Removes the entries at and behind `position`.
    pub(super) fn cut(&self, position: u64) -> io::Result<()> {
        let keep = self
            .search_file(|entry| entry.position < position)?
            .map_or(0, |(at, _)| at + 1);
        let mut state = self.write_state();
        match OpenOptions::new().write(true).open(&self.path) {
            Ok(file) => file.set_len(keep * ENTRY as u64)?,
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        *state = State {
            written: Some(keep),
            ..State::default()
        };
        Ok(())
    }

    /// Replaces the whole index.
    pub(super) fn replace(&self, entries: &[Entry]) -> io::Result<()> {
        let bytes: Vec<u8> = entries
            .iter()
            .flat_map(|entry| entry.encode(self.base))
            .collect();
        let unfinished = self.path.with_added_extension(crate::store::UNFINISHED);
        let mut state = self.write_state();
        if state.retired {
            return Ok(());
        }
        fs::write(&unfinished, bytes)?;
        fs::rename(&unfinished, &self.path)?;
        *state = State {
            written: Some(entries.len() as u64),
            tail: Vec::new(),
            last_position: entries.last().map_or(0, |entry| entry.position),
            retired: false,
        };
        Ok(())
    }

    /// The last entry, of the file or of memory.
    pub(super) fn last(&self) -> io::Result<Option<Entry>> {
        if let Some(entry) = self.read_state().tail.last() {
            return Ok(Some(*entry));
        }
        Ok(self.search_file(|_| true)?.map(|(_, entry)| entry))
    }

    /// The last entry for which `holds`; it must hold for a first part of the entries.
    pub(super) fn last_where(&self, holds: impl Fn(&Entry) -> bool) -> io::Result<Option<Entry>> {
        {
            let state = self.read_state();
            let found = state.tail.partition_point(&holds);
            if found > 0 {
                return Ok(state.tail.get(found - 1).copied());
            }
        }
        Ok(self.search_file(holds)?.map(|(_, entry)| entry))
    }

    fn search_file(&self, holds: impl Fn(&Entry) -> bool) -> io::Result<Option<(u64, Entry)>> {
        let file = match File::open(&self.path) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let written = self.read_state().written;
        let count = match written {
            Some(count) => count,
            None => file.metadata()?.len() / ENTRY as u64,
        };
        let (mut low, mut high, mut found) = (0, count, None);
        while low < high {
            let middle = low + (high - low) / 2;
            let entry = self.read_entry(&file, middle)?;
            if holds(&entry) {
                found = Some((middle, entry));
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        Ok(found)
    }

    fn read_entry(&self, file: &File, at: u64) -> io::Result<Entry> {
        let mut bytes = [0; ENTRY];
        file.read_exact_at(&mut bytes, at * ENTRY as u64)?;
        Ok(Entry::decode(self.base, &bytes))
    }

    /// Moves the oldest `count` entries to the file. If the disk refuses they are given up: lookups walk further.
    fn write_tail(&self, state: &mut State, count: usize) {
        let entries: Vec<Entry> = state.tail.drain(..count).collect();
        if entries.is_empty() || state.retired {
            return;
        }
        let bytes: Vec<u8> = entries
            .iter()
            .flat_map(|entry| entry.encode(self.base))
            .collect();
        match self.append(state.written, &bytes) {
            Ok(before) => state.written = Some(before + entries.len() as u64),
            Err(error) => {
                tracing::warn!(path = %self.path.display(), %error, "writing an index failed: lookups will be slower")
            }
        }
    }

    /// Gives the number of entries that were there before.
    fn append(&self, written: Option<u64>, bytes: &[u8]) -> io::Result<u64> {
        let mut file = OpenOptions::new()
            .append(true)
            .create(true)
            .open(&self.path)?;
        let before = match written {
            Some(written) => written,
            None => file.metadata()?.len() / ENTRY as u64,
        };
        // What an earlier write left half done is no entry.
        file.set_len(before * ENTRY as u64)?;
        file.write_all(bytes)?;
        Ok(before)
    }

    fn read_state(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write_state(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }
}
