//! What is settled beyond a position, kept elsewhere when it outgrows the commit's metadata.
//!
//! A broker takes 4,096 bytes of metadata a partition, room for about a thousand gaps. What does
//! not fit would be handled again after a restart. So it is written to a [`SnapshotStore`] before the
//! commit, and the metadata refers to it; see [`metadata`](ackwell_core::metadata).

mod topic;

use std::error::Error;
use std::fmt;
use std::sync::Arc;

use futures_util::future::BoxFuture;

use super::spec::Spec;
pub use topic::SNAPSHOT_TOPIC;
use topic::TopicStore;

/// Where snapshots are kept.
#[derive(Clone, Debug, Default)]
pub enum Snapshots {
    /// In the listener's database, if its handler asks for one; otherwise in the compacted topic
    /// [`SNAPSHOT_TOPIC`], which is created when the first snapshot is written, unless
    /// `topics.create` is off. The default: most listeners never have so many gaps.
    #[default]
    Automatic,
    /// In this compacted topic; several groups may share it.
    Topic(String),
    /// In a store of one's own.
    Store(Arc<dyn SnapshotStore>),
    /// Nowhere: what does not fit into the metadata is handled again after a restart or rebalance.
    Off,
}

/// Whose snapshot it is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Origin {
    /// The consumer group.
    pub group: Arc<str>,
    /// The topic that it reads.
    pub topic: Arc<str>,
    /// The partition.
    pub partition: i32,
}

/// A snapshot to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// Whose it is.
    pub origin: Origin,
    /// Which of the origin's two slots it takes; what was there may be overwritten, and what is in
    /// the other one must stay.
    pub slot: u8,
    /// What it says.
    pub bytes: Vec<u8>,
}

/// A snapshot that is looked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Whose it is.
    pub origin: Origin,
    /// The slot that it was written to.
    pub slot: u8,
    /// What [`SnapshotStore::write`] said of it.
    pub place: Vec<u8>,
}

/// Why a store could not do what it was asked.
pub type StoreError = Box<dyn Error + Send + Sync>;

/// Keeps snapshots of what is settled beyond committed positions.
///
/// A snapshot that is lost, or is not what was written, costs repetition and nothing else: it is
/// recognised by its checksum.
pub trait SnapshotStore: Send + Sync + fmt::Debug + 'static {
    /// Makes snapshots durable; for each, what it takes to find it, in at most 32 bytes.
    ///
    /// # Errors
    /// When not all of them are durable.
    fn write<'a>(
        &'a self,
        snapshots: &'a [Snapshot],
    ) -> BoxFuture<'a, Result<Vec<Vec<u8>>, StoreError>>;

    /// Reads snapshots; `None` for one that is not there.
    ///
    /// # Errors
    /// When the store can't be read.
    fn read<'a>(
        &'a self,
        wanted: &'a [Wanted],
    ) -> BoxFuture<'a, Result<Vec<Option<Vec<u8>>>, StoreError>>;

    /// Forgets the snapshots of these origins, in both slots.
    ///
    /// # Errors
    /// When they may still be there, which does no harm.
    fn remove<'a>(&'a self, origins: &'a [Origin]) -> BoxFuture<'a, Result<(), StoreError>>;
}

/// The store of a listener.
pub(super) fn store(spec: &Spec) -> Option<Arc<dyn SnapshotStore>> {
    let topic = |name: &str| Arc::new(TopicStore::new(spec, name)) as Arc<dyn SnapshotStore>;
    match &spec.snapshots {
        // Nothing is ever settled behind something that is not.
        _ if spec.commit.settles_at_dispatch() => None,
        Snapshots::Off => None,
        Snapshots::Store(store) => Some(Arc::clone(store)),
        Snapshots::Topic(name) => Some(topic(name)),
        Snapshots::Automatic => {
            Some((spec.unit.snapshot_store()).unwrap_or_else(|| topic(SNAPSHOT_TOPIC)))
        }
    }
}
