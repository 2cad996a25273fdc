//! Replies that wait to be read: participants that answer, a group that reads with pauses and commits later, brokers
//! that answer late or not at all, and a monitor that must not fire while a reply lies there that came in time.

use std::time::Duration;

use ackwell_core::Timestamp;
use ackwell_core::saga::{Ask, Watermark};

use crate::dice::Dice;

const PARTITIONS: usize = 3;
const STEPS: u32 = 2_000;
const PATIENCE: Duration = Duration::from_millis(400);

/// What a broken monitor does wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    None,
    /// The clock alone decides.
    ByTheClock,
    /// What is read counts, though its transaction is not committed.
    ReadTakenForHandled,
    /// The time of the ends is taken when the answer is there.
    TimeTakenAfterwards,
    /// One partition that is read stands for all.
    OnePartitionForAll,
    /// Deadlines wait for as long as it takes.
    NoPatience,
}

impl Fault {
    pub(crate) const ALL: [Fault; 5] = [
        Fault::ByTheClock,
        Fault::ReadTakenForHandled,
        Fault::TimeTakenAfterwards,
        Fault::OnePartitionForAll,
        Fault::NoPatience,
    ];
}

/// How often what this is about happened.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Seen {
    /// The clock was past a deadline, its reply lay unread, and it was waited for.
    pub(crate) waited: u64,
    /// Everything had been read.
    pub(crate) reached: u64,
    /// Patience was over.
    pub(crate) given_up: u64,
}

#[derive(Debug, Default)]
struct Partition {
    /// When each reply came.
    replies: Vec<Timestamp>,
    read: usize,
    committed: usize,
    /// Nobody reads it until then.
    dead_until: Timestamp,
}

pub(crate) struct Backlog {
    dice: Dice,
    fault: Fault,
    now: Timestamp,
    partitions: Vec<Partition>,
    watermark: Watermark<usize>,
    /// Ends that the broker has told, with the time of the question; they arrive later.
    under_way: Option<(Timestamp, Vec<(usize, i64)>)>,
    seen: Seen,
}

impl Backlog {
    pub(crate) fn new(seed: u64, fault: Fault) -> Self {
        let patience = match fault {
            Fault::NoPatience => Duration::from_secs(3600),
            _ => PATIENCE,
        };
        Self {
            dice: Dice::new(seed),
            fault,
            now: Timestamp::from_millis(10_000),
            partitions: (0..PARTITIONS).map(|_| Partition::default()).collect(),
            watermark: Watermark::new(patience),
            under_way: None,
            seen: Seen::default(),
        }
    }

    pub(crate) fn run(mut self) -> Result<Seen, String> {
        for _ in 0..STEPS {
            self.now += Duration::from_millis(self.dice.in_range(0, 5));
            match self.dice.in_range(0, 99) {
                0..35 => self.reply(),
                35..75 => self.read(),
                75..99 => self.ask(),
                _ => self.die(),
            }
            self.check()?;
        }
        Ok(self.seen)
    }

    fn partition(&mut self) -> usize {
        self.dice.in_range(0, PARTITIONS as u64 - 1) as usize
    }

    fn reply(&mut self) {
        let (at, now) = (self.partition(), self.now);
        self.partitions[at].replies.push(now);
    }

    /// Reads some, handles some, and commits up to what is handled, or less.
    fn read(&mut self) {
        let (at, some) = (self.partition(), self.dice.in_range(0, 4) as usize);
        let commits = self.dice.percent(60);
        let partition = &mut self.partitions[at];
        if partition.dead_until > self.now {
            return;
        }
        if commits {
            partition.committed = partition.read;
        }
        partition.read = (partition.read + some).min(partition.replies.len());
    }

    fn die(&mut self) {
        let (at, long) = (self.partition(), self.dice.in_range(50, 900));
        self.partitions[at].dead_until = self.now + Duration::from_millis(long);
    }

    /// The monitor asks, and hears what was asked before.
    fn ask(&mut self) {
        if let Some((asked_at, ends)) = self.under_way.take() {
            let asked_at = match self.fault {
                Fault::TimeTakenAfterwards => self.now,
                _ => asked_at,
            };
            return self.watermark.ends(asked_at, ends);
        }
        match self.watermark.ask(self.now) {
            Ask::Nothing => {}
            Ask::Ends => {
                let end = |partition: &Partition| partition.replies.len() as i64;
                let ends = self.partitions.iter().map(end).enumerate().collect();
                self.under_way = Some((self.now, ends));
            }
            Ask::Positions => {
                let fault = self.fault;
                let position = |partition: &Partition| match fault {
                    Fault::ReadTakenForHandled => partition.read as i64,
                    _ => partition.committed as i64,
                };
                let mut positions: Vec<_> =
                    self.partitions.iter().map(position).enumerate().collect();
                if fault == Fault::OnePartitionForAll {
                    let most = self
                        .watermark
                        .missing()
                        .any(|(at, end)| positions[*at].1 >= end);
                    let all = positions.iter_mut().filter(|_| most);
                    all.for_each(|(_, position)| *position = i64::MAX);
                }
                self.watermark.committed(positions);
            }
        }
    }

    /// No deadline passes while a reply that came before it waits, unless patience is over.
    fn check(&mut self) -> Result<(), String> {
        let passed = match self.fault {
            Fault::ByTheClock => self.now,
            _ => self.watermark.at(self.now),
        };
        let given_up = self.now - PATIENCE;
        if passed < given_up {
            return Err(format!(
                "at {:?} deadlines of {given_up:?} are held",
                self.now
            ));
        }
        for (number, partition) in self.partitions.iter().enumerate() {
            let unread = partition.replies.get(partition.committed);
            let Some(unread) = unread.filter(|came| **came < self.now) else {
                continue;
            };
            if *unread < passed && passed > given_up {
                return Err(format!(
                    "deadlines of {passed:?} fire, and a reply of {unread:?} is not handled in partition {number}"
                ));
            }
            self.seen.waited += 1;
        }
        match passed == given_up {
            true => self.seen.given_up += 1,
            false => self.seen.reached += 1,
        }
        Ok(())
    }
}
