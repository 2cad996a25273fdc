//! The producers of one listener, or of one [`Transactions`](super::Transactions).
//!
//! A producer has one transaction at a time, so as many are needed as are open at once. They are
//! made when they are needed, up to a limit, and kept.

use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use rdkafka::ClientConfig;
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::client::{Client, End, Offsets, Outgoing};
use super::lease::{Lease, Leases};
use super::{Limits, TransactionError};
use crate::config::{Acks, Config};
use crate::failure::Class;
use crate::observe::{Reporter, Status};

/// How long to wait when the client's queue is full.
const QUEUE_FULL_WAIT: Duration = Duration::from_millis(5);
/// How long a connection may be silent, within half of a transaction's timeout.
///
/// librdkafka (2.12) can lose a question for the group's coordinator, such as while that one moves to another
/// broker: it looks at it again when a connection comes or goes, and never at its timeout. Until then
/// `send_offsets_to_transaction` does not return, and so long was ten minutes, when brokers close what is silent.
const SILENCE: RangeInclusive<Duration> = Duration::from_secs(2)..=Duration::from_secs(15);
/// Where ids are leased, in the data folder.
const FOLDER: &str = "transactions";

/// What transactional producers need to know.
#[derive(Clone, Debug)]
pub struct Settings {
    client: ClientConfig,
    folder: PathBuf,
    prefix: String,
    instance: Option<String>,
    timeout: Duration,
    producers: usize,
    limits: Limits,
}

impl Settings {
    /// By the sections `[kafka]`, `[producer]` and `[transactions]`.
    ///
    /// # Errors
    /// When they contradict each other.
    pub fn new(config: &Config) -> Result<Self, TransactionError> {
        let producer = &config.producer;
        if producer.acks != Acks::All || !producer.idempotence {
            return Err(TransactionError::new(
                Class::Stop,
                "transactions need acks=all and idempotence; remove `producer.acks` and `producer.idempotence`",
            ));
        }
        let transactions = &config.transactions;
        let wrong =
            |error: crate::config::Error| TransactionError::new(Class::Stop, error.to_string());
        transactions.check().map_err(wrong)?;
        let timeout = transactions.timeout.as_millis().to_string();
        let mut client = config.kafka.producer(producer);
        client
            .set("transaction.timeout.ms", &timeout)
            .set("message.timeout.ms", &timeout)
            // A commit would wait for it. What comes while the broker is told of a partition, or
            // writes, goes out together all the same.
            .set("linger.ms", "0");
        if client.get("message.max.bytes").is_none() {
            // The topic's own limit decides what is too large, not the client's guess.
            client.set("message.max.bytes", "1000000000");
        }
        if client.get("connections.max.idle.ms").is_none() {
            let silence = (transactions.timeout / 2).clamp(*SILENCE.start(), *SILENCE.end());
            client.set("connections.max.idle.ms", silence.as_millis().to_string());
        }
        let prefix = (transactions.prefix.clone())
            .or_else(|| config.kafka.client_id.clone())
            .unwrap_or_else(|| "ackwell".to_owned());
        Ok(Settings {
            client,
            folder: config.data.join(FOLDER),
            prefix: prefix.replace(
                |c: char| !c.is_ascii_alphanumeric() && c != '.' && c != '_',
                "-",
            ),
            instance: transactions.instance.clone(),
            timeout: transactions.timeout,
            producers: transactions.producers as usize,
            limits: Limits {
                records: producer.queue_records as usize,
                bytes: (producer.queue_kbytes as usize).saturating_mul(1024),
            },
        })
    }
}

/// Producers with transactional ids. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Pool(Arc<Inner>);

struct Inner {
    settings: Settings,
    leases: Leases,
    permits: Arc<Semaphore>,
    free: Mutex<Vec<Client>>,
    /// The id that another instance has taken over.
    fenced: OnceLock<String>,
    /// Of the apps whose state it is.
    reporters: Mutex<Vec<Reporter>>,
}

