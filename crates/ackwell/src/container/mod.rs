//! A record's way, one file a stage.
//!
//! | stage | file | what happens |
//! |---|---|---|
//! | poll | `poll.rs` | one thread owns the consumer, keeps polling, and never runs a handler |
//! | take | `take.rs` | what was fetched is taken from the client's queues and delivered to the engine |
//! | decode | `decode.rs` | a poll's records are copied into one shared buffer |
//! | dispatch | `dispatch.rs` | a lane's waiting records go to a task as one run |
//! | handle | `handle.rs` | the unit of work carries the run out; its end is reported |
//! | (acknowledge) | `acks.rs` | in the manual ack modes, handlers settle their records, from any task |
//! | settle | `act.rs` | the engine's verdict is carried out |
//! | (retry) | `ordered.rs` | what waits for its key's turn is tried again |
//! | (recover) | `dead_letter.rs`, `forward.rs`, `writer.rs` | what cannot be handled, or not now, is written down before it is passed |
//! | track | `track.rs` | partitions come and go; what was settled before is read back |
//! | (transactions) | `transactions/` | what is sent and positions are committed together |
//! | commit | `commit.rs`, `snapshots.rs` | settled positions go to the broker, one request in flight; what has no room in it goes elsewhere before |
//!
//! What to do is decided by [`ackwell_core::engine`]; the files here carry it out. `start.rs`
//! puts a container together, `consumer.rs` is the client with its callbacks, `mailbox.rs` how the
//! poll thread hears of the rest.
//!
//! What is asked for from outside comes in by `control.rs` and `command.rs`; `rebalance.rs`,
//! `observation.rs`, `notice.rs`, `health.rs` and `leaders.rs` tell the outside what goes on; `lookup.rs` asks the broker what
//! takes time to answer. `recreated.rs` tells topics of one name apart.

mod acks;
mod act;
mod command;
mod commit;
mod consumer;
mod control;
mod dead_letter;
mod decode;
mod denied;
mod discover;
mod dispatch;
mod forward;
mod handle;
mod health;
mod leaders;
mod leave;
mod lookup;
mod mailbox;
mod notice;
mod observation;
mod ordered;
mod poll;
mod rebalance;
mod recreated;
mod snapshots;
mod spec;
mod start;
mod stats;
mod take;
mod track;
mod transactions;
mod unread;
mod writer;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use ackwell_core::engine::Event;
use ackwell_core::seek::SeekTo;
use tokio::sync::{oneshot, watch};
use tokio_util::task::TaskTracker;

pub use crate::dead_letters::DeadLetters;
pub(crate) use acks::RunAcks;
pub(crate) use control::Pauses;
pub use control::{AssignedPartition, ControlError, TopicPartition};
pub(crate) use decode::{Names, record};
pub use notice::{Notice, NoticeListener, Notices};
pub use observation::{Observation, Observer, Silent};
pub use rebalance::RebalanceListener;
pub use snapshots::{
    Origin, SNAPSHOT_TOPIC, Snapshot, SnapshotStore, Snapshots, StoreError, Wanted,
};
pub use spec::{Limits, RecordHandler, Spec, StartError};
pub use start::start;
pub(crate) use start::start_with;
pub use stats::Stats;

use self::command::{Command, SeekRequest};
use self::mailbox::{Mailbox, Message};
use self::notice::WeakNotifier;
use self::stats::Counters;

/// How long tasks of cancelled runs are awaited after the container has ended; only a handler
/// that blocks its thread takes that long.
const TASKS_WAIT: Duration = Duration::from_secs(5);

/// A running listener. Dropping it stops the listener without waiting for its end.
pub struct Container {
    listener: Arc<str>,
    mailbox: Mailbox,
    counters: Arc<Counters>,
    notifier: WeakNotifier,
    pauses: Arc<Pauses>,
    end: watch::Receiver<Option<End>>,
    tasks: TaskTracker,
}

