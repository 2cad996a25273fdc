//! What is known good of a partition's log, so that a start after a crash checks only what came later.
//!
//! Written at a clean shutdown, and during work after every 64 MiB and every new segment: always after the bytes it
//! vouches for are on the disk. An older checkpoint is as right as a newer one, only slower.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::producers::Producers;
use crate::Error;
use crate::store::sealed;

const CHECKPOINT: &str = "checkpoint";
const LOG_START: &str = "log-start";

/// The state of a log at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Checkpoint {
    /// The segments before the active one.
    pub(super) closed: Vec<Closed>,
    /// The base offset of the active segment.
    pub(super) segment: i64,
    /// Its bytes that are known good.
    pub(super) position: u64,
    /// The bytes of its index.
    pub(super) index_bytes: u64,
    /// The largest timestamp in it.
    pub(super) max_timestamp: i64,
    /// When its first batch came (the broker's clock).
    pub(super) opened_ms: Option<i64>,
    /// The offset behind the last record.
    pub(super) next_offset: i64,
    /// Who wrote what last.
    pub(super) producers: Producers,
    /// Aborted transactions that are known: the last ones of their file.
    #[serde(default)]
    pub(super) aborted: usize,
}

/// A segment that no longer changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Closed {
    pub(super) base: i64,
    pub(super) size: u64,
    pub(super) max_timestamp: i64,
}

impl Checkpoint {
    /// Reads a partition's checkpoint. A damaged one is as good as none: the whole log is checked then.
    pub(super) fn read(folder: &Path) -> Result<Option<Self>, Error> {
        match sealed::read(&folder.join(CHECKPOINT)) {
            Err(error) if error.is_corrupt() => {
                tracing::warn!(folder = %folder.display(), %error, "a checkpoint is damaged: checking the whole log");
                Ok(None)
            }
            read => read,
        }
    }

    pub(super) fn write(&self, folder: &Path) -> Result<(), Error> {
        sealed::write(&folder.join(CHECKPOINT), self)
    }
}

/// The first offset that may be read; `None` if nothing was ever deleted.
pub(super) fn read_log_start(folder: &Path) -> Result<Option<i64>, Error> {
    sealed::read(&folder.join(LOG_START))
}

/// Makes it durable that nothing before `offset` is read again.
pub(super) fn write_log_start(folder: &Path, offset: i64) -> Result<(), Error> {
    sealed::write_durably(&folder.join(LOG_START), &offset)
}
