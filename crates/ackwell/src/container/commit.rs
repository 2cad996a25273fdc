//! Settled positions go to the broker, one request in flight.
//!
//! The client tells the outcome of a commit only to a caller that waits for it, so a thread waits
//! while the poll thread goes on. It also writes what has no room in the commit, before it.

use std::collections::HashMap;
use std::io;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use ackwell_core::engine::{CommitId, Event, Position, Snapshot as ToDo};
use ackwell_core::metadata::{self, Metadata, Reference, snapshot};
use ackwell_core::offset::CommitOffset;
use rdkafka::consumer::{CommitMode, Consumer};
use rdkafka::error::{KafkaResult, RDKafkaErrorCode as Code};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList, TopicPartitionListElem};
use tokio::runtime::Handle;

use super::consumer::{Client, Named};
use super::mailbox::Mailbox;
use super::observation::{Observation, Observer};
use super::snapshots::{Origin, Snapshot, SnapshotStore, StoreError, Wanted};
use super::stats::Counters;
use super::track::Partitions;
use super::transactions::Waiting;

/// Requests that may wait. The engine has one in flight and gives it up when it takes too long;
/// while that one still blocks, the next waits here, and one more is refused.
const WAITING_MAX: usize = 1;
/// How long the store may take to write what has no room in a commit; then the position is committed
/// without it.
const STORE_WAIT: Duration = Duration::from_secs(5);

/// How long the broker may take to say which positions it has.
const PROOF_WAIT: Duration = Duration::from_secs(5);

/// Sends commits and awaits their answers.
pub(super) struct Committer {
    group: Arc<str>,
    requests: SyncSender<Request>,
    thread: JoinHandle<()>,
}

struct Request {
    id: CommitId,
    positions: TopicPartitionList,
    writes: Vec<Write>,
    removes: Vec<Origin>,
}

/// A snapshot and the position that shall refer to it.
struct Write {
    position: Position,
    snapshot: Snapshot,
}

/// Whom an answer concerns.
pub(super) struct Listeners {
    pub(super) mailbox: Mailbox,
    pub(super) observer: Arc<dyn Observer>,
    pub(super) counters: Arc<Counters>,
}

/// Where snapshots are kept, and how to wait for it.
#[derive(Clone)]
pub(super) struct Keeper {
    pub(super) store: Arc<dyn SnapshotStore>,
    pub(super) runtime: Handle,
    pub(super) group: Arc<str>,
    /// Bytes of metadata beside a position.
    pub(super) room: usize,
}

impl Committer {
    pub(super) fn start(
        (name, group): (&str, &str),
        client: Arc<Client>,
        (keeper, transactions): (Option<Keeper>, Option<Waiting>),
        listeners: Listeners,
    ) -> io::Result<Self> {
        let (requests, inbox) = sync_channel::<Request>(WAITING_MAX);
        let mut proof = Proof::default();
        let work = move || {
            for mut request in inbox {
                if let Some(keeper) = &keeper {
                    keeper.write(&mut request, &listeners);
                }
                let result = match &transactions {
                    Some(transactions) => transactions.commit(&request.positions),
                    None => commit(&client, &request.positions, &listeners.mailbox)
                        .and_then(|()| proof.look(&client, &request.positions, &listeners.mailbox)),
                };
                listeners.tell(&request.positions, &result);
                if let (Some(keeper), Ok(())) = (&keeper, &result) {
                    keeper.remove(&request.removes);
                }
                let commit = request.id;
                listeners.mailbox.send(Event::CommitDone { commit, result });
            }
        };
        let thread = thread::Builder::new()
            .name(format!("commit-{name}"))
            .spawn(work)?;
        Ok(Committer {
            group: group.into(),
            requests,
            thread,
        })
    }

