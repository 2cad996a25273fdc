//! Forcing records to the disk, so that one `fdatasync` serves all who wait (group commit).
//!
//! A partition that has something to flush queues itself once. While its `fdatasync` runs, appends gather; the next
//! turn takes all of them. No timer delays anybody: what groups is the disk's own time. Different partitions
//! are flushed by a few threads at once, because these only wait.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::partition::Partition;
use crate::error::Kind;
use crate::{Error, Flush};

/// Threads that flush. Each waits for the disk nearly all the time; disks answer some requests at once.
const THREADS: usize = 4;

/// The threads that flush the partitions of one data folder.
#[derive(Debug)]
pub(crate) struct Flusher {
    mode: Flush,
    queue: Mutex<Queue>,
    wake: Condvar,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

/// Every partition is in it once at most.
#[derive(Debug, Default)]
struct Queue {
    ready: VecDeque<Arc<Partition>>,
    /// With an interval: appended to since its last tick.
    waiting: VecDeque<Arc<Partition>>,
    next_tick: Option<Instant>,
    stopped: bool,
}

impl Flusher {
    /// Starts the threads.
    pub(crate) fn start(mode: Flush) -> Result<Arc<Self>, Error> {
        let flusher = Arc::new(Self {
            mode,
            queue: Mutex::default(),
            wake: Condvar::new(),
            threads: Mutex::default(),
        });
        for number in 0..THREADS {
            let this = flusher.clone();
            let thread = thread::Builder::new()
                .name(format!("ackwell-flush-{number}"))
                .spawn(move || this.work());
            let thread = thread.map_err(|error| Error::io("starting a flush thread", error))?;
            flusher
                .threads
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push(thread);
        }
        Ok(flusher)
    }

    pub(super) fn mode(&self) -> Flush {
        self.mode
    }

    /// Queues a partition that has something to flush and is not queued.
    pub(super) fn schedule(&self, partition: Arc<Partition>) {
        let mut queue = self.queue();
        match self.mode {
            Flush::Always => {
                queue.ready.push_back(partition);
                self.wake.notify_one();
            }
            Flush::Interval(interval) => {
                queue.waiting.push_back(partition);
                if queue.next_tick.is_none() {
                    queue.next_tick = Some(Instant::now() + interval);
                    self.wake.notify_one();
                }
            }
        }
    }

    /// Flushes what is queued and ends the threads.
    pub(crate) fn stop(&self) {
        self.queue().stopped = true;
        self.wake.notify_all();
        let threads =
            std::mem::take(&mut *self.threads.lock().unwrap_or_else(PoisonError::into_inner));
        for thread in threads {
            if thread.join().is_err() {
                tracing::error!("a flush thread panicked");
            }
        }
    }

    fn work(&self) {
        while let Some(partition) = self.take() {
            if partition.flush(false) {
                self.schedule(partition);
            }
        }
    }

    /// The next partition to flush; `None` when stopped and nothing is left.
    fn take(&self) -> Option<Arc<Partition>> {
        let mut queue = self.queue();
        loop {
            if queue.stopped || queue.next_tick.is_some_and(|tick| tick <= Instant::now()) {
                queue.next_tick = None;
                let due = std::mem::take(&mut queue.waiting);
                queue.ready.extend(due);
                self.wake.notify_all();
            }
            if let Some(partition) = queue.ready.pop_front() {
                return Some(partition);
            }
            if queue.stopped {
                return None;
            }
            let left = queue.next_tick.map_or(Duration::from_secs(60), |tick| {
                tick.saturating_duration_since(Instant::now())
            });
            queue = self
                .wake
                .wait_timeout(queue, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How far a partition is flushed.
#[derive(Debug, Clone)]
pub(super) struct Flushed {
    /// The offset behind the last record on the disk.
    pub(super) end: i64,
    /// Why nothing more gets there.
    pub(super) stopped: Option<Stopped>,
}

/// Why a partition takes no records.
#[derive(Debug, Clone)]
pub(super) enum Stopped {
    /// It was deleted.
    Deleted,
    /// The data folder was closed.
    Closed,
    /// The disk refused in a way that leaves unknown what is on it. After a failed `fsync` the system may have dropped
    /// the pages: a second one that succeeds would prove nothing.
    Failed(Arc<str>),
}

impl Stopped {
    pub(super) fn error(&self, topic: &str, partition: i32) -> Error {
        match self {
            Self::Deleted => Error::refused(
                kafka_protocol::error::ResponseError::UnknownTopicOrPartition,
                format!("{topic}-{partition} was deleted"),
            ),
            Self::Closed => Error::new(Kind::Closed, "the data folder is closed"),
            Self::Failed(reason) => Error::new(
                Kind::Io,
                format!(
                    "{topic}-{partition} only reads until the broker is restarted, after a disk error: {reason}"
                ),
            ),
        }
    }
}
