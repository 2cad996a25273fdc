//! How a transaction ends: decided, told to its partitions, complete.

use kafka_protocol::error::ResponseError;
use kafka_protocol::protocol::StrBytes;

use super::super::record::{State, Transaction};
use super::init::is_exhausted;
use super::step::Step;
use super::{Epochs, Machine, Request, Response};
use crate::coordinator::{Now, ProducerEpoch, Token, Verdict};

impl Machine {
    /// EndTxn: answered when the decision is durable; the markers follow.
    pub(super) fn end(&mut self, now: Now, token: Token, request: Request) {
        let Request::End {
            transactional_id: id,
            producer,
            verdict,
            epochs,
        } = &request
        else {
            return;
        };
        if id.is_empty() {
            return self.refuse(token, &request, ResponseError::InvalidRequest);
        }
        let Some(entry) = self.ids.get_mut(id) else {
            return self.refuse(token, &request, ResponseError::InvalidProducerIdMapping);
        };
        let transaction = &mut entry.transaction;
        match transaction.step(*producer, *verdict, *epochs) {
            Ok(Step::Decide) if !transaction.take_epoch(*epochs, now) => {
                self.reply(token, Response::IdWanted);
            }
            Ok(Step::Decide) => {
                let successor = transaction.successor();
                self.decide(&id.clone(), *verdict, now);
                self.reply(token, Response::Ended(Ok(successor)));
            }
            Ok(Step::Repeat) => {
                let producer = transaction.producer;
                self.reply(token, Response::Ended(Ok(producer)));
            }
            Ok(Step::Wait) => {
                let id = id.clone();
                self.hold(now, token, &id, request);
            }
            Err(error) => self.refuse(token, &request, error),
        }
    }

    /// From here on there is one way to go, also over a crash.
    pub(super) fn decide(&mut self, id: &StrBytes, verdict: Verdict, now: Now) {
        let Some(entry) = self.ids.get_mut(id) else {
            return;
        };
        entry.timeout_at = None;
        let transaction = &mut entry.transaction;
        transaction.state = State::Preparing(verdict);
        transaction.update_ms = now.unix_ms;
        self.output.actions.push(transaction.ending(id, verdict));
        self.write(id);
    }

    /// All partitions know. Who waited for that is served.
    pub(super) fn ended(&mut self, now: Now, id: &StrBytes, producer: ProducerEpoch) {
        let Some(entry) = self.ids.get_mut(id) else {
            return;
        };
        let transaction = &mut entry.transaction;
        let State::Preparing(verdict) = transaction.state else {
            return;
        };
        if transaction.producer != producer {
            return;
        }
        transaction.state = State::Complete(verdict);
        transaction.partitions.clear();
        transaction.update_ms = now.unix_ms;
        if transaction.next_id >= 0 {
            transaction.producer = transaction.successor();
            transaction.previous_id = producer.id;
            transaction.next_id = -1;
        }
        let held = entry.held.take();
        self.write(id);
        if let Some(held) = held {
            crate::coordinator::Machine::on_request(self, now, held.token, held.request);
        }
    }
}

impl Transaction {
    /// Takes the epoch that ends the transaction and is the next one's, if each has its own. `false`
    /// if that is the last one, and the producer needs another id first.
    fn take_epoch(&mut self, epochs: Epochs, now: Now) -> bool {
        let Epochs::Own { fresh_id } = epochs else {
            return true;
        };
        self.next_id = match (is_exhausted(self.producer.epoch), fresh_id) {
            (true, None) => return false,
            (true, Some(id)) => id,
            (false, _) => -1,
        };
        self.last_epoch = self.producer.epoch;
        self.producer.epoch = self.producer.epoch.saturating_add(1);
        if self.state != State::Ongoing {
            self.start_ms = now.unix_ms;
        }
        true
    }
}
