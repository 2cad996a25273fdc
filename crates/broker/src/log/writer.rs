//! The end of a partition's log: what an append changes, held by one at a time.

use std::fs::File;
use std::io::{self, ErrorKind, IoSlice, Write};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustc_hash::FxHashMap;

use super::aborted::Aborted;
use super::batch::{self, HEADER, Header};
use super::checkpoint::{Checkpoint, Closed};
use super::flush::{Policy, Stopped};
use super::incoming::Incoming;
use super::open_files::OpenFiles;
use super::producers::Producers;
use super::recovery::Recovered;
use super::segment::Segment;
use crate::Error;
use crate::store::TopicConfig;

/// A segment holds so many offsets at most, so that an index entry fits into four bytes.
const OFFSETS_MAX: i64 = i32::MAX as i64;
/// After so many bytes a checkpoint is written: they are checked in less than 0.1 s.
const CHECKPOINT_BYTES: u64 = 64 * 1024 * 1024;

/// The state of a log's end.
#[derive(Debug)]
pub(super) struct Writer {
    pub(super) active: Arc<Segment>,
    pub(super) next_offset: i64,
    pub(super) producers: Producers,
    /// Producers that may begin a transaction here, as their coordinator said.
    pub(super) admitted: FxHashMap<i64, i16>,
    /// When the active segment got its first batch.
    opened_ms: Option<i64>,
    /// Segments closed since the last flush.
    unsynced: Vec<Arc<Segment>>,
    /// Files were created since the last flush.
    folder_changed: bool,
    unflushed: bool,
    /// Where the last flush ended.
    flushed_to: i64,
    since_checkpoint: u64,
    /// It is in the flusher's queue, or being flushed.
    pub(super) queued: bool,
    /// It will be in the queue at some time.
    pub(super) waiting: bool,
    pub(super) stopped: Option<Stopped>,
}

/// What one flush has to do.
#[derive(Debug)]
pub(super) struct FlushJob {
    pub(super) end: i64,
    pub(super) segments: Vec<Arc<Segment>>,
    pub(super) folder_changed: bool,
    pub(super) checkpoint: Option<Checkpoint>,
}

impl Writer {
    pub(super) fn new(recovered: &mut Recovered, active: Arc<Segment>) -> Self {
        Self {
            active,
            next_offset: recovered.next_offset,
            producers: std::mem::take(&mut recovered.producers),
            admitted: FxHashMap::default(),
            opened_ms: recovered.opened_ms,
            unsynced: Vec::new(),
            folder_changed: recovered.changed,
            unflushed: recovered.changed,
            since_checkpoint: if recovered.changed {
                CHECKPOINT_BYTES
            } else {
                0
            },
            queued: false,
            waiting: false,
            flushed_to: recovered.next_offset,
            stopped: None,
        }
    }

    /// Whether the batches belong into a new segment.
    pub(super) fn is_roll_due(
        &self,
        batches: &[Incoming],
        config: &TopicConfig,
        now_ms: i64,
    ) -> bool {
        let size = self.active.size();
        let more: u64 = batches.iter().map(|batch| batch.bytes.len() as u64).sum();
        let records: i64 = batches
            .iter()
            .map(|batch| i64::from(batch.header.records))
            .sum();
        size > 0
            && (size + more > config.segment_bytes as u64
                || self.is_older_than(config.segment_ms, now_ms)
                || records > OFFSETS_MAX - (self.next_offset - self.active.base()))
    }

    /// Whether the active segment got its first batch longer ago than `age_ms`.
    pub(super) fn is_older_than(&self, age_ms: i64, now_ms: i64) -> bool {
        self.opened_ms
            .is_some_and(|opened| now_ms.saturating_sub(opened) > age_ms)
    }

    /// Begins a new segment.
    pub(super) fn roll(
        &mut self,
        folder: &Path,
        files: &Arc<OpenFiles>,
    ) -> Result<Arc<Segment>, Error> {
        let segment = Arc::new(Segment::create(folder, self.next_offset, files)?);
        let closed = std::mem::replace(&mut self.active, segment.clone());
        closed.close(self.next_offset);
        self.unsynced.push(closed);
        self.opened_ms = None;
        self.folder_changed = true;
        self.unflushed = true;
        self.since_checkpoint = CHECKPOINT_BYTES;
        Ok(segment)
    }

    /// Writes the batches behind the log's end with one call to the system: all, or none.
    pub(super) fn write(
        &mut self,
        batches: &[Incoming],
        append_time: Option<i64>,
        now_ms: i64,
    ) -> Result<(), Error> {
        let mut offset = self.next_offset;
        let mut heads: Vec<[u8; HEADER]> = Vec::with_capacity(batches.len());
        for batch in batches {
            heads.push(batch::stamp(&batch.bytes, offset, append_time));
            offset += i64::from(batch.header.records);
        }
        let bodies = batches.iter().map(|batch| &batch.bytes[HEADER..]);
        let mut slices: Vec<IoSlice<'_>> = heads
            .iter()
            .zip(bodies)
            .flat_map(|(head, body)| [IoSlice::new(head), IoSlice::new(body)])
            .collect();
        let file = self.active.file()?;
        if let Err(error) = write_all(&file, &mut slices) {
            if let Err(second) = file.set_len(self.active.size()) {
                self.stopped = Some(Stopped::Failed(format!("{error}; then {second}").into()));
            }
            return Err(self.active.error("appending to", error));
        }
        self.unflushed = true;
        self.opened_ms.get_or_insert(now_ms);
        for (batch, head) in batches.iter().zip(&heads) {
            self.note(batch, &Header::of(head), append_time, now_ms);
        }
        Ok(())
    }