    /// Sends a request; its answer comes as an event.
    pub(super) fn send(
        &self,
        partitions: &Partitions,
        id: CommitId,
        positions: Vec<Position>,
    ) -> Result<(), String> {
        let request = self
            .request(partitions, id, positions)
            .map_err(|error| error.to_string())?;
        self.requests
            .try_send(request)
            .map_err(|error| match error {
                TrySendError::Full(_) => "the broker has not answered earlier commits".to_owned(),
                TrySendError::Disconnected(_) => "the commit thread is gone".to_owned(),
            })
    }

    fn request(
        &self,
        partitions: &Partitions,
        id: CommitId,
        positions: Vec<Position>,
    ) -> KafkaResult<Request> {
        let mut list = TopicPartitionList::with_capacity(positions.len());
        let (mut writes, mut removes) = (Vec::new(), Vec::new());
        for mut position in positions {
            let Some((topic, partition)) = partitions.name(position.partition) else {
                continue;
            };
            let mut element = list.add_partition(topic, *partition);
            element.set_offset(Offset::Offset(position.offset.0))?;
            if !position.metadata.is_empty() {
                element.set_metadata(&position.metadata);
            }
            let origin = || Origin {
                group: Arc::clone(&self.group),
                topic: Arc::clone(topic),
                partition: *partition,
            };
            match std::mem::replace(&mut position.snapshot, ToDo::Keep) {
                ToDo::Keep => {}
                ToDo::Remove => removes.push(origin()),
                ToDo::Write { slot, bytes } => writes.push(Write {
                    position,
                    snapshot: Snapshot {
                        origin: origin(),
                        slot,
                        bytes,
                    },
                }),
            }
        }
        Ok(Request {
            id,
            positions: list,
            writes,
            removes,
        })
    }

    /// Ends the thread after the requests that it has.
    pub(super) fn join(self) {
        let Committer {
            requests, thread, ..
        } = self;
        drop(requests);
        if thread.join().is_err() {
            tracing::error!("the commit thread panicked");
        }
    }
}

fn commit(
    client: &Client,
    positions: &TopicPartitionList,
    mailbox: &Mailbox,
) -> Result<(), String> {
    client.commit(positions, CommitMode::Sync).map_err(|error| {
        if error.rdkafka_error_code() == Some(Code::OffsetMetadataTooLarge) {
            mailbox.send(Event::MetadataRefused);
        }
        error.to_string()
    })
}

impl Keeper {
    /// Writes snapshots and has their positions refer to them. If that fails, positions go with
    /// the metadata that they have, and a restart repeats more.
    fn write(&self, request: &mut Request, listeners: &Listeners) {
        if request.writes.is_empty() {
            return;
        }
        let writes = std::mem::take(&mut request.writes);
        let (positions, snapshots): (Vec<_>, Vec<_>) = writes
            .into_iter()
            .map(|Write { position, snapshot }| (position, snapshot))
            .unzip();
        let places = match self.wait(async { self.store.write(&snapshots).await }) {
            Ok(places) => places,
            Err(error) => {
                tracing::warn!(
                    error,
                    "what is settled beyond the position could not be kept"
                );
                return;
            }
        };
        listeners
            .counters
            .snapshots
            .fetch_add(snapshots.len() as u64, Ordering::Relaxed);
        for ((position, snapshot), place) in positions.iter().zip(&snapshots).zip(places) {
            if self.refer(&mut request.positions, position, snapshot, &place) {
                listeners.mailbox.send(Event::Stored {
                    commit: request.id,
                    partition: position.partition,
                    place,
                });
            }
        }
    }

    fn refer(
        &self,
        list: &mut TopicPartitionList,
        position: &Position,
        written: &Snapshot,
        place: &[u8],
    ) -> bool {
        let reference = Reference {
            slot: written.slot,
            checksum: snapshot::checksum_of(&written.bytes),
            place: place.to_vec(),
        };
        let nothing = std::iter::empty();
        let (text, whole) = metadata::refer_up_to(position.offset, &reference, nothing, self.room);
        let Origin {
            topic, partition, ..
        } = &written.origin;
        match list.find_partition(topic, *partition) {
            Some(mut element) if whole => {
                element.set_metadata(&text);
                true
            }
            _ => false,
        }
    }

