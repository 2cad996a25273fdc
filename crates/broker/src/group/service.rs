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
    SyncGroupResponse,
};
use kafka_protocol::protocol::StrBytes;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use super::machine::{Client, Request, Response, SharedTopics, Topics, commit_refused};
use super::shard::{Call, Origin, Shard};
use super::{Config, fetch, known};
use crate::Error;
use crate::error::Kind;
use crate::store::{Store, Topic};

/// The topic that holds groups and offsets.
const OFFSETS_TOPIC: &str = "__consumer_offsets";

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
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    store: Arc<Store>,
    /// The topics as of the store's last change that a request came after.
    topics: Mutex<SharedTopics>,
    shards: Vec<mpsc::Sender<Call>>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl Coordinator {
    /// Creates `__consumer_offsets` if it is missing, reads it back and starts one task for each of
    /// its partitions.
    ///
    /// # Errors
    /// When the topic cannot be created or read.
    pub(crate) async fn open(config: Config, store: Arc<Store>) -> Result<Self, Error> {
        let opened = Arc::clone(&store);
        let (loaded, queue_max) = tokio::task::spawn_blocking(move || {
            let queue_max = config.queue_max;
            load(&config, &opened).map(|shards| (shards, queue_max))
        })
        .await
        .map_err(|panic| Error::new(Kind::Closed, "reading the groups back").caused_by(panic))??;
        let tasks = TaskTracker::new();
        let stop = CancellationToken::new();
        let mut shards = Vec::with_capacity(loaded.len());
        for shard in loaded {
            let (sender, queue) = mpsc::channel(queue_max);
            shards.push(sender);
            tasks.spawn(shard.run(queue, stop.clone()));
        }
        Ok(Self {
            inner: Arc::new(Inner {
                store,
                topics: Mutex::default(),
                shards,
                tasks,
                stop,
            }),
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
        let groups = fetch::groups(request, version);
        let answers = join_all(groups.into_iter().map(|group| self.fetch_group(group))).await;
        fetch::response(answers, version)
    }

    async fn fetch_group(&self, request: OffsetFetchRequestGroup) -> OffsetFetchResponseGroup {
        let group = request.group_id.clone();
        match self
            .call(&group.0.clone(), Request::FetchOffsets(request))
            .await
        {
            Some(Response::FetchOffsets(response)) => response,
            _ => OffsetFetchResponseGroup::default()
                .with_group_id(group)
                .with_error_code(UNAVAILABLE.code()),
        }
    }

    /// The groups in any of the states and of any of the types asked for; all without a filter.
    pub(crate) async fn list(&self, request: ListGroupsRequest) -> ListGroupsResponse {
        let asked = |filter: &[StrBytes], is: &str| {
            filter.is_empty() || filter.iter().any(|f| f.eq_ignore_ascii_case(is))
        };
        let mut response = ListGroupsResponse::default();
        let answers = join_all(
            (0..self.inner.shards.len()).map(|shard| self.call_shard(shard, Request::List)),
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

    /// Deletes offsets of topics that no member of the group reads.
    pub(crate) async fn delete_offsets(
        &self,
        request: OffsetDeleteRequest,
    ) -> OffsetDeleteResponse {
        match self
            .call(&request.group_id.0.clone(), Request::DeleteOffsets(request))
            .await
        {
            Some(Response::DeleteOffsets(response)) => response,
            _ => OffsetDeleteResponse::default().with_error_code(UNAVAILABLE.code()),
        }
    }

    /// Forgets all groups' offsets of a topic; to be called after it was deleted. (What a crash
    /// keeps from happening here is made up for at the next start.)
    pub(crate) async fn topic_deleted(&self, topic: &str) {
        let topics = vec![StrBytes::from_string(topic.to_owned())];
        let forget = |shard| self.call_shard(shard, Request::ForgetTopics(topics.clone()));
        join_all((0..self.inner.shards.len()).map(forget)).await;
    }

    /// Carries out what was asked so far, answers whoever waits for others with
    /// `COORDINATOR_NOT_AVAILABLE`, and ends the coordinator's tasks.
    pub(crate) async fn shutdown(&self) {
        self.inner.stop.cancel();
        self.inner.tasks.close();
        self.inner.tasks.wait().await;
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
        let mut topics = self
            .inner
            .topics
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        // The version first: what changes while the topics are read is read once more.
        let version = self.inner.store.topics_version();
        if topics.version() != version {
            let all = self.inner.store.topics();
            let described = all.iter().map(|topic| {
                let name = StrBytes::from_string(topic.name.clone());
                (name, topic.id, topic.partition_count())
            });
            *topics = Arc::new(Topics::new(version, described));
        }
        Arc::clone(&topics)
    }

    fn partition_count(&self, topic: &str) -> i32 {
        self.inner
            .store
            .topic(topic)
            .map_or(0, |topic| topic.partition_count())
    }

    async fn call(&self, group: &StrBytes, request: Request) -> Option<Response> {
        self.call_shard(shard_of(group, self.inner.shards.len()), request)
            .await
    }

    async fn call_shard(&self, shard: usize, request: Request) -> Option<Response> {
        let (reply, response) = oneshot::channel();
        self.inner
            .shards
            .get(shard)?
            .send(Call { request, reply })
            .await
            .ok()?;
        response.await.ok()
    }
}

fn load(config: &Config, store: &Arc<Store>) -> Result<Vec<Shard>, Error> {
    let topic = match store.topic(OFFSETS_TOPIC) {
        Some(topic) => topic,
        None => create(config, store)?,
    };
    let started = Instant::now();
    let load = |index| {
        let partition = topic.partition(index).ok_or_else(|| {
            Error::new(
                Kind::Corrupt,
                format!("partition {index} of {OFFSETS_TOPIC} is missing"),
            )
        })?;
        Origin {
            config: config.clone(),
            store: Arc::clone(store),
            partition,
            started,
        }
        .load()
    };
    (0..topic.partition_count()).map(load).collect()
}

/// The topic's settings: never by retention, which would forget offsets that are in use; a record
/// as large as a full group; and segments small enough that what a snapshot has replaced is freed.
fn create(config: &Config, store: &Store) -> Result<Arc<Topic>, Error> {
    let settings = [
        ("cleanup.policy", "compact"),
        ("retention.ms", "-1"),
        ("retention.bytes", "-1"),
        ("max.message.bytes", "16777216"),
        ("segment.bytes", "16777216"),
    ];
    let settings: BTreeMap<_, _> = settings
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect();
    store.create_topic(OFFSETS_TOPIC, config.offsets_partitions, settings)
}

/// Kafka's partition for a group: the absolute value of Java's `String.hashCode`, modulo.
fn shard_of(group: &str, shards: usize) -> usize {
    let hash = group.encode_utf16().fold(0_i32, |hash, unit| {
        hash.wrapping_mul(31).wrapping_add(i32::from(unit))
    });
    hash.checked_abs().unwrap_or(0) as usize % shards.max(1)
}

#[cfg(test)]
mod tests {
    use super::shard_of;

    #[test]
    fn groups_are_spread_as_kafka_spreads_them() {
        // Utils.abs("..".hashCode()) % 50, the partition that Kafka's tools look in.
        assert_eq!(
            shard_of("inventory-service", 50),
            java("inventory-service", 50)
        );
        assert_eq!(shard_of("hello", 50), 99_162_322 % 50);
        assert_eq!(shard_of("", 50), 0);
        assert_eq!(shard_of("polygenelubricants", 50), 0, "hashes to i32::MIN");
    }

    fn java(text: &str, modulo: i64) -> usize {
        let hash = text.bytes().fold(0_i64, |hash, byte| {
            (hash * 31 + i64::from(byte)) & 0xffff_ffff
        }) as u32 as i32;
        (i64::from(hash).abs() % modulo) as usize
    }
}
