//! The Kafka clients' settings, in one place for consumers, producers and the admin client.
//!
//! librdkafka's defaults lose records for people who know the Java client: offsets are stored at
//! delivery and committed in the background, the partitioner is not Java's, idempotence is off,
//! and a new group starts at the end. What the promise depends on is therefore set here and
//! can't be overridden; everything else can, under `[kafka.extra]`.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use figment::value::{Dict, Value};
use rdkafka::ClientConfig;
use serde::{Deserialize, Deserializer, de};

use super::error::{Error, Problem};
use super::java;

/// How to reach Kafka, section `[kafka]`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Kafka {
    /// `KAFKA_BOOTSTRAP_SERVERS`: host and port, several separated by commas; default
    /// `127.0.0.1:9092`, where the embedded broker listens.
    pub bootstrap_servers: String,
    /// Named in the broker's logs and quotas; default: the service's name.
    pub client_id: Option<String>,
    /// librdkafka properties for every client, by librdkafka's names (`security.protocol`, ..).
    #[serde(deserialize_with = "properties")]
    pub extra: BTreeMap<String, String>,
    /// librdkafka properties for consumers only.
    #[serde(deserialize_with = "properties")]
    pub consumer: BTreeMap<String, String>,
    /// librdkafka properties for producers only.
    #[serde(deserialize_with = "properties")]
    pub producer: BTreeMap<String, String>,
}

impl Default for Kafka {
    fn default() -> Self {
        Self {
            bootstrap_servers: "127.0.0.1:9092".to_owned(),
            client_id: None,
            extra: BTreeMap::new(),
            consumer: BTreeMap::new(),
            producer: BTreeMap::new(),
        }
    }
}

/// Consumer properties that the promise depends on.
const CONSUMER_FIXED: [(&str, &str); 2] = [
    ("enable.auto.commit", "false"),
    ("enable.auto.offset.store", "false"),
];

/// Consumer properties that may be changed.
const CONSUMER_DEFAULTS: [(&str, &str); 5] = [
    // A new group reads what is there; librdkafka would start at the end and skip it.
    ("auto.offset.reset", "earliest"),
    ("isolation.level", "read_committed"),
    // The default of 1000 ms lets throughput fall to a third whenever the local queue fills.
    ("fetch.queue.backoff.ms", "5"),
    ("session.timeout.ms", "45000"),
    // Lag comes with the statistics; parsing them twice a minute costs nothing.
    ("statistics.interval.ms", "2000"),
];

/// Producer properties that the promise depends on.
const PRODUCER_FIXED: [(&str, &str); 3] = [
    ("acks", "all"),
    ("enable.idempotence", "true"),
    // Java's default, so that Java and Rust producers agree on a key's partition.
    ("partitioner", "murmur2_random"),
];

impl Kafka {
    /// The configuration of a consumer in `group`.
    pub fn consumer(&self, group: &str) -> ClientConfig {
        let mut config = self.client(&CONSUMER_DEFAULTS, &self.consumer);
        apply(&mut config, CONSUMER_FIXED);
        config.set("group.id", group);
        config
    }

    /// The configuration of a producer: `acks=all`, idempotent, Java's partitioner.
    pub fn producer(&self, producer: &Producer) -> ClientConfig {
        let mut config = self.client(&[], &self.producer);
        apply(&mut config, PRODUCER_FIXED);
        config
            .set("compression.type", producer.compression.name())
            .set("linger.ms", producer.linger.as_millis().to_string())
            .set(
                "message.timeout.ms",
                producer.delivery_timeout.as_millis().to_string(),
            )
            .set(
                "queue.buffering.max.messages",
                producer.queue_records.to_string(),
            )
            .set(
                "queue.buffering.max.kbytes",
                producer.queue_kbytes.to_string(),
            );
        if producer.acks != Acks::All {
            config
                .set("acks", producer.acks.name())
                .set("enable.idempotence", "false");
        }
        config
    }

    /// The configuration of an admin client or a probe.
    pub fn admin(&self) -> ClientConfig {
        self.client(&[], &BTreeMap::new())
    }

    /// Refuses what contradicts the promise or itself, each with a mend.
    ///
    /// # Errors
    /// With every problem found.
    pub fn check(&self) -> Result<(), Error> {
        let mut problems = self.check_servers();
        let sections = [
            ("kafka.extra", &self.extra),
            ("kafka.consumer", &self.consumer),
            ("kafka.producer", &self.producer),
        ];
        for (section, properties) in sections {
            problems.extend(
                properties
                    .iter()
                    .filter_map(|(name, value)| refuse(section, name, value)),
            );
        }
        problems.extend(self.check_timeouts());
        Error::from_problems(problems)
    }

    fn client(&self, defaults: &[(&str, &str)], own: &BTreeMap<String, String>) -> ClientConfig {
        let mut config = ClientConfig::new();
        apply(&mut config, defaults.iter().copied());
        if let Some(client_id) = &self.client_id {
            config.set("client.id", client_id);
        }
        for (name, value) in self.extra.iter().chain(own) {
            config.set(name, value);
        }
        config.set("bootstrap.servers", &self.bootstrap_servers);
        config
    }

