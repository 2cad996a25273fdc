//! The coordinator as the API handlers see it.

use kafka_protocol::messages::{
    DeleteGroupsRequest, DeleteGroupsResponse, DescribeGroupsRequest, DescribeGroupsResponse,
    HeartbeatRequest, HeartbeatResponse, JoinGroupRequest, JoinGroupResponse, LeaveGroupRequest,
    LeaveGroupResponse, ListGroupsRequest, ListGroupsResponse, OffsetCommitRequest,
    OffsetCommitResponse, OffsetDeleteRequest, OffsetDeleteResponse, OffsetFetchRequest,
    OffsetFetchResponse, SyncGroupRequest, SyncGroupResponse,
};
use kafka_protocol::protocol::StrBytes;

use super::Config;

/// Who sent a request, as `DescribeGroups` shows it.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    /// The client id of the request header; empty when it sent none.
    pub(crate) id: StrBytes,
    /// The peer's address as Kafka writes it, for instance `/127.0.0.1`.
    pub(crate) host: StrBytes,
}

/// The group coordinator. Cheap to clone; all methods may be called at once from many connections.
///
/// Requests and responses are those of the wire; `version` is the request's API version where the
/// behaviour depends on it. Errors are in the response, as error codes.
#[derive(Debug, Clone)]
pub(crate) struct Coordinator {}

impl Coordinator {
    /// Creates `__consumer_offsets` if it is missing, reads it back and starts one task per partition of it.
    pub(crate) async fn open(
        _config: Config, /* , store: Arc<Store>, once it has landed */
    ) -> Self {
        Self {}
    }

    /// Waits for the rebalance: up to the rebalance timeout of the group's slowest member.
    pub(crate) async fn join(
        &self,
        _request: JoinGroupRequest,
        _version: i16,
        _client: Client,
    ) -> JoinGroupResponse {
        JoinGroupResponse::default()
    }

    /// Waits for the leader's assignment.
    pub(crate) async fn sync(&self, _request: SyncGroupRequest) -> SyncGroupResponse {
        SyncGroupResponse::default()
    }

    pub(crate) async fn heartbeat(&self, _request: HeartbeatRequest) -> HeartbeatResponse {
        HeartbeatResponse::default()
    }

    pub(crate) async fn leave(
        &self,
        _request: LeaveGroupRequest,
        _version: i16,
    ) -> LeaveGroupResponse {
        LeaveGroupResponse::default()
    }

    /// Answers when the offsets are durable; unknown topics and partitions are refused one by one.
    pub(crate) async fn commit_offsets(
        &self,
        _request: OffsetCommitRequest,
    ) -> OffsetCommitResponse {
        OffsetCommitResponse::default()
    }

    pub(crate) async fn fetch_offsets(
        &self,
        _request: OffsetFetchRequest,
        _version: i16,
    ) -> OffsetFetchResponse {
        OffsetFetchResponse::default()
    }

    pub(crate) async fn list(&self, _request: ListGroupsRequest) -> ListGroupsResponse {
        ListGroupsResponse::default()
    }

    pub(crate) async fn describe(&self, _request: DescribeGroupsRequest) -> DescribeGroupsResponse {
        DescribeGroupsResponse::default()
    }

    pub(crate) async fn delete(&self, _request: DeleteGroupsRequest) -> DeleteGroupsResponse {
        DeleteGroupsResponse::default()
    }

    pub(crate) async fn delete_offsets(
        &self,
        _request: OffsetDeleteRequest,
    ) -> OffsetDeleteResponse {
        OffsetDeleteResponse::default()
    }

    /// Forgets the offsets committed for a topic; to be called after it was deleted.
    pub(crate) async fn topic_deleted(&self, _topic: &str) {}

    /// Answers whoever waits with `COORDINATOR_NOT_AVAILABLE`, and ends the coordinator's tasks.
    pub(crate) async fn shutdown(&self) {}
}
