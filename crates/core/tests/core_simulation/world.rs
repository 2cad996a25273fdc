//! The schedule: what happens when, to whom.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use ackwell_core::engine::{CommitId, Config, End, Failure, PartitionId, Position, RunId};
use ackwell_core::offset::CommitOffset;
use ackwell_core::{Class, Concurrency, Timestamp};

use crate::brain::{Brain, Effect, Event, Record, Tampering};
use crate::broker::Partition;
use crate::chaos::config;
use crate::checker::{Checked, Checker, MemberId};
use crate::dice::Dice;
use crate::member::{Member, Run};

/// When faults end, in milliseconds.
const CALM_AT: u64 = 4_000;
/// When everything must be settled and committed.
const END_AT: u64 = 40_000;

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Happening {
    Poll(MemberId),
    Tick(MemberId, u64),
    HandlerEnds(MemberId, RunId),
    Cancelled(MemberId, RunId),
    Recovered(MemberId, RunId, u32, i64),
    CommitArrives(MemberId, CommitId, Vec<(u32, i64, String)>),
    CommitAnswered(MemberId, CommitId, bool),
    ToldLost(MemberId, u32),
    SessionEnds(MemberId),
    Rebalance,
    Deal,
    Chaos,
}

/// How often the rare things happened, to see that they do.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Seen {
    pub handled: u64,
    pub retries: u64,
    pub dead_letters: u64,
    pub outages: u64,
    pub crashes: u64,
    pub handovers: u64,
    pub losses: u64,
    pub lost_replies: u64,
    pub cancelled: u64,
    pub metadata: u64,
    pub rewinds: u64,
    pub stops: u64,
}

pub(crate) struct World {
    pub now: u64,
    pub dice: Dice,
    queue: BinaryHeap<Reverse<(u64, u64, Happening)>>,
    sequence: u64,
    pub partitions: Vec<Partition>,
    pub members: Vec<Member>,
    pub checker: Checker,
    pub config: Config,
    tampering: Tampering,
    pub outage: bool,
    /// How often each record has failed; a record with a plan fails by it.
    pub plans: BTreeMap<(u32, i64), Plan>,
    pub seen: Seen,
}

/// How a record fails.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Plan {
    Transient(u32),
    Always(Class),
}

impl World {
    pub(crate) fn new(seed: u64, tampering: Tampering) -> Self {
        let mut dice = Dice::new(seed);
        let config = config(&mut dice);
        let by_key = config.concurrency != Concurrency::ByPartition;
        let partitions = (0..dice.in_range(1, 4))
            .map(|_| Partition::default())
            .collect();
        World {
            now: 0,
            queue: BinaryHeap::new(),
            sequence: 0,
            partitions,
            members: Vec::new(),
            checker: Checker::new(by_key),
            config,
            tampering,
            outage: false,
            plans: BTreeMap::new(),
            seen: Seen::default(),
            dice,
        }
    }

    pub(crate) fn run(mut self) -> Result<Seen, String> {
        for _ in 0..self.dice.in_range(1, 3) {
            self.join();
        }
        self.produce(40);
        self.at(1, Happening::Rebalance);
        self.at(5, Happening::Chaos);
        while let Some(Reverse((at, _, happening))) = self.queue.pop() {
            self.now = at;
            if at > END_AT || self.is_done() {
                break;
            }
            self.happen(happening)
                .map_err(|violation| format!("at {at} ms: {violation}"))?;
        }
        if self.is_done() {
            Ok(self.seen)
        } else {
            Err(self.stalled())
        }
    }

    fn stalled(&self) -> String {
        let committed: Vec<_> = self
            .partitions
            .iter()
            .map(|p| (&p.committed, p.end, p.owner))
            .collect();
        let living = self.members.iter().filter(|member| member.alive);
        let problems: Vec<_> = living
            .filter_map(|member| member.problem.as_ref())
            .collect();
        format!(
            "stalled: {} unsettled, {committed:?}, problems {problems:?}",
            self.checker.unsettled()
        )
    }

    fn is_done(&self) -> bool {
        let committed = |p: &Partition| match &p.committed {
            Some((position, _)) => position.0 == p.end,
            None => p.log.is_empty(),
        };
        let healthy = |member: &Member| !member.alive || member.problem.is_none();
        self.now > CALM_AT
            && self.checker.unsettled() == 0
            && self.partitions.iter().all(committed)
            && self.members.iter().all(healthy)
    }

    pub(crate) fn calm(&self) -> bool {
        self.now > CALM_AT
    }

