//! One database transaction for work, inbox and outbox.
//!
//! A handler's writes, the mark that its record was handled, and the events that it emits
//! commit together or not at all; a relay then publishes the events. Nothing is written
//! twice and nothing is published that did not happen.
//!
//! - [`Database`]: a SQLite file; one writer that all share by group commit, readers beside it.
//! - [`Tx`]: the transaction, as an extractor in a listener or of one's own.
//! - [`ordered`](mod@ordered): retry that keeps the order of each key; the failing key waits in
//!   the database, all others go on.
//! - [`saga`](mod@saga): work in several services that ends whole or is taken back whole.
//! - [`Keyed`]: rows that events write once, last, or in sequence, however often they come.
//! - [`Relay`]: the service that publishes what was emitted.
//! - [`Migration`]: the schema's steps. [`Row`], [`params!`]: what goes in and comes out.

mod backend;
mod bell;
mod database;
mod error;
mod group;
mod inbox;
mod keyed;
mod migration;
mod mutation;
pub mod ordered;
mod outbox;
mod readers;
mod relay;
mod row;
pub mod saga;
mod schema;
mod seat;
mod snapshots;
mod stats;
mod tx;
mod unit;
mod value;

pub use database::{Database, Outbox, Settings};
pub use error::{Error, Result};
pub use keyed::Keyed;
pub use migration::Migration;
pub use ordered::ordered;
pub use relay::Relay;
pub use row::{Cell, Column, FromCell, Row};
pub use stats::Counts;
pub use tx::Tx;
pub use value::{ToValue, Value};
