//! Counts records and takes the time from the first to the last.

use std::fmt;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use crate::Outcome;
use crate::process::cpu;
use crate::report::Run;

/// One run's meter. Both sides of a comparison count with it, so that counting costs both the same.
pub(crate) struct Meter {
    expected: u64,
    seen: AtomicU64,
    first: OnceLock<Moment>,
    last: OnceLock<Moment>,
    complete: Notify,
}

/// A point in time, and what this process had used until then.
struct Moment {
    at: Instant,
    cpu: Duration,
    allocations: Option<u64>,
}

impl Meter {
    /// A meter for handlers, which live as long as they like; one a run is leaked.
    pub(crate) fn of(expected: u64) -> &'static Self {
        Box::leak(Box::new(Self {
            expected,
            seen: AtomicU64::new(0),
            first: OnceLock::new(),
            last: OnceLock::new(),
            complete: Notify::new(),
        }))
    }

    /// One more record was handled. True when it was the last.
    pub(crate) fn count(&self) -> bool {
        let seen = self.seen.fetch_add(1, Ordering::Relaxed) + 1;
        if seen == 1 {
            let _ = self.first.set(Moment::now());
        }
        if seen == self.expected {
            self.complete.notify_one();
        }
        seen == self.expected
    }

    /// The work is done: the last record was handled, and what belongs to it is durable.
    pub(crate) fn finish(&self) {
        let _ = self.last.set(Moment::now());
    }

    pub(crate) fn expected(&self) -> u64 {
        self.expected
    }

    /// Waits until all records are counted.
    pub(crate) async fn all(&self) {
        self.complete.notified().await;
    }

    /// Fails when records are missing or came twice.
    pub(crate) fn run(&self) -> Outcome<Run> {
        match (self.first.get(), self.last.get()) {
            (Some(first), Some(last)) if self.seen.load(Ordering::Relaxed) == self.expected => {
                let cpu = last.cpu.saturating_sub(first.cpu);
                let run = Run::new(self.expected, last.at - first.at, cpu);
                let allocations = last.allocations.zip(first.allocations);
                Ok(run.with_allocations(allocations.map(|(last, first)| last - first)))
            }
            _ => Err(self.to_string().into()),
        }
    }
}

impl Moment {
    fn now() -> Self {
        Self {
            at: Instant::now(),
            cpu: cpu(std::process::id()).unwrap_or_default(),
            allocations: crate::allocations(),
        }
    }
}

impl fmt::Display for Meter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seen = self.seen.load(Ordering::Relaxed);
        write!(f, "{seen} of {} records were handled", self.expected)
    }
}
