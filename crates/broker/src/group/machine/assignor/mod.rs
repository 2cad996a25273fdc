//! Who shall read what: the assignors that run in the coordinator (KIP-848).
//!
//! They see the whole group at once and answer with a target for every member. What a member
//! already has is a wish, not a right: moving a partition costs a pause and perhaps work done
//! twice, so the uniform assignor moves as few as balance allows.

mod range;
mod uniform;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use kafka_protocol::protocol::StrBytes;
use uuid::Uuid;

use crate::group::record::Partitions;

/// An assignor, by the name that members ask for it with.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Assignor {
    /// Evenly, and with as few moves as possible.
    #[default]
    Uniform,
    /// Of each topic a range to each member, so that equal partitions of several topics meet.
    Range,
}

/// A member as an assignor sees it.
#[derive(Debug, Clone)]
pub(super) struct Subscriber {
    pub(super) id: StrBytes,
    pub(super) instance_id: Option<StrBytes>,
    /// The topics that it reads and that exist, sorted.
    pub(super) topics: Vec<Uuid>,
    /// What it was to have before.
    pub(super) had: Partitions,
}

impl Assignor {
    const ALL: [Self; 2] = [Self::Uniform, Self::Range];

    pub(super) fn named(name: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|assignor| assignor.name() == name)
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Uniform => "uniform",
            Self::Range => "range",
        }
    }

    /// The names, for an error message.
    pub(super) fn names() -> String {
        Self::ALL.map(Self::name).join(", ")
    }

    /// A target for each member, in their order. `topics` has the number of partitions of each.
    pub(super) fn assign(
        self,
        members: &[Subscriber],
        topics: &BTreeMap<Uuid, i32>,
    ) -> Vec<Partitions> {
        match self {
            Self::Uniform => uniform::assign(members, topics),
            Self::Range => range::assign(members, topics),
        }
    }
}
