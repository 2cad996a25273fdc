//! The coordinator's decisions, without a clock, a disk or a network.
//!
//! A transaction ends in three steps, and a crash may come between any two: the decision is
//! written, then the partitions learn it by markers, then it is written that all know. After a crash
//! what was decided is carried out, and what was not is still open, and ends by its timeout. The
//! answers and states are those of Apache Kafka's `TransactionCoordinator` and
//! `TransactionMetadata`; what differs is that a request which comes while the markers are being
//! written is held for the moment that takes, where Kafka sends the client away to ask again.
//!
//! | file | what it decides |
//! |---|---|
//! | `init` | who the producer is from now on (KIP-98, KIP-360) |
//! | `partitions` | which partitions belong to the transaction |
//! | `end` | commit and abort, by the producer, by timeout and by a successor |
//! | `step` | what a request to end means: the first, a repeated, a late one (KIP-890) |
//! | `expiry` | what is due: timeouts, requests that waited too long, ids that nobody uses |
//! | `admin` | describe, list |

mod admin;
mod end;
mod expiry;
mod init;
mod partitions;
mod step;

#[cfg(test)]
mod epoch_tests;
#[cfg(test)]
mod fuzz;
#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use kafka_protocol::error::ResponseError;
use kafka_protocol::protocol::StrBytes;

pub(crate) use admin::Filter;

use super::Config;
use super::record::{Change, Partitions, State, Transaction};
use crate::coordinator::{self, Now, ProducerEpoch, Token, Verdict};

/// What is asked of the machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Request {
    /// A producer starts, or goes on after an error.
    Init {
        transactional_id: StrBytes,
        timeout_ms: i32,
        /// Who it was, if it goes on.
        expected: Option<ProducerEpoch>,
        /// A producer id that nobody has, should it need one.
        fresh_id: i64,
    },
    /// The transaction reaches these partitions, and begins with the first.
    Add {
        transactional_id: StrBytes,
        producer: ProducerEpoch,
        partitions: Partitions,
    },
    /// The producer ends its transaction.
    End {
        transactional_id: StrBytes,
        producer: ProducerEpoch,
        verdict: Verdict,
        epochs: Epochs,
    },
    /// [`Action::Admit`] is done.
    Admitted(Token),
    /// [`Action::End`] is done.
    Ended {
        transactional_id: StrBytes,
        producer: ProducerEpoch,
    },
    /// Shows a transaction.
    Describe(StrBytes),
    /// Names the transactions that a filter lets through.
    List(Filter),
    /// Names the producers whose transactions are not complete, and what those reach.
    Incomplete,
}

/// Whose epochs a producer's transactions have: what its client knows of (`transaction.version`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Epochs {
    /// The producer's: all that it begins have one (KIP-98).
    Shared,
    /// Each its own; its end gives the producer the next (KIP-890).
    Own {
        /// A producer id that nobody has, if the machine asked for one.
        fresh_id: Option<i64>,
    },
}

/// What the machine answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Response {
    /// To [`Request::Init`].
    Init(Result<ProducerEpoch, ResponseError>),
    /// To [`Request::Add`].
    Done(Result<(), ResponseError>),
    /// To [`Request::Add`]: done, and durable already.
    Admitted,
    /// To [`Request::End`]: who the producer is from then on.
    Ended(Result<ProducerEpoch, ResponseError>),
    /// To [`Request::End`]: it needs a producer id that nobody has.
    IdWanted,
    /// To [`Request::Describe`].
    Described(Option<Transaction>),
    /// To [`Request::List`].
    Listed(Vec<(StrBytes, ProducerEpoch, State)>),
    /// To [`Request::Incomplete`].
    Incomplete(Vec<(ProducerEpoch, Partitions)>),
}

/// What is to be done outside when the decision is durable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Action {
    /// Partitions take the producer's batches from now on.
    Admit {
        /// Who waits for it.
        token: Token,
        producer: ProducerEpoch,
        partitions: Partitions,
    },
    /// Partitions are told how the transaction ends.
    End {
        transactional_id: StrBytes,
        producer: ProducerEpoch,
        verdict: Verdict,
        partitions: Partitions,
    },
}

/// What a step yielded.
pub(crate) type Output = coordinator::Output<Response, Change, Action>;

/// All transactional ids of one partition of `__transaction_state`.
#[derive(Debug)]
pub(crate) struct Machine {
    config: Config,
    ids: BTreeMap<StrBytes, Entry>,
    /// When each id wants to be looked at.
    timers: BTreeSet<(u64, StrBytes)>,
    /// When ids are looked through for expired ones.
    expiry_ms: u64,
    output: Output,
}

/// A transactional id and what goes on around it.
#[derive(Debug)]
struct Entry {
    transaction: Transaction,
    /// When the transaction times out.
    timeout_at: Option<u64>,
    /// A request that waits for the transaction before it to be complete.
    held: Option<Held>,
    /// Its entry in the machine's timers.
    timer: Option<u64>,
}

#[derive(Debug)]
struct Held {
    token: Token,
    request: Request,
    until: u64,
}

impl Machine {
    /// A machine that knows no ids; feed it with `replay` before the first request.
    pub(crate) fn new(config: Config, now: Now) -> Self {
        let expiry_ms = now.tick_ms.saturating_add(config.expiry_check_ms);
        Self {
            config,
            ids: BTreeMap::new(),
            timers: BTreeSet::new(),
            expiry_ms,
            output: Output::default(),
        }
    }

    /// Writes how an id stands now.
    fn write(&mut self, id: &StrBytes) {
        if let Some(entry) = self.ids.get(id) {
            self.output.changes.push(Change {
                transactional_id: id.clone(),
                value: Some(entry.transaction.clone()),
            });
        }
        self.settle(id);
    }

