//! Configs as the wire shows them: those of topics and groups, which can be altered, and the broker's, which are
//! set where it is started.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use kafka_protocol::error::ResponseError;
use kafka_protocol::protocol::StrBytes;

use super::context::NODE_ID;
use super::{Context, access};
use crate::access::Use;
use crate::group::GroupConfig;
use crate::store::{Topic, TopicConfig};
use crate::{Config, Error};

/// Kafka's resource types.
pub(super) const TOPIC: i8 = 2;
pub(super) const BROKER: i8 = 4;
pub(super) const BROKER_LOGGER: i8 = 8;
pub(super) const CLIENT_METRICS: i8 = 16;
pub(super) const GROUP: i8 = 32;

/// Kafka's config sources.
const DYNAMIC_TOPIC: i8 = 1;
const STATIC_BROKER: i8 = 4;
const DEFAULT: i8 = 5;
const DYNAMIC_GROUP: i8 = 8;

/// One setting, as described to a client.
pub(super) struct Described {
    pub(super) name: Cow<'static, str>,
    pub(super) value: String,
    pub(super) source: i8,
    pub(super) kind: Kind,
}

/// Kafka's config types.
#[derive(Debug, Clone, Copy)]
#[repr(i8)]
pub(super) enum Kind {
    Boolean = 1,
    String = 2,
    Int = 3,
    Long = 5,
    Double = 6,
    List = 7,
}

pub(super) fn of_topic(config: &TopicConfig) -> Vec<Described> {
    let described = config.values().iter().map(|(name, value)| Described {
        name: Cow::Borrowed(*name),
        value: value.clone(),
        source: match config.overrides().contains_key(*name) {
            true => DYNAMIC_TOPIC,
            false => DEFAULT,
        },
        kind: kind_of(name),
    });
    described.collect()
}

pub(super) fn of_group(config: &GroupConfig) -> Vec<Described> {
    let described = config.values().map(|(name, value, own)| Described {
        name: Cow::Borrowed(name),
        value,
        source: if own { DYNAMIC_GROUP } else { DEFAULT },
        kind: Kind::Int,
    });
    described.collect()
}

/// Kafka's types of topic settings, which are regular enough to be told from the name.
fn kind_of(name: &str) -> Kind {
    match name {
        "cleanup.policy" => Kind::List,
        "compression.type" | "message.timestamp.type" | "message.format.version" => Kind::String,
        "min.cleanable.dirty.ratio" => Kind::Double,
        "preallocate" => Kind::Boolean,
        "max.message.bytes" | "segment.bytes" | "segment.index.bytes" => Kind::Int,
        "index.interval.bytes" | "min.insync.replicas" => Kind::Int,
        _ if name.ends_with(".enable") => Kind::Boolean,
        _ => Kind::Long,
    }
}

/// The broker's settings under the names that Kafka's tools ask for.
pub(super) fn of_broker(cx: &Context) -> Vec<Described> {
    let config: &Config = &cx.node.config;
    let (host, port) = cx.advertised();
    // As for the advertised address: those of other listeners are not this client's business.
    let protocol = cx.caller.entrance.protocol;
    let retention = config
        .retention
        .map_or_else(|| "-1".to_owned(), |kept| kept.as_millis().to_string());
    let retention_bytes = config
        .retention_bytes
        .map_or_else(|| "-1".to_owned(), |kept| kept.to_string());
    let setting = |name: &'static str, kind: Kind, value: String| Described {
        name: Cow::Borrowed(name),
        value,
        source: STATIC_BROKER,
        kind,
    };
    let limits = &config.limits;
    vec![
        setting(
            "advertised.listeners",
            Kind::String,
            format!("{protocol}://{host}:{port}"),
        ),
        setting(
            "auto.create.topics.enable",
            Kind::Boolean,
            config.auto_create_topics.to_string(),
        ),
        setting("broker.id", Kind::Int, NODE_ID.0.to_string()),
        setting(
            "connections.max.idle.ms",
            Kind::Long,
            limits.idle_max.as_millis().to_string(),
        ),
        setting("default.replication.factor", Kind::Int, "1".to_owned()),
        setting(
            "fetch.max.bytes",
            Kind::Int,
            limits.fetch_bytes_max.to_string(),
        ),
        setting(
            "listeners",
            Kind::String,
            format!("{protocol}://{}", cx.caller.local),
        ),
        setting(
            "log.dirs",
            Kind::String,
            config.folder.display().to_string(),
        ),
        setting(
            "log.cleaner.backoff.ms",
            Kind::Long,
            config.cleaning.interval.as_millis().to_string(),
        ),
        setting(
            "log.cleaner.dedupe.buffer.size",
            Kind::Long,
            config.cleaning.memory_max.to_string(),
        ),
        setting("log.cleaner.enable", Kind::Boolean, true.to_string()),
        setting(
            "log.cleaner.io.max.bytes.per.second",
            Kind::Double,
            // As Kafka writes its default, which is no limit.
            config.cleaning.bytes_per_second.map_or_else(
                || "1.7976931348623157E308".to_owned(),
                |bytes| bytes.to_string(),
            ),
        ),
        setting("log.retention.bytes", Kind::Long, retention_bytes),
        setting("log.retention.ms", Kind::Long, retention),
        setting(
            "log.segment.bytes",
            Kind::Int,
            config.segment_bytes.to_string(),
        ),
        setting(
            "max.connections",
            Kind::Int,
            limits.connections_max.to_string(),
        ),
        setting(
            "num.partitions",
            Kind::Int,
            config.default_partitions.to_string(),
        ),
        setting(
            "socket.request.max.bytes",
            Kind::Int,
            limits.request_bytes_max.to_string(),
        ),
    ]
}