    fn check_servers(&self) -> Vec<Problem> {
        let key = "kafka.bootstrap_servers";
        let mend = "write host:port, several separated by commas, as in \"localhost:9092\"";
        if self.bootstrap_servers.trim().is_empty() {
            return vec![Problem::new(key, "it is empty").mend(mend)];
        }
        let wrong = |server: &&str| {
            let address = server
                .split_once("://")
                .map_or(*server, |(_, address)| address);
            let port = address
                .rsplit_once(':')
                .map(|(host, port)| (host.trim(), port.trim()));
            !matches!(port, Some((host, port)) if !host.is_empty() && port.parse::<u16>().is_ok_and(|p| p > 0))
        };
        (self
            .bootstrap_servers
            .split(',')
            .map(str::trim)
            .filter(wrong))
        .map(|server| Problem::new(key, format!("`{server}` is not host:port")).mend(mend))
        .collect()
    }

    fn check_timeouts(&self) -> Vec<Problem> {
        let number = |name: &str, default: u64| {
            let value = self.consumer.get(name).or_else(|| self.extra.get(name));
            value
                .and_then(|value| value.parse().ok())
                .unwrap_or(default)
        };
        let session = number("session.timeout.ms", 45_000);
        let poll = number("max.poll.interval.ms", 300_000);
        let heartbeat = number("heartbeat.interval.ms", 3_000);
        let mut problems = Vec::new();
        if poll < session {
            problems.push(
                Problem::new("kafka.consumer.max.poll.interval.ms", format!("{poll} ms is below session.timeout.ms, {session} ms"))
                    .mend("raise it above the session timeout, or lower session.timeout.ms; slow handlers need neither, polling goes on meanwhile"),
            );
        }
        if heartbeat.saturating_mul(2) > session {
            problems.push(
                Problem::new("kafka.consumer.heartbeat.interval.ms", format!("{heartbeat} ms leaves no room for a lost heartbeat within session.timeout.ms, {session} ms"))
                    .mend("set it to at most a third of the session timeout"),
            );
        }
        problems
    }
}

/// How records are sent, section `[producer]`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Producer {
    /// Which replicas must have a record before it counts as sent; default all.
    pub acks: Acks,
    /// Idempotence; default true. It can be off only together with `acks` other than all.
    pub idempotence: bool,
    /// How batches are compressed; default none.
    pub compression: Compression,
    /// How long a batch waits for company; default 5 ms, as in the Java client since Kafka 4.0.
    #[serde(deserialize_with = "super::duration::deserialize")]
    pub linger: Duration,
    /// When an unacknowledged record is given up; default 2 min (Java's `delivery.timeout.ms`).
    #[serde(deserialize_with = "super::duration::deserialize")]
    pub delivery_timeout: Duration,
    /// Records waiting to be sent before `send` waits; default 100,000.
    pub queue_records: u32,
    /// KiB waiting to be sent before `send` waits; default 65,536 (64 MiB).
    pub queue_kbytes: u32,
}

impl Default for Producer {
    fn default() -> Self {
        Self {
            acks: Acks::All,
            idempotence: true,
            compression: Compression::None,
            linger: Duration::from_millis(5),
            delivery_timeout: Duration::from_secs(120),
            queue_records: 100_000,
            queue_kbytes: 65_536,
        }
    }
}

impl Producer {
    /// Refuses what contradicts itself.
    ///
    /// # Errors
    /// With every problem found.
    pub fn check(&self) -> Result<(), Error> {
        let mut problems = Vec::new();
        if self.idempotence && self.acks != Acks::All {
            problems.push(
                Problem::new("producer.acks", format!("acks={} contradicts idempotence, which needs every replica's acknowledgement", self.acks.name()))
                    .mend("remove `producer.acks`, or accept loss and duplicates by name with `producer.idempotence = false`"),
            );
        }
        if !self.idempotence && self.acks == Acks::All {
            problems.push(
                Problem::new(
                    "producer.idempotence",
                    "without it a retried batch can be written twice and out of order",
                )
                .mend("remove it; with acks=all it costs nothing"),
            );
        }
        if self.delivery_timeout <= self.linger {
            problems.push(
                Problem::new(
                    "producer.delivery_timeout",
                    "records would be given up before their batch is sent",
                )
                .mend("make it longer than `producer.linger`"),
            );
        }
        for (key, value) in [
            ("producer.queue_records", self.queue_records),
            ("producer.queue_kbytes", self.queue_kbytes),
        ] {
            if value == 0 {
                problems.push(
                    Problem::new(key, "0 leaves no room for a single record")
                        .mend("remove it, or write a positive number"),
                );
            }
        }
        Error::from_problems(problems)
    }
}

