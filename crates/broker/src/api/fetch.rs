//! Fetch: records as they were produced, and a wait for more when there are too few.
//!
//! A waiting fetch is a few watches on high watermarks: no thread and no records in memory, since
//! everything is looked for anew when one of them moves. Many records of a partition are sent from
//! their file, without a way through this process's memory. Sessions (KIP-227) are not kept: each answer is
//! a full one with session id 0, which tells the client to keep asking in full.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::select_all;
use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::fetch_response::{
    AbortedTransaction, FetchableTopicResponse, PartitionData,
};
use kafka_protocol::messages::{FetchRequest, FetchResponse, ProducerId};
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio::time::Instant;

use super::fetched::{Fetched, InFile, Records};
use super::partition::{Named, check_epoch, isolation};
use super::{Context, Refusal, Reply};
use crate::access::Use;
use crate::log::{self, Isolation, Partition, ReadError, Stretch};
use crate::metrics::Gauged;
use crate::store::Topic;

/// How long a client is asked to leave the broker alone that has no memory for its records.
const THROTTLE_MS: i32 = 1000;
/// Since this version, topics are named by their ids.
const TOPIC_IDS: i16 = 13;
/// How often a fetch looks for records that may follow no partition.
const UNWATCHED_PAUSE: Duration = Duration::from_millis(100);
/// So many bytes of a partition are worth a call to the system of their own.
const FROM_FILE: usize = 16 * 1024;

pub(super) async fn handle(cx: &Context, request: FetchRequest) -> Result<Reply, Refusal> {
    fetch(cx, request).await.reply(cx)
}

async fn fetch(cx: &Context, request: FetchRequest) -> Fetched {
    if request.session_id != 0 {
        let unknown = ResponseError::FetchSessionIdNotFound.code();
        return Fetched::without_records(FetchResponse::default().with_error_code(unknown));
    }
    let limits = &cx.node.config.limits;
    let wait = Duration::from_millis(u64::try_from(request.max_wait_ms).unwrap_or(0));
    let deadline = Instant::now() + wait.min(limits.fetch_wait_max);
    let min_bytes = usize::try_from(request.min_bytes).unwrap_or(0);
    loop {
        // Before reading, so that records that arrive in between wake the wait.
        let (mut watches, room) = watch_all(cx, &request.topics);
        let Some(mut held) = cx.node.memory.take(wanted_bytes(cx, &request)).await else {
            tracing::warn!(peer = %cx.caller.peer, "fetch answered without records: memory_max is in use");
            let later = FetchResponse::default().with_throttle_time_ms(THROTTLE_MS);
            return Fetched::without_records(later);
        };
        let gathered = gather(cx, &request);
        let enough = gathered.bytes >= min_bytes
            || gathered.failed
            || (watches.is_empty() && room.is_some());
        if enough || Instant::now() >= deadline {
            held.shrink(gathered.in_memory);
            cx.hold(held);
            return gathered.fetched;
        }
        drop((gathered, held));
        let _waiting = Gauged::new(&cx.node.counters.fetches_waiting);
        let look_again = match room {
            Some(_) => deadline,
            None => deadline.min(Instant::now() + UNWATCHED_PAUSE),
        };
        tokio::select! {
            () = any_moved(&mut watches) => {}
            () = tokio::time::sleep_until(look_again) => {}
            () = cx.node.stopping.cancelled() => {
                return gather(cx, &request).fetched;
            }
        }
    }
}

/// Wakes when one of them moves; never when there is none.
async fn any_moved(watches: &mut [watch::Receiver<i64>]) {
    match watches {
        [] => std::future::pending().await,
        watches => {
            // One that moved, or whose partition is gone: either way there is something to look at.
            let _ = select_all(watches.iter_mut().map(|watch| watch.changed().boxed())).await;
        }
    }
}

/// What the answer may take.
fn wanted_bytes(cx: &Context, request: &FetchRequest) -> usize {
    let partitions = request.topics.iter().flat_map(|topic| &topic.partitions);
    let positive = |bytes: i32| usize::try_from(bytes).unwrap_or(0);
    let all = partitions.fold(0, |sum: usize, wanted| {
        sum.saturating_add(positive(wanted.partition_max_bytes))
    });
    all.min(positive(request.max_bytes))
        .min(cx.node.config.limits.fetch_bytes_max)
}

/// Follows the high watermarks; partitions that do not exist have none.
fn watch_all(
    cx: &Context,
    topics: &[FetchTopic],
) -> (Vec<watch::Receiver<i64>>, Option<OwnedSemaphorePermit>) {
    let count = topics
        .iter()
        .map(|topic| topic.partitions.len())
        .sum::<usize>();
    let count = u32::try_from(count).unwrap_or(u32::MAX);
    let Ok(room) = Arc::clone(&cx.node.watches).try_acquire_many_owned(count) else {
        return (Vec::new(), None);
    };
    let mut watches = Vec::new();
    for topic in topics {
        let stored = match named(cx, topic) {
            Named::Name(name) => cx.store().topic(name),
            Named::Id(id) => cx.store().topic_by_id(id),
        };
        let Some(stored) = stored else {
            continue;
        };
        let partitions = topic.partitions.iter();
        watches.extend(
            partitions
                .filter_map(|wanted| stored.partition(wanted.partition))
                .map(|partition| partition.watch()),
        );
    }
    (watches, Some(room))
}

fn named<'a>(cx: &Context, topic: &'a FetchTopic) -> Named<'a> {
    match cx.version {
        TOPIC_IDS.. => Named::Id(topic.topic_id),
        _ => Named::Name(&topic.topic),
    }
}

