//! One file of a partition's log: batches one behind the other. Only compaction leaves gaps between their offsets.

use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;

use super::batch::{HEADER, Header};
use super::index::{Entry, INTERVAL, Index};
use super::open_files::{OpenFiles, Slot};
use super::record_times;
use super::scan::{HEADERS_WINDOW, Scan};
use super::stretch::Stretch;
use crate::error::Kind;
use crate::{Error, disk};

/// The ending of a segment's file.
pub(super) const LOG: &str = "log";
/// The ending of its index.
pub(super) const INDEX: &str = "index";
/// The digits of a file's name, as Kafka names it.
pub(super) const DIGITS: usize = 20;
/// Bytes taken at once to look for batches: small ones come together, and large ones cost little more than a header.
const FIND_WINDOW: usize = INTERVAL as usize;

/// A segment. Bytes below [`Segment::size`] never change.
#[derive(Debug)]
pub(super) struct Segment {
    base: i64,
    path: PathBuf,
    size: AtomicU64,
    max_timestamp: AtomicI64,
    index: Index,
    /// The index was compared with the log; only a closed segment's can be.
    index_checked: AtomicBool,
    removed: AtomicBool,
    slot: Arc<Slot>,
    files: Arc<OpenFiles>,
    /// Where the last read ended: an offset and its position, for the reader that goes on there.
    continued: Mutex<Option<(i64, u64)>>,
}

impl Segment {
    /// The segment of `folder` that begins with offset `base` and has `size` good bytes. Touches no file.
    pub(super) fn new(
        folder: &Path,
        base: i64,
        size: u64,
        max_timestamp: i64,
        files: &Arc<OpenFiles>,
    ) -> Self {
        let path = path(folder, base, LOG);
        Self {
            index: Index::new(path.with_extension(INDEX), base),
            base,
            path,
            size: AtomicU64::new(size),
            max_timestamp: AtomicI64::new(max_timestamp),
            index_checked: AtomicBool::new(false),
            removed: AtomicBool::new(false),
            slot: Arc::default(),
            files: files.clone(),
            continued: Mutex::default(),
        }
    }