    /// Brings the id's timer up to date.
    fn settle(&mut self, id: &StrBytes) {
        let Some(entry) = self.ids.get_mut(id) else {
            return;
        };
        let held = entry.held.as_ref().map(|held| held.until);
        let deadline = entry.timeout_at.into_iter().chain(held).min();
        if entry.timer != deadline {
            if let Some(at) = entry.timer.take() {
                self.timers.remove(&(at, id.clone()));
            }
            if let Some(at) = deadline {
                self.timers.insert((at, id.clone()));
            }
            entry.timer = deadline;
        }
    }

    /// Keeps a request until the transaction before it is complete; one at a time.
    fn hold(&mut self, now: Now, token: Token, id: &StrBytes, request: Request) {
        let until = now.tick_ms.saturating_add(self.config.hold_max_ms);
        match self.ids.get_mut(id) {
            Some(entry) if entry.held.is_none() => {
                entry.held = Some(Held {
                    token,
                    request,
                    until,
                });
                self.settle(id);
            }
            _ => self.refuse(token, &request, ResponseError::ConcurrentTransactions),
        }
    }

    fn refuse(&mut self, token: Token, request: &Request, error: ResponseError) {
        let response = match request {
            Request::Init { .. } => Response::Init(Err(error)),
            Request::End { .. } => Response::Ended(Err(error)),
            _ => Response::Done(Err(error)),
        };
        self.reply(token, response);
    }

    fn reply(&mut self, token: Token, response: Response) {
        self.output.replies.push((token, response));
    }

    /// The id's transaction, if the sender is its producer of now.
    fn of_producer(
        &mut self,
        id: &StrBytes,
        producer: ProducerEpoch,
    ) -> Result<&mut Entry, ResponseError> {
        let entry = self
            .ids
            .get_mut(id)
            .filter(|entry| entry.transaction.successor().id == producer.id)
            .ok_or(ResponseError::InvalidProducerIdMapping)?;
        match entry.transaction.successor() == producer {
            true => Ok(entry),
            false => Err(ResponseError::ProducerFenced),
        }
    }
}

impl coordinator::Machine for Machine {
    type Request = Request;
    type Response = Response;
    type Change = Change;
    type Action = Action;

    fn on_request(&mut self, now: Now, token: Token, request: Request) {
        match request {
            Request::Init { .. } => self.init(now, token, request),
            Request::Add { .. } => self.add(now, token, request),
            Request::End { .. } => self.end(now, token, request),
            Request::Admitted(token) => self.reply(token, Response::Admitted),
            Request::Ended {
                transactional_id,
                producer,
            } => self.ended(now, &transactional_id, producer),
            Request::Describe(id) => self.describe(token, &id),
            Request::List(filter) => self.list(now, token, &filter),
            Request::Incomplete => self.incomplete(token),
        }
    }

    fn on_tick(&mut self, now: Now) {
        self.expire(now);
    }

    fn deadline(&self) -> u64 {
        self.timers
            .first()
            .map_or(self.expiry_ms, |(at, _)| self.expiry_ms.min(*at))
    }

    fn take_output(&mut self) -> Output {
        std::mem::take(&mut self.output)
    }

    fn replay(&mut self, change: Change) {
        match change.value {
            None => {
                self.ids.remove(&change.transactional_id);
            }
            Some(transaction) => {
                self.ids
                    .insert(change.transactional_id, Entry::new(transaction));
            }
        }
    }

    /// What was decided is carried out; what is open stays so for as long as its timeout says.
    fn replay_done(&mut self, now: Now) {
        let ids: Vec<_> = self.ids.keys().cloned().collect();
        for id in ids {
            let Some(entry) = self.ids.get_mut(&id) else {
                continue;
            };
            match entry.transaction.state {
                State::Ongoing => entry.restore_timeout(now),
                State::Preparing(verdict) => {
                    let action = entry.transaction.ending(&id, verdict);
                    self.output.actions.push(action);
                }
                State::Empty | State::Complete(_) => {}
            }
            self.settle(&id);
        }
    }

    fn live(&self) -> impl Iterator<Item = Change> {
        self.ids.iter().map(|(id, entry)| Change {
            transactional_id: id.clone(),
            value: Some(entry.transaction.clone()),
        })
    }

    fn is_promise(response: &Response) -> bool {
        !matches!(response, Response::Admitted)
    }
}

impl Entry {
    fn new(transaction: Transaction) -> Self {
        Self {
            transaction,
            timeout_at: None,
            held: None,
            timer: None,
        }
    }

    /// The wall clock says how much of the timeout is over; set forward or back, it costs one
    /// timeout at most.
    fn restore_timeout(&mut self, now: Now) {
        let timeout = i64::from(self.transaction.timeout_ms.max(0));
        let over = now.unix_ms.saturating_sub(self.transaction.start_ms);
        let left = timeout.saturating_sub(over).clamp(0, timeout);
        self.timeout_at = Some(now.tick_ms.saturating_add(left.unsigned_abs()));
    }
}

impl Transaction {
    /// Who the producer is, or is told to be when the end that was decided is complete.
    fn successor(&self) -> ProducerEpoch {
        match self.next_id {
            ..0 => self.producer,
            id => ProducerEpoch { id, epoch: 0 },
        }
    }

    fn ending(&self, id: &StrBytes, verdict: Verdict) -> Action {
        Action::End {
            transactional_id: id.clone(),
            producer: self.producer,
            verdict,
            partitions: self.partitions.clone(),
        }
    }
}

/// A copy that does not hold on to the request it came in.
fn owned(text: &StrBytes) -> StrBytes {
    StrBytes::from_string(text.to_string())
}
