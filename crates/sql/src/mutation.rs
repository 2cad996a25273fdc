//! Real faults in transactions and ordered retry, to see that the process suites notice each of
//! them. How they are switched on is told at `ackwell::mutation`.

/// One thing that a unit of work, ordered retry or the relay does wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The mark in the inbox stays when the work that it is for is taken back.
    MarkOutsideTransaction,
    /// A record whose mark is there already is handled all the same.
    MarkUnchecked,
    /// A record counts as settled before its group is durable.
    SettledBeforeDurable,
    /// An owner of a partition does not look whether it was overtaken.
    OwnerUnchecked,
    /// The row of a parked record stays away when its handler fails.
    ParkedOutsideTransaction,
    /// Records do not wait behind a parked one of their key.
    KeyDoesNotWait,
    /// Events are deleted when they are sent, not when they are acknowledged.
    DeletedBeforePublished,
}

/// Whether this fault is switched on.
#[cfg(not(feature = "mutations"))]
pub(crate) const fn is(_: Fault) -> bool {
    false
}

#[cfg(feature = "mutations")]
pub(crate) fn is(fault: Fault) -> bool {
    ackwell::mutation::is(fault)
}
