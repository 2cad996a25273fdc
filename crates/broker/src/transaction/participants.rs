//! Who takes part in transactions: partitions of topics, and the coordinator of groups for the
//! offsets that its log holds.
//!
//! Each is told first which producer may write, and at last how the transaction ended. Being told
//! twice how it ended does no harm: without a transaction an end changes nothing.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, join_all};
use kafka_protocol::error::ResponseError;
use kafka_protocol::protocol::StrBytes;
use tracing::{error, warn};

use super::record::Partitions;
use super::service::STATE_TOPIC;
use crate::coordinator::{ProducerEpoch, Verdict};
use crate::group::{self, OFFSETS_TOPIC};
use crate::log::Partition;
use crate::store::Store;

/// How long an end waits that a partition could not take, before it is tried again. A disk is not
/// mended faster than this.
const RETRY_PAUSE: Duration = Duration::from_secs(1);

/// The way to all that take part.
#[derive(Debug, Clone)]
pub(super) struct Participants {
    pub(super) store: Arc<Store>,
    pub(super) groups: group::Coordinator,
}

impl Participants {
    /// Lets a producer write to partitions: to those of topics when this returns, to groups' offsets
    /// when the future has ended.
    pub(super) fn admit(
        &self,
        producer: ProducerEpoch,
        partitions: &Partitions,
    ) -> BoxFuture<'static, ()> {
        let mut offsets = Vec::new();
        for (topic, indexes) in partitions {
            let stored = self.store.topic(topic);
            for &index in indexes {
                if topic.as_str() == OFFSETS_TOPIC {
                    let groups = self.groups.clone();
                    offsets.push(async move { groups.admit(index, producer).await });
                } else if let Some(partition) =
                    stored.as_ref().and_then(|topic| topic.partition(index))
                {
                    partition.admit(producer);
                }
            }
        }
        join_all(offsets).map(|_| ()).boxed()
    }

    /// Tells partitions how a producer's transaction ended, as often as it takes; done when all of
    /// them have it on the disk. A partition that is gone needs no end.
    pub(super) fn end(
        &self,
        producer: ProducerEpoch,
        verdict: Verdict,
        partitions: Partitions,
    ) -> BoxFuture<'static, ()> {
        let each = partitions.into_iter().flat_map(|(topic, indexes)| {
            indexes.into_iter().map(move |index| (topic.clone(), index))
        });
        let ends = each.map(|(topic, index)| {
            let this = self.clone();
            async move {
                while !this.end_one(producer, verdict, &topic, index).await {
                    tokio::time::sleep(RETRY_PAUSE).await;
                }
            }
        });
        join_all(ends.collect::<Vec<_>>()).map(|_| ()).boxed()
    }

    /// Whether nothing is left to do.
    async fn end_one(
        &self,
        producer: ProducerEpoch,
        verdict: Verdict,
        topic: &str,
        index: i32,
    ) -> bool {
        if topic == OFFSETS_TOPIC {
            return self.groups.end_transaction(index, producer, verdict).await;
        }
        let partition = self
            .store
            .topic(topic)
            .and_then(|topic| topic.partition(index));
        match partition {
            None => true,
            Some(partition) => write_end(&partition, producer, verdict).await,
        }
    }

    /// Writes the end that an operator wants here, once, and says what is in the way of it.
    pub(super) async fn mark(
        &self,
        producer: ProducerEpoch,
        verdict: Verdict,
        topic: &str,
        index: i32,
    ) -> Result<(), ResponseError> {
        let partition = self.store.topic(topic).and_then(|of| of.partition(index));
        let partition = partition.ok_or(ResponseError::UnknownTopicOrPartition)?;
        warn!(
            topic,
            partition = index,
            producer = producer.id,
            ?verdict,
            "an operator ends a transaction"
        );
        match topic {
            OFFSETS_TOPIC => match self.groups.end_transaction(index, producer, verdict).await {
                true => Ok(()),
                false => Err(ResponseError::CoordinatorNotAvailable),
            },
            STATE_TOPIC => Err(ResponseError::TopicAuthorizationFailed),
            _ => {
                let ended = partition.end_transaction(producer, verdict, now_ms());
                let offset = ended.map_err(|error| error.code())?.last_offset;
                let durable = partition.durable(offset).await;
                durable.map_err(|error| error.code())
            }
        }
    }

    /// Ends transactions that their coordinator knows nothing of, because a power cut took what it
    /// had noted last: nobody was told that they would count.
    pub(super) async fn abort_orphans(&self, known: &[(ProducerEpoch, Partitions)]) {
        for topic in self.store.topics() {
            for partition in topic.partitions().iter() {
                let index = partition.index();
                for producer in partition.open_transactions() {
                    let is_known = known.iter().any(|(known, partitions)| {
                        known.id == producer.id
                            && partitions
                                .iter()
                                .any(|(name, of)| **name == *topic.name && of.contains(&index))
                    });
                    if !is_known {
                        warn!(topic = %topic.name, partition = index, producer = producer.id, "a transaction without a coordinator is aborted");
                        let abort = Verdict::Abort;
                        if !self.end_one(producer, abort, &topic.name, index).await {
                            // A disk that can't take it now must not keep the broker from starting.
                            let name = StrBytes::from_string(topic.name.clone());
                            let here = [(name, [index].into())].into();
                            tokio::spawn(self.end(producer, abort, here));
                        }
                    }
                }
            }
        }
    }
}

async fn write_end(partition: &Partition, producer: ProducerEpoch, verdict: Verdict) -> bool {
    let ended = match partition.end_transaction(producer, verdict, now_ms()) {
        Ok(appended) => match partition.durable(appended.last_offset).await {
            Ok(()) => return true,
            Err(error) => error.to_string(),
        },
        // It was ended by a successor with a newer epoch.
        Err(crate::log::AppendError::InvalidProducerEpoch { .. }) => return true,
        Err(error) => error.to_string(),
    };
    error!(
        topic = partition.topic(),
        partition = partition.index(),
        producer = producer.id,
        error = ended,
        "the end of a transaction could not be written; it is tried again"
    );
    false
}

fn now_ms() -> i64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
