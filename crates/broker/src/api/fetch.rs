//! Fetch: records as they were produced, and a wait for more when there are too few.
//!
//! A waiting fetch is a few watches on high watermarks: no thread and no records in memory, since
//! everything is read anew when one of them moves. Sessions (KIP-227) are not kept: each answer is
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
use kafka_protocol::messages::{FetchRequest, FetchResponse, ProducerId, TopicName};
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio::time::Instant;

use super::Context;
use super::partition::isolation;
use crate::log::{self, Isolation, ReadError};
use crate::metrics::Gauged;

/// How long a client is asked to leave the broker alone that has no memory for its records.
const THROTTLE_MS: i32 = 1000;
/// How often a fetch looks for records that may follow no partition.
const UNWATCHED_PAUSE: Duration = Duration::from_millis(100);

pub(super) async fn handle(cx: &Context, request: FetchRequest) -> FetchResponse {
    if request.session_id != 0 {
        return FetchResponse::default()
            .with_error_code(ResponseError::FetchSessionIdNotFound.code());
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
            return FetchResponse::default().with_throttle_time_ms(THROTTLE_MS);
        };
        let gathered = gather(cx, &request);
        let enough = gathered.bytes >= min_bytes
            || gathered.failed
            || (watches.is_empty() && room.is_some());
        if enough || Instant::now() >= deadline {
            held.shrink(gathered.bytes);
            cx.hold(held);
            return FetchResponse::default().with_responses(gathered.topics);
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
                return FetchResponse::default().with_responses(gather(cx, &request).topics);
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
        let Some(stored) = cx.store().topic(&topic.topic) else {
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

/// What the partitions give right now.
struct Gathered {
    topics: Vec<FetchableTopicResponse>,
    bytes: usize,
    failed: bool,
}

/// Reads in the order of the request (clients rotate it, for fairness) until the answer is full.
/// The first batch of all is given whatever its size, or a large one could never pass (KIP-74).
fn gather(cx: &Context, request: &FetchRequest) -> Gathered {
    let bytes_max = usize::try_from(request.max_bytes)
        .unwrap_or(0)
        .min(cx.node.config.limits.fetch_bytes_max);
    let mut gathered = Gathered {
        topics: Vec::with_capacity(request.topics.len()),
        bytes: 0,
        failed: false,
    };
    for topic in &request.topics {
        let mut partitions = Vec::with_capacity(topic.partitions.len());
        for wanted in &topic.partitions {
            let left = bytes_max.saturating_sub(gathered.bytes);
            let isolation = isolation(request.isolation_level);
            let data = read(
                cx,
                &topic.topic,
                wanted,
                left,
                gathered.bytes == 0,
                isolation,
            )
            .unwrap_or_else(|error| {
                gathered.failed = true;
                failure(cx, &topic.topic, wanted, error)
            });
            gathered.bytes += data.records.as_ref().map_or(0, Bytes::len);
            partitions.push(data);
        }
        gathered.topics.push(
            FetchableTopicResponse::default()
                .with_topic(topic.topic.clone())
                .with_partitions(partitions),
        );
    }
    gathered
}

fn read(
    cx: &Context,
    topic: &TopicName,
    wanted: &FetchPartition,
    left: usize,
    first: bool,
    isolation: Isolation,
) -> Result<PartitionData, ResponseError> {
    let epoch = wanted.current_leader_epoch;
    let partition = cx.partition_in_epoch(topic, wanted.partition, epoch)?;
    let bytes_max = usize::try_from(wanted.partition_max_bytes)
        .unwrap_or(0)
        .min(left);
    let read = partition
        .read_isolated(wanted.fetch_offset, bytes_max, first, isolation)
        .map_err(|error| {
            if let ReadError::Storage(cause) = &error {
                tracing::error!(
                    topic = %topic.as_str(),
                    partition = wanted.partition,
                    offset = wanted.fetch_offset,
                    error = cause as &dyn std::error::Error,
                    "reading records failed"
                );
            }
            error.code()
        })?;
    Ok(PartitionData::default()
        .with_partition_index(wanted.partition)
        .with_high_watermark(read.high_watermark)
        .with_last_stable_offset(read.last_stable_offset)
        .with_log_start_offset(read.log_start_offset)
        .with_aborted_transactions(aborted(isolation, &read.aborted))
        .with_records(Some(read.records)))
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

fn failure(
    cx: &Context,
    topic: &TopicName,
    wanted: &FetchPartition,
    error: ResponseError,
) -> PartitionData {
    let data = PartitionData::default()
        .with_partition_index(wanted.partition)
        .with_error_code(error.code())
        .with_high_watermark(-1)
        .with_last_stable_offset(-1)
        .with_log_start_offset(-1)
        .with_records(Some(Bytes::new()));
    match cx.partition(topic, wanted.partition) {
        Ok(partition) if error == ResponseError::OffsetOutOfRange => data
            .with_high_watermark(partition.high_watermark())
            .with_log_start_offset(partition.log_start_offset()),
        _ => data,
    }
}
