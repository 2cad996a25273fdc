//! Forcing records to the disk, so that one `fdatasync` serves all who wait (group commit).
//!
//! A partition that has something to flush queues itself once. While its `fdatasync` runs, appends gather; the next
//! turn takes all of them. No timer delays anybody: what groups is the disk's own time. Different partitions
//! are flushed by a few threads at once, because these only wait.
//!
//! A topic may ask for more than the broker's setting does (`flush.messages`, `flush.ms`); the earlier one counts.

use std::cmp::{Ordering, Reverse};
use std::collections::{BinaryHeap, VecDeque};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::partition::Partition;
use crate::error::Kind;
use crate::store::TopicConfig;
use crate::{Error, Flush};

/// Threads that flush. Each waits for the disk nearly all the time; disks answer some requests at once.
const THREADS: usize = 4;
/// A thread looks again after so long at the latest.
const DELAY_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// The threads that flush the partitions of one data folder.
#[derive(Debug)]
pub(crate) struct Flusher {
    mode: Flush,
    queue: Mutex<Queue>,
    wake: Condvar,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

/// Every partition is once at most among those that are ready, and once among those that wait.
#[derive(Debug, Default)]
struct Queue {
    ready: VecDeque<Turn>,
    waiting: BinaryHeap<Reverse<Waiting>>,
    stopped: bool,
    /// Nobody is left to work on it.
    ended: bool,
}

/// A partition's turn to be flushed.
#[derive(Debug)]
struct Turn {
    partition: Arc<Partition>,
    /// Its time had come; else there was enough to flush.
    waited: bool,
}

/// A partition to flush at some time, the earliest first.
#[derive(Debug)]
struct Waiting {
    due: Instant,
    partition: Arc<Partition>,
}

impl Ord for Waiting {
    fn cmp(&self, other: &Self) -> Ordering {
        self.due.cmp(&other.due)
    }
}

impl PartialOrd for Waiting {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Waiting {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Waiting {}

/// When a partition is flushed: the broker's setting and the topic's together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Policy {
    /// An acknowledgement waits for the disk, and only what is there can be read.
    pub(super) waits: bool,
    /// So long after the first record that is not on the disk.
    after: Option<Duration>,
    /// At so many records that are not on the disk.
    records_max: i64,
}

impl Policy {
    pub(super) fn of(mode: Flush, config: &TopicConfig) -> Self {
        let broker = match mode {
            Flush::Interval(interval) => Some(interval),
            Flush::Always | Flush::Never => None,
        };
        Self {
            waits: mode == Flush::Always
                || config.flush_messages == 1
                || config.flush_after == Some(Duration::ZERO),
            after: broker.into_iter().chain(config.flush_after).min(),
            records_max: config.flush_messages,
        }
    }

    /// How long a flush may be put off, with so many records not on the disk; `None` leaves them to the system. A closed
    /// segment is flushed in any case, so that a start after a crash has to check one segment at most.
    pub(super) fn delay(&self, records: i64, closed_a_segment: bool) -> Option<Duration> {
        match self.waits || records >= self.records_max {
            true => Some(Duration::ZERO),
            false => self
                .after
                .or_else(|| closed_a_segment.then_some(Duration::ZERO)),
        }
    }
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

    /// Without threads: who made it says when it works.
    #[cfg(test)]
    pub(crate) fn by_hand(mode: Flush) -> Arc<Self> {
        Arc::new(Self {
            mode,
            queue: Mutex::default(),
            wake: Condvar::new(),
            threads: Mutex::default(),
        })
    }

    /// Flushes the next partition that is queued, if there is one.
    #[cfg(test)]
    pub(crate) fn work_once(&self) -> bool {
        let next = self.queue().ready.pop_front();
        let Some(turn) = next else { return false };
        if let Some(delay) = turn.partition.flush_in_turn(turn.waited) {
            self.schedule(turn.partition, delay);
        }
        true
    }

