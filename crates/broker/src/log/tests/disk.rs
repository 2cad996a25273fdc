//! A log on a disk that may fail at any moment, in an order that a seed decides.
//!
//! Producers write, idempotent ones and transactions among them; records are flushed, deleted and
//! read; the clock jumps; segments roll. In between the process is killed, or the power fails: then each
//! write since the last sync is there or not, in part or in any order, and each name is that of the old
//! file or of the new one. The next start may be interrupted likewise. After each start:
//!
//! - every record that was acknowledged is there, at its offset, and no offset went back;
//! - what else is there is what was written there (of what nobody was promised, a part may be gone);
//! - a batch that is sent again is stored once;
//! - readers of committed records see no aborted one, and see up to the first open transaction.
//!
//! Faults can be built in ([`Fault`]); each must be noticed. A failing seed is printed; `ACKWELL_SEED`
//! begins with it, `ACKWELL_SECONDS` looks for longer.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, RwLock};

use super::super::control::{ProducerEpoch, Verdict};
use super::super::{AppendError, Flusher, Isolation, OpenFiles};
use super::*;
use crate::disk::Fault;
use crate::disk::simulated::{self, Files};
use crate::fuzz::{Random, inputs};

const STEPS: usize = 60;
/// A client has so many batches in flight at most.
const IN_FLIGHT: usize = 5;
/// Idempotent producers have the ids below, transactional ones those from here on.
const TRANSACTIONAL: i64 = 3;
const PRODUCERS: i64 = 6;
const HOUR_MS: i64 = 60 * 60 * 1000;

/// A record as it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Written {
    value: String,
    /// Which transaction, if it is of one.
    transaction: Option<usize>,
}

/// What stands at an offset.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Slot {
    Record(Written),
    Marker,
    /// Nobody was promised what was here, and it is gone.
    Lost,
}

#[derive(Debug, Clone)]
struct Transaction {
    producer: i64,
    first: i64,
    /// How it ended, and the offset of its marker.
    end: Option<(Verdict, i64)>,
}

/// A batch whose acknowledgement has not arrived.
#[derive(Debug, Clone)]
struct Batch {
    sequence: i32,
    values: Vec<String>,
    base: i64,
}

#[derive(Debug, Clone, Default)]
struct Producer {
    epoch: i16,
    sequence: i32,
    in_flight: VecDeque<Batch>,
    open: Option<usize>,
    /// The marker of its last transaction: until it is on the disk, no other begins.
    marker: Option<i64>,
}

