//! The topics that there are, as far as groups are concerned: a snapshot, given with each request.

use std::collections::BTreeMap;
use std::sync::Arc;

use kafka_protocol::protocol::StrBytes;
use rustc_hash::FxHashMap;
use uuid::Uuid;

/// A snapshot of all topics. A newer one has a greater version.
#[derive(Debug, Default)]
pub(crate) struct Topics {
    version: u64,
    by_name: BTreeMap<StrBytes, (Uuid, i32)>,
    names: FxHashMap<Uuid, StrBytes>,
}

/// Snapshots are shared by all that happens between two changes of topics.
pub(crate) type SharedTopics = Arc<Topics>;

impl Topics {
    /// From names, ids and numbers of partitions.
    pub(crate) fn new(
        version: u64,
        topics: impl IntoIterator<Item = (StrBytes, Uuid, i32)>,
    ) -> Self {
        let mut all = Self {
            version,
            ..Self::default()
        };
        for (name, id, partitions) in topics {
            all.names.insert(id, name.clone());
            all.by_name.insert(name, (id, partitions));
        }
        all
    }

    pub(crate) fn version(&self) -> u64 {
        self.version
    }

    /// A topic's id and number of partitions.
    pub(super) fn get(&self, name: &StrBytes) -> Option<(Uuid, i32)> {
        self.by_name.get(name).copied()
    }

    pub(super) fn name(&self, id: Uuid) -> Option<&StrBytes> {
        self.names.get(&id)
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &StrBytes> {
        self.by_name.keys()
    }

    /// A number that changes when one of these topics appears, disappears or grows; 0: none is
    /// there. It is kept in the log, so that topics that change while the broker is down are seen.
    pub(super) fn hash<'a>(&self, names: impl IntoIterator<Item = &'a StrBytes>) -> i64 {
        let mut hash = Fnv::default();
        for name in names {
            let Some((id, partitions)) = self.get(name) else {
                continue;
            };
            hash.add(name.as_bytes());
            hash.add(id.as_bytes());
            hash.add(&partitions.to_be_bytes());
        }
        hash.finish()
    }
}

/// FNV-1a with 64 bits: the same in every version of this program, as what is on disk must be.
#[derive(Default)]
struct Fnv(Option<u64>);

impl Fnv {
    fn add(&mut self, bytes: &[u8]) {
        let start = self.0.unwrap_or(0xcbf2_9ce4_8422_2325);
        self.0 = Some(bytes.iter().fold(start, |hash, byte| {
            (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
        }));
    }

    fn finish(self) -> i64 {
        self.0.map_or(0, u64::cast_signed)
    }
}