impl Pool {
    pub(crate) fn new(settings: Settings) -> Result<Self, TransactionError> {
        let leases = Leases::open(
            &settings.folder,
            &settings.prefix,
            settings.instance.as_deref(),
        )?;
        Ok(Pool(Arc::new(Inner {
            leases,
            permits: Arc::new(Semaphore::new(settings.producers)),
            free: Mutex::default(),
            fenced: OnceLock::new(),
            reporters: Mutex::default(),
            settings,
        })))
    }

    pub(crate) fn limits(&self) -> Limits {
        self.0.settings.limits
    }

    /// Has the broker end what a crash has left open, and sees whether it does transactions at
    /// all, before the first record comes.
    pub(crate) async fn open(&self) -> Result<(), TransactionError> {
        let left = self.0.leases.left(self.0.settings.producers)?;
        let leases = if left.is_empty() {
            vec![self.0.leases.next()?]
        } else {
            left
        };
        for lease in leases {
            self.reopen(lease).await.map_err(|(_, error)| error)?;
        }
        Ok(())
    }

    /// A producer of this id: what the one before had open has ended when this returns.
    pub(crate) async fn reopen(
        &self,
        lease: Lease,
    ) -> Result<(), (Option<Lease>, TransactionError)> {
        let client = self.connect(lease).await?;
        self.free().push(client);
        Ok(())
    }

    /// Begins a transaction, when one may be open.
    ///
    /// # Cancel safety
    /// Dropped, nothing is begun.
    pub(crate) async fn begin(&self) -> Result<Open, TransactionError> {
        let permit = Arc::clone(&self.0.permits).acquire_owned().await;
        let permit =
            permit.map_err(|_| TransactionError::new(Class::Stop, "transactions are closed"))?;
        self.check()?;
        let free = self.free().pop();
        let mut client = match free {
            Some(client) => client,
            None => {
                let lease = self.0.leases.next()?;
                self.connect(lease).await.map_err(|(_, error)| error)?
            }
        };
        client.begin()?;
        Ok(Open {
            client: Some(client),
            pool: self.clone(),
            permit: Some(permit),
        })
    }

    /// Waits until no transaction is open; none begins from then on.
    pub(crate) async fn close(&self, limit: Duration) -> Result<(), TransactionError> {
        let count = u32::try_from(self.0.settings.producers).unwrap_or(u32::MAX);
        let all = self.0.permits.acquire_many(count);
        let waited = tokio::time::timeout(limit, all).await.is_ok();
        self.0.permits.close();
        if waited {
            Ok(())
        } else {
            let what = format!(
                "closing: transactions are open after {} ms",
                limit.as_millis()
            );
            Err(TransactionError::unavailable(what))
        }
    }

    /// Has health tell when another instance has taken over.
    pub(super) fn report_to(&self, reporter: Reporter) {
        reporter.report(Status::Running);
        self.reporters().push(reporter);
        self.report();
    }

    /// A new producer would fence the other instance back, and that one this.
    fn check(&self) -> Result<(), TransactionError> {
        let fenced = self.0.fenced.get();
        fenced.map_or(Ok(()), |id| Err(TransactionError::fenced(id)))
    }

    /// Another instance has taken over this id.
    fn fenced(&self, lease: &Lease) {
        if self.0.fenced.set(lease.id().to_owned()).is_ok() {
            tracing::error!(
                id = lease.id(),
                "another instance has taken over a transactional id"
            );
            self.report();
        }
    }

    fn report(&self) {
        let Err(error) = self.check() else {
            return;
        };
        for reporter in self.reporters().iter() {
            reporter.report(Status::Failed(error.to_string()));
        }
    }

    fn reporters(&self) -> MutexGuard<'_, Vec<Reporter>> {
        let reporters = self.0.reporters.lock();
        reporters.unwrap_or_else(PoisonError::into_inner)
    }

    async fn connect(&self, lease: Lease) -> Result<Client, (Option<Lease>, TransactionError)> {
        if let Err(error) = self.check() {
            return Err((Some(lease), error));
        }
        let Settings {
            client, timeout, ..
        } = self.0.settings.clone();
        let opened = tokio::task::spawn_blocking(move || Client::open(client, timeout, lease));
        match opened.await {
            Ok(opened) => opened.map_err(|(lease, error)| (Some(lease), error)),
            Err(_) => Err((None, TransactionError::unavailable("the runtime has ended"))),
        }
    }

    fn free(&self) -> MutexGuard<'_, Vec<Client>> {
        let free = self.0.free.lock();
        free.unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        let free = self.free.get_mut();
        for client in free.unwrap_or_else(PoisonError::into_inner).drain(..) {
            client.close();
        }
    }
}

