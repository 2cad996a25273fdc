//! Topics by name, and by id: clients since Kafka 2.7 fetch by id, many times a second.

use std::collections::BTreeMap;
use std::sync::Arc;

use rustc_hash::FxHashMap;
use uuid::Uuid;

use super::Topic;

/// The topics that there are.
#[derive(Debug, Default)]
pub(super) struct Topics {
    by_name: BTreeMap<String, Arc<Topic>>,
    by_id: FxHashMap<Uuid, Arc<Topic>>,
}

impl Topics {
    pub(super) fn by_name(&self, name: &str) -> Option<&Arc<Topic>> {
        self.by_name.get(name)
    }

    pub(super) fn by_id(&self, id: Uuid) -> Option<&Arc<Topic>> {
        self.by_id.get(&id)
    }

    /// In the order of their names.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Arc<Topic>> {
        self.by_name.values()
    }

    pub(super) fn insert(&mut self, topic: Arc<Topic>) {
        self.by_id.insert(topic.id, Arc::clone(&topic));
        if let Some(before) = self.by_name.insert(topic.name.clone(), topic) {
            self.by_id.remove(&before.id);
        }
    }

    pub(super) fn remove(&mut self, name: &str) {
        if let Some(topic) = self.by_name.remove(name) {
            self.by_id.remove(&topic.id);
        }
    }
}