/// How a container came to its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// It was told to stop, and everything in work was finished or handed back.
    Stopped,
    /// It stopped by itself: a handler said so, or the client library broke down.
    Failed(String),
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
        self.mailbox.send(Event::Stop);
        self.wait().await
    }

    /// Waits until the container has ended, by [`stop`](Container::stop) or by itself.
    ///
    /// # Cancel safety
    ///
    /// Safe: nothing is lost when the future is dropped.
    pub async fn wait(&self) -> End {
        let mut end = self.end.clone();
        let end = match end.wait_for(Option::is_some).await {
            Ok(end) => end.clone(),
            Err(_) => None,
        };
        self.tasks.close();
        if tokio::time::timeout(TASKS_WAIT, self.tasks.wait())
            .await
            .is_err()
        {
            tracing::warn!(
                listener = &*self.listener,
                "a handler blocks its thread and is left behind"
            );
        }
        end.unwrap_or_else(|| End::Failed("its poll thread panicked".into()))
    }

    /// Handles no new records until [`resume`](Container::resume): the records in work finish,
    /// none behind them starts. Survives rebalances.
    pub fn pause(&self) {
        self.pauses.set_all(true);
        self.mailbox.send(Event::Pause);
    }

    /// Ends a [`pause`](Container::pause).
    pub fn resume(&self) {
        self.pauses.set_all(false);
        self.mailbox.send(Event::Resume);
    }

    /// As [`pause`](Container::pause), for one partition, owned or not: if it goes and comes
    /// back, it is still paused.
    ///
    /// # Errors
    ///
    /// More partitions are paused than any container owns.
    pub fn pause_partition(&self, partition: &TopicPartition) -> Result<(), ControlError> {
        self.pauses.pause(partition)?;
        self.command(Command::Pause(partition.clone()));
        Ok(())
    }

    /// Ends a [`pause_partition`](Container::pause_partition).
    pub fn resume_partition(&self, partition: &TopicPartition) {
        self.pauses.resume(partition);
        self.command(Command::Resume(partition.clone()));
    }

    /// Reads a partition on from elsewhere, see
    /// [`ListenerHandle::seek`](crate::ListenerHandle::seek). Returns the offset.
    ///
    /// # Errors
    ///
    /// The partition is not assigned to this container or goes before the seek is carried out,
    /// the log does not hold the offset, or the broker does not say what it holds.
    ///
    /// # Cancel safety
    ///
    /// The seek is carried out even if the future is dropped.
    pub async fn seek(&self, partition: &TopicPartition, to: SeekTo) -> Result<i64, ControlError> {
        let (answer, answered) = oneshot::channel();
        let answer = Some(answer);
        let partition = partition.clone();
        self.command(Command::Seek(SeekRequest {
            partition,
            to,
            answer,
        }));
        answered.await.unwrap_or(Err(ControlError::Stopped))
    }

    /// As [`seek`](Container::seek), without waiting for the answer; a refusal is logged.
    pub fn request_seek(&self, partition: &TopicPartition, to: SeekTo) {
        let partition = partition.clone();
        let answer = None;
        self.command(Command::Seek(SeekRequest {
            partition,
            to,
            answer,
        }));
    }

    /// The partitions that it owns now.
    ///
    /// # Cancel safety
    ///
    /// Safe.
    pub async fn assignment(&self) -> Vec<AssignedPartition> {
        let (answer, answered) = oneshot::channel();
        self.command(Command::Assignment(answer));
        answered.await.unwrap_or_default()
    }

    fn command(&self, command: Command) {
        self.mailbox.tell(Message::Command(command));
    }

    /// Tells who listens to notices.
    pub(crate) fn notify(&self, notice: Notice) {
        self.notifier.send(notice);
    }

    /// Whether it has not ended yet.
    pub fn is_running(&self) -> bool {
        self.end.borrow().is_none() && self.end.has_changed().is_ok()
    }

    /// What it has done so far.
    pub fn stats(&self) -> Stats {
        self.counters.read()
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        self.mailbox.send(Event::Stop);
    }
}

impl fmt::Debug for Container {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Container")
            .field("listener", &self.listener)
            .finish_non_exhaustive()
    }
}