/// A transaction that was begun. Dropped, it is aborted in the background.
pub(crate) struct Open {
    client: Option<Client>,
    pool: Pool,
    permit: Option<OwnedSemaphorePermit>,
}

/// Why a transaction was not committed, and the id under which it may have been.
pub(crate) struct Uncommitted {
    pub(crate) error: TransactionError,
    pub(crate) lease: Option<Lease>,
}

impl Open {
    /// Sends a record, waiting while the queue is full.
    ///
    /// # Cancel safety
    /// Dropped, the record is not sent.
    pub(crate) async fn send(&self, record: Outgoing<'_>) -> Result<(), TransactionError> {
        let Some(client) = &self.client else {
            return Err(TransactionError::ended());
        };
        let mut record = record;
        while let Some(refused) = client.put(record)? {
            record = refused;
            tokio::time::sleep(QUEUE_FULL_WAIT).await;
        }
        Ok(())
    }

    /// Commits what was sent, with positions if there are any.
    ///
    /// # Cancel safety
    /// Dropped, it is committed all the same, and nobody learns of it.
    pub(crate) async fn commit(mut self, offsets: Option<Offsets>) -> Result<(), Uncommitted> {
        let (Some(client), permit) = (self.client.take(), self.permit.take()) else {
            return Err(TransactionError::ended().into());
        };
        let pool = self.pool.clone();
        let ended = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            match client.commit(offsets.as_ref()) {
                End::Usable(client, result) => {
                    pool.free().push(client);
                    result.map_err(Uncommitted::from)
                }
                End::Broken {
                    lease,
                    error,
                    fenced,
                } => {
                    if fenced {
                        pool.fenced(&lease);
                    }
                    Err(Uncommitted {
                        error,
                        lease: Some(lease),
                    })
                }
            }
        });
        ended.await.unwrap_or_else(|_| {
            let ended = TransactionError::unavailable("the runtime has ended");
            Err(ended.unknown().into())
        })
    }

    /// Aborts it and waits for that.
    pub(crate) async fn abort(mut self) {
        if let Some(work) = self.take_abort() {
            // It fails only when the runtime ends.
            let _ = tokio::task::spawn_blocking(work).await;
        }
    }

    fn take_abort(&mut self) -> Option<impl FnOnce() + Send + 'static> {
        let (client, permit) = (self.client.take()?, self.permit.take());
        let pool = self.pool.clone();
        Some(move || {
            let _permit = permit;
            if !client.is_open() {
                pool.free().push(client);
                return;
            }
            match client.abort() {
                End::Usable(client, _) => pool.free().push(client),
                End::Broken { lease, fenced, .. } if fenced => pool.fenced(&lease),
                End::Broken { .. } => {}
            }
        })
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        if let (Some(abort), Ok(runtime)) = (self.take_abort(), Handle::try_current()) {
            drop(runtime.spawn_blocking(abort));
        }
    }
}

impl From<TransactionError> for Uncommitted {
    fn from(error: TransactionError) -> Self {
        Uncommitted { error, lease: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn silence(timeout: Duration) -> Option<String> {
        let mut config = Config::default();
        config.transactions.timeout = timeout;
        let settings = Settings::new(&config).unwrap();
        let silence = settings.client.get("connections.max.idle.ms");
        silence.map(str::to_owned)
    }

    #[test]
    fn a_question_that_the_client_has_lost_is_asked_again_before_the_transaction_is_over() {
        let seconds = |seconds| silence(Duration::from_secs(seconds)).unwrap();
        assert_eq!(seconds(10), "5000");
        assert_eq!(seconds(30), "15000");
        assert_eq!(seconds(900), "15000");
        assert_eq!(seconds(1), "2000");
    }
}
