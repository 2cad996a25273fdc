//! How records are sent: the safe way, unless a weaker one is asked for by name.

use std::time::Duration;

use serde::Deserialize;

use super::error::{Error, Problem};
use super::properties;

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
    /// `0s` never gives up, as the outbox relay needs it: order then survives any outage.
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
        if !self.delivery_timeout.is_zero() && self.delivery_timeout <= self.linger {
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
        problems.extend(self.check_ranges());
        Error::from_problems(problems)
    }

    /// What librdkafka has no room for.
    fn check_ranges(&self) -> Vec<Problem> {
        let millis = |time: Duration| time.as_millis().to_string();
        let linger = ("linger", "linger.ms", millis(self.linger));
        let timeout = millis(self.delivery_timeout);
        let timeout = ("delivery_timeout", "message.timeout.ms", timeout);
        let refused = [linger, timeout]
            .into_iter()
            .filter_map(|(key, name, value)| {
                let problem = properties::refused_by_client("producer", name, &value)?;
                Some(problem.of(format!("producer.{key}")))
            });
        refused.collect()
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
    pub(super) fn name(self) -> &'static str {
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
    Zstd,
}

impl Compression {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Gzip => "gzip",
            Self::Snappy => "snappy",
            Self::Lz4 => "lz4",
            Self::Zstd => "zstd",
        }
    }
}
