//! What handlers send and positions are committed together, in transactions of Kafka.
//!
//! Everything that moves a position of a transactional listener comes through here: groups of
//! handled records (`unit.rs`), records that are passed on as dead letters or to retry topics,
//! and positions that move without either (what is skipped or filtered, and gaps). A position
//! that was committed in a transaction must not be committed again later, when the next
//! transaction may have moved it on; so what was committed last is kept for each owned partition.
//!
//! A transaction carries the generation of the group's member, and the broker refuses that of one
//! that was replaced (KIP-447). The broker does not look at who owns a partition, though: a
//! member that has lost it, and is back with a new generation, would be let through. So whoever
//! commits has a [`Claim`] from when the partition was owned, and it is looked at after the
//! generation is taken: the client is given a new one only after it has given the partition back.

mod unit;

use std::collections::HashMap;
use std::ops::Range;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::{Duration, Instant};

use rdkafka::consumer::Consumer;
use rdkafka::error::KafkaResult;
use rdkafka::producer::{BaseRecord, FutureRecord};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use tokio::runtime::Handle;
use tokio::sync::RwLock;

use super::consumer::{Client, Named};
use super::observation::{Observation, Observer};
use crate::record::Record;
use crate::transaction::{
    Kind, Lease, Offsets, Open, Pool, Settings, Transaction, TransactionError, Uncommitted,
};

pub(super) use unit::InTransactions;

/// How long the broker may take to say what the group has committed.
const STORED_WAIT: Duration = Duration::from_secs(5);

/// The transactions of one listener.
pub(super) struct Transactional {
    pool: Pool,
    observer: Arc<dyn Observer>,
    /// Not held: when the container drops it, the client leaves its group.
    client: OnceLock<Weak<Client>>,
    places: Mutex<Places>,
    /// Groups of different partitions are committed side by side; positions alone, one after all.
    order: RwLock<()>,
}

#[derive(Default)]
struct Places {
    owned: HashMap<Named, Place>,
    assignments: u64,
}

/// What is known of an owned partition.
struct Place {
    assignment: u64,
    /// Committed last.
    position: Option<i64>,
    doubt: Option<Doubt>,
    /// Offsets of which a doubt has turned out to be none: their records come again, perhaps one by
    /// one, and are done.
    settled: Range<i64>,
}

/// A transaction that may have been committed.
struct Doubt {
    /// The offsets of its records.
    records: Range<i64>,
    /// Its id: a new producer waits for its end.
    lease: Option<Lease>,
}

/// A partition at the time at which it was owned.
#[derive(Clone, Debug)]
pub(super) struct Claim {
    named: Named,
    assignment: u64,
}

impl Transactional {
    pub(super) async fn open(
        settings: Settings,
        observer: Arc<dyn Observer>,
    ) -> Result<Self, TransactionError> {
        let pool = Pool::new(settings)?;
        pool.open().await?;
        Ok(Transactional {
            pool,
            observer,
            client: OnceLock::new(),
            places: Mutex::default(),
            order: RwLock::new(()),
        })
    }

    /// Whose generation transactions carry; called once.
    pub(super) fn read_by(&self, client: &Arc<Client>) {
        let _ = self.client.set(Arc::downgrade(client));
    }

    pub(super) fn assigned(&self, named: &Named, position: Option<i64>) {
        let mut places = self.places();
        places.assignments += 1;
        let place = Place {
            assignment: places.assignments,
            position,
            doubt: None,
            settled: 0..0,
        };
        places.owned.insert(named.clone(), place);
    }

    pub(super) fn gone(&self, topic: &str, partition: i32) {
        let mut places = self.places();
        places.owned.remove(&(topic.to_owned(), partition));
    }

    /// Somebody has moved the listener in this partition: whatever comes now is to be handled, also what a
    /// doubtful transaction may have committed.
    pub(super) fn sought(&self, topic: &str, partition: i32) {
        let mut places = self.places();
        let Some(place) = places.owned.get_mut(&(topic.to_owned(), partition)) else {
            return;
        };
        place.settled = 0..0;
        if let Some(doubt) = &mut place.doubt {
            doubt.records.start = doubt.records.end;
        }
    }

    pub(super) fn all_gone(&self) {
        self.places().owned.clear();
    }

