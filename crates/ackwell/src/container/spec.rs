//! What a container needs to know before it starts.

use std::sync::Arc;
use std::time::Duration;

use ackwell_core::commit::AckMode;
use ackwell_core::{Class, Concurrency, RetryPolicy};
use futures_util::future::BoxFuture;
use rdkafka::ClientConfig;

use super::notice::Notices;
use super::observation::{Observer, Silent};
use super::rebalance::RebalanceListener;
use super::snapshots::Snapshots;
use crate::config::Topics;
use crate::dead_letters::DeadLetters;
use crate::extensions::Extensions;
use crate::failure::{Failure, Verdicts};
use crate::listener::{Filter, Matcher};
use crate::record::Record;
use crate::transaction;
use crate::unit::{OneByOne, Parking, Run, UnitOfWork};

/// Calls the user's function for one record.
pub trait RecordHandler: Send + Sync + 'static {
    /// Handles `record`; `attempt` counts from 1.
    fn call(
        &self,
        record: Record,
        attempt: u32,
        extensions: Extensions,
    ) -> BoxFuture<'static, Result<(), Failure>>;

    /// Whether it may look at a record's headers; one whose headers can't be read does not reach it then.
    fn looks_at_headers(&self) -> bool {
        true
    }

    /// Whether it takes lists: then [`call_batch`](RecordHandler::call_batch) is called.
    fn is_batch(&self) -> bool {
        false
    }

    /// Handles `records`, at least one; `attempt` is that of the first. A failure may name some of
    /// them, see [`BatchError`](crate::BatchError).
    fn call_batch(
        &self,
        records: Vec<Record>,
        attempt: u32,
        extensions: Extensions,
    ) -> BoxFuture<'static, Result<(), Failure>> {
        drop((records, attempt, extensions));
        let failure = Failure::new(Class::Stop, "the handler takes no batches");
        Box::pin(std::future::ready(Err(failure)))
    }

    /// Handles the records of `run` one after another, each settled when its handler returns,
    /// and stops at the first failure. One allocation a run; [`call`](RecordHandler::call) makes
    /// one a record.
    fn handle_run<'a>(&'a self, run: &'a mut Run) -> BoxFuture<'a, ()> {
        Box::pin(async move {
            while let Some(handling) = run.start(Extensions::new()) {
                match run.drive(handling).await {
                    Ok(()) => run.settled(1),
                    Err(failure) => return run.failed(failure),
                }
            }
        })
    }
}

impl<F, Fut> RecordHandler for F
where
    F: Fn(Record) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<(), Failure>> + Send + 'static,
{
    fn call(
        &self,
        record: Record,
        _attempt: u32,
        _extensions: Extensions,
    ) -> BoxFuture<'static, Result<(), Failure>> {
        Box::pin(self(record))
    }
}

