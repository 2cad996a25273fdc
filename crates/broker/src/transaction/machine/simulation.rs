//! Producers that work, die and come back, zombies among them, a coordinator that crashes and
//! replays, in an order that a seed decides. Half of the producers have an epoch for each transaction
//! (KIP-890), lose answers and ask again, and send batches that arrive late; the epochs of one id are
//! soon used up.
//!
//! What must hold, whatever happens: the records of a transaction count in all partitions or in
//! none; a commit that was acknowledged counts, an abort does not; nobody writes into another's
//! transaction; in the end no transaction is open; and what a replay gives is what was there.

use std::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::coordinator::Machine as _;
use crate::coordinator::world::{Out, World, each_seed, notices_a_bad_disk};

const PARTITIONS: i32 = 3;
const STEPS: usize = 500;
const SEEDS: u64 = 400;
const SEEDS_ON_DISK: u64 = 15;
const TIMEOUT_MS: i32 = 5_000;

/// Names a transaction: who began it, and its how-manieth it is.
type Name = (usize, u64);

/// A process with a transactional id. Two neighbours share each id, so one is a zombie at times.
#[derive(Debug, Default)]
struct Process {
    id: StrBytes,
    producer: Option<ProducerEpoch>,
    /// Each of its transactions has an epoch of its own.
    own_epochs: bool,
    /// How often it began anew.
    life: u64,
    /// What it sent in the transaction before may still be on its way.
    late: Option<(ProducerEpoch, Name)>,
    count: u64,
    open: bool,
    reached: BTreeSet<i32>,
    asked: Option<(Token, Asked, u64)>,
}

#[derive(Debug, Clone, PartialEq)]
enum Asked {
    Init,
    Add(BTreeSet<i32>),
    End(Verdict),
}

/// A partition, as the log keeps it: what was written, and who may begin.
#[derive(Debug, Default)]
struct Partition {
    epochs: BTreeMap<i64, i16>,
    admitted: BTreeMap<i64, i16>,
    open: BTreeMap<i64, BTreeSet<Name>>,
    committed: BTreeSet<Name>,
    aborted: BTreeSet<Name>,
}

impl Partition {
    fn write(&mut self, producer: ProducerEpoch, name: Name) -> bool {
        let epoch = self.epochs.get(&producer.id).copied().unwrap_or(-1);
        let goes_on = self.open.contains_key(&producer.id) && epoch == producer.epoch;
        let may = goes_on || self.admitted.get(&producer.id) == Some(&producer.epoch);
        if producer.epoch < epoch || !may {
            return false;
        }
        self.epochs.insert(producer.id, producer.epoch);
        self.open.entry(producer.id).or_default().insert(name);
        true
    }

    fn end(&mut self, producer: ProducerEpoch, verdict: Verdict) {
        if self.epochs.get(&producer.id) > Some(&producer.epoch) {
            return;
        }
        self.epochs.insert(producer.id, producer.epoch);
        self.admitted.remove(&producer.id);
        let names = self.open.remove(&producer.id).unwrap_or_default();
        match verdict {
            Verdict::Commit => self.committed.extend(names),
            Verdict::Abort => self.aborted.extend(names),
        }
    }
}

struct Simulation {
    world: World<Machine>,
    /// Ends on their way: each partition is told in its own time.
    ending: Vec<(Action, BTreeSet<i32>)>,
    partitions: BTreeMap<i32, Partition>,
    processes: Vec<Process>,
    /// The last producer id that was given out.
    fresh: i64,
    /// Which life of whom was given an epoch.
    given: BTreeMap<ProducerEpoch, (usize, u64)>,
    /// New producer ids, because the epochs of one were used up.
    rotated: usize,
    /// Answers that got lost on the way.
    lost: usize,
    acknowledged: BTreeMap<Name, (Verdict, BTreeSet<i32>)>,
    written: BTreeMap<Name, BTreeSet<i32>>,
}

fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

fn topic() -> StrBytes {
    text("orders")
}

/// One of the ids has had most of its epochs.
fn begin(now: Now) -> Machine {
    let mut machine = Machine::new(Config::default(), now);
    let producer = ProducerEpoch {
        id: 1_000,
        epoch: i16::MAX - 6,
    };
    machine.replay(Change {
        transactional_id: text("t-1"),
        value: Some(Transaction {
            producer,
            previous_id: -1,
            next_id: -1,
            last_epoch: -1,
            timeout_ms: TIMEOUT_MS,
            state: State::Empty,
            partitions: Partitions::new(),
            update_ms: now.unix_ms,
            start_ms: -1,
        }),
    });
    machine
}

