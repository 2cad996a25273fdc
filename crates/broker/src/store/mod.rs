//! The data folder: which topics exist, where their records are, and who may open it.
//!
//! | in the folder | file here | what it is |
//! |---|---|---|
//! | `lock`, `format` | [`folder`] | one process at a time; which version wrote it; the cluster id |
//! | `catalog` | [`catalog`] | topics, their ids, partitions and settings |
//! | `group-configs` | [`group_configs`] | settings that groups have of their own |
//! | `producer-ids` | [`producer_ids`] | the next block of ids for idempotent producers |
//! | `topics/<id>/<partition>/` | [`topic_folder`], [`crate::log`] | the records |
//!
//! The small files are written whole and with a checksum ([`sealed`]).

mod catalog;
mod folder;
#[cfg(test)]
mod fuzz;
mod group_configs;
mod producer_ids;
mod report;
pub(crate) mod sealed;
#[cfg(test)]
mod tests;
mod topic;
mod topic_config;
mod topic_folder;
mod topics;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use kafka_protocol::error::ResponseError;
use uuid::Uuid;

pub use report::{Loss, RecoveryReport};
pub(crate) use sealed::UNFINISHED;
pub(crate) use topic::Topic;
pub(crate) use topic_config::{TimestampType, TopicConfig};

use crate::error::Kind;
use crate::log::{Flusher, Halt, OpenFiles, Pace, Shared};
use crate::{Error, Flush};
use catalog::{Catalog, Entry};
use folder::Folder;
use group_configs::GroupConfigs;
use producer_ids::ProducerIds;
use topic_folder::TopicFolder;
use topics::Topics;

/// Characters of a topic's name, as in Kafka.
const NAME_MAX: usize = 249;
/// Partitions of one topic: each has a folder and some KiB of memory.
const PARTITIONS_MAX: i32 = 10_000;

/// Topics whose owners write what lives anew and delete what is before.
const KEPT_SHORT: [&str; 2] = ["__consumer_offsets", "__transaction_state"];

/// How a data folder is opened.
#[derive(Debug, Clone)]
pub(crate) struct StoreConfig {
    /// The folder; created if missing.
    pub(crate) data_dir: PathBuf,
    /// When records are forced to the disk.
    pub(crate) flush: Flush,
    /// Topic settings (Kafka's topic-level names) for topics that do not set them.
    pub(crate) topic_defaults: BTreeMap<String, String>,
}

/// One data folder, locked and recovered. One per process and folder.
///
/// Dropping it without [`Store::close`] is as a crash: nothing that was promised is lost, and the next start checks
/// the ends of the logs.
#[derive(Debug)]
pub(crate) struct Store {
    topic_defaults: BTreeMap<String, String>,
    shared: Shared,
    producer_ids: ProducerIds,
    group_configs: GroupConfigs,
    topics: RwLock<Topics>,
    /// How often topics have changed, so that who keeps a copy of them knows when it is old.
    topics_version: AtomicU64,
    /// Held while topics change; `None` when closed.
    catalog: Mutex<Option<Catalog>>,
    folder: Folder,
    compacted: Mutex<Compacted>,
}

/// What compaction has done since the start.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Compacted {
    pub(crate) passes: u64,
    pub(crate) freed_bytes: u64,
    pub(crate) removed_records: u64,
}

impl Store {
    /// Locks the folder, checks its format, recovers every log. Blocking: call it before serving.
    ///
    /// # Errors
    /// When the folder is in use by another process, was written by a newer version, cannot be read or written.
    pub(crate) fn open(config: &StoreConfig) -> Result<(Arc<Self>, RecoveryReport), Error> {
        let started = Instant::now();
        TopicConfig::new(BTreeMap::new(), &config.topic_defaults)?;
        let folder = Folder::open(&config.data_dir)?;
        let store = Self {
            topic_defaults: config.topic_defaults.clone(),
            shared: Shared {
                flusher: Flusher::start(config.flush)?,
                files: Arc::new(OpenFiles::default()),
            },
            producer_ids: ProducerIds::open(folder.file(producer_ids::FILE))?,
            group_configs: GroupConfigs::open(folder.file(group_configs::FILE))?,
            topics: RwLock::default(),
            topics_version: AtomicU64::new(1),
            catalog: Mutex::new(Some(Catalog::open(folder.file(catalog::FILE))?)),
            folder,
            compacted: Mutex::default(),
        };
        store.check_catalog()?;
        let mut report = store.recover()?;
        report.took = started.elapsed();
        Ok((Arc::new(store), report))
    }

