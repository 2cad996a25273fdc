//! Settings that groups have of their own: one file, written whole at every change.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

use kafka_protocol::error::ResponseError;

use super::sealed;
use crate::Error;

/// The file in the data folder; missing as long as no group has settings.
pub(super) const FILE: &str = "group-configs";
/// Groups with settings: they are set by hand, and the file is written anew for each.
const GROUPS_MAX: usize = 10_000;

/// By Kafka's names.
type Settings = BTreeMap<String, String>;

/// The groups' own settings. Changes are durable when the call returns.
#[derive(Debug)]
pub(super) struct GroupConfigs {
    path: PathBuf,
    of_groups: Mutex<BTreeMap<String, Settings>>,
}

impl GroupConfigs {
    pub(super) fn open(path: PathBuf) -> Result<Self, Error> {
        let of_groups = sealed::read(&path)?.unwrap_or_default();
        Ok(Self {
            path,
            of_groups: Mutex::new(of_groups),
        })
    }

    pub(super) fn all(&self) -> BTreeMap<String, Settings> {
        self.lock().clone()
    }

    pub(super) fn of(&self, group: &str) -> Settings {
        self.lock().get(group).cloned().unwrap_or_default()
    }

    /// Replaces a group's settings. The file first: what the disk refuses does not happen in memory either.
    pub(super) fn set(&self, group: &str, settings: Settings) -> Result<(), Error> {
        let mut of_groups = self.lock();
        let mut changed = of_groups.clone();
        match settings.is_empty() {
            true => changed.remove(group),
            false => changed.insert(group.to_owned(), settings),
        };
        if changed.len() > GROUPS_MAX {
            return Err(Error::refused(
                ResponseError::PolicyViolation,
                format!("{GROUPS_MAX} groups have settings of their own, and no more can"),
            ));
        }
        sealed::write_durably(&self.path, &changed)?;
        *of_groups = changed;
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Settings>> {
        self.of_groups
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}
