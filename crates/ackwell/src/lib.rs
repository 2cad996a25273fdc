//! Services on Kafka records that lose none and apply none twice.

pub mod config;
mod topic;

pub use topic::{DEAD_LETTER_SUFFIX, Event, Topic, TopicDeclaration};
