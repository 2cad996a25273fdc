//! A group of segments written anew, without what nobody needs.

use std::fs::{self, File};
use std::io::{self, BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustc_hash::FxHashMap;

use super::super::batch::Header;
use super::super::index::{Entry, INTERVAL};
use super::super::scan::{BODIES_WINDOW, Scan};
use super::super::segment::{self, Segment};
use super::keys::LastOffsets;
use super::pace::{Halt, Pace};
use super::records::{self, Record, Unpacked};
use super::transactions::{Aborted, Markers};
use crate::store::UNFINISHED;

/// The ending of a segment's file while it is written; what is left of one after a crash is removed.
pub(super) fn path_of(folder: &Path, base: i64) -> PathBuf {
    segment::path(folder, base, "cleaned").with_added_extension(UNFINISHED)
}

/// What decides over a record.
#[derive(Debug)]
pub(super) struct Rules<'a> {
    pub(super) keys: &'a LastOffsets,
    pub(super) aborted: &'a Aborted,
    /// The last offset that each known producer wrote: such a batch stays, if without records, as it holds the
    /// producer's sequence number.
    pub(super) last_of_producers: &'a FxHashMap<i64, i64>,
    /// The batch that ends the log stays, too: a reader could not reach the end otherwise.
    pub(super) log_end: i64,
    pub(super) now_ms: i64,
    pub(super) delete_retention_ms: i64,
}

/// A pass over all groups of a log, in order.
#[derive(Debug)]
pub(super) struct Rewrite<'a> {
    rules: Rules<'a>,
    markers: Markers,
    unpacked: Unpacked,
    pub(super) records_removed: u64,
    pub(super) keyless_removed: u64,
}

/// A new segment, not yet in its place.
#[derive(Debug)]
pub(super) struct Written {
    pub(super) path: PathBuf,
    pub(super) size: u64,
    pub(super) max_timestamp: i64,
    pub(super) index: Vec<Entry>,
}

/// What becomes of a batch.
enum Verdict {
    Same,
    Changed(Vec<u8>),
    Gone,
}

impl<'a> Rewrite<'a> {
    pub(super) fn new(rules: Rules<'a>) -> Self {
        Self {
            rules,
            markers: Markers::default(),
            unpacked: Unpacked::default(),
            records_removed: 0,
            keyless_removed: 0,
        }
    }

    /// Writes the group anew, on the disk when it returns; `None` if it would be the same.
    pub(super) fn group(
        &mut self,
        folder: &Path,
        group: &[Arc<Segment>],
        pace: &mut Pace<'_>,
    ) -> Result<Option<Written>, Halt> {
        let Some(first) = group.first() else {
            return Ok(None);
        };
        let mut output = Output::new(path_of(folder, first.base()), first, group.len() > 1)?;
        let written = group
            .iter()
            .try_for_each(|segment| self.segment(segment, &mut output, pace))
            .and_then(|()| output.finish(first));
        if written.is_err() {
            // The next start removes it otherwise.
            let _ = fs::remove_file(path_of(folder, first.base()));
        }
        written
    }

    fn segment(
        &mut self,
        segment: &Arc<Segment>,
        output: &mut Output,
        pace: &mut Pace<'_>,
    ) -> Result<(), Halt> {
        let writing = |error| segment.error("compacting", error);
        let (file, size) = (segment.file()?, segment.size());
        let mut scan = Scan::new(&file, size, BODIES_WINDOW);
        let mut position = 0;
        while position < size {
            let (header, batch) = records::intact(segment, &mut scan, position)?;
            let verdict = self.verdict(&header, batch).map_err(writing)?;
            let (kept, same) = match &verdict {
                Verdict::Same => (batch, true),
                Verdict::Changed(bytes) => (bytes.as_slice(), false),
                Verdict::Gone => ([].as_slice(), false),
            };
            if !same {
                output.begin(&file, position).map_err(writing)?;
            }
            output.put(&header, kept).map_err(writing)?;
            position += batch.len() as u64;
            pace.spend((batch.len() + kept.len()) as u64)?;
        }
        Ok(())
    }

    fn verdict(&mut self, header: &Header, batch: &[u8]) -> io::Result<Verdict> {
        if header.base_offset >= self.rules.keys.end() {
            return Ok(Verdict::Same);
        }
        if header.is_control() {
            return self.marker(header, batch);
        }
        self.markers.data(header);
        if self.rules.aborted.has(header) {
            self.records_removed += header.records.unsigned_abs() as u64;
            return self.without_records(header, batch);
        }
        self.data(header, batch)
    }

    /// A marker stays while something of its transaction does, and for some time longer.
    fn marker(&mut self, header: &Header, batch: &[u8]) -> io::Result<Verdict> {
        if !self.markers.marker_is_bare(header) {
            return Ok(Verdict::Same);
        }
        match records::delete_horizon(header) {
            Some(horizon) if self.rules.now_ms >= horizon => self.without_records(header, batch),
            Some(_) => Ok(Verdict::Same),
            None => match self.unpacked.open(header, batch) {
                Ok(all) => {
                    let kept: Vec<_> = all.collect();
                    records::rebuild(header, batch, &kept, Some(self.rules.horizon()))
                        .map(Verdict::Changed)
                }
                Err(_) => Ok(Verdict::Same),
            },
        }
    }

