//! A topic: its name, id, settings and partitions.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

use uuid::Uuid;

use super::topic_config::TopicConfig;
use crate::log::{Partition, SharedConfig};

/// A topic. Its partitions and settings may change while it is held.
#[derive(Debug)]
pub(crate) struct Topic {
    /// The name.
    pub(crate) name: String,
    /// The id: another one when a topic is deleted and created again.
    pub(crate) id: Uuid,
    partitions: RwLock<Arc<[Arc<Partition>]>>,
    config: SharedConfig,
}

impl Topic {
    pub(super) fn new(
        name: String,
        id: Uuid,
        config: SharedConfig,
        partitions: Vec<Arc<Partition>>,
    ) -> Self {
        Self {
            name,
            id,
            partitions: RwLock::new(partitions.into()),
            config,
        }
    }

    /// The partition of that number.
    pub(crate) fn partition(&self, index: i32) -> Option<Arc<Partition>> {
        let index = usize::try_from(index).ok()?;
        self.partitions().get(index).cloned()
    }

    /// How many partitions it has.
    pub(crate) fn partition_count(&self) -> i32 {
        i32::try_from(self.partitions().len()).unwrap_or(i32::MAX)
    }

    /// All partitions in order.
    pub(crate) fn partitions(&self) -> Arc<[Arc<Partition>]> {
        self.partitions
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// The settings in force.
    pub(crate) fn config(&self) -> Arc<TopicConfig> {
        self.config
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// The settings that the topic sets itself, by Kafka's names.
    pub(crate) fn configs(&self) -> BTreeMap<String, String> {
        self.config().overrides().clone()
    }

    pub(super) fn shared_config(&self) -> SharedConfig {
        self.config.clone()
    }

    pub(super) fn set_config(&self, config: TopicConfig) {
        *self.config.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(config);
    }

    pub(super) fn add_partitions(&self, more: Vec<Arc<Partition>>) {
        let mut partitions = self
            .partitions
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        *partitions = partitions.iter().cloned().chain(more).collect();
    }
}
