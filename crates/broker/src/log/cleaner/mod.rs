//! Compaction: of each key the last record stays (`cleanup.policy=compact`).
//!
//! A changelog would otherwise grow without end, or lose its oldest keys to retention. The decisions are Kafka's
//! (`LogCleaner`): the log has a clean part and a dirty part; when enough is dirty, the last offset of each key in the
//! dirty part is noted, and everything up to its end is written anew without what was superseded. Offsets stay
//! as they were, so there are gaps between them. Tombstones and transaction markers stay for `delete.retention.ms` after
//! the first pass that saw them.
//!
//! | file | what it knows |
//! |---|---|
//! | [`choice`] | whether a pass is due, over which segments, and which of them become one |
//! | [`transactions`] | what belongs to aborted transactions, and which markers nothing needs |
//! | [`keys`] | the last offset of each key, in bounded memory |
//! | [`records`] | which records of a batch stay, and the batch that holds them |
//! | [`rewrite`] | a group of segments written anew |
//! | [`state`] | how far the log is clean, and ending a replacement that a crash interrupted |
//! | [`pace`] | stopping in the middle, and a limit on bytes a second |
//! | [`thread`] | the thread that goes over the topics |
//!
//! A pass reads closed segments only, writes a new file beside them, and puts it in their place under a note in the
//! state file; a crash at any point leaves the old or the new ones, never both and never none.

mod choice;
mod keys;
mod pace;
mod records;
mod rewrite;
mod state;
mod thread;
mod transactions;

use std::sync::{Arc, MutexGuard, PoisonError};

#[cfg(test)]
pub(crate) use pace::Stop;
pub(crate) use pace::{Halt, Pace};
pub(super) use records::{Unpacked, Unreadable, repack, wrong_records};
pub(super) use state::Compaction;
pub(crate) use thread::Cleaner;

use super::checkpoint::Checkpoint;
use super::partition::Partition;
use super::segment::Segment;
use crate::Error;
use crate::store::TopicConfig;
use choice::{Candidate, Due};
use keys::LastOffsets;
use rewrite::Rewrite;
use transactions::Aborted;

/// What a pass over a partition did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Cleaned {
    /// Everything before this offset is clean now.
    pub(crate) end: i64,
    /// Bytes of the segments before and after.
    pub(crate) bytes_before: u64,
    pub(crate) bytes_after: u64,
    /// Records that were superseded, aborted, or tombstones past their time.
    pub(crate) records_removed: u64,
    /// Of them, those without a key, which no compacted log can keep.
    pub(crate) keyless_removed: u64,
}

impl Partition {
    /// Compacts the log if that is due. Blocking, and long; one at a time. `None`: nothing was due.
    pub(crate) fn clean(&self, now_ms: i64, pace: &mut Pace<'_>) -> Result<Option<Cleaned>, Halt> {
        let config = self.config();
        if !config.compacts || self.is_deleted() {
            return Ok(None);
        }
        let mut state = self.compaction();
        if state.is_stuck {
            return Ok(None);
        }
        let cleaned = self.clean_what_is_due(&mut state, &config, now_ms, pace);
        // The log was deleted meanwhile: no file is where it was.
        match cleaned {
            Err(Halt::Storage(_)) if self.is_deleted() => Ok(None),
            Err(Halt::Storage(error)) if error.is_corrupt() => {
                state.is_stuck = true;
                Err(error.into())
            }
            cleaned => cleaned,
        }
    }

    fn clean_what_is_due(
        &self,
        state: &mut Compaction,
        config: &TopicConfig,
        now_ms: i64,
        pace: &mut Pace<'_>,
    ) -> Result<Option<Cleaned>, Halt> {
        state.remove_replaced(&self.place.folder)?;
        let segments = self.closed_segments();
        let Some(due) = self.due(&segments, state.first_dirty, config, now_ms)? else {
            return Ok(None);
        };
        // Nothing behind the beginning of a transaction that is open is touched: there may be nothing before it.
        if self.last_stable_offset() <= due.first_dirty {
            return Ok(None);
        }
        let segments: Vec<_> = segments
            .into_iter()
            .take_while(|segment| segment.base() < due.end)
            .collect();
        // What is cleaned is no longer what a scan would need to know the producers again.
        if self.checkpointed()? < due.end {
            return Ok(None);
        }
        self.pass(state, &segments, &due, config, now_ms, pace)
            .map(Some)
    }

    fn pass(
        &self,
        state: &mut Compaction,
        segments: &[Arc<Segment>],
        due: &Due,
        config: &TopicConfig,
        now_ms: i64,
        pace: &mut Pace<'_>,
    ) -> Result<Cleaned, Halt> {
        let dirty = dirty(segments, due.first_dirty);
        let aborted = Aborted::find(dirty, due.first_dirty, due.end, pace)?;
        let keys = LastOffsets::gather(dirty, due.first_dirty, &aborted, pace)?;
        let end = keys.end();
        let last_of_producers = self.writer().producers.last_offsets();
        let mut rewrite = Rewrite::new(rewrite::Rules {
            keys: &keys,
            aborted: &aborted,
            last_of_producers: &last_of_producers,
            log_end: self.log_end_offset(),
            now_ms,
            delete_retention_ms: config.delete_retention_ms,
        });
        let mut cleaned = Cleaned {
            end,
            ..Cleaned::default()
        };
        for group in choice::groups(segments, end, config.segment_bytes as u64) {
            cleaned.bytes_before += group.iter().map(|segment| segment.size()).sum::<u64>();
            cleaned.bytes_after += match rewrite.group(&self.place.folder, &group, pace)? {
                Some(written) => {
                    let size = written.size;
                    self.replace(state, &group, written, end)?;
                    size
                }
                None => group.iter().map(|segment| segment.size()).sum(),
            };
        }
        let bases = self.bases_below(end);
        state.finish(&self.place.folder, end, bases)?;
        let mut writer = self.writer();
        writer.request_checkpoint();
        self.publish(writer);
        cleaned.records_removed = rewrite.records_removed;
        cleaned.keyless_removed = rewrite.keyless_removed;
        self.report(&cleaned);
        Ok(cleaned)
    }

