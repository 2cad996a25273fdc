//! WriteTxnMarkers: an operator ends a transaction in a partition, past its coordinator (KIP-664).
//!
//! In a cluster coordinators speak so to the leaders of partitions. Here they need no request for
//! that; what is left is `kafka-transactions abort`, for a transaction that hangs because nobody
//! ends it. As in Apache Kafka, the coordinator is not asked: one that knows the transaction goes on
//! with it, and the producer's next batch to the partition is refused.

use futures_util::future::join_all;
use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::write_txn_markers_request::{
    WritableTxnMarker, WritableTxnMarkerTopic,
};
use kafka_protocol::messages::write_txn_markers_response::{
    WritableTxnMarkerPartitionResult, WritableTxnMarkerResult, WritableTxnMarkerTopicResult,
};
use kafka_protocol::messages::{WriteTxnMarkersRequest, WriteTxnMarkersResponse};

use super::participants::Participants;
use super::service::Coordinator;
use crate::coordinator::{ProducerEpoch, Verdict};

impl Coordinator {
    /// Writes ends; answered when they are durable.
    pub(crate) async fn write_markers(
        &self,
        request: WriteTxnMarkersRequest,
    ) -> WriteTxnMarkersResponse {
        let participants = self.participants();
        let mut markers = Vec::with_capacity(request.markers.len());
        // One after another: a later one may be of the same producer.
        for marker in &request.markers {
            markers.push(write(&participants, marker).await);
        }
        WriteTxnMarkersResponse::default().with_markers(markers)
    }
}

async fn write(participants: &Participants, marker: &WritableTxnMarker) -> WritableTxnMarkerResult {
    let topics = marker.topics.iter().map(|topic| async move {
        let each = topic
            .partition_indexes
            .iter()
            .map(|&index| write_one(participants, marker, topic, index));
        WritableTxnMarkerTopicResult::default()
            .with_name(topic.name.clone())
            .with_partitions(join_all(each).await)
    });
    WritableTxnMarkerResult::default()
        .with_producer_id(marker.producer_id)
        .with_topics(join_all(topics).await)
}

async fn write_one(
    participants: &Participants,
    marker: &WritableTxnMarker,
    topic: &WritableTxnMarkerTopic,
    index: i32,
) -> WritableTxnMarkerPartitionResult {
    let producer = ProducerEpoch {
        id: marker.producer_id.0,
        epoch: marker.producer_epoch,
    };
    let verdict = match marker.transaction_result {
        true => Verdict::Commit,
        false => Verdict::Abort,
    };
    let written = match producer.id < 0 || producer.epoch < 0 {
        true => Err(ResponseError::InvalidProducerEpoch),
        false => {
            participants
                .mark(producer, verdict, &topic.name, index)
                .await
        }
    };
    WritableTxnMarkerPartitionResult::default()
        .with_partition_index(index)
        .with_error_code(written.err().map_or(0, |error| error.code()))
}
