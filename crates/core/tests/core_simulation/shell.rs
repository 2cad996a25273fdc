//! The model of a container's shell: it polls, and carries out what the engine asks for.

use ackwell_core::batch::Suspects;
use ackwell_core::engine::{CommitId, Event as CoreEvent, PartitionId, Position, Snapshot};
use ackwell_core::metadata::{Reference, refer_up_to, snapshot};
use ackwell_core::offset::CommitOffset;

use crate::acks::Acks;
use crate::checker::{Checked, MemberId};
use crate::handlers::Recovering;
use crate::member::{Record, Run};
use crate::weather::Trouble;
use crate::world::{Effect, Event, Happening, POLL_RECORDS, World};

/// A position under way to the broker.
#[derive(Debug, Clone)]
pub(crate) struct Sent {
    position: Position,
    assignment: u64,
    tenure: u64,
    /// How much its engine knew to be settled.
    reports: u64,
}

impl World {
    pub(crate) fn act(&mut self, id: MemberId, effect: Effect) -> Checked {
        match effect {
            Effect::Dispatch {
                run,
                partition: PartitionId(partition),
                lane,
                attempt,
                records,
            } => {
                self.check_dispatch(id, run, partition, lane, attempt, &records)?;
                let member = &mut self.members[id];
                let tenure = member.owned.get(&partition).map_or(0, |t| t.number);
                let new = Run {
                    partition,
                    tenure,
                    records: records.into(),
                    attempt,
                    halted: false,
                    in_work: 0,
                    suspects: if attempt > 1 {
                        Suspects::first()
                    } else {
                        Suspects::none()
                    },
                    failed_list: 0,
                    unreported: Vec::new(),
                    done: 0,
                };
                if self.weather.config.commit.is_manual() {
                    let records: Vec<_> = new.records.iter().cloned().collect();
                    let acks = Acks::new(partition, tenure, &records);
                    member.acks.insert(run, acks);
                }
                member.runs.insert(run, new);
                if self.is_ordered() {
                    // It may end at once, which must not happen while effects are carried out.
                    self.at(0, Happening::Begins(id, run));
                    return Ok(());
                }
                self.start_next(id, run)
            }
            Effect::Halt { run } => {
                if let Some(run) = self.members[id].runs.get_mut(&run) {
                    run.halted = true;
                }
                Ok(())
            }
            Effect::Cancel { run } => {
                self.check_cancel(id, run)?;
                let wait = self.dice.in_range(0, 3);
                self.at(wait, Happening::Cancelled(id, run));
                Ok(())
            }
            Effect::Recover {
                recovery,
                partition: PartitionId(partition),
                record,
                destination,
                attempts,
                ..
            } => {
                let owned = self.members[id].owned.get(&partition);
                let recovering = Recovering {
                    partition,
                    tenure: owned.map_or(0, |tenure| tenure.number),
                    record,
                    destination,
                    attempts,
                };
                self.check_recovery(id, &recovering)?;
                let wait = self.dice.in_range(1, 30);
                self.at(wait, Happening::Recovered(id, recovery, recovering));
                Ok(())
            }
            Effect::Commit { commit, positions } => self.send_commit(id, commit, positions),
            Effect::Pause(ids) => {
                self.set_paused(id, &ids, true);
                Ok(())
            }
            Effect::Resume(ids) => {
                self.set_paused(id, &ids, false);
                Ok(())
            }
            Effect::Seek { partition, to } => {
                if self.reads_again(id, partition.0, to.0)? {
                    return Ok(());
                }
                let number = self.next_number();
                let Some(tenure) = self.members[id].owned.get_mut(&partition.0) else {
                    return Ok(());
                };
                tenure.restart(number, to.0);
                tenure.position = to.0;
                tenure.polls.clear();
                if tenure.seeks_on.take_if(|wanted| *wanted == to.0).is_some() {
                    self.checker.pass_over(partition.0, to.0);
                }
                Ok(())
            }
            Effect::Flush(ids) => self.tell(id, Event::Flushed(ids)),
            Effect::RevokeDone(ids) => self.revoke_done(id, &ids),
            Effect::Stopped { problem } => {
                self.seen.stops += 1;
                self.seen.stops_by_failure += u64::from(problem.is_some());
                self.gone(id)
            }
            Effect::Failed { settlement, .. } => {
                self.seen.retries += u64::from(settlement.is_retry());
                Ok(())
            }
            Effect::Health { problem } => {
                self.members[id].problem = problem;
                Ok(())
            }
            Effect::Close { run } => {
                self.check_close(id, run)?;
                let wait = self.dice.in_range(0, 3);
                self.at(wait, Happening::Closes(id, run));
                Ok(())
            }
            Effect::Answer { waiter, committed } => self.answered(id, waiter, committed),
            Effect::Unacknowledged { .. } => {
                self.seen.late_acks += 1;
                Ok(())
            }
            Effect::Retry { run, partition } => self.begin_retry(id, run, partition.0),
            // Refusals are noted when they are told.
            Effect::Nacked { .. } => Ok(()),
        }
    }

