//! The transaction APIs: the coordinators speak in requests and responses, so these only hand over.

use kafka_protocol::messages::{
    AddOffsetsToTxnRequest, AddOffsetsToTxnResponse, AddPartitionsToTxnRequest,
    AddPartitionsToTxnResponse, DescribeTransactionsRequest, DescribeTransactionsResponse,
    EndTxnRequest, EndTxnResponse, ListTransactionsRequest, ListTransactionsResponse,
    TxnOffsetCommitRequest, TxnOffsetCommitResponse, WriteTxnMarkersRequest,
    WriteTxnMarkersResponse,
};

use kafka_protocol::error::ResponseError;

use super::Context;
use crate::coordinator::ProducerEpoch;

/// Since this version, offsets take their group into the transaction (KIP-890).
const JOINING: i16 = 5;
/// Since this version, clients abort and go on where others give up (KIP-890).
const ABORTABLE: i16 = 4;

pub(super) async fn add_partitions(
    cx: &Context,
    request: AddPartitionsToTxnRequest,
) -> AddPartitionsToTxnResponse {
    cx.transactions().add_partitions(request, cx.version).await
}

pub(super) async fn add_offsets(
    cx: &Context,
    request: AddOffsetsToTxnRequest,
) -> AddOffsetsToTxnResponse {
    cx.transactions().add_offsets(request, cx.version).await
}

pub(super) async fn end(cx: &Context, request: EndTxnRequest) -> EndTxnResponse {
    cx.transactions().end(request, cx.version).await
}

/// Without access rules anybody may, with them super users.
pub(super) async fn write_markers(
    cx: &Context,
    request: WriteTxnMarkersRequest,
) -> WriteTxnMarkersResponse {
    cx.transactions().write_markers(request).await
}

/// The group's coordinator has the offsets; the transaction's is told of them now, or was before.
pub(super) async fn offset_commit(
    cx: &Context,
    request: TxnOffsetCommitRequest,
) -> TxnOffsetCommitResponse {
    let mut joined = Ok(());
    if cx.version >= JOINING {
        let producer = ProducerEpoch {
            id: request.producer_id.0,
            epoch: request.producer_epoch,
        };
        let id = request.transactional_id.0.clone();
        let added = cx.transactions().add_group(id, producer, &request.group_id);
        joined = added.await;
    }
    let mut response = cx.groups().commit_pending(request).await;
    let untold = ResponseError::InvalidTxnState.code();
    let why = match joined {
        Err(ResponseError::ProducerFenced) => ResponseError::InvalidProducerEpoch,
        Err(why) => why,
        Ok(()) if cx.version >= ABORTABLE => ResponseError::TransactionAbortable,
        Ok(()) => return response,
    };
    let partitions = response
        .topics
        .iter_mut()
        .flat_map(|topic| &mut topic.partitions);
    for partition in partitions.filter(|partition| partition.error_code == untold) {
        partition.error_code = why.code();
    }
    response
}

pub(super) async fn describe(
    cx: &Context,
    request: DescribeTransactionsRequest,
) -> DescribeTransactionsResponse {
    cx.transactions().describe(request).await
}

pub(super) async fn list(
    cx: &Context,
    request: ListTransactionsRequest,
) -> ListTransactionsResponse {
    cx.transactions().list(request).await
}