/// Which replicas acknowledge a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub enum Acks {
    /// All in-sync replicas: an acknowledged record survives the loss of any broker.
    #[serde(rename = "all", alias = "-1")]
    All,
    /// The leader only: a record can be lost with it.
    #[serde(rename = "1")]
    Leader,
    /// None: a record can be lost unnoticed.
    #[serde(rename = "0")]
    None,
}

impl Acks {
    fn name(self) -> &'static str {
        match self {
            Self::All => "all",
            Self::Leader => "1",
            Self::None => "0",
        }
    }
}

/// How batches are compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "the names are the algorithms'")]
pub enum Compression {
    None,
    Gzip,
    Snappy,
    Lz4,
}

impl Compression {
    fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Gzip => "gzip",
            Self::Snappy => "snappy",
            Self::Lz4 => "lz4",
        }
    }
}

fn apply<'a>(config: &mut ClientConfig, pairs: impl IntoIterator<Item = (&'a str, &'a str)>) {
    for (name, value) in pairs {
        config.set(name, value);
    }
}

/// Says why a librdkafka property can't be set freely, if it can't.
fn refuse(section: &str, name: &str, value: &str) -> Option<Problem> {
    let problem =
        |what: &str, mend: &str| Some(Problem::new(format!("{section}.{name}"), what).mend(mend));
    if let Some(answer) = java::instead_of(name) {
        return problem(
            "the Java client's name, which librdkafka does not know",
            answer,
        );
    }
    let fixed = CONSUMER_FIXED
        .iter()
        .chain(&PRODUCER_FIXED)
        .find(|(fixed, _)| *fixed == name);
    match (name, fixed) {
        (_, Some((_, wanted))) if *wanted == value => None,
        ("enable.auto.commit" | "enable.auto.offset.store", _) => problem(
            "offsets would be committed before the work is done, and a crash would lose records",
            "remove it; the listener commits what is settled, see `ack_mode`",
        ),
        ("acks" | "request.required.acks" | "enable.idempotence", _) => problem(
            "it weakens what an acknowledged record means",
            "remove it, or accept loss by name with `producer.acks` and `producer.idempotence`",
        ),
        ("partitioner", _) => problem(
            "keys would go to other partitions than Java's producers choose, and lose their order",
            "remove it; send to an explicit partition where one is needed",
        ),
        ("group.id", _) => problem("each listener has its own group", "use `Listener::group`"),
        ("bootstrap.servers" | "metadata.broker.list", _) => {
            problem("it has its own setting", "use `kafka.bootstrap_servers`")
        }
        ("client.id", _) => problem("it has its own setting", "use `kafka.client_id`"),
        ("linger.ms" | "queue.buffering.max.ms", _) => {
            problem("it has its own setting", "use `producer.linger`")
        }
        ("compression.type" | "compression.codec", _) => {
            problem("it has its own setting", "use `producer.compression`")
        }
        ("message.timeout.ms" | "delivery.timeout.ms", _) => {
            problem("it has its own setting", "use `producer.delivery_timeout`")
        }
        ("queue.buffering.max.messages", _) => {
            problem("it has its own setting", "use `producer.queue_records`")
        }
        ("queue.buffering.max.kbytes", _) => {
            problem("it has its own setting", "use `producer.queue_kbytes`")
        }
        ("transactional.id", _) => problem(
            "one id on every instance would fence them all but one",
            "remove it",
        ),
        _ => None,
    }
}

/// Reads librdkafka properties: quoted names, or TOML's dotted keys, which nest; values of any scalar.
fn properties<'de, D: Deserializer<'de>>(input: D) -> Result<BTreeMap<String, String>, D::Error> {
    let dict = Dict::deserialize(input)?;
    let mut flat = BTreeMap::new();
    flatten("", &dict, &mut flat).map_err(de::Error::custom)?;
    Ok(flat)
}

fn flatten(
    prefix: &str,
    dict: &Dict,
    flat: &mut BTreeMap<String, String>,
) -> Result<(), NotScalar> {
    for (name, value) in dict {
        let name = if prefix.is_empty() {
            name.clone()
        } else {
            format!("{prefix}.{name}")
        };
        let text = match value {
            Value::Dict(_, inner) => {
                flatten(&name, inner, flat)?;
                continue;
            }
            Value::String(_, text) => text.clone(),
            Value::Bool(_, flag) => flag.to_string(),
            Value::Num(_, number) => number_text(*number).ok_or(NotScalar(name.clone()))?,
            _ => return Err(NotScalar(name)),
        };
        flat.insert(name, text);
    }
    Ok(())
}

fn number_text(number: figment::value::Num) -> Option<String> {
    let integer = number
        .to_i128()
        .or_else(|| number.to_u128().and_then(|n| i128::try_from(n).ok()));
    integer
        .map(|n| n.to_string())
        .or_else(|| number.to_f64().map(|n| n.to_string()))
}

struct NotScalar(String);

impl fmt::Display for NotScalar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` must be a text, a number or true or false", self.0)
    }
}
