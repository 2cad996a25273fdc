//! How far a log is clean, and what is being replaced: a small file beside the segments.
//!
//! Segments are replaced under a note. It is written when the new segment is on the disk, so that whoever finds the note
//! can always end what it says: the new segment takes the first one's place, the others go. The file also lists the
//! segments of the clean part, because there a gap between offsets is no sign that one is missing.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::super::segment::{self, INDEX, LOG};
use super::rewrite;
use crate::Error;
use crate::store::sealed;

const FILE: &str = "compaction";

/// The state of compaction of one partition.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::log) struct Compaction {
    /// Everything before it was cleaned.
    pub(in crate::log) first_dirty: i64,
    /// Segments that begin before it may have gaps between their offsets.
    gaps_below: i64,
    /// The segments that begin before it.
    segments: Vec<i64>,
    replacing: Option<Replacement>,
    /// What is damaged is not cleaned until somebody has looked: the broker is restarted.
    #[serde(skip)]
    pub(super) is_stuck: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Replacement {
    base: i64,
    others: Vec<i64>,
}

impl Compaction {
    /// Reads the state and ends a replacement that was interrupted: whether there was one.
    pub(in crate::log) fn recover(folder: &Path) -> Result<(Self, bool), Error> {
        let mut state = match sealed::read::<Self>(&folder.join(FILE)) {
            Ok(state) => state.unwrap_or_default(),
            Err(error) if error.is_corrupt() => {
                tracing::warn!(folder = %folder.display(), %error, "the state of compaction is damaged: gaps between offsets count as compacted");
                Self::unknown()
            }
            Err(error) => return Err(error),
        };
        let Some(base) = state.replacing.as_ref().map(|replacing| replacing.base) else {
            return Ok((state, false));
        };
        let (from, to) = (
            rewrite::path_of(folder, base),
            segment::path(folder, base, LOG),
        );
        match fs::rename(&from, &to) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                return Err(Error::io(
                    format_args!("renaming {}", from.display()),
                    error,
                ));
            }
            _ => {}
        }
        remove(&segment::path(folder, base, INDEX))?;
        state.remove_replaced(folder)?;
        Ok((state, true))
    }

    fn unknown() -> Self {
        Self {
            gaps_below: i64::MAX,
            ..Self::default()
        }
    }

    /// Whether a segment that begins with this offset may have gaps.
    pub(in crate::log) fn may_have_gaps(&self, base: i64) -> bool {
        base < self.gaps_below
    }

    /// Whether the records from `from` to `to` were removed by compaction, as far as the list of segments tells.
    pub(in crate::log) fn explains_gap(
        &self,
        from: i64,
        to: i64,
        log_start: i64,
        is_there: impl Fn(i64) -> bool,
    ) -> bool {
        let ends = self.segments.iter().skip(1).copied().chain([i64::MAX]);
        let is_missing = |(&base, end): (&i64, i64)| {
            (from..to).contains(&base) && end > log_start && !is_there(base)
        };
        to <= self.gaps_below && !self.segments.iter().zip(ends).any(is_missing)
    }

    /// Notes that the segment written for `base` takes its place, and those of `others`. Durable: from here on it is done
    /// whatever happens. `segments` are those before `end` as they will be.
    pub(in crate::log) fn begin(
        &mut self,
        folder: &Path,
        end: i64,
        segments: Vec<i64>,
        base: i64,
        others: Vec<i64>,
    ) -> Result<(), Error> {
        let mut next = self.clone();
        next.gaps_below = self.gaps_below.max(end);
        next.segments = segments;
        next.replacing = Some(Replacement { base, others });
        self.write(folder, next)
    }

    /// Takes the note back: the replacement was not made.
    pub(super) fn give_up(&mut self, folder: &Path, base: i64) -> Result<(), Error> {
        let mut next = self.clone();
        next.replacing = None;
        // In this order: a note without the new segment says that it is in its place.
        self.write(folder, next)?;
        remove(&rewrite::path_of(folder, base))
    }

    /// Removes the segments that were replaced, if some are left.
    pub(in crate::log) fn remove_replaced(&mut self, folder: &Path) -> Result<(), Error> {
        let Some(replacing) = self.replacing.clone() else {
            return Ok(());
        };
        for base in replacing.others {
            remove(&segment::path(folder, base, LOG))?;
            remove(&segment::path(folder, base, INDEX))?;
        }
        // In this order: the note is all that says where the others' records are, until the new name is on the disk.
        sealed::sync_folder(folder)?;
        let mut next = self.clone();
        next.replacing = None;
        self.write(folder, next)
    }

    /// A pass ended: everything before `end` is clean.
    pub(in crate::log) fn finish(
        &mut self,
        folder: &Path,
        end: i64,
        segments: Vec<i64>,
    ) -> Result<(), Error> {
        let mut next = self.clone();
        (next.first_dirty, next.segments) = (end, segments);
        self.write(folder, next)
    }

    fn write(&mut self, folder: &Path, next: Self) -> Result<(), Error> {
        sealed::write_durably(&folder.join(FILE), &next)?;
        *self = next;
        Ok(())
    }
}

fn remove(path: &Path) -> Result<(), Error> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(Error::io(
            format_args!("removing {}", path.display()),
            error,
        )),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gap_is_explained_unless_a_listed_segment_is_missing_in_it() {
        let state = Compaction {
            gaps_below: 300,
            segments: vec![0, 100, 200],
            ..Compaction::default()
        };
        let none = |_| false;
        assert!(state.explains_gap(150, 200, 0, none));
        assert!(state.explains_gap(250, 300, 0, none));
        assert!(!state.explains_gap(90, 200, 0, none), "100 is missing");
        assert!(
            state.explains_gap(100, 200, 0, |base| base == 100),
            "100 is empty"
        );
        assert!(state.explains_gap(0, 100, 100, none), "0 was deleted");
        assert!(
            !state.explains_gap(250, 400, 0, none),
            "not compacted so far"
        );
    }
}
