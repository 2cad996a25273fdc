//! AddPartitionsToTxn and AddOffsetsToTxn: what the transaction reaches must be known before it is
//! written, or its end would not reach it.

use kafka_protocol::error::ResponseError;

use super::super::record::{Partitions, State};
use super::{Action, Machine, Request, Response, owned};
use crate::coordinator::{Now, Token};

impl Machine {
    pub(super) fn add(&mut self, now: Now, token: Token, request: Request) {
        let Request::Add {
            transactional_id: id,
            producer,
            partitions,
        } = &request
        else {
            return;
        };
        if id.is_empty() {
            return self.refuse(token, &request, ResponseError::InvalidRequest);
        }
        let partitions_max = self.config.partitions_max;
        let entry = match self.of_producer(id, *producer) {
            Ok(entry) => entry,
            Err(error) => return self.refuse(token, &request, error),
        };
        let transaction = &mut entry.transaction;
        match transaction.state {
            State::Preparing(_) => {
                let id = id.clone();
                return self.hold(now, token, &id, request);
            }
            State::Ongoing if includes(&transaction.partitions, partitions) => {
                return self.reply(token, Response::Done(Ok(())));
            }
            State::Ongoing
                if count(&transaction.partitions) + count(partitions) > partitions_max =>
            {
                return self.refuse(token, &request, ResponseError::PolicyViolation);
            }
            State::Ongoing => {}
            State::Empty | State::Complete(_) => {
                transaction.state = State::Ongoing;
                transaction.start_ms = now.unix_ms;
                transaction.partitions.clear();
                let timeout = u64::from(transaction.timeout_ms.unsigned_abs());
                entry.timeout_at = Some(now.tick_ms.saturating_add(timeout));
            }
        }
        transaction.update_ms = now.unix_ms;
        for (topic, indexes) in partitions {
            match transaction.partitions.get_mut(topic) {
                Some(known) => known.extend(indexes),
                None => {
                    transaction.partitions.insert(owned(topic), indexes.clone());
                }
            }
        }
        self.output.actions.push(Action::Admit {
            token,
            producer: *producer,
            partitions: partitions.clone(),
        });
        let id = id.clone();
        self.write(&id);
    }
}

fn includes(all: &Partitions, some: &Partitions) -> bool {
    some.iter()
        .all(|(topic, indexes)| all.get(topic).is_some_and(|known| indexes.is_subset(known)))
}

fn count(partitions: &Partitions) -> usize {
    partitions.values().map(|indexes| indexes.len()).sum()
}
