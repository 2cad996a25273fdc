//! Dead letters: where they go, what they say, and how they come back.
//!
//! A record that a listener can't handle is written to a dead-letter topic, byte for byte, before
//! the listener passes it. There it waits for somebody: a listener of its own
//! ([`Listener::on_dead_letters`](crate::Listener::on_dead_letters)), or an operator who looks at
//! it, mends what was wrong, and sends it back ([`DeadLetterQueue`], `ackwell dlq`).
//!
//! | to | use |
//! |---|---|
//! | choose topics and headers | [`Listener::dead_letters`](crate::listener::ListenerBuilder::dead_letters) with [`suffix`], [`topic()`], [`per_class`], [`spring`] |
//! | read one | [`DeadLetter`] |
//! | list, search, replay | [`DeadLetterQueue`] |
//!
//! # What a replay promises
//!
//! A dead letter that is replayed twice takes effect once: the failed attempt's transaction was
//! rolled back, inbox row and all, so the first replay is handled; the record comes back with its
//! event id, or says where it was first read, so the second one is recognised as a duplicate
//! ([`Identity`](crate::Identity)). The same goes for other groups that have handled the record
//! before. The replay itself leaves out what its audit trail says was replayed.
//!
//! A record that fails again comes back as a new dead letter, with the place where it was
//! first read and one more hop; after [`HOPS_MAX`] replays it is parked on `<topic>.parked`.

mod audit;
mod decide;
mod filter;
mod format;
mod letter;
mod policy;
mod queue;
mod replay;
mod view;

pub use audit::{Action, Entry};
pub use decide::Edit;
pub use filter::{Filter, Position, moment};
pub(crate) use format::{Verdict, first_told, last_told, take_off};
pub use letter::{DeadLetter, FirstFailure};
pub(crate) use policy::origin_of;
pub use policy::{
    DeadLetters, Format, Target, parked, parking_topic, per_class, spring, suffix, topic,
};
pub use queue::{DeadLetterQueue, Error, Found, Kind, Overview, PAGE_MAX, Page};
pub use replay::{HOPS_MAX, Replay, Report};
pub use view::shown;
