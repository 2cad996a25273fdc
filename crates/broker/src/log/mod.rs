//! One partition's records on disk, as the batches in which they came.
//!
//! | file | what it knows |
//! |---|---|
//! | [`partition`] | a partition as the rest of the broker sees it: append, durable, watch |
//! | [`reading`] | read by offset, look up by time |
//! | [`retention`] | what is given up: by age, by size, on request |
//! | [`incoming`] | what a produce request may append |
//! | [`batch`], [`record_times`] | Kafka's batch format: its header, and the timestamps of its records |
//! | [`producers`] | batches that were sent twice are stored once; who has a transaction open |
//! | [`control`], [`undecided`], [`aborted`] | where transactions end, how far is decided, what was aborted |
//! | [`transactions`] | a partition's part in transactions |
//! | [`writer`] | the log's end: roll, write, what a flush has to do |
//! | [`flush`] | the threads that force records to the disk, group commit |
//! | [`segment`], [`index`], [`scan`], [`stretch`] | a file of the log, where in it an offset or time is, going through it, a part of it |
//! | [`checkpoint`], [`recovery`], [`listing`] | what is known good, and opening a log whatever the last process left |
//! | [`cleaner`] | compaction: of each key the last record stays |
//! | [`open_files`] | so many files open at most |

mod aborted;
mod batch;
mod checkpoint;
mod cleaner;
mod control;
mod error;
mod flush;
mod incoming;
mod index;
mod listing;
mod open_files;
mod own_records;
mod partition;
mod producers;
mod reading;
mod record_times;
mod recovery;
mod retention;
mod scan;
mod segment;
mod stretch;
#[cfg(test)]
mod tests;
mod transactions;
mod undecided;
mod unpack;
mod writer;

pub(crate) use aborted::AbortedTransaction;
#[cfg(test)]
pub(crate) use cleaner::Stop;
pub(crate) use cleaner::{Cleaner, Halt, Pace};
pub(crate) use control::{ProducerEpoch, Verdict, marker};
pub(crate) use error::{AppendError, ReadError};
pub(crate) use flush::Flusher;
pub(crate) use open_files::OpenFiles;
pub(crate) use own_records::{OwnRecord, each_record};
pub(crate) use partition::{Appended, Partition, Place, Shared, SharedConfig};
pub(crate) use producers::ActiveProducer;
pub(crate) use reading::Isolation;
pub(crate) use stretch::Stretch;
#[cfg(test)]
pub(crate) use tests::{folder as memory_folder, fuzz::batches_of_all_kinds};
