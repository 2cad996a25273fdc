//! How a transaction ends: decided, told to its partitions, complete.

use kafka_protocol::error::ResponseError;
use kafka_protocol::protocol::StrBytes;

use super::super::record::State;
use super::{Machine, Request, Response};
use crate::coordinator::{Now, ProducerEpoch, Token, Verdict};

impl Machine {
    /// EndTxn: answered when the decision is durable; the markers follow.
    pub(super) fn end(&mut self, now: Now, token: Token, request: Request) {
        let Request::End {
            transactional_id: id,
            producer,
            verdict,
        } = &request
        else {
            return;
        };
        if id.is_empty() {
            return self.refuse(token, &request, ResponseError::InvalidRequest);
        }
        let state = match self.of_producer(id, *producer) {
            Ok(entry) => entry.transaction.state,
            Err(error) => return self.refuse(token, &request, error),
        };
        match state {
            State::Ongoing => {
                self.decide(&id.clone(), *verdict, now);
                self.reply(token, Response::Done(Ok(())));
            }
            // It asks again, because the answer got lost.
            State::Preparing(decided) if decided == *verdict => {
                let id = id.clone();
                self.hold(now, token, &id, request);
            }
            State::Complete(decided) if decided == *verdict => {
                self.reply(token, Response::Done(Ok(())));
            }
            State::Empty | State::Preparing(_) | State::Complete(_) => {
                self.refuse(token, &request, ResponseError::InvalidTxnState);
            }
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
        let held = entry.held.take();
        self.write(id);
        if let Some(held) = held {
            crate::coordinator::Machine::on_request(self, now, held.token, held.request);
        }
    }
}
