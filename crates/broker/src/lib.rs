//! An embedded Kafka broker: one node, durable, any Kafka client can connect.
//!
//! Services that work on Kafka records need a broker to run, and on a laptop, in a test or on a
//! single machine a cluster is a burden nobody wants. This broker is started inside the process
//! (or by `ackwell broker`), speaks Kafka's wire protocol on loopback, keeps its log on disk, and
//! acknowledges a record only when it would survive `kill -9`. Without that last part tests on it
//! would prove nothing about the real thing.
//!
//! It is one node on purpose: replication, elections and controllers are Apache Kafka's job.
//!
//! ```no_run
//! # async fn example() -> Result<(), ackwell_broker::Error> {
//! use ackwell_broker::{Broker, Config};
//!
//! let mut config = Config::new("./ackwell-data/broker");
//! config.listen = "127.0.0.1:0".to_owned();
//! let broker = Broker::start(config).await?;
//! println!("bootstrap.servers={}", broker.local_addr());
//! broker.shutdown().await?;
//! # Ok(())
//! # }
//! ```
//!
//! | module | what it holds |
//! |---|---|
//! | `server` | connections: accepting, TLS, logging in, framing, limits, responses in request order |
//! | `api` | one file per Kafka API and the one table of keys, versions and handlers |
//! | `coordinator` | what coordinators share: decide, append, await the disk, reply; replay |
//! | `sasl` | who somebody is: passwords and proofs of them |
//! | `access` | who may do what |
//! | `group` | the group coordinator and its offsets |
//! | `transaction` | the transaction coordinator |
//! | `metrics` | what is counted, for whoever watches |
//! | `disk` | what is forced to the disk, for the simulation to watch |
//! | `store` | the data folder: lock, topics, configs |
//! | `log` | a partition's segments, indexes, recovery and producer state |

mod access;
mod api;
mod broker;
mod config;
mod coordinator;
mod disk;
mod error;
#[cfg(test)]
mod fuzz;
mod group;
mod log;
mod metrics;
mod sasl;
mod server;
mod store;
mod transaction;

/// What tests take and give back, counted: a request of some bytes must not take gigabytes.
#[cfg(test)]
#[global_allocator]
static ALLOCATOR: &stats_alloc::StatsAlloc<std::alloc::System> = &stats_alloc::INSTRUMENTED_SYSTEM;

pub use broker::Broker;
pub use config::{
    Access, Cleaning, Config, Flush, Limits, Listener, Mechanism, Password, Right, Rule, Tls, User,
};
pub use error::Error;
pub use group::Groups;
pub use store::{Loss, RecoveryReport};
pub use transaction::Transactions;
