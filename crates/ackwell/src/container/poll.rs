//! One thread owns the consumer: it polls, lets the engine decide, and carries that out.
//!
//! It never runs a handler and never waits for one, nor for a broker, so that it keeps polling
//! whatever they do, and `max.poll.interval.ms` is never a reason to lose a partition.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use ackwell_core::Timestamp;
use ackwell_core::engine::{Engine, Event, RunId};
use rdkafka::consumer::Consumer;

use super::End;
use super::command::Seeks;
use super::commit::Committer;
use super::consumer::{Client, Named, Told};
use super::dead_letter::DeadLetterWriter;
use super::dispatch::Dispatcher;
use super::forward::RetryTopics;
use super::health::Health;
use super::lookup::{Found, Lookups};
use super::mailbox::{Mailbox, Message};
use super::notice::{Notifier, Watches};
use super::observation::Observation;
use super::rebalance::Announcer;
use super::recreated::Recreated;
use super::stats::Counters;
use super::track::Partitions;
use super::transactions::Transactional;
use crate::record::Record;

/// How long the thread rests when nothing happens; whatever happens wakes it earlier.
const REST_MAX: Duration = Duration::from_millis(100);

/// The poll thread's own things.
pub(super) struct Poller {
    pub(super) client: Arc<Client>,
    pub(super) topics: Vec<String>,
    pub(super) engine: Engine<Record>,
    pub(super) inbox: Receiver<Message>,
    pub(super) mailbox: Mailbox,
    pub(super) partitions: Partitions,
    pub(super) dispatcher: Dispatcher,
    pub(super) committer: Committer,
    pub(super) lookups: Lookups,
    pub(super) dead_letters: Option<DeadLetterWriter>,
    pub(super) retry_topics: Option<RetryTopics>,
    /// Recoveries that are no dead letters.
    pub(super) postponed: HashSet<RunId>,
    pub(super) announcer: Option<Announcer>,
    pub(super) notifier: Notifier,
    pub(super) watches: Watches,
    pub(super) counters: Arc<Counters>,
    pub(super) clock: Clock,
    pub(super) health: Health,
    pub(super) seeks: Seeks,
    pub(super) recreated: Recreated,
    /// Partitions that were given and whose positions are looked up.
    pub(super) assigning: Option<Vec<Named>>,
    /// Whether partitions are being lost rather than handed over.
    pub(super) losing: bool,
    /// The end, once its last announcement has been heard.
    pub(super) ending: Option<End>,
    pub(super) end: Option<End>,
}

