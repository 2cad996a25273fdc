//! Fetched records are taken from the client's queues, a batch of a partition at a time, and
//! delivered to the engine.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use ackwell_core::engine::{Event, PartitionId};
use ackwell_core::offset::CommitOffset;
use rdkafka::Message as _;
use rdkafka::consumer::Consumer;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use super::decode::{Fetched, place};
use super::forward::moment;
use super::health::{damage, offset_in};
use super::poll::Poller;
use super::track::Queue;
use crate::record::{Place, Record};

/// Records taken from a partition at once, as Kafka's `max.poll.records`.
const BATCH_RECORDS: usize = 500;
/// Their bytes: a kept record keeps its batch in memory, so a batch stays small.
const BATCH_BYTES: usize = 1 << 20;
/// Records that wait for each other at most before they are dispatched: together they wake the
/// handlers' threads once, and yet the first does not wait for the polls of a thousand partitions.
const DISPATCHED_AT_ONCE: usize = 4000;

/// What was taken from a queue.
struct Taken {
    places: Vec<Place>,
    fetched: Fetched,
    /// The offset behind the last record, if there was any.
    next: Option<i64>,
    /// What came behind them.
    error: Option<KafkaError>,
}

impl Poller {
    /// Takes a batch of each partition that has one and is not paused.
    pub(super) fn take_records(&mut self) -> bool {
        let (mut busy, mut waiting) = (false, 0);
        for index in 0..self.partitions.count() {
            let taken = self.take_batch(index);
            busy |= taken > 0;
            waiting += taken;
            if waiting >= DISPATCHED_AT_ONCE {
                self.act();
                waiting = 0;
            }
        }
        self.act();
        busy
    }

    /// Tells the engine what a partition's queue holds; what it decides is carried out by
    /// [`act`](Poller::act). Returns how many records there were.
    fn take_batch(&mut self, index: usize) -> usize {
        let id = PartitionId(u32::try_from(index).unwrap_or(u32::MAX));
        let Some(queue) = self.partitions.queue(index) else {
            return 0;
        };
        if queue.paused || self.seeks.is_late(id) || !queue.take_ready() {
            return 0;
        }
        let Taken {
            places,
            fetched,
            next,
            error,
        } = drain(queue);
        let count = places.len();
        let topic = Arc::clone(&queue.topic);
        if let Some(next) = next {
            let batch = queue.unread.add(self.clock.now(), places, fetched);
            if !self.is_of_another_log(&topic) {
                self.deliver(id, &topic, batch.into_records(), CommitOffset(next));
            }
        }
        // Behind the records that came before it: what it is about begins where they end.
        if let Some(error) = error {
            self.partition_failed(id, &error);
        }
        count
    }

    /// Whether the client has said before it had these records that their topic is another one now.
    /// They come again, behind those that they do not follow.
    fn is_of_another_log(&mut self, topic: &str) -> bool {
        self.poll_client();
        self.client.context().is_recreated(topic)
    }

    fn deliver(
        &mut self,
        partition: PartitionId,
        topic: &str,
        mut records: Vec<Record>,
        next: CommitOffset,
    ) {
        let now = self.clock.now();
        if let Some(topics) = &self.retry_topics {
            records = topics.receive(topic, records, moment(now));
        }
        self.not_idle(partition);
        if !self.health.denied.is_empty() {
            self.partition_allowed(partition);
        }
        self.counters
            .polled
            .fetch_add(records.len() as u64, Ordering::Relaxed);
        let polled = Event::Polled {
            partition,
            records,
            next,
        };
        self.engine.on_event(now, polled);
    }

    fn partition_failed(&mut self, id: PartitionId, error: &KafkaError) {
        if error.rdkafka_error_code() == Some(RDKafkaErrorCode::TopicAuthorizationFailed) {
            return self.partition_denied(id);
        }
        let (Some(damage), Some((topic, partition))) = (damage(error), self.partitions.name(id))
        else {
            return self.client_failed(error);
        };
        let (topic, partition) = (&**topic, *partition);
        let said = self.client.context().take_reason();
        let said = said.unwrap_or_else(|| error.to_string());
        let at = offset_in(&said).map(CommitOffset);
        let next = self.engine.next(id).or(at).map(|next| next.0);
        let mend = damage.mend;
        tracing::error!(topic, partition, next, said, "a partition can't be read");
        let place = next.map_or_else(String::new, |next| format!(" at offset {next}"));
        let reason = format!("{topic}-{partition} can't be read{place}: {said}; {mend}");
        if !damage.again {
            self.partitions.set_stopped(id);
        }
        self.on_event(Event::Unreadable {
            partition: id,
            at,
            reason,
            again: damage.again,
        });
    }
}

/// Takes what a queue holds, as much as a batch may be.
fn drain(queue: &mut Queue) -> Taken {
    // As much room as the batch before needed: growing step by step costs more than the records.
    let room = queue.taken;
    let (mut places, mut start, mut bytes) = (Vec::with_capacity(room), 0, 0);
    let (mut next, mut error) = (None, None);
    let header_bytes = queue.unread.header_bytes();
    let fetched = Fetched::new(Arc::clone(&queue.queue), |partition| {
        let mut messages = Vec::with_capacity(room);
        loop {
            match partition.poll(Duration::ZERO) {
                Some(Ok(message)) => {
                    let place = place(&message, start, header_bytes);
                    start = place.end();
                    bytes += place.size();
                    next = Some(message.offset().saturating_add(1));
                    places.push(place);
                    messages.push(message);
                }
                Some(Err(found)) => error = Some(found),
                None => break,
            }
            if error.is_some() || messages.len() >= BATCH_RECORDS || bytes >= BATCH_BYTES {
                queue.set_ready();
                break;
            }
        }
        messages
    });
    queue.taken = places.len();
    Taken {
        places,
        fetched,
        next,
        error,
    }
}