    fn report(&self, cleaned: &Cleaned) {
        tracing::info!(
            topic = self.topic(),
            partition = self.index(),
            end = cleaned.end,
            bytes_before = cleaned.bytes_before,
            bytes_after = cleaned.bytes_after,
            records_removed = cleaned.records_removed,
            keyless_removed = cleaned.keyless_removed,
            "compacted a log"
        );
    }

    fn due(
        &self,
        segments: &[Arc<Segment>],
        first_dirty: i64,
        config: &TopicConfig,
        now_ms: i64,
    ) -> Result<Option<Due>, Error> {
        let high_watermark = self.high_watermark();
        let mut candidates = Vec::with_capacity(segments.len());
        for (at, segment) in segments.iter().enumerate() {
            let next = segments
                .get(at + 1)
                .map_or_else(|| self.active_base(), |next| next.base());
            if next > high_watermark {
                break;
            }
            candidates.push(Candidate {
                base: segment.base(),
                next,
                size: segment.size(),
                newest_ms: super::retention::newest_ms(segment, now_ms),
            });
        }
        let dirty = segments
            .iter()
            .zip(&candidates)
            .find(|(_, candidate)| candidate.next > first_dirty);
        let oldest_dirty_ms = match dirty {
            Some((segment, _)) => segment.first_timestamp()?,
            None => return Ok(None),
        };
        Ok(choice::due(
            &candidates,
            first_dirty.max(self.log_start_offset()),
            oldest_dirty_ms,
            config,
            now_ms,
        ))
    }

    /// Puts `written` in the place of `group`.
    fn replace(
        &self,
        state: &mut Compaction,
        group: &[Arc<Segment>],
        written: rewrite::Written,
        end: i64,
    ) -> Result<(), Halt> {
        let folder = &self.place.folder;
        let Some(base) = group.first().map(|first| first.base()) else {
            return Ok(());
        };
        let others: Vec<i64> = group.iter().skip(1).map(|other| other.base()).collect();
        let mut bases = self.bases_below(end);
        bases.retain(|base| !others.contains(base));
        state.begin(folder, end, bases, base, others)?;
        let segment = Arc::new(Segment::new(
            folder,
            base,
            written.size,
            written.max_timestamp,
            &self.shared.files,
        ));
        let swapped = self.swap(group, &segment, &written);
        if let Ok(true) = swapped {
            return Ok(state.remove_replaced(folder)?);
        }
        // The disk refused, or retention was faster.
        if let Err(error) = state.give_up(folder, base) {
            // The note stands, so nothing may be removed by it before the next start has carried it out.
            state.is_stuck = true;
            return Err(error.into());
        }
        Ok(swapped.map(|_| ())?)
    }

    /// Whoever reads sees the old segments or the new one.
    fn swap(
        &self,
        group: &[Arc<Segment>],
        segment: &Arc<Segment>,
        written: &rewrite::Written,
    ) -> Result<bool, Error> {
        let mut segments = self.segments_mut();
        let at = segments
            .iter()
            .position(|held| Arc::ptr_eq(held, &group[0]));
        let held = at.and_then(|at| segments.get(at..at + group.len()));
        let (Some(at), true) = (
            at,
            held.is_some_and(|held| held.iter().zip(group).all(|(a, b)| Arc::ptr_eq(a, b))),
        ) else {
            return Ok(false);
        };
        group.iter().for_each(|old| old.retire(true));
        if let Err(error) = std::fs::rename(&written.path, segment.path()) {
            group.iter().for_each(|old| old.retire(false));
            return Err(segment.error("renaming a cleaned segment to", error));
        }
        if let Err(error) = segment.index().replace(&written.index) {
            tracing::warn!(path = %segment.path().display(), %error, "writing an index failed: it is built when it is needed");
        }
        segments.splice(at..at + group.len(), [segment.clone()]);
        Ok(true)
    }

    fn compaction(&self) -> MutexGuard<'_, Compaction> {
        self.compaction
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// The offset behind what the last written checkpoint knows.
    pub(super) fn checkpointed(&self) -> Result<i64, Error> {
        Ok(Checkpoint::read(&self.place.folder)?.map_or(0, |checkpoint| checkpoint.next_offset))
    }

    fn closed_segments(&self) -> Vec<Arc<Segment>> {
        let segments = self.segments();
        segments
            .split_last()
            .map_or_else(Vec::new, |(_active, closed)| closed.to_vec())
    }

    fn active_base(&self) -> i64 {
        self.segments().last().map_or(0, |active| active.base())
    }

    fn bases_below(&self, end: i64) -> Vec<i64> {
        let segments = self.segments();
        let bases = segments.iter().map(|segment| segment.base());
        bases.take_while(|&base| base < end).collect()
    }
}

/// The segments from the one that holds `first_dirty`.
fn dirty(segments: &[Arc<Segment>], first_dirty: i64) -> &[Arc<Segment>] {
    let from = segments
        .partition_point(|segment| segment.base() <= first_dirty)
        .saturating_sub(1);
    &segments[from.min(segments.len())..]
}