    pub(super) fn mode(&self) -> Flush {
        self.mode
    }

    /// Queues a partition that has something to flush and is not queued so.
    pub(super) fn schedule(&self, partition: Arc<Partition>, delay: Duration) {
        let mut queue = self.queue();
        if queue.ended {
            // It would stay for ever, and with it the partition's files; closing a partition flushes it.
            return;
        }
        if delay.is_zero() {
            queue.ready.push_back(Turn {
                partition,
                waited: false,
            });
        } else {
            // What is too far away for the clock is looked at again in a day.
            let due = Instant::now() + delay.min(DELAY_MAX);
            queue.waiting.push(Reverse(Waiting { due, partition }));
        }
        self.wake.notify_one();
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
        let mut queue = self.queue();
        queue.ended = true;
        queue.ready.clear();
        queue.waiting.clear();
    }

    fn work(&self) {
        while let Some(turn) = self.take() {
            if let Some(delay) = turn.partition.flush_in_turn(turn.waited) {
                self.schedule(turn.partition, delay);
            }
        }
    }

    /// The next partition to flush; `None` when stopped and nothing is left.
    fn take(&self) -> Option<Turn> {
        let mut queue = self.queue();
        loop {
            let now = Instant::now();
            while let Some(Reverse(next)) = queue.waiting.peek()
                && (queue.stopped || next.due <= now)
            {
                let due = queue.waiting.pop();
                queue.ready.extend(due.map(|Reverse(due)| Turn {
                    partition: due.partition,
                    waited: true,
                }));
            }
            if let Some(turn) = queue.ready.pop_front() {
                if !queue.ready.is_empty() {
                    self.wake.notify_one();
                }
                return Some(turn);
            }
            if queue.stopped {
                return None;
            }
            let next = queue.waiting.peek();
            let left = next.map_or(DELAY_MAX, |Reverse(next)| next.due - now);
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn policy(mode: Flush, settings: &[(&str, &str)]) -> Policy {
        let settings = settings
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        Policy::of(mode, &TopicConfig::new(settings, &BTreeMap::new()).unwrap())
    }

    #[test]
    fn the_broker_decides_where_the_topic_says_nothing() {
        let always = policy(Flush::Always, &[]);
        assert!(always.waits);
        assert_eq!(always.delay(1, false), Some(Duration::ZERO));
        let interval = policy(Flush::Interval(SECOND), &[]);
        assert!(!interval.waits);
        assert_eq!(interval.delay(1_000_000, true), Some(SECOND));
        let never = policy(Flush::Never, &[]);
        assert!(!never.waits);
        assert_eq!(never.delay(1_000_000, false), None);
        assert_eq!(
            never.delay(1, true),
            Some(Duration::ZERO),
            "a closed segment"
        );
    }

    #[test]
    fn the_topic_may_ask_for_more_and_never_for_less() {
        let ms = [("flush.ms", "10")];
        let soon = Some(Duration::from_millis(10));
        assert_eq!(policy(Flush::Never, &ms).delay(1, false), soon);
        assert_eq!(policy(Flush::Interval(SECOND), &ms).delay(1, false), soon);
        assert_eq!(
            policy(Flush::Interval(SECOND), &[("flush.ms", "9000")]).delay(1, false),
            Some(SECOND)
        );
        assert_eq!(
            policy(Flush::Always, &ms).delay(1, false),
            Some(Duration::ZERO)
        );
    }

    #[test]
    fn so_many_records_are_flushed_at_once_and_one_is_waited_for() {
        let hundred = policy(Flush::Never, &[("flush.messages", "100")]);
        assert_eq!(hundred.delay(99, false), None);
        assert_eq!(hundred.delay(100, false), Some(Duration::ZERO));
        assert!(!hundred.waits);
        assert!(policy(Flush::Never, &[("flush.messages", "1")]).waits);
        assert!(policy(Flush::Never, &[("flush.ms", "0")]).waits);
    }
}
