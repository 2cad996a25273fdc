//! Who wrote what last, so that a batch sent twice is stored once (KIP-98, Kafka's `ProducerStateManager`).
//!
//! An idempotent producer that got no answer sends its batch again. Its last five batches are remembered (a
//! client has at most five in flight), over restarts: in the checkpoint, and by reading the log behind it. So is the
//! first offset of its open transaction, until a marker ends it.

use std::collections::VecDeque;

use rustc_hash::FxHashMap;
use serde::{Deserialize, Serialize};

use super::batch::Header;
use super::control::ProducerEpoch;
use super::error::AppendError;

/// Batches remembered per producer: the most a client may have in flight.
const BATCHES: usize = 5;
/// Producers that wrote nothing for so long are forgotten: Kafka's `producer.id.expiration.ms` of one day.
const IDLE_MAX_MS: i64 = 24 * 60 * 60 * 1000;
/// Producers remembered per partition (some 250 bytes each); beyond it those idle longest are forgotten.
const PRODUCERS_MAX: usize = 20_000;

/// The producers of one partition.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Producers {
    by_id: FxHashMap<i64, Producer>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Producer {
    epoch: i16,
    last_seen_ms: i64,
    batches: VecDeque<Written>,
    /// The first offset of its open transaction.
    #[serde(default)]
    open: Option<i64>,
}

/// A producer as operators see it (`DescribeProducers`, KIP-664).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ActiveProducer {
    pub(crate) producer: ProducerEpoch,
    /// The sequence number of its last record; -1: none of this epoch.
    pub(crate) last_sequence: i32,
    /// When it wrote last, in milliseconds since the Unix epoch.
    pub(crate) last_seen_ms: i64,
    /// The first offset of its open transaction.
    pub(crate) open_from: Option<i64>,
}

/// A batch that was appended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Written {
    first_sequence: i32,
    last_sequence: i32,
    pub(super) base_offset: i64,
    pub(super) last_offset: i64,
    pub(super) append_time: i64,
}

impl Producers {
    /// Whether a batch may be appended: `Some` if it was already.
    pub(super) fn check(&self, header: &Header) -> Result<Option<Written>, AppendError> {
        if !header.is_idempotent() {
            return Ok(None);
        }
        // Of an unknown producer any sequence is good: it may have been forgotten, or its records deleted.
        let Some(producer) = self.by_id.get(&header.producer_id) else {
            return Ok(None);
        };
        if header.producer_epoch < producer.epoch {
            return Err(AppendError::InvalidProducerEpoch {
                producer_id: header.producer_id,
                found: header.producer_epoch,
                current: producer.epoch,
            });
        }
        let last = if header.producer_epoch == producer.epoch {
            if let Some(written) = producer.find(header) {
                return Ok(Some(written));
            }
            producer.batches.back().map(|batch| batch.last_sequence)
        } else {
            None
        };
        let expected = match last {
            None | Some(i32::MAX) => 0,
            Some(last) => last + 1,
        };
        if header.base_sequence == expected {
            return Ok(None);
        }
        Err(AppendError::OutOfOrderSequence {
            producer_id: header.producer_id,
            found: header.base_sequence,
            last: last.unwrap_or(-1),
        })
    }

    /// Where the producer's transaction began in which it writes with this epoch.
    pub(super) fn open_since(&self, producer: ProducerEpoch) -> Option<i64> {
        let known = self.by_id.get(&producer.id)?;
        known.open.filter(|_| known.epoch == producer.epoch)
    }

    /// Whether a transaction of the producer is open, whatever its epoch.
    pub(super) fn is_open(&self, producer_id: i64) -> bool {
        self.by_id
            .get(&producer_id)
            .is_some_and(|known| known.open.is_some())
    }

    /// The newest epoch that wrote here.
    pub(super) fn epoch(&self, producer_id: i64) -> Option<i16> {
        self.by_id.get(&producer_id).map(|known| known.epoch)
    }

