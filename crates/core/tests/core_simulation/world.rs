//! The schedule: what happens when, to whom.

use std::cmp::{Ordering, Reverse};
use std::collections::{BTreeMap, BinaryHeap};
use std::fmt::Debug;

use ackwell_core::engine::{self, CommitId, PartitionId, RunId};
use ackwell_core::{Class, Concurrency, Timestamp};

use crate::acks::Verdict;
use crate::broker::Partition;
use crate::checker::{Checked, Checker, MemberId};
use crate::dice::Dice;
use crate::handlers::Recovering;
use crate::member::{Member, Record};
use crate::seen::Seen;
use crate::shell::Sent;
use crate::weather::{Limits, Trouble, Weather};

pub(crate) type Event = engine::Event<Record>;
pub(crate) type Effect = engine::Effect<Record>;

/// How long after the faults everything must be settled and committed, in milliseconds.
const END_AFTER: u64 = 36_000;
/// Records of one poll, at most.
pub(crate) const POLL_RECORDS: usize = 40;
/// Ticks in a row that are due at once and change nothing.
const SPINS: u32 = 5;

#[derive(Debug)]
pub(crate) enum Happening {
    Poll(MemberId),
    Tick(MemberId),
    HandlerEnds(MemberId, RunId),
    Cancelled(MemberId, RunId),
    Recovered(MemberId, RunId, Recovering),
    Acknowledges(MemberId, RunId, usize, Verdict),
    ReportsAcks(MemberId, RunId),
    Closes(MemberId, RunId),
    Begins(MemberId, RunId),
    Retried(MemberId, RunId),
    Announced(MemberId, u32, u64),
    CommitArrives(MemberId, CommitId, Vec<Sent>),
    CommitAnswered(MemberId, CommitId, bool, Vec<Sent>),
    ToldLost(MemberId, u32),
    SessionEnds(MemberId),
    Rebalance,
    Deal,
    Chaos,
}

/// What happens at a time; of two at the same time, the one that was scheduled first.
struct Scheduled {
    at: u64,
    sequence: u64,
    happening: Happening,
}

impl Ord for Scheduled {
    fn cmp(&self, other: &Self) -> Ordering {
        (self.at, self.sequence).cmp(&(other.at, other.sequence))
    }
}

impl PartialOrd for Scheduled {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Scheduled {
    fn eq(&self, other: &Self) -> bool {
        self.sequence == other.sequence
    }
}

impl Eq for Scheduled {}

pub(crate) struct World {
    pub now: u64,
    pub dice: Dice,
    pub weather: Weather,
    queue: BinaryHeap<Reverse<Scheduled>>,
    sequence: u64,
    pub partitions: Vec<Partition>,
    pub members: Vec<Member>,
    pub checker: Checker,
    pub outage: bool,
    /// How records fail that fail by plan.
    pub plans: BTreeMap<(u32, i64), Plan>,
    pub seen: Seen,
    /// Tenures are numbered.
    pub numbers: u64,
    /// When partitions without an owner are dealt next.
    pub deal_at: Option<u64>,
    trace: Option<Vec<String>>,
}

/// How a record fails.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Plan {
    Transient(u32),
    Always(Class),
}

impl World {
    pub(crate) fn new(seed: u64, limits: &Limits) -> Self {
        let mut dice = Dice::new(seed);
        let weather = Weather::new(&mut dice, limits);
        // Each retry topic has the partitions of its origin.
        let topics = 1 + weather.config.retry_topics.len() as u64;
        let partitions = weather.partitions * topics;
        let by_key =
            weather.config.concurrency != Concurrency::ByPartition || weather.config.ordered;
        World {
            now: 0,
            queue: BinaryHeap::new(),
            sequence: 0,
            partitions: (0..partitions).map(|_| Partition::default()).collect(),
            members: Vec::new(),
            checker: Checker::new(partitions, by_key, weather.config.commit.is_manual()),
            outage: false,
            plans: BTreeMap::new(),
            seen: Seen::default(),
            numbers: 0,
            deal_at: None,
            trace: None,
            weather,
            dice,
        }
    }

    pub(crate) fn run(mut self) -> Result<Seen, String> {
        self.play()?;
        Ok(self.seen)
    }

    /// The violation and what came before it, if there is one.
    pub(crate) fn traced(&mut self) -> Option<(String, Vec<String>)> {
        self.trace = Some(Vec::new());
        let violation = self.play().err()?;
        Some((violation, self.trace.take().unwrap_or_default()))
    }

    fn play(&mut self) -> Checked {
        for _ in 0..self.weather.members {
            self.join();
        }
        self.produce();
        self.at(1, Happening::Rebalance);
        self.at(5, Happening::Chaos);
        let end = self.weather.calm_at + END_AFTER;
        while let Some(Reverse(Scheduled { at, happening, .. })) = self.queue.pop() {
            self.now = at;
            if at > end || self.is_done() {
                break;
            }
            if !matches!(happening, Happening::Poll(_)) {
                self.trace(|| format!("{happening:?}"));
            }
            self.happen(happening)
                .map_err(|violation| format!("at {at} ms: {violation}"))?;
        }
        self.seen.modelled_millis = self.now;
        if self.is_done() {
            Ok(())
        } else {
            Err(self.stalled())
        }
    }

