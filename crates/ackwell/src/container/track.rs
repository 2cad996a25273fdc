//! Partitions come and go; what was settled before is read back with the position.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};

use ackwell_core::Timestamp;
use ackwell_core::engine::{Assigned, PartitionId};
use rdkafka::consumer::base_consumer::PartitionQueue;
use rdkafka::consumer::{Consumer, RebalanceProtocol};
use rdkafka::error::KafkaResult;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use super::consumer::{Callbacks, Client, Named};
use super::control::TopicPartition;
use super::lookup::Positions;
use super::mailbox::Waker;
use super::transactions::Transactional;
use super::unread::Unread;
use crate::mutation::{self, Fault};

/// Names of partitions and their queues.
///
/// Each partition has a queue of its own: one that is full is just not polled, so that nothing
/// fetched is thrown away, as a pause of the client would.
#[derive(Default)]
pub(super) struct Partitions {
    ids: HashMap<Named, PartitionId>,
    named: Vec<(Arc<str>, i32)>,
    retry_topics: HashSet<String>,
    /// Who commits positions of owned partitions in transactions.
    transactions: Option<Arc<Transactional>>,
    queues: Vec<Option<Queue>>,
}

/// The fetched records of one owned partition.
pub(super) struct Queue {
    /// Before the queue: what was taken from it is let go first.
    pub(super) unread: Unread,
    pub(super) queue: Arc<PartitionQueue<Callbacks>>,
    pub(super) topic: Arc<str>,
    pub(super) paused: bool,
    /// How many records there were the last time.
    pub(super) taken: usize,
    /// The client has stopped reading; only a new client goes on.
    stopped: bool,
    ready: Arc<AtomicBool>,
    /// Dropped when the partition goes.
    stay: Arc<()>,
}

/// The time from a partition's assignment until it goes, for threads that can't see
/// [`Partitions`].
#[derive(Debug, Clone)]
pub(super) struct Stay(Weak<()>);

impl Stay {
    /// Whether the partition has gone since; it may have come back.
    pub(super) fn is_over(&self) -> bool {
        self.0.strong_count() == 0
    }
}

impl Queue {
    /// Whether there may be records to take; a poll that finds none clears it.
    pub(super) fn take_ready(&self) -> bool {
        self.ready.swap(false, Ordering::AcqRel)
    }

    pub(super) fn set_ready(&self) {
        self.ready.store(true, Ordering::Release);
    }
}

impl Partitions {
    pub(super) fn new(
        retry_topics: impl Iterator<Item = String>,
        transactions: Option<Arc<Transactional>>,
    ) -> Self {
        Partitions {
            retry_topics: retry_topics.collect(),
            transactions,
            ..Partitions::default()
        }
    }

    fn is_retry_topic(&self, topic: &str) -> bool {
        self.retry_topics.contains(topic)
    }

    pub(super) fn id(&mut self, named: &Named) -> PartitionId {
        if let Some(id) = self.ids.get(named) {
            return *id;
        }
        let id = PartitionId(u32::try_from(self.named.len()).unwrap_or(u32::MAX));
        let same = self.named.iter().find(|(topic, _)| **topic == *named.0);
        let topic = same.map_or_else(|| named.0.as_str().into(), |(topic, _)| Arc::clone(topic));
        self.named.push((topic, named.1));
        self.queues.push(None);
        self.ids.insert(named.clone(), id);
        id
    }

    pub(super) fn id_of(&mut self, partition: &TopicPartition) -> PartitionId {
        self.id(&(partition.topic.to_string(), partition.partition))
    }

    /// The number of a partition, if it ever had one.
    pub(super) fn known(&self, partition: &TopicPartition) -> Option<PartitionId> {
        let named = (partition.topic.to_string(), partition.partition);
        self.ids.get(&named).copied()
    }

    pub(super) fn is_owned(&self, id: PartitionId) -> bool {
        self.queues.get(id.0 as usize).is_some_and(Option::is_some)
    }

    /// The stay of a partition that is owned.
    pub(super) fn stay(&self, id: PartitionId) -> Option<Stay> {
        let queue = self.queues.get(id.0 as usize)?.as_ref()?;
        Some(Stay(Arc::downgrade(&queue.stay)))
    }

