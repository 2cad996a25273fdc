//! What a container has done, for those who ask.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// What a container has done since it started.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stats {
    /// Partitions that it owns.
    pub partitions: usize,
    /// Records polled.
    pub polled: u64,
    /// Attempts that failed.
    pub failures: u64,
    /// Records that were written to a dead-letter topic.
    pub dead_letters: u64,
    /// Records that were written to a retry topic, each time.
    pub postponed: u64,
    /// Commits that the broker acknowledged.
    pub commits: u64,
    /// Records that wait or are in work.
    pub in_flight: usize,
    /// Records that were handled and wait for their acknowledgement, in a manual ack mode.
    pub unacknowledged: usize,
    /// Records whose acknowledgement was refused or dropped.
    pub nacks: u64,
    /// Acknowledgements that came too late.
    pub stale_acks: u64,
    /// Snapshots written of what is settled beyond positions and has no room in a commit.
    pub snapshots: u64,
    /// Partitions whose fetching is paused, because their queues are full or on request.
    pub paused: usize,
    /// Turns of the poll thread: while it lives, the number grows.
    pub turns: u64,
}

/// The same, as it is counted by the poll thread.
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) partitions: AtomicUsize,
    pub(super) polled: AtomicU64,
    pub(super) failures: AtomicU64,
    pub(super) dead_letters: AtomicU64,
    pub(super) postponed: AtomicU64,
    pub(super) commits: AtomicU64,
    pub(super) in_flight: AtomicUsize,
    pub(super) unacknowledged: AtomicUsize,
    pub(super) nacks: AtomicU64,
    pub(super) stale_acks: AtomicU64,
    pub(super) snapshots: AtomicU64,
    pub(super) paused: AtomicUsize,
    pub(super) turns: AtomicU64,
}

impl Counters {
    pub(super) fn read(&self) -> Stats {
        Stats {
            partitions: self.partitions.load(Ordering::Relaxed),
            polled: self.polled.load(Ordering::Relaxed),
            failures: self.failures.load(Ordering::Relaxed),
            dead_letters: self.dead_letters.load(Ordering::Relaxed),
            postponed: self.postponed.load(Ordering::Relaxed),
            commits: self.commits.load(Ordering::Relaxed),
            in_flight: self.in_flight.load(Ordering::Relaxed),
            unacknowledged: self.unacknowledged.load(Ordering::Relaxed),
            nacks: self.nacks.load(Ordering::Relaxed),
            snapshots: self.snapshots.load(Ordering::Relaxed),
            stale_acks: self.stale_acks.load(Ordering::Relaxed),
            paused: self.paused.load(Ordering::Relaxed),
            turns: self.turns.load(Ordering::Relaxed),
        }
    }
}
