//! What the database did, counted.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// Counters of one database since it was opened.
#[derive(Debug, Default)]
pub(crate) struct Stats {
    commits: AtomicU64,
    members: AtomicU64,
    commit_micros: AtomicU64,
    failed: AtomicU64,
    rolled_back: AtomicU64,
    gave_way: AtomicU64,
    duplicates: AtomicU64,
}

/// What a database has done since it was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Counts {
    /// Group commits: waits for the disk.
    pub commits: u64,
    /// Units of work that were committed by them.
    pub members: u64,
    /// Time spent in commits.
    pub commit_time: Duration,
    /// Commits that failed; their members were told.
    pub failed_commits: u64,
    /// Units of work that were taken back alone.
    pub rolled_back: u64,
    /// Among those: records on PostgreSQL that waited for a lock while their group held others, and were handled
    /// again after it was committed.
    pub gave_way: u64,
    /// Records that were recognised as handled before.
    pub duplicates: u64,
}

impl Stats {
    pub(crate) fn committed(&self, members: usize, took: Duration) {
        self.commits.fetch_add(1, Relaxed);
        self.members.fetch_add(members as u64, Relaxed);
        self.commit_micros
            .fetch_add(took.as_micros() as u64, Relaxed);
    }

    pub(crate) fn commit_failed(&self) {
        self.failed.fetch_add(1, Relaxed);
    }

    pub(crate) fn rolled_back(&self) {
        self.rolled_back.fetch_add(1, Relaxed);
    }

    pub(crate) fn gave_way(&self) {
        self.gave_way.fetch_add(1, Relaxed);
    }

    pub(crate) fn duplicate(&self) {
        self.duplicates.fetch_add(1, Relaxed);
    }

    pub(crate) fn counts(&self) -> Counts {
        Counts {
            commits: self.commits.load(Relaxed),
            members: self.members.load(Relaxed),
            commit_time: Duration::from_micros(self.commit_micros.load(Relaxed)),
            failed_commits: self.failed.load(Relaxed),
            rolled_back: self.rolled_back.load(Relaxed),
            gave_way: self.gave_way.load(Relaxed),
            duplicates: self.duplicates.load(Relaxed),
        }
    }
}
