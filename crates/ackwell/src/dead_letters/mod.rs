//! Dead letters: where they go, what they say, and how they come back.
//!
//! A record that a listener can't handle is written to a dead-letter topic, byte for byte, before
//! the listener passes it. There it waits for somebody: a listener of its own
//! ([`Listener::on_dead_letters`](crate::Listener::on_dead_letters)), or an operator.

mod format;
mod letter;
mod policy;

pub(crate) use format::{Verdict, take_off};
pub use letter::DeadLetter;
pub use policy::{
    DeadLetters, Format, Target, parked, parking_topic, per_class, spring, suffix, topic,
};
