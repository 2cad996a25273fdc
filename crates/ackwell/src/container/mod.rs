//! A record's way, one file a stage.
//!
//! | stage | file | what happens |
//! |---|---|---|
//! | poll | `poll.rs` | one thread owns the consumer, keeps polling, and never runs a handler |
//! | decode | `decode.rs` | a poll's records are copied into one shared buffer |
//! | dispatch | `dispatch.rs` | a lane's waiting records go to a task as one run |
//! | handle | `handle.rs` | the unit of work carries the run out; its end is reported |
//! | (acknowledge) | `acks.rs` | in the manual ack modes, handlers settle their records, from any task |
//! | settle | `act.rs` | the engine's verdict is carried out |
//! | (retry) | `ordered.rs` | what waits for its key's turn is tried again |
//! | (recover) | `dead_letter.rs`, `forward.rs`, `writer.rs` | what cannot be handled, or not now, is written down before it is passed |
//! | track | `track.rs` | partitions come and go; what was settled before is read back |
//! | commit | `commit.rs`, `snapshots.rs` | settled positions go to the broker, one request in flight; what has no room in it goes elsewhere before |
//!
//! What to do is decided by [`ackwell_core::engine`]; the files here carry it out. `consumer.rs`
//! is the client with its callbacks, `mailbox.rs` how the poll thread hears of the rest.
//!
//! What is asked for from outside comes in by `control.rs` and `command.rs`; `rebalance.rs`,
//! `notice.rs` and `health.rs` tell the outside what goes on; `lookup.rs` asks the broker what
//! takes time to answer.

mod acks;
mod act;
mod command;
mod commit;
mod consumer;
mod control;
mod dead_letter;
mod decode;
mod discover;
mod dispatch;
mod forward;
mod handle;
mod health;
mod lookup;
mod mailbox;
mod notice;
mod ordered;
mod poll;
mod rebalance;
mod snapshots;
mod spec;
mod stats;
mod track;
mod writer;

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use ackwell_core::Engine;
use ackwell_core::engine::{Config, Event};
use ackwell_core::seek::SeekTo;
use rdkafka::config::FromClientConfigAndContext;
use rdkafka::consumer::Consumer;
use tokio::runtime::Handle;
use tokio::sync::{oneshot, watch};
use tokio_util::task::TaskTracker;

pub use crate::dead_letters::DeadLetters;
pub(crate) use acks::RunAcks;
pub(crate) use control::Pauses;
pub use control::{AssignedPartition, ControlError, TopicPartition};
pub(crate) use decode::Decoder;
pub use notice::{Notice, NoticeListener, Notices};
pub use rebalance::RebalanceListener;
pub use snapshots::{
    Origin, SNAPSHOT_TOPIC, Snapshot, SnapshotStore, Snapshots, StoreError, Wanted,
};
pub use spec::{Limits, Observation, Observer, RecordHandler, Silent, Spec, StartError};
pub use stats::Stats;

use self::acks::Acks;
use self::command::{Command, SeekRequest};
use self::commit::{Committer, Keeper, Listeners};
use self::consumer::{Callbacks, Client};
use self::dead_letter::DeadLetterWriter;
use self::discover::Discovery;
use self::dispatch::Dispatcher;
use self::forward::RetryTopics;
use self::health::Health;
use self::lookup::Lookups;
use self::mailbox::{Mailbox, Message};
use self::notice::{Notifier, Watches};
use self::poll::{Clock, Parts, Poller};
use self::rebalance::Announcer;
use self::stats::Counters;
use self::writer::Writer;

/// How long tasks of cancelled runs are awaited after the container has ended; only a handler
/// that blocks its thread takes that long.
const TASKS_WAIT: Duration = Duration::from_secs(5);

