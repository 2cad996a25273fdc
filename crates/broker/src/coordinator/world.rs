//! The world around a coordinator's machine in simulations: a clock, a log of which a crash takes the end, and answers
//! that wait until what they say is durable.
//!
//! A simulation adds who asks what, and what must hold. All that happens is decided by a seed; one that fails is
//! printed, and `ACKWELL_SEED` replays it.

use std::collections::VecDeque;
use std::fmt::Debug;

use super::{Machine, Now, OutputOf, Token};
use crate::fuzz::{Random, setting};

/// A machine, and what it has written.
pub(crate) struct World<M: Machine> {
    pub(crate) random: Random,
    pub(crate) machine: M,
    pub(crate) now: Now,
    begin: fn(Now) -> M,
    log: Vec<M::Change>,
    /// Where the records of each step end: they are one batch, unless they are very many.
    ends: Vec<usize>,
    /// Records up to here are durable; a crash takes of the rest as much as it likes.
    durable: usize,
    /// What goes out, and how much of the log must be durable before.
    held: VecDeque<(usize, Out<M>)>,
    asked: u64,
}

/// What leaves the coordinator.
pub(crate) enum Out<M: Machine> {
    Reply(Token, M::Response),
    Action(M::Action),
}

impl<M: Machine<Change: PartialEq + Debug>> World<M> {
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
            ends: Vec::new(),
            durable: 0,
            held: VecDeque::new(),
            asked: 0,
        }
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
        self.log.extend(output.changes);
        let needs = self.log.len();
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
        self.durable = self.log.len();
    }

    /// The disk has some more of the log.
    pub(crate) fn flush_some(&mut self) {
        self.durable += self.random.below(self.log.len() - self.durable + 1);
    }

    /// The coordinator dies with all that was not durable, or with a part of it, and another one reads back the rest:
    /// from the whole log, or from a snapshot, which gives the same.
    pub(crate) fn crash(&mut self) {
        self.flush_some();
        self.begin_again();
    }

    /// As [`World::crash`], but the records of a step are there or not.
    pub(crate) fn crash_between_steps(&mut self) {
        let durable = self.durable;
        self.flush_some();
        let whole = self.ends.iter().rev().find(|end| **end <= self.durable);
        self.durable = whole.map_or(durable, |whole| durable.max(*whole));
        self.begin_again();
    }

    fn begin_again(&mut self) {
        self.log.truncate(self.durable);
        self.ends.clear();
        self.held.clear();
        self.machine = self.read_back(&self.log);
        let live: Vec<_> = self.machine.live().collect();
        let again = self.read_back(&live);
        let told: Vec<_> = again.live().collect();
        assert_eq!(told, live, "a snapshot is the whole log");
        if self.random.one_in(2) {
            self.durable = live.len();
            (self.log, self.machine) = (live, again);
        }
    }

    fn read_back(&self, log: &[M::Change]) -> M {
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

/// Names the seed that failed.
struct Told(u64);

impl Drop for Told {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("seed {} failed; replay it with ACKWELL_SEED={0}", self.0);
        }
    }
}