/// What the partitions give right now.
struct Gathered {
    fetched: Fetched,
    bytes: usize,
    /// Those of them that are in memory.
    in_memory: usize,
    failed: bool,
}

/// Reads in the order of the request (clients rotate it, for fairness) until the answer is full.
/// The first batch of all is given whatever its size, or a large one could never pass (KIP-74).
fn gather(cx: &Context, request: &FetchRequest) -> Gathered {
    let bytes_max = usize::try_from(request.max_bytes)
        .unwrap_or(0)
        .min(cx.node.config.limits.fetch_bytes_max);
    let mut gathered = Gathered {
        fetched: Fetched::default(),
        bytes: 0,
        in_memory: 0,
        failed: false,
    };
    let isolation = isolation(request.isolation_level);
    for wanted in &request.topics {
        let topic = cx.topic_for(named(cx, wanted), Use::Read);
        let mut partitions = Vec::with_capacity(wanted.partitions.len());
        for wanted in &wanted.partitions {
            let room = Room {
                bytes: bytes_max.saturating_sub(gathered.bytes),
                first: gathered.bytes == 0,
            };
            let (data, records) = match find(&topic, wanted) {
                Ok(partition) => read(cx, &partition, wanted, room, isolation),
                Err(error) => (failure(wanted, error), Records::none()),
            };
            gathered.failed |= data.error_code != 0;
            gathered.bytes += records.len();
            gathered.in_memory += records.in_memory();
            partitions.push((data, records));
        }
        let answered = FetchableTopicResponse::default()
            .with_topic(wanted.topic.clone())
            .with_topic_id(wanted.topic_id);
        gathered.fetched.topics.push((answered, partitions));
    }
    gathered
}

/// What the answer has left for a partition.
#[derive(Clone, Copy)]
struct Room {
    bytes: usize,
    /// Nothing is in it yet: one batch passes, whatever its size.
    first: bool,
}

fn find(
    topic: &Result<Arc<Topic>, ResponseError>,
    wanted: &FetchPartition,
) -> Result<Arc<Partition>, ResponseError> {
    let topic = topic.as_ref().map_err(|error| *error)?;
    check_epoch(wanted.current_leader_epoch)?;
    topic
        .partition(wanted.partition)
        .ok_or(ResponseError::UnknownTopicOrPartition)
}

fn read(
    cx: &Context,
    partition: &Partition,
    wanted: &FetchPartition,
    room: Room,
    isolation: Isolation,
) -> (PartitionData, Records) {
    let bytes_max = usize::try_from(wanted.partition_max_bytes)
        .unwrap_or(0)
        .min(room.bytes);
    let found = partition.find(wanted.fetch_offset, bytes_max, room.first, isolation);
    let found = found.and_then(|mut found| {
        let records = match found.records.take() {
            Some(stretch) => records(cx, stretch)?,
            None => Records::none(),
        };
        Ok((found, records))
    });
    let (found, records) = match found {
        Ok(found) => found,
        Err(error) => return (unread(partition, wanted, &error), Records::none()),
    };
    let data = PartitionData::default()
        .with_partition_index(wanted.partition)
        .with_high_watermark(found.high_watermark)
        .with_last_stable_offset(found.last_stable_offset)
        .with_log_start_offset(found.log_start_offset)
        .with_aborted_transactions(aborted(isolation, &found.aborted))
        .with_records(Some(Bytes::new()));
    (data, records)
}

/// Few bytes are read, many stay in their file, as long as not too many files are held open so.
fn records(cx: &Context, stretch: Stretch) -> Result<Records, crate::Error> {
    if stretch.len() >= FROM_FILE
        && let Ok(permit) = Arc::clone(&cx.node.files).try_acquire_owned()
    {
        return Ok(Records::File(InFile::new(stretch, permit)));
    }
    let read = stretch.read();
    read.map(Records::Memory)
        .map_err(|error| crate::Error::io("reading records", error))
}

/// Readers of committed records leave out what was aborted; others are told nothing.
fn aborted(
    isolation: Isolation,
    transactions: &[log::AbortedTransaction],
) -> Option<Vec<AbortedTransaction>> {
    let told = |transaction: &log::AbortedTransaction| {
        AbortedTransaction::default()
            .with_producer_id(ProducerId(transaction.producer_id))
            .with_first_offset(transaction.first_offset)
    };
    match isolation {
        Isolation::Committed => Some(transactions.iter().map(told).collect()),
        Isolation::Uncommitted => None,
    }
}

/// A partition that was found and could not be read.
fn unread(partition: &Partition, wanted: &FetchPartition, error: &ReadError) -> PartitionData {
    if let ReadError::Storage(cause) = error {
        tracing::error!(
            topic = partition.topic(),
            partition = wanted.partition,
            offset = wanted.fetch_offset,
            error = cause as &dyn std::error::Error,
            "reading records failed"
        );
    }
    let code = error.code();
    let data = failure(wanted, code);
    match code {
        ResponseError::OffsetOutOfRange => data
            .with_high_watermark(partition.high_watermark())
            .with_log_start_offset(partition.log_start_offset()),
        _ => data,
    }
}

fn failure(wanted: &FetchPartition, error: ResponseError) -> PartitionData {
    PartitionData::default()
        .with_partition_index(wanted.partition)
        .with_error_code(error.code())
        .with_high_watermark(-1)
        .with_last_stable_offset(-1)
        .with_log_start_offset(-1)
        .with_records(Some(Bytes::new()))
}
