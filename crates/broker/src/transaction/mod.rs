//! The transaction coordinator: which records of several partitions count, all or none (KIP-98).
//!
//! A producer that writes to several topics, or writes what it made of records and commits their
//! offsets, may die in between. Without one place that knows what belongs together, readers would
//! see one half. A transactional id names the producer over its lives; each life has a new epoch,
//! which fences the older ones, so that a process that was thought dead cannot write beside its
//! successor.
//!
//! | module | what it holds |
//! |---|---|
//! | `service` | [`Coordinator`]: requests of the wire to the shard that has the transactional id |
//! | `machine` | every decision, without clock, disk or network |
//! | `participants` | the partitions and groups that take part: who may write, where it ends |
//! | `markers` | ends that an operator writes, past the coordinator |
//! | `record` | the records of `__transaction_state`, which are Kafka's |
//!
//! It follows Apache Kafka's coordinator with transactions of version 1: clients name a
//! transaction's partitions before they write to them, and the epoch changes when a producer starts,
//! recovers (KIP-360) or is fenced, not with each transaction (KIP-890, version 2). Late batches are
//! refused by the partition itself, which versions 1 and 2 of Kafka ask the coordinator for.

mod config;
mod host;
mod machine;
mod markers;
mod participants;
mod record;
mod service;

pub(crate) use config::Config;
pub use config::Transactions;
pub(crate) use service::Coordinator;
