//! One thread owns the consumer: it polls, lets the engine decide, and carries that out.
//!
//! It never runs a handler and never waits for one, so that it keeps polling whatever handlers
//! do, and `max.poll.interval.ms` is never a reason to lose a partition.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use ackwell_core::Timestamp;
use ackwell_core::engine::{Engine, Event, PartitionId, RunId};
use ackwell_core::offset::CommitOffset;
use rdkafka::consumer::Consumer;
use rdkafka::error::KafkaError;

use super::End;
use super::commit::{Committer, Keeper};
use super::consumer::{Client, Told, problem};
use super::dead_letter::DeadLetterWriter;
use super::decode::Decoder;
use super::dispatch::Dispatcher;
use super::forward::{RetryTopics, moment};
use super::mailbox::Mailbox;
use super::spec::Observation;
use super::stats::Counters;
use super::track::Partitions;
use crate::record::Record;

/// How long the thread rests when nothing happens; whatever happens wakes it earlier.
const REST_MAX: Duration = Duration::from_millis(100);
/// How often a broker that went away is looked for, and how long its answer may take.
const LOOK_INTERVAL: Duration = Duration::from_secs(2);
const LOOK_TIMEOUT: Duration = Duration::from_millis(500);

/// The poll thread's own things.
pub(super) struct Poller {
    pub(super) client: Arc<Client>,
    pub(super) topics: Vec<String>,
    pub(super) engine: Engine<Record>,
    pub(super) inbox: Receiver<Event<Record>>,
    pub(super) mailbox: Mailbox,
    pub(super) partitions: Partitions,
    pub(super) dispatcher: Dispatcher,
    pub(super) committer: Committer,
    pub(super) keeper: Option<Keeper>,
    pub(super) dead_letters: Option<DeadLetterWriter>,
    pub(super) retry_topics: Option<RetryTopics>,
    /// Recoveries that are no dead letters.
    pub(super) postponed: HashSet<RunId>,
    pub(super) counters: Arc<Counters>,
    pub(super) clock: Clock,
    pub(super) health: Health,
    pub(super) end: Option<End>,
    decoder: Decoder,
}

/// A wall clock that never goes back.
pub(super) struct Clock {
    started: Instant,
    started_at: Timestamp,
}

/// What the engine says of its health, and what the client says of the broker's.
#[derive(Default)]
pub(super) struct Health {
    pub(super) engine: Option<String>,
    client: Option<String>,
    topics: Option<String>,
    told: Option<String>,
    fatal: Option<String>,
    looked: Option<Instant>,
}

impl Clock {
    pub(super) fn start() -> Self {
        let since = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        let millis = i64::try_from(since.as_millis()).unwrap_or(i64::MAX);
        Clock {
            started: Instant::now(),
            started_at: Timestamp::from_millis(millis),
        }
    }

    pub(super) fn now(&self) -> Timestamp {
        let passed = self.started.elapsed();
        self.started_at
            + Duration::from_millis(u64::try_from(passed.as_millis()).unwrap_or(u64::MAX))
    }
}

/// What the thread starts with.
pub(super) struct Parts {
    pub(super) client: Arc<Client>,
    pub(super) topics: Vec<String>,
    pub(super) engine: Engine<Record>,
    pub(super) inbox: Receiver<Event<Record>>,
    pub(super) mailbox: Mailbox,
    pub(super) dispatcher: Dispatcher,
    pub(super) committer: Committer,
    pub(super) keeper: Option<Keeper>,
    pub(super) dead_letters: Option<DeadLetterWriter>,
    pub(super) retry_topics: Option<RetryTopics>,
    pub(super) counters: Arc<Counters>,
}

impl Poller {
    pub(super) fn new(parts: Parts) -> Self {
        let Parts {
            client,
            topics,
            engine,
            inbox,
            mailbox,
            dispatcher,
            committer,
            keeper,
            dead_letters,
            retry_topics,
            counters,
        } = parts;
        Poller {
            client,
            topics,
            engine,
            inbox,
            mailbox,
            partitions: Partitions::new(retry_topics.iter().flat_map(RetryTopics::names)),
            dispatcher,
            committer,
            keeper,
            dead_letters,
            retry_topics,
            postponed: HashSet::new(),
            counters,
            clock: Clock::start(),
            health: Health::default(),
            end: None,
            decoder: Decoder::default(),
        }
    }