    pub(crate) fn poll(&mut self, id: MemberId) -> Checked {
        if !self.members[id].alive {
            return Ok(());
        }
        let wait = self.dice.in_range(1, 20);
        self.at(wait, Happening::Poll(id));
        let owned: Vec<_> = self.members[id].owned.keys().copied().collect();
        for partition in owned {
            self.poll_partition(id, partition)?;
        }
        Ok(())
    }

    fn poll_partition(&mut self, id: MemberId, partition: u32) -> Checked {
        let count = self.dice.in_range(1, POLL_RECORDS as u64) as usize;
        let number = self.next_number();
        let Some(tenure) = self.members[id].owned.get_mut(&partition) else {
            return Ok(());
        };
        if tenure.paused {
            return Ok(());
        }
        let log = &self.partitions[partition as usize];
        let (mut records, mut next) = log.fetch(tenure.position, count);
        let damaged = |record: &Record| log.is_damaged(record.offset, self.now);
        if let Some(at) = records.iter().position(damaged) {
            if at == 0 {
                let offset = records[0].offset;
                return self.unreadable(id, partition, offset);
            }
            records.truncate(at);
            next = records[at - 1].offset + 1;
        }
        // At the end of a partition that could not be read, the client says that it is the end.
        if records.is_empty() && next == tenure.position && tenure.unreadable.is_none() {
            return Ok(());
        }
        let first = records.first().map_or(i64::MAX, |record| record.offset);
        if tenure.drain.is_none() && tenure.next.is_some_and(|next| first < next) {
            // The engine sees that it was set back, and reads anew.
            tenure.restart(number, first);
        }
        tenure.position = next;
        tenure.next = tenure.next.max(Some(next));
        if tenure.drain.is_none() {
            if tenure.seeks_by.is_none() {
                tenure.unreadable = None;
            }
            tenure
                .polls
                .extend(records.first().map(|record| record.offset));
            for record in &records {
                if tenure.known.contains(&record.offset) {
                    self.seen.known += 1;
                } else {
                    tenure.outstanding.insert(record.offset);
                    tenure.arrived.insert(record.offset, self.now);
                }
            }
        }
        let (polled, next) = (PartitionId(partition), CommitOffset(next));
        self.tell(
            id,
            CoreEvent::Polled {
                partition: polled,
                records,
                next,
            },
        )?;
        let tenure = self.members[id].owned.get(&partition);
        let filled = tenure.is_some_and(|tenure| tenure.paused);
        self.seen.full_queues += u64::from(filled);
        Ok(())
    }

    fn send_commit(&mut self, id: MemberId, commit: CommitId, positions: Vec<Position>) -> Checked {
        for position in &positions {
            self.check_commit(id, position)?;
        }
        let owned = &self.members[id].owned;
        let sent = |position: Position| {
            let tenure = owned.get(&position.partition.0);
            Sent {
                assignment: tenure.map_or(0, |tenure| tenure.assignment),
                tenure: tenure.map_or(0, |tenure| tenure.number),
                reports: tenure.map_or(0, |tenure| tenure.reports),
                position,
            }
        };
        let positions = positions.into_iter().map(sent).collect();
        let wait = self.dice.in_range(0, 10);
        self.at(wait, Happening::CommitArrives(id, commit, positions));
        Ok(())
    }