/// A listener, ready to start.
#[derive(Clone)]
pub struct Spec {
    /// Its name in logs and metrics.
    pub listener: String,
    /// The topics it reads; at least one, unless there is a pattern.
    pub topics: Vec<String>,
    /// Further topics, by their names.
    pub pattern: Option<Arc<Matcher>>,
    /// Its consumer group.
    pub group: String,
    /// Settings of the consumer's client. The container sets those on which its promise hangs
    /// (`group.id`, `enable.auto.commit`, `enable.auto.offset.store`, `enable.partition.eof`)
    /// whatever they are here.
    pub consumer: ClientConfig,
    /// Settings of the dead-letter producer's client; the container makes it idempotent with
    /// acks=all.
    pub producer: ClientConfig,
    /// How many records may be handled at the same time.
    pub concurrency: Concurrency,
    /// When a transient failure is repeated in place.
    pub retry: RetryPolicy,
    /// The delays of the retry topics, on which a record is tried again when its attempts in
    /// place are used up; none by default.
    pub retry_topics: Vec<Duration>,
    /// Classes and policies of failures by their causes.
    pub verdicts: Verdicts,
    /// When positions are committed.
    pub commit: AckMode,
    /// Whether the next record (record mode) or poll (batch mode) waits for the broker's answer to
    /// the commit of the one before it.
    pub strict_commits: bool,
    /// Where what is settled beyond a position is kept when it has no room in the commit.
    pub snapshots: Snapshots,
    /// Bounds on queues and waits.
    pub limits: Limits,
    /// How runs are carried out.
    pub unit: Arc<dyn UnitOfWork>,
    /// Where records wait whose attempts in place are used up, with those of their key behind
    /// them: the same as `unit`. Needs dead letters.
    pub parking: Option<Arc<dyn Parking>>,
    /// Transactions of Kafka, in which the handler sends and positions are committed; they take the
    /// place of `unit` and of `commit`, and need one lane a partition.
    pub transactions: Option<transaction::Settings>,
    /// What handles a record.
    pub handler: Arc<dyn RecordHandler>,
    /// Which records are handled; all of them without one.
    pub filter: Option<Filter>,
    /// Where records go that can't be handled.
    pub dead_letters: DeadLetters,
    /// How the topics to which it passes records on are created where they are missing.
    pub creation: Topics,
    /// Who hears of partitions that come and go.
    pub rebalance: Option<Arc<dyn RebalanceListener>>,
    /// Which silence is noticed, and who hears of it.
    pub notices: Notices,
    /// Who hears of what happens.
    pub observer: Arc<dyn Observer>,
}

impl Spec {
    /// A listener with the defaults: one lane a partition, the default retry policy, batch
    /// commits, dead letters to `<topic>.DLQ`.
    pub fn new(
        client: ClientConfig,
        group: impl Into<String>,
        topics: impl IntoIterator<Item = impl Into<String>>,
        handler: Arc<dyn RecordHandler>,
    ) -> Self {
        let group = group.into();
        Spec {
            listener: group.clone(),
            topics: topics.into_iter().map(Into::into).collect(),
            pattern: None,
            group,
            consumer: client.clone(),
            producer: client,
            concurrency: Concurrency::default(),
            retry: RetryPolicy::default(),
            retry_topics: Vec::new(),
            verdicts: Verdicts::default(),
            commit: AckMode::default(),
            strict_commits: false,
            snapshots: Snapshots::default(),
            limits: Limits::default(),
            unit: Arc::new(OneByOne),
            parking: None,
            transactions: None,
            handler,
            filter: None,
            dead_letters: DeadLetters::default(),
            creation: Topics::default(),
            rebalance: None,
            notices: Notices::default(),
            observer: Arc::new(Silent),
        }
    }
}

/// Bounds on queues and waits.
#[derive(Debug, Clone, PartialEq)]
pub struct Limits {
    /// Records of a partition that may wait or be in work before it is paused; it is resumed at
    /// half. By default 5,000, which is ten polls and bridges a commit of the unit of work, or
    /// 50 a lane if that is more: with fewer, lanes run empty while others have work.
    pub queued_records: Option<usize>,
    /// Their bytes. Default 16 MiB.
    pub queued_bytes: usize,
    /// Records of all partitions together that may wait or be in work before every partition is
    /// paused. Default: no limit but those of the partitions.
    pub total_records: usize,
    /// Their bytes. Default 256 MiB, so that memory is bounded however many partitions are owned.
    pub total_bytes: usize,
    /// Records handed to a lane at once. Default 500, as Kafka's `max.poll.records`.
    pub run_records: usize,
    /// How long fewer records than `run_records` wait for company before a batch handler gets them.
    /// Default 0: they don't wait.
    pub batch_wait: Duration,
    /// How long a revoke waits for work in progress before it is cancelled. Default 10 s, well
    /// within the rebalance timeout (`max.poll.interval.ms`, 5 minutes).
    pub revoke_drain: Duration,
    /// The same for a stop, which has left its group by then: work is cancelled 200 ms before, or a tenth of
    /// the limit if that is less. Default 20 s, within the 30 s that orchestrators give.
    pub stop_drain: Duration,
    /// How long each call of a [`RebalanceListener`] may take. Default 5 s.
    pub rebalance_callback: Duration,
    /// How long a commit's answer is awaited before it counts as failed. Default 10 s.
    pub commit_wait: Duration,
    /// Bytes of commit metadata for records settled beyond a gap. Default 3,072, below the
    /// broker's `offset.metadata.max.bytes` of 4,096.
    pub metadata_bytes: usize,
    /// How long a handled record may wait for its acknowledgement before the listener is
    /// unhealthy. Default 60 s.
    pub unacknowledged_limit: Duration,
    /// Between probes of something unavailable. Default from 250 ms doubling to 5 s.
    pub probe: RetryPolicy,
    /// Between attempts to write a dead letter. Default from 1 s doubling to 30 s.
    pub recovery: RetryPolicy,
}