    /// Without the catalog all topics would be gone, and nobody would notice before the clients do.
    fn check_catalog(&self) -> Result<(), Error> {
        let file = self.folder.file(catalog::FILE);
        if file.exists() {
            return Ok(());
        }
        match topic_folder::find_records(&self.folder.topics()) {
            None => Ok(()),
            Some(found) => Err(Error::new(
                Kind::Corrupt,
                format!(
                    "{} is missing, but there are records in {}: restore it from a backup of the data folder, or use another folder",
                    file.display(),
                    found.display()
                ),
            )),
        }
    }

    fn recover(&self) -> Result<RecoveryReport, Error> {
        let mut report = RecoveryReport::default();
        let mut catalog = self.catalog();
        let catalog = open(&mut catalog)?;
        let entries: Vec<Entry> = catalog.entries().cloned().collect();
        for entry in &entries {
            let folder = self.topic_folder(entry.id);
            if folder.is_removal_begun() {
                catalog.remove(&entry.name)?;
                folder.finish_removal();
                continue;
            }
            self.check_settings(entry)?;
            self.open_topic(entry, &mut report)?;
            report.topics += 1;
        }
        topic_folder::remove_unowned(
            &self.folder.topics(),
            |id| entries.iter().any(|entry| entry.id == id),
            &mut report,
        )?;
        let topics = self.topics();
        let partitions = topics.iter().flat_map(|topic| topic.partitions().to_vec());
        if let Some(used) = partitions.filter_map(|one| one.max_producer_id()).max() {
            self.producer_ids.skip(used);
        }
        Ok(report)
    }

    /// A catalog with settings that no program could have written is named, not the setting alone.
    fn check_settings(&self, entry: &Entry) -> Result<(), Error> {
        let checked = TopicConfig::new(entry.configs.clone(), &self.topic_defaults);
        checked.map(|_| ()).map_err(|error| {
            let file = self.folder.file(catalog::FILE);
            let what = format!(
                "{} has impossible settings of topic {}",
                file.display(),
                entry.name
            );
            Error::new(Kind::Corrupt, what).caused_by(error)
        })
    }

    /// The cluster id, chosen when the folder was created: 22 characters, as Kafka's.
    pub(crate) fn cluster_id(&self) -> &str {
        &self.folder.cluster_id
    }

    /// The topic of that name.
    pub(crate) fn topic(&self, name: &str) -> Option<Arc<Topic>> {
        self.topics
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .by_name(name)
            .cloned()
    }

    /// The topic of that id.
    pub(crate) fn topic_by_id(&self, id: Uuid) -> Option<Arc<Topic>> {
        self.topics
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .by_id(id)
            .cloned()
    }

    /// All topics by name.
    pub(crate) fn topics(&self) -> Vec<Arc<Topic>> {
        self.topics
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .iter()
            .cloned()
            .collect()
    }

    /// Grows with every topic that comes, goes or gets more partitions.
    pub(crate) fn topics_version(&self) -> u64 {
        self.topics_version.load(Ordering::Acquire)
    }

    /// The settings that groups have of their own, by Kafka's names.
    pub(crate) fn group_configs(&self) -> BTreeMap<String, BTreeMap<String, String>> {
        self.group_configs.all()
    }

    /// The settings that one group has of its own.
    pub(crate) fn group_config(&self, group: &str) -> BTreeMap<String, String> {
        self.group_configs.of(group)
    }

    /// Replaces a group's own settings, which the caller has checked; durable when it returns. Blocking.
    pub(crate) fn set_group_config(
        &self,
        group: &str,
        configs: BTreeMap<String, String>,
    ) -> Result<(), Error> {
        self.group_configs.set(group, configs)
    }

    /// To be called when the change can be seen.
    fn topics_changed(&self) {
        self.topics_version.fetch_add(1, Ordering::AcqRel);
    }

    /// Creates a topic with `configs` (Kafka's names); durable when it returns. Blocking (some fsyncs).
    ///
    /// # Errors
    /// The name or a setting is invalid, the topic exists, the disk refuses.
    pub(crate) fn create_topic(
        &self,
        name: &str,
        partitions: i32,
        configs: BTreeMap<String, String>,
    ) -> Result<Arc<Topic>, Error> {
        let mut catalog = self.catalog();
        let catalog = open(&mut catalog)?;
        self.check_new(name, partitions, &configs)?;
        let entry = Entry {
            name: name.to_owned(),
            id: Uuid::new_v4(),
            partitions,
            configs,
        };
        self.topic_folder(entry.id).create(0..partitions)?;
        catalog.put(entry.clone())?;
        let topic = self.open_topic(&entry, &mut RecoveryReport::default())?;
        tracing::info!(topic = name, partitions, "created a topic");
        tell_without_effect(name, &entry.configs);
        Ok(topic)
    }

    /// What [`Store::create_topic`] would answer, without creating it (`validate_only`).
    pub(crate) fn validate_topic(
        &self,
        name: &str,
        partitions: i32,
        configs: &BTreeMap<String, String>,
    ) -> Result<TopicConfig, Error> {
        self.check_new(name, partitions, configs)
    }

