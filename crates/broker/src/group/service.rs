//! The coordinator as the API handlers see it: requests in, responses out, shards in between.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::future::join_all;
use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::consumer_group_describe_response;
use kafka_protocol::messages::delete_groups_response::DeletableGroupResult;
use kafka_protocol::messages::describe_groups_response::DescribedGroup;
use kafka_protocol::messages::leave_group_request::MemberIdentity;
use kafka_protocol::messages::offset_fetch_request::OffsetFetchRequestGroup;
use kafka_protocol::messages::offset_fetch_response::OffsetFetchResponseGroup;
use kafka_protocol::messages::{
    ConsumerGroupDescribeRequest, ConsumerGroupDescribeResponse, ConsumerGroupHeartbeatRequest,
    ConsumerGroupHeartbeatResponse, DeleteGroupsRequest, DeleteGroupsResponse,
    DescribeGroupsRequest, DescribeGroupsResponse, HeartbeatRequest, HeartbeatResponse,
    JoinGroupRequest, JoinGroupResponse, LeaveGroupRequest, LeaveGroupResponse, ListGroupsRequest,
    ListGroupsResponse, OffsetCommitRequest, OffsetCommitResponse, OffsetDeleteRequest,
    OffsetDeleteResponse, OffsetFetchRequest, OffsetFetchResponse, SyncGroupRequest,
    SyncGroupResponse, TxnOffsetCommitRequest, TxnOffsetCommitResponse,
};
use kafka_protocol::protocol::StrBytes;
use uuid::Uuid;

use super::host::GroupHost;
use super::machine::{
    Client, Request, Response, SharedTopics, Topics, commit_refused, pending_refused,
};
use super::settings::{GroupConfig, Timeouts};
use super::{Config, fetch, known};
use crate::Error;
use crate::coordinator::{ProducerEpoch, Shards, Verdict, shard_of};
use crate::store::Store;

/// The topic that holds groups and offsets.
pub(crate) const OFFSETS_TOPIC: &str = "__consumer_offsets";

/// What a client is told when its shard cannot answer: it looks for the coordinator and tries again.
const UNAVAILABLE: ResponseError = ResponseError::CoordinatorNotAvailable;

/// The group coordinator. Cheap to clone; all methods may be called at once from many connections.
///
/// Requests and responses are those of the wire; `version` is the request's API version where the
/// behaviour depends on it. Errors are in the response, as error codes.
///
/// # Cancel safety
/// A method that is dropped while it waits leaves its request to be carried out or not, as a client
/// whose connection is cut does; nothing else depends on it.
#[derive(Debug, Clone)]
pub(crate) struct Coordinator {
    store: Arc<Store>,
    /// The topics as of the store's last change that a request came after.
    topics: Arc<Mutex<SharedTopics>>,
    /// Times of groups that have none of their own.
    consumer: Timeouts,
    shards: Shards<GroupHost>,
}

impl Coordinator {
    /// Creates `__consumer_offsets` if it is missing, reads it back and starts one task for each of
    /// its partitions.
    ///
    /// # Errors
    /// When the topic cannot be created or read.
    pub(crate) async fn open(config: Config, store: Arc<Store>) -> Result<Self, Error> {
        let (partitions, consumer) = (config.offsets_partitions, config.consumer);
        let host = GroupHost {
            config,
            store: Arc::clone(&store),
        };
        let shards = Shards::open(host, Arc::clone(&store), OFFSETS_TOPIC, partitions).await?;
        Ok(Self {
            store,
            topics: Arc::default(),
            consumer,
            shards,
        })
    }

    /// Waits for the rebalance: up to the rebalance timeout of the group's slowest member.
    pub(crate) async fn join(
        &self,
        request: JoinGroupRequest,
        version: i16,
        client: Client,
    ) -> JoinGroupResponse {
        let (group, member_id) = (request.group_id.0.clone(), request.member_id.clone());
        let join = Request::Join {
            request,
            version,
            client,
            fresh_id: Uuid::new_v4(),
            topics: self.topics(),
        };
        match self.call(&group, join).await {
            Some(Response::Join(response)) => response,
            _ => JoinGroupResponse::default()
                .with_error_code(UNAVAILABLE.code())
                .with_generation_id(-1)
                .with_protocol_name(Some(StrBytes::new()))
                .with_member_id(member_id),
        }
    }