    /// Polls until the container has ended; then leaves the group.
    pub(super) fn run(mut self) -> End {
        self.mailbox.waker().set(std::thread::current());
        let end = loop {
            let heard = self.take_events() | self.take_inbox() | self.take_acks();
            let busy = heard | self.take_records();
            self.tick(busy);
            if let Some(end) = self.end.take() {
                break end;
            }
            if !busy {
                self.look_for_broker();
                std::thread::park_timeout(self.rest());
            }
        };
        // Rebalances are answered on the spot from here; dropping the client leaves the group.
        if let Some(acks) = &mut self.dispatcher.acks {
            acks.close_all();
        }
        self.client.context().close();
        self.partitions.clear();
        self.committer.join();
        end
    }

    fn on_event(&mut self, event: Event<Record>) {
        let now = self.clock.now();
        self.engine.on_event(now, event);
        self.act();
    }

    /// Polls the client's own queue: rebalances, statistics, errors.
    fn take_events(&mut self) -> bool {
        let mut busy = false;
        // An event that was taken looks like an empty queue, so it is asked twice.
        for _ in 0..2 {
            let client = Arc::clone(&self.client);
            while let Some(polled) = client.poll(Duration::ZERO) {
                busy = true;
                // Records have queues of their own; one that comes this way belongs to a partition
                // that is not owned any more.
                if let Err(error) = polled {
                    self.client_failed(&error);
                }
            }
            while let Some(told) = client.context().take() {
                busy = true;
                self.told(told);
            }
        }
        busy
    }

    fn told(&mut self, told: Told) {
        match told {
            Told::Assign(named) => self.assigned(&named),
            Told::Revoke { partitions, lost } => {
                let ids: Vec<_> = partitions
                    .iter()
                    .map(|named| self.partitions.id(named))
                    .collect();
                let partitions = ids.len();
                tracing::info!(
                    group = &*self.dispatcher.group,
                    partitions,
                    lost,
                    "partitions revoked"
                );
                self.dispatcher
                    .observer
                    .observe(&Observation::Revoked { partitions, lost });
                self.on_event(if lost {
                    Event::Lost(ids)
                } else {
                    Event::Revoke(ids)
                });
            }
            Told::Problem { error, fatal } => self.client_problem(error, fatal),
            Told::Ends(ends) => self.tell_lag(ends),
            Told::Topics(problem) => {
                self.health.topics = problem;
                self.tell_health();
            }
        }
    }

    fn assigned(&mut self, named: &[super::consumer::Named]) {
        let client = Arc::clone(&self.client);
        let waker = self.mailbox.waker().clone();
        let partitions = named.len();
        match self
            .partitions
            .assign(&client, &waker, named, self.keeper.as_ref())
        {
            Ok(assigned) => {
                self.tell_parking(named, true);
                tracing::info!(
                    group = &*self.dispatcher.group,
                    partitions,
                    "partitions assigned"
                );
                self.dispatcher
                    .observer
                    .observe(&Observation::Assigned { partitions });
                self.on_event(Event::Assigned(assigned));
            }
            Err(error) => self.client_problem(format!("taking over partitions: {error}"), true),
        }
    }

    fn tell_lag(&mut self, ends: Vec<(super::consumer::Named, i64)>) {
        for (named, end) in ends {
            let id = self.partitions.id(&named);
            if let Some(position) = self.engine.position(id) {
                let records = (end - position.0).max(0);
                let (topic, partition) = (named.0.as_str(), named.1);
                self.dispatcher.observer.observe(&Observation::Lag {
                    topic,
                    partition,
                    records,
                });
            }
        }
    }

    fn take_inbox(&mut self) -> bool {
        let mut busy = false;
        while let Ok(event) = self.inbox.try_recv() {
            busy = true;
            self.note(&event);
            self.on_event(event);
        }
        busy
    }

    fn note(&mut self, event: &Event<Record>) {
        match event {
            Event::Finished { run, .. } | Event::Retried { run, .. } => self.dispatcher.ended(*run),
            Event::Handled { run, records } => self.note_handled(*run, records.len()),
            Event::Recovered { recovery, result } => {
                let postponed = self.postponed.remove(recovery);
                if result.is_ok() {
                    let counters = &self.counters;
                    let counter = if postponed {
                        &counters.postponed
                    } else {
                        &counters.dead_letters
                    };
                    counter.fetch_add(1, Ordering::Relaxed);
                }
            }
            _ => {}
        }
    }

