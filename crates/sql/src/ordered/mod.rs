//! Ordered retry: a record that fails waits in the database, what follows it with the same key
//! waits behind it, and everybody else goes on.
//!
//! ```no_run
//! use std::time::Duration;
//! use ackwell::retry::exponential;
//! use ackwell::{App, Config, Listener, by_key, extract::Text};
//! use ackwell_sql::{Database, Error, Relay, Tx, ordered, params};
//!
//! async fn book(Text(order): Text, mut tx: Tx) -> Result<(), Error> {
//!     tx.execute("INSERT INTO bookings (order_id) VALUES ($1)", params![order]).await?;
//!     Ok(())
//! }
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let db = Database::open("sqlite:data/bookings.db", &[]).await?;
//! App::new(Config::load()?)
//!     .state(db.clone())
//!     .service(Relay::new(db)) // publishes what handlers emit, and forgets old marks
//!     .listener(
//!         Listener::on("order-events")
//!             .group("bookings")
//!             .concurrency(by_key(32))
//!             .retry(ordered(exponential(Duration::from_secs(1), 2.0).max_attempts(8)))
//!             .handle(book),
//!     )
//!     .run()
//!     .await?;
//! # Ok(())
//! # }
//! ```
//!
//! # Which retry for what
//! Spring offers two kinds: in place (`DefaultErrorHandler` with a `BackOff`) and by retry topics
//! (`@RetryableTopic`). The third keeps what each of them gives up.
//!
//! | | in place | retry topics | ordered |
//! |---|---|---|---|
//! | who waits for a failing record | its whole lane or partition | nobody | the later records of its key |
//! | order of a key | kept | given up: later records overtake | kept |
//! | attempts and first failure survive a restart | no: counted anew | yes, in headers | yes, in the table |
//! | where the record waits | in the topic, its offset not committed | in further topics | in the database, its offset committed |
//! | a long outage of one customer's bank | stops the lane, later the partition | fine, if order does not matter | fine |
//! | what it needs | nothing | topics | a [`Database`] that all instances of the group share |
//!
//! Take ordered retry where records of one key build on each other and a failure concerns that
//! key alone: an account that is locked, a product that is not there yet. What concerns all
//! records, such as a database that is away, is none of it: say so by
//! [`Class::Unavailable`](ackwell::Class::Unavailable), and the listener waits without using up attempts. A
//! few quick attempts in place can come first:
//! `ordered(policy).after(fixed(Duration::from_millis(50)).max_attempts(3))`; the lane waits for
//! those, as always.
//!
//! # What happens
//! 1. A record fails with a transient failure. What its handler wrote is taken back; in the same
//!    transaction as the records before it, the record is put into the table `ackwell_parked`, byte for
//!    byte, with its mark in the inbox. Then its offset settles like any other, and the run goes on.
//! 2. Later records of its key, compared by its bytes, are put behind it without a call of the
//!    handler. Records without a key are parked singly; nothing waits behind them.
//! 3. When the head of a key is due, it is handled again, by the same handler and layers, as
//!    many keys at a time as the listener has lanes. The row goes in the transaction of the
//!    handler's work. Then the next of the key follows.
//! 4. A head whose attempts are used up, or that fails for good, is marked so, its dead letter is
//!    written and awaited, its row goes, and the key goes on with the next one.
//!
//! The failure with which a record is parked counts as the first of the policy's attempts:
//! `max_attempts(8)` means up to seven retries from the table. [`Attempt`](ackwell::extract::Attempt)
//! goes on counting from there. [`within`](ackwell::retry::RetryPolicy::within) counts from that failure,
//! by the clocks of the machines that work on it.
//!
//! # What holds
//! - **Nothing is lost**: a record leaves the topic's responsibility only in the transaction that
//!   parks it, and leaves the table only when it is handled, or its dead letter is acknowledged.
//! - **Nothing takes effect twice**, for handlers with a [`Tx`](crate::Tx): a redelivered record finds its mark in
//!   the inbox, also while it is parked, and a parked row is handled by whoever removes it. A
//!   handler without `Tx` may be called again for a record in work during a crash, as anywhere; what
//!   was parked and has left again is recognised for it, too. A dead letter may be written twice
//!   if the process dies between its acknowledgement and the row's removal; both say the same
//!   origin, and replaying both takes effect once.
//! - **Order per key** holds through crashes, rebalances and restarts: whoever is given the
//!   partition takes over its table rows with it. An old owner that has not heard of it, say after a
//!   long pause of its machine, is fenced: each transaction first looks at the partition's epoch.
//!   (A handler's effects outside of the database can't be fenced by anybody.)
//! - **Health and limits**: `ackwell_parked_keys`, `ackwell_parked_records` and
//!   `ackwell_parked_oldest_seconds` by listener; [`Database::parked`](crate::Database::parked) lists keys with their
//!   failures. In memory is kept what the keys are and when they are due, not the records. The
//!   limits [`keys_max`](ackwell::retry::Ordered::keys_max), `records_per_key_max` and
//!   `records_max` are those of a partition; where one is reached, the partition takes no new
//!   records until there is room, and the listener is degraded meanwhile.
//!
//! Manual acknowledgement is refused at the start, and so are handlers that take lists: a list's
//! handler decides on all of its records in one transaction, and a failed one takes the others back
//! with it, so that a key could only be parked after its later records were handled in vain, and the
//! handler would be called again for the rest with each record that fails.
//!
//! A record that was given up no longer blocks its event's id in the inbox: a replay of the dead
//! letter takes effect.

