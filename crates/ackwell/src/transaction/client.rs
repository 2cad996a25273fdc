//! One transactional producer, and what its calls mean.
//!
//! The client's calls block and may have to be repeated until the broker has answered. What is
//! known when one fails decides everything behind it: a transaction that was aborted is handled
//! again, one that may have been committed must not be.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::ClientContext;
use rdkafka::consumer::ConsumerGroupMetadata;
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode as Code};
use rdkafka::message::Message;
use rdkafka::producer::{
    BaseRecord, DeliveryResult, Producer as _, ProducerContext, ThreadedProducer,
};
use rdkafka::topic_partition_list::TopicPartitionList;

use super::TransactionError;
use super::error::Kind;
use super::lease::Lease;

/// How long a look at what is not answered yet waits, at first and at most.
const FLUSH_WAITS: [Duration; 2] = [Duration::from_millis(1), Duration::from_millis(4)];
/// How long one call waits before it is repeated.
const CALL_WAIT: Duration = Duration::from_secs(5);
/// Between calls that were answered at once that they are to be repeated.
const AGAIN_WAIT: Duration = Duration::from_millis(10);
/// How long the broker may take to give a producer its id.
const OPEN_WAIT: Duration = Duration::from_secs(30);
/// How long an abort may take before the broker is left to do it: the id's next producer, or the
/// timeout, does.
const ABORT_WAIT: Duration = Duration::from_secs(10);

/// A record on its way into the client.
pub(crate) type Outgoing<'a> = BaseRecord<'a, [u8], [u8], ()>;

/// Positions that are committed with a transaction, and the member that has read up to them.
pub(crate) struct Offsets {
    pub(crate) list: TopicPartitionList,
    pub(crate) member: ConsumerGroupMetadata,
}

/// A producer with a transactional id.
pub(super) struct Client {
    producer: ThreadedProducer<Reports>,
    lease: Lease,
    timeout: Duration,
    begun: Option<Instant>,
}

/// How a transaction ended.
pub(super) enum End {
    /// As wanted; or it was aborted, and the client can go on.
    Usable(Client, Result<(), TransactionError>),
    /// The client can't go on; unless another instance has `fenced` it, its id can, with a new one.
    Broken {
        lease: Lease,
        error: TransactionError,
        fenced: bool,
    },
}

impl Client {
    /// Fences earlier producers of the id and waits until the broker has ended what they had
    /// open.
    pub(super) fn open(
        mut settings: ClientConfig,
        timeout: Duration,
        lease: Lease,
    ) -> Result<Self, (Lease, TransactionError)> {
        settings.set("transactional.id", lease.id());
        let opened = settings.create_with_context(Reports::default());
        let opened = opened.and_then(|producer: ThreadedProducer<Reports>| {
            let until = Instant::now() + OPEN_WAIT;
            repeat(until, |wait| producer.init_transactions(wait))?;
            Ok(producer)
        });
        match opened {
            Ok(producer) => Ok(Client {
                producer,
                lease,
                timeout,
                begun: None,
            }),
            Err(error) => {
                let error = TransactionError::client("taking the id", lease.id(), error);
                Err((lease, error))
            }
        }
    }

    pub(super) fn begin(&mut self) -> Result<(), TransactionError> {
        self.producer.context().forget();
        let begun = self.producer.begin_transaction();
        begun.map_err(|error| self.failed("beginning", error))?;
        self.begun = Some(Instant::now());
        Ok(())
    }

    pub(super) fn is_open(&self) -> bool {
        self.begun.is_some()
    }

