//! A partition's part in transactions: who may begin one here, and how it ends.
//!
//! The coordinator says first which producer may write, then writes the end. It is asked by the
//! producer, or with the producer's first batch here (KIP-890, version 2). A batch that comes
//! late, after the end, would open a transaction that nobody ends, and hold up every reader of
//! committed records; it is refused, because the end also takes the admission back (KIP-890).

use std::sync::{MutexGuard, PoisonError};

use super::aborted::{Aborted, AbortedTransaction};
use super::batch::Header;
use super::control::{self, ProducerEpoch, Verdict};
use super::error::AppendError;
use super::incoming::{self, Incoming};
use super::partition::{Appended, Partition};
use super::producers::ActiveProducer;
use super::undecided::Undecided;
use super::writer::Writer;

impl Partition {
    /// Lets a producer begin a transaction with this epoch.
    pub(crate) fn admit(&self, producer: ProducerEpoch) {
        self.writer().admitted.insert(producer.id, producer.epoch);
    }

    /// The producer of `records`, if they are of a transaction that reaches this partition with them.
    pub(crate) fn newcomer(&self, records: &[u8]) -> Option<ProducerEpoch> {
        let header = Header::parse(records).filter(|header| header.is_v2())?;
        if !header.is_transactional() || !header.is_idempotent() {
            return None;
        }
        let producer = header.producer();
        let known = self.writer().reaches(producer);
        (!known).then_some(producer)
    }

    /// Writes the end of a producer's transaction. Its epoch fences older ones from now on.
    pub(crate) fn end_transaction(
        &self,
        producer: ProducerEpoch,
        verdict: Verdict,
        now_ms: i64,
    ) -> Result<Appended, AppendError> {
        let mut writer = self.writer();
        self.check_usable(&writer)?;
        let current = writer.producers.epoch(producer.id).unwrap_or(-1);
        if producer.epoch < current {
            return Err(AppendError::InvalidProducerEpoch {
                producer_id: producer.id,
                found: producer.epoch,
                current,
            });
        }
        writer.admitted.remove(&producer.id);
        let marker = incoming::own(control::marker(producer, verdict, now_ms))?;
        self.write(writer, &self.config(), &marker, now_ms)
    }

    /// Takes up what batches written at `base_offset` say about transactions, before anybody can see them.
    pub(super) fn note_transactions(
        &self,
        writer: &mut Writer,
        batches: &[Incoming],
        base_offset: i64,
        now_ms: i64,
    ) {
        let mut offset = base_offset;
        for batch in batches {
            if batch.header.is_control() {
                if let Some(verdict) = Verdict::of_batch(&batch.bytes) {
                    self.end(writer, &batch.header, offset, verdict, now_ms);
                }
            } else if writer.producers.open_since(batch.header.producer()) == Some(offset) {
                self.undecided().begin(offset);
            }
            offset += i64::from(batch.header.records);
        }
    }

    fn end(
        &self,
        writer: &mut Writer,
        header: &Header,
        marker: i64,
        verdict: Verdict,
        now_ms: i64,
    ) {
        let Some(first_offset) = writer.producers.end(header.producer(), now_ms) else {
            return;
        };
        let mut undecided = self.undecided();
        undecided.end(first_offset, marker);
        if verdict == Verdict::Abort {
            self.aborted().push(AbortedTransaction {
                producer_id: header.producer_id,
                first_offset,
                last_offset: marker,
                last_stable_offset: undecided.stable_then(marker + 1),
            });
        }
    }

    /// Producers whose transaction is open here.
    pub(crate) fn open_transactions(&self) -> Vec<ProducerEpoch> {
        let writer = self.writer();
        writer
            .producers
            .open()
            .map(|(producer, _)| producer)
            .collect()
    }

    /// Producers that wrote here and are remembered.
    pub(crate) fn active_producers(&self) -> Vec<ActiveProducer> {
        self.writer().producers.active()
    }

    /// Aborted transactions with records in `from..below`.
    pub(super) fn aborted_in(&self, from: i64, below: i64) -> Vec<AbortedTransaction> {
        self.aborted().touching(from, below)
    }

    pub(super) fn aborted(&self) -> MutexGuard<'_, Aborted> {
        self.aborted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn undecided(&self) -> MutexGuard<'_, Undecided> {
        self.undecided
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl Writer {
    /// Whether a transaction of the producer, with this epoch, may write here.
    fn reaches(&self, producer: ProducerEpoch) -> bool {
        self.producers.open_since(producer).is_some()
            || self.admitted.get(&producer.id) == Some(&producer.epoch)
    }

    /// Whether a client's batch belongs to a transaction if it says so, and only then.
    pub(super) fn check_transaction(&self, header: &Header) -> Result<(), AppendError> {
        if !header.is_idempotent() {
            return Ok(());
        }
        let producer = header.producer();
        let belongs = match header.is_transactional() {
            true => self.reaches(producer),
            false => !self.producers.is_open(producer.id),
        };
        if belongs {
            return Ok(());
        }
        match self.admitted.get(&producer.id) {
            Some(&current) if current > producer.epoch => Err(AppendError::InvalidProducerEpoch {
                producer_id: producer.id,
                found: producer.epoch,
                current,
            }),
            _ if header.is_transactional() => Err(AppendError::NoTransaction {
                producer_id: producer.id,
            }),
            _ => Err(AppendError::InTransaction {
                producer_id: producer.id,
            }),
        }
    }
}
