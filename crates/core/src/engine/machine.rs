//! The state of a container and its three operations.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::Record;
use super::commits::Commits;
use super::config::Config;
use super::control::Control;
use super::dispatch::Outage;
use super::effect::Effect;
use super::event::{Event, PartitionId, RunId};
use super::manual::Manual;
use super::partition::Partition;
use crate::Timestamp;
use crate::lane::LaneId;
use crate::offset::{Generation, Span};

/// The container engine: events in, effects out. See the [module](super).
#[derive(Debug)]
pub struct Engine<R> {
    pub(super) config: Config,
    pub(super) partitions: BTreeMap<PartitionId, Partition<R>>,
    pub(super) flights: BTreeMap<RunId, Flight>,
    pub(super) recoveries: BTreeMap<RunId, (PartitionId, LaneId)>,
    /// Runs of earlier generations that have not ended: their partition dispatches nothing, so
    /// that no key is handled twice at once.
    pub(super) zombies: BTreeMap<PartitionId, usize>,
    pub(super) retries: BTreeMap<RunId, (PartitionId, Generation)>,
    /// What health says of partitions and lanes that can't go on although nothing failed.
    pub(super) holds: BTreeMap<(PartitionId, Option<LaneId>), String>,
    pub(super) timers: BTreeSet<(Timestamp, PartitionId, LaneId)>,
    pub(super) effects: VecDeque<Effect<R>>,
    pub(super) commits: Commits,
    pub(super) manual: Manual<R>,
    pub(super) revoking: Vec<PartitionId>,
    pub(super) life: Life,
    pub(super) paused: bool,
    /// Whether the partitions together are over their limit and not yet drained to half.
    pub(super) crowded: bool,
    pub(super) control: Control,
    pub(super) outage: Option<Outage>,
    pub(super) recovery_problem: Option<String>,
    pub(super) failing_recoveries: usize,
    /// When the event came that is being taken in.
    pub(super) now: Timestamp,
    problem: Option<String>,
    last_id: u64,
    random: u64,
}

/// A run in work.
#[derive(Debug)]
pub(super) struct Flight {
    pub(super) partition: PartitionId,
    pub(super) generation: Generation,
    pub(super) lane: LaneId,
    pub(super) attempt: u32,
    pub(super) spans: VecDeque<Span>,
    pub(super) settled: usize,
    pub(super) total: usize,
    pub(super) bytes: usize,
}

/// Whether the container goes on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Life {
    Running,
    Stopping(Option<String>),
    Stopped(Option<String>),
}

impl<R: Record> Engine<R> {
    /// A container that owns nothing yet.
    pub fn new(config: Config) -> Self {
        let random = config.seed;
        Engine {
            config,
            partitions: BTreeMap::new(),
            flights: BTreeMap::new(),
            recoveries: BTreeMap::new(),
            zombies: BTreeMap::new(),
            retries: BTreeMap::new(),
            holds: BTreeMap::new(),
            timers: BTreeSet::new(),
            effects: VecDeque::new(),
            commits: Commits::default(),
            manual: Manual::default(),
            revoking: Vec::new(),
            life: Life::Running,
            paused: false,
            crowded: false,
            control: Control::default(),
            outage: None,
            recovery_problem: None,
            failing_recoveries: 0,
            now: Timestamp::EPOCH,
            problem: None,
            last_id: 0,
            random,
        }
    }