    /// Waits for the leader's assignment.
    pub(crate) async fn sync(&self, request: SyncGroupRequest) -> SyncGroupResponse {
        match self
            .call(&request.group_id.0.clone(), Request::Sync(request))
            .await
        {
            Some(Response::Sync(response)) => response,
            _ => SyncGroupResponse::default().with_error_code(UNAVAILABLE.code()),
        }
    }

    /// Says that a member is alive, and learns whether it must rejoin.
    pub(crate) async fn heartbeat(&self, request: HeartbeatRequest) -> HeartbeatResponse {
        match self
            .call(&request.group_id.0.clone(), Request::Heartbeat(request))
            .await
        {
            Some(Response::Heartbeat(response)) => response,
            _ => HeartbeatResponse::default().with_error_code(UNAVAILABLE.code()),
        }
    }

    /// Takes members out: one up to version 2, several from version 3 on.
    pub(crate) async fn leave(
        &self,
        mut request: LeaveGroupRequest,
        version: i16,
    ) -> LeaveGroupResponse {
        let single = version < 3;
        if single {
            request.members = vec![
                MemberIdentity::default().with_member_id(std::mem::take(&mut request.member_id)),
            ];
        }
        match self
            .call(&request.group_id.0.clone(), Request::Leave(request))
            .await
        {
            Some(Response::Leave(mut response)) if single => {
                let members = std::mem::take(&mut response.members);
                response.with_error_code(members.first().map_or(0, |member| member.error_code))
            }
            Some(Response::Leave(response)) => response,
            _ => LeaveGroupResponse::default().with_error_code(UNAVAILABLE.code()),
        }
    }

    /// What a member of a KIP-848 group has to say, and what it is to read.
    pub(crate) async fn consumer_heartbeat(
        &self,
        request: ConsumerGroupHeartbeatRequest,
        version: i16,
        client: Client,
    ) -> ConsumerGroupHeartbeatResponse {
        let group = request.group_id.0.clone();
        let heartbeat = Request::ConsumerHeartbeat {
            request,
            version,
            client,
            fresh_id: Uuid::new_v4(),
            topics: self.topics(),
        };
        match self.call(&group, heartbeat).await {
            Some(Response::ConsumerHeartbeat(response)) => response,
            _ => ConsumerGroupHeartbeatResponse::default().with_error_code(UNAVAILABLE.code()),
        }
    }

    /// Answers when the offsets are durable; unknown topics and partitions are refused one by one.
    pub(crate) async fn commit_offsets(
        &self,
        request: OffsetCommitRequest,
        version: i16,
    ) -> OffsetCommitResponse {
        let known = known::split(request, |topic| self.partition_count(topic));
        if known.request.topics.is_empty() {
            // Nothing of a group is asked, and none comes to be by it.
            return known::join(OffsetCommitResponse::default(), known.unknown);
        }
        let refused = commit_refused(&known.request, UNAVAILABLE);
        let response = match self
            .call(
                &known.request.group_id.0.clone(),
                Request::CommitOffsets {
                    request: known.request,
                    version,
                },
            )
            .await
        {
            Some(Response::CommitOffsets(response)) => response,
            _ => OffsetCommitResponse::default().with_topics(refused),
        };
        known::join(response, known.unknown)
    }

    /// Positions of one group, or from version 8 on of several; -1 where there is none.
    pub(crate) async fn fetch_offsets(
        &self,
        request: OffsetFetchRequest,
        version: i16,
    ) -> OffsetFetchResponse {
        let stable = request.require_stable;
        let groups = fetch::groups(request, version);
        let answers = join_all(
            groups
                .into_iter()
                .map(|group| self.fetch_group(group, stable)),
        )
        .await;
        fetch::response(answers, version)
    }

    async fn fetch_group(
        &self,
        request: OffsetFetchRequestGroup,
        stable: bool,
    ) -> OffsetFetchResponseGroup {
        let group = request.group_id.clone();
        let fetch = match stable {
            true => Request::FetchStableOffsets(request),
            false => Request::FetchOffsets(request),
        };
        match self.call(&group.0.clone(), fetch).await {
            Some(Response::FetchOffsets(response)) => response,
            _ => OffsetFetchResponseGroup::default()
                .with_group_id(group)
                .with_error_code(UNAVAILABLE.code()),
        }
    }

