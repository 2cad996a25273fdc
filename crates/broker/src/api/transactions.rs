//! The transaction APIs: the coordinators speak in requests and responses, so these only hand over.

use kafka_protocol::messages::{
    AddOffsetsToTxnRequest, AddOffsetsToTxnResponse, AddPartitionsToTxnRequest,
    AddPartitionsToTxnResponse, DescribeTransactionsRequest, DescribeTransactionsResponse,
    EndTxnRequest, EndTxnResponse, ListTransactionsRequest, ListTransactionsResponse,
    TxnOffsetCommitRequest, TxnOffsetCommitResponse, WriteTxnMarkersRequest,
    WriteTxnMarkersResponse,
};

use super::Context;

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

/// The group's coordinator has the offsets; the transaction's was told of them before.
pub(super) async fn offset_commit(
    cx: &Context,
    request: TxnOffsetCommitRequest,
) -> TxnOffsetCommitResponse {
    cx.groups().commit_pending(request).await
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
