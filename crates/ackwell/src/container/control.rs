//! What can be asked of a running listener, and how it answers.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ackwell_core::seek::OutOfRange;

/// Partitions that may be paused by name at the same time: a bound on a mistake, far above what
/// one container owns.
const PAUSED_MAX: usize = 10_000;

/// A partition by its name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicPartition {
    /// The topic.
    pub topic: Arc<str>,
    /// The partition's number.
    pub partition: i32,
}

impl TopicPartition {
    /// A partition by its name.
    pub fn new(topic: impl Into<Arc<str>>, partition: i32) -> Self {
        let topic = topic.into();
        TopicPartition { topic, partition }
    }
}

impl std::fmt::Display for TopicPartition {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}-{}", self.topic, self.partition)
    }
}

/// A partition that a listener owns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AssignedPartition {
    /// Which one.
    pub partition: TopicPartition,
    /// Its earliest unsettled offset; `None` while neither the group has committed one nor a
    /// record has come.
    pub position: Option<i64>,
    /// Whether it is paused by request, alone or with the whole listener.
    pub paused: bool,
}

/// Why a listener did not do what it was asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ControlError {
    /// It does not run.
    #[error("the listener is stopped; start it first")]
    Stopped,
    /// It does not read this topic.
    #[error("the listener does not read the topic `{topic}`")]
    NotSubscribed {
        /// The topic.
        topic: String,
    },
    /// Another member of its group owns the partition, or nobody does yet.
    #[error("{partition} is not assigned to this listener; ask the one that owns it")]
    NotAssigned {
        /// The partition.
        partition: TopicPartition,
    },
    /// The partition went to another member before the seek could be carried out.
    #[error("{partition} was revoked before the seek was carried out")]
    Revoked {
        /// The partition.
        partition: TopicPartition,
    },
    /// The log does not hold the wanted offset.
    #[error("{partition}: {problem}")]
    OutOfRange {
        /// The partition.
        partition: TopicPartition,
        /// What was wanted, and what there is.
        problem: OutOfRange,
    },
    /// A later seek of the same partition took its place.
    #[error("a later seek of {partition} took the place of this one")]
    Superseded {
        /// The partition.
        partition: TopicPartition,
    },
    /// The broker did not say what the log holds.
    #[error("the broker did not say what {partition} holds: {reason}")]
    Lookup {
        /// The partition.
        partition: TopicPartition,
        /// What the client said.
        reason: String,
    },
    /// Reading has stopped for good: `auto.offset.reset` is `error`, and the log does not hold
    /// the group's position.
    #[error(
        "the client has stopped reading {partition}; set the group's position, then stop and start the listener"
    )]
    ReadingStopped {
        /// The partition.
        partition: TopicPartition,
    },
    /// More partitions are paused by name than any listener owns.
    #[error("{PAUSED_MAX} partitions are paused already")]
    TooManyPauses,
}

/// What is paused by request; outlasts rebalances, and the container if it is started anew.
#[derive(Debug, Default)]
pub(crate) struct Pauses(Mutex<Paused>);

#[derive(Debug, Default)]
struct Paused {
    all: bool,
    partitions: BTreeSet<TopicPartition>,
}

impl Pauses {
    pub(crate) fn set_all(&self, paused: bool) {
        self.lock().all = paused;
    }

    pub(crate) fn all(&self) -> bool {
        self.lock().all
    }

    pub(crate) fn partitions(&self) -> Vec<TopicPartition> {
        self.lock().partitions.iter().cloned().collect()
    }

    pub(crate) fn pause(&self, partition: &TopicPartition) -> Result<(), ControlError> {
        let mut paused = self.lock();
        if paused.partitions.len() >= PAUSED_MAX && !paused.partitions.contains(partition) {
            return Err(ControlError::TooManyPauses);
        }
        paused.partitions.insert(partition.clone());
        Ok(())
    }

    pub(crate) fn resume(&self, partition: &TopicPartition) {
        self.lock().partitions.remove(partition);
    }

    fn lock(&self) -> MutexGuard<'_, Paused> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
