//! Decisions without I/O: what is safe to commit, what to retry, what to do next.
//!
//! Everything here is a pure state machine or a pure function: time and randomness are
//! arguments, inputs are events, outputs are effects. That is what lets a seeded simulation
//! (see `tests/`) drive thousands of crashes and rebalances a second through the code that
//! production runs.
//!
//! - [`offset`], [`tracker`], [`metadata`]: which records are delivered, settled, and safe to
//!   commit, and what a restart is told of it.
//! - [`lane`]: which records may be handled at the same time.
//! - [`settle`], [`backoff`]: what a failure leads to, and when.
//! - [`window`]: how many records share a transaction, where they may be in each other's way.
//! - [`alarm`]: when failures are too many to be left to themselves.
//! - [`ordered`]: which keys wait for a failed record, and when it is tried again.
//! - [`saga`]: what follows from the replies of several services, and what is taken back.
//! - [`commit`]: when a position is worth a commit.
//! - [`seek`], [`idle`]: where to read on, and when nothing has come for long.
//! - [`engine`]: the container, which puts the above together.
//! - [`envelope`]: the header names of events and dead letters.
//! - [`murmur2`]: Java's partitioner.

pub mod alarm;
pub mod backoff;
pub mod batch;
pub mod commit;
pub mod engine;
pub mod envelope;
pub mod idle;
pub mod lane;
pub mod metadata;
pub mod murmur2;
#[cfg(feature = "mutations")]
pub mod mutation;
#[cfg(not(feature = "mutations"))]
mod mutation;
pub mod offset;
pub mod ordered;
pub mod saga;
pub mod seek;
pub mod settle;
pub mod time;
pub mod tracker;
pub mod window;

pub use backoff::Policy as RetryPolicy;
pub use engine::Engine;
pub use lane::Concurrency;
pub use settle::Class;
pub use time::Timestamp;
