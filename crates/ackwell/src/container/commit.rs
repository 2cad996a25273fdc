//! Settled positions go to the broker, one request in flight.
//!
//! The client tells the outcome of a commit only to a caller that waits for it, so a thread waits
//! while the poll thread goes on.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::thread::{self, JoinHandle};

use ackwell_core::engine::{CommitId, Event, Position};
use rdkafka::consumer::{CommitMode, Consumer};
use rdkafka::error::KafkaResult;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use super::consumer::Client;
use super::mailbox::Mailbox;
use super::spec::{Observation, Observer};
use super::stats::Counters;
use super::track::Partitions;

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
    positions: TopicPartitionList,
}

/// Whom an answer concerns.
pub(super) struct Listeners {
    pub(super) mailbox: Mailbox,
    pub(super) observer: Arc<dyn Observer>,
    pub(super) counters: Arc<Counters>,
}

impl Committer {
    pub(super) fn start(name: &str, client: Arc<Client>, listeners: Listeners) -> io::Result<Self> {
        let (requests, inbox) = sync_channel::<Request>(WAITING_MAX);
        let work = move || {
            for Request { id, positions } in inbox {
                let result = client.commit(&positions, CommitMode::Sync);
                let result = result.map_err(|error| error.to_string());
                listeners.tell(&positions, &result);
                listeners
                    .mailbox
                    .send(Event::CommitDone { commit: id, result });
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
        positions: &[Position],
    ) -> Result<(), String> {
        let positions = list(partitions, positions).map_err(|error| error.to_string())?;
        self.requests
            .try_send(Request { id, positions })
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

fn list(partitions: &Partitions, positions: &[Position]) -> KafkaResult<TopicPartitionList> {
    let mut list = TopicPartitionList::with_capacity(positions.len());
    for position in positions {
        let Some((topic, partition)) = partitions.name(position.partition) else {
            continue;
        };
        let mut element = list.add_partition(topic, *partition);
        element.set_offset(Offset::Offset(position.offset.0))?;
        if !position.metadata.is_empty() {
            element.set_metadata(&position.metadata);
        }
    }
    Ok(list)
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
