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
//!
//! Version 2 is not offered, and the feature `transaction.version` not named. It gives each transaction
//! an epoch of its own, so that a batch delayed by the network cannot get into its producer's next
//! transaction. Here its sequence number does that: such a batch is a known duplicate or out of order,
//! and clients take a new epoch themselves after a batch that timed out (KIP-360). What remains is one
//! request less for each new partition, for clients that know version 2: those of Java since 4.0, but not
//! librdkafka (2.12).

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
