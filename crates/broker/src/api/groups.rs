//! The group APIs: the coordinator speaks in requests and responses, so these ask for rights and
//! hand over.

use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::delete_groups_response::DeletableGroupResult;
use kafka_protocol::messages::describe_groups_response::DescribedGroup;
use kafka_protocol::messages::{
    ConsumerGroupDescribeRequest, ConsumerGroupDescribeResponse, ConsumerGroupHeartbeatRequest,
    ConsumerGroupHeartbeatResponse, DeleteGroupsRequest, DeleteGroupsResponse,
    DescribeGroupsRequest, DescribeGroupsResponse, HeartbeatRequest, HeartbeatResponse,
    JoinGroupRequest, JoinGroupResponse, LeaveGroupRequest, LeaveGroupResponse, ListGroupsRequest,
    ListGroupsResponse, OffsetCommitRequest, OffsetCommitResponse, OffsetDeleteRequest,
    OffsetDeleteResponse, OffsetFetchRequest, OffsetFetchResponse, SyncGroupRequest,
    SyncGroupResponse, consumer_group_describe_response,
};

use super::Context;
use super::group_rights::{
    GROUPS_IN_FETCH, hide_topics, names_topics, refused_fetch, take_refused, take_refused_groups,
    take_refused_topics,
};
use crate::access::{Resource, Use};

pub(super) async fn join(cx: &Context, request: JoinGroupRequest) -> JoinGroupResponse {
    if let Err(error) = cx.group_right(&request.group_id, Use::Read) {
        return JoinGroupResponse::default().with_error_code(error.code());
    }
    cx.groups().join(request, cx.version, cx.client()).await
}

pub(super) async fn sync(cx: &Context, request: SyncGroupRequest) -> SyncGroupResponse {
    if let Err(error) = cx.group_right(&request.group_id, Use::Read) {
        return SyncGroupResponse::default().with_error_code(error.code());
    }
    cx.groups().sync(request).await
}

pub(super) async fn heartbeat(cx: &Context, request: HeartbeatRequest) -> HeartbeatResponse {
    if let Err(error) = cx.group_right(&request.group_id, Use::Read) {
        return HeartbeatResponse::default().with_error_code(error.code());
    }
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
    mut request: ConsumerGroupDescribeRequest,
) -> ConsumerGroupDescribeResponse {
    let refused = take_refused(cx, &mut request.group_ids, Use::Describe);
    let mut response = cx.groups().describe_consumers(request).await;
    response.groups.extend(refused.into_iter().map(|group| {
        consumer_group_describe_response::DescribedGroup::default()
            .with_group_id(group)
            .with_error_code(ResponseError::GroupAuthorizationFailed.code())
    }));
    response
}

pub(super) async fn leave(cx: &Context, request: LeaveGroupRequest) -> LeaveGroupResponse {
    if let Err(error) = cx.group_right(&request.group_id, Use::Read) {
        return LeaveGroupResponse::default().with_error_code(error.code());
    }
    cx.groups().leave(request, cx.version).await
}

pub(super) async fn offset_commit(
    cx: &Context,
    mut request: OffsetCommitRequest,
) -> OffsetCommitResponse {
    let refused = take_refused_topics(cx, &mut request);
    if request.topics.is_empty() && !refused.is_empty() {
        return OffsetCommitResponse::default().with_topics(refused);
    }
    let mut response = cx.groups().commit_offsets(request, cx.version).await;
    response.topics.extend(refused);
    response
}

pub(super) async fn offset_fetch(
    cx: &Context,
    mut request: OffsetFetchRequest,
) -> OffsetFetchResponse {
    let refused = take_refused_groups(cx, &mut request);
    if cx.version < GROUPS_IN_FETCH && cx.group_right(&request.group_id, Use::Describe).is_err() {
        return refused_fetch(&request, cx.version);
    }
    let named = names_topics(&request);
    let mut response = cx.groups().fetch_offsets(request, cx.version).await;
    hide_topics(cx, &mut response, &named);
    response.groups.extend(refused);
    response
}

pub(super) async fn list(cx: &Context, request: ListGroupsRequest) -> ListGroupsResponse {
    let mut response = cx.groups().list(request).await;
    response
        .groups
        .retain(|group| cx.sees(Use::Describe, Resource::Group(&group.group_id)));
    response
}

pub(super) async fn describe(
    cx: &Context,
    mut request: DescribeGroupsRequest,
) -> DescribeGroupsResponse {
    let refused = take_refused(cx, &mut request.groups, Use::Describe);
    let mut response = cx.groups().describe(request, cx.version).await;
    response.groups.extend(refused.into_iter().map(|group| {
        DescribedGroup::default()
            .with_group_id(group)
            .with_error_code(ResponseError::GroupAuthorizationFailed.code())
    }));
    response
}

pub(super) async fn delete(cx: &Context, mut request: DeleteGroupsRequest) -> DeleteGroupsResponse {
    let refused = take_refused(cx, &mut request.groups_names, Use::Admin);
    let mut response = cx.groups().delete(request).await;
    response.results.extend(refused.into_iter().map(|group| {
        DeletableGroupResult::default()
            .with_group_id(group)
            .with_error_code(ResponseError::GroupAuthorizationFailed.code())
    }));
    response
}

pub(super) async fn offset_delete(
    cx: &Context,
    request: OffsetDeleteRequest,
) -> OffsetDeleteResponse {
    if let Err(error) = cx.group_right(&request.group_id, Use::Admin) {
        return OffsetDeleteResponse::default().with_error_code(error.code());
    }
    cx.groups().delete_offsets(request).await
}
