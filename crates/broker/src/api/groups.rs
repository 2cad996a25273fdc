//! The group APIs: the coordinator speaks in requests and responses, so these only hand over.

use kafka_protocol::messages::{
    ConsumerGroupDescribeRequest, ConsumerGroupDescribeResponse, ConsumerGroupHeartbeatRequest,
    ConsumerGroupHeartbeatResponse, DeleteGroupsRequest, DeleteGroupsResponse,
    DescribeGroupsRequest, DescribeGroupsResponse, HeartbeatRequest, HeartbeatResponse,
    JoinGroupRequest, JoinGroupResponse, LeaveGroupRequest, LeaveGroupResponse, ListGroupsRequest,
    ListGroupsResponse, OffsetCommitRequest, OffsetCommitResponse, OffsetDeleteRequest,
    OffsetDeleteResponse, OffsetFetchRequest, OffsetFetchResponse, SyncGroupRequest,
    SyncGroupResponse,
};

use super::Context;

pub(super) async fn join(cx: &Context, request: JoinGroupRequest) -> JoinGroupResponse {
    cx.groups().join(request, cx.version, cx.client()).await
}

pub(super) async fn sync(cx: &Context, request: SyncGroupRequest) -> SyncGroupResponse {
    cx.groups().sync(request).await
}

pub(super) async fn heartbeat(cx: &Context, request: HeartbeatRequest) -> HeartbeatResponse {
    cx.groups().heartbeat(request).await
}

pub(super) async fn consumer_heartbeat(
    cx: &Context,
    request: ConsumerGroupHeartbeatRequest,
) -> ConsumerGroupHeartbeatResponse {
    let groups = cx.groups();
    groups
        .consumer_heartbeat(request, cx.version, cx.client())
        .await
}

pub(super) async fn describe_consumers(
    cx: &Context,
    request: ConsumerGroupDescribeRequest,
) -> ConsumerGroupDescribeResponse {
    cx.groups().describe_consumers(request).await
}

pub(super) async fn leave(cx: &Context, request: LeaveGroupRequest) -> LeaveGroupResponse {
    cx.groups().leave(request, cx.version).await
}

pub(super) async fn offset_commit(
    cx: &Context,
    request: OffsetCommitRequest,
) -> OffsetCommitResponse {
    cx.groups().commit_offsets(request, cx.version).await
}

pub(super) async fn offset_fetch(cx: &Context, request: OffsetFetchRequest) -> OffsetFetchResponse {
    cx.groups().fetch_offsets(request, cx.version).await
}

pub(super) async fn list(cx: &Context, request: ListGroupsRequest) -> ListGroupsResponse {
    cx.groups().list(request).await
}

pub(super) async fn describe(
    cx: &Context,
    request: DescribeGroupsRequest,
) -> DescribeGroupsResponse {
    cx.groups().describe(request, cx.version).await
}

pub(super) async fn delete(cx: &Context, request: DeleteGroupsRequest) -> DeleteGroupsResponse {
    cx.groups().delete(request).await
}

pub(super) async fn offset_delete(
    cx: &Context,
    request: OffsetDeleteRequest,
) -> OffsetDeleteResponse {
    cx.groups().delete_offsets(request).await
}
