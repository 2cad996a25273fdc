//! Opening a partition's log, whatever the last process left.
//!
//! After a clean shutdown nothing is read but the checkpoint. After a crash the batches behind the checkpoint are
//! checked. The rules, in this order:
//!
//! 1. An intact batch is never given up. Behind damage the log goes on with a new segment, and the offsets between
//!    stay empty.
//! 2. An offset that was given out is never given out again.
//! 3. Bytes that are cut are kept in a file beside the log, unless they are the beginning of a batch that was being
//!    written when the process died: nobody was promised that one.
//! 4. Everything that was cut or is missing is reported.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::aborted::{Aborted, AbortedTransaction};
use super::batch::Header;
use super::checkpoint::{self, Checkpoint};
use super::cleaner::Compaction;
use super::control::Verdict;
use super::listing::{DAMAGED, Listing, copy};
use super::open_files::OpenFiles;
use super::producers::Producers;
use super::scan::{BODIES_WINDOW, Scan};
use super::segment::{self, LOG, Segment};
use super::undecided::Undecided;
use crate::Error;
use crate::disk::{self, Fault};
use crate::store::{Loss, sealed};

/// How far behind damage the offset of an intact batch may be: a segment holds no more.
const OFFSETS_MAX: i64 = i32::MAX as i64;
/// Beyond so many bytes of a segment without an index, the index is built at the start.
const UNINDEXED_MAX: u64 = 64 * 1024;

/// An opened log.
#[derive(Debug)]
pub(super) struct Recovered {
    /// At least one; the last is the active one.
    pub(super) segments: Vec<Arc<Segment>>,
    pub(super) log_start: i64,
    pub(super) next_offset: i64,
    pub(super) opened_ms: Option<i64>,
    pub(super) producers: Producers,
    pub(super) undecided: Undecided,
    pub(super) aborted: Aborted,
    pub(super) checked_bytes: u64,
    pub(super) losses: Vec<Loss>,
    /// Files in the folder that are not the log's.
    pub(super) foreign: Vec<PathBuf>,
    /// How far the log was compacted.
    pub(super) compaction: Compaction,
    /// The log is not as the checkpoint says: it should be synced and a new one written.
    pub(super) changed: bool,
}

/// Opens the log in `folder`, which is the one of `topic`-`partition`.
pub(super) fn recover(
    folder: &Path,
    topic: &str,
    partition: i32,
    files: &Arc<OpenFiles>,
    now_ms: i64,
) -> Result<Recovered, Error> {
    let (compaction, interrupted) = Compaction::recover(folder)?;
    let mut listing = Listing::read(folder)?;
    let log_start = checkpoint::read_log_start(folder)?.unwrap_or(0);
    let known = known(folder)?;
    // What a checkpoint does not know of, segments tell that nobody may read any more: who wrote, and what ended.
    let told = known
        .as_ref()
        .map_or(i64::MIN, |(known, _)| known.next_offset);
    listing.remove_deleted(folder, log_start.min(told), files)?;
    let first = listing.segments.keys().next().copied().unwrap_or(log_start);
    let (mut known, aborted) =
        known.unwrap_or_else(|| (Checkpoint::vouching_for_nothing(first), Aborted::default()));
    if first > known.next_offset {
        tracing::warn!(folder = %folder.display(), "what a checkpoint says of producers is too old: they are known by the log alone");
        known.producers = Producers::default();
    }
    let mut undecided = Undecided::default();
    known
        .producers
        .open()
        .for_each(|(_, since)| undecided.begin(since));
    let recovery = Recovery {
        folder,
        topic,
        partition,
        files,
        now_ms,
        next: known
            .closed
            .first()
            .map_or(known.segment, |closed| closed.base),
        unclosed: None,
        done: Recovered {
            segments: Vec::new(),
            log_start,
            next_offset: 0,
            opened_ms: None,
            producers: std::mem::take(&mut known.producers),
            undecided,
            aborted,
            checked_bytes: 0,
            losses: Vec::new(),
            foreign: std::mem::take(&mut listing.foreign),
            compaction,
            changed: interrupted,
        },
        known,
    };
    recovery.run(listing)
}

/// What the last process knew, if all of it can be read.
fn known(folder: &Path) -> Result<Option<(Checkpoint, Aborted)>, Error> {
    let Some(checkpoint) = Checkpoint::read(folder)? else {
        return Ok(None);
    };
    let aborted = Aborted::read(folder, checkpoint.next_offset, checkpoint.aborted);
    let aborted = aborted.map_err(|error| {
        Error::io(
            format_args!("reading aborted transactions in {}", folder.display()),
            error,
        )
    })?;
    if aborted.is_none() {
        tracing::warn!(folder = %folder.display(), "aborted transactions are missing: checking the whole log");
    }
    Ok(aborted.map(|aborted| (checkpoint, aborted)))
}

impl Checkpoint {
    fn vouching_for_nothing(first: i64) -> Self {
        Self {
            closed: Vec::new(),
            segment: first,
            position: 0,
            index_bytes: 0,
            max_timestamp: -1,
            opened_ms: None,
            next_offset: first,
            producers: Producers::default(),
            aborted: 0,
        }
    }