impl Simulation {
    fn new(world: World<Machine>) -> Self {
        let processes = (0..4).map(|number| Process {
            id: text(&format!("t-{}", number / 2)),
            own_epochs: number >= 1,
            ..Process::default()
        });
        Self {
            world,
            ending: Vec::new(),
            partitions: (0..PARTITIONS)
                .map(|index| (index, Partition::default()))
                .collect(),
            processes: processes.collect(),
            fresh: 0,
            given: BTreeMap::new(),
            rotated: 0,
            lost: 0,
            acknowledged: BTreeMap::new(),
            written: BTreeMap::new(),
        }
    }

    fn run(&mut self) {
        for _ in 0..STEPS {
            match self.world.random.below(100) {
                0 => self.crash(),
                1..25 => self.flush(),
                25..45 => self.tell(),
                45..55 => {
                    let longest = if self.world.random.one_in(8) {
                        8_000
                    } else {
                        400
                    };
                    let ms = self.world.random.below(longest) as u64;
                    self.pass(ms);
                }
                _ => self.speak(),
            }
        }
        self.calm_down();
        self.check();
    }

    /// Everybody falls silent; what is open times out and all ends arrive.
    fn calm_down(&mut self) {
        for _ in 0..4 {
            self.pass(u64::from(TIMEOUT_MS.unsigned_abs()));
            for _ in 0..20 {
                self.flush();
                self.tell();
            }
        }
    }

    fn check(&mut self) {
        for (index, partition) in &self.partitions {
            assert!(partition.open.is_empty(), "open in {index}: {partition:?}");
        }
        for (name, indexes) in &self.written {
            let in_which = |of: fn(&Partition) -> &BTreeSet<Name>| -> BTreeSet<i32> {
                let has = |index: &&i32| of(&self.partitions[*index]).contains(name);
                indexes.iter().filter(has).copied().collect()
            };
            let committed = in_which(|partition| &partition.committed);
            let aborted = in_which(|partition| &partition.aborted);
            assert!(
                committed.is_empty() || aborted.is_empty(),
                "{name:?} is committed in {committed:?} and aborted in {aborted:?}"
            );
            match self.acknowledged.get(name) {
                Some((Verdict::Commit, _)) => assert_eq!(&committed, indexes, "{name:?}"),
                Some((Verdict::Abort, _)) => assert!(committed.is_empty(), "{name:?}"),
                None => {}
            }
        }
    }

    fn speak(&mut self) {
        let number = self.world.random.below(self.processes.len());
        let process = &self.processes[number];
        if let Some((_, _, since)) = process.asked {
            if self.world.now.tick_ms > since + 3_000 {
                self.lose_patience(number);
            }
            return;
        }
        let Some(producer) = process.producer else {
            // Who takes over an id that is in use fences its producer; often, and nothing is ever committed.
            let other = &self.processes[number ^ 1];
            let is_free = other.producer.is_none() && other.asked.is_none();
            if is_free || self.world.random.one_in(30) {
                self.init(number);
            }
            return;
        };
        if self.world.random.one_in(40) {
            return self.die(number);
        }
        match self.world.random.below(10) {
            0..3 => self.add(number, producer),
            3 if process.late.is_some() => self.write_late(number),
            3..8 => self.write(number, producer),
            _ if process.open => self.end(number, producer),
            _ => {}
        }
    }

    /// No answer for long: it asks again, or gives up and another one comes.
    fn lose_patience(&mut self, number: usize) {
        let process = &self.processes[number];
        match (&process.asked, process.producer) {
            (Some((_, Asked::End(verdict), _)), Some(producer)) if process.own_epochs => {
                self.end_with(number, producer, *verdict, None);
            }
            _ => self.die(number),
        }
    }

    fn die(&mut self, number: usize) {
        let process = &mut self.processes[number];
        process.life += 1;
        process.producer = None;
        process.asked = None;
        process.open = false;
        process.count += 1;
        process.reached.clear();
    }

    fn init(&mut self, number: usize) {
        self.fresh += 1;
        let fresh_id = 1_000 + self.fresh;
        let request = Request::Init {
            transactional_id: self.processes[number].id.clone(),
            timeout_ms: TIMEOUT_MS,
            expected: None,
            fresh_id,
        };
        self.ask(number, Asked::Init, request);
    }

