//! The memory that connections may take together: requests while they arrive and are carried out, records on their way
//! to clients.
//!
//! Every connection has its own limits, but a thousand times such a limit is more than any machine has. Small
//! requests (heartbeats, commits, metadata) are not counted: they go on however much is in use.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

/// Bytes are counted in steps of this size, so that any limit fits the semaphore.
const STEP: usize = 1024;

/// What all connections of a broker may take.
#[derive(Debug)]
pub(crate) struct Memory {
    free: Arc<Semaphore>,
    steps: u32,
    wait_max: Duration,
}

/// Memory that is in use until this is dropped.
#[derive(Debug, Default)]
pub(crate) struct Held(Option<OwnedSemaphorePermit>);

impl Memory {
    /// `bytes` together; who needs some waits for `wait_max` at most.
    pub(crate) fn new(bytes: usize, wait_max: Duration) -> Self {
        let steps = u32::try_from(bytes / STEP).unwrap_or(u32::MAX >> 4).max(1);
        Self {
            free: Arc::new(Semaphore::new(steps as usize)),
            steps,
            wait_max,
        }
    }

    /// Waits for `bytes`; `None` if others do not let go of them. More than there is counts as all of it.
    ///
    /// # Cancel safety
    /// Nothing is held when the future is dropped; the place in the queue is lost.
    pub(crate) async fn take(&self, bytes: usize) -> Option<Held> {
        let steps = self.steps(bytes);
        let taken = timeout(
            self.wait_max,
            Arc::clone(&self.free).acquire_many_owned(steps),
        );
        let permit = taken.await.ok()?.ok()?;
        Some(Held(Some(permit)))
    }

    /// Bytes in use.
    pub(crate) fn used(&self) -> usize {
        self.max() - self.free.available_permits() * STEP
    }

    /// Bytes there are.
    pub(crate) fn max(&self) -> usize {
        self.steps as usize * STEP
    }

    fn steps(&self, bytes: usize) -> u32 {
        u32::try_from(bytes.div_ceil(STEP))
            .unwrap_or(self.steps)
            .min(self.steps)
    }
}

impl Held {
    /// Gives back all but `bytes`.
    pub(crate) fn shrink(&mut self, bytes: usize) {
        let steps = bytes.div_ceil(STEP);
        if let Some(permit) = &mut self.0 {
            let more = permit.num_permits().saturating_sub(steps);
            drop(permit.split(more));
        }
    }

    /// Holds what `more` holds, too.
    pub(crate) fn join(&mut self, more: Self) {
        match (&mut self.0, more.0) {
            (Some(held), Some(more)) => held.merge(more),
            (held @ None, more) => *held = more,
            (Some(_), None) => {}
        }
    }

    /// Bytes that are held.
    pub(crate) fn bytes(&self) -> usize {
        self.0
            .as_ref()
            .map_or(0, |permit| permit.num_permits() * STEP)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_finds_nothing_free_waits_and_is_told_when_it_was_too_long() {
        let memory = Memory::new(10 * STEP, Duration::from_millis(20));
        let mut held = memory.take(8 * STEP).await.unwrap();
        assert_eq!(memory.used(), 8 * STEP);
        assert!(memory.take(3 * STEP).await.is_none());
        held.shrink(7 * STEP);
        let more = memory.take(3 * STEP).await.unwrap();
        held.join(more);
        assert_eq!((held.bytes(), memory.used()), (10 * STEP, 10 * STEP));
        drop(held);
        assert_eq!(memory.used(), 0);
    }

    #[tokio::test]
    async fn more_than_there_is_counts_as_all_of_it() {
        let memory = Memory::new(10 * STEP, Duration::from_secs(10));
        let held = memory.take(usize::MAX).await.unwrap();
        assert_eq!(held.bytes(), memory.max());
    }
}
