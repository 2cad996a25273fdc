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
//! It follows Apache Kafka's coordinator with both versions of transactions, by what each client
//! speaks. In version 1 clients name a transaction's partitions before they write to them, and the
//! epoch changes when a producer starts, recovers (KIP-360) or is fenced. In version 2 (KIP-890, the
//! Java client's since 4.0; librdkafka 2.12 does not know it) writing to a partition takes it into the
//! transaction, and each transaction has an epoch of its own, which EndTxn answers with: a batch
//! delayed by the network cannot get into its producer's next transaction, and a producer whose
//! transaction timed out goes on after an abort. Late batches are refused by the partition itself,
//! which Kafka's partitions ask the coordinator for.

mod config;
mod host;
mod machine;
mod markers;
mod participants;
mod record;
mod service;

pub(crate) use config::Config;
pub use config::Transactions;
pub(crate) use record::Partitions;
pub(crate) use service::Coordinator;
