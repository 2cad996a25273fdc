//! On a file: the operating system's lock.
//!
//! SQLite's users are on one machine, so it serves: unlike a row with a time to live it
//! needs no clock, costs no writes while nothing happens, passes on the moment its holder
//! dies, and cannot be lost by a holder that was only slow.

use std::ffi::OsString;
use std::fs::{File, TryLockError};
use std::path::Path;

use crate::error::{Error, Result};

/// Held while a relay works.
#[derive(Debug)]
pub(crate) struct Lock {
    _file: File,
}

impl Lock {
    /// The lock, or `None` while another relay has it.
    pub(super) fn try_new(database: &Path) -> Result<Option<Self>> {
        let mut path = OsString::from(database);
        path.push("-relay");
        let failed =
            |error| Error::unavailable(format!("locking {}", path.display())).because(error);
        let file = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path);
        let file = file.map_err(failed)?;
        match file.try_lock() {
            Ok(()) => Ok(Some(Self { _file: file })),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(failed(error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lock_is_held_once_and_passes_on() {
        let folder = tempfile::tempdir().unwrap();
        let database = folder.path().join("test.db");
        let held = Lock::try_new(&database).unwrap();
        assert!(held.is_some());
        assert!(Lock::try_new(&database).unwrap().is_none());
        drop(held);
        assert!(Lock::try_new(&database).unwrap().is_some());
    }
}
