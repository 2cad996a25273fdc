//! How fast the cleaner goes, how much memory it takes, and when it stops.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::Error;

/// A request to stop that interrupts waiting.
#[derive(Debug, Default)]
pub(crate) struct Stop {
    requested: AtomicBool,
    waits: Mutex<()>,
    wake: Condvar,
}

impl Stop {
    /// Ends the work and every wait.
    pub(crate) fn request(&self) {
        self.requested.store(true, Ordering::Release);
        // Nobody is between looking and waiting now.
        drop(self.waits.lock().unwrap_or_else(PoisonError::into_inner));
        self.wake.notify_all();
    }

    pub(crate) fn is_requested(&self) -> bool {
        self.requested.load(Ordering::Acquire)
    }

    /// Waits for so long at most; whether a stop was requested.
    pub(crate) fn wait(&self, limit: Duration) -> bool {
        if !limit.is_zero() {
            let waits = self.waits.lock().unwrap_or_else(PoisonError::into_inner);
            // Poisoned or not, and whether it was woken or not: what counts is the request.
            let _ = self
                .wake
                .wait_timeout_while(waits, limit, |()| !self.is_requested());
        }
        self.is_requested()
    }
}

/// Why a pass ended before its end.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Halt {
    /// The broker stops.
    #[error("the cleaner was stopped")]
    Stopped,
    /// The disk refused, or what it gave is damaged.
    #[error(transparent)]
    Storage(#[from] Error),
}

/// Limits of the cleaner's work.
#[derive(Debug)]
pub(crate) struct Pace<'a> {
    stop: &'a Stop,
    memory: usize,
    bytes_per_second: Option<u64>,
    since: Instant,
    spent: u64,
}

impl<'a> Pace<'a> {
    /// `memory` in bytes for the keys of a pass; bytes read and written a second, unlimited if `None`.
    pub(crate) fn new(stop: &'a Stop, memory: usize, bytes_per_second: Option<u64>) -> Self {
        Self {
            stop,
            memory,
            bytes_per_second,
            since: Instant::now(),
            spent: 0,
        }
    }

    pub(super) fn memory(&self) -> usize {
        self.memory
    }

    /// Notes bytes that were read or written, and waits where that was too fast.
    pub(super) fn spend(&mut self, bytes: u64) -> Result<(), Halt> {
        self.spent += bytes;
        let ahead = self.bytes_per_second.map_or(Duration::ZERO, |rate| {
            let due = Duration::from_secs_f64(self.spent as f64 / rate.max(1) as f64);
            due.saturating_sub(self.since.elapsed())
        });
        match self.stop.wait(ahead) {
            true => Err(Halt::Stopped),
            false => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_on_bytes_a_second_is_kept() {
        let stop = Stop::default();
        let mut pace = Pace::new(&stop, 0, Some(10_000));
        let started = Instant::now();
        for _ in 0..10 {
            pace.spend(100).unwrap();
        }
        assert!(started.elapsed() >= Duration::from_millis(99));
    }

    #[test]
    fn a_stop_ends_a_wait_at_once() {
        let stop = Stop::default();
        let mut pace = Pace::new(&stop, 0, Some(1));
        std::thread::scope(|scope| {
            scope.spawn(|| stop.request());
            assert!(matches!(pace.spend(1_000_000), Err(Halt::Stopped)));
        });
    }
}