    fn add(&mut self, number: usize, producer: ProducerEpoch) {
        let indexes: BTreeSet<_> = (0..PARTITIONS)
            .filter(|_| self.world.random.one_in(2))
            .collect();
        let request = Request::Add {
            transactional_id: self.processes[number].id.clone(),
            producer,
            partitions: Partitions::from([(topic(), indexes.clone())]),
        };
        if !indexes.is_empty() {
            self.ask(number, Asked::Add(indexes), request);
        }
    }

    /// Straight into a partition; a zombie's, or one that comes late, must be refused there.
    fn write(&mut self, number: usize, producer: ProducerEpoch) {
        let process = &self.processes[number];
        let index = self.world.random.below(PARTITIONS as usize) as i32;
        if !process.reached.contains(&index) {
            return;
        }
        let name = (number, process.count);
        if let Some(partition) = self.partitions.get_mut(&index)
            && partition.write(producer, name)
        {
            self.written.entry(name).or_default().insert(index);
        } else {
            self.die(number);
        }
    }

    /// A batch of the transaction before: it belongs to that one or to none.
    fn write_late(&mut self, number: usize) {
        let index = self.world.random.below(PARTITIONS as usize) as i32;
        if let Some((producer, name)) = self.processes[number].late
            && let Some(partition) = self.partitions.get_mut(&index)
            && partition.write(producer, name)
        {
            self.written.entry(name).or_default().insert(index);
        }
    }

    fn end(&mut self, number: usize, producer: ProducerEpoch) {
        let verdict = match self.world.random.one_in(3) {
            true => Verdict::Abort,
            false => Verdict::Commit,
        };
        self.end_with(number, producer, verdict, None);
    }

    fn end_with(
        &mut self,
        number: usize,
        producer: ProducerEpoch,
        verdict: Verdict,
        fresh_id: Option<i64>,
    ) {
        let process = &self.processes[number];
        let request = Request::End {
            transactional_id: process.id.clone(),
            producer,
            verdict,
            epochs: match process.own_epochs {
                true => Epochs::Own { fresh_id },
                false => Epochs::Shared,
            },
        };
        self.ask(number, Asked::End(verdict), request);
    }

    fn ask(&mut self, number: usize, asked: Asked, request: Request) {
        let token = self.world.ask(request);
        self.processes[number].asked = Some((token, asked, self.world.now.tick_ms));
        self.release();
    }

    fn tell_machine(&mut self, request: Request) {
        self.world.ask(request);
        self.release();
    }

    /// The disk has some more of the log.
    fn flush(&mut self) {
        match self.world.random.one_in(2) {
            true => self.world.flush(),
            false => self.world.flush_some(),
        }
        self.release();
    }