    /// The partition of `__consumer_offsets` that has a group.
    pub(crate) fn offsets_partition(&self, group: &str) -> i32 {
        i32::try_from(shard_of(group, self.shards.count())).unwrap_or(0)
    }

    /// Lets a producer's transaction commit offsets of the groups of a partition.
    pub(crate) async fn admit(&self, partition: i32, producer: ProducerEpoch) {
        // Without an answer it is not admitted, and its commits are refused.
        self.call_partition(partition, Request::Admit(producer))
            .await;
    }

    /// Takes in, or drops, what a transaction committed; whether that is durable.
    pub(crate) async fn end_transaction(
        &self,
        partition: i32,
        producer: ProducerEpoch,
        verdict: Verdict,
    ) -> bool {
        self.call_partition(partition, Request::EndTransaction(producer, verdict))
            .await
            .is_some()
    }

    async fn call_partition(&self, partition: i32, request: Request) -> Option<Response> {
        let shard = usize::try_from(partition).ok()?;
        self.shards.call_shard(shard, request).await
    }

    /// Answers when the offsets are durable; they count when the transaction commits.
    pub(crate) async fn commit_pending(
        &self,
        request: TxnOffsetCommitRequest,
    ) -> TxnOffsetCommitResponse {
        let known = known::split_pending(request, |topic| self.partition_count(topic));
        if known.request.topics.is_empty() {
            return TxnOffsetCommitResponse::default().with_topics(known.unknown);
        }
        let refused = pending_refused(&known.request, UNAVAILABLE);
        let group = known.request.group_id.0.clone();
        let mut response = match self
            .call(&group, Request::CommitPending(known.request))
            .await
        {
            Some(Response::CommitPending(response)) => response,
            _ => TxnOffsetCommitResponse::default().with_topics(refused),
        };
        response.topics.extend(known.unknown);
        response
    }

    /// The groups in any of the states and of any of the types asked for; all without a filter.
    pub(crate) async fn list(&self, request: ListGroupsRequest) -> ListGroupsResponse {
        let asked = |filter: &[StrBytes], is: &str| {
            filter.is_empty() || filter.iter().any(|f| f.eq_ignore_ascii_case(is))
        };
        let mut response = ListGroupsResponse::default();
        let answers = join_all(
            (0..self.shards.count()).map(|shard| self.shards.call_shard(shard, Request::List)),
        )
        .await;
        for answer in answers {
            match answer {
                Some(Response::List(groups)) => response.groups.extend(groups),
                _ => response.error_code = UNAVAILABLE.code(),
            }
        }
        response.groups.retain(|group| {
            asked(&request.states_filter, &group.group_state)
                && asked(&request.types_filter, &group.group_type)
        });
        response
    }

    /// Members, state and assignments of groups. One that does not exist is `Dead`, which from
    /// version 6 on is an error, and none before (KIP-1043).
    pub(crate) async fn describe(
        &self,
        request: DescribeGroupsRequest,
        version: i16,
    ) -> DescribeGroupsResponse {
        let describe =
            async |group: StrBytes| match self.call(&group, Request::Describe(group.clone())).await
            {
                Some(Response::Describe(described)) if version < 6 => {
                    described.with_error_code(0).with_error_message(None)
                }
                Some(Response::Describe(described)) => described,
                _ => DescribedGroup::default()
                    .with_group_id(group.into())
                    .with_error_code(UNAVAILABLE.code()),
            };
        let groups = join_all(request.groups.into_iter().map(|group| describe(group.0))).await;
        DescribeGroupsResponse::default().with_groups(groups)
    }

    /// Deletes groups that have no members, with their offsets.
    pub(crate) async fn delete(&self, request: DeleteGroupsRequest) -> DeleteGroupsResponse {
        let delete =
            async |group: StrBytes| match self.call(&group, Request::Delete(group.clone())).await {
                Some(Response::Delete(result)) => result,
                _ => DeletableGroupResult::default()
                    .with_group_id(group.into())
                    .with_error_code(UNAVAILABLE.code()),
            };
        let results = join_all(
            request
                .groups_names
                .into_iter()
                .map(|group| delete(group.0)),
        )
        .await;
        DeleteGroupsResponse::default().with_results(results)
    }

