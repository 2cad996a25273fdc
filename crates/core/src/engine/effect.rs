//! What the engine asks for.

use super::event::{CommitId, Failure, FirstFailure, Nack, PartitionId, RunId};
use crate::Timestamp;
use crate::lane::LaneId;
use crate::offset::CommitOffset;
use crate::settle::{Destination, Settlement};

/// Something to do. Effects are carried out in their order.
#[derive(Debug, Clone)]
pub enum Effect<R> {
    /// Handle these records one after another; report by `Progress` and `Finished`.
    Dispatch {
        /// Its number.
        run: RunId,
        /// Where the records come from.
        partition: PartitionId,
        /// Their lane; it has no other run.
        lane: LaneId,
        /// Which attempt it is for the first of them since it was polled, from 1; the others were
        /// not tried yet.
        attempt: u32,
        /// At least one.
        records: Vec<R>,
    },
    /// Start no more records of this run; end it as cancelled when the one in work is done.
    Halt {
        /// Which run.
        run: RunId,
    },
    /// Drop what is in work of this run and end it as cancelled.
    Cancel {
        /// Which run.
        run: RunId,
    },
    /// Put this record where it is safe and answer by `Recovered`.
    Recover {
        /// Its number.
        recovery: RunId,
        /// Where the record comes from.
        partition: PartitionId,
        /// The record.
        record: R,
        /// Where it goes.
        destination: Destination,
        /// Why it can't be handled.
        failure: Failure,
        /// How often it was tried, everywhere.
        attempts: u32,
        /// How it failed first, if this was not its first failure.
        first: Option<FirstFailure>,
    },
    /// Try the parked records of this partition that are due; report by `AttemptFailed` and
    /// `Retried`.
    Retry {
        /// Its number.
        run: RunId,
        /// Which partition; it has no other retry.
        partition: PartitionId,
    },
    /// An attempt has failed: for logs and metrics.
    Failed {
        /// Where the record comes from.
        partition: PartitionId,
        /// Its offset.
        offset: i64,
        /// Why.
        failure: Failure,
        /// Which attempt it was, from 1, those made before it came by a retry topic included.
        attempt: u32,
        /// What follows.
        settlement: Settlement,
    },
    /// Commit these positions in one request and answer by `CommitDone`.
    Commit {
        /// Its number.
        commit: CommitId,
        /// At least one.
        positions: Vec<Position>,
    },
    /// Take no more acknowledgements of this run: report those that have come and answer by
    /// `Closed`. What comes later is stale.
    Close {
        /// Which run.
        run: RunId,
    },
    /// The answer to who waits for the commit of an acknowledged record.
    Answer {
        /// The number that came with the acknowledgement.
        waiter: u64,
        /// Whether the broker knows that the record is settled; if not, its partition went to
        /// somebody else before that.
        committed: bool,
    },
    /// A handled record was refused: for logs and metrics.
    Nacked {
        /// Where the record comes from.
        partition: PartitionId,
        /// Its offset.
        offset: i64,
        /// How.
        nack: Nack,
    },
    /// A handled record waits for its acknowledgement for too long: for logs.
    Unacknowledged {
        /// Where the record comes from.
        partition: PartitionId,
        /// Its offset.
        offset: i64,
        /// Since when it waits.
        since: Timestamp,
    },
    /// Deliver nothing of these partitions until resumed.
    Pause(Vec<PartitionId>),
    /// Deliver these partitions again.
    Resume(Vec<PartitionId>),
    /// Read on from here; what was fetched from elsewhere must not be delivered any more.
    Seek {
        /// Which partition.
        partition: PartitionId,
        /// The next offset to read.
        to: CommitOffset,
    },
    /// Nothing of these partitions is in work any more, and their last commit is yet to come:
    /// tell whoever wants to know, and answer by [`Flushed`](super::Event::Flushed). Only with
    /// [`flush_wait`](super::Config::flush_wait).
    Flush(Vec<PartitionId>),
    /// These partitions may be handed over.
    RevokeDone(Vec<PartitionId>),
    /// Nothing is in work and everything settled is committed, as far as that was possible. With
    /// a problem, the container stopped by itself.
    Stopped {
        /// Why it stopped by itself.
        problem: Option<String>,
    },
    /// The container turned unhealthy for this reason, or healthy.
    Health {
        /// What is wrong.
        problem: Option<String>,
    },
}

/// A position to commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Position {
    /// Which partition.
    pub partition: PartitionId,
    /// The next offset to read.
    pub offset: CommitOffset,
    /// What is settled beyond it, see [`metadata`](crate::metadata).
    pub metadata: String,
    /// What to do with what is settled beyond it and has no room in the metadata.
    pub snapshot: Snapshot,
}

/// What becomes of a partition's snapshot with a commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Snapshot {
    /// There is none, or it is still right.
    Keep,
    /// It is written before the commit, whose metadata is then a
    /// [reference](crate::metadata::refer_up_to) to it. If it can't be written, the position is
    /// committed with the metadata that it has, which knows less.
    Write {
        /// The slot that is free.
        slot: u8,
        /// The snapshot.
        bytes: Vec<u8>,
    },
    /// It is not needed any more, once the commit is done.
    Remove,
}
