//! The world around a coordinator's machine in simulations: a clock, a log of which a crash takes the end, and answers
//! that wait until what they say is durable.
//!
//! The log is a list in memory, or the coordinator's own on a disk that fails ([`disk`]). A simulation adds who asks what,
//! and what must hold. All that happens is decided by a seed; one that fails is printed, and `ACKWELL_SEED` replays
//! it.

pub(super) mod disk;

use std::collections::VecDeque;
use std::fmt::Debug;
use std::ops::RangeInclusive;

use super::{Machine, Now, OutputOf, Token};
use crate::disk::Fault;
use crate::disk::simulated::{build_in, uninterrupted};
use crate::fuzz::{Random, setting};
use disk::Disk;

/// A machine, and what it has written.
pub(crate) struct World<M: Machine> {
    pub(crate) random: Random,
    pub(crate) machine: M,
    pub(crate) now: Now,
    begin: fn(Now) -> M,
    /// The records from the offset `first` on; a crash that tore one may have left what came behind.
    log: Vec<Option<M::Change>>,
    first: usize,
    /// Where the records of each step end: they are one batch, unless they are very many.
    ends: Vec<usize>,
    /// Records before this offset are durable; a crash takes of the rest as much as it likes.
    durable: usize,
    /// What goes out, and up to which offset the log must be durable before.
    held: VecDeque<(usize, Out<M>)>,
    asked: u64,
    /// Where the log is, if not in memory.
    disk: Option<Disk>,
}

/// What leaves the coordinator.
pub(crate) enum Out<M: Machine> {
    Reply(Token, M::Response),
    Action(M::Action),
}

impl<M: Machine<Change: PartialEq + Debug>> World<M> {
    /// With a log in memory, of which a crash leaves a first part.
    pub(crate) fn new(seed: u64, begin: fn(Now) -> M) -> Self {
        let now = Now {
            tick_ms: 0,
            unix_ms: 1_700_000_000_000,
        };
        Self {
            random: Random::new(seed),
            machine: begin(now),
            now,
            begin,
            log: Vec::new(),
            first: 0,
            ends: Vec::new(),
            durable: 0,
            held: VecDeque::new(),
            asked: 0,
            disk: None,
        }
    }

    /// With a log on a disk, of which a crash leaves what it likes of all that was not forced to it.
    pub(crate) fn on_disk(seed: u64, begin: fn(Now) -> M) -> Self {
        let mut world = Self::new(seed, begin);
        world.disk = Some(Disk::new(&mut world.machine, world.now));
        world
    }

    fn end(&self) -> usize {
        self.first + self.log.len()
    }

    /// Asks; what goes out by that is [`World::out`]'s to tell.
    pub(crate) fn ask(&mut self, request: M::Request) -> Token {
        self.asked += 1;
        let token = Token(self.asked);
        self.machine.on_request(self.now, token, request);
        let output = self.machine.take_output();
        self.hold(output);
        token
    }

    /// Turns the clock on to the next thing that is due, or to `until`; whether there was something.
    pub(crate) fn tick(&mut self, until: u64) -> bool {
        let due = self.machine.deadline();
        self.turn_to(due.min(until));
        if due > until {
            return false;
        }
        self.machine.on_tick(self.now);
        let output = self.machine.take_output();
        self.hold(output);
        true
    }

    fn turn_to(&mut self, tick_ms: u64) {
        let passed = tick_ms.saturating_sub(self.now.tick_ms);
        self.now = Now {
            tick_ms: self.now.tick_ms + passed,
            unix_ms: self.now.unix_ms + passed as i64,
        };
    }

    fn hold(&mut self, output: OutputOf<M>) {
        if let Some(disk) = &mut self.disk {
            disk.append(&output.changes, self.now);
        }
        self.log.extend(output.changes.into_iter().map(Some));
        let needs = self.end();
        self.ends.push(needs);
        let actions = output.actions.into_iter().map(Out::Action);
        let replies = output.replies.into_iter();
        let replies = replies.map(|(token, response)| Out::Reply(token, response));
        self.held
            .extend(actions.chain(replies).map(|out| (needs, out)));
    }

    /// What goes out next, if what it says is durable or promises nothing.
    pub(crate) fn out(&mut self) -> Option<Out<M>> {
        let free = |(needs, out): &(usize, Out<M>)| {
            let promises = !matches!(out, Out::Reply(_, response) if !M::is_promise(response));
            *needs <= self.durable || !promises
        };
        let next = self.held.iter().position(free)?;
        self.held.remove(next).map(|(_, out)| out)
    }

    /// Whether something waits to go out.
    pub(crate) fn is_holding(&self) -> bool {
        !self.held.is_empty()
    }

    /// The disk has all of the log.
    pub(crate) fn flush(&mut self) {
        self.durable = self.end();
        if self.disk.is_none() {
            return;
        }
        if let Some(begins) = uninterrupted(|| self.write_to_disk()) {
            self.log.drain(..begins - self.first);
            self.first = begins;
        }
    }

