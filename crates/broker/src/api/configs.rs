//! Configs as the wire shows them: a topic's, which can be altered, and the broker's, which are
//! set where it is started.

use std::borrow::Cow;
use std::collections::BTreeMap;

use kafka_protocol::error::ResponseError;

use super::context::NODE_ID;
use super::{Context, access};
use crate::access::Use;
use crate::store::{Topic, TopicConfig};
use crate::{Config, Error};

/// Kafka's resource types.
pub(super) const TOPIC: i8 = 2;
pub(super) const BROKER: i8 = 4;

/// Kafka's config sources.
const DYNAMIC_TOPIC: i8 = 1;
const STATIC_BROKER: i8 = 4;
const DEFAULT: i8 = 5;

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

pub(super) fn of_topic(topic: &Topic) -> Vec<Described> {
    let config = topic.config();
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

/// Checks that a resource can be altered: a topic that exists.
pub(super) fn alterable(cx: &Context, kind: i8, name: &str) -> Result<(), Error> {
    let right = match kind {
        TOPIC => cx.topic_right(name, Use::Admin),
        _ => cx.cluster_right(Use::Admin),
    };
    right.map_err(access::refused)?;
    match kind {
        TOPIC => match cx.store().topic(name) {
            Some(_) => Ok(()),
            None => Err(Error::refused(
                ResponseError::UnknownTopicOrPartition,
                format!("topic {name} does not exist"),
            )),
        },
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

/// Replaces a topic's own settings, or only checks them.
pub(super) async fn replace(
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
