//! Which topics exist: one file, written whole at every change.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::sealed;
use crate::Error;

/// The file of the catalog in the data folder.
pub(super) const FILE: &str = "catalog";

/// What the catalog says of one topic.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Entry {
    pub(super) name: String,
    pub(super) id: Uuid,
    pub(super) partitions: i32,
    #[serde(default)]
    pub(super) configs: BTreeMap<String, String>,
}

/// The catalog's file. Changes are durable when the call returns.
#[derive(Debug)]
pub(super) struct Catalog {
    path: PathBuf,
    entries: BTreeMap<String, Entry>,
}

impl Catalog {
    pub(super) fn open(path: PathBuf) -> Result<Self, Error> {
        let entries: Vec<Entry> = sealed::read(&path)?.unwrap_or_default();
        Ok(Self {
            entries: entries
                .into_iter()
                .map(|entry| (entry.name.clone(), entry))
                .collect(),
            path,
        })
    }

    pub(super) fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.entries.values()
    }

    pub(super) fn get(&self, name: &str) -> Option<&Entry> {
        self.entries.get(name)
    }

    /// Adds or replaces a topic.
    pub(super) fn put(&mut self, entry: Entry) -> Result<(), Error> {
        let mut entries = self.entries.clone();
        entries.insert(entry.name.clone(), entry);
        self.replace(entries)
    }

    pub(super) fn remove(&mut self, name: &str) -> Result<(), Error> {
        let mut entries = self.entries.clone();
        entries.remove(name);
        self.replace(entries)
    }

    /// The file first: what the disk refuses does not happen in memory either.
    fn replace(&mut self, entries: BTreeMap<String, Entry>) -> Result<(), Error> {
        sealed::write_durably(&self.path, &entries.values().collect::<Vec<_>>())?;
        self.entries = entries;
        Ok(())
    }
}
