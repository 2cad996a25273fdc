//! What opening a data folder found.

use std::path::PathBuf;
use std::time::Duration;

/// What was recovered when the data folder was opened.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RecoveryReport {
    /// Topics in the folder.
    pub topics: usize,
    /// Partitions in the folder.
    pub partitions: usize,
    /// Bytes that had to be checked because they were written after the last checkpoint; 0 after a clean shutdown.
    pub checked_bytes: u64,
    /// How long opening took.
    pub took: Duration,
    /// What was cut or is missing; empty after a clean shutdown.
    pub losses: Vec<Loss>,
    /// Files and folders in the data folder that the broker did not write; they are left alone.
    pub foreign: Vec<PathBuf>,
}

/// Bytes that were cut from a log, or offsets that are gone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loss {
    /// The topic.
    pub topic: String,
    /// The partition's number.
    pub partition: i32,
    /// Bytes that were no intact batch and were cut; a copy is kept beside the log when they were not a torn tail.
    pub cut_bytes: u64,
    /// Offsets known to be gone (first, and one behind the last); `None` for a tail that nobody was promised.
    pub missing_offsets: Option<(i64, i64)>,
}