    /// Deletes offsets of topics that no member of the group reads; unknown topics and partitions are refused one
    /// by one.
    pub(crate) async fn delete_offsets(
        &self,
        mut request: OffsetDeleteRequest,
    ) -> OffsetDeleteResponse {
        let unknown = known::take_unknown(&mut request, |topic| self.partition_count(topic));
        if request.topics.is_empty() && !unknown.is_empty() {
            return OffsetDeleteResponse::default().with_topics(unknown);
        }
        match self
            .call(&request.group_id.0.clone(), Request::DeleteOffsets(request))
            .await
        {
            Some(Response::DeleteOffsets(mut response)) => {
                if response.error_code == 0 {
                    response = known::join_deleted(response, unknown);
                }
                response
            }
            _ => OffsetDeleteResponse::default().with_error_code(UNAVAILABLE.code()),
        }
    }

    /// Forgets all groups' offsets of a topic; to be called after it was deleted. (What a crash
    /// keeps from happening here is made up for at the next start.)
    pub(crate) async fn topic_deleted(&self, topic: &str) {
        let topics = vec![StrBytes::from_string(topic.to_owned())];
        let forget = |shard| {
            self.shards
                .call_shard(shard, Request::ForgetTopics(topics.clone()))
        };
        join_all((0..self.shards.count()).map(forget)).await;
    }

    /// The settings in force of a group that has `own` ones.
    ///
    /// # Errors
    /// When one of them is unknown or out of bounds.
    pub(crate) fn config_of(&self, own: BTreeMap<String, String>) -> Result<GroupConfig, Error> {
        GroupConfig::new(own, self.consumer)
    }

    /// Members of the group are told `config` when they speak next.
    pub(crate) async fn configure(&self, group: &StrBytes, config: &GroupConfig) {
        let is_own = config.timeouts != self.consumer;
        let request = Request::SetTimeouts {
            group: group.clone(),
            timeouts: is_own.then_some(config.timeouts),
        };
        // Without an answer the broker is stopping, and the next start reads the settings.
        self.call(group, request).await;
    }

    /// Carries out what was asked so far, answers whoever waits for others with
    /// `COORDINATOR_NOT_AVAILABLE`, and ends the coordinator's tasks.
    pub(crate) async fn shutdown(&self) {
        self.shards.shutdown().await;
    }

    /// Members, epochs and assignments of KIP-848 groups.
    pub(crate) async fn describe_consumers(
        &self,
        request: ConsumerGroupDescribeRequest,
    ) -> ConsumerGroupDescribeResponse {
        let topics = self.topics();
        let describe = async |group: StrBytes| {
            let request = Request::DescribeConsumers {
                group: group.clone(),
                topics: Arc::clone(&topics),
            };
            match self.call(&group, request).await {
                Some(Response::DescribeConsumers(described)) => described,
                _ => consumer_group_describe_response::DescribedGroup::default()
                    .with_group_id(group.into())
                    .with_error_code(UNAVAILABLE.code()),
            }
        };
        let groups = request.group_ids.into_iter();
        let groups = join_all(groups.map(|group| describe(group.0))).await;
        ConsumerGroupDescribeResponse::default().with_groups(groups)
    }

    /// The topics that there are; read anew only when they have changed.
    fn topics(&self) -> SharedTopics {
        let mut topics = self.topics.lock().unwrap_or_else(PoisonError::into_inner);
        // The version first: what changes while the topics are read is read once more.
        let version = self.store.topics_version();
        if topics.version() != version {
            let all = self.store.topics();
            let described = all.iter().map(|topic| {
                let name = StrBytes::from_string(topic.name.clone());
                (name, topic.id, topic.partition_count())
            });
            *topics = Arc::new(Topics::new(version, described));
        }
        Arc::clone(&topics)
    }

    fn partition_count(&self, topic: &str) -> i32 {
        self.store
            .topic(topic)
            .map_or(0, |topic| topic.partition_count())
    }

    async fn call(&self, group: &StrBytes, request: Request) -> Option<Response> {
        self.shards.call(group, request).await
    }
}
