//! The Kafka client, and what it tells while it is polled.
//!
//! Callbacks only note what happened: a rebalance is answered later, when the engine has drained
//! what it has to, while polling and heartbeats go on.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use rdkafka::ClientConfig;
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext, RebalanceProtocol};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::statistics::Statistics;
use rdkafka::topic_partition_list::TopicPartitionList;
use rdkafka::types::RDKafkaRespErr;

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
    /// `fatal` ends the client.
    Problem {
        error: String,
        fatal: bool,
    },
    Ends(Vec<(Named, i64)>),
    /// What keeps a pattern from meaning any topic.
    Topics(Option<String>),
}

/// Notes what happens while the consumer is polled.
#[derive(Debug, Default)]
pub(super) struct Callbacks {
    told: Mutex<VecDeque<Told>>,
    /// The container is done: a rebalance is answered on the spot.
    closing: AtomicBool,
}

impl Callbacks {
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

    pub(super) fn close(&self) {
        self.closing.store(true, Ordering::Release);
    }
}

impl ClientContext for Callbacks {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
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
    }

    /// Global errors also come out of the poll, see [`problem`].
    fn error(&self, error: KafkaError, reason: &str) {
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
            answer_while_closing(consumer, code, partitions);
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

fn answer_while_closing(consumer: &Client, code: RDKafkaRespErr, partitions: &TopicPartitionList) {
    let answered = match (code, consumer.rebalance_protocol()) {
        (RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS, _) => Ok(()),
        (_, RebalanceProtocol::Cooperative) => consumer.incremental_unassign(partitions),
        (_, RebalanceProtocol::Eager | RebalanceProtocol::None) => consumer.unassign(),
    };
    if let Err(error) = answered {
        tracing::warn!(%error, "partitions could not be given back");
    }
}

pub(super) fn names(partitions: &TopicPartitionList) -> Vec<Named> {
    let elements = partitions.elements();
    elements
        .iter()
        .map(|element| (element.topic().to_owned(), element.partition()))
        .collect()
}

/// What a poll's error means, if anything.
pub(super) fn problem(error: &KafkaError) -> Option<Told> {
    let (code, fatal) = match error {
        KafkaError::MessageConsumption(code) | KafkaError::Global(code) => (*code, false),
        KafkaError::MessageConsumptionFatal(code) => (*code, true),
        KafkaError::PartitionEOF(_) => return None,
        _ => (RDKafkaErrorCode::Unknown, false),
    };
    // One connection of several, or an idle one, is no news; the client reconnects.
    let ordinary = matches!(
        code,
        RDKafkaErrorCode::BrokerTransportFailure | RDKafkaErrorCode::AutoOffsetReset
    );
    (fatal || !ordinary).then(|| Told::Problem {
        error: error.to_string(),
        fatal,
    })
}

/// The consumer's settings: the promise hangs on the forced ones, the others are defaults.
pub(super) fn settings(base: &ClientConfig, group: &str) -> ClientConfig {
    let mut config = base.clone();
    let defaults = [
        // Read what is there; skipping it silently (`latest`) would lose records of a new group.
        ("auto.offset.reset", "earliest"),
        // Partitions that stay are not interrupted by a rebalance (KIP-429).
        ("partition.assignment.strategy", "cooperative-sticky"),
        // The default of 1,000 ms cuts throughput to a third when the local queue fills.
        ("fetch.queue.backoff.ms", "5"),
        // Fetched ahead per partition. With a fifth of it the container waits for fetches, and
        // has half the throughput (bench/README.md); the bytes bound the memory.
        ("queued.min.messages", "100000"),
        ("queued.max.messages.kbytes", "16384"),
        // Partition ends, from which lag is told.
        ("statistics.interval.ms", "5000"),
    ];
    for (name, value) in defaults {
        if config.get(name).is_none() {
            config.set(name, value);
        }
    }
    config
        .set("group.id", group)
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        .set("enable.partition.eof", "false");
    config
}