    /// Takes in what has happened at `now`; what follows is asked for by
    /// [`poll_effect`](Engine::poll_effect).
    pub fn on_event(&mut self, now: Timestamp, event: Event<R>) {
        self.now = now;
        match event {
            Event::Assigned(partitions) => self.assign(partitions),
            Event::Revoke(partitions) => self.revoke(now, partitions),
            Event::Lost(partitions) => self.lose(partitions),
            Event::Polled {
                partition,
                records,
                next,
            } => self.polled(now, partition, records, next),
            Event::Progress { run, settled } => self.progress(now, run, settled),
            Event::SettledBehind { run, offsets } => self.settled_behind(now, run, &offsets),
            Event::Finished { run, end } => self.finished(now, run, end),
            Event::Handled { run, records } => self.handled(now, run, records),
            Event::Acknowledged {
                run,
                places,
                waiters,
            } => self.acknowledged(now, run, places, waiters),
            Event::Nacked { run, place, nack } => self.nacked(now, run, place, nack),
            Event::Closed { run } => self.closed(run),
            Event::AttemptFailed {
                run,
                offset,
                failure,
                attempt,
                settlement,
            } => self.attempt_failed(run, offset, failure, attempt, settlement),
            Event::RetryAt { partition, at } => self.retry_at(partition, at),
            Event::Retried {
                run,
                next,
                failure,
                problem,
            } => self.retried(now, run, next, failure, problem),
            Event::Recovered { recovery, result } => self.recovered(now, recovery, result),
            Event::Stored {
                commit,
                partition,
                place,
            } => self.snapshot_stored(commit, partition, place),
            Event::MetadataRefused => self.config.halve_metadata(),
            Event::CommitDone { commit, result } => self.commit_done(now, commit, result),
            Event::Seek { partition, to } => self.seek(now, partition, to),
            Event::Pause => self.set_paused(true),
            Event::Resume => self.set_paused(false),
            Event::PausePartitions(ids) => self.pause_partitions(ids),
            Event::ResumePartitions(ids) => self.resume_partitions(ids),
            Event::Hold(ids) => self.withhold(ids),
            Event::Release(ids) => self.release(ids),
            Event::Flushed(ids) => self.flushed(now, ids),
            Event::Unreadable {
                partition,
                at,
                reason,
                again,
            } => self.unreadable(now, partition, at, reason, again),
            Event::Stop => self.stop(now, None),
            Event::Tick => {}
        }
        self.wake_lanes(now);
        self.start_retries(now);
        self.probe(now);
        self.commit_timeout(now);
        self.carry_out(now);
        self.hand_over(now);
        self.send_commit(now);
        self.forget_commit_problem();
        self.look_for_unacknowledged(now);
        self.report_health();
    }

    /// The next thing to do.
    pub fn poll_effect(&mut self) -> Option<Effect<R>> {
        self.effects.pop_front()
    }

    /// When to send [`Event::Tick`], unless another event comes before. May be in the past.
    pub fn deadline(&self) -> Option<Timestamp> {
        let lane = self.timers.first().map(|(at, ..)| *at);
        [
            lane,
            self.retry_deadline(),
            self.probe_deadline(),
            self.commit_deadline(),
            self.handover_deadline(),
            self.control_deadline(),
            self.manual.deadline(),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// Records that wait or are in work.
    pub fn queued_records(&self) -> usize {
        self.partitions
            .values()
            .map(|partition| partition.queued_records)
            .sum()
    }

    /// Records of one partition that wait or are in work.
    pub fn queued_records_of(&self, partition: PartitionId) -> usize {
        let found = self.partitions.get(&partition);
        found.map_or(0, |found| found.queued_records)
    }

    /// The next offset that is expected of a partition, if it is owned and known.
    pub fn next(&self, partition: PartitionId) -> Option<crate::offset::CommitOffset> {
        self.partitions.get(&partition)?.tracker.next()
    }

    /// Records that were handled and wait for their acknowledgement.
    pub fn unacknowledged(&self) -> usize {
        self.partitions
            .values()
            .map(|partition| partition.unacknowledged)
            .sum()
    }

    /// Partitions that are owned.
    pub fn partitions(&self) -> usize {
        self.partitions.len()
    }

    /// The position up to which a partition's records are settled, if it is owned and known.
    pub fn position(&self, partition: PartitionId) -> Option<crate::offset::CommitOffset> {
        self.partitions.get(&partition)?.tracker.position()
    }

    pub(super) fn next_id(&mut self) -> u64 {
        self.last_id += 1;
        self.last_id
    }

    /// A number in `0.0..1.0` (splitmix64).
    pub(super) fn random(&mut self) -> f64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.random;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z >> 11) as f64 / (1u64 << 53) as f64
    }

    fn report_health(&mut self) {
        let problem = match &self.life {
            Life::Stopping(Some(problem)) | Life::Stopped(Some(problem)) => Some(problem),
            Life::Running | Life::Stopping(None) | Life::Stopped(None) => self
                .recovery_problem
                .as_ref()
                .or(self.control.problem())
                .or(self.outage.as_ref().map(|outage| &outage.reason))
                .or(self.manual.problem())
                .or(self.holds.values().next())
                .or(self.commits.problem()),
        };
        if self.problem.as_ref() != problem {
            self.problem = problem.cloned();
            self.effects.push_back(Effect::Health {
                problem: self.problem.clone(),
            });
        }
    }
}
