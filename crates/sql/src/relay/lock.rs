//! One relay at a time, so that no key's events are sent by two and overtake each other.
//!
//! SQLite's users are on one machine, so the operating system's lock serves: unlike a lease
//! it needs no clock, costs no writes while nothing happens, passes on the moment its holder
//! dies, and cannot be lost by a holder that was only slow.

use std::ffi::OsString;
use std::fs::{File, TryLockError};

use crate::backend::Location;
use crate::error::{Error, Result};

/// Held while a relay works.
#[derive(Debug)]
pub(super) struct Lock {
    _file: File,
}

impl Lock {
    /// The lock, or `None` while another relay has it.
    pub(super) fn try_new(database: &Location) -> Result<Option<Self>> {
        let Some(database) = database.path() else {
            return Err(Error::unavailable(
                "relaying from PostgreSQL, which is not there yet",
            ));
        };
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
        let database = Location::File(folder.path().join("test.db"));
        let held = Lock::try_new(&database).unwrap();
        assert!(held.is_some());
        assert!(Lock::try_new(&database).unwrap().is_none());
        drop(held);
        assert!(Lock::try_new(&database).unwrap().is_some());
    }
}