    /// Those that the client was told to read.
    pub(super) fn owned(&self) -> impl Iterator<Item = PartitionId> + '_ {
        let queues = self.queues.iter().zip(0u32..);
        let owned = queues.filter(|(queue, _)| queue.is_some());
        owned.map(|(_, id)| PartitionId(id))
    }

    /// The client reads elsewhere now: there may be records to take.
    pub(super) fn wake(&self, id: PartitionId) {
        if let Some(Some(queue)) = self.queues.get(id.0 as usize) {
            queue.set_ready();
        }
    }

    /// Somebody wanted the client to read elsewhere.
    pub(super) fn sought(&self, id: PartitionId) {
        if let (Some(transactions), Some((topic, partition))) = (&self.transactions, self.name(id))
        {
            transactions.sought(topic, *partition);
        }
    }

    pub(super) fn set_stopped(&mut self, id: PartitionId) {
        if let Some(queue) = self.queue(id.0 as usize) {
            queue.stopped = true;
        }
    }

    pub(super) fn has_stopped(&self, id: PartitionId) -> bool {
        let queue = self.queues.get(id.0 as usize);
        queue.is_some_and(|queue| queue.as_ref().is_some_and(|queue| queue.stopped))
    }

    pub(super) fn name(&self, id: PartitionId) -> Option<&(Arc<str>, i32)> {
        self.named.get(id.0 as usize)
    }

    pub(super) fn count(&self) -> usize {
        self.queues.len()
    }

    pub(super) fn queue(&mut self, index: usize) -> Option<&mut Queue> {
        self.queues.get_mut(index)?.as_mut()
    }

    pub(super) fn set_paused(&mut self, ids: &[PartitionId], paused: bool) {
        for id in ids {
            if let Some(queue) = self.queue(id.0 as usize) {
                queue.paused = paused;
                queue.set_ready();
            }
        }
    }

    /// Has batches be read that have held memory of the client for long; gives the time at which
    /// the next one has.
    pub(super) fn read_late(&mut self, now: Timestamp) -> Option<Timestamp> {
        let queues = self.queues.iter_mut().flatten();
        queues.filter_map(|queue| queue.unread.read_late(now)).min()
    }

    /// How many are paused.
    pub(super) fn paused(&self) -> usize {
        self.queues
            .iter()
            .flatten()
            .filter(|queue| queue.paused)
            .count()
    }

    pub(super) fn clear(&mut self) {
        if let Some(transactions) = &self.transactions {
            transactions.all_gone();
        }
        self.queues.iter_mut().for_each(|queue| *queue = None);
    }

    /// Takes partitions over at the group's positions: splits their queues, starts fetching. Where
    /// the group has none, the client decides (`auto.offset.reset`).
    pub(super) fn assign(
        &mut self,
        client: &Arc<Client>,
        waker: &Waker,
        named: &[Named],
        positions: &Positions,
    ) -> KafkaResult<Vec<Assigned>> {
        let mut assigned = Vec::with_capacity(named.len());
        let mut start = TopicPartitionList::new();
        for named in named {
            let found = positions.get(named);
            let fresh = self.is_retry_topic(&named.0);
            // What waits on a retry topic must not be passed over because nothing of it has been
            // committed yet, wherever the listener wants to begin on its own topics.
            let first = if fresh {
                Offset::Beginning
            } else {
                Offset::Invalid
            };
            let offset = found.map_or(first, |found| Offset::Offset(found.at.0));
            if let Some(transactions) = &self.transactions {
                transactions.assigned(named, found.map(|found| found.at.0));
            }
            start.add_partition_offset(&named.0, named.1, offset)?;
            let partition = self.id(named);
            // Before the assignment, so that no record reaches the common queue.
            self.split(client, waker, partition);
            assigned.push(Assigned {
                partition,
                position: found.map(|found| found.at),
                metadata: found
                    .filter(|_| !mutation::is(Fault::MetadataNotRead))
                    .map(|found| found.metadata.clone())
                    .unwrap_or_default(),
                snapshot: found.and_then(|found| found.snapshot.clone()),
            });
        }
        match client.rebalance_protocol() {
            RebalanceProtocol::Cooperative => client.incremental_assign(&start)?,
            RebalanceProtocol::Eager | RebalanceProtocol::None => client.assign(&start)?,
        }
        Ok(assigned)
    }

    fn split(&mut self, client: &Arc<Client>, waker: &Waker, id: PartitionId) {
        let Some((topic, partition)) = self.name(id).cloned() else {
            return;
        };
        let Some(mut queue) = client.split_partition_queue(&topic, partition) else {
            return;
        };
        let ready = Arc::new(AtomicBool::new(true));
        let (flag, waker) = (Arc::clone(&ready), waker.clone());
        queue.set_nonempty_callback(move || {
            flag.store(true, Ordering::Release);
            waker.wake();
        });
        let queue = Arc::new(queue);
        if let Some(place) = self.queues.get_mut(id.0 as usize) {
            *place = Some(Queue {
                unread: Unread::of(&queue, &topic, partition),
                queue,
                topic,
                paused: false,
                taken: 0,
                stopped: false,
                ready,
                stay: Arc::default(),
            });
        }
    }

    /// Gives partitions back to the group.
    pub(super) fn unassign(&mut self, client: &Client, ids: &[PartitionId]) -> KafkaResult<()> {
        let mut list = TopicPartitionList::new();
        for id in ids {
            if let Some((topic, partition)) = self.named.get(id.0 as usize) {
                list.add_partition(topic, *partition);
                if let Some(transactions) = &self.transactions {
                    transactions.gone(topic, *partition);
                }
            }
            if let Some(queue) = self.queues.get_mut(id.0 as usize) {
                *queue = None;
            }
        }
        match client.rebalance_protocol() {
            RebalanceProtocol::Cooperative => client.incremental_unassign(&list),
            RebalanceProtocol::Eager | RebalanceProtocol::None => client.unassign(),
        }
    }
}
