//! Several records on several topics, seen together or not at all.
//!
//! Kafka's transactions serve two purposes, and there is one way to send in both: a
//! [`Transaction`].
//!
//! **Several events as one.** [`Transactions::run`] calls a closure with a transaction, commits
//! it when the closure returns `Ok`, and aborts it when it returns an error, panics or is dropped.
//!
//! ```no_run
//! # use std::borrow::Cow;
//! # use ackwell::{Config, Event, Topic};
//! # #[derive(serde::Serialize, serde::Deserialize)]
//! # struct UserCreated { user_id: String }
//! # impl Event for UserCreated {
//! #     const TOPIC: Topic<Self> = Topic::new("user-events");
//! #     fn event_type(&self) -> &'static str { "UserCreated" }
//! #     fn knows(event_type: &str) -> bool { event_type == "UserCreated" }
//! #     fn aggregate_id(&self) -> Cow<'_, str> { Cow::Borrowed(&self.user_id) }
//! # }
//! # #[derive(serde::Serialize, serde::Deserialize)]
//! # struct Audited { user_id: String }
//! # impl Event for Audited {
//! #     const TOPIC: Topic<Self> = Topic::new("audit-events");
//! #     fn event_type(&self) -> &'static str { "Audited" }
//! #     fn knows(event_type: &str) -> bool { event_type == "Audited" }
//! #     fn aggregate_id(&self) -> Cow<'_, str> { Cow::Borrowed(&self.user_id) }
//! # }
//! use ackwell::transaction::{TransactionError, Transactions};
//!
//! # async fn example(created: UserCreated, audited: Audited) -> Result<(), TransactionError> {
//! let transactions = Transactions::open(&Config::default()).await?;
//! transactions
//!     .run(async |tx| -> Result<(), TransactionError> {
//!         tx.send(&created).await?;
//!         tx.send(&audited).await
//!     })
//!     .await
//! # }
//! ```
//!
//! **Exactly once from topic to topic.** A handler that asks for a [`Transaction`] makes its listener
//! transactional: what it sends and the position of its record are committed together, so that a
//! reader with `isolation.level=read_committed` (the default here) sees each output once, whatever
//! dies when.
//!
//! ```
//! # use std::borrow::Cow;
//! # use ackwell::Topic;
//! # #[derive(serde::Serialize, serde::Deserialize)]
//! # struct OrderPlaced { order_id: String }
//! # impl ackwell::Event for OrderPlaced {
//! #     const TOPIC: Topic<Self> = Topic::new("order-events");
//! #     fn event_type(&self) -> &'static str { "OrderPlaced" }
//! #     fn knows(event_type: &str) -> bool { event_type == "OrderPlaced" }
//! #     fn aggregate_id(&self) -> Cow<'_, str> { Cow::Borrowed(&self.order_id) }
//! # }
//! # #[derive(serde::Serialize, serde::Deserialize)]
//! # struct InvoiceWanted { order_id: String }
//! # impl ackwell::Event for InvoiceWanted {
//! #     const TOPIC: Topic<Self> = Topic::new("invoice-events");
//! #     fn event_type(&self) -> &'static str { "InvoiceWanted" }
//! #     fn knows(event_type: &str) -> bool { event_type == "InvoiceWanted" }
//! #     fn aggregate_id(&self) -> Cow<'_, str> { Cow::Borrowed(&self.order_id) }
//! # }
//! use ackwell::extract::Event;
//! use ackwell::transaction::{Transaction, TransactionError};
//! use ackwell::Listener;
//!
//! async fn invoice(Event(order): Event<OrderPlaced>, tx: Transaction) -> Result<(), TransactionError> {
//!     tx.send(&InvoiceWanted { order_id: order.order_id }).await
//! }
//!
//! let listener = Listener::on("order-events").group("invoices").handle(invoice);
//! # let _ = listener;
//! ```
//!
//! # What a transactional listener does
//!
//! - What waits in a partition is handled record by record, and committed in groups: up to
//!   [`run_limit`](crate::listener::ListenerBuilder::run_limit) records (with 1, each record has
//!   a transaction of its own), or what was handled within 100 ms. Nobody waits for company.
//! - What a handler sends is kept until it returns `Ok`. One that fails has therefore sent nothing,
//!   and its neighbours are not repeated; its error's class decides what becomes of it, as
//!   everywhere. A dead letter, and a copy for a retry topic, is written in one transaction with
//!   the record's position.
//! - If the broker refuses something that was sent, the group is aborted and its records are handled
//!   again in smaller groups, until the one to blame is alone: it has the verdict of the refusal
//!   (a record that is too large is a permanent failure). So a handler may be called more than
//!   once; what it does besides sending is not undone.
//! - Positions are committed only in transactions, with the generation of the group's member
//!   (KIP-447): a member that was replaced has its transaction refused, and what it had in work is
//!   handled by the next owner.
//! - When it is not known whether a transaction was committed, because the broker did not answer,
//!   the group's stored position tells before anything is handled again.
//!
//! Every transaction is counted by how it ended, and its commit timed: `ackwell_transactions_total` and
//! `ackwell_transaction_commit_seconds`, by listener; see [`Transactions::observed`].
//!
//! Databases are not part of it: a handler that writes to one takes `Tx` and its outbox, and not
//! this, which is refused together at the start.
//!
//! # Who a producer is
//!
//! Transactional ids are `<prefix>-<instance>-<number>`, see
//! [`config::Transactions`](crate::config::Transactions). Each is leased by a lock in the data folder,
//! so that no two producers of a machine have the same one, and after a crash the next start takes
//! those that were in use and has the broker end what was open. If another machine uses the same
//! id all the same (a copied data folder, or one `transactions.instance` for two), the broker
//! fences the older: a fenced listener stops, unsettled and visibly unhealthy, and loses nothing.
//! Fenced [`Transactions`] begin nothing any more, and if they are
//! [state](crate::App::state) of an app, its health says so.

