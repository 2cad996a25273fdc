//! Ids for idempotent producers, each given out once in the life of a data folder.

use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use super::sealed;
use crate::Error;
use crate::error::Kind;

/// The file in the data folder.
pub(super) const FILE: &str = "producer-ids";
/// Ids reserved by one write; what is left of them at the end is never used. Kafka's block size.
const BLOCK: i64 = 1000;

/// Gives out producer ids.
#[derive(Debug)]
pub(super) struct ProducerIds {
    path: PathBuf,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    next: i64,
    reserved: i64,
}

impl ProducerIds {
    pub(super) fn open(path: PathBuf) -> Result<Self, Error> {
        let next = sealed::read(&path)?.unwrap_or(0);
        if next < 0 {
            let what = format!("{} has a negative id", path.display());
            return Err(Error::new(Kind::Corrupt, what));
        }
        Ok(Self {
            path,
            state: Mutex::new(State {
                next,
                reserved: next,
            }),
        })
    }

    /// From now on only larger ids than `used` are given out: the file may be missing, or an older copy.
    pub(super) fn skip(&self, used: i64) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if used >= state.next && used >= state.reserved {
            tracing::warn!(
                used,
                next = state.next,
                "the file of producer ids is missing or older than the logs"
            );
            let next = used.saturating_add(1);
            (state.next, state.reserved) = (next, next);
        }
    }

    pub(super) fn next(&self) -> Result<i64, Error> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.next == state.reserved {
            // Only a file that somebody changed gets there, or a log with a producer that nobody gave its id.
            let Some(reserved) = state.reserved.checked_add(BLOCK) else {
                let what = format!("{} has no producer ids left", self.path.display());
                return Err(Error::new(Kind::Corrupt, what));
            };
            sealed::write_durably(&self.path, &reserved)?;
            state.reserved = reserved;
        }
        state.next += 1;
        Ok(state.next - 1)
    }
}
