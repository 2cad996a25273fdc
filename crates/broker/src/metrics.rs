//! What the broker counts, for whoever watches it: requests, connections, memory, logs.
//!
//! Counting is an atomic addition; what can be looked up (sizes, offsets) is looked up when somebody asks.

use std::fmt;
use std::sync::Weak;
use std::sync::atomic::{AtomicU64, Ordering};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

use crate::api::{Node, TABLE};

/// Counters of one broker.
#[derive(Debug)]
pub(crate) struct Counters {
    /// By the place of the API in the table.
    requests: Vec<AtomicU64>,
    pub(crate) requests_refused: AtomicU64,
    pub(crate) received_bytes: AtomicU64,
    pub(crate) sent_bytes: AtomicU64,
    pub(crate) connections: AtomicU64,
    pub(crate) connections_taken: AtomicU64,
    /// Refused because of all connections, and because of those of one address.
    pub(crate) connections_refused: [AtomicU64; 2],
    pub(crate) connections_out_of_memory: AtomicU64,
    pub(crate) fetches_waiting: AtomicU64,
}

impl Default for Counters {
    fn default() -> Self {
        Self {
            requests: TABLE.iter().map(|_| AtomicU64::default()).collect(),
            requests_refused: AtomicU64::default(),
            received_bytes: AtomicU64::default(),
            sent_bytes: AtomicU64::default(),
            connections: AtomicU64::default(),
            connections_taken: AtomicU64::default(),
            connections_refused: Default::default(),
            connections_out_of_memory: AtomicU64::default(),
            fetches_waiting: AtomicU64::default(),
        }
    }
}

impl Counters {
    /// Counts a request of the API in that place of the table.
    pub(crate) fn request(&self, place: usize) {
        if let Some(count) = self.requests.get(place) {
            add(count, 1);
        }
    }
}

pub(crate) fn add(counter: &AtomicU64, more: u64) {
    counter.fetch_add(more, Ordering::Relaxed);
}

/// Counts for as long as it lives.
pub(crate) struct Gauged<'a>(&'a AtomicU64);

impl<'a> Gauged<'a> {
    pub(crate) fn new(gauge: &'a AtomicU64) -> Self {
        add(gauge, 1);
        Self(gauge)
    }
}

impl Drop for Gauged<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A broker's metrics for a registry of the crate `prometheus-client`; gives nothing when the broker is gone.
#[derive(Debug)]
pub(crate) struct Metrics(pub(crate) Weak<Node>);

impl Collector for Metrics {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let Some(node) = self.0.upgrade() else {
            return Ok(());
        };
        let mut metrics = Encoder(encoder);
        metrics.traffic(&node)?;
        metrics.connections(&node)?;
        metrics.transactions(&node)?;
        metrics.logs(&node)
    }
}

struct Encoder<'a>(DescriptorEncoder<'a>);

