//! The broker's settings, each with its default and the reason for it.

mod access;
mod bounds;
mod check;
mod file;
mod listener;
mod user;

use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

pub use access::{Access, Right, Rule};
pub(crate) use check::{ANONYMOUS, warning};
pub use listener::{Listener, Mechanism, Tls};
pub use user::{Password, User};

use crate::{Groups, Transactions};

/// Settings of a [`Broker`](crate::Broker). Start from [`Config::new`] and change what differs.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Config {
    /// Where the log, the topics and the groups are kept; created if missing, and locked while the
    /// broker runs.
    pub folder: PathBuf,

    /// Address to listen on, `host:port`. Default `127.0.0.1:9092`: Kafka's port, on loopback
    /// because nobody is asked who they are there. Port 0 picks a free one.
    pub listen: String,

    /// Address that clients are told to connect to, `host:port`. Default: the address bound.
    /// Needed when clients reach the broker by another name (a container, a tunnel).
    pub advertised: Option<String>,

    /// Listeners with TLS, logins or names of their own, in place of the plain one at
    /// [`listen`](Self::listen). Default none.
    pub listeners: Vec<Listener>,

    /// Who may log in on listeners with [`sasl`](Listener::sasl). Default nobody. Users without such a
    /// listener are refused: nobody would be asked for them.
    pub users: Vec<User>,

    /// Who may do what. Default: everybody may do everything.
    pub access: Access,

    /// When an acknowledged record is on disk. Default [`Flush::Always`].
    pub flush: Flush,

    /// Whether a metadata request for an unknown topic creates it. Default off: a topic that
    /// appears by a typing error, with one partition, hides the mistake and makes concurrency
    /// useless. (Apache Kafka's `auto.create.topics.enable` is on.)
    pub auto_create_topics: bool,

    /// Partitions of a topic whose creator does not say (`num.partitions`). Default 1.
    pub default_partitions: i32,

    /// How long records are kept where the topic has no `retention.ms`. Default 7 days, as
    /// Kafka's `log.retention.hours`; `None` keeps them forever.
    pub retention: Option<Duration>,

    /// How many bytes a partition keeps where the topic has no `retention.bytes`. Default
    /// unlimited, as Kafka's.
    pub retention_bytes: Option<u64>,

    /// Size at which a new segment file is begun where the topic has no `segment.bytes`. Default
    /// 128 MiB: Kafka's 1 GiB delays retention by as much, and one machine has less disk.
    pub segment_bytes: u32,

    /// How often retention looks for segments to delete. Default 5 minutes, as Kafka's
    /// `log.retention.check.interval.ms`.
    pub retention_check: Duration,

    /// Compaction of topics with `cleanup.policy=compact`.
    pub cleaning: Cleaning,

    /// Consumer groups and their offsets.
    pub groups: Groups,

    /// Transactions and the ids of their producers.
    pub transactions: Transactions,

    /// Limits that keep one client from taking the process down.
    pub limits: Limits,
}

/// When an acknowledged record is on disk.
///
/// With one node there is no replica to fall back on, so `acks=all` can only mean the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flush {
    /// An acknowledgement of acks=all waits for fsync (acks=1 is answered when written, and survives
    /// a crash of the process only); requests that wait together share one. An
    /// acknowledged record survives a crash of the process and a loss of power.
    Always,
    /// Fsync happens every so often in the background. An acknowledged record survives a crash of
    /// the process, but a loss of power can take what was written since the last fsync.
    Interval(Duration),
    /// Fsync happens when a segment is full and when the broker stops, else the operating system
    /// decides: Kafka's default, which relies on replicas. An acknowledged record survives a crash
    /// of the process, but a loss of power can take up to a segment. Topics may ask for more by
    /// `flush.messages` and `flush.ms`.
    Never,
}

/// How topics are compacted. Which, and when one is due, are settings of the topic (`cleanup.policy`,
/// `min.cleanable.dirty.ratio`, `min.compaction.lag.ms`, `max.compaction.lag.ms`,
/// `delete.retention.ms`).
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Cleaning {
    /// How often the cleaner looks for something to do. Default 15 s, as Kafka's
    /// `log.cleaner.backoff.ms`.
    pub interval: Duration,

    /// Memory for the keys of one pass, in bytes, taken only while one runs. Default 64 MiB, some
    /// 1.8 million keys; a log with more is compacted in several passes. Kafka's
    /// `log.cleaner.dedupe.buffer.size` is 128 MiB.
    pub memory_max: usize,

    /// Bytes that are read and written a second. Default unlimited, as Kafka's
    /// `log.cleaner.io.max.bytes.per.second`.
    pub bytes_per_second: Option<u64>,
}

impl Default for Cleaning {
    fn default() -> Self {
        Self {
            interval: Duration::from_secs(15),
            memory_max: 64 * 1024 * 1024,
            bytes_per_second: None,
        }
    }
}