/// A wall clock that never goes back.
pub(super) struct Clock {
    started: Instant,
    started_at: Timestamp,
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
    pub(super) inbox: Receiver<Message>,
    pub(super) mailbox: Mailbox,
    pub(super) dispatcher: Dispatcher,
    pub(super) committer: Committer,
    pub(super) lookups: Lookups,
    pub(super) dead_letters: Option<DeadLetterWriter>,
    pub(super) retry_topics: Option<RetryTopics>,
    pub(super) transactions: Option<Arc<Transactional>>,
    pub(super) announcer: Option<Announcer>,
    pub(super) notifier: Notifier,
    pub(super) watches: Watches,
    pub(super) counters: Arc<Counters>,
    pub(super) clock: Clock,
    pub(super) health: Health,
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
            lookups,
            dead_letters,
            retry_topics,
            transactions,
            announcer,
            notifier,
            watches,
            counters,
            clock,
            health,
        } = parts;
        Poller {
            client,
            topics,
            engine,
            inbox,
            mailbox,
            partitions: Partitions::new(
                retry_topics.iter().flat_map(RetryTopics::names),
                transactions,
            ),
            dispatcher,
            committer,
            lookups,
            dead_letters,
            retry_topics,
            postponed: HashSet::new(),
            announcer,
            notifier,
            watches,
            counters,
            clock,
            health,
            seeks: Seeks::default(),
            recreated: Recreated::default(),
            assigning: None,
            losing: false,
            ending: None,
            end: None,
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
            let late = self.partitions.read_late(self.clock.now());
            if !busy {
                self.look_for_broker();
                self.follow_denials();
                std::thread::park_timeout(self.rest(late));
            }
        };
        self.leave();
        end
    }

    pub(super) fn on_event(&mut self, event: Event<Record>) {
        let now = self.clock.now();
        self.engine.on_event(now, event);
        self.act();
    }

    /// Polls the client's own queue: rebalances, statistics, errors.
    fn take_events(&mut self) -> bool {
        let mut busy = false;
        // An event that was taken looks like an empty queue, so it is asked twice.
        for _ in 0..2 {
            busy |= self.poll_client();
            while let Some(told) = self.client.context().take() {
                busy = true;
                self.told(told);
            }
        }
        busy
    }

    pub(super) fn poll_client(&mut self) -> bool {
        let client = Arc::clone(&self.client);
        let mut busy = false;
        loop {
            let lines = client.context().lines();
            match client.poll(Duration::ZERO) {
                // Records have queues of their own; one that comes this way belongs to a partition
                // that is not owned any more.
                Some(polled) => {
                    busy = true;
                    if let Err(error) = polled {
                        self.client_failed(&error);
                    }
                }
                // A line of the log was taken, and more may stand before what matters.
                None if client.context().lines() != lines => {}
                None => return busy,
            }
        }
    }

    fn told(&mut self, told: Told) {
        match told {
            Told::Assign(named) => self.told_assign(named),
            Told::Revoke { partitions, lost } => self.told_revoke(&partitions, lost),
            Told::Reset(reason) => self.told_reset(reason),
            Told::Recreated(topic) => self.told_recreated(topic),
            Told::Heard(ago) => self.told_heard(ago),
            Told::Outside(silent) => self.told_outside(silent),
            Told::Unreached(unreached) => {
                self.health.leaders.told(Instant::now(), &unreached);
                self.tell_health();
            }
            Told::Ends(ends) => self.tell_lag(ends),
            Told::Topics(problem) => {
                self.health.topics = problem;
                self.tell_health();
            }
        }
    }

    fn tell_lag(&mut self, ends: Vec<(Named, i64)>) {
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
        while let Ok(message) = self.inbox.try_recv() {
            busy = true;
            match message {
                Message::Event(event) => {
                    self.note(&event);
                    self.on_event(event);
                }
                Message::Command(command) => self.command(command),
                Message::Found(found) => self.found(found),
                Message::Announced(what) => self.announced(what),
            }
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
            Event::Pause | Event::Resume => {
                let paused = matches!(event, Event::Pause);
                let observation = Observation::Paused { paused };
                self.dispatcher.observer.observe(&observation);
            }
            _ => {}
        }
    }

    fn found(&mut self, found: Found) {
        match found {
            Found::Committed(named, positions) => self.committed_found(&named, &positions),
            Found::NotYet(error) => self.positions_unknown(&error),
            Found::Range(request, range) => self.range_found(request, range),
            Found::Topics(looked) => self.topics_looked_at(&looked),
        }
    }

    /// Lets the engine see the time, if it wants to or if nothing else happened.
    fn tick(&mut self, busy: bool) {
        let now = self.clock.now();
        if !busy || self.engine.deadline().is_some_and(|at| at <= now) {
            self.on_event(Event::Tick);
        }
        self.follow_seeks();
        if !busy {
            self.look_for_silence();
            self.listen_for_brokers();
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

    fn rest(&self, late: Option<Timestamp>) -> Duration {
        let now = self.clock.now();
        let wakes = [self.engine.deadline(), self.watches.deadline(), late];
        let until = wakes.into_iter().flatten().min().map(|at| at.since(now));
        let rests = [until, self.seek_rest(), Some(REST_MAX)];
        rests.into_iter().flatten().min().unwrap_or(REST_MAX)
    }
}