mod attempt;
mod list;
mod partition;
mod retry;
mod rows;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ackwell::container::SnapshotStore;
use ackwell::core;
use ackwell::core::engine::FirstFailure;
use ackwell::core::ordered::Terms;
use ackwell::retry::{Ordered, ParkingPlace, RetryPolicy};
use ackwell::service::Service;
use ackwell::unit::{Judged, Parking, Retried, Retries, Run, UnitOfWork};
use ackwell::{Classify, Record, Setup, SetupError};
use futures_util::future::BoxFuture;

pub use list::ParkedKey;
use partition::Partition;
pub(crate) use partition::{Stay, Way};
use retry::Retry;
use rows::Address;
pub(crate) use rows::{Claim, Waiting, now};

use crate::database::Database;
use crate::error::{Error, Kind, Result};
use crate::relay::Caretaker;
use crate::snapshots::Kept;
use crate::unit::{Lane, Mode, Room, Transactional, failure};

/// How soon a partition is looked at again that could not be taken over.
const PAUSE: Duration = Duration::from_secs(1);

/// Retry in the order of each key: a record that fails waits in the listener's [`Database`], with
/// later records of its key behind it. For [`ListenerBuilder::retry`](ackwell::listener::ListenerBuilder::retry);
/// see the [module](mod@crate::ordered).
///
/// The app must have a [`Database`] as [state](ackwell::App::state), and all instances of the
/// consumer group must share it. The policy must be limited, by attempts or by time.
pub fn ordered(policy: RetryPolicy) -> Ordered {
    Ordered::new(policy, InDatabase)
}

/// Parks records in the database that is the app's state.
struct InDatabase;

impl ParkingPlace for InDatabase {
    fn open(&self, setup: &Setup<'_>, terms: Terms) -> Result<Arc<dyn Parking>, SetupError> {
        let database = setup.state::<Database>().cloned();
        let database = database.ok_or_else(|| {
            SetupError::new("its ordered retry needs a `Database`, which the app does not have")
                .mend("open one and add it with `App::state(database)`")
        })?;
        if setup.has_other_unit_than::<Transactional>() {
            return Err(SetupError::new(
                "its ordered retry can't share the unit of work of an extractor",
            )
            .mend("use the extractors of `ackwell-sql` only, or retry in place"));
        }
        Ok(Arc::new(InOrder {
            room: Room::new(&database),
            database,
            group: setup.group().into(),
            transaction: setup.has_unit_of_work(),
            terms: Arc::new(terms),
            partitions: Mutex::default(),
        }))
    }
}

/// What is assigned to this process, by topic and number.
type Partitions = HashMap<(Arc<str>, i32), Arc<Partition>>;

/// The unit of work of listeners with ordered retry.
struct InOrder {
    database: Database,
    room: Room,
    group: Arc<str>,
    /// Whether the handler asks for a transaction.
    transaction: bool,
    terms: Arc<Terms>,
    partitions: Mutex<Partitions>,
}

impl InOrder {
    fn partition(&self, topic: &str, partition: i32) -> Result<Arc<Partition>> {
        let found = self.partitions().get(&(topic.into(), partition)).cloned();
        found.ok_or_else(|| {
            Error::new(
                Kind::Fenced,
                "working on a partition: it is not assigned to this process",
            )
        })
    }