    fn release(&mut self) {
        while let Some(out) = self.world.out() {
            match out {
                Out::Action(action) => self.act(action),
                Out::Reply(token, response) => self.answer(token, response),
            }
        }
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::Admit {
                token,
                producer,
                partitions,
            } => {
                self.admit(producer, &partitions);
                self.tell_machine(Request::Admitted(token));
            }
            Action::End { ref partitions, .. } => {
                let indexes = partitions.get(&topic()).cloned().unwrap_or_default();
                self.ending.push((action, indexes));
            }
        }
    }

    fn admit(&mut self, producer: ProducerEpoch, partitions: &Partitions) {
        for index in &partitions[&topic()] {
            if let Some(partition) = self.partitions.get_mut(index) {
                partition.admitted.insert(producer.id, producer.epoch);
            }
        }
    }

    /// One partition learns how a transaction ended.
    fn tell(&mut self) {
        if self.ending.is_empty() {
            return;
        }
        let at = self.world.random.below(self.ending.len());
        let (action, left) = &mut self.ending[at];
        let Action::End {
            transactional_id,
            producer,
            verdict,
            ..
        } = action.clone()
        else {
            return;
        };
        if let Some(index) = left.pop_first()
            && let Some(partition) = self.partitions.get_mut(&index)
        {
            partition.end(producer, verdict);
        }
        if left.is_empty() {
            self.ending.remove(at);
            self.tell_machine(Request::Ended {
                transactional_id,
                producer,
            });
        }
    }

    fn answer(&mut self, token: Token, response: Response) {
        let waits = |process: &Process| {
            process
                .asked
                .as_ref()
                .is_some_and(|(asked, _, _)| *asked == token)
        };
        let Some(number) = self.processes.iter().position(waits) else {
            return;
        };
        let process = &mut self.processes[number];
        let Some((_, asked, _)) = process.asked.take() else {
            return;
        };
        if let (Asked::End(verdict), Some(producer), true) =
            (&asked, process.producer, process.own_epochs)
            && self.world.random.one_in(4)
        {
            // The answer gets lost, and the client asks again.
            self.lost += 1;
            return self.end_with(number, producer, *verdict, None);
        }
        match (asked, response) {
            (Asked::Init, Response::Init(Ok(producer))) => {
                process.producer = Some(producer);
                let before = self.given.insert(producer, (number, process.life));
                assert_eq!(before, None, "{producer:?} was given twice");
            }
            (Asked::End(verdict), Response::IdWanted) => {
                self.fresh += 1;
                let fresh_id = Some(1_000 + self.fresh);
                if let Some(producer) = process.producer {
                    self.end_with(number, producer, verdict, fresh_id);
                }
            }
            (Asked::Add(indexes), Response::Admitted | Response::Done(Ok(()))) => {
                process.open = true;
                process.reached.extend(indexes);
            }
            (Asked::End(verdict), Response::Ended(Ok(producer))) => {
                if process.own_epochs {
                    self.rotated +=
                        usize::from(process.producer.map(|was| was.id) != Some(producer.id));
                    let life = (number, process.life);
                    let before = self.given.insert(producer, life);
                    assert!(
                        before.is_none_or(|before| before == life),
                        "{producer:?} is {before:?}'s"
                    );
                    let name = (number, process.count);
                    process.late = process.producer.map(|producer| (producer, name));
                    process.producer = Some(producer);
                }
                let reached = std::mem::take(&mut process.reached);
                let name = (number, process.count);
                self.acknowledged.insert(name, (verdict, reached));
                process.count += 1;
                process.open = false;
            }
            (
                _,
                Response::Init(Err(error))
                | Response::Done(Err(error))
                | Response::Ended(Err(error)),
            ) => {
                if error != ResponseError::ConcurrentTransactions {
                    self.die(number);
                }
            }
            (asked, response) => panic!("{asked:?} was answered with {response:?}"),
        }
    }

    fn pass(&mut self, ms: u64) {
        let until = self.world.now.tick_ms + ms;
        while self.world.tick(until) {
            self.release();
        }
    }

    /// The coordinator dies with what was not durable; partitions keep what they have, but not who
    /// was admitted.
    fn crash(&mut self) {
        self.ending.clear();
        self.world.crash();
        for partition in self.partitions.values_mut() {
            partition.admitted.clear();
        }
        self.world
            .machine
            .on_request(self.world.now, Token(0), Request::Incomplete);
        let output = self.world.machine.take_output();
        let mut known = Vec::new();
        for (_, response) in output.replies {
            if let Response::Incomplete(incomplete) = response {
                known = incomplete;
            }
        }
        for (producer, partitions) in &known {
            self.admit(*producer, partitions);
        }
        self.abort_orphans(&known);
        for action in output.actions {
            self.act(action);
        }
    }

    fn abort_orphans(&mut self, known: &[(ProducerEpoch, Partitions)]) {
        for (index, partition) in &mut self.partitions {
            let open: Vec<_> = partition.open.keys().copied().collect();
            for id in open {
                let is_known = known.iter().any(|(producer, partitions)| {
                    producer.id == id && partitions[&topic()].contains(index)
                });
                let epoch = partition.epochs[&id];
                if !is_known {
                    partition.end(ProducerEpoch { id, epoch }, Verdict::Abort);
                }
            }
        }
    }
}

#[test]
fn transactions_are_whole_whatever_happens() {
    let counts = each_seed(SEEDS, |seed| {
        let mut simulation = Simulation::new(World::new(seed, begin));
        simulation.run();
        let of = |names: fn(&Partition) -> &BTreeSet<Name>| -> usize {
            let partitions = simulation.partitions.values();
            partitions.map(|partition| names(partition).len()).sum()
        };
        [
            of(|partition| &partition.committed),
            of(|partition| &partition.aborted),
            simulation.lost,
            simulation.rotated,
        ]
    });
    if counts.len() > 1 {
        let wanted = [
            ("commits", 300),
            ("aborts", 100),
            ("lost answers", 300),
            ("new ids", 100),
        ];
        for (at, (what, least)) in wanted.into_iter().enumerate() {
            let met: usize = counts.iter().map(|counts| counts[at]).sum();
            assert!(met > least, "too few {what}: {met}");
        }
    }
}

#[test]
fn transactions_are_whole_on_a_disk_that_fails() {
    let simulate = |seed| Simulation::new(World::on_disk(seed, begin)).run();
    each_seed(SEEDS_ON_DISK, simulate);
    assert!(notices_a_bad_disk(simulate));
}
