//! Settled positions go to the broker, one request in flight.
//!
//! A thread of its own sends them and waits for each answer. A commit that nobody waits for would
//! never be answered: librdkafka tells such answers only to an `offset_commit_cb`, which the Rust
//! client does not set. The poll thread must not wait, so it hears of the answer as of any event.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::Duration;
use std::{fmt, io};

use ackwell_core::engine::{CommitId, Position};
use rdkafka::consumer::{CommitMode, Consumer};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use super::consumer::{Client, Told};
use super::mailbox::Waker;
use super::spec::{Observation, Observer};
use super::track::Partitions;

/// How long the container's end waits for an answer that the engine waits for no longer.
const CLOSE_WAIT: Duration = Duration::from_secs(1);

/// Requests that the broker has not answered yet; they are answered in their order.
///
/// The channel needs no bound of its own: the engine has one request in flight, and sends another
/// without an answer only after its `commit_wait`.
pub(super) struct Commits {
    sent: VecDeque<(CommitId, Vec<Position>)>,
    requests: Option<Sender<TopicPartitionList>>,
    /// Nothing is sent here; it is closed when the thread has ended.
    ended: Receiver<()>,
}

impl Commits {
    /// Starts the thread that sends.
    pub(super) fn start(listener: &str, client: Arc<Client>, waker: Waker) -> io::Result<Self> {
        let (requests, waiting) = channel::<TopicPartitionList>();
        let (ending, ended) = channel();
        thread::Builder::new()
            .name(format!("commit-{listener}"))
            .spawn(move || {
                for positions in waiting {
                    let answer = client.commit(&positions, CommitMode::Sync);
                    let answer = answer.map_err(|error| error.to_string());
                    client.context().tell(Told::Committed(answer));
                    waker.wake();
                }
                drop(client);
                drop::<Sender<()>>(ending);
            })?;
        Ok(Self {
            sent: VecDeque::new(),
            requests: Some(requests),
            ended,
        })
    }

    /// Ends the thread, which must let go of the client before it can leave the group.
    pub(super) fn close(&mut self) {
        self.requests = None;
        // Closed or timed out: there is nothing more to do in either case.
        let _ = self.ended.recv_timeout(CLOSE_WAIT);
    }

    /// Sends a request.
    pub(super) fn send(
        &mut self,
        partitions: &Partitions,
        id: CommitId,
        positions: Vec<Position>,
    ) -> KafkaResult<()> {
        let mut list = TopicPartitionList::with_capacity(positions.len());
        for position in &positions {
            let Some((topic, partition)) = partitions.name(position.partition) else {
                continue;
            };
            let mut element = list.add_partition(topic, *partition);
            element.set_offset(Offset::Offset(position.offset.0))?;
            if !position.metadata.is_empty() {
                element.set_metadata(&position.metadata);
            }
        }
        let sent = self
            .requests
            .as_ref()
            .is_some_and(|requests| requests.send(list).is_ok());
        if !sent {
            return Err(KafkaError::Canceled);
        }
        self.sent.push_back((id, positions));
        Ok(())
    }

    /// The earliest request was answered.
    pub(super) fn answered(
        &mut self,
        result: &Result<(), String>,
        partitions: &Partitions,
        observer: &dyn Observer,
    ) -> Option<CommitId> {
        let (id, positions) = self.sent.pop_front()?;
        match result {
            Ok(()) => {
                for position in &positions {
                    if let Some((topic, partition)) = partitions.name(position.partition) {
                        let offset = position.offset.0;
                        observer.observe(&Observation::Committed {
                            topic,
                            partition: *partition,
                            offset,
                        });
                    }
                }
            }
            Err(error) => {
                tracing::warn!(error, "a commit failed");
                observer.observe(&Observation::CommitFailed { error });
            }
        }
        Some(id)
    }
}

impl fmt::Debug for Commits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Commits")
            .field("sent", &self.sent)
            .finish_non_exhaustive()
    }
}