    /// The disk has some more of the log.
    pub(crate) fn flush_some(&mut self) {
        match self.disk {
            Some(_) if self.random.one_in(2) => self.flush(),
            Some(_) => {}
            None => self.durable += self.random.below(self.end() - self.durable + 1),
        }
    }

    /// Forces all to the disk, perhaps with the live state anew; where the log begins then, if that has changed.
    fn write_to_disk(&mut self) -> Option<usize> {
        let disk = self.disk.as_mut()?;
        if self.random.one_in(2) && disk.snapshot(&self.machine, self.now) {
            self.log.extend(self.machine.live().map(Some));
            self.durable = self.first + self.log.len();
        }
        disk.flush()
    }

    /// The coordinator dies with all that was not durable, or with a part of it, and another one reads back the rest:
    /// from the whole log, or from a snapshot, which gives the same.
    pub(crate) fn crash(&mut self) {
        if self.disk.is_some() {
            return self.crash_on_disk();
        }
        self.flush_some();
        self.begin_again();
    }

    /// As [`World::crash`], but the records of a step are there or not.
    pub(crate) fn crash_between_steps(&mut self) {
        if self.disk.is_some() {
            // A step is a batch there.
            return self.crash_on_disk();
        }
        let durable = self.durable;
        self.flush_some();
        let whole = self.ends.iter().rev().find(|end| **end <= self.durable);
        self.durable = whole.map_or(durable, |whole| durable.max(*whole));
        self.begin_again();
    }

    fn begin_again(&mut self) {
        self.log.truncate(self.durable);
        self.machine = self.read_back(self.log.iter().flatten());
        self.check_snapshot();
        if self.random.one_in(2) {
            self.log = self.machine.live().map(Some).collect();
            self.durable = self.log.len();
            self.machine = self.read_back(self.log.iter().flatten());
        }
        self.ends.clear();
        self.held.clear();
    }

    /// The power fails, or the process is killed, perhaps while it writes to the disk.
    fn crash_on_disk(&mut self) {
        let durable = self.durable;
        let begins = match self.random.one_in(2) {
            true => self.write_to_disk().unwrap_or(self.first),
            false => self.first,
        };
        let Some(disk) = self.disk.take() else { return };
        let mut machine = (self.begin)(self.now);
        let disk = disk.fail(&mut self.random, &mut machine, self.now);
        self.machine = machine;
        self.take_up(disk.records(), durable, disk.begins()..=begins, disk.ends());
        let again = self.read_back(self.log.iter().flatten());
        let live: Vec<_> = self.machine.live().collect();
        assert_eq!(again.live().collect::<Vec<_>>(), live);
        self.check_snapshot();
        self.disk = Some(disk);
        self.ends.clear();
        self.held.clear();
    }

    /// All that was durable is there, and nothing else than what was written.
    fn take_up(
        &mut self,
        left: Vec<(usize, M::Change)>,
        durable: usize,
        begins: RangeInclusive<usize>,
        end: usize,
    ) {
        let start = *begins.start();
        assert!(
            self.first <= start && !begins.is_empty(),
            "it begins at {start}"
        );
        let mut log: Vec<_> = (start..end).map(|_| None).collect();
        for (offset, change) in left {
            let written = self.log[offset - self.first].as_ref();
            assert_eq!(written, Some(&change), "at {offset}");
            log[offset - start] = Some(change);
        }
        let written = self.log.iter().skip(start - self.first).zip(&log);
        let mut of_durable = written.take(durable.saturating_sub(start));
        let lost = of_durable.position(|(written, left)| written.is_some() && left.is_none());
        assert_eq!(lost, None, "from {start}, durable up to {durable}");
        assert!(end >= durable);
        (self.log, self.first, self.durable) = (log, start, end);
    }

    fn check_snapshot(&self) {
        let live: Vec<_> = self.machine.live().collect();
        let told: Vec<_> = self.read_back(&live).live().collect();
        assert_eq!(told, live, "a snapshot is the whole log");
    }

    fn read_back<'a>(&self, log: impl IntoIterator<Item = &'a M::Change>) -> M {
        let mut machine = (self.begin)(self.now);
        for change in log {
            machine.replay(change.clone());
        }
        machine.replay_done(self.now);
        machine
    }
}

/// Simulates one seed after the other; what each of them counted.
pub(crate) fn each_seed<T>(seeds: u64, simulate: impl Fn(u64) -> T) -> Vec<T> {
    let seeds = match setting("ACKWELL_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..seeds,
    };
    let simulate = |seed| {
        let _told = Told(seed);
        simulate(seed)
    };
    seeds.map(simulate).collect()
}

/// Whether a simulation fails for some seed on a disk that does not keep what it was told to.
pub(crate) fn notices_a_bad_disk(simulate: fn(u64)) -> bool {
    let notices = move || {
        build_in(Some(Fault::UnsyncedFiles));
        (0..100).any(|seed| std::panic::catch_unwind(|| simulate(seed)).is_err())
    };
    std::thread::spawn(notices).join().unwrap()
}

/// Names the seed that failed.
struct Told(u64);

impl Drop for Told {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("seed {} failed; replay it with ACKWELL_SEED={0}", self.0);
        }
    }
}