    /// How many bytes of a segment are known good.
    fn good_bytes(&self, base: i64) -> u64 {
        let closed = self
            .closed
            .iter()
            .find(|closed| closed.base == base)
            .map(|closed| closed.size);
        closed.unwrap_or(if base == self.segment {
            self.position
        } else {
            0
        })
    }

    /// The base offset of the segment behind a closed one.
    fn base_after(&self, base: i64) -> i64 {
        self.closed
            .iter()
            .map(|closed| closed.base)
            .find(|&next| next > base)
            .unwrap_or(self.segment)
    }
}

struct Recovery<'a> {
    folder: &'a Path,
    topic: &'a str,
    partition: i32,
    files: &'a Arc<OpenFiles>,
    now_ms: i64,
    known: Checkpoint,
    /// The offset behind what was opened so far.
    next: i64,
    /// The last segment opened, if its index is not finished, and the offset behind it.
    unclosed: Option<(Arc<Segment>, i64)>,
    done: Recovered,
}

/// What is behind the good bytes of a segment.
struct Damage {
    good: u64,
    size: u64,
    /// A whole batch with a wrong checksum, not the beginning of one.
    whole: bool,
    /// Position and base offset of the next intact batch.
    intact: Option<(u64, i64)>,
}

impl Recovery<'_> {
    fn run(mut self, mut listing: Listing) -> Result<Recovered, Error> {
        while let Some((base, (size, index_bytes))) = listing.segments.pop_first() {
            let below = listing.segments.keys().next().copied().unwrap_or(i64::MAX);
            self.skip_to(base);
            if let Some((base, size)) = self.open(base, size, index_bytes, below)? {
                listing.segments.insert(base, (size, 0));
            }
        }
        let end = self.next;
        self.skip_to(self.known.next_offset);
        self.next = self.next.max(self.done.log_start);
        // Compaction may have removed the last records of what it cleaned.
        self.next = self.next.max(self.done.compaction.first_dirty);
        if self.next > end || self.done.segments.is_empty() {
            self.begin_segment()?;
        }
        self.done.next_offset = self.next;
        let first = self
            .done
            .segments
            .first()
            .map_or(self.next, |first| first.base());
        self.done.log_start = self.done.log_start.max(first);
        Ok(self.done)
    }

    /// The log goes on at `offset`; what is missing before it was deleted, or is a loss.
    fn skip_to(&mut self, offset: i64) {
        let from = self.next.max(self.done.log_start);
        let opened = &self.done.segments;
        let is_opened = |base| opened.iter().any(|segment| segment.base() == base);
        let is_gap =
            self.done
                .compaction
                .explains_gap(self.next, offset, self.done.log_start, is_opened);
        if from < offset && !is_gap {
            tracing::warn!(
                topic = self.topic,
                partition = self.partition,
                from,
                to = offset,
                "records of a log are gone"
            );
            self.lost(0, Some((from, offset)));
        }
        self.next = self.next.max(offset);
    }

    fn lost(&mut self, cut_bytes: u64, missing_offsets: Option<(i64, i64)>) {
        self.done.changed = true;
        self.done.losses.push(Loss {
            topic: self.topic.to_owned(),
            partition: self.partition,
            cut_bytes,
            missing_offsets,
        });
    }

    /// Opens one segment. `Some` when a part of it became a segment of its own: its base offset and size.
    fn open(
        &mut self,
        base: i64,
        size: u64,
        index_bytes: u64,
        below: i64,
    ) -> Result<Option<(i64, u64)>, Error> {
        self.close_last();
        let closed = self
            .known
            .closed
            .iter()
            .find(|closed| closed.base == base && closed.size == size);
        if let Some(closed) = closed {
            self.next = self.known.base_after(base);
            self.done.segments.push(Arc::new(Segment::new(
                self.folder,
                base,
                size,
                closed.max_timestamp,
                self.files,
            )));
            return Ok(None);
        }
        let good = if base == self.known.segment && size >= self.known.position {
            self.known.position
        } else {
            0
        };
        let max_timestamp = if good > 0 {
            self.known.max_timestamp
        } else {
            -1
        };
        let segment = Arc::new(Segment::new(
            self.folder,
            base,
            good,
            max_timestamp,
            self.files,
        ));
        self.next = if good > 0 {
            self.known.next_offset
        } else {
            base
        };
        self.done.opened_ms = if good > 0 {
            self.known.opened_ms
        } else {
            (size > 0).then_some(self.now_ms)
        };
        self.done.segments.push(segment.clone());
        let unchanged =
            good == size && base == self.known.segment && index_bytes == self.known.index_bytes;
        if unchanged {
            return Ok(None);
        }
        self.done.changed = true;
        if good > UNINDEXED_MAX && index_bytes == 0 {
            segment.build_index(false)?;
        } else {
            segment
                .index()
                .cut(good)
                .map_err(|error| segment.error("cutting the index of", error))?;
        }
        let split = self.check(&segment, size, below)?;
        self.unclosed = Some((segment, self.next));
        Ok(split)
    }

    /// Checks the batches behind the good bytes of `segment` and takes them in.
    fn check(
        &mut self,
        segment: &Segment,
        size: u64,
        below: i64,
    ) -> Result<Option<(i64, u64)>, Error> {
        let reading = |error| segment.error("checking", error);
        let file = segment.file()?;
        let mut scan = Scan::new(&file, size, BODIES_WINDOW);
        while segment.size() < size {
            let position = segment.size();
            let batch = scan.intact(position).map_err(reading)?;
            let Some((header, bytes)) = batch.filter(|(header, _)| {
                let follows = header.base_offset == self.next
                    || header.base_offset > self.next
                        && self.done.compaction.may_have_gaps(segment.base());
                follows && header.next_offset() <= below
            }) else {
                break;
            };
            segment.grow(&header, bytes);
            self.next = header.next_offset();
            self.done.checked_bytes += bytes;
            if header.base_offset >= self.known.next_offset {
                let verdict = match header.is_control() {
                    true => scan
                        .batch(position)
                        .map_err(reading)?
                        .and_then(|(_, batch)| Verdict::of_batch(batch)),
                    false => None,
                };
                self.take_up(&header, verdict);
            }
        }
        let good = segment.size();
        if good == size {
            return Ok(None);
        }
        let offsets = self.next..below.min(self.next.saturating_add(OFFSETS_MAX));
        let whole = scan
            .header(good)
            .map_err(reading)?
            .map(|(_, bytes)| good + bytes);
        let intact = scan
            .find_intact(whole, good + 1, offsets)
            .map_err(reading)?;
        self.done.checked_bytes += size - good;
        self.cut(
            segment,
            &file,
            &Damage {
                good,
                size,
                whole: whole.is_some(),
                intact,
            },
        )
    }

    /// Notes what a batch behind the checkpoint says about its producer.
    fn take_up(&mut self, header: &Header, verdict: Option<Verdict>) {
        let (producer, offset) = (header.producer(), header.base_offset);
        let done = &mut self.done;
        if header.is_control() {
            let Some(verdict) = verdict else { return };
            let Some(first_offset) = done.producers.end(producer, self.now_ms) else {
                return;
            };
            done.undecided.end(first_offset, offset);
            if verdict == Verdict::Abort && !disk::is_built_in(Fault::ForgottenAborts) {
                done.aborted.push(AbortedTransaction {
                    producer_id: producer.id,
                    first_offset,
                    last_offset: offset,
                    last_stable_offset: done.undecided.stable_then(offset + 1),
                });
            }
            return;
        }
        if disk::is_built_in(Fault::ForgottenProducers) {
            return;
        }
        let append_time = match header.is_log_append_time() {
            true => header.max_timestamp,
            false => -1,
        };
        done.producers
            .note(header, offset, append_time, self.now_ms);
        if done.producers.open_since(producer) == Some(offset) {
            done.undecided.begin(offset);
        }
    }

    /// Cuts what is behind the good bytes of `segment`; what is intact behind the damage becomes a segment.
    fn cut(
        &mut self,
        segment: &Segment,
        file: &File,
        damage: &Damage,
    ) -> Result<Option<(i64, u64)>, Error> {
        let &Damage {
            good,
            size,
            whole,
            intact,
        } = damage;
        let end = intact.map_or(size, |(position, _)| position);
        let cutting = |error| segment.error("cutting the damaged end of", error);
        tracing::warn!(path = %segment.path().display(), good, cut = end - good, "cut damaged bytes from a log");
        if whole || intact.is_some() || good < self.known.good_bytes(segment.base()) {
            let aside = segment.path().with_extension(format!("{DAMAGED}{good}"));
            copy(segment.path(), good..end, &aside).map_err(cutting)?;
        }
        if let Some((position, base)) = intact {
            copy(
                segment.path(),
                position..size,
                &segment::path(self.folder, base, LOG),
            )
            .map_err(cutting)?;
            sealed::sync_folder(self.folder)?;
        }
        file.set_len(good)
            .and_then(|()| disk::sync_file(file, segment.path()))
            .map_err(cutting)?;
        self.lost(end - good, None);
        Ok(intact.map(|(position, base)| (base, size - position)))
    }

    /// Begins a segment at the next offset: within one, offsets have no gaps.
    fn begin_segment(&mut self) -> Result<(), Error> {
        self.close_last();
        self.done.changed |= !self.done.segments.is_empty();
        if let Some(empty) = self.done.segments.pop_if(|last| last.size() == 0) {
            empty.remove()?;
        }
        self.done.segments.push(Arc::new(Segment::create(
            self.folder,
            self.next,
            self.files,
        )?));
        self.done.opened_ms = None;
        sealed::sync_folder(self.folder)
    }

    fn close_last(&mut self) {
        if let Some((last, next)) = self.unclosed.take() {
            last.close(next);
        }
    }
}
