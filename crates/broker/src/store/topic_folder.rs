//! The folders of a topic's partitions: created, opened, removed.
//!
//! A topic's folder is named by its id, so one that is being removed is never in the way of a new topic of the same
//! name. Removing begins with a rename: whether it was begun is then known after a crash.

use std::fs;
use std::io::ErrorKind;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use uuid::Uuid;

use super::{RecoveryReport, sealed};
use crate::Error;
use crate::error::Kind;
use crate::log::{Partition, Place, Shared, SharedConfig};

/// The ending of a topic's folder that is being removed.
const REMOVED: &str = "removed";

/// A topic's folder.
#[derive(Debug, Clone)]
pub(super) struct TopicFolder {
    path: PathBuf,
}

impl TopicFolder {
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path }
    }

    /// Makes the folders of `partitions`, emptied of what an interrupted call left. Durable.
    pub(super) fn create(&self, partitions: Range<i32>) -> Result<(), Error> {
        let creating = |error| Error::io(format_args!("creating {}", self.path.display()), error);
        fs::create_dir_all(&self.path).map_err(creating)?;
        for index in partitions {
            let folder = self.path.join(index.to_string());
            match fs::remove_dir_all(&folder) {
                Err(error) if error.kind() != ErrorKind::NotFound => return Err(creating(error)),
                _ => fs::create_dir(&folder).map_err(creating)?,
            }
        }
        sealed::sync_folder(&self.path)?;
        self.path.parent().map_or(Ok(()), sealed::sync_folder)
    }

    /// Opens the logs of `partitions` and adds to `report` what that found.
    pub(super) fn open(
        &self,
        topic: &str,
        partitions: Range<i32>,
        config: &SharedConfig,
        shared: &Shared,
        now_ms: i64,
        report: &mut RecoveryReport,
    ) -> Result<Vec<Arc<Partition>>, Error> {
        let mut opened = Vec::new();
        for index in partitions {
            let folder = self.path.join(index.to_string());
            if !folder.is_dir() {
                return Err(Error::new(
                    Kind::Corrupt,
                    format!(
                        "the folder {} of {topic}-{index} is missing: restore it from a backup",
                        folder.display()
                    ),
                ));
            }
            let place = Place {
                topic: topic.to_owned(),
                index,
                folder,
            };
            let found = Partition::open(place, config.clone(), shared.clone(), now_ms)?;
            report.partitions += 1;
            report.checked_bytes += found.checked_bytes;
            report.losses.extend(found.losses);
            report.foreign.extend(found.foreign);
            opened.push(found.partition);
        }
        Ok(opened)
    }

    /// Begins the removal: durable when it returns.
    pub(super) fn begin_removal(&self) -> Result<(), Error> {
        fs::rename(&self.path, self.removed())
            .map_err(|error| Error::io(format_args!("renaming {}", self.path.display()), error))?;
        self.path.parent().map_or(Ok(()), sealed::sync_folder)
    }

    /// Whether a removal was begun.
    pub(super) fn is_removal_begun(&self) -> bool {
        !self.path.exists() && self.removed().exists()
    }

    /// Ends a removal that was begun.
    pub(super) fn finish_removal(&self) {
        remove(&self.removed());
    }

    fn removed(&self) -> PathBuf {
        self.path.with_added_extension(REMOVED)
    }
}

/// Removes what no topic of the catalog owns: removals that were begun, and empty logs of creations that were not
/// finished. A folder with records is left alone: the catalog may be an older copy.
pub(super) fn remove_unowned(
    topics: &Path,
    is_owned: impl Fn(Uuid) -> bool,
    report: &mut RecoveryReport,
) -> Result<(), Error> {
    let listing = |error| Error::io(format_args!("listing {}", topics.display()), error);
    for entry in fs::read_dir(topics).map_err(listing)? {
        let path = entry.map_err(listing)?.path();
        if path
            .extension()
            .is_some_and(|extension| extension == REMOVED)
        {
            remove(&path);
            continue;
        }
        let id = path
            .file_name()
            .and_then(|name| name.to_str())
            .and_then(|name| Uuid::parse_str(name).ok());
        match id {
            Some(id) if is_owned(id) => {}
            Some(_) if has_no_records(&path) => remove(&path),
            _ => {
                report.foreign.push(path);
            }
        }
    }
    Ok(())
}

/// A topic's folder with records.
pub(super) fn find_records(topics: &Path) -> Option<PathBuf> {
    let mut folders = fs::read_dir(topics).ok()?.flatten();
    folders
        .find(|entry| !has_no_records(&entry.path()))
        .map(|entry| entry.path())
}

fn has_no_records(topic: &Path) -> bool {
    let files = |folder: &Path| {
        fs::read_dir(folder)
            .into_iter()
            .flatten()
            .flatten()
            .map(|entry| entry.path())
            .collect::<Vec<_>>()
    };
    let logs = files(topic)
        .into_iter()
        .flat_map(|partition| files(&partition));
    logs.filter(|path| path.extension().is_some_and(|extension| extension == "log"))
        .all(|path| path.metadata().is_ok_and(|data| data.len() == 0))
}

/// What cannot be removed now is removed at the next start.
fn remove(path: &Path) {
    if let Err(error) = fs::remove_dir_all(path) {
        tracing::warn!(folder = %path.display(), %error, "removing a deleted topic's folder failed");
    }
}