    fn check_new(
        &self,
        name: &str,
        partitions: i32,
        configs: &BTreeMap<String, String>,
    ) -> Result<TopicConfig, Error> {
        check_name(name)?;
        check_partitions(partitions)?;
        let config = TopicConfig::new(configs.clone(), &self.topic_defaults)?;
        if self.topic(name).is_some() {
            return Err(Error::refused(
                ResponseError::TopicAlreadyExists,
                format!("topic {name} exists already"),
            ));
        }
        self.check_collision(name)?;
        Ok(config)
    }

    /// Apache Kafka refuses names that share their metrics' name; a program that made such topics here could not
    /// move there.
    fn check_collision(&self, name: &str) -> Result<(), Error> {
        if !name.contains(['.', '_']) {
            return Ok(());
        }
        let metric = |name: &str| name.replace('.', "_");
        let wanted = metric(name);
        match self
            .topics()
            .iter()
            .find(|topic| metric(&topic.name) == wanted)
        {
            None => Ok(()),
            Some(other) => Err(Error::refused(
                ResponseError::InvalidTopicException,
                format!(
                    "topic {name} differs from {} only by '.' for '_'",
                    other.name
                ),
            )),
        }
    }

    /// Deletes a topic and its records. Blocking.
    ///
    /// # Errors
    /// There is no such topic, or the disk refuses; then the topic is there or will be gone after the next start.
    pub(crate) fn delete_topic(&self, name: &str) -> Result<(), Error> {
        let mut catalog = self.catalog();
        let catalog = open(&mut catalog)?;
        let topic = self.topic(name).ok_or_else(|| unknown(name))?;
        let folder = self.topic_folder(topic.id);
        folder.begin_removal()?;
        self.topics
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(name);
        self.topics_changed();
        topic
            .partitions()
            .iter()
            .for_each(|partition| partition.delete());
        catalog.remove(name)?;
        folder.finish_removal();
        tracing::info!(topic = name, "deleted a topic");
        Ok(())
    }

    /// Grows a topic to `total` partitions. Blocking.
    ///
    /// # Errors
    /// There is no such topic, it has as many or more already, or the disk refuses.
    pub(crate) fn add_partitions(&self, name: &str, total: i32) -> Result<(), Error> {
        let mut catalog = self.catalog();
        let catalog = open(&mut catalog)?;
        let topic = self.topic(name).ok_or_else(|| unknown(name))?;
        let count = topic.partition_count();
        check_partitions(total)?;
        if total <= count {
            let message =
                format!("topic {name} has {count} partitions already; a topic can only grow");
            return Err(Error::refused(ResponseError::InvalidPartitions, message));
        }
        let folder = self.topic_folder(topic.id);
        folder.create(count..total)?;
        catalog.put(Entry {
            partitions: total,
            ..catalog.get(name).cloned().ok_or_else(|| unknown(name))?
        })?;
        let config = topic.shared_config();
        topic.add_partitions(folder.open(
            name,
            count..total,
            &config,
            &self.shared,
            now_ms(),
            &mut RecoveryReport::default(),
        )?);
        self.topics_changed();
        Ok(())
    }

    /// Replaces a topic's own settings. Blocking.
    ///
    /// # Errors
    /// There is no such topic, a setting is invalid, or the disk refuses.
    pub(crate) fn set_configs(
        &self,
        name: &str,
        configs: BTreeMap<String, String>,
    ) -> Result<(), Error> {
        let mut catalog = self.catalog();
        let catalog = open(&mut catalog)?;
        let topic = self.topic(name).ok_or_else(|| unknown(name))?;
        let config = TopicConfig::new(configs.clone(), &self.topic_defaults)?;
        catalog.put(Entry {
            configs: configs.clone(),
            ..catalog.get(name).cloned().ok_or_else(|| unknown(name))?
        })?;
        topic.set_config(config);
        tell_without_effect(name, &configs);
        Ok(())
    }

    /// A producer id that was never given out before, also over restarts. Blocks for an fsync once per 1,000 ids.
    pub(crate) fn next_producer_id(&self) -> Result<i64, Error> {
        self.producer_ids.next()
    }

    /// Applies retention by time and size, forgets idle producers. Blocking: run it in the background every few minutes.
    pub(crate) fn retain(&self, now_ms: i64) {
        for topic in self.topics() {
            for partition in topic.partitions().iter() {
                if let Err(error) = partition.retain(now_ms) {
                    tracing::warn!(topic = %topic.name, partition = partition.index(), %error, "retention failed: it is tried again");
                }
            }
        }
    }