/// Checks that a resource can be altered: a topic that exists, or a group.
pub(super) fn alterable(cx: &Context, kind: i8, name: &str) -> Result<(), Error> {
    right(cx, kind, name, Use::Admin)?;
    match kind {
        TOPIC => existing(cx, name).map(|_topic| ()),
        GROUP => named(name),
        BROKER => Err(Error::refused(
            ResponseError::InvalidConfig,
            "the broker's settings are given when it is started, by flags or in Config",
        )),
        _ => Err(Error::refused(
            ResponseError::InvalidRequest,
            format!("resource type {kind} has no configs here"),
        )),
    }
}

/// Whether the caller may use a resource's settings so.
pub(super) fn right(cx: &Context, kind: i8, name: &str, what: Use) -> Result<(), Error> {
    let right = match kind {
        TOPIC => cx.topic_right(name, what),
        GROUP => cx.group_right(name, what),
        _ => cx.cluster_right(what),
    };
    right.map_err(access::refused)
}

/// The topic of that name.
pub(super) fn existing(cx: &Context, name: &str) -> Result<Arc<Topic>, Error> {
    cx.store().topic(name).ok_or_else(|| {
        Error::refused(
            ResponseError::UnknownTopicOrPartition,
            format!("topic {name} does not exist"),
        )
    })
}

/// A group need not exist to have settings, but it has a name.
pub(super) fn named(group: &str) -> Result<(), Error> {
    match group {
        "" => Err(Error::refused(
            ResponseError::InvalidRequest,
            "a group has a name",
        )),
        _ => Ok(()),
    }
}

/// Refuses a change that names a key twice.
pub(super) fn check_keys<'a>(keys: impl Iterator<Item = &'a str>) -> Result<(), Error> {
    let mut seen = HashSet::new();
    for key in keys {
        if !seen.insert(key) {
            return Err(Error::refused(
                ResponseError::InvalidRequest,
                format!("{key} is changed twice in one request"),
            ));
        }
    }
    Ok(())
}

/// The refusal of a change that says no value.
pub(super) fn without_value(key: &str) -> Error {
    Error::refused(ResponseError::InvalidRequest, format!("{key} has no value"))
}

/// What became of one resource that was to be altered.
pub(super) struct Outcome {
    pub(super) kind: i8,
    pub(super) name: StrBytes,
    pub(super) code: i16,
    pub(super) message: Option<StrBytes>,
}

impl Outcome {
    pub(super) fn new(kind: i8, name: StrBytes, altered: Result<(), Error>) -> Self {
        let refused = altered.err();
        Self {
            kind,
            name,
            code: refused.as_ref().map_or(0, |error| error.code().code()),
            message: refused.map(|error| StrBytes::from_string(error.to_string())),
        }
    }

    /// Of a resource that is named more than once.
    pub(super) fn repeated((kind, name): (i8, StrBytes)) -> Self {
        let refused = Error::refused(
            ResponseError::InvalidRequest,
            format!("{name} is named more than once in the request"),
        );
        Self::new(kind, name, Err(refused))
    }
}

/// Replaces the own settings of an alterable resource, or only checks them.
pub(super) async fn replace(
    cx: &Context,
    kind: i8,
    name: &StrBytes,
    configs: BTreeMap<String, String>,
    validate_only: bool,
) -> Result<(), Error> {
    match kind {
        GROUP => replace_of_group(cx, name, configs, validate_only).await,
        _ => replace_of_topic(cx, name, configs, validate_only).await,
    }
}

async fn replace_of_group(
    cx: &Context,
    name: &StrBytes,
    configs: BTreeMap<String, String>,
    validate_only: bool,
) -> Result<(), Error> {
    let config = cx.groups().config_of(configs.clone())?;
    if validate_only {
        return Ok(());
    }
    let group = name.to_string();
    cx.blocking(move |store| store.set_group_config(&group, configs))
        .await?;
    cx.groups().configure(name, &config).await;
    Ok(())
}

async fn replace_of_topic(
    cx: &Context,
    topic: &str,
    configs: BTreeMap<String, String>,
    validate_only: bool,
) -> Result<(), Error> {
    let topic = topic.to_owned();
    cx.blocking(move |store| match validate_only {
        true => TopicConfig::new(configs, &BTreeMap::new()).map(|_valid| ()),
        false => store.set_configs(&topic, configs),
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_that_the_told_type_cannot_hold_is_refused() {
        let defaults = TopicConfig::new(BTreeMap::new(), &BTreeMap::new()).unwrap();
        for name in defaults.values().keys() {
            let value = match kind_of(name) {
                Kind::Boolean | Kind::String | Kind::List => "7",
                Kind::Int => "2147483648",
                Kind::Long => "9223372036854775808",
                Kind::Double => "half",
            };
            let configs = BTreeMap::from([((*name).to_owned(), value.to_owned())]);
            let taken = TopicConfig::new(configs, &BTreeMap::new());
            assert!(taken.is_err(), "{name}={value}");
        }
    }
}