    pub(crate) fn at(&mut self, wait: u64, happening: Happening) {
        self.sequence += 1;
        self.queue
            .push(Reverse((self.now + wait, self.sequence, happening)));
    }

    fn happen(&mut self, happening: Happening) -> Checked {
        match happening {
            Happening::Poll(member) => self.poll(member),
            Happening::Tick(member, tick) if self.members[member].tick == tick => {
                self.tell(member, Event::Tick)
            }
            Happening::Tick(..) => Ok(()),
            Happening::HandlerEnds(member, run) => self.handler_ends(member, run),
            Happening::Cancelled(member, run) => self.cancelled(member, run),
            Happening::Recovered(member, run, p, offset) => self.recovered(member, run, p, offset),
            Happening::CommitArrives(member, id, positions) => {
                self.commit_arrives(member, id, positions)
            }
            Happening::CommitAnswered(member, commit, fine) => {
                let result = if fine {
                    Ok(())
                } else {
                    Err("rebalance in progress".to_owned())
                };
                self.tell(member, Event::CommitDone { commit, result })
            }
            Happening::ToldLost(member, partition) => {
                self.members[member].owned.remove(&partition);
                self.members[member].lost.retain(|lost| *lost != partition);
                self.tell(member, Event::Lost(vec![PartitionId(partition)]))
            }
            Happening::SessionEnds(member) => self.session_ends(member),
            Happening::Rebalance => self.rebalance(),
            Happening::Deal => self.deal(),
            Happening::Chaos => self.chaos(),
        }
    }

    pub(crate) fn join(&mut self) -> MemberId {
        let mut config = self.config.clone();
        config.seed = self.dice.next();
        self.members
            .push(Member::new(Brain::new(config, self.tampering)));
        let member = self.members.len() - 1;
        self.at(1, Happening::Poll(member));
        member
    }

    pub(crate) fn produce(&mut self, count_max: u64) {
        for id in 0..self.partitions.len() {
            let count = self.dice.in_range(0, count_max);
            for record in self.partitions[id].append(&mut self.dice, count) {
                let place = (id as u32, record.offset);
                self.checker.produced(place.0, &record);
                let plan = match self.dice.in_range(0, 99) {
                    0..8 => Plan::Transient(self.dice.in_range(1, 6) as u32),
                    8..11 => Plan::Always(Class::Permanent),
                    11..14 => Plan::Always(Class::Skip),
                    14..15 if self.dice.percent(20) => Plan::Always(Class::Stop),
                    _ => continue,
                };
                self.plans.insert(place, plan);
            }
        }
    }

    /// Tells a container something and carries out what it asks for.
    pub(crate) fn tell(&mut self, id: MemberId, event: Event) -> Checked {
        if !self.members[id].alive {
            return Ok(());
        }
        let now = Timestamp::from_millis(self.now as i64);
        self.members[id].brain.on_event(now, event);
        while let Some(effect) = self.members[id].brain.poll_effect() {
            self.act(id, effect)?;
        }
        let member = &mut self.members[id];
        member.tick += 1;
        let (tick, deadline) = (member.tick, member.brain.deadline());
        if let Some(at) = deadline {
            let wait = (at.as_millis().max(0) as u64).saturating_sub(self.now);
            self.at(wait.max(1), Happening::Tick(id, tick));
        }
        Ok(())
    }

