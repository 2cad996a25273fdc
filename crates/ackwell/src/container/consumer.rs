//! The Kafka client, and what it tells while it is polled.
//!
//! Callbacks only note what happened: a rebalance is answered later, when the engine has drained
//! what it has to, while polling and heartbeats go on.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext, RebalanceProtocol};
use rdkafka::error::KafkaError;
use rdkafka::statistics::Statistics;
use rdkafka::topic_partition_list::TopicPartitionList;
use rdkafka::types::RDKafkaRespErr;

use super::leaders::{Unreached, silence_max, unreached};
use super::recreated::{Ids, Log};

pub(super) type Client = BaseConsumer<Callbacks>;

/// A partition by name.
pub(super) type Named = (String, i32);

/// What the client told while it was polled.
#[derive(Debug)]
pub(super) enum Told {
    Assign(Vec<Named>),
    Revoke {
        partitions: Vec<Named>,
        lost: bool,
    },
    /// The log did not hold a position, and the client went on elsewhere.
    Reset(String),
    /// The topic of this name is another one now.
    Recreated(String),
    /// A broker was heard so long ago.
    Heard(Duration),
    /// This member has no assignment, and for so long it has sent its group's coordinator nothing.
    Outside(Option<Duration>),
    /// Leaders of this member's partitions that are out of reach.
    Unreached(Unreached),
    Ends(Vec<(Named, i64)>),
    /// What keeps a pattern from meaning any topic.
    Topics(Option<String>),
}

/// Notes what happens while the consumer is polled.
#[derive(Debug, Default)]
pub(super) struct Callbacks {
    told: Mutex<VecDeque<Told>>,
    /// What the client said about its last error, which the poll returns as a code alone.
    reason: Mutex<Option<String>>,
    /// By which topics are told apart from others of the same name.
    ids: Mutex<Ids>,
    /// After which silence a leader counts as out of reach.
    leader_silence_max: Duration,
    /// How many lines the client has logged.
    lines: AtomicU64,
    /// What the client says beyond this level is only read here.
    shown: i32,
    /// The container is done: a rebalance is answered on the spot.
    closing: AtomicBool,
}

impl Callbacks {
    pub(super) fn new(consumer: &ClientConfig) -> Self {
        Self {
            leader_silence_max: silence_max(consumer),
            shown: shown(consumer) as i32,
            ..Self::default()
        }
    }

    pub(super) fn tell(&self, told: Told) {
        self.told
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push_back(told);
    }

    pub(super) fn take(&self) -> Option<Told> {
        self.told
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .pop_front()
    }

    /// What the client said about the error that was polled last.
    pub(super) fn take_reason(&self) -> Option<String> {
        self.reason
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
    }

    /// How many lines the client has logged. It does so by its queue of events.
    pub(super) fn lines(&self) -> u64 {
        self.lines.load(Ordering::Relaxed)
    }

    /// Whether the topic has become another one and nobody was [told](Told::Recreated) yet.
    pub(super) fn is_recreated(&self, topic: &str) -> bool {
        let told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let mut told = told.iter();
        told.any(|told| matches!(told, Told::Recreated(name) if name == topic))
    }

    fn topic_has(&self, log: &Log<'_>) {
        let mut ids = self.ids.lock().unwrap_or_else(PoisonError::into_inner);
        if ids.learn(log) {
            self.tell(Told::Recreated(log.topic.to_owned()));
        }
    }

    pub(super) fn close(&self) {
        self.closing.store(true, Ordering::Release);
    }
}

impl ClientContext for Callbacks {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        self.lines.fetch_add(1, Ordering::Relaxed);
        // The only sign of it: to the poll it looks like a gap, or like a rewind.
        if facility == "OFFSET" && message.contains("offset reset") {
            self.tell(Told::Reset(message.to_owned()));
        }
        if let Some(log) = Log::in_message(facility, message) {
            self.topic_has(&log);
        }
        if level as i32 > self.shown {
            return;
        }
        match level {
            RDKafkaLogLevel::Emerg
            | RDKafkaLogLevel::Alert
            | RDKafkaLogLevel::Critical
            | RDKafkaLogLevel::Error => tracing::error!(facility, message, "kafka client"),
            RDKafkaLogLevel::Warning => tracing::warn!(facility, message, "kafka client"),
            RDKafkaLogLevel::Notice | RDKafkaLogLevel::Info => {
                tracing::info!(facility, message, "kafka client");
            }
            RDKafkaLogLevel::Debug => tracing::debug!(facility, message, "kafka client"),
        }
    }

    fn stats(&self, statistics: Statistics) {
        let mut ends = Vec::new();
        for (topic, found) in &statistics.topics {
            for (partition, found) in &found.partitions {
                if *partition >= 0 && found.ls_offset >= 0 {
                    ends.push(((topic.clone(), *partition), found.ls_offset));
                }
            }
        }
        self.tell(Told::Ends(ends));
        let unreached = unreached(&statistics, self.leader_silence_max);
        self.tell(Told::Unreached(unreached));
        if let Some(group) = &statistics.cgrp {
            // The coordinator's own connection has no node of its own.
            let coordinator = statistics
                .brokers
                .values()
                .find(|found| found.source == "logical");
            let outside = group.state == "up" && group.join_state == "init";
            let idle = coordinator.filter(|_| outside);
            let idle = idle.and_then(|found| u64::try_from(found.txidle).ok());
            self.tell(Told::Outside(idle.map(Duration::from_micros)));
        }
        let up = statistics
            .brokers
            .values()
            .filter(|found| found.state == "UP");
        let idle = up.filter_map(|found| u64::try_from(found.rxidle).ok());
        if let Some(micros) = idle.min() {
            self.tell(Told::Heard(Duration::from_micros(micros)));
        }
    }

    /// Errors come out of the poll next, without their reason.
    fn error(&self, error: KafkaError, reason: &str) {
        *self.reason.lock().unwrap_or_else(PoisonError::into_inner) = Some(reason.to_owned());
        tracing::debug!(%error, reason, "kafka client error");
    }
}

