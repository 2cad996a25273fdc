//! The Kafka clients' settings, in one place for consumers, producers and the admin client.
//!
//! librdkafka's defaults lose records for people who know the Java client: offsets are stored at
//! delivery and committed in the background, the partitioner is not Java's, idempotence is off,
//! and a new group starts at the end. What the promise depends on is therefore set here and
//! can't be overridden; everything else can, under `[kafka.extra]`.

use std::collections::BTreeMap;

use rdkafka::ClientConfig;
use serde::Deserialize;

use super::error::{Error, Problem};
use super::java;
use super::producer::{Acks, Producer};
use super::properties;

/// How to reach Kafka, section `[kafka]`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Kafka {
    /// `KAFKA_BOOTSTRAP_SERVERS`: host and port, several separated by commas; default
    /// `127.0.0.1:9092`, where the embedded broker listens.
    pub bootstrap_servers: String,
    /// Named in the broker's logs and quotas; default: the service's name.
    pub client_id: Option<String>,
    /// librdkafka properties for every client, by librdkafka's names (`security.protocol`,
    /// `sasl.username`, ..). TLS and SCRAM need the crate's feature `tls`; SASL PLAIN without TLS
    /// does not.
    #[serde(deserialize_with = "properties::deserialize")]
    pub extra: BTreeMap<String, String>,
    /// librdkafka properties for consumers only.
    #[serde(deserialize_with = "properties::deserialize")]
    pub consumer: BTreeMap<String, String>,
    /// librdkafka properties for producers only.
    #[serde(deserialize_with = "properties::deserialize")]
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
pub(super) const CONSUMER_FIXED: [(&str, &str); 2] = [
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
    // Lag comes with the statistics; parsing them every other second costs nothing.
    ("statistics.interval.ms", "2000"),
];

/// What the broker decides where it assigns (KIP-848); librdkafka refuses the members' own.
pub(crate) const DECIDED_BY_BROKER: [(&str, &str); 3] = [
    ("partition.assignment.strategy", "group.remote.assignor"),
    ("session.timeout.ms", "group.consumer.session.timeout.ms"),
    (
        "heartbeat.interval.ms",
        "group.consumer.heartbeat.interval.ms",
    ),
];

/// Producer properties that the promise depends on.
pub(super) const PRODUCER_FIXED: [(&str, &str); 3] = [
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
        if is_assigned_by_broker(&config) && self.given("session.timeout.ms").is_none() {
            config.remove("session.timeout.ms");
        }
        config
    }

    /// The configuration of a consumer that is no member of `group` and reads what it likes.
    pub(crate) fn reader(&self, group: &str) -> ClientConfig {
        let mut config = self.consumer(group);
        for name in ["group.protocol", "group.remote.assignor"] {
            config.remove(name);
        }
        config
    }

    /// A consumer's property as it is set, and where.
    pub(crate) fn given(&self, name: &str) -> Option<(&'static str, &str)> {
        let own = self
            .consumer
            .get(name)
            .map(|value| ("kafka.consumer", value));
        let value = own.or_else(|| self.extra.get(name).map(|value| ("kafka.extra", value)));
        value.map(|(section, value)| (section, value.as_str()))
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
                    .filter_map(|(name, value)| properties::refuse(section, name, value)),
            );
        }
        problems.extend(self.check_group());
        problems.extend(self.check_statistics());
        Error::from_problems(problems)
    }

    fn client(&self, defaults: &[(&str, &str)], own: &BTreeMap<String, String>) -> ClientConfig {
        let mut config = ClientConfig::new();
        apply(&mut config, defaults.iter().copied());
        if let Some(client_id) = &self.client_id {
            config.set("client.id", client_id);
        }
        for (name, value) in self.extra.iter().chain(own) {
            config.set(name, java::in_librdkafka(name, value));
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

    fn check_group(&self) -> Vec<Problem> {
        let by_broker = self
            .given("group.protocol")
            .is_some_and(|(_, protocol)| is_consumer(protocol));
        if !by_broker {
            return self.check_timeouts();
        }
        let given = DECIDED_BY_BROKER.iter().filter_map(|(name, instead)| {
            let (section, _) = self.given(name)?;
            let what = "with `group.protocol = \"consumer\"` the broker decides it";
            let problem = Problem::new(format!("{section}.{name}"), what);
            Some(problem.mend(format!("remove it; see the group's `{instead}`")))
        });
        given.collect()
    }

    /// Lag, silent brokers and leaders out of reach are seen by statistics alone.
    fn check_statistics(&self) -> Option<Problem> {
        let name = "statistics.interval.ms";
        let (section, _) = self.given(name).filter(|(_, value)| value.trim() == "0")?;
        let what = "without statistics neither lag nor a silent broker is seen";
        let problem = Problem::new(format!("{section}.{name}"), what);
        Some(problem.mend("remove it (the default is 2000), or write a longer interval"))
    }

    fn check_timeouts(&self) -> Vec<Problem> {
        let number = |name: &str, default: u64| {
            let given = self.given(name);
            let value = given.and_then(|(_, value)| value.parse().ok());
            value.unwrap_or(default)
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

/// Whether the broker deals out a group's partitions (KIP-848).
pub(crate) fn is_assigned_by_broker(consumer: &ClientConfig) -> bool {
    consumer.get("group.protocol").is_some_and(is_consumer)
}

fn is_consumer(protocol: &str) -> bool {
    protocol.eq_ignore_ascii_case("consumer")
}

fn apply<'a>(config: &mut ClientConfig, pairs: impl IntoIterator<Item = (&'a str, &'a str)>) {
    for (name, value) in pairs {
        config.set(name, value);
    }
}
