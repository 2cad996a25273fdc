//! A coordinator's log on a disk that may fail at any moment: written, shortened and read back by the coordinator's own
//! [`Journal`].

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, RwLock};

use tempfile::TempDir;

use super::super::journal::{self, Journal, Snapshot};
use super::super::{Machine, Now, Record};
use crate::Flush;
use crate::disk::simulated;
use crate::fuzz::Random;
use crate::log::{Flusher, OpenFiles, Partition, Place, Shared, each_record, memory_folder};
use crate::store::TopicConfig;

/// Bytes after which the live state is written anew, if it is not larger.
const SNAPSHOT_BYTES: u64 = 2000;
/// Bytes of a segment: some dozens of changes, so that many segments come and go.
const SEGMENT_BYTES: &str = "3000";

pub(super) struct Disk {
    _folder: TempDir,
    flusher: Arc<Flusher>,
    journal: Journal,
    /// The live state was written anew; what is before it goes when it is on the disk.
    snapshot: Option<Snapshot>,
}

impl Disk {
    pub(super) fn new<M: Machine>(machine: &mut M, now: Now) -> Self {
        let folder = memory_folder();
        simulated::watch(folder.path());
        Self::open(folder, machine, now)
    }

    fn open<M: Machine>(folder: TempDir, machine: &mut M, now: Now) -> Self {
        let flusher = Flusher::by_hand(Flush::Always);
        let partition = open(folder.path(), Arc::clone(&flusher), now);
        let journal = Journal::replay(partition, machine, now).unwrap();
        Self {
            _folder: folder,
            flusher,
            journal,
            snapshot: None,
        }
    }

    pub(super) fn append<C: Record>(&mut self, changes: &[C], now: Now) {
        if !changes.is_empty() {
            self.journal.append(changes, now.unix_ms).unwrap();
        }
    }

    /// Writes the live state behind the log, if that has grown; whether it did.
    pub(super) fn snapshot<M: Machine>(&mut self, machine: &M, now: Now) -> bool {
        let due = self.snapshot.is_none() && self.journal.is_long(SNAPSHOT_BYTES);
        if due {
            self.snapshot = self.journal.snapshot(machine, now.unix_ms).unwrap();
        }
        due
    }

    /// Forces all to the disk; where the log begins then, if a snapshot has taken the place of what was before.
    pub(super) fn flush(&mut self) -> Option<usize> {
        while self.flusher.work_once() {}
        let snapshot = self.snapshot.take()?;
        Journal::drop_before(self.journal.partition(), snapshot);
        Some(snapshot.first_offset as usize)
    }

    /// Goes on with what a crash may leave, which the machine has taken up.
    pub(super) fn fail<M: Machine>(self, random: &mut Random, machine: &mut M, now: Now) -> Self {
        let moments = simulated::moments();
        let moment = random.pick(&moments);
        let files = match random.one_in(4) {
            true => moment.seen(),
            false => moment.left(random),
        };
        let folder = memory_folder();
        files.write(folder.path());
        simulated::watch(folder.path());
        let disk = Self::open(folder, machine, now);
        simulated::forget_moments();
        disk
    }

    pub(super) fn begins(&self) -> usize {
        self.journal.partition().log_start_offset() as usize
    }

    pub(super) fn ends(&self) -> usize {
        self.journal.partition().log_end_offset() as usize
    }

    /// What is in the log, with offsets.
    pub(super) fn records<C: Record>(&self) -> Vec<(usize, C)> {
        let partition = self.journal.partition();
        let (mut next, mut all) = (partition.log_start_offset(), Vec::new());
        while let Some(read) = Some(partition.read(next, 10_000, true).unwrap())
            && let Some(end) = read.end
        {
            let taken = each_record(&read.records, |record| {
                if record.offset >= next {
                    let change = journal::read(&record).unwrap().unwrap();
                    all.push((record.offset as usize, change));
                }
            });
            taken.unwrap();
            next = end;
        }
        all
    }
}

impl Drop for Disk {
    /// Nothing holds the partition's files any more.
    fn drop(&mut self) {
        self.journal.partition().abandon();
        self.flusher.stop();
    }
}

/// A coordinator's partition in the folder.
pub(in crate::coordinator) fn open(
    folder: &Path,
    flusher: Arc<Flusher>,
    now: Now,
) -> Arc<Partition> {
    let config = BTreeMap::from([("segment.bytes".to_owned(), SEGMENT_BYTES.to_owned())]);
    let config = TopicConfig::new(config, &BTreeMap::new()).unwrap();
    let place = Place {
        topic: "__coordinator".to_owned(),
        index: 0,
        folder: folder.to_owned(),
    };
    let shared = Shared {
        flusher,
        files: Arc::new(OpenFiles::default()),
    };
    let config = Arc::new(RwLock::new(Arc::new(config)));
    let opened = Partition::open(place, config, shared, now.unix_ms).unwrap();
    opened.partition
}