mod client;
mod error;
mod lease;
mod pool;
mod sender;

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

pub use error::TransactionError;
pub use pool::Settings;
pub use sender::Transaction;

pub(crate) use client::Offsets;
pub(crate) use error::Kind;
pub(crate) use lease::Lease;
pub(crate) use pool::{Open, Pool, Uncommitted};
pub(crate) use sender::Limits;

use crate::config::Config;
use crate::observe::{Metrics, Reporter, TransactionMetrics};
use sender::{Direct, Seat};

/// Sends several events as one. Cheap to clone; clones share their producers.
///
/// See the [module](mod@crate::transaction). Give it to [`App::state`](crate::App::state) to have
/// it in handlers and requests.
#[derive(Clone)]
pub struct Transactions {
    pool: Pool,
    metrics: TransactionMetrics,
}

impl Transactions {
    /// Leases an id, and waits until the broker has ended what an earlier run of this instance has
    /// left open.
    ///
    /// # Errors
    /// When settings contradict each other, the data folder is not writable, the broker has no
    /// transactions or can't be reached, or a right is missing.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn open(config: &Config) -> Result<Self, TransactionError> {
        Self::observed(config, &Metrics::new()).await
    }

    /// The same, reporting to `metrics`, under the names of transactional listeners and without a listener's name:
    ///
    /// - `ackwell_transactions_total{listener="",outcome}`: `committed`; `aborted`, also when its closure failed,
    ///   panicked or was dropped, or when it could not be begun; `fenced`, by another instance with the same id;
    ///   `unknown`, if the broker did not answer.
    /// - `ackwell_transaction_commit_seconds{listener=""}`: how long commits took, those included that failed.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn observed(config: &Config, metrics: &Metrics) -> Result<Self, TransactionError> {
        let pool = Pool::new(Settings::new(config)?)?;
        pool.open().await?;
        let metrics = metrics.transactions();
        Ok(Self { pool, metrics })
    }

    /// Calls `work` with a transaction. When it returns `Ok`, everything that it sent is committed
    /// and this returns when the broker has confirmed that; otherwise everything is aborted, and
    /// its error comes back. Waits while as many transactions are open as
    /// [may be](crate::config::Transactions::producers).
    ///
    /// # Errors
    /// With the error of `work`; with that of a record that was refused, whether or not `work`
    /// looked at it; and when the transaction can't be begun or committed. Unless
    /// [`is_unknown`](TransactionError::is_unknown), nothing of it will be seen.
    ///
    /// # Cancel safety
    /// Dropped before the commit has begun, the transaction is aborted; dropped later, it may be
    /// committed or not.
    pub async fn run<T, E>(
        &self,
        work: impl AsyncFnOnce(Transaction) -> Result<T, E>,
    ) -> Result<T, E>
    where
        E: From<TransactionError>,
    {
        let guard = self.begin().await?;
        let done = work(Transaction::direct(Arc::clone(&guard.seat))).await;
        let Some(Direct { open, failed }) = guard.end().await else {
            return Err(TransactionError::ended().into());
        };
        match (done, failed) {
            (Ok(value), None) => {
                self.commit(open).await?;
                Ok(value)
            }
            (done, failed) => {
                let why = failed
                    .as_ref()
                    .map_or(Kind::Aborted, TransactionError::kind);
                self.metrics.ended(why.word());
                open.abort().await;
                done.and_then(|_| Err(failed.unwrap_or_else(TransactionError::ended).into()))
            }
        }
    }

    /// Has an app's health tell of it.
    pub(crate) fn report_to(&self, reporter: Reporter) {
        self.pool.report_to(reporter);
    }

    async fn begin(&self) -> Result<Guard, TransactionError> {
        let open = self.pool.begin().await;
        let open = open.inspect_err(|error| self.metrics.ended(error.kind().word()))?;
        let direct = Direct { open, failed: None };
        Ok(Guard {
            seat: Arc::new(tokio::sync::Mutex::new(Some(direct))),
            metrics: Some(self.metrics.clone()),
        })
    }

    async fn commit(&self, open: Open) -> Result<(), TransactionError> {
        let began = Instant::now();
        let committed = open.commit(None).await;
        let committed = committed.map_err(|uncommitted| uncommitted.error);
        let outcome = match &committed {
            Ok(()) => "committed",
            Err(error) => error.kind().word(),
        };
        self.metrics.committed(outcome, began.elapsed());
        committed
    }

    /// Waits until no transaction is open, and lets none begin.
    ///
    /// # Errors
    /// When that takes longer than `limit`.
    ///
    /// # Cancel safety
    /// Dropped, transactions can still begin.
    pub async fn close(&self, limit: Duration) -> Result<(), TransactionError> {
        self.pool.close(limit).await
    }
}

impl fmt::Debug for Transactions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Transactions").finish_non_exhaustive()
    }
}

/// Ends a transaction whose closure was dropped or has panicked, whoever still has a clone of it.
struct Guard {
    seat: Seat,
    /// Where that is counted; until the closure has returned.
    metrics: Option<TransactionMetrics>,
}

impl Guard {
    /// The closure has returned: nobody sends any more.
    async fn end(mut self) -> Option<Direct> {
        let direct = self.seat.lock().await.take();
        self.metrics = None;
        direct
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        let Some(metrics) = &self.metrics else {
            return;
        };
        metrics.ended(Kind::Aborted.word());
        if let Ok(mut direct) = self.seat.try_lock() {
            *direct = None;
        }
    }
}