struct World {
    folder: TempDir,
    config: BTreeMap<String, String>,
    /// The flush setting that the log is opened with; anything but `Always` is a fault.
    flush: Flush,
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
        let config = BTreeMap::from([
            (
                "segment.bytes".to_owned(),
                random.pick(&["600", "1000", "4000"]).to_string(),
            ),
            ("segment.ms".to_owned(), HOUR_MS.to_string()),
        ]);
        simulated::watch(folder.path());
        let (partition, shared) = begin(&folder, &config, flush, NOW);
        Self {
            folder,
            config,
            flush,
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

    fn values(&mut self, random: &mut Random) -> Vec<String> {
        (0..1 + random.below(3))
            .map(|_| {
                self.written += 1;
                format!("{}{}", self.written, "x".repeat(random.below(120)))
            })
            .collect()
    }

    fn step(&mut self, random: &mut Random) {
        simulated::forget_moments();
        println!(
            "records from {} to {}",
            self.partition.log_start_offset(),
            self.end()
        );
        // What is known before the step is all that may be counted on in its midst.
        let start = self.start;
        match random.below(16) {
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
            _ => self.read(random),
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

    /// A producer that nobody numbers.
    fn append(&mut self, random: &mut Random) {
        let values = self.values(random);
        let base = self.write(&values, (-1, -1, -1)).unwrap().base_offset;
        self.note(base, &values, None);
    }

    fn write(
        &self,
        values: &[String],
        producer: (i64, i16, i32),
    ) -> Result<crate::log::Appended, AppendError> {
        let mut batch = self.batch(values, producer);
        if producer.0 >= TRANSACTIONAL {
            batch = cleaner::with_attributes(batch, cleaner::TRANSACTIONAL);
        }
        self.partition.append(batch, self.now_ms)
    }

    fn batch(&self, values: &[String], producer: (i64, i16, i32)) -> Bytes {
        let texts: Vec<_> = values.iter().map(String::as_str).collect();
        let make = Make {
            producer,
            timestamp: self.now_ms,
            compression: Compression::None,
        };
        batch_of(&texts, make)
    }

    fn note(&mut self, base: i64, values: &[String], transaction: Option<usize>) {
        assert_eq!(base, self.end(), "offsets are given out in order");
        let record = |value: &String| {
            Slot::Record(Written {
                value: value.clone(),
                transaction,
            })
        };
        self.slots.extend(values.iter().map(record));
    }

    fn send(&mut self, random: &mut Random) {
        let id = random.below(TRANSACTIONAL as usize) as i64;
        if self.producers[&id].in_flight.len() >= IN_FLIGHT {
            return;
        }
        let values = self.values(random);
        let (epoch, sequence) = (self.producers[&id].epoch, self.producers[&id].sequence);
        let appended = self.write(&values, (id, epoch, sequence)).unwrap();
        assert!(!appended.duplicate);
        self.note(appended.base_offset, &values, None);
        let producer = self.producers.get_mut(&id).unwrap();
        producer.sequence += values.len() as i32;
        producer.in_flight.push_back(Batch {
            sequence,
            values,
            base: appended.base_offset,
        });
    }

    /// A producer whose connection was lost sends again, in order, what it has no answer to.
    fn send_again(&mut self, id: i64) {
        let Producer {
            epoch, in_flight, ..
        } = self.producers[&id].clone();
        for (at, batch) in in_flight.iter().enumerate() {
            let appended = self.write(&batch.values, (id, epoch, batch.sequence));
            if batch.base >= 0 {
                let appended = appended.unwrap();
                assert!(appended.duplicate, "{} is stored already", batch.base);
                assert_eq!(appended.base_offset, batch.base);
            } else if in_flight.range(at..).any(|later| later.base >= 0) {
                // Power took this one and left a later one: the client is told, and begins anew.
                let refused = appended.unwrap_err();
                assert!(matches!(refused, AppendError::OutOfOrderSequence { .. }));
                let anew = Producer {
                    epoch: epoch + 1,
                    ..Producer::default()
                };
                self.producers.insert(id, anew);
                return;
            } else {
                let appended = appended.unwrap();
                assert!(!appended.duplicate, "it was lost");
                self.note(appended.base_offset, &batch.values, None);
                let producer = self.producers.get_mut(&id).unwrap();
                producer.in_flight[at].base = appended.base_offset;
            }
        }
    }

    fn send_in_transaction(&mut self, random: &mut Random) {
        let id = TRANSACTIONAL + random.below((PRODUCERS - TRANSACTIONAL) as usize) as i64;
        let producer = ProducerEpoch { id, epoch: 0 };
        if self.producers[&id].marker >= Some(self.safe) {
            return;
        }
        let values = self.values(random);
        let sequence = self.producers[&id].sequence;
        self.partition.admit(producer);
        let appended = self.write(&values, (id, 0, sequence)).unwrap();
        let base = appended.base_offset;
        let transaction = self.producers[&id].open.unwrap_or_else(|| {
            self.transactions.push(Transaction {
                producer: id,
                first: base,
                end: None,
            });
            self.transactions.len() - 1
        });
        self.note(base, &values, Some(transaction));
        let producer = self.producers.get_mut(&id).unwrap();
        producer.sequence += values.len() as i32;
        producer.open = Some(transaction);
    }

    fn end_transaction(&mut self, random: &mut Random) {
        let mut producers = self.producers.iter();
        let open = producers.find_map(|(&id, known)| Some((id, known.open?)));
        let Some((id, transaction)) = open else {
            return;
        };
        // A producer commits when everything it wrote is acknowledged.
        let is_its = |slot: &Slot| matches!(slot, Slot::Record(written) if written.transaction == Some(transaction));
        let last = self.slots.iter().rposition(is_its).unwrap() as i64;
        let verdict = match last < self.safe && random.one_in(2) {
            true => Verdict::Commit,
            false => Verdict::Abort,
        };
        let producer = ProducerEpoch { id, epoch: 0 };
        let ended = self
            .partition
            .end_transaction(producer, verdict, self.now_ms)
            .unwrap();
        assert_eq!(ended.base_offset, self.end());
        self.slots.push(Slot::Marker);
        let producer = self.producers.get_mut(&id).unwrap();
        producer.open = None;
        producer.marker = Some(ended.base_offset);
        self.transactions[transaction].end = Some((verdict, ended.base_offset));
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
        assert!(gone.iter().all(|slot| *slot == Slot::Lost), "{gone:?}");
        (self.start, self.start_begun) = (start, self.start_begun.max(start));
    }

    fn read(&self, random: &mut Random) {
        let visible = self.partition.high_watermark();
        let from = self.start + random.below((visible - self.start + 1) as usize) as i64;
        let read = self.partition.read(from, 1 + random.below(3_000), true);
        read.unwrap();
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

    /// Starts on what is left, checks it, and gives the moments of the start.
    fn restart(&mut self, files: Files) -> Vec<simulated::Moment> {
        self.partition.abandon();
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

    fn check(&mut self) {
        let partition = Arc::clone(&self.partition);
        let (start, end) = (partition.log_start_offset(), partition.log_end_offset());
        assert_eq!(partition.high_watermark(), end);
        assert!(
            end >= self.safe,
            "acknowledged to {}, ends at {end}",
            self.safe
        );
        assert!(end <= self.end(), "more than was written");
        assert!(self.start <= start, "deleted records are back");
        assert!(start <= self.start_begun, "the start went to {start}");
        self.start = start;
        self.check_records(start, end);
        self.forget(end);
        // What is visible now stays.
        self.safe = end;
        self.check_committed(start, end);
    }

    /// Every offset has what was written there; only what nobody was promised may be gone.
    fn check_records(&mut self, start: i64, end: i64) {
        self.slots.truncate(end as usize);
        let mut found = self.seen(Isolation::Uncommitted).into_iter().peekable();
        for offset in start..end {
            let there = found.next_if(|(at, _)| *at == offset);
            let slot = &mut self.slots[offset as usize];
            match (&*slot, there) {
                (Slot::Record(written), Some((_, Some(value)))) => {
                    assert_eq!(written.value, value, "at {offset}");
                }
                (Slot::Marker, Some((_, None))) | (Slot::Lost, None) => {}
                (_, None) if offset >= self.safe => *slot = Slot::Lost,
                (slot, there) => panic!("at {offset} {slot:?} was written, there is {there:?}"),
            }
        }
        assert_eq!(found.next(), None);
    }

    fn check_committed(&self, start: i64, end: i64) {
        let is_open = |transaction: &&Transaction| transaction.end.is_none();
        let firsts = self
            .transactions
            .iter()
            .filter(is_open)
            .map(|open| open.first);
        // Deleting records may take the beginning of an open transaction, not its end.
        let stable = firsts.fold(end, i64::min).max(start);
        assert_eq!(self.partition.last_stable_offset(), stable);
        let expected: Vec<_> = (start..stable)
            .filter_map(|offset| match &self.slots[offset as usize] {
                Slot::Record(written) if self.counts(written) => {
                    Some((offset, Some(written.value.clone())))
                }
                Slot::Record(_) | Slot::Marker | Slot::Lost => None,
            })
            .collect();
        let mut seen = self.seen(Isolation::Committed);
        seen.retain(|(_, value)| value.is_some());
        assert_eq!(seen, expected);
    }

    fn counts(&self, written: &Written) -> bool {
        written.transaction.is_none_or(|transaction| {
            let end = self.transactions[transaction].end;
            end.is_some_and(|(verdict, _)| verdict == Verdict::Commit)
        })
    }

    /// What is gone never happened, and its producers send it again.
    fn forget(&mut self, end: i64) {
        let slots = &self.slots;
        let is_gone = |offset: i64| offset >= end || slots[offset as usize] == Slot::Lost;
        for (number, transaction) in self.transactions.iter_mut().enumerate() {
            transaction.end = transaction.end.filter(|(_, marker)| !is_gone(*marker));
            let is_its = |slot: &Slot| matches!(slot, Slot::Record(written) if written.transaction == Some(number));
            match slots.iter().position(is_its) {
                Some(first) => transaction.first = first as i64,
                // It never began; an end keeps it from being looked for.
                None => transaction.end = Some((Verdict::Abort, transaction.first)),
            }
        }
        for (&id, producer) in &mut self.producers {
            for batch in &mut producer.in_flight {
                if batch.base >= 0 && is_gone(batch.base) {
                    batch.base = -1;
                }
            }
            let is_open = |of: &Transaction| of.producer == id && of.end.is_none();
            producer.open = self.transactions.iter().position(is_open);
            producer.marker = None;
        }
        self.ask_where_to_go_on();
    }

    /// A transactional producer begins a new life with a new epoch; here it goes on with its sequence.
    fn ask_where_to_go_on(&mut self) {
        let last: BTreeMap<_, _> = self
            .partition
            .active_producers()
            .into_iter()
            .map(|active| (active.producer.id, active.last_sequence))
            .collect();
        for (id, producer) in &mut self.producers {
            if *id >= TRANSACTIONAL {
                producer.sequence = last.get(id).map_or(0, |last| last + 1);
            }
        }
    }

    /// What a reader gets, as a client filters it (KIP-98); markers have no value.
    fn seen(&self, isolation: Isolation) -> Vec<(i64, Option<String>)> {
        let (mut from, mut seen) = (self.partition.log_start_offset(), Vec::new());
        loop {
            let read = self.partition.find(from, 700, true, isolation).unwrap();
            let Some(end) = read.end else { return seen };
            let mut records = read.records.unwrap().read().unwrap();
            while !records.is_empty() {
                for record in RecordBatchDecoder::decode(&mut records).unwrap().records {
                    let is_aborted = record.transactional
                        && read.aborted.iter().any(|aborted| {
                            aborted.producer_id == record.producer_id
                                && (aborted.first_offset..=aborted.last_offset)
                                    .contains(&record.offset)
                        });
                    if is_aborted || record.offset < from {
                        continue;
                    }
                    let value = record.value.filter(|_| !record.control);
                    let value = value.map(|value| String::from_utf8(value.to_vec()).unwrap());
                    seen.push((record.offset, value));
                }
            }
            from = end;
        }
    }
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
        Fault::UnsyncedNames,
        Fault::UncheckedBatches,
        Fault::ForgottenProducers,
        Fault::ForgottenAborts,
    ] {
        assert!(is_noticed(Some(fault), Flush::Always), "{fault:?}");
    }
}
