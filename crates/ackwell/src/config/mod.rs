//! Configuration: one file, the environment and flags, checked before anything starts.
//!
//! A typo in a setting that is silently ignored, or two settings that contradict each other, are
//! found at three in the morning. So settings are typed, unknown keys and contradictions are
//! start-up errors, and each error says where the value came from and how to mend it.
//!
//! Layers, later ones win: defaults, the file `ackwell.toml`, environment variables, flags.
//!
//! ```toml
//! data = "./ackwell-data"
//!
//! [kafka]
//! bootstrap_servers = "127.0.0.1:9092"
//! [kafka.extra]                       # any librdkafka property, for every client
//! security.protocol = "ssl"
//!
//! [producer]
//! compression = "lz4"
//! ```
//!
//! | variable | setting |
//! |---|---|
//! | `KAFKA_BOOTSTRAP_SERVERS` | `kafka.bootstrap_servers` |
//! | `DATABASE_URL` | `database.url` |
//! | `ACKWELL_DATA` | `data` |
//! | `ACKWELL_CONFIG` | the path of the file |
//! | `ACKWELL_SECTION__KEY` | `section.key`, for every other setting |
//!
//! A service adds a section of its own with [`Settings::section`].

mod duration;
mod error;
mod java;
mod kafka;
mod locate;
mod producer;
mod properties;
mod settings;
mod sources;
#[cfg(test)]
mod tests;
mod transactions;

use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;

pub use duration::deserialize as duration;
pub use error::{Error, Problem};
pub use kafka::Kafka;
pub(crate) use kafka::{DECIDED_BY_BROKER, is_assigned_by_broker};
pub use producer::{Acks, Compression, Producer};
pub use settings::Settings;
pub use sources::Sources;
pub use transactions::Transactions;

/// What every service needs to know.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// The data folder (`ACKWELL_DATA`); default `./ackwell-data`.
    pub data: PathBuf,
    /// How to reach Kafka.
    pub kafka: Kafka,
    /// How records are sent.
    pub producer: Producer,
    /// Transactions of Kafka.
    pub transactions: Transactions,
    /// The database, if the service has one.
    pub database: Database,
    /// How topics are created and checked at start.
    pub topics: Topics,
    /// How a service stops.
    pub stop: Stop,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            data: PathBuf::from("./ackwell-data"),
            kafka: Kafka::default(),
            producer: Producer::default(),
            transactions: Transactions::default(),
            database: Database::default(),
            topics: Topics::default(),
            stop: Stop::default(),
        }
    }
}

impl Config {
    /// Reads `ackwell.toml` (or the file that `ACKWELL_CONFIG` names) and the environment.
    ///
    /// # Errors
    /// When a setting is unknown, malformed or contradicts another one.
    pub fn load() -> Result<Self, Error> {
        let mut settings = Sources::new().read()?;
        let config = settings.config()?;
        settings.finish()?;
        Ok(config)
    }

    /// Refuses what can't be used or contradicts itself, in every section. An app does so when it
    /// starts.
    ///
    /// # Errors
    /// With every problem found, each with a mend.
    pub fn check(&self) -> Result<(), Error> {
        let checks = [
            self.kafka.check(),
            self.producer.check(),
            self.transactions.check(),
            self.topics.check(),
            self.stop.check(),
        ];
        let errors = checks.into_iter().filter_map(Result::err);
        let problems = errors.flat_map(|error| error.problems().to_vec());
        Error::from_problems(problems.collect())
    }

    /// The defaults with another broker: for tests and for embedding.
    pub fn with_bootstrap_servers(servers: impl Into<String>) -> Self {
        let kafka = Kafka {
            bootstrap_servers: servers.into(),
            ..Kafka::default()
        };
        Self {
            kafka,
            ..Self::default()
        }
    }
}

/// The database, section `[database]`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Database {
    /// `DATABASE_URL`: `sqlite:path`. Without it a service keeps a SQLite file in the data folder.
    pub url: Option<String>,
}

/// Creating and checking topics at start, section `[topics]`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Topics {
    /// Whether missing topics are created as declared (default) or are an error.
    pub create: bool,
    /// Replicas of a created topic; default -1, the broker's `default.replication.factor`.
    pub replication_factor: i32,
}

impl Default for Topics {
    fn default() -> Self {
        Self {
            create: true,
            replication_factor: -1,
        }
    }
}

impl Topics {
    /// Refuses a number of replicas that no broker takes.
    ///
    /// # Errors
    /// With what is wrong, and a mend.
    pub fn check(&self) -> Result<(), Error> {
        let replicas = self.replication_factor;
        if replicas == -1 || (1..=REPLICAS_MAX).contains(&replicas) {
            return Ok(());
        }
        let what = format!("a topic can't have {replicas} replicas");
        let problem = Problem::new("topics.replication_factor", what);
        Err(problem
            .mend("write how many brokers keep each record, or -1 for the broker's default")
            .into())
    }
}

/// Kafka's protocol has 16 bits for it.
const REPLICAS_MAX: i32 = i16::MAX as i32;

/// Stopping, section `[stop]`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Stop {
    /// How long listeners may take to stop; default 10 s, well within the 30 s that Kubernetes grants. It covers the
    /// records in work, the last commits and leaving the groups: what is not finished 200 ms before the limit (a tenth
    /// of it, if that is less) is cancelled and handed back. A handler that blocks its thread, rebalance callbacks and a
    /// broker that does not answer can take longer. Services, such as relays and HTTP, end after the listeners.
    #[serde(deserialize_with = "duration::deserialize")]
    pub drain: Duration,
}

impl Default for Stop {
    fn default() -> Self {
        Self {
            drain: Duration::from_secs(10),
        }
    }
}

/// Longer than any orchestrator waits, and well within what clocks can count.
const DRAIN_MAX: Duration = Duration::from_secs(24 * 60 * 60);

impl Stop {
    /// Refuses a wait that nobody can mean.
    ///
    /// # Errors
    /// With what is wrong, and a mend.
    pub fn check(&self) -> Result<(), Error> {
        if self.drain <= DRAIN_MAX {
            return Ok(());
        }
        let problem = Problem::new("stop.drain", "it is longer than 24 h");
        Err(problem
            .mend("write less than what the orchestrator waits before it kills a process")
            .into())
    }
}
