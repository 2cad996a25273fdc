//! Forcing what was written to the disk, in one place.
//!
//! What an acknowledgement promises rests on these two calls alone: everything else that is done
//! to files may be lost, torn or reordered when the power fails. So the simulation of the log
//! (`log/tests/disk.rs`) watches them, and makes of what lies between them every state that a disk may be
//! left in.

use std::fs::File;
use std::io;
use std::path::Path;

/// The file's bytes are on the disk when it returns, and enough to find them by its name, if that is.
pub(crate) fn sync_file(file: &File, path: &Path) -> io::Result<()> {
    #[cfg(test)]
    if simulated::file_is_left_out(path) {
        return Ok(());
    }
    file.sync_data()?;
    #[cfg(test)]
    simulated::synced_file(path);
    let _ = path;
    Ok(())
}

/// The names in the folder are on the disk when it returns: created, renamed and removed ones.
pub(crate) fn sync_folder(folder: &Path) -> io::Result<()> {
    #[cfg(test)]
    if simulated::folder_is_left_out() {
        return Ok(());
    }
    File::open(folder)?.sync_all()?;
    #[cfg(test)]
    simulated::synced_folder(folder);
    Ok(())
}

/// A fault that the simulation must notice; never built in elsewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(not(test), expect(dead_code, reason = "built in by tests alone"))]
pub(crate) enum Fault {
    /// Segments are not forced to the disk.
    UnsyncedFiles,
    /// What compaction has written is not forced to the disk.
    UnsyncedCleaned,
    /// New files' names are not forced to the disk.
    UnsyncedNames,
    /// A start takes batches whose checksum is wrong.
    UncheckedBatches,
    /// A start does not take up who wrote what.
    ForgottenProducers,
    /// A start does not take up what was aborted.
    ForgottenAborts,
}

/// Whether a fault is built in.
#[cfg(not(test))]
pub(crate) const fn is_built_in(_fault: Fault) -> bool {
    false
}

#[cfg(test)]
pub(crate) use simulated::is_built_in;

#[cfg(test)]
pub(crate) mod simulated {
    //! A folder on a disk that may fail: what is known to be on it, and what is only written.

    use std::cell::{Cell, RefCell};
    use std::collections::BTreeMap;
    use std::fs;
    use std::os::unix::fs::MetadataExt;
    use std::path::{Path, PathBuf};

    use super::Fault;
    use crate::fuzz::Random;

    /// What a disk writes at once.
    const SECTOR: usize = 512;

    thread_local! {
        static WATCHED: RefCell<Option<Disk>> = const { RefCell::new(None) };
        static FAULT: Cell<Option<Fault>> = const { Cell::new(None) };
    }

    /// Names and inodes of a folder.
    type Names = BTreeMap<String, u64>;

    /// A folder's names and its files' bytes.
    #[derive(Debug, Clone, Default)]
    pub(crate) struct Files {
        names: Names,
        bytes: BTreeMap<u64, Vec<u8>>,
    }

    /// A moment at which the power may fail.
    #[derive(Debug, Clone)]
    pub(crate) struct Moment {
        /// Names and bytes that were forced to the disk.
        safe: Files,
        /// Names and bytes as programs see them.
        seen: Files,
    }

    #[derive(Debug)]
    struct Disk {
        folder: PathBuf,
        safe: Files,
        moments: Vec<Moment>,
        uninterrupted: bool,
    }

    impl Files {
        fn of(folder: &Path) -> Self {
            let mut files = Self::default();
            for entry in fs::read_dir(folder).unwrap() {
                let entry = entry.unwrap();
                let inode = entry.metadata().unwrap().ino();
                let name = entry.file_name().into_string().unwrap();
                files.names.insert(name, inode);
                files.bytes.insert(inode, fs::read(entry.path()).unwrap());
            }
            files
        }

        /// Writes them into an empty folder.
        pub(crate) fn write(&self, folder: &Path) {
            for (name, inode) in &self.names {
                fs::write(folder.join(name), &self.bytes[inode]).unwrap();
            }
        }
    }

