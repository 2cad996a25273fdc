//! A topic's settings, by Kafka's names and with Kafka's defaults.
//!
//! A setting is either obeyed, or accepted because it can mean nothing on one node, or refused with
//! the reason. Those of [`WITHOUT_EFFECT`] say how Apache Kafka keeps its files, which are other files
//! here: they change nothing that a client sees. They are accepted, since tools that copy topics set
//! them, and whoever sets one to something else than its default is told in the log.

use std::collections::BTreeMap;
use std::time::Duration;

use kafka_protocol::error::ResponseError;

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
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct TopicConfig {
    overrides: BTreeMap<String, String>,
    values: BTreeMap<&'static str, String>,
    /// `cleanup.policy` has `delete`: old segments are given up.
    pub(crate) deletes: bool,
    /// `cleanup.policy` has `compact`: of each key the last record stays.
    pub(crate) compacts: bool,
    /// `min.cleanable.dirty.ratio`: compaction begins when more of the log is dirty.
    pub(crate) min_cleanable_dirty_ratio: f64,
    /// `min.compaction.lag.ms`: younger records stay.
    pub(crate) min_compaction_lag_ms: i64,
    /// `max.compaction.lag.ms`: compaction begins when a record has waited for longer.
    pub(crate) max_compaction_lag_ms: i64,
    /// `delete.retention.ms`: how long tombstones and the markers of transactions stay after compaction saw them.
    pub(crate) delete_retention_ms: i64,
    /// `retention.ms`; `None` keeps records of any age.
    pub(crate) retention_ms: Option<i64>,
    /// `retention.bytes` of one partition; `None` keeps any number.
    pub(crate) retention_bytes: Option<u64>,
    /// `flush.messages`: so many records at most are not on the disk; with 1 an acknowledgement waits for it.
    pub(crate) flush_messages: i64,
    /// `flush.ms`: a record is on the disk after so long at the latest; `None` leaves that to the broker's setting.
    pub(crate) flush_after: Option<Duration>,
    /// `segment.bytes`: a new segment begins before one gets larger.
    pub(crate) segment_bytes: usize,
    /// `segment.ms`: a new segment begins when one is older; with compaction not later than `max.compaction.lag.ms`.
    pub(crate) segment_ms: i64,
    /// `max.message.bytes` of one batch as it is sent.
    pub(crate) max_message_bytes: usize,
    /// `compression.type`, by Kafka's number of it; `None` keeps what the producer chose.
    pub(crate) compression: Option<u8>,
    /// `message.timestamp.type`.
    pub(crate) timestamp_type: TimestampType,
    /// `message.timestamp.before.max.ms`: how far behind the broker's clock a record's timestamp may be.
    pub(crate) timestamp_before_max_ms: i64,
    /// `message.timestamp.after.max.ms`: how far ahead.
    pub(crate) timestamp_after_max_ms: i64,
}

/// What values a setting takes.
enum Accepts {
    /// A whole number in these bounds.
    Number(i64, i64),
    /// A number from 0 to 1.
    Ratio,
    /// One of these words.
    Word(&'static [&'static str]),
    /// A comma-separated list of these words.
    Words(&'static [&'static str]),
}

use Accepts::{Number, Ratio, Word, Words};

const BOOLEAN: Accepts = Word(&["true", "false"]);
const LONG: Accepts = Number(0, i64::MAX);