    /// What compaction has done since the start.
    pub(crate) fn compaction(&self) -> Compacted {
        *self
            .compacted
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Compacts what is due, one partition after the other. Blocking: the cleaner's thread runs it.
    pub(crate) fn clean(&self, now_ms: i64, pace: &mut Pace<'_>) {
        let topics = self.topics();
        let topics = topics
            .iter()
            .filter(|topic| !KEPT_SHORT.contains(&topic.name.as_str()));
        for partition in topics.flat_map(|topic| topic.partitions().to_vec()) {
            match partition.clean(now_ms, pace) {
                Ok(None) => {}
                Ok(Some(cleaned)) => {
                    let mut done = self
                        .compacted
                        .lock()
                        .unwrap_or_else(PoisonError::into_inner);
                    done.passes += 1;
                    done.freed_bytes += cleaned.bytes_before.saturating_sub(cleaned.bytes_after);
                    done.removed_records += cleaned.records_removed;
                }
                Err(Halt::Stopped) => return,
                Err(Halt::Storage(error)) if error.is_corrupt() => {
                    tracing::error!(
                        topic = partition.topic(),
                        partition = partition.index(),
                        error = &error as &dyn std::error::Error,
                        "a damaged log is not compacted until the broker is restarted"
                    );
                }
                Err(Halt::Storage(error)) => {
                    tracing::warn!(
                        topic = partition.topic(),
                        partition = partition.index(),
                        error = &error as &dyn std::error::Error,
                        "compaction failed: it is tried again"
                    );
                }
            }
        }
    }

    /// Flushes everything and notes that nothing needs to be checked at the next start. Later appends are refused.
    /// Blocking.
    ///
    /// # Errors
    /// What was appended last is not known to be on the disk.
    pub(crate) fn close(&self) -> Result<(), Error> {
        if self.catalog().take().is_none() {
            return Ok(());
        }
        self.shared.flusher.stop();
        let mut result = Ok(());
        for topic in self.topics() {
            for partition in topic.partitions().iter() {
                result = result.and(partition.close());
            }
        }
        result
    }

    fn open_topic(&self, entry: &Entry, report: &mut RecoveryReport) -> Result<Arc<Topic>, Error> {
        let config = Arc::new(RwLock::new(Arc::new(TopicConfig::new(
            entry.configs.clone(),
            &self.topic_defaults,
        )?)));
        let folder = self.topic_folder(entry.id);
        let partitions = folder.open(
            &entry.name,
            0..entry.partitions,
            &config,
            &self.shared,
            now_ms(),
            report,
        )?;
        let topic = Arc::new(Topic::new(entry.name.clone(), entry.id, config, partitions));
        self.topics
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(topic.clone());
        self.topics_changed();
        Ok(topic)
    }

    fn topic_folder(&self, id: Uuid) -> TopicFolder {
        TopicFolder::new(self.folder.topic(id))
    }

    fn catalog(&self) -> MutexGuard<'_, Option<Catalog>> {
        self.catalog.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Store {
    /// Whoever still holds a partition must not write when the folder is somebody else's.
    fn drop(&mut self) {
        if self.catalog().take().is_some() {
            for topic in self.topics() {
                topic
                    .partitions()
                    .iter()
                    .for_each(|partition| partition.abandon());
            }
            self.shared.flusher.stop();
        }
    }
}

fn open<'a>(catalog: &'a mut MutexGuard<'_, Option<Catalog>>) -> Result<&'a mut Catalog, Error> {
    catalog
        .as_mut()
        .ok_or_else(|| Error::new(Kind::Closed, "the data folder is closed"))
}

fn tell_without_effect(topic: &str, configs: &BTreeMap<String, String>) {
    for setting in topic_config::without_effect(configs) {
        tracing::warn!(
            topic,
            setting,
            "the setting is kept and changes nothing: it is about files of Apache Kafka"
        );
    }
}

/// Refuses what cannot be the name of a topic.
pub(crate) fn check_name(name: &str) -> Result<(), Error> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    let reason = match name {
        "" => "it is empty",
        "." | ".." => "it is a folder's name",
        _ if name.len() > NAME_MAX => "it has more than 249 characters",
        _ if !name.chars().all(allowed) => "only letters, digits, '.', '_' and '-' are allowed",
        _ => return Ok(()),
    };
    Err(Error::refused(
        ResponseError::InvalidTopicException,
        format!("topic name {name:?} is invalid: {reason}"),
    ))
}

fn check_partitions(partitions: i32) -> Result<(), Error> {
    if (1..=PARTITIONS_MAX).contains(&partitions) {
        return Ok(());
    }
    let message =
        format!("{partitions} partitions are not possible: a topic has 1 to {PARTITIONS_MAX}");
    Err(Error::refused(ResponseError::InvalidPartitions, message))
}

fn unknown(name: &str) -> Error {
    Error::refused(
        ResponseError::UnknownTopicOrPartition,
        format!("topic {name} does not exist"),
    )
}

fn now_ms() -> i64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
