//! Transactional ids, each used by one producer at a time.
//!
//! The broker fences an older producer of an id when a newer one comes: one id on every instance
//! lets them end each other's transactions, and a made-up one leaves what a crash had open to its
//! timeout, with readers waiting behind it. So an instance has ids of its own, the same ones after
//! a restart, and takes each by a lock of the operating system: it needs no clock, and passes on
//! the moment its holder dies.
//!
//! A lock's file is not empty while its id is in use. One that nobody holds and that is not
//! empty tells of a crash: that id is taken first, and the broker ends what was open.

use std::fs::{self, File, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::path::{Path, PathBuf};

use crate::failure::Class;

use super::TransactionError;

/// Ids of one prefix on one instance: far more than anybody needs.
const LEASES_MAX: u32 = 1_024;
/// Holds the instance's made-up name.
const INSTANCE_FILE: &str = "instance";

/// Where ids are leased.
#[derive(Clone, Debug)]
pub(super) struct Leases {
    folder: PathBuf,
    prefix: String,
    instance: String,
}

/// A transactional id that nobody else has while this lives.
#[derive(Debug)]
pub(crate) struct Lease {
    id: String,
    file: File,
}

impl Leases {
    /// In `folder`, which is made if it is not there.
    pub(super) fn open(
        folder: &Path,
        prefix: &str,
        instance: Option<&str>,
    ) -> Result<Self, TransactionError> {
        let failed = |error: io::Error| {
            TransactionError::new(
                Class::Stop,
                format!(
                    "leasing transactional ids in {}: {error}; make the data folder writable",
                    folder.display()
                ),
            )
        };
        fs::create_dir_all(folder).map_err(failed)?;
        let instance = match instance {
            Some(name) => name.to_owned(),
            None => instance_of(folder).map_err(failed)?,
        };
        Ok(Leases {
            folder: folder.to_owned(),
            prefix: prefix.to_owned(),
            instance,
        })
    }

    /// The first id that is free.
    pub(super) fn next(&self) -> Result<Lease, TransactionError> {
        let free = (0..LEASES_MAX).find_map(|number| self.take(number).transpose());
        match free {
            Some(Ok((lease, _))) => Ok(lease),
            Some(Err(error)) => Err(self.failed(&error)),
            None => Err(TransactionError::new(
                Class::Stop,
                format!("all {LEASES_MAX} transactional ids of this instance are in use"),
            )),
        }
    }

    /// Up to `most` ids that were in use when their holder died.
    pub(super) fn left(&self, most: usize) -> Result<Vec<Lease>, TransactionError> {
        let mut left = Vec::new();
        for number in 0..LEASES_MAX {
            if left.len() >= most || !self.path(number).exists() {
                break;
            }
            let taken = self.take(number).map_err(|error| self.failed(&error))?;
            match taken {
                Some((lease, true)) => left.push(lease),
                Some((lease, false)) => lease.release(),
                None => {}
            }
        }
        Ok(left)
    }

    /// The id of this number unless somebody has it, and whether its last holder died with it.
    fn take(&self, number: u32) -> io::Result<Option<(Lease, bool)>> {
        let path = self.path(number);
        let mut options = File::options();
        let mut file = (options.create(true).truncate(false))
            .read(true)
            .write(true)
            .open(&path)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(None),
            Err(TryLockError::Error(error)) => return Err(error),
        }
        let left = file.metadata()?.len() > 0;
        file.set_len(0)?;
        file.rewind()?;
        writeln!(file, "in use")?;
        let id = format!("{}-{}-{number}", self.prefix, self.instance);
        Ok(Some((Lease { id, file }, left)))
    }

    fn path(&self, number: u32) -> PathBuf {
        let name = format!("{}-{}-{number}.lock", self.prefix, self.instance);
        self.folder.join(name)
    }

    fn failed(&self, error: &io::Error) -> TransactionError {
        let folder = self.folder.display();
        TransactionError::new(
            Class::Stop,
            format!("leasing a transactional id in {folder}: {error}"),
        )
    }
}

impl Lease {
    /// The transactional id.
    pub(super) fn id(&self) -> &str {
        &self.id
    }

    /// Gives it back with nothing left open.
    pub(super) fn release(self) {
        if let Err(error) = self.file.set_len(0) {
            tracing::debug!(%error, id = self.id, "a transactional id is not marked as given back");
        }
    }
}

/// The name of this folder's instance, made up once.
fn instance_of(folder: &Path) -> io::Result<String> {
    let path = folder.join(INSTANCE_FILE);
    if !path.exists() {
        // Written aside and linked, so that nobody reads half of it and only one name wins.
        let made_up = uuid::Uuid::new_v4().simple().to_string();
        let aside = folder.join(format!("{INSTANCE_FILE}.{made_up}"));
        let mut file = File::create_new(&aside)?;
        file.write_all(&made_up.as_bytes()[..12])?;
        file.sync_all()?;
        let linked = fs::hard_link(&aside, &path);
        fs::remove_file(&aside)?;
        match linked {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
    }
    let mut name = String::new();
    File::open(&path)?.take(64).read_to_string(&mut name)?;
    let legal = !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric());
    if !legal {
        let reason = format!("{} is damaged; delete it", path.display());
        return Err(io::Error::new(io::ErrorKind::InvalidData, reason));
    }
    Ok(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leases(folder: &Path) -> Leases {
        Leases::open(folder, "shop", None).unwrap()
    }

    #[test]
    fn an_id_has_one_holder_and_is_the_same_after_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let one = leases(folder.path()).next().unwrap();
        let other = leases(folder.path()).next().unwrap();
        assert_ne!(one.id(), other.id());
        let id = one.id().to_owned();
        one.release();
        assert_eq!(leases(folder.path()).next().unwrap().id(), id);
    }

    #[test]
    fn other_data_folders_have_other_ids() {
        let (one, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let one = leases(one.path()).next().unwrap();
        assert_ne!(one.id(), leases(other.path()).next().unwrap().id());
        assert!(one.id().starts_with("shop-") && one.id().ends_with("-0"));
    }

    #[test]
    fn what_a_crash_has_left_is_told_from_what_was_given_back() {
        let folder = tempfile::tempdir().unwrap();
        let leases = leases(folder.path());
        let (given_back, crashed) = (leases.next().unwrap(), leases.next().unwrap());
        let left = crashed.id().to_owned();
        given_back.release();
        drop(crashed);
        let found = leases.left(4).unwrap();
        assert_eq!(found.iter().map(Lease::id).collect::<Vec<_>>(), [left]);
        assert!(leases.left(4).unwrap().is_empty(), "it is in use now");
    }

    #[test]
    fn an_instance_can_be_named() {
        let folder = tempfile::tempdir().unwrap();
        let leases = Leases::open(folder.path(), "shop", Some("pod-1")).unwrap();
        assert_eq!(leases.next().unwrap().id(), "shop-pod-1-0");
    }

    #[test]
    fn a_damaged_name_is_not_used() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(INSTANCE_FILE), "a b\n").unwrap();
        assert!(Leases::open(folder.path(), "shop", None).is_err());
    }
}
