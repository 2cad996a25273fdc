//! The bounds within which a container works.

use std::time::Duration;

use crate::backoff::Policy;
use crate::commit::AckMode;
use crate::lane::Concurrency;

/// How a container works. The defaults are those of a listener without settings.
#[derive(Debug, Clone)]
pub struct Config {
    /// How records are spread over lanes.
    pub concurrency: Concurrency,
    /// When a transient failure is repeated in place.
    pub retry: Policy,
    /// The same for failures of certain causes, see [`Failure::policy`](super::Failure::policy).
    pub retry_for: Vec<Policy>,
    /// The delays of the retry topics, in which a record is handled again when its attempts in
    /// place are used up; empty without retry topics.
    pub retry_topics: Vec<Duration>,
    /// Whether records whose attempts in place are used up are parked, with those of their key
    /// behind them; see [`ordered`](crate::ordered).
    pub ordered: bool,
    /// When positions are committed.
    pub commit: AckMode,
    /// Whether dispatch waits for the broker's answer to the commit of what was handled before: in
    /// record mode the lane's next record, in batch mode the partition's next poll. Default no.
    pub strict_commits: bool,
    /// Whether records that can't be handled are recovered (dead-lettered); if not, the first
    /// one stops the container.
    pub recover: bool,
    /// Records of a partition that may wait or be in work before it is paused; it is resumed at
    /// half. Default 5,000.
    pub queued_records: usize,
    /// Their bytes. Default 16 MiB.
    pub queued_bytes: usize,
    /// Records of all partitions together that may wait or be in work before every partition is
    /// paused; they are resumed at half. Default: no limit but those of the partitions.
    pub total_records: usize,
    /// Their bytes. Default 256 MiB.
    pub total_bytes: usize,
    /// Records handed to a lane at once. Default 500.
    pub run_records: usize,
    /// How long fewer records than [`run_records`](Config::run_records) wait for company before they
    /// are handed to a lane all the same, from when the first of them came. Nobody waits who can't
    /// gain by it: records that were handed out before or have waited on a retry topic, and those
    /// of a partition whose queue is full. Default 0: they don't wait.
    pub fill_wait: Duration,
    /// How long a revoke waits for records in work before they are cancelled. Default 10 s.
    pub revoke_drain: Duration,
    /// The same for a stop. Default 20 s.
    pub stop_drain: Duration,
    /// How long cancelled work is awaited before the partition is handed over all the same; only
    /// a handler that blocks its thread takes that long. Default 5 s.
    pub cancel_wait: Duration,
    /// How long the answer to [`Flush`](super::Effect::Flush) is awaited; without it, which is
    /// the default, nobody is asked.
    pub flush_wait: Option<Duration>,
    /// How long a commit's answer is awaited before it counts as failed. Default 10 s.
    pub commit_wait: Duration,
    /// The least time between two commits for which nobody waits: what settles in between rides on the
    /// next. A commit costs client and broker together about half a millisecond of CPU time. Default 20 ms, at
    /// which that is no matter and a crash still repeats next to nothing.
    pub commit_gap: Duration,
    /// How long a handled record may wait for its acknowledgement before the container says that
    /// something is wrong. Default 60 s.
    pub unacknowledged_limit: Duration,
    /// Bytes of metadata beside a committed position. Default 3,072.
    pub metadata_bytes: usize,
    /// Whether what does not fit into the metadata is written as a
    /// [snapshot](crate::metadata::snapshot). Default no: it is left out, and a restart repeats it.
    pub snapshots: bool,
    /// Between probes of something unavailable. Never given up. Default 250 ms doubling to 5 s.
    pub probe: Policy,
    /// Between attempts to recover a record, and between failed commits. Never given up.
    /// Default 1 s doubling to 30 s.
    pub recovery: Policy,
    /// How long a lane rests that can't go on although nothing failed. Default 500 ms.
    pub hold_wait: Duration,
    /// Seed of the jitter.
    pub seed: u64,
}

/// Metadata for less than a handful of gaps is not worth asking again.
const METADATA_BYTES_MIN: usize = 64;

impl Config {
    /// The broker's limit is lower than was thought.
    pub(super) fn halve_metadata(&mut self) {
        let half = self.metadata_bytes / 2;
        self.metadata_bytes = if half < METADATA_BYTES_MIN { 0 } else { half };
    }
}

impl Default for Config {
    fn default() -> Self {
        Config {
            concurrency: Concurrency::default(),
            retry: Policy::default(),
            retry_for: Vec::new(),
            retry_topics: Vec::new(),
            ordered: false,
            commit: AckMode::default(),
            strict_commits: false,
            recover: true,
            queued_records: 5_000,
            queued_bytes: 16 << 20,
            total_records: usize::MAX,
            total_bytes: 256 << 20,
            run_records: 500,
            fill_wait: Duration::ZERO,
            revoke_drain: Duration::from_secs(10),
            stop_drain: Duration::from_secs(20),
            cancel_wait: Duration::from_secs(5),
            flush_wait: None,
            commit_wait: Duration::from_secs(10),
            commit_gap: Duration::from_millis(20),
            unacknowledged_limit: Duration::from_secs(60),
            metadata_bytes: 3_072,
            snapshots: false,
            probe: Policy::exponential(Duration::from_millis(250), 2.0)
                .max(Duration::from_secs(5))
                .jitter(0.1),
            recovery: Policy::exponential(Duration::from_secs(1), 2.0)
                .max(Duration::from_secs(30))
                .jitter(0.1),
            hold_wait: Duration::from_millis(500),
            seed: 0,
        }
    }
}