impl FromStr for Flush {
    type Err = String;

    /// Reads `always`, `interval:MS` or `never`.
    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once(':') {
            None if text == "always" => Ok(Self::Always),
            None if text == "never" => Ok(Self::Never),
            Some(("interval", ms)) => match ms.parse() {
                Ok(ms @ 1..) => Ok(Self::Interval(Duration::from_millis(ms))),
                _ => Err(format!("{ms} is not a number of milliseconds from 1")),
            },
            _ => Err("it is `always`, `never` or `interval:MS`, as in interval:200".to_owned()),
        }
    }
}

/// What one broker is ready to carry. Every queue and every wait has its limit here.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Limits {
    /// Connections at a time; one more is refused with a log line. Default 1024: each costs some
    /// 20 KiB and one file descriptor.
    pub connections_max: usize,

    /// Connections at a time from one address. Default unlimited, as Kafka's
    /// `max.connections.per.ip`: on one machine all come from the same.
    pub connections_per_address_max: Option<usize>,

    /// Bytes that the requests and fetched records of all connections take together. Default
    /// 512 MiB. A request that finds none free waits for [`Limits::memory_wait_max`], then its
    /// connection is closed; a fetch is answered without records. Requests up to 16 KiB are not
    /// counted. At least as much as [`Limits::request_bytes_max`] and
    /// [`Limits::fetch_bytes_max`].
    pub memory_max: usize,

    /// How long a request waits for memory. Default 10 s, a third of a client's patience.
    pub memory_wait_max: Duration,

    /// Partitions that waiting fetches follow together. Default 1,000,000: each takes some 200
    /// bytes. A fetch beyond it waits all the same, and looks ten times a second.
    pub waiting_partitions_max: usize,

    /// Bytes of one request, checked before memory is taken. Default 100 MiB, as Kafka's
    /// `socket.request.max.bytes`.
    pub request_bytes_max: usize,

    /// Array elements in one request, checked before memory is taken. Default 200,000: a request
    /// naming as many partitions is a mistake, and an element costs many times its bytes.
    pub request_elements_max: usize,

    /// Requests of one connection that are read but not answered. Default 64; librdkafka
    /// pipelines up to 1,000,000 and is then slowed by TCP, which is what back-pressure is for.
    pub in_flight_max: usize,

    /// Bytes of one connection's answers that wait to be sent. Default 64 MiB, a little over one
    /// default fetch. The next request is not read while as much waits.
    pub unsent_bytes_max: usize,

    /// Bytes of records in one fetch answer, whatever the client asks for. Default 55 MiB, as
    /// Kafka's `fetch.max.bytes`.
    pub fetch_bytes_max: usize,

    /// How long a fetch waits for records at most, whatever the client asks for. Default 60 s;
    /// clients ask for 0.5 s.
    pub fetch_wait_max: Duration,

    /// How long a connection may say nothing. Default 10 minutes, as Kafka's
    /// `connections.max.idle.ms`. Also how long a peer may take to accept an answer.
    pub idle_max: Duration,

    /// How long a client may take to agree on TLS and to log in. Default 10 s: a connection that
    /// has not said who it is must not hold a seat for the ten minutes of `idle_max`.
    pub login_max: Duration,

    /// How long shutting down waits for requests in flight. Default 5 s.
    pub drain_max: Duration,

    /// Partitions of one topic. Default 10,000: each costs an open file and some KiB.
    pub partitions_max: i32,
}

impl Config {
    /// Where the broker listens by default.
    const LISTEN: &str = "127.0.0.1:9092";

    /// The defaults, with the data in `folder`.
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self {
            folder: folder.into(),
            listen: Self::LISTEN.to_owned(),
            advertised: None,
            listeners: Vec::new(),
            users: Vec::new(),
            access: Access::default(),
            flush: Flush::Always,
            auto_create_topics: false,
            default_partitions: 1,
            retention: Some(Duration::from_secs(7 * 24 * 60 * 60)),
            retention_bytes: None,
            segment_bytes: 128 * 1024 * 1024,
            retention_check: Duration::from_secs(5 * 60),
            cleaning: Cleaning::default(),
            groups: Groups::default(),
            transactions: Transactions::default(),
            limits: Limits::default(),
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections_max: 1024,
            connections_per_address_max: None,
            memory_max: 512 * 1024 * 1024,
            memory_wait_max: Duration::from_secs(10),
            waiting_partitions_max: 1_000_000,
            request_bytes_max: 100 * 1024 * 1024,
            request_elements_max: 200_000,
            in_flight_max: 64,
            unsent_bytes_max: 64 * 1024 * 1024,
            fetch_bytes_max: 55 * 1024 * 1024,
            fetch_wait_max: Duration::from_secs(60),
            idle_max: Duration::from_secs(10 * 60),
            login_max: Duration::from_secs(10),
            drain_max: Duration::from_secs(5),
            partitions_max: 10_000,
        }
    }
}