    pub(crate) fn commit_arrives(
        &mut self,
        id: MemberId,
        commit: CommitId,
        positions: Vec<Sent>,
    ) -> Checked {
        let refused = self.strikes(Trouble::CommitRefused, 5);
        // A member that has lost a partition is fenced by its generation.
        let fenced = positions.iter().any(|sent| {
            let known = &self.partitions[sent.position.partition.0 as usize];
            known.owner != Some(id) || known.assignment != sent.assignment
        });
        self.seen.refused_commits += u64::from(refused);
        self.seen.fenced_commits += u64::from(fenced);
        let fine = !refused && !fenced;
        let mut stored: Vec<_> = positions.iter().map(|sent| sent.position.clone()).collect();
        if !fenced {
            // Before the commit, whatever becomes of it.
            for position in &mut stored {
                self.keep_snapshot(id, commit, position)?;
            }
        }
        if fine {
            self.seen.commits += 1;
            for position in stored {
                let known = &mut self.partitions[position.partition.0 as usize];
                self.checker
                    .committed(&position, known.end, &known.snapshots)?;
                self.seen.metadata += u64::from(!position.metadata.is_empty());
                known.committed = Some((position.offset, position.metadata));
            }
        }
        if !fine {
            self.members[id].commit_trouble = Some(self.now);
        }
        if self.strikes(Trouble::LostReply, 5) {
            self.seen.lost_replies += 1;
            self.members[id].commit_trouble = Some(self.now);
            return Ok(());
        }
        let wait = if self.strikes(Trouble::LateReply, 5) {
            self.seen.late_replies += 1;
            self.members[id].commit_trouble = Some(self.now);
            self.dice.in_range(200, 400)
        } else {
            self.dice.in_range(0, 10)
        };
        self.at(wait, Happening::CommitAnswered(id, commit, fine, positions));
        Ok(())
    }

    pub(crate) fn commit_answered(
        &mut self,
        id: MemberId,
        commit: CommitId,
        fine: bool,
        positions: &[Sent],
    ) -> Checked {
        for sent in positions.iter().filter(|_| fine) {
            let partition = sent.position.partition.0;
            if let Some(tenure) = self.members[id].current(partition, sent.tenure) {
                tenure.confirmed = tenure.confirmed.max(sent.reports);
            }
        }
        let error = || "rebalance in progress".to_owned();
        let result = if fine { Ok(()) } else { Err(error()) };
        self.tell(id, Event::CommitDone { commit, result })
    }

    /// Writes the snapshot that comes with a position, which then refers to it.
    fn keep_snapshot(
        &mut self,
        id: MemberId,
        commit: CommitId,
        position: &mut Position,
    ) -> Checked {
        let todo = std::mem::replace(&mut position.snapshot, Snapshot::Keep);
        let Snapshot::Write { slot, bytes } = todo else {
            return Ok(());
        };
        let reference = Reference {
            slot,
            checksum: snapshot::checksum_of(&bytes),
            place: vec![slot],
        };
        let room = self.weather.config.metadata_bytes;
        let (text, whole) = refer_up_to(position.offset, &reference, std::iter::empty(), room);
        let PartitionId(p) = position.partition;
        let tenure = self.members[id].owned.get(&p);
        let informed = tenure.is_some_and(|tenure| tenure.informed);
        let known = &mut self.partitions[p as usize];
        if informed && known.refers_to_another(&reference) {
            return Err(format!("the snapshot in use of {p} is overwritten"));
        }
        known.snapshots.insert(slot, bytes);
        if !whole || self.strikes(Trouble::RecoveryFails, 20) {
            return Ok(());
        }
        self.seen.snapshots += 1;
        position.metadata = text;
        let (partition, place) = (position.partition, reference.place);
        self.tell(
            id,
            Event::Stored {
                commit,
                partition,
                place,
            },
        )
    }

    /// Tells a member to pause or to go on.
    pub(crate) fn pause(&mut self, id: MemberId, paused: bool) -> Checked {
        self.members[id].paused = paused;
        self.seen.pauses += u64::from(paused);
        let event = if paused { Event::Pause } else { Event::Resume };
        self.tell(id, event)
    }

    /// Tells a member to pause a partition, owned or not, or to go on with it.
    pub(crate) fn pause_partition(&mut self, id: MemberId, partition: u32) -> Checked {
        let paused = &mut self.members[id].paused_partitions;
        let ids = vec![PartitionId(partition)];
        if paused.remove(&partition) {
            return self.tell(id, Event::ResumePartitions(ids));
        }
        paused.insert(partition);
        self.seen.partition_pauses += 1;
        self.tell(id, Event::PausePartitions(ids))
    }

    pub(crate) fn stop(&mut self, id: MemberId) -> Checked {
        self.begin_stop(id);
        self.tell(id, Event::Stop)?;
        self.check_halted(id)
    }

    /// The container stops: told to, or by itself.
    pub(crate) fn begin_stop(&mut self, id: MemberId) {
        self.members[id].stopping = true;
        let owned: Vec<_> = self.members[id].owned.keys().copied().collect();
        self.begin_drain(id, &owned, self.weather.config.stop_drain);
    }
}