    /// Takes a batch of each partition that has one and is not paused.
    fn take_records(&mut self) -> bool {
        let mut busy = false;
        for index in 0..self.partitions.count() {
            busy |= self.take_batch(index);
        }
        busy
    }

    fn take_batch(&mut self, index: usize) -> bool {
        let Some(queue) = self.partitions.queue(index) else {
            return false;
        };
        if queue.paused || !queue.take_ready() {
            return false;
        }
        let (mut next, mut error) = (None, None);
        loop {
            match queue.queue.poll(Duration::ZERO) {
                Some(Ok(message)) => {
                    self.decoder.push(&message);
                    next = Some(rdkafka::Message::offset(&message).saturating_add(1));
                }
                Some(Err(found)) => error = Some(found),
                None => break,
            }
            if self.decoder.is_full() || error.is_some() {
                queue.set_ready();
                break;
            }
        }
        let mut records = self.decoder.finish(&queue.topic, queue.partition);
        if let Some(topics) = &self.retry_topics {
            records = topics.receive(&queue.topic, records, moment(self.clock.now()));
        }
        if let Some(error) = error {
            self.client_failed(&error);
        }
        let Some(next) = next else { return false };
        self.counters
            .polled
            .fetch_add(records.len() as u64, Ordering::Relaxed);
        let partition = PartitionId(u32::try_from(index).unwrap_or(u32::MAX));
        self.on_event(Event::Polled {
            partition,
            records,
            next: CommitOffset(next),
        });
        true
    }

    /// Lets the engine see the time, if it wants to or if nothing else happened.
    fn tick(&mut self, busy: bool) {
        let now = self.clock.now();
        if !busy || self.engine.deadline().is_some_and(|at| at <= now) {
            self.on_event(Event::Tick);
        }
        self.counters.turns.fetch_add(1, Ordering::Relaxed);
        self.counters
            .in_flight
            .store(self.engine.queued_records(), Ordering::Relaxed);
        self.counters
            .partitions
            .store(self.engine.partitions(), Ordering::Relaxed);
        if self.dispatcher.acks.is_some() {
            self.counters
                .unacknowledged
                .store(self.engine.unacknowledged(), Ordering::Relaxed);
        }
    }

    fn rest(&self) -> Duration {
        let until = self.engine.deadline().map(|at| at.since(self.clock.now()));
        until.map_or(REST_MAX, |until| until.min(REST_MAX))
    }

    fn client_failed(&mut self, error: &KafkaError) {
        if let Some(Told::Problem { error, fatal }) = problem(error) {
            self.client_problem(error, fatal);
        }
    }

    fn client_problem(&mut self, error: String, fatal: bool) {
        if fatal {
            tracing::error!(error, "the kafka client has broken down");
            self.health.fatal = Some(error.clone());
            self.on_event(Event::Stop);
        } else if self.health.client.as_ref() != Some(&error) {
            tracing::warn!(error, "the kafka client reports a problem");
        }
        self.health.client = Some(error);
        self.health.looked = Some(Instant::now());
        self.tell_health();
    }

    /// Sees whether what the client complained about is over.
    fn look_for_broker(&mut self) {
        let due = self
            .health
            .looked
            .is_some_and(|looked| looked.elapsed() >= LOOK_INTERVAL);
        if self.health.client.is_none() || self.health.fatal.is_some() || !due {
            return;
        }
        let fine = self.topics.iter().all(|topic| {
            let found = self.client.fetch_metadata(Some(topic), LOOK_TIMEOUT);
            found.is_ok_and(|found| found.topics().iter().all(|topic| topic.error().is_none()))
        });
        self.health.looked = Some(Instant::now());
        if fine {
            self.health.client = None;
            self.tell_health();
        }
    }

    pub(super) fn tell_health(&mut self) {
        let problem = self
            .health
            .engine
            .as_ref()
            .or(self.health.client.as_ref())
            .or(self.health.topics.as_ref())
            .cloned();
        if problem != self.health.told {
            self.dispatcher.observer.observe(&Observation::Health {
                problem: problem.as_deref(),
            });
            self.health.told = problem;
        }
    }

    /// How the container ended, when the engine has stopped with this problem.
    pub(super) fn ended(&self, problem: Option<String>) -> End {
        problem
            .or_else(|| self.health.fatal.clone())
            .map_or(End::Stopped, End::Failed)
    }
}
