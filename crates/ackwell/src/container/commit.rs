//! Settled positions go to the broker, one request in flight.
//!
//! The client tells the outcome of a commit only to a caller that waits for it, so a thread waits
//! while the poll thread goes on. It also writes what has no room in the commit, before it.
//!
//! A request may wait behind one that the broker does not answer, and the group may change
//! meanwhile. The client stamps a commit with its generation when it is sent, not when it was asked
//! for, so a late one would pass for current, and take back what the next owner has committed.
//! Positions of partitions that are gone by then are left out.

mod keeper;

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::thread::{self, JoinHandle};

use ackwell_core::engine::{CommitId, Event, Position};
use rdkafka::consumer::{CommitMode, Consumer};
use rdkafka::error::{KafkaResult, RDKafkaErrorCode as Code};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use super::consumer::Client;
use super::mailbox::Mailbox;
use super::observation::{Observation, Observer};
use super::stats::Counters;
use super::track::{Partitions, Stay};
use super::transactions::Waiting;
use crate::mutation::{self, Fault};

pub(super) use keeper::Keeper;

/// Requests that may wait. The engine has one in flight and gives it up when it takes too long;
/// while that one still blocks, the next waits here, and one more is refused.
const WAITING_MAX: usize = 1;

/// Sends commits and awaits their answers.
pub(super) struct Committer {
    requests: SyncSender<Request>,
    thread: JoinHandle<()>,
}

struct Request {
    id: CommitId,
    parts: Vec<Part>,
}

/// What is committed of one partition.
struct Part {
    stay: Stay,
    topic: Arc<str>,
    partition: i32,
    position: Position,
}

/// Whom an answer concerns.
pub(super) struct Listeners {
    pub(super) mailbox: Mailbox,
    pub(super) observer: Arc<dyn Observer>,
    pub(super) counters: Arc<Counters>,
}

impl Committer {
    pub(super) fn start(
        name: &str,
        client: Arc<Client>,
        (keeper, transactions): (Option<Keeper>, Option<Waiting>),
        listeners: Listeners,
    ) -> io::Result<Self> {
        let (requests, inbox) = sync_channel(WAITING_MAX);
        let sender = Sender {
            client,
            keeper,
            transactions,
            listeners,
        };
        let work = move || {
            for request in inbox {
                sender.carry_out(request);
            }
        };
        let thread = thread::Builder::new()
            .name(format!("commit-{name}"))
            .spawn(work)?;
        Ok(Committer { requests, thread })
    }

    /// Sends a request; its answer comes as an event.
    pub(super) fn send(
        &self,
        partitions: &Partitions,
        id: CommitId,
        positions: Vec<Position>,
    ) -> Result<(), String> {
        let part = |position: Position| {
            let (topic, partition) = partitions.name(position.partition)?.clone();
            Some(Part {
                stay: partitions.stay(position.partition)?,
                topic,
                partition,
                position,
            })
        };
        let parts = positions.into_iter().filter_map(part).collect();
        self.requests
            .try_send(Request { id, parts })
            .map_err(|error| match error {
                TrySendError::Full(_) => "the broker has not answered earlier commits".to_owned(),
                TrySendError::Disconnected(_) => "the commit thread is gone".to_owned(),
            })
    }

    /// Ends the thread after the requests that it has.
    pub(super) fn join(self) {
        let Committer { requests, thread } = self;
        drop(requests);
        if thread.join().is_err() {
            tracing::error!("the commit thread panicked");
        }
    }
}

/// The thread that waits.
struct Sender {
    client: Arc<Client>,
    keeper: Option<Keeper>,
    /// Commits in their place, where positions are committed in transactions.
    transactions: Option<Waiting>,
    listeners: Listeners,
}

impl Sender {
    fn carry_out(&self, mut request: Request) {
        let result = self.commit(&mut request);
        let commit = request.id;
        let mailbox = &self.listeners.mailbox;
        mailbox.send(Event::CommitDone { commit, result });
    }

    fn commit(&self, request: &mut Request) -> Result<(), String> {
        request.leave_out_gone();
        if let Some(keeper) = &self.keeper {
            keeper.write(request.id, &mut request.parts, &self.listeners);
            // That may have taken its time.
            request.leave_out_gone();
        }
        if request.parts.is_empty() {
            return Ok(());
        }
        let positions = request.positions().map_err(|error| error.to_string())?;
        let result = self.send(&positions);
        self.listeners.tell(&positions, &result);
        if let (Some(keeper), Ok(())) = (&self.keeper, &result) {
            keeper.remove(&request.parts);
        }
        result
    }

    /// An error of one partition is one of the whole request: all of it is sent again.
    fn send(&self, positions: &TopicPartitionList) -> Result<(), String> {
        if let Some(transactions) = &self.transactions {
            return transactions.commit(positions);
        }
        let sent = self.client.commit(positions, CommitMode::Sync);
        let sent = sent.map_err(|error| {
            if error.rdkafka_error_code() == Some(Code::OffsetMetadataTooLarge) {
                self.listeners.mailbox.send(Event::MetadataRefused);
            }
            error.to_string()
        });
        if mutation::is(Fault::CommitErrorIgnored) {
            return Ok(());
        }
        sent
    }
}

impl Request {
    /// Leaves out partitions that were given back or lost since.
    fn leave_out_gone(&mut self) {
        if mutation::is(Fault::GonePartitionsCommitted) {
            return;
        }
        let before = self.parts.len();
        self.parts.retain(|part| !part.stay.is_over());
        let gone = before - self.parts.len();
        if gone > 0 {
            tracing::info!(
                partitions = gone,
                "positions of partitions that are gone were not committed"
            );
        }
    }

    fn positions(&self) -> KafkaResult<TopicPartitionList> {
        let mut list = TopicPartitionList::with_capacity(self.parts.len());
        for part in &self.parts {
            let mut element = list.add_partition(&part.topic, part.partition);
            element.set_offset(Offset::Offset(part.position.offset.0))?;
            if !part.position.metadata.is_empty() {
                element.set_metadata(&part.position.metadata);
            }
        }
        Ok(list)
    }
}

impl Listeners {
    fn tell(&self, positions: &TopicPartitionList, result: &Result<(), String>) {
        if let Err(error) = result {
            tracing::warn!(error, "a commit failed");
            return self.observer.observe(&Observation::CommitFailed { error });
        }
        self.counters.commits.fetch_add(1, Ordering::Relaxed);
        for element in positions.elements() {
            if let Offset::Offset(offset) = element.offset() {
                let (topic, partition) = (element.topic(), element.partition());
                self.observer.observe(&Observation::Committed {
                    topic,
                    partition,
                    offset,
                });
            }
        }
    }
}
