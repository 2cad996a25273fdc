//! The last offset of each key in the dirty part, in bounded memory.
//!
//! A key is known by a hash of 128 bits under secrets of this pass: two keys that collide would cost a record, so
//! nobody may be able to make them. When the memory is full the pass ends earlier in the log, and the next one
//! goes on there.

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

use rustc_hash::FxHashMap;

use super::super::scan::{BODIES_WINDOW, Scan};
use super::super::segment::Segment;
use super::pace::{Halt, Pace};
use super::records::{self, Unpacked};
use super::transactions::Aborted;

/// Bytes of an entry with what the table needs beside it.
const ENTRY_BYTES: usize = 25;

type Hash = [u64; 2];

/// Which offset of a key counts.
#[derive(Debug)]
pub(super) struct LastOffsets {
    secrets: [RandomState; 2],
    offsets: FxHashMap<Hash, i64>,
    max: usize,
    end: i64,
}

impl LastOffsets {
    /// Goes over the records from `first_dirty` up to the end of what is decided, or until the memory is full.
    pub(super) fn gather(
        segments: &[Arc<Segment>],
        first_dirty: i64,
        aborted: &Aborted,
        pace: &mut Pace<'_>,
    ) -> Result<Self, Halt> {
        let records = usize::try_from(aborted.end() - first_dirty).unwrap_or(usize::MAX);
        let mut keys = Self::with_room(pace.memory(), records, first_dirty);
        let mut unpacked = Unpacked::default();
        for segment in segments {
            if segment.base() >= aborted.end()
                || !keys.take(segment, aborted, &mut unpacked, pace)?
            {
                break;
            }
        }
        Ok(keys)
    }

    fn with_room(bytes: usize, records: usize, first_dirty: i64) -> Self {
        let slots = bytes / ENTRY_BYTES;
        // A table has a power of two of slots, and uses seven of eight.
        let max = ((slots + 1).next_power_of_two() / 2 / 8 * 7).max(1);
        Self {
            secrets: [RandomState::new(), RandomState::new()],
            offsets: FxHashMap::with_capacity_and_hasher(records.min(max), Default::default()),
            max,
            end: first_dirty,
        }
    }

    /// Whether there is room for more.
    fn take(
        &mut self,
        segment: &Segment,
        aborted: &Aborted,
        unpacked: &mut Unpacked,
        pace: &mut Pace<'_>,
    ) -> Result<bool, Halt> {
        let (file, size, first_dirty) = (segment.file()?, segment.size(), self.end);
        let mut scan = Scan::new(&file, size, BODIES_WINDOW);
        let mut position = 0;
        while position < size {
            let (header, batch) = records::intact(segment, &mut scan, position)?;
            position += batch.len() as u64;
            pace.spend(batch.len() as u64)?;
            if header.base_offset >= aborted.end() {
                return Ok(false);
            }
            if header.last_offset() < first_dirty {
                continue;
            }
            // A batch that cannot be read stays as it is, and supersedes nothing.
            let carries_keys = !header.is_control() && !aborted.has(&header);
            if carries_keys && let Ok(records) = unpacked.open(&header, batch) {
                for record in records {
                    let offset = record.offset;
                    if offset >= aborted.end() || !self.note(record.key, offset) {
                        self.end = offset.min(aborted.end());
                        return Ok(false);
                    }
                }
            }
            self.end = header.next_offset().min(aborted.end());
        }
        Ok(true)
    }

    fn note(&mut self, key: Option<&[u8]>, offset: i64) -> bool {
        let Some(key) = key else {
            return true;
        };
        let hash = self.hash(key);
        if self.offsets.len() >= self.max && !self.offsets.contains_key(&hash) {
            return false;
        }
        let last = self.offsets.entry(hash).or_insert(offset);
        *last = offset.max(*last);
        true
    }

    /// The offset behind the last record that was noted: from here on nothing is known.
    pub(super) fn end(&self) -> i64 {
        self.end
    }

    /// Whether a later record has this key.
    pub(super) fn is_superseded(&self, key: &[u8], offset: i64) -> bool {
        self.offsets
            .get(&self.hash(key))
            .is_some_and(|&last| offset < last)
    }

    fn hash(&self, key: &[u8]) -> Hash {
        [self.secrets[0].hash_one(key), self.secrets[1].hash_one(key)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_memory_takes_known_keys_and_no_new_ones() {
        let mut keys = LastOffsets::with_room(16 * ENTRY_BYTES, 100, 0);
        let names: Vec<String> = (0..20).map(|at| format!("key-{at}")).collect();
        let taken = names
            .iter()
            .zip(0..)
            .take_while(|(name, at)| keys.note(Some(name.as_bytes()), *at))
            .count();
        assert_eq!(taken, 14);
        assert!(keys.note(Some(b"key-3"), 50));
        assert!(keys.is_superseded(b"key-3", 3));
        assert!(!keys.is_superseded(b"key-3", 50));
        assert!(!keys.is_superseded(b"key-19", 1));
    }

    #[test]
    fn the_memory_is_what_was_allowed() {
        let keys = LastOffsets::with_room(64 * 1024 * 1024, usize::MAX, 0);
        assert_eq!(keys.max, (1 << 21) / 8 * 7);
        assert!(keys.offsets.capacity() * ENTRY_BYTES <= 64 * 1024 * 1024);
    }
}
