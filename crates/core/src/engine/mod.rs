//! The container: events in, effects out.
//!
//! A container reads partitions of a group, hands their records to lanes, and commits what has
//! settled. All of its decisions are here; the shell polls, spawns, sends and waits. Records move
//! through by value in chunks, so that a record costs no allocation and, while its lane keeps up,
//! no move of its own.
//!
//! | file | decides |
//! |---|---|
//! | `event.rs`, `effect.rs` | what comes in and what goes out |
//! | `partition.rs`, `lane.rs` | what waits, what is in work, what is settled |
//! | `dispatch.rs` | what may be handled now, what is paused |
//! | `outcome.rs` | what a run's end leads to: settle, retry, recover, probe, stop |
//! | `recovery.rs` | what is written elsewhere, and what follows when that fails |
//! | `manual.rs`, `manual/` | which handled records wait for an acknowledgement, what a refusal leads to, and what waits too long |
//! | `beyond.rs` | what a commit tells of what is settled beyond its position |
//! | `ordered.rs` | when parked records are tried again, what waits for room |
//! | `commits.rs` | which positions are sent, and what a failed commit leads to |
//! | `handover.rs` | assign, revoke, lose, rewind, stop |
//! | `control.rs` | pauses and seeks by request, partitions that can't be read |

mod beyond;
mod commits;
mod config;
mod control;
mod dispatch;
mod effect;
mod event;
mod handover;
mod lane;
mod machine;
mod manual;
mod ordered;
mod outcome;
mod partition;
mod recovery;
#[cfg(test)]
mod tests;

pub use config::Config;
pub use effect::{Effect, Position, Snapshot};
pub use event::{Assigned, CommitId, End, Event, Failure, FirstFailure, Nack, PartitionId, RunId};
pub use machine::Engine;

use crate::Timestamp;

/// What the engine must know of a record. A clone must be cheap: one is made when a record is
/// recovered.
pub trait Record: Clone {
    /// Its offset within the partition.
    fn offset(&self) -> i64;
    /// A hash of its key; `None` without a key.
    fn key_hash(&self) -> Option<u64>;
    /// Its bytes, for the queue's limit.
    fn size(&self) -> usize;
    /// When it may be handled, if it has to wait: it came by a retry topic.
    fn due(&self) -> Option<Timestamp> {
        None
    }
    /// How many retry topics it has passed, the one that it was read from included.
    fn retries(&self) -> u32 {
        0
    }
    /// How often it was tried before it was written to the topic that it was read from.
    fn earlier_attempts(&self) -> u32 {
        0
    }
}