/// What is left of a stop's limit for what comes after the records in work: the last commit, leaving the group, and
/// the end of the clients, some of whose threads look only every 100 ms whether they are to end.
const LEAVING_WAIT: Duration = Duration::from_millis(200);
/// Records of a partition that may wait by default.
const QUEUED_RECORDS: usize = 5_000;
/// The same for each lane, where that is more.
const QUEUED_RECORDS_A_LANE: usize = 50;

impl Limits {
    /// How many records of a partition may wait or be in work.
    pub(super) fn queued_records(&self, concurrency: Concurrency) -> usize {
        let a_lane = usize::from(concurrency.lanes()) * QUEUED_RECORDS_A_LANE;
        self.queued_records.unwrap_or(QUEUED_RECORDS.max(a_lane))
    }

    /// How long a stop waits for records in work.
    pub(super) fn stop_work(&self) -> Duration {
        let leaving = LEAVING_WAIT.min(self.stop_drain / 10);
        self.stop_drain.saturating_sub(leaving)
    }
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            queued_records: None,
            queued_bytes: 16 << 20,
            total_records: usize::MAX,
            total_bytes: 256 << 20,
            run_records: 500,
            batch_wait: Duration::ZERO,
            revoke_drain: Duration::from_secs(10),
            stop_drain: Duration::from_secs(20),
            rebalance_callback: Duration::from_secs(5),
            commit_wait: Duration::from_secs(10),
            metadata_bytes: 3_072,
            unacknowledged_limit: Duration::from_secs(60),
            probe: RetryPolicy::exponential(Duration::from_millis(250), 2.0)
                .max(Duration::from_secs(5))
                .jitter(0.1),
            recovery: RetryPolicy::exponential(Duration::from_secs(1), 2.0)
                .max(Duration::from_secs(30))
                .jitter(0.1),
        }
    }
}

/// Why a listener could not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The client library refuses its settings or could not subscribe.
    #[error("starting listener {listener}: the Kafka client refuses its settings: {source}")]
    Client {
        /// The listener's name.
        listener: String,
        /// What the client says.
        source: rdkafka::error::KafkaError,
    },
    /// A dead-letter topic is missing and could not be made.
    #[error("starting listener {listener}: preparing dead-letter topic {topic}: {reason}")]
    DeadLetterTopic {
        /// The listener's name.
        listener: String,
        /// The dead-letter topic.
        topic: String,
        /// What went wrong.
        reason: String,
    },
    /// A retry topic is missing and could not be made, or has fewer partitions than its origin.
    #[error("starting listener {listener}: preparing retry topic {topic}: {reason}")]
    RetryTopic {
        /// The listener's name.
        listener: String,
        /// The retry topic.
        topic: String,
        /// What went wrong.
        reason: String,
    },
    /// No transaction can be begun.
    #[error("starting listener {listener}: preparing its transactions")]
    Transactions {
        /// The listener's name.
        listener: String,
        /// What went wrong.
        source: transaction::TransactionError,
    },
    /// The spec names no topic, or no group.
    #[error("starting listener {listener}: {reason}")]
    Spec {
        /// The listener's name.
        listener: String,
        /// What is missing.
        reason: &'static str,
    },
    /// The poll thread could not be started.
    #[error("starting listener {listener}: its poll thread could not be started")]
    Thread {
        /// The listener's name.
        listener: String,
        /// What the system says.
        source: std::io::Error,
    },
}
