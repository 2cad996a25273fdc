//! Services on Kafka records that lose none and apply none twice.

pub mod container;
pub mod extensions;
pub mod failure;
pub mod record;
pub mod unit;

pub use ackwell_core as core;
