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
use ackwell_core::engine::{Engine, Event, PartitionId, RunId};
use ackwell_core::offset::CommitOffset;
use rdkafka::Message as _;
use rdkafka::consumer::Consumer;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use super::End;
use super::command::Seeks;
use super::commit::Committer;
use super::consumer::{Client, Named, Told};
use super::dead_letter::DeadLetterWriter;
use super::decode::Decoder;
use super::dispatch::Dispatcher;
use super::forward::{RetryTopics, moment};
use super::health::{Health, damage, offset_in};
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

/// Records that are taken from the client, read and freed together. Freed one by one, each would
/// wait for the client's other thread, which allocates the next ones; read one by one, each would
/// be waited for that has to come from that thread's processor. More of them would have left this
/// one's cache by then.
const TAKEN_AT_ONCE: usize = 32;
/// Records that wait for each other at most before they are dispatched: together they wake the
/// handlers' threads once, and yet the first does not wait for the polls of a thousand partitions.
const DISPATCHED_AT_ONCE: usize = 4000;

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
    decoder: Decoder,
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
                self.follow_denials();
                std::thread::park_timeout(self.rest());
            }
        };
        // Rebalances are answered on the spot from here; dropping the client leaves the group.
        if let Some(acks) = &mut self.dispatcher.acks {
            acks.close_all();
        }
        self.client.context().close();
        self.answer_open_rebalance();
        self.committer.join();
        self.lookups.join();
        self.partitions.clear();
        self.dispatcher.observer.observe(&Observation::Ended);
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

    fn poll_client(&mut self) -> bool {
        let client = Arc::clone(&self.client);
        let mut busy = false;
        while let Some(polled) = client.poll(Duration::ZERO) {
            busy = true;
            // Records have queues of their own; one that comes this way belongs to a partition
            // that is not owned any more.
            if let Err(error) = polled {
                self.client_failed(&error);
            }
        }
        busy
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

    /// Takes a batch of each partition that has one and is not paused.
    fn take_records(&mut self) -> bool {
        let (mut busy, mut waiting) = (false, 0);
        for index in 0..self.partitions.count() {
            let taken = self.take_batch(index);
            busy |= taken > 0;
            waiting += taken;
            if waiting >= DISPATCHED_AT_ONCE {
                self.act();
                waiting = 0;
            }
        }
        self.act();
        busy
    }

    /// Tells the engine what a partition's queue holds; what it decides is carried out by
    /// [`act`](Poller::act). Returns how many records there were.
    fn take_batch(&mut self, index: usize) -> usize {
        let id = PartitionId(u32::try_from(index).unwrap_or(u32::MAX));
        let Some(queue) = self.partitions.queue(index) else {
            return 0;
        };
        if queue.paused || self.seeks.is_late(id) || !queue.take_ready() {
            return 0;
        }
        let (mut count, mut next, mut error) = (0, None, None);
        let mut taken = Vec::with_capacity(TAKEN_AT_ONCE);
        loop {
            let mut bytes = 0;
            let ended = loop {
                match queue.queue.poll(Duration::ZERO) {
                    Some(Ok(message)) => {
                        bytes += message.payload_len();
                        taken.push(message);
                    }
                    Some(Err(found)) => {
                        error = Some(found);
                        break false;
                    }
                    None => break true,
                }
                if taken.len() >= TAKEN_AT_ONCE || self.decoder.is_full_with(taken.len(), bytes) {
                    break false;
                }
            };
            for message in &taken {
                self.decoder.push(message);
            }
            count += taken.len();
            if let Some(last) = taken.last() {
                next = Some(last.offset().saturating_add(1));
            }
            taken.clear();
            if ended {
                break;
            }
            if self.decoder.is_full() || error.is_some() {
                queue.set_ready();
                break;
            }
        }
        let topic = Arc::clone(&queue.topic);
        let mut records = self.decoder.finish(&topic, queue.partition);
        let next = next.filter(|_| !self.is_of_another_log(&topic));
        if let Some(topics) = &self.retry_topics {
            records = topics.receive(&topic, records, moment(self.clock.now()));
        }
        if let Some(next) = next {
            self.not_idle(id);
            if !self.health.denied.is_empty() {
                self.partition_allowed(id);
            }
            self.counters
                .polled
                .fetch_add(records.len() as u64, Ordering::Relaxed);
            let polled = Event::Polled {
                partition: id,
                records,
                next: CommitOffset(next),
            };
            self.engine.on_event(self.clock.now(), polled);
        }
        // Behind the records that came before it: what it is about begins where they end.
        if let Some(error) = error {
            self.partition_failed(id, &error);
        }
        count
    }

    /// Whether the client has said before it had these records that their topic is another one now.
    /// They come again, behind those that they do not follow.
    fn is_of_another_log(&mut self, topic: &str) -> bool {
        self.poll_client();
        self.client.context().is_recreated(topic)
    }

    fn partition_failed(&mut self, id: PartitionId, error: &KafkaError) {
        if error.rdkafka_error_code() == Some(RDKafkaErrorCode::TopicAuthorizationFailed) {
            return self.partition_denied(id);
        }
        let (Some(damage), Some((topic, partition))) = (damage(error), self.partitions.name(id))
        else {
            return self.client_failed(error);
        };
        let (topic, partition) = (&**topic, *partition);
        let said = self.client.context().take_reason();
        let said = said.unwrap_or_else(|| error.to_string());
        let at = offset_in(&said).map(CommitOffset);
        let next = self.engine.next(id).or(at).map(|next| next.0);
        let mend = damage.mend;
        tracing::error!(topic, partition, next, said, "a partition can't be read");
        let place = next.map_or_else(String::new, |next| format!(" at offset {next}"));
        let reason = format!("{topic}-{partition} can't be read{place}: {said}; {mend}");
        if !damage.again {
            self.partitions.set_stopped(id);
        }
        self.on_event(Event::Unreadable {
            partition: id,
            at,
            reason,
            again: damage.again,
        });
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

    fn rest(&self) -> Duration {
        let now = self.clock.now();
        let wakes = [self.engine.deadline(), self.watches.deadline()];
        let until = wakes.into_iter().flatten().min().map(|at| at.since(now));
        let rests = [until, self.seek_rest(), Some(REST_MAX)];
        rests.into_iter().flatten().min().unwrap_or(REST_MAX)
    }
}