    impl std::fmt::Display for Files {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            for (name, inode) in &self.names {
                write!(f, "{name}: {} bytes, ", self.bytes[inode].len())?;
            }
            Ok(())
        }
    }

    impl Moment {
        /// As programs saw it: what `kill -9` leaves.
        pub(crate) fn seen(&self) -> Files {
            self.seen.clone()
        }

        /// What a failing power may leave: of each name the old or the new file, of each file any of the
        /// sectors that were written since it was forced to the disk, and any length in between.
        pub(crate) fn left(&self, random: &mut Random) -> Files {
            let mut left = Files::default();
            let names = self.safe.names.keys().chain(self.seen.names.keys());
            // Often all or nothing of what happened to names; a mixture is possible as well.
            let kind = random.below(3);
            for name in names {
                let (old, new) = (self.safe.names.get(name), self.seen.names.get(name));
                let take_new = match kind {
                    0 => false,
                    1 => true,
                    _ => random.one_in(2),
                };
                if let Some(&inode) = if take_new { new } else { old } {
                    left.names.insert(name.clone(), inode);
                }
            }
            for &inode in left.names.values() {
                let none = Vec::new();
                let safe = self.safe.bytes.get(&inode).unwrap_or(&none);
                let seen = self.seen.bytes.get(&inode).unwrap_or(safe);
                left.bytes.insert(inode, torn(random, safe, seen));
            }
            left
        }
    }

    fn torn(random: &mut Random, safe: &[u8], seen: &[u8]) -> Vec<u8> {
        match random.below(4) {
            0 => return safe.to_vec(),
            1 => return seen.to_vec(),
            _ => {}
        }
        let (short, long) = (safe.len().min(seen.len()), safe.len().max(seen.len()));
        let length = short + random.below(long - short + 1);
        let mut torn = vec![0; length];
        for (number, sector) in torn.chunks_mut(SECTOR).enumerate() {
            let from = match random.one_in(2) {
                true => safe,
                false => seen,
            };
            let at = number * SECTOR;
            let there = from.get(at..).unwrap_or_default();
            let count = there.len().min(sector.len());
            sector[..count].copy_from_slice(&there[..count]);
            // Bytes that never changed are not touched by writing others.
            let same = safe.iter().zip(seen).skip(at).take(sector.len());
            for (byte, (safe, seen)) in sector.iter_mut().zip(same) {
                if safe == seen {
                    *byte = *safe;
                }
            }
        }
        torn
    }

    /// Everything in `folder` is on the disk; what happens to it from now on, on this thread, is watched.
    pub(crate) fn watch(folder: &Path) {
        let disk = Disk {
            folder: folder.to_owned(),
            safe: Files::of(folder),
            moments: Vec::new(),
            uninterrupted: false,
        };
        WATCHED.set(Some(disk));
    }

    /// Does what no crash interrupts: what is forced to the disk is noted, and no moment of it.
    pub(crate) fn uninterrupted<T>(work: impl FnOnce() -> T) -> T {
        let set = |uninterrupted| {
            WATCHED.with_borrow_mut(|disk| disk.as_mut().unwrap().uninterrupted = uninterrupted);
        };
        set(true);
        let done = work();
        set(false);
        forget_moments();
        done
    }

    /// The moments since the last call, and now.
    pub(crate) fn moments() -> Vec<Moment> {
        note();
        WATCHED.with_borrow_mut(|disk| std::mem::take(&mut disk.as_mut().unwrap().moments))
    }

    /// Forgets the moments since the last call.
    pub(crate) fn forget_moments() {
        WATCHED.with_borrow_mut(|disk| disk.as_mut().unwrap().moments.clear());
    }

    /// Builds a fault in, on this thread.
    pub(crate) fn build_in(fault: Option<Fault>) {
        FAULT.set(fault);
    }

    pub(crate) fn is_built_in(fault: Fault) -> bool {
        FAULT.get() == Some(fault)
    }

    pub(super) fn file_is_left_out(path: &Path) -> bool {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        is_built_in(Fault::UnsyncedFiles) && name.ends_with(".log")
            || is_built_in(Fault::UnsyncedCleaned) && name.ends_with(".cleaned.tmp")
    }

    pub(super) fn folder_is_left_out() -> bool {
        is_built_in(Fault::UnsyncedNames)
    }

    pub(super) fn synced_file(path: &Path) {
        note();
        WATCHED.with_borrow_mut(|disk| {
            if let (Some(disk), Ok(bytes)) = (disk, fs::read(path)) {
                let inode = fs::metadata(path).unwrap().ino();
                disk.safe.bytes.insert(inode, bytes);
            }
        });
        note();
    }

    pub(super) fn synced_folder(folder: &Path) {
        note();
        WATCHED.with_borrow_mut(|disk| {
            if let Some(disk) = disk.as_mut().filter(|disk| disk.folder == folder) {
                disk.safe.names = Files::of(folder).names;
                let named: Vec<u64> = disk.safe.names.values().copied().collect();
                disk.safe.bytes.retain(|inode, _| named.contains(inode));
            }
        });
        note();
    }

    fn note() {
        WATCHED.with_borrow_mut(|disk| {
            if let Some(disk) = disk.as_mut().filter(|disk| !disk.uninterrupted) {
                let mut seen = Files::of(&disk.folder);
                // A name that is lost again may be of a file that has no other by now.
                for (inode, bytes) in &disk.safe.bytes {
                    seen.bytes.entry(*inode).or_insert_with(|| bytes.clone());
                }
                let safe = disk.safe.clone();
                disk.moments.push(Moment { safe, seen });
            }
        });
    }
}