    /// Queues a record; it is given back while the queue is full.
    pub(super) fn put<'a>(
        &self,
        record: Outgoing<'a>,
    ) -> Result<Option<Outgoing<'a>>, TransactionError> {
        match self.producer.send(record) {
            Ok(()) => Ok(None),
            Err((error, record)) if error.rdkafka_error_code() == Some(Code::QueueFull) => {
                Ok(Some(record))
            }
            Err((error, record)) => {
                Err(self.failed(&format!("sending to {}", record.topic), error))
            }
        }
    }

    /// Commits, with positions if there are any; what can't be committed is aborted.
    pub(super) fn commit(mut self, offsets: Option<&Offsets>) -> End {
        let until = Instant::now() + self.timeout;
        let (sent, step) = match offsets {
            None => (Ok(()), ""),
            Some(Offsets { list, member }) => {
                let send = |wait| {
                    self.producer
                        .send_offsets_to_transaction(list, member, wait)
                };
                (repeat(until, send), "sending offsets")
            }
        };
        let sent = sent.map_err(|error| self.failed(step, error));
        let ended = sent.and_then(|()| {
            let committed = repeat(until, |wait| {
                flush(&self.producer, wait)?;
                self.producer.commit_transaction(wait)
            });
            committed.map_err(|error| self.failed("committing", error))
        });
        match ended {
            Ok(()) => {
                self.begun = None;
                End::Usable(self, Ok(()))
            }
            Err(error) => self.give_up(error),
        }
    }

    /// Aborts; `error` is why.
    pub(super) fn give_up(mut self, error: TransactionError) -> End {
        let until = Instant::now() + ABORT_WAIT;
        let broken = self.producer.client().fatal_error().is_some();
        let aborted =
            !broken && repeat(until, |wait| self.producer.abort_transaction(wait)).is_ok();
        if aborted {
            self.begun = None;
            return End::Usable(self, Err(error));
        }
        // The broker has fenced it, or does not answer: it may have committed before.
        let late = self.is_late();
        let fenced = !late && (error.kind() == Kind::Fenced || self.is_fenced());
        let known = error.kind() == Kind::Fenced && !late;
        End::Broken {
            error: if known { error } else { error.unknown() },
            fenced,
            lease: self.lease,
        }
    }

    /// Ends a transaction that nobody wants any more.
    pub(super) fn abort(self) -> End {
        self.give_up(TransactionError::ended())
    }

    fn is_fenced(&self) -> bool {
        let fatal = self.producer.client().fatal_error();
        fatal.is_some_and(|(code, _)| {
            let error = KafkaError::Global(code);
            TransactionError::client("ending", self.lease.id(), error).kind() == Kind::Fenced
        })
    }

    /// Ends the producer with nothing left open.
    pub(super) fn close(self) {
        let Self {
            producer, lease, ..
        } = self;
        drop(producer);
        lease.release();
    }

    /// The broker has ended it by itself, or soon will: that fences its producer as well.
    fn is_late(&self) -> bool {
        let began = self.begun.map(|begun| begun.elapsed());
        began.is_some_and(|open| open >= self.timeout.mul_f64(0.9))
    }

    fn failed(&self, doing: &str, error: KafkaError) -> TransactionError {
        let refused = self.producer.context().take();
        let (doing, error) = match refused {
            Some((topic, refused)) => (&*format!("sending to {topic}"), refused),
            None => (doing, error),
        };
        let fatal = self.producer.client().fatal_error();
        let error = match (error.rdkafka_error_code(), fatal) {
            (Some(Code::Fatal), Some((code, _))) => KafkaError::Global(code),
            _ => error,
        };
        TransactionError::client(doing, self.lease.id(), error)
    }
}

/// Waits for the answers to what was sent.
///
/// The client's own `flush`, which its `commit_transaction` begins with, waits for an answer to pass by.
/// Those go to the producer's thread, so it sleeps for 100 ms when the last one has come already: a
/// commit would take as long. Asked in short steps, it has nothing left to wait for.
fn flush(producer: &ThreadedProducer<Reports>, wait: Duration) -> KafkaResult<()> {
    let until = Instant::now() + wait;
    let [mut step, longest] = FLUSH_WAITS;
    loop {
        match producer.flush(step) {
            Err(KafkaError::Flush(Code::OperationTimedOut)) if Instant::now() < until => {
                step = longest.min(step * 2);
            }
            answer => return answer,
        }
    }
}

/// Calls until the answer is one, or the time is over.
fn repeat(until: Instant, mut call: impl FnMut(Duration) -> KafkaResult<()>) -> KafkaResult<()> {
    loop {
        let left = until.saturating_duration_since(Instant::now());
        match call(left.min(CALL_WAIT)) {
            Err(error) if !left.is_zero() && is_open(&error) => std::thread::sleep(AGAIN_WAIT),
            answer => return answer,
        }
    }
}

/// Whether the same call may still succeed.
fn is_open(error: &KafkaError) -> bool {
    match error {
        KafkaError::Transaction(error) => {
            error.is_retriable() && !error.is_fatal() && !error.txn_requires_abort()
        }
        KafkaError::Flush(code) => *code == Code::OperationTimedOut,
        _ => false,
    }
}

/// Keeps what was refused first: everything behind it fails because of it.
#[derive(Default)]
pub(super) struct Reports {
    refused: Mutex<Option<(String, KafkaError)>>,
}

impl Reports {
    fn forget(&self) {
        self.take();
    }

    fn take(&self) -> Option<(String, KafkaError)> {
        let mut refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        refused.take()
    }
}

impl ClientContext for Reports {
    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(%error, reason, "a transactional producer's client reports a problem");
    }
}

impl ProducerContext for Reports {
    type DeliveryOpaque = ();

    fn delivery(&self, report: &DeliveryResult<'_>, (): ()) {
        let Err((error, message)) = report else {
            return;
        };
        let purged = matches!(
            error.rdkafka_error_code(),
            Some(Code::PurgeQueue | Code::PurgeInflight)
        );
        if !purged {
            let mut refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
            refused.get_or_insert_with(|| (message.topic().to_owned(), error.clone()));
        }
    }
}