    fn data(&mut self, header: &Header, batch: &[u8]) -> io::Result<Verdict> {
        let Ok(all) = self.unpacked.open(header, batch) else {
            return Ok(Verdict::Same);
        };
        let horizon = records::delete_horizon(header);
        let (mut kept, mut has_tombstone, mut keyless) = (Vec::new(), false, 0);
        for record in all {
            if self.rules.keeps(&record, horizon) {
                has_tombstone |= record.value.is_none() && record.offset < self.rules.keys.end();
                kept.push(record);
            } else if record.key.is_none() {
                keyless += 1;
            }
        }
        let removed = i64::from(header.records) - kept.len() as i64;
        self.records_removed += removed.unsigned_abs();
        self.keyless_removed += keyless;
        let begins = (has_tombstone && horizon.is_none()).then(|| self.rules.horizon());
        match (kept.is_empty(), removed, begins) {
            (true, ..) => self.without_records(header, batch),
            (false, 0, None) => Ok(Verdict::Same),
            _ => records::rebuild(header, batch, &kept, begins.or(horizon)).map(Verdict::Changed),
        }
    }

    fn without_records(&self, header: &Header, batch: &[u8]) -> io::Result<Verdict> {
        let rules = &self.rules;
        let is_last =
            rules.last_of_producers.get(&header.producer_id) == Some(&header.last_offset());
        let stays = !header.is_control() && is_last || header.next_offset() == rules.log_end;
        match (stays, header.records) {
            (false, _) => Ok(Verdict::Gone),
            (true, 0) => Ok(Verdict::Same),
            (true, _) => records::empty(header, batch).map(Verdict::Changed),
        }
    }
}

impl Rules<'_> {
    fn keeps(&self, record: &Record<'_>, horizon: Option<i64>) -> bool {
        if record.offset >= self.keys.end() {
            return true;
        }
        let may_go = || horizon.is_some_and(|horizon| self.now_ms >= horizon);
        record.key.is_some_and(|key| {
            !self.keys.is_superseded(key, record.offset) && (record.value.is_some() || !may_go())
        })
    }

    fn horizon(&self) -> i64 {
        self.now_ms.saturating_add(self.delete_retention_ms)
    }
}

/// The new file. It is begun at the first change: a segment in which nothing changes is not copied.
#[derive(Debug)]
struct Output {
    path: PathBuf,
    file: Option<BufWriter<File>>,
    base: i64,
    size: u64,
    max_timestamp: i64,
    next: i64,
    index: Vec<Entry>,
    last_entry: u64,
}

impl Output {
    fn new(path: PathBuf, first: &Segment, at_once: bool) -> Result<Self, Halt> {
        let mut output = Self {
            path,
            file: None,
            base: first.base(),
            size: 0,
            max_timestamp: -1,
            next: first.base(),
            index: Vec::new(),
            last_entry: 0,
        };
        if at_once {
            output
                .create()
                .map_err(|error| first.error("compacting", error))?;
        }
        Ok(output)
    }

    fn create(&mut self) -> io::Result<&mut BufWriter<File>> {
        let file = BufWriter::with_capacity(256 * 1024, File::create(&self.path)?);
        Ok(self.file.insert(file))
    }

    /// What comes differs from `source`, of which everything before `position` stays.
    fn begin(&mut self, source: &File, position: u64) -> io::Result<()> {
        if self.file.is_none() {
            // A handle of its own: the segment's has one position for all.
            let mut prefix = At {
                file: source,
                position: 0,
            }
            .take(position);
            io::copy(&mut prefix, self.create()?)?;
        }
        Ok(())
    }

    fn put(&mut self, header: &Header, batch: &[u8]) -> io::Result<()> {
        if batch.is_empty() {
            return Ok(());
        }
        if let Some(file) = &mut self.file {
            file.write_all(batch)?;
        }
        let stored = Header::parse(batch).unwrap_or(*header);
        if self.size >= self.last_entry + INTERVAL {
            self.last_entry = self.size;
            let entry = Entry::of(self.base, self.size, self.max_timestamp, &stored);
            self.index.push(entry);
        }
        self.max_timestamp = self.max_timestamp.max(stored.max_timestamp);
        self.next = header.next_offset();
        self.size += batch.len() as u64;
        Ok(())
    }

    fn finish(mut self, first: &Segment) -> Result<Option<Written>, Halt> {
        let Some(file) = self.file.take() else {
            return Ok(None);
        };
        file.into_inner()
            .map_err(io::IntoInnerError::into_error)
            .and_then(|file| crate::disk::sync_file(&file, &self.path))
            .map_err(|error| first.error("compacting", error))?;
        let end = Entry::of_end(self.base, self.size, self.max_timestamp, self.next);
        self.index.push(end);
        Ok(Some(Written {
            path: self.path,
            size: self.size,
            max_timestamp: self.max_timestamp,
            index: self.index,
        }))
    }
}

/// Reads a file from a position of its own.
struct At<'a> {
    file: &'a File,
    position: u64,
}

impl Read for At<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let read = std::os::unix::fs::FileExt::read_at(self.file, into, self.position)?;
        self.position += read as u64;
        Ok(read)
    }
}
