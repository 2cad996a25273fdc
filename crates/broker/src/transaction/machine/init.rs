//! InitProducerId: from now on this is the producer, and who was it before is fenced.

use kafka_protocol::error::ResponseError;
use kafka_protocol::protocol::StrBytes;
use tracing::info;

use super::super::record::{Partitions, State, Transaction};
use super::{Entry, Machine, Request, Response, owned};
use crate::coordinator::{Now, ProducerEpoch, Token, Verdict};

/// No epoch was given out yet.
const NONE: i16 = -1;

impl Machine {
    pub(super) fn init(&mut self, now: Now, token: Token, request: Request) {
        let Request::Init {
            transactional_id,
            timeout_ms,
            expected,
            fresh_id,
        } = &request
        else {
            return;
        };
        let prepared = self.prepare(transactional_id, *timeout_ms, *expected, *fresh_id, now);
        let id = match prepared {
            Ok(id) => id,
            Err(error) => return self.reply(token, Response::Init(Err(error))),
        };
        match self.ids.get(&id).map(|entry| entry.transaction.state) {
            Some(State::Ongoing) => {
                // An epoch that nobody has ends it, so that whoever had the transaction is fenced,
                // and the successor's epoch is a newer one still.
                info!(transactional_id = %id, "a producer starts anew: its open transaction is aborted");
                self.fence(&id, now);
                self.hold(now, token, &id, request);
            }
            Some(State::Preparing(_)) => self.hold(now, token, &id, request),
            Some(State::Empty | State::Complete(_)) => {
                let given = self.renew(&id, *timeout_ms, *expected, *fresh_id, now);
                self.reply(token, Response::Init(given));
            }
            None => {}
        }
    }

    /// Checks the request and makes sure that the id is known.
    fn prepare(
        &mut self,
        id: &StrBytes,
        timeout_ms: i32,
        expected: Option<ProducerEpoch>,
        fresh_id: i64,
        now: Now,
    ) -> Result<StrBytes, ResponseError> {
        if id.is_empty() || id.len() > self.config.id_bytes_max {
            return Err(ResponseError::InvalidRequest);
        }
        if !(1..=self.config.timeout_max_ms).contains(&timeout_ms) {
            return Err(ResponseError::InvalidTransactionTimeout);
        }
        match self.ids.get(id) {
            Some(entry) if !entry.transaction.accepts(expected) => {
                Err(ResponseError::ProducerFenced)
            }
            Some(_) => Ok(id.clone()),
            None if self.ids.len() >= self.config.ids_max => Err(ResponseError::PolicyViolation),
            None => {
                let id = owned(id);
                let unknown = Transaction::unknown(fresh_id, timeout_ms, now.unix_ms);
                self.ids.insert(id.clone(), Entry::new(unknown));
                Ok(id)
            }
        }
    }

    /// Gives the producer a new epoch, or the one that it was given already and did not hear of.
    fn renew(
        &mut self,
        id: &StrBytes,
        timeout_ms: i32,
        expected: Option<ProducerEpoch>,
        fresh_id: i64,
        now: Now,
    ) -> Result<ProducerEpoch, ResponseError> {
        let entry = self
            .ids
            .get_mut(id)
            .ok_or(ResponseError::CoordinatorNotAvailable)?;
        let next = entry
            .transaction
            .next(expected.map(|expected| expected.epoch), fresh_id)
            .ok_or(ResponseError::ProducerFenced)?;
        entry.transaction = Transaction {
            timeout_ms,
            state: State::Empty,
            partitions: Partitions::new(),
            update_ms: now.unix_ms,
            start_ms: -1,
            ..next
        };
        let given = entry.transaction.producer;
        self.write(id);
        Ok(given)
    }

    /// Aborts the open transaction with an epoch that no producer has.
    pub(super) fn fence(&mut self, id: &StrBytes, now: Now) {
        if let Some(entry) = self.ids.get_mut(id) {
            let transaction = &mut entry.transaction;
            transaction.producer.epoch = transaction.producer.epoch.saturating_add(1);
            transaction.last_epoch = NONE;
        }
        self.decide(id, Verdict::Abort, now);
    }
}

/// The last epoch is kept for fencing a producer.
pub(super) fn is_exhausted(epoch: i16) -> bool {
    epoch >= i16::MAX - 1
}

impl Transaction {
    fn unknown(producer_id: i64, timeout_ms: i32, now_ms: i64) -> Self {
        Self {
            producer: ProducerEpoch {
                id: producer_id,
                epoch: NONE,
            },
            previous_id: -1,
            next_id: -1,
            last_epoch: NONE,
            timeout_ms,
            state: State::Empty,
            partitions: Partitions::new(),
            update_ms: now_ms,
            start_ms: -1,
        }
    }

    /// Whether a producer that goes on may be this one. With an exhausted epoch of the id before it
    /// may be one whose new id got lost on the way (`TransactionCoordinator.isValidProducerId`).
    fn accepts(&self, expected: Option<ProducerEpoch>) -> bool {
        let Some(expected) = expected else {
            return true;
        };
        self.producer.epoch == NONE
            || expected.id == self.producer.id
            || (expected.id == self.previous_id && is_exhausted(expected.epoch))
    }

    /// Who the producer is next; `None` if the epoch that it had is no longer the last one.
    fn next(&self, expected: Option<i16>, fresh_id: i64) -> Option<Self> {
        let current = self.producer.epoch;
        if is_exhausted(current) && expected.is_none_or(|expected| expected == current) {
            return Some(Self {
                producer: ProducerEpoch {
                    id: fresh_id,
                    epoch: 0,
                },
                previous_id: self.producer.id,
                last_epoch: expected.map_or(NONE, |_| current),
                ..self.clone()
            });
        }
        match expected {
            // It goes on; if it asks again, it is known by the epoch it had.
            Some(expected) if current == NONE || expected == current => {
                self.with_epoch(current + 1, current)
            }
            None => self.with_epoch(current + 1, NONE),
            Some(expected) if expected == self.last_epoch => {
                self.with_epoch(current, self.last_epoch)
            }
            Some(_) => None,
        }
    }

    fn with_epoch(&self, epoch: i16, last_epoch: i16) -> Option<Self> {
        Some(Self {
            producer: ProducerEpoch {
                epoch,
                ..self.producer
            },
            last_epoch,
            ..self.clone()
        })
    }
}
