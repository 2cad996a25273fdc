//! The group coordinator: who is in a consumer group, who reads what, and how far each group got.
//!
//! Consumers that share work must agree on who reads which partition, and find their position
//! again after a crash. Without one place that decides, two of them would handle the same records.
//! Members speak to each other only through this coordinator: it gathers them into a *generation*,
//! has one of them (the leader) assign partitions, and evicts who falls silent.
//!
//! | module | what it holds |
//! |---|---|
//! | `service` | [`Coordinator`]: requests of the wire to the shard that has the group |
//! | `host` | what the machine needs around it; its tasks and log are the [`coordinator`]'s |
//! | `machine` | every decision, without clock, disk or network |
//! | `record` | the formats of its records, which are Kafka's |
//! | `settings` | what one group may have otherwise than the broker |
//! | `known`, `fetch` | two requests brought into the form that the machine knows |
//!
//! [`coordinator`]: crate::coordinator

mod config;
mod fetch;
mod host;
mod known;
mod machine;
mod record;
mod service;
mod settings;

#[cfg(test)]
mod tests;

pub(crate) use config::Config;
pub use config::Groups;
pub(crate) use machine::Client;
pub(crate) use service::{Coordinator, OFFSETS_TOPIC};
pub(crate) use settings::GroupConfig;