    fn remove(&self, origins: &[Origin]) {
        if origins.is_empty() {
            return;
        }
        if let Err(error) = self.wait(async { self.store.remove(origins).await }) {
            tracing::debug!(error, "snapshots that are not needed could not be removed");
        }
    }

    /// The snapshots that the metadata of these positions refers to.
    pub(super) fn read(
        &self,
        positions: &HashMap<Named, (CommitOffset, String)>,
    ) -> HashMap<Named, Vec<u8>> {
        let referring = positions.iter().filter_map(|(named, (position, text))| {
            match metadata::decode(*position, text) {
                Metadata::Referring(reference, _) => Some((named, reference)),
                Metadata::Settled(_) | Metadata::Unreadable | Metadata::Foreign(_) => None,
            }
        });
        let (named, wanted): (Vec<_>, Vec<_>) = referring
            .map(|(named, reference)| {
                let wanted = Wanted {
                    origin: Origin {
                        group: Arc::clone(&self.group),
                        topic: named.0.as_str().into(),
                        partition: named.1,
                    },
                    slot: reference.slot,
                    place: reference.place,
                };
                (named.clone(), wanted)
            })
            .unzip();
        if wanted.is_empty() {
            return HashMap::new();
        }
        match self.wait(async { self.store.read(&wanted).await }) {
            Ok(found) => {
                let found = named.into_iter().zip(found);
                found
                    .filter_map(|(named, bytes)| Some((named, bytes?)))
                    .collect()
            }
            Err(error) => {
                tracing::warn!(error, "what is settled beyond positions could not be read");
                HashMap::new()
            }
        }
    }

    /// Awaits what the store does, which may need the runtime from its first moment on.
    fn wait<T>(&self, work: impl Future<Output = Result<T, StoreError>>) -> Result<T, String> {
        let work = async { tokio::time::timeout(STORE_WAIT, work).await };
        // The runtime may be gone before the listener is.
        let waited = std::panic::catch_unwind(AssertUnwindSafe(|| self.runtime.block_on(work)));
        match waited {
            Ok(Ok(result)) => result.map_err(|error| error.to_string()),
            Ok(Err(_)) => Err(format!("no answer within {} s", STORE_WAIT.as_secs())),
            Err(_) => Err("the runtime has ended".to_owned()),
        }
    }
}

/// How much metadata the broker was seen to take.
///
/// The client tells of an error only if it concerns all partitions of a commit. Metadata that is
/// longer than any before is therefore looked at once: a position that is not there was refused.
#[derive(Default)]
struct Proof {
    bytes: usize,
}

impl Proof {
    fn look(
        &mut self,
        client: &Client,
        committed: &TopicPartitionList,
        mailbox: &Mailbox,
    ) -> Result<(), String> {
        let elements = committed.elements();
        let length = |element: &TopicPartitionListElem<'_>| element.metadata().len();
        let new = elements
            .iter()
            .filter(|element| length(element) > self.bytes);
        let mut asked = TopicPartitionList::new();
        let mut wanted = Vec::new();
        for element in new {
            asked.add_partition(element.topic(), element.partition());
            wanted.push(element);
        }
        let Some(longest) = wanted.iter().map(|element| length(element)).max() else {
            return Ok(());
        };
        let found = client.committed_offsets(asked, PROOF_WAIT);
        let found = found.map_err(|error| format!("seeing whether it was stored: {error}"))?;
        let stored = |element: &&TopicPartitionListElem<'_>| {
            let there = found.find_partition(element.topic(), element.partition());
            there.is_some_and(|there| there.offset() == element.offset())
        };
        if wanted.iter().all(stored) {
            self.bytes = longest;
            return Ok(());
        }
        tracing::warn!(bytes = longest, "the broker does not take so much metadata");
        mailbox.send(Event::MetadataRefused);
        Err(format!(
            "the broker does not take {longest} bytes of metadata beside a position"
        ))
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
