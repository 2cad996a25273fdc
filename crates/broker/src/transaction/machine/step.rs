//! What a request to end a transaction means to one that stands where it stands.
//!
//! An answer may get lost, and the client asks again. With one epoch for all of a producer's
//! transactions the state alone tells a repeated request from a new one. Where each transaction has
//! its own epoch, the end has changed it, and who asks with the one before asks again; who asks with
//! the new one ends the next transaction, which may be empty.

use kafka_protocol::error::ResponseError;

use super::super::record::{State, Transaction};
use super::Epochs;
use super::init::is_exhausted;
use crate::coordinator::{ProducerEpoch, Verdict};

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// It ends.
    Decide,
    /// Its end, asked for before, is not complete yet.
    Wait,
    /// It has ended so before: the same answer again.
    Repeat,
}

/// When the producer that asks was the one it says to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Asker {
    Current,
    /// Before the last end.
    Before,
}

impl Transaction {
    pub(super) fn step(
        &self,
        producer: ProducerEpoch,
        verdict: Verdict,
        epochs: Epochs,
    ) -> Result<Step, ResponseError> {
        match epochs {
            Epochs::Shared => self.step_of_shared(producer, verdict),
            Epochs::Own { .. } => self.step_of_own(producer, verdict),
        }
    }

    fn step_of_shared(
        &self,
        producer: ProducerEpoch,
        verdict: Verdict,
    ) -> Result<Step, ResponseError> {
        match self.state {
            _ if self.successor().id != producer.id => Err(ResponseError::InvalidProducerIdMapping),
            _ if self.successor() != producer => Err(ResponseError::ProducerFenced),
            State::Ongoing => Ok(Step::Decide),
            State::Preparing(decided) if decided == verdict => Ok(Step::Wait),
            State::Complete(decided) if decided == verdict => Ok(Step::Repeat),
            State::Empty | State::Preparing(_) | State::Complete(_) => {
                Err(ResponseError::InvalidTxnState)
            }
        }
    }

    /// The table of Kafka's `TransactionCoordinator` for version 2. Where Kafka calls the next
    /// transaction's end fenced because the one before is not told everywhere yet, it waits here.
    fn step_of_own(
        &self,
        producer: ProducerEpoch,
        verdict: Verdict,
    ) -> Result<Step, ResponseError> {
        match (self.state, self.asker(producer)?) {
            (State::Ongoing, Asker::Current) => Ok(Step::Decide),
            (State::Preparing(_), Asker::Current) => Ok(Step::Wait),
            // Nothing was written, or nothing that arrived: a new epoch keeps it from arriving late.
            (State::Empty | State::Complete(_), Asker::Current) if verdict == Verdict::Abort => {
                Ok(Step::Decide)
            }
            (State::Preparing(decided), Asker::Before) if decided == verdict => Ok(Step::Wait),
            (State::Complete(decided), Asker::Before) if decided == verdict => Ok(Step::Repeat),
            (State::Empty | State::Ongoing, Asker::Before) => Err(ResponseError::ProducerFenced),
            (State::Empty | State::Preparing(_) | State::Complete(_), _) => {
                Err(ResponseError::InvalidTxnState)
            }
        }
    }

    fn asker(&self, asks: ProducerEpoch) -> Result<Asker, ResponseError> {
        let fenced_for_good =
            asks.epoch == i16::MAX || (self.producer.epoch == i16::MAX && self.next_id < 0);
        let one_before =
            asks.id == self.producer.id && asks.epoch.checked_add(1) == Some(self.producer.epoch);
        let with_the_id_before = asks.id == self.previous_id
            && self.producer.epoch == 0
            && asks.epoch == self.last_epoch
            && is_exhausted(asks.epoch);
        match asks {
            _ if one_before && !fenced_for_good || with_the_id_before => Ok(Asker::Before),
            _ if asks == self.successor() && !fenced_for_good => Ok(Asker::Current),
            _ if asks.id == self.successor().id || asks.id == self.producer.id => {
                Err(ResponseError::ProducerFenced)
            }
            _ => Err(ResponseError::InvalidProducerIdMapping),
        }
    }
}