/// A running listener. Dropping it stops the listener without waiting for its end.
pub struct Container {
    listener: Arc<str>,
    mailbox: Mailbox,
    counters: Arc<Counters>,
    notifier: Notifier,
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

/// Starts a listener. Returns when its consumer and, if it has one, its dead-letter producer
/// exist; it joins its group in the background.
///
/// # Errors
///
/// The client refuses its settings, or a dead-letter or retry topic can't be made (no broker answers, its
/// origin does not exist, or a right is missing).
///
/// # Cancel safety
///
/// Dropping the future starts nothing.
pub async fn start(spec: Spec) -> Result<Container, StartError> {
    start_with(spec, Arc::default()).await
}

/// As [`start`], with what is paused already.
pub(crate) async fn start_with(spec: Spec, pauses: Arc<Pauses>) -> Result<Container, StartError> {
    check(&spec)?;
    let writer = Writer::new(&spec)?;
    let dead_letters = match &spec.dead_letters {
        DeadLetters::To(target) => {
            Some(DeadLetterWriter::open(&spec, target, writer.clone()).await?)
        }
        DeadLetters::Stop => None,
    };
    let retry_topics = match spec.retry_topics.as_slice() {
        [] => None,
        _ => Some(RetryTopics::open(&spec, writer).await?),
    };
    let (mailbox, inbox) = Mailbox::new();
    let client = connect(&spec, &mailbox)?;
    let (counters, tasks) = (Arc::new(Counters::default()), TaskTracker::new());
    let dispatcher = Dispatcher {
        group: spec.group.as_str().into(),
        handler: Arc::clone(&spec.handler),
        filter: spec.filter.clone(),
        unit: Arc::clone(&spec.unit),
        verdicts: Arc::new(spec.verdicts.clone()),
        parking: spec.parking.clone(),
        policies: spec.parking.as_ref().map(|_| repeating(&spec)),
        lanes: usize::from(spec.concurrency.lanes()),
        observer: Arc::clone(&spec.observer),
        mailbox: mailbox.clone(),
        runtime: Handle::current(),
        tasks: tasks.clone(),
        runs: HashMap::new(),
        acks: Acks::new(spec.commit, mailbox.waker().clone(), Arc::clone(&counters)),
    };
    let thread = |source| StartError::Thread {
        listener: spec.listener.clone(),
        source,
    };
    let listeners = Listeners {
        mailbox: mailbox.clone(),
        observer: Arc::clone(&spec.observer),
        counters: Arc::clone(&counters),
    };
    let keeper = snapshots::store(&spec).map(|store| Keeper {
        store,
        runtime: Handle::current(),
        group: spec.group.as_str().into(),
        room: spec.limits.metadata_bytes,
    });
    let committer = Committer::start(
        (&spec.listener, &spec.group),
        Arc::clone(&client),
        keeper.clone(),
        listeners,
    )
    .map_err(thread)?;
    let discovery = spec.pattern.clone().map(|matcher| {
        let waker = mailbox.waker().clone();
        Discovery::new(&spec, matcher, &client, waker)
    });
    let lookups = Lookups::start(&spec.listener, Arc::clone(&client), keeper, mailbox.clone())
        .map_err(thread)?;
    let announcer = spec.rebalance.clone().map(|listener| {
        let limit = spec.limits.rebalance_callback;
        Announcer::start(listener, limit, mailbox.clone(), &tasks)
    });
    let notifier = Notifier::start(&spec.notices, Arc::clone(&spec.observer), &tasks);
    let clock = Clock::start();
    let hears = spec.consumer.get("statistics.interval.ms") != Some("0");
    // Before the first record can come.
    for partition in pauses.partitions() {
        mailbox.tell(Message::Command(Command::Pause(partition)));
    }
    if pauses.all() {
        mailbox.send(Event::Pause);
    }
    let poller = Poller::new(Parts {
        client,
        topics: spec.topics.clone(),
        engine: Engine::new(engine_config(&spec)),
        inbox,
        mailbox: mailbox.clone(),
        dispatcher,
        committer,
        lookups,
        dead_letters,
        retry_topics,
        announcer,
        notifier: notifier.clone(),
        watches: Watches::new(&spec.notices, clock.now()),
        counters: Arc::clone(&counters),
        clock,
        health: Health::new(hears, spec.notices.non_responsive_after),
    });
    let (ended, end) = watch::channel(None);
    // The thread is joined through the channel: it sends as its last act, or drops it.
    thread::Builder::new()
        .name(format!("poll-{}", spec.listener))
        .spawn(move || ended.send_replace(Some(poller.run())))
        .map_err(thread)?;
    if let Some(discovery) = discovery {
        tasks.spawn(discovery.run(end.clone()));
    }
    Ok(Container {
        listener: spec.listener.into(),
        mailbox,
        counters,
        notifier,
        pauses,
        end,
        tasks,
    })
}

fn check(spec: &Spec) -> Result<(), StartError> {
    let wrong = |reason| {
        Err(StartError::Spec {
            listener: spec.listener.clone(),
            reason,
        })
    };
    match spec {
        Spec {
            topics,
            pattern: None,
            ..
        } if topics.is_empty() => wrong("it names no topic"),
        Spec { group, .. } if group.is_empty() => wrong("it names no group"),
        Spec {
            commit,
            strict_commits,
            ..
        } => commit
            .check(*strict_commits)
            .or_else(|found| wrong(found.what)),
    }
}

fn connect(spec: &Spec, mailbox: &Mailbox) -> Result<Arc<Client>, StartError> {
    let wrong = |source| StartError::Client {
        listener: spec.listener.clone(),
        source,
    };
    let settings = consumer::settings(&spec.consumer, &spec.group);
    let callbacks = Callbacks::default();
    let mut client = Client::from_config_and_context(&settings, callbacks).map_err(wrong)?;
    let waker = mailbox.waker().clone();
    client.set_nonempty_callback(move || waker.wake());
    let retry_topics: Vec<_> = forward::names(spec).map(|(topic, _)| topic).collect();
    let topics = spec.topics.iter().chain(&retry_topics);
    let topics: Vec<&str> = topics.map(String::as_str).collect();
    if !topics.is_empty() {
        client.subscribe(&topics).map_err(wrong)?;
    }
    Ok(Arc::new(client))
}

/// For each policy in place, the listener's own first, whether it repeats anything at all.
fn repeating(spec: &Spec) -> Arc<[bool]> {
    let policies = std::iter::once(&spec.retry).chain(spec.verdicts.policies());
    policies
        .map(|policy| policy.allows(1, Duration::ZERO, Duration::ZERO))
        .collect()
}

fn engine_config(spec: &Spec) -> Config {
    let limits = spec.limits.clone();
    Config {
        concurrency: spec.concurrency,
        retry: spec.retry.clone(),
        retry_topics: spec.retry_topics.clone(),
        ordered: spec.parking.is_some(),
        retry_for: spec.verdicts.policies().to_vec(),
        commit: spec.commit,
        strict_commits: spec.strict_commits,
        snapshots: snapshots::store(spec).is_some(),
        recover: spec.dead_letters != DeadLetters::Stop,
        queued_records: limits.queued_records(spec.concurrency),
        queued_bytes: limits.queued_bytes,
        total_records: limits.total_records,
        total_bytes: limits.total_bytes,
        run_records: limits.run_records,
        revoke_drain: limits.revoke_drain,
        stop_drain: limits.stop_drain,
        // A little longer than its calls may take, so that their end is always awaited.
        flush_wait: (spec.rebalance.as_ref()).map(|_| limits.rebalance_callback * 2),
        commit_wait: limits.commit_wait,
        unacknowledged_limit: limits.unacknowledged_limit,
        metadata_bytes: limits.metadata_bytes,
        probe: limits.probe,
        recovery: limits.recovery,
        seed: uuid::Uuid::new_v4().as_u64_pair().0,
        ..Config::default()
    }
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
