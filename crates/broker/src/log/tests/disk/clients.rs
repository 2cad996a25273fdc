//! Who writes: producers that nobody numbers, idempotent and transactional ones.

use super::super::super::AppendError;
use super::super::super::control::{ProducerEpoch, Verdict};
use super::super::{Compression, Make, cleaner};
use super::model::{Batch, Content, Producer, Slot, Transaction, Written};
use super::{IN_FLIGHT, PRODUCERS, TRANSACTIONAL, World};
use crate::fuzz::Random;
use crate::log::Appended;

/// Keys of a compacted log: few, so that most records are superseded.
const KEYS: [&str; 5] = ["a", "b", "c", "d", "e"];

impl World {
    fn contents(&mut self, random: &mut Random) -> Vec<Content> {
        (0..1 + random.below(3))
            .map(|_| {
                self.written += 1;
                let value = format!("{}{}", self.written, "x".repeat(random.below(120)));
                match self.compaction.is_some() {
                    true => Content {
                        key: Some((*random.pick(&KEYS)).to_owned()),
                        value: (!random.one_in(6)).then_some(value),
                    },
                    false => Content {
                        key: None,
                        value: Some(value),
                    },
                }
            })
            .collect()
    }

    /// A producer that nobody numbers.
    pub(super) fn append(&mut self, random: &mut Random) {
        let contents = self.contents(random);
        let base = self.write(&contents, (-1, -1, -1)).unwrap().base_offset;
        self.note(base, &contents, None);
    }

    fn write(
        &self,
        contents: &[Content],
        producer: (i64, i16, i32),
    ) -> Result<Appended, AppendError> {
        let make = Make {
            producer,
            timestamp: self.now_ms,
            compression: Compression::None,
        };
        let records: Vec<_> = contents
            .iter()
            .enumerate()
            .map(|(at, content)| {
                let (key, value) = (content.key.as_deref(), content.value.as_deref());
                cleaner::record(at, key, value, make)
            })
            .collect();
        let mut batch = cleaner::encode(&records, make.compression);
        if producer.0 >= TRANSACTIONAL {
            batch = cleaner::with_attributes(batch, cleaner::TRANSACTIONAL);
        }
        self.partition.append(batch, self.now_ms)
    }

    fn note(&mut self, base: i64, contents: &[Content], transaction: Option<usize>) {
        assert_eq!(base, self.end(), "offsets are given out in order");
        let record = |content: &Content| {
            Slot::Record(Written {
                content: content.clone(),
                transaction,
            })
        };
        self.slots.extend(contents.iter().map(record));
    }

    pub(super) fn send(&mut self, random: &mut Random) {
        let id = random.below(TRANSACTIONAL as usize) as i64;
        if self.producers[&id].in_flight.len() >= IN_FLIGHT {
            return;
        }
        let contents = self.contents(random);
        let (epoch, sequence) = (self.producers[&id].epoch, self.producers[&id].sequence);
        let appended = self.write(&contents, (id, epoch, sequence)).unwrap();
        assert!(!appended.duplicate);
        self.note(appended.base_offset, &contents, None);
        let producer = self.producers.get_mut(&id).unwrap();
        producer.sequence += contents.len() as i32;
        producer.in_flight.push_back(Batch {
            sequence,
            contents,
            base: appended.base_offset,
        });
    }

    /// A producer whose connection was lost sends again, in order, what it has no answer to.
    pub(super) fn send_again(&mut self, id: i64) {
        let Producer {
            epoch, in_flight, ..
        } = self.producers[&id].clone();
        for (at, batch) in in_flight.iter().enumerate() {
            let appended = self.write(&batch.contents, (id, epoch, batch.sequence));
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
                self.note(appended.base_offset, &batch.contents, None);
                let producer = self.producers.get_mut(&id).unwrap();
                producer.in_flight[at].base = appended.base_offset;
            }
        }
    }

    pub(super) fn send_in_transaction(&mut self, random: &mut Random) {
        let id = TRANSACTIONAL + random.below((PRODUCERS - TRANSACTIONAL) as usize) as i64;
        let producer = ProducerEpoch { id, epoch: 0 };
        if self.producers[&id].marker >= Some(self.safe) {
            return;
        }
        let contents = self.contents(random);
        let sequence = self.producers[&id].sequence;
        self.partition.admit(producer);
        let appended = self.write(&contents, (id, 0, sequence)).unwrap();
        let base = appended.base_offset;
        let transaction = self.producers[&id].open.unwrap_or_else(|| {
            self.transactions.push(Transaction {
                producer: id,
                first: base,
                end: None,
            });
            self.transactions.len() - 1
        });
        self.note(base, &contents, Some(transaction));
        let producer = self.producers.get_mut(&id).unwrap();
        producer.sequence += contents.len() as i32;
        producer.open = Some(transaction);
    }

    pub(super) fn end_transaction(&mut self, random: &mut Random) {
        let mut producers = self.producers.iter();
        let open = producers.find_map(|(&id, known)| Some((id, known.open?)));
        let Some((id, transaction)) = open else {
            return;
        };
        // A producer commits when everything it wrote is acknowledged.
        let is_its = |slot: &Slot| slot.is_of(transaction);
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
        self.slots.push(Slot::Marker(transaction));
        let producer = self.producers.get_mut(&id).unwrap();
        producer.open = None;
        producer.marker = Some(ended.base_offset);
        self.transactions[transaction].end = Some((verdict, ended.base_offset));
    }
}