    fn act(&mut self, id: MemberId, effect: Effect) -> Checked {
        match effect {
            Effect::Dispatch {
                run,
                partition,
                attempt,
                records,
                ..
            } => {
                let records = records.into();
                let new = Run {
                    partition: partition.0,
                    records,
                    attempt,
                    halted: false,
                    in_work: false,
                    unreported: 0,
                };
                self.members[id].runs.insert(run, new);
                self.start_next(id, run)
            }
            Effect::Halt { run } => {
                if let Some(run) = self.members[id].runs.get_mut(&run) {
                    run.halted = true;
                }
                Ok(())
            }
            Effect::Cancel { run } => {
                let wait = self.dice.in_range(0, 3);
                self.at(wait, Happening::Cancelled(id, run));
                Ok(())
            }
            Effect::Recover {
                recovery,
                partition,
                record,
                ..
            } => {
                let wait = self.dice.in_range(1, 30);
                self.at(
                    wait,
                    Happening::Recovered(id, recovery, partition.0, record.offset),
                );
                Ok(())
            }
            Effect::Commit { commit, positions } => {
                let plain = |p: Position| (p.partition.0, p.offset.0, p.metadata);
                let positions = positions.into_iter().map(plain).collect();
                let wait = self.dice.in_range(0, 10);
                self.at(wait, Happening::CommitArrives(id, commit, positions));
                Ok(())
            }
            Effect::Pause(ids) => self.set_paused(id, &ids, true),
            Effect::Resume(ids) => self.set_paused(id, &ids, false),
            Effect::Seek { partition, to } => {
                if let Some(fetching) = self.members[id].owned.get_mut(&partition.0) {
                    fetching.position = to.0;
                }
                Ok(())
            }
            Effect::Flush(ids) => self.tell(id, Event::Flushed(ids)),
            Effect::RevokeDone(ids) => self.revoke_done(id, &ids),
            Effect::Stopped { .. } => {
                self.seen.stops += 1;
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
        }
    }

    fn set_paused(&mut self, id: MemberId, ids: &[PartitionId], paused: bool) -> Checked {
        for partition in ids {
            if let Some(fetching) = self.members[id].owned.get_mut(&partition.0) {
                fetching.paused = paused;
            }
        }
        Ok(())
    }

    fn poll(&mut self, id: MemberId) -> Checked {
        if !self.members[id].alive {
            return Ok(());
        }
        let wait = self.dice.in_range(1, 20);
        self.at(wait, Happening::Poll(id));
        let owned: Vec<_> = self.members[id].owned.keys().copied().collect();
        for partition in owned {
            let count = self.dice.in_range(1, 40) as usize;
            let Some(fetching) = self.members[id].owned.get_mut(&partition) else {
                continue;
            };
            if fetching.paused {
                continue;
            }
            let (records, next) =
                self.partitions[partition as usize].fetch(fetching.position, count);
            if records.is_empty() && next == fetching.position {
                continue;
            }
            fetching.position = next;
            let (partition, next) = (PartitionId(partition), CommitOffset(next));
            self.tell(
                id,
                Event::Polled {
                    partition,
                    records,
                    next,
                },
            )?;
        }
        Ok(())
    }

    /// The worker of a run begins its next record, or ends.
    fn start_next(&mut self, id: MemberId, run_id: RunId) -> Checked {
        let Some(run) = self.members[id].runs.get_mut(&run_id) else {
            return Ok(());
        };
        if run.records.is_empty() {
            self.members[id].runs.remove(&run_id);
            return self.tell(
                id,
                Event::Finished {
                    run: run_id,
                    end: End::Complete,
                },
            );
        }
        if run.halted {
            return self.interrupted(id, run_id);
        }
        run.in_work = true;
        let (partition, record) = (run.partition, run.records[0].clone());
        let owner = self.partitions[partition as usize].owner == Some(id);
        self.checker.begin(partition, &record, id, owner)?;
        let slow = self.dice.percent(3);
        let wait = self.dice.in_range(0, if slow { 1_500 } else { 6 });
        self.at(wait, Happening::HandlerEnds(id, run_id));
        Ok(())
    }

    fn interrupted(&mut self, id: MemberId, run_id: RunId) -> Checked {
        let Some(run) = self.members[id].runs.remove(&run_id) else {
            return Ok(());
        };
        let rest = run.records.into();
        self.tell(
            id,
            Event::Finished {
                run: run_id,
                end: End::Cancelled { rest },
            },
        )
    }

    fn handler_ends(&mut self, id: MemberId, run_id: RunId) -> Checked {
        if !self.members[id].alive {
            return Ok(());
        }
        let Some(run) = self.members[id].runs.get_mut(&run_id) else {
            return Ok(());
        };
        let (partition, attempt) = (run.partition, run.attempt);
        let Some(record) = run.records.pop_front() else {
            return Ok(());
        };
        run.attempt = 1;
        run.in_work = false;
        self.checker.end(partition, record.offset, id);
        match self.outcome(partition, &record, attempt) {
            None => self.handled(id, run_id, partition, record),
            Some(class) => {
                if class == Class::Skip {
                    self.checker.settle(partition, record.offset);
                }
                let Some(run) = self.members[id].runs.remove(&run_id) else {
                    return Ok(());
                };
                let failure = Failure::new(class, "by plan");
                let end = End::Failed {
                    failure,
                    record,
                    rest: run.records.into(),
                };
                self.tell(id, Event::Finished { run: run_id, end })
            }
        }
    }

    fn handled(&mut self, id: MemberId, run_id: RunId, partition: u32, record: Record) -> Checked {
        self.seen.handled += 1;
        self.checker.settle(partition, record.offset);
        let report = self.dice.percent(40);
        let Some(run) = self.members[id].runs.get_mut(&run_id) else {
            return Ok(());
        };
        run.unreported += 1;
        // What is not reported by the end is settled by the end.
        if report && !run.records.is_empty() {
            let settled = std::mem::take(&mut run.unreported);
            self.tell(
                id,
                Event::Progress {
                    run: run_id,
                    settled,
                },
            )?;
        }
        self.start_next(id, run_id)
    }
}

impl World {
    /// How handling a record ends.
    fn outcome(&mut self, partition: u32, record: &Record, attempt: u32) -> Option<Class> {
        if self.outage && self.dice.percent(95) {
            return Some(Class::Unavailable);
        }
        let place = (partition, record.offset);
        match self.plans.get(&place).copied() {
            Some(Plan::Transient(failures)) if attempt <= failures => Some(Class::Transient),
            Some(Plan::Always(Class::Stop)) => {
                self.plans.remove(&place);
                (!self.calm()).then_some(Class::Stop)
            }
            Some(Plan::Always(class)) => Some(class),
            Some(Plan::Transient(_)) | None => {
                (!self.calm() && self.dice.percent(2)).then_some(Class::Transient)
            }
        }
    }