    async fn stay(&self, topic: &str, partition: i32) -> Result<Stay> {
        self.partition(topic, partition)?.stay(&self.database).await
    }

    fn partitions(&self) -> MutexGuard<'_, Partitions> {
        self.partitions
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    async fn park_alone(
        &self,
        record: &Record,
        judged: &Judged,
        attempts: u32,
        first: Option<FirstFailure>,
    ) -> Result<Option<core::Timestamp>> {
        let stay = self.stay(record.topic(), record.partition()).await?;
        let waiting = stay.first_failure(judged, attempts, first);
        let mut turn = self.database.gate().join().await?;
        if stay.park(&mut turn, record, &waiting).await?.is_none() {
            turn.undo().await;
            self.database.stats().duplicate();
            return Ok(None);
        }
        turn.keep(false)?;
        let outcome = turn.outcome();
        drop(turn);
        outcome.durable().await?;
        Ok(Some(waiting.due))
    }
}

impl UnitOfWork for InOrder {
    fn carry_out<'a>(&'a self, run: &'a mut Run) -> BoxFuture<'a, ()> {
        Box::pin(async move {
            let Some(record) = run.peek().cloned() else {
                return;
            };
            match self.stay(record.topic(), record.partition()).await {
                Ok(stay) => {
                    let mode = Mode::Ordered {
                        stay,
                        transaction: self.transaction,
                    };
                    Lane::new(&self.database, &self.room, &self.group, mode)
                        .carry_out(run)
                        .await;
                }
                Err(error) if error.kind() == Kind::Fenced => run.hold(error.to_string()),
                Err(error) => run.failed(failure(error)),
            }
        })
    }

    fn snapshot_store(&self) -> Option<Arc<dyn SnapshotStore>> {
        Some(Arc::new(Kept(self.database.clone())))
    }

    fn companion(&self) -> Option<Box<dyn Service>> {
        Some(Box::new(Caretaker::new(self.database.clone())))
    }
}

impl Parking for InOrder {
    fn assigned(&self, topic: &str, partition: i32) {
        let topic: Arc<str> = topic.into();
        let address = Address {
            group: Arc::clone(&self.group),
            topic: Arc::clone(&topic),
            partition,
        };
        let new = Arc::new(Partition::new(address, Arc::clone(&self.terms)));
        if let Some(old) = self.partitions().insert((topic, partition), new) {
            old.revoke();
        }
    }

    fn revoked(&self, topic: &str, partition: i32) {
        if let Some(old) = self.partitions().remove(&(topic.into(), partition)) {
            old.revoke();
        }
    }

    fn park(
        &self,
        record: Record,
        failure: Judged,
        attempts: u32,
        first: Option<FirstFailure>,
    ) -> BoxFuture<'_, Result<Option<core::Timestamp>, String>> {
        Box::pin(async move {
            let parked = self.park_alone(&record, &failure, attempts, first).await;
            parked.map_err(|error| format!("a record is not parked: {error}"))
        })
    }

    fn retry<'a>(&'a self, retries: &'a Retries) -> BoxFuture<'a, Retried> {
        Box::pin(async move {
            match self.stay(retries.topic(), retries.partition()).await {
                Ok(stay) => Retry::new(&self.database, stay, retries).all().await,
                Err(error) => not_begun(error),
            }
        })
    }

    fn waiting(&self) -> ackwell::unit::Waiting {
        let partitions: Vec<_> = self.partitions().values().cloned().collect();
        let mut all = ackwell::unit::Waiting::default();
        for partition in partitions {
            let (keys, records, oldest) = partition.waiting();
            all.keys += keys;
            all.records += records;
            all.oldest = all
                .oldest
                .max(oldest.map_or(Duration::ZERO, |since| now().since(since)));
        }
        all
    }
}

/// A partition could not be taken over.
fn not_begun(error: Error) -> Retried {
    let next = Some(now() + PAUSE);
    if error.kind() == Kind::Fenced {
        return Retried {
            next,
            failure: None,
            problem: Some(error.to_string()),
        };
    }
    let waits = matches!(
        error.class(),
        ackwell::Class::Unavailable | ackwell::Class::Stop
    );
    if waits {
        return Retried {
            next,
            failure: Some(failure(error)),
            problem: None,
        };
    }
    Retried {
        next,
        failure: None,
        problem: Some(error.to_string()),
    }
}