/// Every setting known: its name, default and values (Kafka's `TopicConfig`).
const SETTINGS: &[(&str, &str, Accepts)] = &[
    ("cleanup.policy", "delete", Words(&["delete", "compact"])),
    (
        "compression.type",
        "producer",
        Word(&["producer", "uncompressed", "gzip", "snappy", "lz4", "zstd"]),
    ),
    ("delete.retention.ms", "86400000", LONG),
    ("file.delete.delay.ms", "60000", LONG),
    ("flush.messages", "9223372036854775807", Number(1, i64::MAX)),
    ("flush.ms", "9223372036854775807", LONG),
    ("index.interval.bytes", "4096", Number(0, i32::MAX as i64)),
    (
        "max.compaction.lag.ms",
        "9223372036854775807",
        Number(1, i64::MAX),
    ),
    ("max.message.bytes", "1048588", Number(0, i32::MAX as i64)),
    ("message.timestamp.after.max.ms", "3600000", LONG),
    (
        "message.timestamp.before.max.ms",
        "9223372036854775807",
        LONG,
    ),
    (
        "message.timestamp.type",
        "CreateTime",
        Word(&["CreateTime", "LogAppendTime"]),
    ),
    ("min.cleanable.dirty.ratio", "0.5", Ratio),
    ("min.compaction.lag.ms", "0", LONG),
    ("min.insync.replicas", "1", Number(1, 1)),
    ("preallocate", "false", BOOLEAN),
    ("retention.bytes", "-1", Number(-1, i64::MAX)),
    ("retention.ms", "604800000", Number(-1, i64::MAX)),
    ("segment.bytes", "1073741824", Number(14, i32::MAX as i64)),
    (
        "segment.index.bytes",
        "10485760",
        Number(4, i32::MAX as i64),
    ),
    ("segment.jitter.ms", "0", LONG),
    ("segment.ms", "604800000", Number(1, i64::MAX)),
    ("unclean.leader.election.enable", "false", BOOLEAN),
];

/// About the files of Apache Kafka: how they are preallocated, indexed, and rolled and removed at other times than
/// those of other partitions.
const WITHOUT_EFFECT: [&str; 5] = [
    "file.delete.delay.ms",
    "index.interval.bytes",
    "preallocate",
    "segment.index.bytes",
    "segment.jitter.ms",
];

/// The settings among `configs` that are kept and change nothing; those at their defaults need not be told.
pub(crate) fn without_effect(configs: &BTreeMap<String, String>) -> Vec<&'static str> {
    let is_set = |name: &&str| {
        let default = SETTINGS.iter().find(|(known, ..)| known == name);
        default.is_some_and(|(_, default, _)| {
            configs
                .get(*name)
                .is_some_and(|value| value.trim() != *default)
        })
    };
    WITHOUT_EFFECT
        .into_iter()
        .filter(|name| is_set(name))
        .collect()
}