    /// Notes a batch that was written with the header `stored`.
    fn note(&mut self, batch: &Incoming, stored: &Header, append_time: Option<i64>, now_ms: i64) {
        let (header, size) = (&batch.header, batch.bytes.len() as u64);
        self.active.grow(stored, size);
        if !header.is_control() {
            self.producers
                .note(header, self.next_offset, append_time.unwrap_or(-1), now_ms);
        }
        self.next_offset += i64::from(header.records);
        self.since_checkpoint += size;
    }

    /// What must be done so that everything appended until now is on the disk. `closing`: and a checkpoint, if the
    /// last one is not of now.
    pub(super) fn begin_flush(
        &mut self,
        segments: impl FnOnce() -> Vec<Arc<Segment>>,
        closing: bool,
    ) -> Option<FlushJob> {
        let due =
            self.since_checkpoint >= CHECKPOINT_BYTES || (closing && self.since_checkpoint > 0);
        if !self.unflushed && !due {
            return None;
        }
        let checkpoint = due.then(|| self.checkpoint(&segments()));
        if due {
            self.since_checkpoint = 0;
        }
        self.unflushed = false;
        self.flushed_to = self.next_offset;
        let mut unsynced = std::mem::take(&mut self.unsynced);
        unsynced.push(self.active.clone());
        Some(FlushJob {
            end: self.next_offset,
            segments: unsynced,
            folder_changed: std::mem::take(&mut self.folder_changed),
            checkpoint,
        })
    }

    /// The segments are no longer as the last checkpoint says: the next flush writes one.
    pub(super) fn request_checkpoint(&mut self) {
        self.since_checkpoint = CHECKPOINT_BYTES;
        self.unflushed = true;
    }

    /// When there is something to flush and nobody who does it: after how long it should be.
    pub(super) fn plan_flush(&mut self, policy: Policy) -> Option<Duration> {
        if !self.unflushed || self.queued || self.stopped.is_some() {
            return None;
        }
        let records = self.next_offset - self.flushed_to;
        let delay = policy.delay(records, !self.unsynced.is_empty())?;
        match delay.is_zero() {
            true => self.queued = true,
            false if self.waiting => return None,
            false => self.waiting = true,
        }
        Some(delay)
    }

    fn checkpoint(&self, segments: &[Arc<Segment>]) -> Checkpoint {
        let closed = segments
            .iter()
            .filter(|segment| segment.base() < self.active.base());
        Checkpoint {
            closed: closed
                .map(|segment| Closed {
                    base: segment.base(),
                    size: segment.size(),
                    max_timestamp: segment.max_timestamp(),
                })
                .collect(),
            segment: self.active.base(),
            position: self.active.size(),
            index_bytes: 0,
            max_timestamp: self.active.max_timestamp(),
            opened_ms: self.opened_ms,
            next_offset: self.next_offset,
            producers: self.producers.clone(),
            // Known when they are written.
            aborted: 0,
        }
    }
}

impl FlushJob {
    /// Carries it out. Only when all of it succeeded is anything of it called durable.
    pub(super) fn sync(&self, folder: &Path) -> Result<(), Error> {
        for segment in &self.segments {
            segment.sync()?;
        }
        if self.folder_changed {
            crate::store::sealed::sync_folder(folder)?;
        }
        Ok(())
    }

    /// Writes the checkpoint, if one is due, and what it counts on. Without it the next start takes longer, no more.
    pub(super) fn write_checkpoint(self, folder: &Path, aborted: &Mutex<Aborted>) {
        let (Some(mut checkpoint), Some(active)) = (self.checkpoint, self.segments.last()) else {
            return;
        };
        let counted = {
            let mut aborted = aborted.lock().unwrap_or_else(PoisonError::into_inner);
            aborted
                .write(folder)
                .map(|()| aborted.count_below(checkpoint.next_offset))
        };
        match counted {
            Ok(counted) => checkpoint.aborted = counted,
            Err(error) => {
                tracing::warn!(folder = %folder.display(), %error, "no checkpoint: aborted transactions could not be written");
                return;
            }
        }
        for segment in &self.segments {
            match segment.index().sync() {
                Ok(bytes) if Arc::ptr_eq(segment, active) => checkpoint.index_bytes = bytes,
                Ok(_) => {}
                Err(error) => {
                    tracing::warn!(path = %segment.path().display(), %error, "syncing an index failed")
                }
            }
        }
        if let Err(error) = checkpoint.write(folder) {
            tracing::warn!(folder = %folder.display(), %error, "writing a checkpoint failed: the next start will take longer");
        }
    }
}

fn write_all(mut file: &File, mut slices: &mut [IoSlice<'_>]) -> io::Result<()> {
    while !slices.is_empty() {
        match file.write_vectored(slices) {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Ok(written) => IoSlice::advance_slices(&mut slices, written),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
