//! One partition's records on disk, as the batches in which they came.
//!
//! | file | what it knows |
//! |---|---|
//! | [`partition`] | a partition as the rest of the broker sees it: append, durable, read, watch |

mod error;
mod partition;

pub(crate) use error::{AppendError, ReadError};
pub(crate) use partition::{Appended, Partition, Read};