impl TopicConfig {
    /// Checks a topic's own settings, on top of the broker's defaults for topics.
    ///
    /// # Errors
    /// A setting is unknown, or its value not one that it takes.
    pub(crate) fn new(
        overrides: BTreeMap<String, String>,
        defaults: &BTreeMap<String, String>,
    ) -> Result<Self, Error> {
        let mut values: BTreeMap<&'static str, String> = SETTINGS
            .iter()
            .map(|(name, value, _)| (*name, (*value).to_owned()))
            .collect();
        for (name, value) in defaults.iter().chain(&overrides) {
            let (name, _, accepts) = SETTINGS
                .iter()
                .find(|(known, ..)| known == name)
                .ok_or_else(|| invalid(name, value, "it is unknown"))?;
            accepts
                .check(value)
                .map_err(|reason| invalid(name, value, &reason))?;
            values.insert(name, value.trim().to_owned());
        }
        let text = |name: &str| values.get(name).map(String::as_str).unwrap_or_default();
        let number = |name: &str| text(name).parse::<i64>().unwrap_or(i64::MAX);
        let size = |name: &str| usize::try_from(number(name)).unwrap_or(usize::MAX);
        let policy = |wanted: &str| {
            let mut policies = text("cleanup.policy").split(',');
            policies.any(|policy| policy.trim() == wanted)
        };
        let compacts = policy("compact");
        let max_compaction_lag_ms = number("max.compaction.lag.ms");
        if compacts && number("min.compaction.lag.ms") > max_compaction_lag_ms {
            return Err(invalid(
                "min.compaction.lag.ms",
                text("min.compaction.lag.ms"),
                "it must not be more than max.compaction.lag.ms",
            ));
        }
        Ok(Self {
            deletes: policy("delete"),
            compacts,
            min_cleanable_dirty_ratio: text("min.cleanable.dirty.ratio").parse().unwrap_or(0.5),
            min_compaction_lag_ms: number("min.compaction.lag.ms"),
            max_compaction_lag_ms,
            delete_retention_ms: number("delete.retention.ms"),
            retention_ms: Some(number("retention.ms")).filter(|&ms| ms >= 0),
            retention_bytes: u64::try_from(number("retention.bytes")).ok(),
            flush_messages: number("flush.messages"),
            flush_after: u64::try_from(number("flush.ms"))
                .ok()
                .filter(|&ms| ms < i64::MAX as u64)
                .map(Duration::from_millis),
            segment_bytes: size("segment.bytes"),
            segment_ms: match compacts {
                true => number("segment.ms").min(max_compaction_lag_ms),
                false => number("segment.ms"),
            },
            max_message_bytes: size("max.message.bytes"),
            compression: compression(text("compression.type")),
            timestamp_type: match text("message.timestamp.type") {
                "LogAppendTime" => TimestampType::LogAppendTime,
                _ => TimestampType::CreateTime,
            },
            timestamp_before_max_ms: number("message.timestamp.before.max.ms"),
            timestamp_after_max_ms: number("message.timestamp.after.max.ms"),
            overrides,
            values,
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

/// Kafka's numbers of the codecs, which batches carry, too.
fn compression(name: &str) -> Option<u8> {
    match name {
        "uncompressed" => Some(0),
        "gzip" => Some(1),
        "snappy" => Some(2),
        "lz4" => Some(3),
        "zstd" => Some(4),
        _ => None,
    }
}

impl Accepts {
    fn check(&self, value: &str) -> Result<(), String> {
        let value = value.trim();
        let fits = match self {
            Number(min, max) => value
                .parse()
                .is_ok_and(|number: i64| (*min..=*max).contains(&number)),
            Ratio => value
                .parse()
                .is_ok_and(|ratio: f64| (0.0..=1.0).contains(&ratio)),
            Word(words) => words.contains(&value),
            Words(words) => value.split(',').all(|word| words.contains(&word.trim())),
        };
        if fits { Ok(()) } else { Err(self.wanted()) }
    }

    fn wanted(&self) -> String {
        match self {
            Number(min, max) if min == max => {
                format!("on one node it can only be {min}")
            }
            Number(min, i64::MAX) => format!("it must be a whole number of at least {min}"),
            Number(min, max) => format!("it must be a whole number from {min} to {max}"),
            Ratio => "it must be a number from 0 to 1".to_owned(),
            Word([only]) => format!("it can only be {only}"),
            Word(words) => format!("it must be one of {}", words.join(", ")),
            Words(words) => format!("it must be a list of {}", words.join(", ")),
        }
    }
}

fn invalid(name: &str, value: &str, reason: &str) -> Error {
    Error::refused(
        ResponseError::InvalidConfig,
        format!("topic setting {name}={value}: {reason}"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_setting_that_changes_nothing_is_told_unless_it_is_at_its_default() {
        let told = |name: &str, value: &str| {
            let configs = BTreeMap::from([(name.to_owned(), value.to_owned())]);
            TopicConfig::new(configs.clone(), &BTreeMap::new()).unwrap();
            without_effect(&configs)
        };
        assert_eq!(told("preallocate", "true"), ["preallocate"]);
        assert_eq!(told("segment.jitter.ms", "1000"), ["segment.jitter.ms"]);
        assert_eq!(told("retention.ms", "1000"), Vec::<&str>::new());
        for name in WITHOUT_EFFECT {
            let (_, default, _) = SETTINGS.iter().find(|(known, ..)| *known == name).unwrap();
            assert_eq!(
                told(name, default),
                Vec::<&str>::new(),
                "a client sets the default"
            );
        }
    }
}