impl ConsumerContext for Callbacks {
    fn rebalance(
        &self,
        consumer: &BaseConsumer<Self>,
        code: RDKafkaRespErr,
        partitions: &mut TopicPartitionList,
    ) {
        if self.closing.load(Ordering::Acquire) {
            let assign = code == RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS;
            answer_while_closing(consumer, assign, partitions);
            return;
        }
        let named = names(partitions);
        match code {
            RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS => self.tell(Told::Assign(named)),
            _ => {
                let lost = consumer.assignment_lost();
                self.tell(Told::Revoke {
                    partitions: named,
                    lost,
                });
            }
        }
    }
}

/// Answers a rebalance on the spot: the client does not end while one is open.
pub(super) fn answer_while_closing(
    consumer: &Client,
    assign: bool,
    partitions: &TopicPartitionList,
) {
    let answered = match (assign, consumer.rebalance_protocol()) {
        (true, RebalanceProtocol::Cooperative) => consumer.incremental_assign(partitions),
        (true, RebalanceProtocol::Eager | RebalanceProtocol::None) => consumer.assign(partitions),
        (false, RebalanceProtocol::Cooperative) => consumer.incremental_unassign(partitions),
        (false, RebalanceProtocol::Eager | RebalanceProtocol::None) => consumer.unassign(),
    };
    if let Err(error) = answered {
        tracing::warn!(%error, "a rebalance could not be answered");
    }
}

pub(super) fn list(named: &[Named]) -> TopicPartitionList {
    let mut list = TopicPartitionList::with_capacity(named.len());
    for (topic, partition) in named {
        list.add_partition(topic, *partition);
    }
    list
}

pub(super) fn names(partitions: &TopicPartitionList) -> Vec<Named> {
    let elements = partitions.elements();
    elements
        .iter()
        .map(|element| (element.topic().to_owned(), element.partition()))
        .collect()
}

/// Whether the broker assigns (KIP-848).
pub(super) fn by_broker(config: &ClientConfig) -> bool {
    crate::config::is_assigned_by_broker(config)
}

/// What is shown of what the client says. By default its level is that of the `log` crate, which
/// nobody may have set; warnings are what tells that a position was reset.
fn shown(base: &ClientConfig) -> RDKafkaLogLevel {
    match base.log_level {
        RDKafkaLogLevel::Error => RDKafkaLogLevel::Warning,
        wanted => wanted,
    }
}

/// The consumer's settings: the promise hangs on the forced ones, the others are defaults.
pub(super) fn settings(base: &ClientConfig, group: &str) -> ClientConfig {
    let mut config = base.clone();
    let defaults = [
        // Read what is there; skipping it silently (`latest`) would lose records of a new group.
        ("auto.offset.reset", "earliest"),
        // Java's default too. A damaged batch must be noticed, not handled.
        ("check.crcs", "true"),
        // The default of 1,000 ms cuts throughput to a third when the local queue fills.
        ("fetch.queue.backoff.ms", "5"),
        // Fetched ahead per partition. With a fifth of it the container waits for fetches, and
        // has half the throughput (bench/README.md); the bytes bound the memory.
        ("queued.min.messages", "100000"),
        ("queued.max.messages.kbytes", "16384"),
        // What KIP-714 would tell the broker costs a lock a record; `/metrics` has it, too.
        ("enable.metrics.push", "false"),
        // Partition ends, from which lag is told, and when a broker was heard.
        ("statistics.interval.ms", "5000"),
    ];
    for (name, value) in defaults {
        if config.get(name).is_none() {
            config.set(name, value);
        }
    }
    if !by_broker(&config) && config.get("partition.assignment.strategy").is_none() {
        // Partitions that stay are not interrupted by a rebalance (KIP-429). With KIP-848 the
        // broker assigns, and never interrupts.
        config.set("partition.assignment.strategy", "cooperative-sticky");
    }
    // Only this tells that a topic was created again, and it is said for debugging.
    let debug = match config.get("debug") {
        None | Some("") => "metadata".to_owned(),
        Some(wanted) => format!("{wanted},metadata"),
    };
    config
        .set("debug", debug)
        .set_log_level(RDKafkaLogLevel::Debug);
    config
        .set("group.id", group)
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        .set("enable.partition.eof", "false");
    config
}
