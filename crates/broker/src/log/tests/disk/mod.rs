//! A log on a disk that may fail at any moment, in an order that a seed decides.
//!
//! Producers write, idempotent ones and transactions among them; records are flushed, deleted, compacted and
//! read; the clock jumps; segments roll. In between the process is killed, or the power fails: then each
//! write since the last sync is there or not, in part or in any order, and each name is that of the old
//! file or of the new one. The next start may be interrupted likewise. After each start:
//!
//! - every record that was acknowledged is there, at its offset, and no offset went back;
//! - what else is there is what was written there (of what nobody was promised, a part may be gone);
//! - a batch that is sent again is stored once;
//! - readers of committed records see no aborted one, and see up to the first open transaction;
//! - of a compacted log the last record of each key is there, and what a tombstone is about does not come back.
//!
//! | file | what it has |
//! |---|---|
//! | `model` | what must be in the log |
//! | `clients` | who writes |
//! | `check` | what must hold |
//!
//! Faults can be built in ([`Fault`]); each must be noticed. A failing seed is printed; `ACKWELL_SEED`
//! begins with it, `ACKWELL_SECONDS` looks for longer.

mod check;
mod clients;
mod model;

use std::collections::BTreeMap;
use std::sync::{Arc, RwLock};

use super::super::cleaner::{Pace, Stop};
use super::super::{Flusher, OpenFiles};
use super::*;
use crate::disk::Fault;
use crate::disk::simulated::{self, Files};
use crate::fuzz::{Random, inputs};
use model::{Producer, Slot, Transaction};

const STEPS: usize = 60;
/// A client has so many batches in flight at most.
const IN_FLIGHT: usize = 5;
/// Idempotent producers have the ids below, transactional ones those from here on.
const TRANSACTIONAL: i64 = 3;
const PRODUCERS: i64 = 6;
const HOUR_MS: i64 = 60 * 60 * 1000;

/// How a log is compacted.
#[derive(Debug, Clone, Copy)]
struct Compacting {
    /// They need not be kept once a pass has seen them; else for longer than the simulation goes.
    tombstones_go: bool,
}

struct World {
    folder: TempDir,
    config: BTreeMap<String, String>,
    /// The flush setting that the log is opened with; anything but `Always` is a fault.
    flush: Flush,
    /// `None`: the log is not compacted.
    compaction: Option<Compacting>,
    /// A pass may have removed something that the slots do not know of yet.
    cleaned: bool,
    shared: Shared,
    partition: Arc<Partition>,
    now_ms: i64,
    slots: Vec<Slot>,
    /// The offset behind what was acknowledged.
    safe: i64,
    /// Records before it were given up: the deletion was acknowledged, or only begun.
    start: i64,
    start_begun: i64,
    producers: BTreeMap<i64, Producer>,
    transactions: Vec<Transaction>,
    written: usize,
}

impl World {
    fn new(random: &mut Random, flush: Flush) -> Self {
        let folder = folder();
        let compaction = random.one_in(2).then(|| Compacting {
            tombstones_go: random.one_in(2),
        });
        let config = config(random, compaction);
        simulated::watch(folder.path());
        let (partition, shared) = begin(&folder, &config, flush, NOW);
        Self {
            folder,
            config,
            flush,
            compaction,
            cleaned: false,
            shared,
            partition,
            now_ms: NOW,
            slots: Vec::new(),
            safe: 0,
            start: 0,
            start_begun: 0,
            producers: (0..PRODUCERS).map(|id| (id, Producer::default())).collect(),
            transactions: Vec::new(),
            written: 0,
        }
    }

    fn end(&self) -> i64 {
        self.slots.len() as i64
    }