    /// Notes the end of a producer's transaction and gives where it began, if it wrote anything. The marker's epoch
    /// fences older ones from now on.
    pub(super) fn end(&mut self, producer: ProducerEpoch, now_ms: i64) -> Option<i64> {
        let known = self.entry(producer, now_ms);
        known.last_seen_ms = now_ms;
        known.open.take()
    }

    /// Producers with an open transaction, and where it began.
    pub(super) fn open(&self) -> impl Iterator<Item = (ProducerEpoch, i64)> {
        self.by_id.iter().filter_map(|(&id, known)| {
            let epoch = known.epoch;
            Some((ProducerEpoch { id, epoch }, known.open?))
        })
    }

    /// All, as operators see them.
    pub(super) fn active(&self) -> Vec<ActiveProducer> {
        let active = self.by_id.iter().map(|(&id, known)| ActiveProducer {
            producer: ProducerEpoch {
                id,
                epoch: known.epoch,
            },
            last_sequence: known.batches.back().map_or(-1, |last| last.last_sequence),
            last_seen_ms: known.last_seen_ms,
            open_from: known.open,
        });
        active.collect()
    }

    /// Notes a batch that was appended at `base_offset`.
    pub(super) fn note(
        &mut self,
        header: &Header,
        base_offset: i64,
        append_time: i64,
        now_ms: i64,
    ) {
        if !header.is_idempotent() {
            return;
        }
        let producer = self.entry(header.producer(), now_ms);
        if producer.batches.len() == BATCHES {
            producer.batches.pop_front();
        }
        producer.last_seen_ms = now_ms;
        producer.batches.push_back(Written {
            first_sequence: header.base_sequence,
            last_sequence: header.last_sequence(),
            base_offset,
            last_offset: base_offset + i64::from(header.last_offset_delta),
            append_time,
        });
        if header.is_transactional() {
            producer.open.get_or_insert(base_offset);
        }
    }

    /// The producer's entry; what it wrote with an older epoch no longer counts.
    fn entry(&mut self, producer: ProducerEpoch, now_ms: i64) -> &mut Producer {
        if self.by_id.len() >= PRODUCERS_MAX && !self.by_id.contains_key(&producer.id) {
            self.forget_oldest();
        }
        let known = self.by_id.entry(producer.id).or_insert_with(|| Producer {
            epoch: producer.epoch,
            last_seen_ms: now_ms,
            batches: VecDeque::with_capacity(BATCHES),
            open: None,
        });
        if producer.epoch > known.epoch {
            known.epoch = producer.epoch;
            known.batches.clear();
        }
        known
    }

    /// Forgets producers that wrote nothing for a day, unless their transaction is open.
    pub(super) fn forget_idle(&mut self, now_ms: i64) {
        self.by_id.retain(|_, producer| {
            producer.open.is_some() || now_ms.saturating_sub(producer.last_seen_ms) < IDLE_MAX_MS
        });
    }

    /// The largest id.
    pub(super) fn max_id(&self) -> Option<i64> {
        self.by_id.keys().max().copied()
    }

    /// The last offset that each producer wrote.
    pub(super) fn last_offsets(&self) -> FxHashMap<i64, i64> {
        let last =
            |(&id, producer): (&i64, &Producer)| Some((id, producer.batches.back()?.last_offset));
        self.by_id.iter().filter_map(last).collect()
    }

    fn forget_oldest(&mut self) {
        let mut seen: Vec<i64> = self
            .by_id
            .values()
            .map(|producer| producer.last_seen_ms)
            .collect();
        let quarter = seen.len() / 4;
        let (_, &mut limit, _) = seen.select_nth_unstable(quarter);
        let mut left = quarter + 1;
        self.by_id.retain(|_, producer| {
            let forget = left > 0 && producer.last_seen_ms <= limit && producer.open.is_none();
            left -= usize::from(forget);
            !forget
        });
    }
}

impl Producer {
    fn find(&self, header: &Header) -> Option<Written> {
        let (first, last) = (header.base_sequence, header.last_sequence());
        self.batches
            .iter()
            .find(|batch| batch.first_sequence == first && batch.last_sequence == last)
            .copied()
    }
}