    fn cancelled(&mut self, id: MemberId, run_id: RunId) -> Checked {
        let Some(run) = self.members[id].runs.get_mut(&run_id) else {
            return Ok(());
        };
        self.seen.cancelled += 1;
        if run.in_work {
            let (partition, offset) = (run.partition, run.records[0].offset);
            self.checker.end(partition, offset, id);
        }
        self.interrupted(id, run_id)
    }

    fn recovered(&mut self, id: MemberId, recovery: RunId, partition: u32, offset: i64) -> Checked {
        if !self.members[id].alive {
            return Ok(());
        }
        let fails = !self.calm() && self.dice.percent(30);
        if !fails {
            self.seen.dead_letters += 1;
            self.checker.settle(partition, offset);
        }
        let result = if fails {
            Err("no broker".to_owned())
        } else {
            Ok(())
        };
        self.tell(id, Event::Recovered { recovery, result })
    }

    fn commit_arrives(
        &mut self,
        id: MemberId,
        commit: CommitId,
        positions: Vec<(u32, i64, String)>,
    ) -> Checked {
        let refused = !self.calm() && self.dice.percent(5);
        // A member that has lost a partition is fenced by its generation.
        let fenced = positions
            .iter()
            .any(|(p, ..)| self.partitions[*p as usize].owner != Some(id));
        if !refused && !fenced && self.members[id].alive {
            for (partition, position, metadata) in positions {
                let position = CommitOffset(position);
                self.checker.committed(partition, position, &metadata)?;
                self.seen.metadata += u64::from(!metadata.is_empty());
                self.partitions[partition as usize].committed = Some((position, metadata));
            }
        }
        if !self.calm() && self.dice.percent(5) {
            self.seen.lost_replies += 1;
            return Ok(());
        }
        let wait = self.dice.in_range(0, 10);
        self.at(
            wait,
            Happening::CommitAnswered(id, commit, !refused && !fenced),
        );
        Ok(())
    }
}

impl Seen {
    pub(crate) fn add(&mut self, other: &Seen) {
        for (sum, (_, more)) in self.counts_mut().into_iter().zip(other.counts()) {
            *sum += more;
        }
    }

    /// What never happened.
    pub(crate) fn never(&self) -> Vec<&'static str> {
        self.counts()
            .into_iter()
            .filter(|(_, count)| *count == 0)
            .map(|(name, _)| name)
            .collect()
    }

    fn counts(&self) -> [(&'static str, u64); 12] {
        [
            ("handled", self.handled),
            ("retries", self.retries),
            ("dead letters", self.dead_letters),
            ("outages", self.outages),
            ("crashes", self.crashes),
            ("handovers", self.handovers),
            ("losses", self.losses),
            ("lost replies", self.lost_replies),
            ("cancelled", self.cancelled),
            ("metadata", self.metadata),
            ("rewinds", self.rewinds),
            ("stops", self.stops),
        ]
    }

    fn counts_mut(&mut self) -> [&mut u64; 12] {
        [
            &mut self.handled,
            &mut self.retries,
            &mut self.dead_letters,
            &mut self.outages,
            &mut self.crashes,
            &mut self.handovers,
            &mut self.losses,
            &mut self.lost_replies,
            &mut self.cancelled,
            &mut self.metadata,
            &mut self.rewinds,
            &mut self.stops,
        ]
    }
}