impl Encoder<'_> {
    fn traffic(&mut self, node: &Node) -> fmt::Result {
        let counters = &node.counters;
        let requests = TABLE.iter().zip(&counters.requests);
        let requests = requests.map(|(api, count)| (api.name(), read(count)));
        self.counters("requests", "Requests carried out", "api", requests)?;
        self.counter(
            "requests_refused",
            "Requests that closed their connection: malformed, not served",
            read(&counters.requests_refused),
        )?;
        self.counter(
            "received_bytes",
            "Bytes of requests",
            read(&counters.received_bytes),
        )?;
        self.counter(
            "sent_bytes",
            "Bytes of responses",
            read(&counters.sent_bytes),
        )?;
        self.gauge(
            "fetches_waiting",
            "Fetches that wait for records",
            read(&counters.fetches_waiting),
        )
    }

    fn connections(&mut self, node: &Node) -> fmt::Result {
        let counters = &node.counters;
        let limits = ["connections_max", "connections_per_address_max"];
        let refused = limits.iter().zip(&counters.connections_refused);
        self.gauge(
            "connections",
            "Open connections",
            read(&counters.connections),
        )?;
        self.counter(
            "connections_taken",
            "Connections taken",
            read(&counters.connections_taken),
        )?;
        self.counters(
            "connections_refused",
            "Connections refused at a limit",
            "limit",
            refused.map(|(limit, count)| (limit.to_string(), read(count))),
        )?;
        self.counter(
            "connections_out_of_memory",
            "Connections closed because memory_max was in use for too long",
            read(&counters.connections_out_of_memory),
        )?;
        self.gauge(
            "memory_used_bytes",
            "Memory that requests and responses take",
            node.memory.used() as u64,
        )?;
        self.gauge(
            "memory_max_bytes",
            "Memory that they may take",
            node.memory.max() as u64,
        )
    }

    fn transactions(&mut self, node: &Node) -> fmt::Result {
        let ends = node.transactions.ends().read().into_iter();
        self.counters(
            "transactions",
            "Transactions that have ended, by outcome",
            "outcome",
            ends.map(|(outcome, count)| (outcome.to_owned(), count)),
        )?;
        let topics = node.store.topics();
        let undecided = topics.iter().map(|topic| {
            let partitions = topic.partitions();
            let behind = partitions
                .iter()
                .map(|partition| partition.undecided_records());
            (topic.name.clone(), behind.sum::<u64>())
        });
        self.gauges(
            "log_undecided_records",
            "Offsets that readers of committed records do not see yet, because a transaction is open",
            "topic",
            undecided,
        )
    }

    fn logs(&mut self, node: &Node) -> fmt::Result {
        let topics = node.store.topics();
        let by_topic = |size: fn(&crate::log::Partition) -> u64| {
            topics.iter().map(move |topic| {
                let partitions = topic.partitions();
                let sum: u64 = partitions.iter().map(|partition| size(partition)).sum();
                (topic.name.clone(), sum)
            })
        };
        let end = |partition: &crate::log::Partition| partition.log_end_offset().unsigned_abs();
        let partitions: u64 = topics
            .iter()
            .map(|topic| topic.partitions().len() as u64)
            .sum();
        let read_only = topics.iter().flat_map(|topic| topic.partitions().to_vec());
        let read_only = read_only
            .filter(|partition| partition.is_read_only())
            .count() as u64;
        let compaction = node.store.compaction();
        self.gauge("topics", "Topics", topics.len() as u64)?;
        self.gauge("partitions", "Partitions", partitions)?;
        self.gauge(
            "under_replicated_partitions",
            "Always 0: one node has no replicas",
            0,
        )?;
        self.gauge(
            "read_only_partitions",
            "Partitions that take no records after an error of the disk",
            read_only,
        )?;
        self.counters("log_records", "Offsets given out", "topic", by_topic(end))?;
        self.gauges(
            "log_size_bytes",
            "Bytes of the logs",
            "topic",
            by_topic(|partition| partition.size_bytes()),
        )?;
        self.counter("compactions", "Passes of compaction", compaction.passes)?;
        self.counter(
            "compaction_freed_bytes",
            "Bytes freed by compaction",
            compaction.freed_bytes,
        )?;
        self.counter(
            "compaction_removed_records",
            "Records removed by compaction",
            compaction.removed_records,
        )
    }

    fn counter(&mut self, name: &str, help: &str, value: u64) -> fmt::Result {
        let name = named(name);
        let encoder = self
            .0
            .encode_descriptor(&name, help, None, MetricType::Counter)?;
        ConstCounter::new(value).encode(encoder)
    }

    fn gauge(&mut self, name: &str, help: &str, value: u64) -> fmt::Result {
        let name = named(name);
        let encoder = self
            .0
            .encode_descriptor(&name, help, None, MetricType::Gauge)?;
        ConstGauge::new(signed(value)).encode(encoder)
    }

    fn counters(
        &mut self,
        name: &str,
        help: &str,
        label: &'static str,
        values: impl Iterator<Item = (String, u64)>,
    ) -> fmt::Result {
        let values = values.map(|(of, value)| (of, ConstCounter::new(value)));
        self.family(name, help, MetricType::Counter, label, values)
    }

    fn gauges(
        &mut self,
        name: &str,
        help: &str,
        label: &'static str,
        values: impl Iterator<Item = (String, u64)>,
    ) -> fmt::Result {
        let values = values.map(|(of, value)| (of, ConstGauge::new(signed(value))));
        self.family(name, help, MetricType::Gauge, label, values)
    }

    /// A metric with a value for each value of its label.
    fn family(
        &mut self,
        name: &str,
        help: &str,
        kind: MetricType,
        label: &'static str,
        values: impl Iterator<Item = (String, impl EncodeMetric)>,
    ) -> fmt::Result {
        let name = named(name);
        let mut family = self.0.encode_descriptor(&name, help, None, kind)?;
        for (of, value) in values {
            value.encode(family.encode_family(&[(label, of)])?)?;
        }
        Ok(())
    }
}

fn named(name: &str) -> String {
    format!("ackwell_broker_{name}")
}

fn read(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}