    /// A new, empty segment.
    pub(super) fn create(folder: &Path, base: i64, files: &Arc<OpenFiles>) -> Result<Self, Error> {
        let segment = Self::new(folder, base, 0, -1, files);
        let creating = |error| segment.error("creating", error);
        match fs::remove_file(segment.index.path()) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(creating(error)),
            _ => {}
        }
        let file = files
            .get(&segment.slot, &segment.path, true)
            .map_err(creating)?;
        match file.metadata().map_err(creating)?.len() {
            0 => Ok(segment),
            _ => Err(Error::new(
                Kind::Corrupt,
                format!("{} exists already and is not empty", segment.path.display()),
            )),
        }
    }

    pub(super) fn base(&self) -> i64 {
        self.base
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn size(&self) -> u64 {
        self.size.load(Ordering::Acquire)
    }

    /// The largest timestamp of its records; -1 if there is none.
    pub(super) fn max_timestamp(&self) -> i64 {
        self.max_timestamp.load(Ordering::Acquire)
    }

    pub(super) fn index(&self) -> &Index {
        &self.index
    }

    pub(super) fn file(&self) -> Result<Arc<File>, Error> {
        self.files
            .get(&self.slot, &self.path, false)
            .map_err(|error| self.error("opening", error))
    }

    /// Takes a batch that was written to the end into the good bytes.
    pub(super) fn grow(&self, batch: &Header, size: u64) {
        let (position, max_timestamp_before) = (self.size(), self.max_timestamp());
        self.max_timestamp
            .fetch_max(batch.max_timestamp, Ordering::AcqRel);
        self.size.store(position + size, Ordering::Release);
        // Last: an entry is never of bytes that are not good yet.
        self.index.note(batch, position, max_timestamp_before);
    }

    /// Nothing more is appended: the next offset is `next`.
    pub(super) fn close(&self, next: i64) {
        self.index.finish(Entry::of_end(
            self.base,
            self.size(),
            self.max_timestamp(),
            next,
        ));
    }

    /// Forces what was written to the disk. A segment that was given up meanwhile needs no disk.
    pub(super) fn sync(&self) -> Result<(), Error> {
        let synced = self.file().and_then(|file| {
            disk::sync_file(&file, &self.path).map_err(|error| self.error("syncing", error))
        });
        match synced {
            Err(_) if self.removed.load(Ordering::Acquire) => Ok(()),
            synced => synced,
        }
    }

    /// Its file is being replaced, or not after all: whoever reads it looks again, and its index stays as it is.
    pub(super) fn retire(&self, retired: bool) {
        self.index.retire(retired);
        self.removed.store(retired, Ordering::Release);
    }

    /// Whether what was read of it just now may be something else's.
    pub(super) fn is_removed(&self) -> bool {
        self.removed.load(Ordering::Acquire)
    }

    /// The time of its first batch; `None` if it has none.
    pub(super) fn first_timestamp(&self) -> Result<Option<i64>, Error> {
        if self.size() == 0 {
            return Ok(None);
        }
        let first = self.header_at(0)?.ok_or_else(|| self.damaged(0))?;
        Ok(Some(first.base_timestamp).filter(|&ms| ms >= 0))
    }

    /// Removes its files. A read that has the file open goes on.
    pub(super) fn remove(&self) -> Result<(), Error> {
        self.removed.store(true, Ordering::Release);
        for path in [&self.path, self.index.path()] {
            match fs::remove_file(path) {
                Err(error) if error.kind() != ErrorKind::NotFound => {
                    return Err(self.error("removing", error));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Whole batches from the one that holds `from` or follows it, of offsets below `below`, at most `max` bytes
    /// (the first at any size if `min_one`). `None` if the segment has nothing there.
    pub(super) fn find(
        &self,
        from: i64,
        below: i64,
        max: usize,
        min_one: bool,
    ) -> Result<Option<Found>, Error> {
        let (end, mut position) = (self.size(), self.locate(from)?);
        let file = self.file()?;
        let mut scan = Scan::new(&file, end, FIND_WINDOW);
        let mut batch_at = |position: u64| match position < end {
            true => match scan.header(position) {
                Ok(Some(found)) => Ok(Some(found)),
                Ok(None) => Err(self.damaged(position)),
                Err(error) => Err(self.error("reading", error)),
            },
            false => Ok(None),
        };
        let (mut header, mut size) = loop {
            match batch_at(position)? {
                Some((header, _)) if header.base_offset >= below => return Ok(None),
                Some((header, size)) if header.last_offset() >= from => break (header, size),
                Some((_, size)) => position += size,
                None => return Ok(None),
            }
        };
        if size > max as u64 && !min_one {
            return Ok(Some(Found::TooLarge));
        }
        let (start, mut after) = (position, position + size);
        while let Some((next, more)) = batch_at(after)? {
            if next.base_offset >= below || after + more - start > max as u64 {
                break;
            }
            (header, size) = (next, more);
            after += size;
        }
        self.go_on_at(header.next_offset(), after);
        Ok(Some(Found::Stretch(Stretch {
            file,
            position: start,
            len: usize::try_from(after - start).unwrap_or(usize::MAX),
            next_offset: header.next_offset(),
        })))
    }

    /// The first record at or after `from` with a timestamp of at least `ms`.
    pub(super) fn first_since(&self, ms: i64, from: i64) -> Result<Option<(i64, i64)>, Error> {
        let entry = self.entry(|entry| entry.max_timestamp_before < ms)?;
        let (file, end) = (self.file()?, self.size());
        let mut scan = Scan::new(&file, end, HEADERS_WINDOW);
        let mut position = entry.map_or(0, |entry| entry.position);
        while position < end {
            let found = scan
                .header(position)
                .map_err(|error| self.error("reading", error))?;
            let (header, size) = found.ok_or_else(|| self.damaged(position))?;
            if header.max_timestamp >= ms && header.last_offset() >= from {
                let batch = self.bytes(position, size as usize)?;
                // Where the time is in a batch that cannot be read is unknown; its start misses nothing.
                let unknown = Some((header.base_offset.max(from), header.max_timestamp));
                if let Some(found) =
                    record_times::first_since(&header, &batch, ms, from).unwrap_or(unknown)
                {
                    return Ok(Some(found));
                }
            }
            position += size;
        }
        Ok(None)
    }

    /// Compares the index of a closed segment with the log once, and builds it anew if it is not complete.
    pub(super) fn check_index(&self) -> Result<(), Error> {
        if self.index_checked.load(Ordering::Acquire) {
            return Ok(());
        }
        let last = self
            .index
            .last()
            .map_err(|error| self.error("reading the index of", error))?;
        let is_end = |last: Entry| last.position == self.size() && last.is_of(self.base, None);
        if !last.is_some_and(is_end) {
            self.build_index(true)?;
        }
        self.index_checked.store(true, Ordering::Release);
        Ok(())
    }

    /// Builds the index from the headers in the log.
    pub(super) fn build_index(&self, closed: bool) -> Result<(), Error> {
        let (file, end) = (self.file()?, self.size());
        let mut scan = Scan::new(&file, end, HEADERS_WINDOW);
        let (mut entries, mut position, mut next, mut max_timestamp, mut last) =
            (Vec::new(), 0, self.base, -1, 0);
        while position < end {
            let found = scan
                .header(position)
                .map_err(|error| self.error("reading", error))?;
            let (header, size) = found.ok_or_else(|| self.damaged(position))?;
            if position >= last + INTERVAL {
                let entry = Entry::of(self.base, position, max_timestamp, &header);
                entries.push(entry);
                last = position;
            }
            max_timestamp = max_timestamp.max(header.max_timestamp);
            next = header.next_offset();
            position += size;
        }
        if closed {
            entries.push(Entry::of_end(self.base, end, max_timestamp, next));
        }
        tracing::info!(path = %self.path.display(), entries = entries.len(), "built an index anew");
        self.index
            .replace(&entries)
            .map_err(|error| self.error("writing the index of", error))
    }

    /// A position at or before the batch that holds `offset`.
    fn locate(&self, offset: i64) -> Result<u64, Error> {
        let continued = *self
            .continued
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some((_, position)) = continued.filter(|(next, _)| *next == offset) {
            return Ok(position);
        }
        let entry = self.entry(|entry| entry.offset <= offset)?;
        Ok(entry.map_or(0, |entry| entry.position))
    }

    /// The last entry of a batch for which `holds`. The index is built anew if the log has no such batch.
    fn entry(&self, holds: impl Fn(&Entry) -> bool) -> Result<Option<Entry>, Error> {
        let end = self.size();
        // Not the entry of the end: there is no batch to compare it with.
        let of_batch = |entry: &Entry| entry.position < end && holds(entry);
        let find = || {
            let found = self.index.last_where(of_batch);
            found.map_err(|error| self.error("reading the index of", error))
        };
        let Some(entry) = find()? else {
            return Ok(None);
        };
        let batch = self.header_at(entry.position)?;
        if batch.is_some_and(|batch| entry.is_of(self.base, Some(&batch))) {
            return Ok(Some(entry));
        }
        tracing::warn!(path = %self.path.display(), "an index disagrees with its log");
        self.build_index(self.index_checked.load(Ordering::Acquire))?;
        find()
    }

    fn header_at(&self, position: u64) -> Result<Option<Header>, Error> {
        let bytes = self.bytes(position, HEADER.min((self.size() - position) as usize))?;
        Ok(Header::stored(&bytes))
    }

    fn go_on_at(&self, offset: i64, position: u64) {
        *self
            .continued
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = Some((offset, position));
    }

    fn bytes(&self, position: u64, len: usize) -> Result<Bytes, Error> {
        let mut bytes = vec![0; len];
        self.file()?
            .read_exact_at(&mut bytes, position)
            .map_err(|error| self.error("reading", error))?;
        Ok(bytes.into())
    }

    pub(super) fn error(&self, doing: &str, error: io::Error) -> Error {
        Error::io(format_args!("{doing} {}", self.path.display()), error)
    }

    pub(super) fn damaged(&self, position: u64) -> Error {
        Error::new(
            Kind::Corrupt,
            format!(
                "{} is damaged at byte {position}: no batch begins there",
                self.path.display()
            ),
        )
    }
}

/// A segment's file in `folder`.
pub(super) fn path(folder: &Path, base: i64, extension: &str) -> PathBuf {
    folder.join(format!("{base:0DIGITS$}.{extension}"))
}

/// What a segment has of what is looked for.
#[derive(Debug)]
pub(super) enum Found {
    Stretch(Stretch),
    /// The first batch alone is larger than asked for.
    TooLarge,
}
