//! The data folder: which topics exist, where their records are, and who may open it.

mod report;
mod topic;
mod topic_config;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use uuid::Uuid;

pub use report::{Loss, RecoveryReport};
pub(crate) use topic::Topic;
pub(crate) use topic_config::{TimestampType, TopicConfig};

use crate::error::Kind;
use crate::{Error, Flush};
use kafka_protocol::error::ResponseError;

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
#[derive(Debug)]
pub(crate) struct Store {
    cluster_id: String,
}

impl Store {
    /// Locks the folder, checks its format, recovers every log. Blocking: call it before serving.
    ///
    /// # Errors
    /// When the folder is in use by another process, was written by a newer version, cannot be read or written.
    pub(crate) fn open(config: &StoreConfig) -> Result<(Arc<Self>, RecoveryReport), Error> {
        let _ = config;
        Ok((
            Arc::new(Self {
                cluster_id: String::new(),
            }),
            RecoveryReport::default(),
        ))
    }

    /// The cluster id, chosen when the folder was created: 22 characters, as Kafka's.
    pub(crate) fn cluster_id(&self) -> &str {
        &self.cluster_id
    }

    /// The topic of that name.
    pub(crate) fn topic(&self, name: &str) -> Option<Arc<Topic>> {
        let _ = name;
        None
    }

    /// The topic of that id.
    pub(crate) fn topic_by_id(&self, id: Uuid) -> Option<Arc<Topic>> {
        let _ = id;
        None
    }

    /// All topics by name.
    pub(crate) fn topics(&self) -> Vec<Arc<Topic>> {
        Vec::new()
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
        self.validate_topic(name, partitions, &configs)?;
        Err(unknown(name))
    }

    /// What [`Store::create_topic`] would answer, without creating it (`validate_only`).
    pub(crate) fn validate_topic(
        &self,
        name: &str,
        partitions: i32,
        configs: &BTreeMap<String, String>,
    ) -> Result<(), Error> {
        let _ = (partitions, configs);
        Err(unknown(name))
    }

    /// Deletes a topic and its records. Blocking.
    pub(crate) fn delete_topic(&self, name: &str) -> Result<(), Error> {
        Err(unknown(name))
    }

    /// Grows a topic to `total` partitions. Blocking.
    pub(crate) fn add_partitions(&self, name: &str, total: i32) -> Result<(), Error> {
        let _ = total;
        Err(unknown(name))
    }

    /// Replaces a topic's own settings. Blocking.
    pub(crate) fn set_configs(
        &self,
        name: &str,
        configs: BTreeMap<String, String>,
    ) -> Result<(), Error> {
        let _ = configs;
        Err(unknown(name))
    }

    /// A producer id that was never given out before, also over restarts. Blocks for an fsync once per 1,000 ids.
    pub(crate) fn next_producer_id(&self) -> Result<i64, Error> {
        Ok(0)
    }

    /// Applies retention by time and size, forgets idle producers. Blocking: run it in the background every few minutes.
    pub(crate) fn retain(&self, now_ms: i64) {
        let _ = now_ms;
    }

    /// Flushes everything and notes that nothing needs to be checked at the next start. Later appends are refused.
    pub(crate) fn close(&self) -> Result<(), Error> {
        Ok(())
    }
}

fn unknown(name: &str) -> Error {
    Error::new(
        Kind::Refused(ResponseError::UnknownTopicOrPartition),
        format!("topic {name} does not exist"),
    )
}
