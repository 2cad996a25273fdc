//! Who wrote what last, so that a batch sent twice is stored once (KIP-98, Kafka's `ProducerStateManager`).
//!
//! An idempotent producer that got no answer sends its batch again. Its last five batches are remembered (a
//! client has at most five in flight), over restarts: in the checkpoint, and by reading the log behind it.

use std::collections::VecDeque;

use rustc_hash::FxHashMap;
use serde::{Deserialize, Serialize};

use super::batch::Header;
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
        if self.by_id.len() >= PRODUCERS_MAX && !self.by_id.contains_key(&header.producer_id) {
            self.forget_oldest();
        }
        let producer = self
            .by_id
            .entry(header.producer_id)
            .or_insert_with(|| Producer {
                epoch: header.producer_epoch,
                last_seen_ms: now_ms,
                batches: VecDeque::with_capacity(BATCHES),
            });
        if header.producer_epoch != producer.epoch {
            producer.epoch = header.producer_epoch;
            producer.batches.clear();
        }
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
    }

    /// Forgets producers that wrote nothing for a day.
    pub(super) fn forget_idle(&mut self, now_ms: i64) {
        self.by_id
            .retain(|_, producer| now_ms.saturating_sub(producer.last_seen_ms) < IDLE_MAX_MS);
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
            let forget = left > 0 && producer.last_seen_ms <= limit;
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
