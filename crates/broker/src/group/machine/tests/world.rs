//! A machine with a clock that the test turns, and members that do what the test says.

use std::collections::BTreeMap;

use kafka_protocol::messages::join_group_request::JoinGroupRequestProtocol;
use kafka_protocol::messages::leave_group_request::MemberIdentity;
use kafka_protocol::messages::offset_commit_request::{
    OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use kafka_protocol::messages::offset_fetch_request::OffsetFetchRequestTopics;
use kafka_protocol::messages::offset_fetch_response::OffsetFetchResponsePartitions;
use kafka_protocol::messages::sync_group_request::SyncGroupRequestAssignment;
use kafka_protocol::messages::txn_offset_commit_request::{
    TxnOffsetCommitRequestPartition, TxnOffsetCommitRequestTopic,
};
use kafka_protocol::messages::{GroupId, ProducerId, TopicName};

use super::super::*;

pub(super) const SESSION_MS: u64 = 10_000;
pub(super) const REBALANCE_MS: u64 = 30_000;

pub(super) fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

pub(super) fn group() -> GroupId {
    GroupId(text("g"))
}

/// Consumer metadata that names one topic, of a consumer that owns nothing.
pub(super) fn subscription(topic: &str) -> Bytes {
    let mut bytes = vec![0, 1, 0, 0, 0, 1, 0, topic.len() as u8];
    bytes.extend_from_slice(topic.as_bytes());
    bytes.extend_from_slice(&[0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0]);
    bytes.into()
}

/// A join, to be changed where a test needs something else.
pub(super) struct Joining {
    pub(super) request: JoinGroupRequest,
    pub(super) version: i16,
}

pub(super) fn joining() -> Joining {
    let request = JoinGroupRequest::default()
        .with_group_id(group())
        .with_session_timeout_ms(SESSION_MS as i32)
        .with_rebalance_timeout_ms(REBALANCE_MS as i32)
        .with_protocol_type(text("consumer"));
    Joining {
        request,
        version: 9,
    }
    .offering(&[("range", "orders")])
}

impl Joining {
    pub(super) fn id(mut self, id: &StrBytes) -> Self {
        self.request.member_id = id.clone();
        self
    }

    pub(super) fn instance(mut self, id: &str) -> Self {
        self.request.group_instance_id = Some(text(id));
        self
    }

    pub(super) fn version(mut self, version: i16) -> Self {
        self.version = version;
        self
    }

    /// Protocols in order of preference, each with the topic that its metadata names.
    pub(super) fn offering(mut self, protocols: &[(&str, &str)]) -> Self {
        let protocol = |(name, topic): &(&str, &str)| {
            JoinGroupRequestProtocol::default()
                .with_name(text(name))
                .with_metadata(subscription(topic))
        };
        self.request.protocols = protocols.iter().map(protocol).collect();
        self
    }
}

pub(super) struct World {
    pub(super) machine: Machine,
    pub(super) now: Now,
    pub(super) log: Vec<Change>,
    replies: BTreeMap<Token, Response>,
    next: u64,
    topics: SharedTopics,
}

impl World {
    pub(super) fn new() -> Self {
        Self::with(|_| {})
    }

    pub(super) fn with(settings: impl FnOnce(&mut Config)) -> Self {
        let mut config = Config::default();
        settings(&mut config);
        let now = Now {
            tick_ms: 0,
            unix_ms: 1_700_000_000_000,
        };
        Self {
            machine: Machine::new(config, now),
            now,
            log: Vec::new(),
            replies: BTreeMap::new(),
            next: 0,
            topics: Arc::new(topics(1, &[("orders", 4)])),
        }
    }

    /// Other topics than before.
    pub(super) fn have_topics(&mut self, all: &[(&str, i32)]) {
        self.topics = Arc::new(topics(self.topics.version() + 1, all));
    }

    /// A heartbeat of a KIP-848 member.
    pub(super) fn beat(
        &mut self,
        request: ConsumerGroupHeartbeatRequest,
    ) -> ConsumerGroupHeartbeatResponse {
        let token = self.ask(Request::ConsumerHeartbeat {
            request: request.with_group_id(group()),
            version: 1,
            client: Client {
                id: text("client"),
                host: text("/127.0.0.1"),
            },
            fresh_id: Uuid::from_u128(7),
            topics: Arc::clone(&self.topics),
        });
        match self.take(token) {
            Response::ConsumerHeartbeat(response) => response,
            other => panic!("not a heartbeat: {other:?}"),
        }
    }

    pub(super) fn describe_consumers(
        &mut self,
    ) -> consumer_group_describe_response::DescribedGroup {
        let token = self.ask(Request::DescribeConsumers {
            group: group().0,
            topics: Arc::clone(&self.topics),
        });
        match self.take(token) {
            Response::DescribeConsumers(described) => described,
            other => panic!("not a description: {other:?}"),
        }
    }

    pub(super) fn ask(&mut self, request: Request) -> Token {
        self.next += 1;
        let token = Token(self.next);
        self.machine.on_request(self.now, token, request);
        self.collect();
        token
    }

    fn collect(&mut self) {
        let output = self.machine.take_output();
        self.log.extend(output.changes);
        for (token, response) in output.replies {
            assert!(
                self.replies.insert(token, response).is_none(),
                "two answers to one request"
            );
        }
    }

    /// Lets time pass, with everything that falls due in it.
    pub(super) fn pass(&mut self, ms: u64) {
        let end = self.now.tick_ms + ms;
        while self.machine.deadline() <= end {
            self.turn_to(self.machine.deadline());
            self.machine.on_tick(self.now);
            self.collect();
        }
        self.turn_to(end);
    }

    fn turn_to(&mut self, tick_ms: u64) {
        let passed = tick_ms.saturating_sub(self.now.tick_ms);
        self.now = Now {
            tick_ms: self.now.tick_ms + passed,
            unix_ms: self.now.unix_ms + passed as i64,
        };
    }

    pub(super) fn answered(&self, token: Token) -> bool {
        self.replies.contains_key(&token)
    }

    fn take(&mut self, token: Token) -> Response {
        self.replies
            .remove(&token)
            .expect("the request was not answered yet")
    }

    pub(super) fn join(&mut self, joining: Joining) -> Token {
        self.next += 1;
        self.ask(Request::Join {
            request: joining.request,
            version: joining.version,
            client: Client {
                id: text("client"),
                host: text("/127.0.0.1"),
            },
            fresh_id: Uuid::from_u128(u128::from(self.next)),
            topics: Arc::clone(&self.topics),
        })
    }

    pub(super) fn joined(&mut self, token: Token) -> JoinGroupResponse {
        match self.take(token) {
            Response::Join(response) => response,
            other => panic!("not a join: {other:?}"),
        }
    }

    /// The id that a new dynamic member is given.
    pub(super) fn id(&mut self) -> StrBytes {
        let token = self.join(joining());
        let response = self.joined(token);
        assert_eq!(response.error_code, ResponseError::MemberIdRequired.code());
        response.member_id
    }

    pub(super) fn sync(
        &mut self,
        id: &StrBytes,
        generation: i32,
        assignments: &[(&StrBytes, &str)],
    ) -> Token {
        let assignments = assignments.iter().map(|(id, what)| {
            SyncGroupRequestAssignment::default()
                .with_member_id((*id).clone())
                .with_assignment(Bytes::copy_from_slice(what.as_bytes()))
        });
        let request = SyncGroupRequest::default()
            .with_group_id(group())
            .with_generation_id(generation)
            .with_member_id(id.clone())
            .with_assignments(assignments.collect());
        self.ask(Request::Sync(request))
    }

    pub(super) fn synced(&mut self, token: Token) -> SyncGroupResponse {
        match self.take(token) {
            Response::Sync(response) => response,
            other => panic!("not a sync: {other:?}"),
        }
    }

    pub(super) fn heartbeat(
        &mut self,
        id: &StrBytes,
        generation: i32,
    ) -> Result<(), ResponseError> {
        self.heartbeat_as(id, None, generation)
    }

    pub(super) fn heartbeat_as(
        &mut self,
        id: &StrBytes,
        instance: Option<&str>,
        generation: i32,
    ) -> Result<(), ResponseError> {
        let request = HeartbeatRequest::default()
            .with_group_id(group())
            .with_generation_id(generation)
            .with_group_instance_id(instance.map(text))
            .with_member_id(id.clone());
        let token = self.ask(Request::Heartbeat(request));
        match self.take(token) {
            Response::Heartbeat(response) => outcome(response.error_code),
            other => panic!("not a heartbeat: {other:?}"),
        }
    }

    pub(super) fn leave(
        &mut self,
        members: &[(&StrBytes, Option<&str>)],
    ) -> Vec<Result<(), ResponseError>> {
        let member = |(id, instance): &(&StrBytes, Option<&str>)| {
            MemberIdentity::default()
                .with_member_id((*id).clone())
                .with_group_instance_id(instance.map(text))
        };
        let request = LeaveGroupRequest::default()
            .with_group_id(group())
            .with_members(members.iter().map(member).collect());
        let token = self.ask(Request::Leave(request));
        match self.take(token) {
            Response::Leave(response) => response
                .members
                .iter()
                .map(|m| outcome(m.error_code))
                .collect(),
            other => panic!("not a leave: {other:?}"),
        }
    }

    pub(super) fn commit(
        &mut self,
        id: &StrBytes,
        generation: i32,
        offset: i64,
    ) -> Result<(), ResponseError> {
        self.commit_with(id, generation, offset, "")
    }

    pub(super) fn commit_with(
        &mut self,
        id: &StrBytes,
        generation: i32,
        offset: i64,
        metadata: &str,
    ) -> Result<(), ResponseError> {
        self.commit_as(8, id, generation, offset, metadata)
    }

    pub(super) fn commit_as(
        &mut self,
        version: i16,
        id: &StrBytes,
        generation: i32,
        offset: i64,
        metadata: &str,
    ) -> Result<(), ResponseError> {
        let partition = OffsetCommitRequestPartition::default()
            .with_partition_index(0)
            .with_committed_offset(offset)
            .with_committed_leader_epoch(3)
            .with_committed_metadata(Some(text(metadata)));
        let topic = OffsetCommitRequestTopic::default()
            .with_name(TopicName(text("orders")))
            .with_partitions(vec![partition]);
        let request = OffsetCommitRequest::default()
            .with_group_id(group())
            .with_generation_id_or_member_epoch(generation)
            .with_member_id(id.clone())
            .with_retention_time_ms(-1)
            .with_topics(vec![topic]);
        let token = self.ask(Request::CommitOffsets { request, version });
        match self.take(token) {
            Response::CommitOffsets(response) => {
                outcome(response.topics[0].partitions[0].error_code)
            }
            other => panic!("not a commit: {other:?}"),
        }
    }

    /// A producer's transaction may commit offsets.
    pub(super) fn admit(&mut self, producer: ProducerEpoch) {
        let token = self.ask(Request::Admit(producer));
        assert!(matches!(self.take(token), Response::Admit));
    }

    /// Commits an offset in a producer's transaction, for no member.
    pub(super) fn pend(
        &mut self,
        producer: ProducerEpoch,
        offset: i64,
    ) -> Result<(), ResponseError> {
        self.pend_as(producer, &StrBytes::new(), -1, offset)
    }

    pub(super) fn pend_as(
        &mut self,
        producer: ProducerEpoch,
        id: &StrBytes,
        generation: i32,
        offset: i64,
    ) -> Result<(), ResponseError> {
        let partition = TxnOffsetCommitRequestPartition::default()
            .with_committed_offset(offset)
            .with_committed_leader_epoch(3);
        let topic = TxnOffsetCommitRequestTopic::default()
            .with_name(TopicName(text("orders")))
            .with_partitions(vec![partition]);
        let request = TxnOffsetCommitRequest::default()
            .with_group_id(group())
            .with_producer_id(ProducerId(producer.id))
            .with_producer_epoch(producer.epoch)
            .with_member_id(id.clone())
            .with_generation_id(generation)
            .with_topics(vec![topic]);
        let token = self.ask(Request::CommitPending(request));
        match self.take(token) {
            Response::CommitPending(response) => {
                outcome(response.topics[0].partitions[0].error_code)
            }
            other => panic!("not a commit: {other:?}"),
        }
    }

    pub(super) fn end_transaction(&mut self, producer: ProducerEpoch, verdict: Verdict) {
        let token = self.ask(Request::EndTransaction(producer, verdict));
        assert!(matches!(self.take(token), Response::EndTransaction));
    }

    /// The position that no open transaction may change, or that there is one.
    pub(super) fn stable_position(&mut self) -> Result<i64, ResponseError> {
        let topic = OffsetFetchRequestTopics::default()
            .with_name(TopicName(text("orders")))
            .with_partition_indexes(vec![0]);
        let request = OffsetFetchRequestGroup::default()
            .with_group_id(group())
            .with_topics(Some(vec![topic]));
        let token = self.ask(Request::FetchStableOffsets(request));
        match self.take(token) {
            Response::FetchOffsets(mut response) => {
                let position = response.topics.remove(0).partitions.remove(0);
                outcome(position.error_code).map(|()| position.committed_offset)
            }
            other => panic!("not a fetch: {other:?}"),
        }
    }

    pub(super) fn position(&mut self) -> OffsetFetchResponsePartitions {
        let topic = OffsetFetchRequestTopics::default()
            .with_name(TopicName(text("orders")))
            .with_partition_indexes(vec![0]);
        self.fetch(Some(vec![topic]))
            .topics
            .remove(0)
            .partitions
            .remove(0)
    }

    pub(super) fn fetch(
        &mut self,
        topics: Option<Vec<OffsetFetchRequestTopics>>,
    ) -> OffsetFetchResponseGroup {
        self.fetch_group(OffsetFetchRequestGroup::default().with_topics(topics))
    }

    pub(super) fn fetch_group(
        &mut self,
        request: OffsetFetchRequestGroup,
    ) -> OffsetFetchResponseGroup {
        let request = request.with_group_id(group());
        let token = self.ask(Request::FetchOffsets(request));
        match self.take(token) {
            Response::FetchOffsets(response) => response,
            other => panic!("not a fetch: {other:?}"),
        }
    }

    pub(super) fn describe(&mut self) -> DescribedGroup {
        let token = self.ask(Request::Describe(group().0));
        match self.take(token) {
            Response::Describe(described) => described,
            other => panic!("not a description: {other:?}"),
        }
    }

    pub(super) fn state(&mut self) -> String {
        self.describe().group_state.to_string()
    }

    pub(super) fn listed(&mut self, token: Token) -> Vec<ListedGroup> {
        match self.take(token) {
            Response::List(groups) => groups,
            other => panic!("not a list: {other:?}"),
        }
    }

    pub(super) fn delete(&mut self) -> Result<(), ResponseError> {
        let token = self.ask(Request::Delete(group().0));
        match self.take(token) {
            Response::Delete(result) => outcome(result.error_code),
            other => panic!("not a deletion: {other:?}"),
        }
    }

    pub(super) fn delete_offset(&mut self) -> Result<(), ResponseError> {
        use kafka_protocol::messages::offset_delete_request::{
            OffsetDeleteRequestPartition, OffsetDeleteRequestTopic,
        };
        let topic = OffsetDeleteRequestTopic::default()
            .with_name(TopicName(text("orders")))
            .with_partitions(vec![OffsetDeleteRequestPartition::default()]);
        let request = OffsetDeleteRequest::default()
            .with_group_id(group())
            .with_topics(vec![topic]);
        let token = self.ask(Request::DeleteOffsets(request));
        match self.take(token) {
            Response::DeleteOffsets(response) if response.error_code != 0 => {
                outcome(response.error_code)
            }
            Response::DeleteOffsets(response) => {
                outcome(response.topics[0].partitions[0].error_code)
            }
            other => panic!("not a deletion: {other:?}"),
        }
    }

    /// A stable group of `count` dynamic members, the leader first, each assigned its number.
    pub(super) fn stable(&mut self, count: usize) -> Vec<StrBytes> {
        let ids: Vec<_> = (0..count).map(|_| self.id()).collect();
        let tokens: Vec<_> = ids.iter().map(|id| self.join(joining().id(id))).collect();
        self.pass(1_000);
        self.settle(&ids, &tokens)
    }

    /// Takes the answers to joins, syncs everybody, and gives the members' ids, the leader first.
    pub(super) fn settle(&mut self, ids: &[StrBytes], tokens: &[Token]) -> Vec<StrBytes> {
        let responses: Vec<_> = tokens.iter().map(|token| self.joined(*token)).collect();
        assert!(responses.iter().all(|r| r.error_code == 0), "{responses:?}");
        let leader = responses[0].leader.clone();
        let generation = responses[0].generation_id;
        let mut members: Vec<_> = ids.to_vec();
        members.sort_by_key(|id| *id != leader);
        let names: Vec<_> = (0..members.len()).map(|n| n.to_string()).collect();
        let given: Vec<_> = members
            .iter()
            .zip(&names)
            .map(|(id, name)| (id, name.as_str()))
            .collect();
        let syncs: Vec<_> = members
            .iter()
            .map(|id| self.sync(id, generation, if *id == leader { &given } else { &[] }))
            .collect();
        for (sync, name) in syncs.into_iter().zip(&names) {
            assert_eq!(self.synced(sync).assignment, name.as_bytes());
        }
        members
    }

    /// The log is written anew, as short as it can be, and read back.
    pub(super) fn shorten(&mut self) {
        self.log = self.machine.live().collect();
        self.restart();
    }

    /// The coordinator dies, and another reads its log back.
    pub(super) fn restart(&mut self) {
        let config = self.machine.config.clone();
        self.machine = Machine::new(config, self.now);
        for change in self.log.clone() {
            self.machine.replay(change);
        }
        self.machine.replay_done(self.now);
    }
}

/// A topic's id follows from its name.
pub(super) fn topic_id(name: &str) -> Uuid {
    let bytes = name.bytes().chain(std::iter::repeat(0)).take(16);
    Uuid::from_slice(&bytes.collect::<Vec<_>>()).expect("16 bytes")
}

fn topics(version: u64, all: &[(&str, i32)]) -> Topics {
    let described = all
        .iter()
        .map(|(name, partitions)| (text(name), topic_id(name), *partitions));
    Topics::new(version, described)
}

pub(super) fn outcome(code: i16) -> Result<(), ResponseError> {
    match ResponseError::try_from_code(code) {
        None => Ok(()),
        Some(error) => Err(error),
    }
}
