//! Which positions are sent to the broker.
//!
//! One request is in flight at a time; what settles meanwhile rides on the next. A failed commit
//! loses nothing: the positions are sent again, later.

use std::time::Duration;

use super::Record;
use super::beyond::Beyond;
use super::effect::{Effect, Position, Snapshot};
use super::event::{CommitId, PartitionId};
use super::machine::Engine;
use super::partition::{Mark, Partition};
use crate::Timestamp;
use crate::commit::Pending;
use crate::mutation::{self, Fault};
use crate::offset::Generation;

/// Snapshots are written at this rate at most (4 MiB/s), so that large ones don't crowd the broker.
const SNAPSHOT_BYTES_A_MS: usize = 4 << 10;

/// Commits under way.
#[derive(Debug, Default)]
pub(super) struct Commits {
    in_flight: Option<InFlight>,
    /// The next one keeps its distance from the one before, unless somebody waits for it.
    gap_until: Option<Timestamp>,
    /// After a failure, or while large snapshots are on their way, nothing is sent until then.
    not_before: Option<Timestamp>,
    failures: u32,
    problem: Option<String>,
}

#[derive(Debug)]
struct InFlight {
    id: CommitId,
    until: Timestamp,
    marks: Vec<(PartitionId, Generation, Mark)>,
}

impl Commits {
    pub(super) fn problem(&self) -> Option<&String> {
        self.problem.as_ref()
    }
}

impl<R: Record> Engine<R> {
    /// Sends what is due, unless a request is in flight.
    pub(super) fn send_commit(&mut self, now: Timestamp) {
        let waits = self.commit_not_before().is_some_and(|at| now < at);
        if waits || self.commits.in_flight.is_some() {
            return;
        }
        let Some(all) = self.pending() else { return };
        let id = CommitId(self.next_id());
        let (mut positions, mut marks, mut snapshot_bytes) = (Vec::new(), Vec::new(), 0);
        for (partition_id, partition) in &mut self.partitions {
            let Some(pending) = partition.pending() else {
                continue;
            };
            let due = partition.commits_at_once() || self.config.commit.due(&pending, &all, now);
            if !due || !partition.may_commit() {
                continue;
            }
            let generation = partition.generation();
            if let Some((mark, offset, beyond)) = partition.send(&self.config) {
                let Beyond { metadata, snapshot } = beyond;
                if let Snapshot::Write { bytes, .. } = &snapshot {
                    snapshot_bytes += bytes.len();
                }
                positions.push(Position {
                    partition: *partition_id,
                    offset,
                    metadata,
                    snapshot,
                });
                marks.push((*partition_id, generation, mark));
            }
        }
        if positions.is_empty() {
            return;
        }
        let until = now + self.config.commit_wait;
        self.commits.in_flight = Some(InFlight { id, until, marks });
        let time = Duration::from_millis((snapshot_bytes / SNAPSHOT_BYTES_A_MS) as u64);
        self.commits.gap_until = Some(now + self.config.commit_gap);
        self.commits.not_before = Some(now + time);
        self.effects.push_back(Effect::Commit {
            commit: id,
            positions,
        });
    }

    fn commit_not_before(&self) -> Option<Timestamp> {
        let Commits {
            gap_until,
            not_before,
            ..
        } = &self.commits;
        let is_awaited = || self.partitions.values().any(Partition::awaits_commit);
        if *gap_until <= *not_before || self.config.strict_commits || is_awaited() {
            *not_before
        } else {
            *gap_until
        }
    }

    pub(super) fn snapshot_stored(&mut self, commit: CommitId, id: PartitionId, place: Vec<u8>) {
        let in_flight = self.commits.in_flight.as_ref();
        let marks = in_flight
            .filter(|found| found.id == commit)
            .map(|found| &found.marks);
        let mark = marks.and_then(|marks| marks.iter().find(|(partition, ..)| *partition == id));
        let Some((_, generation, _)) = mark else {
            return;
        };
        let partition = self.partitions.get_mut(&id);
        if let Some(partition) = partition.filter(|found| found.generation() == *generation) {
            partition.beyond.stored(place);
        }
    }

    pub(super) fn commit_done(
        &mut self,
        now: Timestamp,
        commit: CommitId,
        result: Result<(), String>,
    ) {
        let answered =
            |found: &mut InFlight| found.id == commit || mutation::is(Fault::AnswerOfAnotherCommit);
        let Some(in_flight) = self.commits.in_flight.take_if(answered) else {
            return;
        };
        match result.or_else(mutation::taken_as_done(Fault::FailedCommitTakenAsDone)) {
            Ok(()) => {
                self.commits.failures = 0;
                self.commits.problem = None;
                self.each_mark(in_flight.marks, |partition, mark| {
                    partition.acknowledge(mark)
                });
                if self.config.strict_commits {
                    self.confirmed();
                }
                self.answer_waiters();
            }
            Err(error) => {
                let random = self.random();
                self.commits.failures = self.commits.failures.saturating_add(1);
                let wait = self.config.recovery.wait(self.commits.failures, random);
                self.commits.not_before = Some(now + wait);
                self.commits.problem = Some(error);
                self.each_mark(in_flight.marks, |partition, _| partition.send_again());
            }
        }
    }

    /// What waited for the answer to a commit goes on.
    fn confirmed(&mut self) {
        for partition in self.partitions.values_mut() {
            partition.release_polls(self.now, &self.config);
        }
        self.dispatch_all();
    }

    /// What is pending in all partitions together.
    fn pending(&self) -> Option<Pending> {
        let pending = self.partitions.values().filter_map(Partition::pending);
        pending.reduce(Pending::and)
    }

    fn each_mark(
        &mut self,
        marks: Vec<(PartitionId, Generation, Mark)>,
        act: impl Fn(&mut Partition<R>, Mark),
    ) {
        for (id, generation, mark) in marks {
            let found = self.partitions.get_mut(&id);
            if let Some(partition) = found.filter(|found| found.generation() == generation) {
                act(partition, mark);
            }
        }
    }

    /// Forgets a failed commit when nothing is left to send: its partitions went to others, or
    /// began anew, so that no later success would take the problem back.
    pub(super) fn forget_commit_problem(&mut self) {
        let open = |engine: &Self| {
            let sending = engine.commits.in_flight.is_some();
            sending || engine.partitions.values().any(Partition::is_dirty)
        };
        if self.commits.problem.is_some() && !open(self) {
            self.commits.failures = 0;
            self.commits.problem = None;
        }
    }

    /// A commit without an answer counts as failed.
    pub(super) fn commit_timeout(&mut self, now: Timestamp) {
        let late = self
            .commits
            .in_flight
            .as_ref()
            .filter(|found| found.until <= now);
        if let Some(id) = late.map(|found| found.id) {
            let what = "the broker did not answer a commit; it is sent again: check that the group's coordinator can be reached";
            self.commit_done(now, id, Err(what.into()));
        }
    }

    pub(super) fn commit_deadline(&self) -> Option<Timestamp> {
        if let Some(in_flight) = &self.commits.in_flight {
            return Some(in_flight.until);
        }
        let all = self.pending()?;
        let partitions = self.partitions.values();
        let due = partitions
            .filter(|found| found.may_commit())
            .filter_map(|partition| {
                let pending = partition.pending()?;
                let at_once = partition.commits_at_once();
                Some(if at_once {
                    Timestamp::EPOCH
                } else {
                    self.config.commit.deadline(&pending, &all)
                })
            });
        due.min().map(|at| {
            self.commit_not_before()
                .map_or(at, |earliest| at.max(earliest))
        })
    }
}