    fn step(&mut self, random: &mut Random) {
        simulated::forget_moments();
        if std::mem::take(&mut self.cleaned) {
            self.check_compacted();
        }
        println!(
            "records from {} to {}",
            self.partition.log_start_offset(),
            self.end()
        );
        // What is known before the step is all that may be counted on in its midst.
        let start = self.start;
        match random.below(18) {
            // Compaction is about many records.
            0..3 | 13 if self.compaction.is_some() => (0..4).for_each(|_| self.append(random)),
            0..3 => self.append(random),
            3..6 => self.send(random),
            6 => self.send_again(random.below(TRANSACTIONAL as usize) as i64),
            7..9 => self.send_in_transaction(random),
            9 => self.end_transaction(random),
            10..13 => {
                self.shared.flusher.work_once();
            }
            13 => self.delete(random),
            14 => {
                // Not further: after a day of silence a producer is forgotten, as by Kafka.
                let jump = random.below(10 * HOUR_MS as usize) as i64;
                self.now_ms = NOW + jump - 5 * HOUR_MS;
                self.retain();
            }
            15 => self.read(random),
            _ => self.clean(random),
        }
        if random.one_in(8) {
            return self.fail(random, start);
        }
        self.take_acknowledgements(random);
        if random.one_in(30) {
            self.partition.close().unwrap();
            self.safe = self.end();
            let moments = simulated::moments();
            self.restart(moments.last().unwrap().seen());
        }
    }

    fn delete(&mut self, random: &mut Random) {
        // What a transaction that is open wrote is not deleted: the log would forget that it is.
        let visible = self.partition.last_stable_offset();
        let before = self.start + random.below((visible - self.start + 1) as usize) as i64;
        self.start_begun = self.start_begun.max(before);
        println!("deletes before {before}");
        self.partition.delete_records(before).unwrap();
        self.start = self.start.max(before);
    }

    /// Nothing is old enough to be given up; a segment of which nothing was left may go.
    fn retain(&mut self) {
        self.partition.retain(self.now_ms).unwrap();
        let start = self.partition.log_start_offset();
        let gone = &self.slots[self.start as usize..start as usize];
        let is_nothing = |slot: &Slot| matches!(slot, Slot::Lost | Slot::Compacted(_));
        assert!(gone.iter().all(is_nothing), "{gone:?}");
        (self.start, self.start_begun) = (start, self.start_begun.max(start));
    }

    fn read(&self, random: &mut Random) {
        let visible = self.partition.high_watermark();
        let from = self.start + random.below((visible - self.start + 1) as usize) as i64;
        let read = self.partition.read(from, 1 + random.below(3_000), true);
        read.unwrap();
    }

    /// A pass of compaction, perhaps with memory for a few keys only.
    fn clean(&mut self, random: &mut Random) {
        if !random.one_in(4) {
            // Otherwise little is far enough on the disk to be compacted, and no segments are small enough to be joined.
            let mut writer = self.partition.writer();
            if writer.active.size() > 0 && random.one_in(2) {
                self.partition.roll(&mut writer).unwrap();
            }
            self.partition.publish(writer);
            self.shared.flusher.work_once();
            self.take_acknowledgements(random);
            simulated::forget_moments();
        }
        let (stop, memory) = (Stop::default(), *random.pick(&[100, 1 << 20]));
        let mut pace = Pace::new(&stop, memory, None);
        let cleaned = self.partition.clean(self.now_ms, &mut pace).unwrap();
        println!("cleaned {cleaned:?}");
        self.cleaned = cleaned.is_some();
    }

    /// What is told to be on the disk is acknowledged; some answers are lost on the way.
    fn take_acknowledgements(&mut self, random: &mut Random) {
        let told = match self.flush {
            Flush::Always => self.partition.flushed().borrow().end,
            // Fault: as if an acknowledgement did not wait for the disk.
            Flush::Interval(_) | Flush::Never => self.partition.high_watermark(),
        };
        assert!(self.partition.high_watermark() <= told.max(self.safe));
        self.safe = self.safe.max(told);
        for producer in self.producers.values_mut() {
            while let Some(batch) = producer.in_flight.front() {
                let arrives = batch.base >= 0 && batch.base < told && !random.one_in(4);
                if !arrives {
                    break;
                }
                producer.in_flight.pop_front();
            }
        }
    }

