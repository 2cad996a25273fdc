//! Ordered retry: a failing key waits with all that follows it, and nobody else does.
//!
//! Retrying in place holds up the lane; retry topics give up the order. Here the record that
//! failed is put into a durable place, its offset settles, and later records of its key are put
//! behind it. The first of each key, its head, is tried again until it succeeds or is given up;
//! then the next one is. All other keys go on meanwhile.
//!
//! The durable place is the truth. [`Parked`] is what one partition's owner knows of it, small
//! enough for memory: the keys and when their heads are due, never the records. It may know of
//! keys that are free again, or of more records than there are, but never of fewer: a key is
//! added before the write that parks its record can be seen, and leaves only when the write that
//! takes its last record out is durable. Otherwise a record could overtake.
//!
//! | file | decides |
//! |---|---|
//! | `parked.rs` | who waits behind whom, whose turn it is, what is full |
//! | `terms.rs` | what a failed attempt leads to |

mod parked;
mod terms;
#[cfg(test)]
mod tests;

pub use parked::{Due, Parked, Place, Rank, Seen, Stored};
pub use terms::{Attempts, Limit, Limits, Terms, Verdict};
