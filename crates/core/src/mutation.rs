//! Real faults in the engine, to see that the simulation notices each of them.
//!
//! A checker that never complains proves nothing until it has complained. With the feature
//! `mutations`, one [`Fault`] at a time can be switched on in the current thread, and the code
//! that production runs does the wrong thing at that one place. Without the feature, which is how
//! the crate is always built but for that test, [`is`] is a constant `false` and nothing is left
//! of it. A build without debug assertions refuses the feature.

#![cfg_attr(
    not(feature = "mutations"),
    expect(unreachable_pub, reason = "the module is public with the feature")
)]

#[cfg(all(feature = "mutations", not(debug_assertions)))]
compile_error!("`mutations` builds faults into the engine: it is for tests, not for a release");

macro_rules! faults {
    ($($(#[doc = $what:literal])+ $name:ident,)+) => {
        /// One thing that the engine does wrong.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Fault {
            $($(#[doc = $what])+ $name,)+
        }

        #[cfg(feature = "mutations")]
        impl Fault {
            /// Each of them.
            pub const ALL: &[Fault] = &[$(Fault::$name,)+];

            /// What it does wrong, in a sentence.
            pub const fn what(self) -> &'static str {
                match self {
                    $(Fault::$name => concat!($($what,)+),)+
                }
            }
        }
    };
}

faults! {
    /// A position is committed one too far.
    CommitOneTooFar,
    /// An unsettled record is taken for a gap in the offsets.
    UnsettledTakenForGap,
    /// A gap in the offsets is taken for an unsettled record.
    GapTakenForUnsettled,
    /// What is settled beyond the first unsettled record is left out of the metadata.
    MetadataForgets,
    /// The metadata claims one record more than is settled.
    MetadataClaimsMore,
    /// What an earlier owner has settled, and says so in the metadata, is handled again.
    KnownHandledAgain,
    /// A run of an earlier generation still settles records.
    StaleProgressCounts,
    /// A partition dispatches while a run of an earlier generation is still in work.
    ZombieNotAwaited,
    /// A record that is retried goes behind those that wait in its lane.
    RetryForgetsOrder,
    /// A lane dispatches again while its run is in work.
    LaneDispatchedTwice,
    /// The records behind a failed one are never handled.
    RestOfFailureDropped,
    /// The records that a halted run did not begin count as settled.
    RestOfHaltedSettled,
    /// A retry does not wait.
    RetryTooEarly,
    /// A record that is handled on one lane resets the attempts of the others.
    AttemptsResetByNeighbour,
    /// The attempt that an outage interrupts counts.
    OutageUsesAttempts,
    /// Other records are dispatched during an outage.
    OutageKeepsDispatching,
    /// The end of an outage is never looked for.
    ProbeForgotten,
    /// A record counts as settled when its recovery begins.
    RecoveryNotAwaited,
    /// A recovery that failed counts as done.
    FailedRecoveryTakenAsDone,
    /// A commit that failed counts as done.
    FailedCommitTakenAsDone,
    /// A snapshot is overwritten although a commit without an answer may refer to it.
    SnapshotOverwritten,
    /// A late answer counts for the commit that is in flight now.
    AnswerOfAnotherCommit,
    /// A revoke does not wait for what is in work.
    DrainDoesNotWait,
    /// A drain goes on to the next records of its runs.
    DrainDoesNotHalt,
    /// A drain has no end.
    DrainWithoutLimit,
    /// A drain cancels what is in work at once.
    DrainCancelsAtOnce,
    /// A partition is handed over before its last commit is answered.
    HandoverWithoutCommit,
    /// Partitions that come while the container is paused are delivered.
    PauseLostOverRebalance,
    /// Records are dispatched while the container is paused.
    PauseKeepsDispatching,
    /// The pause of a partition is lost when the partition goes.
    PartitionPauseForgotten,
    /// A full queue does not pause its partition.
    QueueWithoutLimit,
    /// A seek backwards passes over what is unsettled before it.
    SeekForgetsUnsettled,
    /// A record of a retry topic is handled before it is due.
    DueTooEarly,
    /// With strict commits, the next record or poll does not wait for the broker's answer.
    StrictDoesNotWait,
    /// In a manual ack mode, a handler's return settles its record.
    ReturnSettles,
    /// An acknowledgement settles what was handled before its record as well.
    AcknowledgementCoversEarlier,
    /// A record that was refused goes behind those that wait in its lane.
    RefusalForgetsOrder,
    /// A record that was refused does not wait.
    RefusalTooEarly,
    /// Who waits for the commit of an acknowledged record is answered by any commit.
    AnsweredByAnyCommit,
    /// A drain does not wait for acknowledgements.
    DrainForgetsAcknowledgements,
    /// What is settled behind the failed record of a list is forgotten.
    SettledBehindForgotten,
    /// What is settled behind the failed record of a list settles what stands between, too.
    SettledBehindCoversOthers,
    /// A list that failed without naming a record is blamed on its first one.
    FirstOfListBlamed,
    /// A list that failed without naming a record is repeated whole.
    ListNeverHalved,
    /// A list does not wait to be filled.
    FillTooShort,
    /// A list that is not filled waits for ever.
    FillWithoutEnd,
    /// A record that is to be parked is dead-lettered.
    ParkedGivenUp,
    /// When a parked record is due is forgotten.
    RetryTimeForgotten,
    /// Who takes a partition over does not look at what is parked.
    ParkedNotTakenOver,
    /// Parked records are tried again before they are due.
    ParkedTooEarly,
    /// Parked records are tried again while the container is paused.
    PauseKeepsRetrying,
    /// Parked records of a paused partition are tried again.
    PartitionPauseKeepsRetrying,
    /// Parked records are tried again during an outage.
    OutageKeepsRetrying,
    /// A partition's parked records are tried again by two at once.
    TwoRetriesAtOnce,
    /// A drain does not wait for a retry of parked records.
    DrainForgetsRetries,
    /// Records that can't be taken on now count as settled.
    HeldTakenAsSettled,
    /// Records that can't be taken on now use up an attempt.
    HeldUsesAttempt,
    /// Health does not say that records can't be taken on.
    HeldNotTold,
    /// Records are dispatched before their assignment has been announced.
    HoldKeepsDispatching,
    /// A partition stays held when it has gone and comes back.
    HoldOutlivesPartition,
    /// What is behind a record that can't be read is taken.
    UnreadablePassedOver,
    /// What could not be read is never tried again.
    UnreadableNotTriedAgain,
    /// What could not be read is tried again at once.
    UnreadableTriedAtOnce,
    /// Health does not say that a partition can't be read.
    UnreadableNotTold,
}

/// Whether this fault is switched on.
#[cfg(not(feature = "mutations"))]
pub(crate) const fn is(_: Fault) -> bool {
    false
}

/// What a failure turns into while `fault` is switched on: success.
pub(crate) fn taken_as_done(fault: Fault) -> impl FnOnce(String) -> Result<(), String> {
    move |error| if is(fault) { Ok(()) } else { Err(error) }
}

#[cfg(feature = "mutations")]
pub use chosen::{choose, is};

#[cfg(feature = "mutations")]
mod chosen {
    use std::cell::Cell;

    use super::Fault;

    thread_local! {
        static CHOSEN: Cell<Option<Fault>> = const { Cell::new(None) };
    }

    /// Switches one fault on in this thread, and all others off.
    pub fn choose(fault: Option<Fault>) {
        CHOSEN.set(fault);
    }

    /// Whether this fault is switched on.
    pub fn is(fault: Fault) -> bool {
        CHOSEN.get() == Some(fault)
    }
}