    /// The process is killed, or the power fails, at some moment of the last step; and perhaps once more
    /// during the start.
    fn fail(&mut self, random: &mut Random, start: i64) {
        let mut moments = simulated::moments();
        let safe = self.safe;
        self.cleaned = false;
        for _ in 0..=random.below(3) {
            // A start that was interrupted has shown nothing to anybody.
            (self.safe, self.start) = (safe, start);
            let moment = random.pick(&moments);
            let files = match random.one_in(4) {
                true => moment.seen(),
                false => moment.left(random),
            };
            moments = self.restart(files);
        }
    }

    /// Nothing holds the partition's files any more.
    fn end_process(&self) {
        self.partition.abandon();
        self.shared.flusher.stop();
    }

    /// Starts on what is left, checks it, and gives the moments of the start.
    fn restart(&mut self, files: Files) -> Vec<simulated::Moment> {
        self.end_process();
        self.folder = folder();
        files.write(self.folder.path());
        simulated::watch(self.folder.path());
        println!(
            "start with {files}, {} of {} acknowledged",
            self.safe,
            self.end()
        );
        let (partition, shared) = begin(&self.folder, &self.config, self.flush, self.now_ms);
        (self.partition, self.shared) = (partition, shared);
        let moments = simulated::moments();
        self.check();
        // A client sends again what was lost before it sends anything new.
        for id in 0..TRANSACTIONAL {
            let mut in_flight = self.producers[&id].in_flight.iter();
            if in_flight.any(|batch| batch.base < 0) {
                self.send_again(id);
            }
        }
        moments
    }
}

fn config(random: &mut Random, compaction: Option<Compacting>) -> BTreeMap<String, String> {
    let hour = HOUR_MS.to_string();
    let mut config = vec![
        ("segment.bytes", *random.pick(&["600", "1000", "4000"])),
        ("segment.ms", &hour),
    ];
    if let Some(rules) = compaction {
        config.push((
            "cleanup.policy",
            *random.pick(&["compact", "compact,delete"]),
        ));
        config.push(("min.cleanable.dirty.ratio", "0"));
        if rules.tombstones_go {
            config.push(("delete.retention.ms", "0"));
        }
    }
    let owned = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
    config.into_iter().map(owned).collect()
}

fn begin(
    folder: &TempDir,
    config: &BTreeMap<String, String>,
    flush: Flush,
    now_ms: i64,
) -> (Arc<Partition>, Shared) {
    let config = TopicConfig::new(config.clone(), &BTreeMap::new()).unwrap();
    let shared = Shared {
        flusher: Flusher::by_hand(flush),
        files: Arc::new(OpenFiles::at_most(OPEN_MAX)),
    };
    let place = Place {
        topic: "orders".to_owned(),
        index: 3,
        folder: folder.path().to_owned(),
    };
    let config = Arc::new(RwLock::new(Arc::new(config)));
    let opened = Partition::open(place, config, shared.clone(), now_ms).unwrap();
    println!("lost: {:?}", opened.losses);
    (opened.partition, shared)
}

fn run(random: &mut Random, flush: Flush) {
    let mut world = World::new(random, flush);
    for _ in 0..STEPS {
        world.step(random);
    }
    world.end_process();
}

#[test]
fn nothing_acknowledged_is_lost_or_doubled_whatever_the_disk_does() {
    inputs(|random| run(random, Flush::Always));
}

/// Seeds in which a fault must be noticed.
const FAULTY: u64 = 400;

fn is_noticed(fault: Option<Fault>, flush: Flush) -> bool {
    std::thread::spawn(move || {
        simulated::build_in(fault);
        (0..FAULTY).any(|seed| {
            let run = || run(&mut Random::new(seed), flush);
            std::panic::catch_unwind(run).is_err()
        })
    })
    .join()
    .unwrap()
}

#[test]
fn an_acknowledgement_that_does_not_wait_is_noticed() {
    assert!(is_noticed(None, Flush::Never));
}

#[test]
fn each_fault_that_is_built_in_is_noticed() {
    for fault in [
        Fault::UnsyncedFiles,
        Fault::UnsyncedCleaned,
        Fault::UnsyncedNames,
        Fault::UncheckedBatches,
        Fault::ForgottenProducers,
        Fault::ForgottenAborts,
    ] {
        assert!(is_noticed(Some(fault), Flush::Always), "{fault:?}");
    }
}
