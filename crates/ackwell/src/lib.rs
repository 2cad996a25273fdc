//! Services on Kafka records that lose none and apply none twice.

pub mod config;
pub mod container;
pub mod extensions;
pub mod failure;
pub mod record;
mod topic;
pub mod unit;

pub use ackwell_core as core;
pub use topic::{DEAD_LETTER_SUFFIX, Event, Topic, TopicDeclaration};