    fn trace(&mut self, what: impl FnOnce() -> String) {
        let now = self.now;
        if let Some(trace) = &mut self.trace {
            trace.push(format!("{now:>6}  {}", what()));
        }
    }

    pub(crate) fn trace_member(&mut self, id: MemberId, sign: &str, what: &impl Debug) {
        self.trace(|| format!("  member {id} {sign} {what:?}"));
    }

    fn stalled(&self) -> String {
        let partitions = self.partitions.iter();
        let committed: Vec<_> = partitions.map(|p| (&p.committed, p.end, p.owner)).collect();
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
        self.calm()
            && self.checker.unsettled() == 0
            && self.partitions.iter().all(committed)
            && self.members.iter().all(healthy)
    }

    pub(crate) fn calm(&self) -> bool {
        self.now > self.weather.calm_at
    }

    /// Whether a trouble strikes now, `chance` times in a hundred.
    pub(crate) fn strikes(&mut self, trouble: Trouble, chance: u64) -> bool {
        let chance = (chance * self.weather.force).min(60);
        !self.calm() && self.weather.has(trouble) && self.dice.percent(chance)
    }

    pub(crate) fn at(&mut self, wait: u64, happening: Happening) {
        self.sequence += 1;
        self.queue.push(Reverse(Scheduled {
            at: self.now + wait,
            sequence: self.sequence,
            happening,
        }));
    }

    fn happen(&mut self, happening: Happening) -> Checked {
        match happening {
            Happening::Poll(member) => self.poll(member),
            Happening::Tick(member) => self.tick(member),
            Happening::HandlerEnds(member, run) => self.handler_ends(member, run),
            Happening::Cancelled(member, run) => self.cancelled(member, run),
            Happening::Recovered(member, run, recovering) => {
                self.recovered(member, run, recovering)
            }
            Happening::Acknowledges(member, run, place, verdict) => {
                self.acknowledges(member, run, place, verdict)
            }
            Happening::ReportsAcks(member, run) => self.report_acks(member, run),
            Happening::Closes(member, run) => self.closes(member, run),
            Happening::Begins(member, run) => self.start_next(member, run),
            Happening::Retried(member, run) => self.retry_ends(member, run, false),
            Happening::Announced(member, partition, assignment) => {
                self.announced(member, partition, assignment)
            }
            Happening::CommitArrives(member, id, positions) => {
                self.commit_arrives(member, id, positions)
            }
            Happening::CommitAnswered(member, commit, fine, positions) => {
                self.commit_answered(member, commit, fine, &positions)
            }
            Happening::ToldLost(member, partition) => {
                self.members[member].owned.remove(&partition);
                self.tell(member, Event::Lost(vec![PartitionId(partition)]))
            }
            Happening::SessionEnds(member) => self.session_ends(member),
            Happening::Rebalance => self.rebalance(),
            Happening::Deal => self.deal(),
            Happening::Chaos => self.chaos(),
        }
    }

    pub(crate) fn join(&mut self) {
        let mut config = self.weather.config.clone();
        config.seed = self.dice.next();
        self.members.push(Member::new(config));
        self.at(1, Happening::Poll(self.members.len() - 1));
    }

    fn tick(&mut self, id: MemberId) -> Checked {
        let member = &mut self.members[id];
        if member.tick_at != Some(self.now) {
            return Ok(());
        }
        member.tick_at = None;
        let now = Timestamp::from_millis(self.now as i64);
        let due = |member: &Member| member.engine.deadline().is_some_and(|at| at <= now);
        if !due(member) {
            self.schedule_tick(id);
            return Ok(());
        }
        let effects = self.tell_counted(id, Event::Tick)?;
        let member = &mut self.members[id];
        let spins = member.alive && effects == 0 && due(member);
        member.spins = if spins { member.spins + 1 } else { 0 };
        if member.spins > SPINS {
            return Err(format!("member {id} is due again and again for nothing"));
        }
        Ok(())
    }

    /// Tells a container something and carries out what it asks for.
    pub(crate) fn tell(&mut self, id: MemberId, event: Event) -> Checked {
        self.tell_counted(id, event).map(|_| ())
    }

    /// The same; gives how much it asked for.
    fn tell_counted(&mut self, id: MemberId, event: Event) -> Result<u64, String> {
        if !self.members[id].alive {
            return Ok(0);
        }
        self.trace_member(id, "<-", &event);
        let now = Timestamp::from_millis(self.now as i64);
        self.members[id].engine.on_event(now, event);
        let mut effects = 0;
        while let Some(effect) = self.members[id].engine.poll_effect() {
            effects += 1;
            self.trace_member(id, "->", &effect);
            self.act(id, effect)?;
        }
        self.check_state(id)?;
        self.schedule_tick(id);
        Ok(effects)
    }

    fn schedule_tick(&mut self, id: MemberId) {
        let member = &mut self.members[id];
        let Some(deadline) = member.engine.deadline() else {
            return;
        };
        let at = (deadline.as_millis().max(0) as u64).max(self.now + 1);
        if member.tick_at.is_none_or(|known| at < known) {
            member.tick_at = Some(at);
            self.at(at - self.now, Happening::Tick(id));
        }
    }
}
