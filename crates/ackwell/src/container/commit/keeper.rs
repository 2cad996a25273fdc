//! What has no room in a commit is written before it, and removed behind it.

use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use ackwell_core::engine::{CommitId, Event, Snapshot as ToDo};
use ackwell_core::metadata::{self, Metadata, Reference, snapshot};
use ackwell_core::offset::CommitOffset;
use tokio::runtime::Handle;

use super::super::consumer::Named;
use super::super::snapshots::{Origin, Snapshot, SnapshotStore, StoreError, Wanted};
use super::{Listeners, Part};

/// How long the store may take to write what has no room in a commit; then the position is committed
/// without it.
const STORE_WAIT: Duration = Duration::from_secs(5);

/// Where snapshots are kept, and how to wait for it.
#[derive(Clone)]
pub(in crate::container) struct Keeper {
    pub(in crate::container) store: Arc<dyn SnapshotStore>,
    pub(in crate::container) runtime: Handle,
    pub(in crate::container) group: Arc<str>,
    /// Bytes of metadata beside a position.
    pub(in crate::container) room: usize,
}

impl Keeper {
    /// Writes snapshots and has their positions refer to them. If that fails, positions go with
    /// the metadata that they have, and a restart repeats more.
    pub(super) fn write(&self, commit: CommitId, parts: &mut [Part], listeners: &Listeners) {
        let (mut writing, mut snapshots) = (Vec::new(), Vec::new());
        for part in parts {
            let origin = self.origin(part);
            match std::mem::replace(&mut part.position.snapshot, ToDo::Keep) {
                ToDo::Write { slot, bytes } => {
                    writing.push(part);
                    snapshots.push(Snapshot {
                        origin,
                        slot,
                        bytes,
                    });
                }
                other => part.position.snapshot = other,
            }
        }
        if snapshots.is_empty() {
            return;
        }
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
        let counter = &listeners.counters.snapshots;
        counter.fetch_add(snapshots.len() as u64, Ordering::Relaxed);
        for ((part, snapshot), place) in writing.into_iter().zip(&snapshots).zip(places) {
            if self.refer(part, snapshot, &place) {
                listeners.mailbox.send(Event::Stored {
                    commit,
                    partition: part.position.partition,
                    place,
                });
            }
        }
    }

    fn refer(&self, part: &mut Part, written: &Snapshot, place: &[u8]) -> bool {
        let reference = Reference {
            slot: written.slot,
            checksum: snapshot::checksum_of(&written.bytes),
            place: place.to_vec(),
        };
        let (nothing, offset) = (std::iter::empty(), part.position.offset);
        let (text, whole) = metadata::refer_up_to(offset, &reference, nothing, self.room);
        if whole {
            part.position.metadata = text;
        }
        whole
    }

    /// Removes the snapshots that the parts do not need any more.
    pub(super) fn remove(&self, parts: &[Part]) {
        let needless = parts
            .iter()
            .filter(|part| part.position.snapshot == ToDo::Remove);
        let origins: Vec<_> = needless.map(|part| self.origin(part)).collect();
        if origins.is_empty() {
            return;
        }
        if let Err(error) = self.wait(async { self.store.remove(&origins).await }) {
            tracing::debug!(error, "snapshots that are not needed could not be removed");
        }
    }

    fn origin(&self, part: &Part) -> Origin {
        Origin {
            group: Arc::clone(&self.group),
            topic: Arc::clone(&part.topic),
            partition: part.partition,
        }
    }

    /// The snapshots that the metadata of these positions refers to.
    pub(in crate::container) fn read(
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