    /// The claim on a record's partition; without one it commits nothing.
    pub(super) fn claim(&self, record: &Record) -> Claim {
        // Not where it came from first: a position belongs to the topic on which it was read.
        let (topic, partition, _) = record.read_from();
        let named = (topic.to_owned(), partition);
        let places = self.places();
        let assignment = places.owned.get(&named).map_or(0, |place| place.assignment);
        Claim { named, assignment }
    }

    /// What a handler sends in.
    fn seat(&self) -> Transaction {
        Transaction::held(self.pool.limits())
    }

    /// Writes a record's copy and the position behind it in one transaction.
    pub(super) async fn pass_on(
        &self,
        claim: &Claim,
        record: &Record,
        copy: FutureRecord<'_, [u8], [u8]>,
    ) -> Result<(), TransactionError> {
        let offset = record.offset_read();
        let records = offset..offset.saturating_add(1);
        if self.settled_before(claim).await?.contains(&records.start) {
            return Ok(());
        }
        let open = self.pool.begin().await?;
        let mut outgoing = BaseRecord::with_opaque_to(copy.topic, ());
        outgoing.partition = copy.partition;
        outgoing.key = copy.key;
        outgoing.payload = copy.payload;
        outgoing.headers = copy.headers;
        open.send(outgoing).await?;
        self.commit(open, claim, records).await
    }

    /// Commits what was sent for these records of a partition, and the position behind them.
    async fn commit(
        &self,
        open: Open,
        claim: &Claim,
        records: Range<i64>,
    ) -> Result<(), TransactionError> {
        let _together = self.order.read().await;
        let committed = self.end(open, &[(claim, records.end)]).await;
        committed.map_err(|Uncommitted { error, lease }| {
            if error.kind() == Kind::Unknown {
                let doubt = Some(Doubt { records, lease });
                self.with(claim, |place| place.doubt = doubt);
            }
            error
        })
    }

    /// Commits positions of which no transaction knows; those that it does know are done.
    async fn commit_alone(&self, wanted: &TopicPartitionList) -> Result<(), String> {
        let _alone = self.order.write().await;
        let positions = self.not_committed(wanted);
        if positions.is_empty() {
            return Ok(());
        }
        let failed = |error: TransactionError| error.to_string();
        let open = self.pool.begin().await.map_err(failed)?;
        let positions: Vec<_> = positions.iter().map(|(claim, at)| (claim, *at)).collect();
        let committed = self.end(open, &positions).await;
        committed.map_err(|uncommitted| failed(uncommitted.error))
    }

    fn not_committed(&self, wanted: &TopicPartitionList) -> Vec<(Claim, i64)> {
        let places = self.places();
        let elements = wanted.elements();
        let open = elements.iter().filter_map(|element| {
            let Offset::Offset(at) = element.offset() else {
                return None;
            };
            let named = (element.topic().to_owned(), element.partition());
            let place = places.owned.get(&named)?;
            let known = place.position.is_some_and(|position| position >= at);
            let assignment = place.assignment;
            (!known && place.doubt.is_none()).then_some((Claim { named, assignment }, at))
        });
        open.collect()
    }

    async fn end(&self, open: Open, positions: &[(&Claim, i64)]) -> Result<(), Uncommitted> {
        let began = Instant::now();
        let ended = self.end_unobserved(open, positions).await;
        let outcome = match &ended {
            Ok(()) => "committed",
            Err(uncommitted) => uncommitted.error.kind().word(),
        };
        self.observer.observe(&Observation::TransactionEnded {
            outcome,
            elapsed: began.elapsed(),
        });
        ended
    }

    async fn end_unobserved(
        &self,
        open: Open,
        positions: &[(&Claim, i64)],
    ) -> Result<(), Uncommitted> {
        let client = self.client.get().and_then(Weak::upgrade);
        let member = client.and_then(|client| client.group_metadata());
        let Some(member) = member else {
            return Err(TransactionError::outdated("the listener has ended").into());
        };
        let mut list = TopicPartitionList::with_capacity(positions.len());
        for (claim, at) in positions {
            // Only now, see the module.
            if self.with(claim, |_| ()).is_none() {
                let (topic, partition) = &claim.named;
                let what = format!("{topic}-{partition} is not owned any more");
                return Err(TransactionError::outdated(what).into());
            }
            let added =
                list.add_partition_offset(&claim.named.0, claim.named.1, Offset::Offset(*at));
            added.map_err(|error| TransactionError::unavailable(error.to_string()))?;
        }
        open.commit(Some(Offsets { list, member })).await?;
        for (claim, at) in positions {
            self.with(claim, |place| {
                place.position = Some(*at);
                if *at > place.settled.end {
                    place.settled = 0..0;
                }
            });
        }
        Ok(())
    }

