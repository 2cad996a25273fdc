//! What a commit tells of what is settled beyond its position.
//!
//! Most of the time it has room in the metadata. When it outgrows that, it is written once as a
//! snapshot; the metadata then refers to the snapshot and adds what was settled since, until that
//! outgrows it in turn. A snapshot counts only when the commit that refers to it is stored: until
//! then the one before it stays where it is, in the other of two slots. A commit that failed may be
//! stored all the same, its answer lost: then neither slot is overwritten before a later commit has
//! succeeded, and what has no room meanwhile is not told.

use super::config::Config;
use super::effect::Snapshot;
use super::event::Assigned;
use crate::metadata::{self, Metadata, Reference, snapshot};
use crate::mutation::{self, Fault};
use crate::offset::{CommitOffset, Span};

/// What is told of one partition.
#[derive(Debug, Default)]
pub(super) struct SettledBeyond {
    /// Metadata that is not ours and is carried on.
    foreign: Option<String>,
    /// The snapshot that the stored metadata refers to.
    base: Option<Base>,
    /// Slots that the stored metadata refers to if a commit that failed is stored all the same.
    in_doubt: [bool; 2],
    /// What becomes of it if the commit in flight is stored.
    sent: Sent,
    /// Whether what is stored tells of everything that had settled when it was sent.
    whole: bool,
}

/// A snapshot that can be referred to.
#[derive(Debug, Clone)]
struct Base {
    reference: Reference,
    spans: Vec<Span>,
    /// Whether it knows of everything that had settled.
    whole: bool,
}

/// What the commit in flight says.
#[derive(Debug, Default)]
struct Sent {
    whole: bool,
    base: NextBase,
}

#[derive(Debug, Default)]
enum NextBase {
    #[default]
    Same,
    /// The metadata has room again.
    Gone,
    /// A new one is being written; it counts once it is stored.
    Writing(Base),
    Stored(Base),
}

/// What goes with a position.
pub(super) struct Beyond {
    pub(super) metadata: String,
    pub(super) snapshot: Snapshot,
}

impl SettledBeyond {
    /// What an earlier owner has left, and what it says is settled.
    pub(super) fn found(assigned: &Assigned) -> (Self, Vec<Span>) {
        let mut beyond = SettledBeyond::default();
        let Some(position) = assigned.position else {
            return (beyond, Vec::new());
        };
        let settled = match metadata::decode(position, &assigned.metadata) {
            Metadata::Settled(spans) => spans,
            Metadata::Referring(reference, since) => {
                let bytes = assigned.snapshot.as_deref().unwrap_or_default();
                let spans = snapshot::read(&reference, bytes).unwrap_or_default();
                let all = snapshot::union(position, &spans, &since);
                beyond.base = Some(Base {
                    reference,
                    spans,
                    whole: true,
                });
                all
            }
            Metadata::Foreign(text) => {
                beyond.foreign = Some(text);
                Vec::new()
            }
            Metadata::Unreadable => Vec::new(),
        };
        (beyond, settled)
    }

    /// Whether the stored metadata tells of everything that had settled when it was sent.
    pub(super) fn is_whole(&self) -> bool {
        self.whole
    }

    /// What goes with `position` now; `spans` are settled beyond it.
    pub(super) fn send(
        &mut self,
        config: &Config,
        position: CommitOffset,
        spans: impl Iterator<Item = Span> + Clone,
    ) -> Beyond {
        let room = config.metadata_bytes;
        if let Some(foreign) = &self.foreign {
            let metadata = foreign.clone();
            let whole = spans.clone().next().is_none();
            return self.says(metadata, whole, NextBase::Same, Snapshot::Keep);
        }
        let (metadata, whole) = metadata::encode_up_to(position, spans.clone(), room);
        if whole && (self.base.is_some() || self.in_doubt.contains(&true)) {
            return self.says(metadata, true, NextBase::Gone, Snapshot::Remove);
        }
        if whole || !config.snapshots {
            return self.says(metadata, whole, NextBase::Same, Snapshot::Keep);
        }
        self.send_overflow(room, position, &spans.collect::<Vec<_>>(), metadata)
    }

    /// The same where the metadata is too small for `spans`; `earliest` has those that fit.
    fn send_overflow(
        &mut self,
        room: usize,
        position: CommitOffset,
        spans: &[Span],
        earliest: String,
    ) -> Beyond {
        let mut metadata = earliest;
        if let Some(base) = &self.base {
            let since = snapshot::difference(spans, &base.spans).into_iter();
            let (text, whole) = metadata::refer_up_to(position, &base.reference, since, room);
            if whole {
                let whole = base.whole;
                return self.says(text, whole, NextBase::Same, Snapshot::Keep);
            }
            metadata = text;
        }
        let Some(slot) = self.free_slot() else {
            return self.says(metadata, false, NextBase::Same, Snapshot::Keep);
        };
        let (bytes, whole) = snapshot::write(spans.iter().copied());
        let base = Base {
            reference: Reference {
                slot,
                checksum: snapshot::checksum_of(&bytes),
                place: Vec::new(),
            },
            spans: spans.to_vec(),
            whole,
        };
        let write = Snapshot::Write { slot, bytes };
        self.says(metadata, false, NextBase::Writing(base), write)
    }

    /// A slot that no stored metadata can refer to.
    fn free_slot(&self) -> Option<u8> {
        let based = |slot| {
            self.base
                .as_ref()
                .is_some_and(|base| base.reference.slot == slot)
        };
        let doubtful = |slot: u8| {
            let doubtful = self.in_doubt.get(usize::from(slot)).copied();
            doubtful.unwrap_or(true) && !mutation::is(Fault::SnapshotOverwritten)
        };
        [0, 1]
            .into_iter()
            .find(|slot| !based(*slot) && !doubtful(*slot))
    }

    fn says(
        &mut self,
        metadata: String,
        whole: bool,
        base: NextBase,
        snapshot: Snapshot,
    ) -> Beyond {
        self.sent = Sent { whole, base };
        Beyond { metadata, snapshot }
    }

    /// The snapshot of the commit in flight is durable, and the commit refers to it.
    pub(super) fn stored(&mut self, place: Vec<u8>) {
        let sent = std::mem::take(&mut self.sent);
        self.sent = match sent.base {
            NextBase::Writing(mut base) => {
                base.reference.place = place;
                Sent {
                    whole: base.whole,
                    base: NextBase::Stored(base),
                }
            }
            base => Sent { base, ..sent },
        };
    }

    /// The commit in flight has failed, as far as is known, or its answer will not count.
    pub(super) fn failed(&mut self) {
        let slot = match std::mem::take(&mut self.sent).base {
            NextBase::Same => return,
            // It may be removed yet, and nothing may refer to it any more.
            NextBase::Gone => self.base.take().map(|base| base.reference.slot),
            NextBase::Writing(base) | NextBase::Stored(base) => Some(base.reference.slot),
        };
        if let Some(doubtful) = slot.and_then(|slot| self.in_doubt.get_mut(usize::from(slot))) {
            *doubtful = true;
        }
    }

    /// The commit in flight is stored.
    pub(super) fn acknowledge(&mut self) {
        let Sent { whole, base } = std::mem::take(&mut self.sent);
        self.whole = whole;
        self.in_doubt = [false; 2];
        match base {
            NextBase::Same | NextBase::Writing(_) => {}
            NextBase::Gone => self.base = None,
            NextBase::Stored(base) => self.base = Some(base),
        }
    }
}