    /// Offsets whose records were committed by a transaction of which that was not known: no
    /// record of them may be handled again. Empty if there was no doubt, or if it was aborted.
    async fn settled_before(&self, claim: &Claim) -> Result<Range<i64>, TransactionError> {
        let doubt = self.with(claim, |place| place.doubt.take()).flatten();
        let Some(Doubt { records, lease }) = doubt else {
            let settled = self.with(claim, |place| place.settled.clone());
            return Ok(settled.unwrap_or(0..0));
        };
        match self.look(claim, lease).await {
            Ok(stored) => {
                let done = stored.is_some_and(|stored| stored >= records.end);
                let settled = if done { records } else { 0..0 };
                self.with(claim, |place| {
                    place.position = stored;
                    place.settled = settled.clone();
                });
                tracing::warn!(
                    topic = claim.named.0,
                    partition = claim.named.1,
                    committed = done,
                    "the end of a transaction was not known, and is now"
                );
                Ok(settled)
            }
            Err((lease, error)) => {
                let doubt = Some(Doubt { records, lease });
                self.with(claim, |place| place.doubt = doubt);
                Err(error)
            }
        }
    }

    /// What the group has committed, when the transaction of this id has ended.
    async fn look(
        &self,
        claim: &Claim,
        lease: Option<Lease>,
    ) -> Result<Option<i64>, (Option<Lease>, TransactionError)> {
        if let Some(lease) = lease {
            self.pool.reopen(lease).await?;
        }
        let client = self.client.get().and_then(Weak::upgrade);
        let ended = || (None, TransactionError::outdated("the listener has ended"));
        let client = client.ok_or_else(ended)?;
        let (topic, partition) = claim.named.clone();
        let asked = tokio::task::spawn_blocking(move || stored(&client, &topic, partition));
        let stored = asked.await.map_err(|_| ended())?;
        stored.map_err(|error| {
            let what = format!("seeing whether a transaction was committed: {error}");
            (None, TransactionError::unavailable(what))
        })
    }

    /// Looks at a partition if it is still owned as it was claimed.
    fn with<T>(&self, claim: &Claim, act: impl FnOnce(&mut Place) -> T) -> Option<T> {
        let mut places = self.places();
        let place = places.owned.get_mut(&claim.named)?;
        (place.assignment == claim.assignment).then(|| act(place))
    }

    fn places(&self) -> MutexGuard<'_, Places> {
        let places = self.places.lock();
        places.unwrap_or_else(PoisonError::into_inner)
    }
}

/// The group's position; the client asks for one behind which no transaction is open.
fn stored(client: &Client, topic: &str, partition: i32) -> KafkaResult<Option<i64>> {
    let mut list = TopicPartitionList::with_capacity(1);
    list.add_partition(topic, partition);
    let found = client.committed_offsets(list, STORED_WAIT)?;
    let elements = found.elements();
    let Some(element) = elements.first() else {
        return Ok(None);
    };
    element.error()?;
    Ok(match element.offset() {
        Offset::Offset(at) => Some(at),
        _ => None,
    })
}

/// For a thread that waits for the end of commits.
pub(super) struct Waiting {
    transactions: Arc<Transactional>,
    runtime: Handle,
}

impl Waiting {
    pub(super) fn new(transactions: Arc<Transactional>) -> Self {
        let runtime = Handle::current();
        Waiting {
            transactions,
            runtime,
        }
    }

    pub(super) fn commit(&self, positions: &TopicPartitionList) -> Result<(), String> {
        let work = self.transactions.commit_alone(positions);
        // The runtime may be gone before the listener is.
        let waited = std::panic::catch_unwind(AssertUnwindSafe(|| self.runtime.block_on(work)));
        waited.unwrap_or_else(|_| Err("the runtime has ended".to_owned()))
    }
}
