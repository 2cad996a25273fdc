//! A service that changes from the classic protocol to KIP-848 and back, process by process, while processes stall and
//! crash and the coordinator crashes and replays, in an order that a seed decides.
//!
//! What must hold, whatever happens: no two members ever read a partition at once; what a member of a consumer
//! group reads, the coordinator knows; a committed offset that was acknowledged is never lost and never goes
//! back; and when disturbances end, every partition is read, whichever protocols the processes speak then. Static
//! members are left out: one that is late may read on in the next generation, which is KIP-345's choice.

use std::collections::{BTreeMap, BTreeSet};

use bytes::{BufMut, BytesMut};
use kafka_protocol::messages::consumer_group_heartbeat_request::TopicPartitions;
use kafka_protocol::messages::join_group_request::JoinGroupRequestProtocol;
use kafka_protocol::messages::leave_group_request::MemberIdentity;
use kafka_protocol::messages::offset_commit_request::{
    OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use kafka_protocol::messages::sync_group_request::SyncGroupRequestAssignment;
use kafka_protocol::messages::{GroupId, TopicName};

use super::group::Membership;
use super::*;
use crate::coordinator::world::{Out, World, each_seed, notices_a_bad_disk};
use crate::group::record::{Subscription, decode_assignment, encode_assignment};

const PARTITIONS: i32 = 6;
const STEPS: usize = 700;
const SEEDS: u64 = 120;
const SEEDS_ON_DISK: u64 = 15;
const TOPIC: &str = "t";
/// A client gives a request up after so long.
const PATIENCE_MS: u64 = 40_000;

type Owned = BTreeSet<i32>;

#[derive(Debug, Clone, Copy, PartialEq)]
enum Protocol {
    Classic,
    Consumer,
}

/// A process: what it knows, what it reads, and what it has asked.
#[derive(Debug)]
struct Process {
    protocol: Protocol,
    id: StrBytes,
    /// Its generation, or member epoch.
    epoch: i32,
    /// What it reads.
    owns: Owned,
    /// Classic: it has been given its part of a generation. Consumer: it need not say everything.
    settled: bool,
    /// What it was last told to read, until it does (consumer).
    told: Option<Owned>,
    /// It has something new to say about what it reads (consumer).
    changed: bool,
    asked: Option<(Token, Asked, u64)>,
    /// It does nothing until then: a pause, or a process that is gone.
    away_until: u64,
}

#[derive(Debug, Clone, PartialEq)]
enum Asked {
    Join,
    Sync,
    Heartbeat,
    Leave,
    Commit { partition: i32, offset: i64 },
}

struct Simulation {
    world: World<Machine>,
    topics: SharedTopics,
    processes: Vec<Process>,
    /// Classic members give up only what they lose, and join again after (KIP-429).
    cooperative: bool,
    acknowledged: BTreeMap<i32, i64>,
    /// How often the group was of the other kind than before.
    migrations: usize,
    was_consumer: bool,
}

fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

fn group_id() -> GroupId {
    GroupId(text("g"))
}

fn topic_id() -> Uuid {
    Uuid::from_u128(7)
}

impl Process {
    fn new(protocol: Protocol) -> Self {
        Self {
            protocol,
            id: StrBytes::new(),
            epoch: 0,
            owns: Owned::new(),
            settled: false,
            told: None,
            changed: false,
            asked: None,
            away_until: 0,
        }
    }
}

fn begin(now: Now) -> Machine {
    let config = Config {
        new_member_timeout_ms: 20_000,
        ..Config::default()
    };
    Machine::new(config, now)
}

impl Simulation {
    fn new(mut world: World<Machine>) -> Self {
        let random = &mut world.random;
        let processes = (0..2 + random.below(4)).map(|_| Process::new(Protocol::Classic));
        let processes = processes.collect();
        let all = [(text(TOPIC), topic_id(), PARTITIONS)];
        Self {
            topics: Arc::new(Topics::new(1, all)),
            processes,
            cooperative: world.random.one_in(2),
            acknowledged: BTreeMap::new(),
            migrations: 0,
            was_consumer: false,
            world,
        }
    }

    fn run(&mut self) {
        for _ in 0..STEPS {
            match self.world.random.below(100) {
                0 => self.crash_coordinator(),
                1 => self.crash_process(),
                2..20 => self.flush(),
                20..40 => {
                    let longest = if self.world.random.one_in(10) {
                        12_000
                    } else {
                        1_500
                    };
                    let ms = self.world.random.below(longest) as u64;
                    self.pass(ms);
                }
                _ => self.act(),
            }
            self.check();
        }
        self.calm_down();
    }

    /// Without disturbances every partition is read, by one process.
    fn calm_down(&mut self) {
        for process in &mut self.processes {
            process.away_until = 0;
        }
        for _ in 0..500 {
            for number in 0..self.processes.len() {
                self.adopt(number);
                self.speak(number, true);
                self.flush();
                self.check();
            }
            self.pass(200);
            self.flush();
        }
        let processes = self.processes.iter();
        let mut owned: Vec<_> = processes.flat_map(|p| p.owns.iter().copied()).collect();
        owned.sort_unstable();
        let all: Vec<_> = (0..PARTITIONS).collect();
        assert_eq!(owned, all, "{:#?}", self.processes);
        assert!(!self.world.is_holding());
    }

    fn act(&mut self) {
        let number = self.world.random.below(self.processes.len());
        let now = self.world.now.tick_ms;
        if self.processes[number].away_until > now {
            return;
        }
        if self.world.random.one_in(60) {
            let pause = self.world.random.below(30_000) as u64;
            self.processes[number].away_until = now + pause;
        } else if self.world.random.one_in(5) {
            self.adopt(number);
        } else if self.world.random.one_in(40) && self.processes[number].asked.is_none() {
            self.leave(number);
        } else {
            self.speak(number, false);
        }
    }

    fn speak(&mut self, number: usize, calm: bool) {
        let process = &mut self.processes[number];
        if let Some((_, _, since)) = process.asked {
            if self.world.now.tick_ms < since + PATIENCE_MS {
                return;
            }
            process.asked = None;
            process.settled = false;
        }
        let commits = !calm && process.settled && !process.owns.is_empty();
        if commits && self.world.random.one_in(3) {
            return self.commit(number);
        }
        match (
            self.processes[number].protocol,
            self.processes[number].settled,
        ) {
            (Protocol::Consumer, _) => self.consumer_heartbeat(number),
            (Protocol::Classic, true) => self.heartbeat(number),
            (Protocol::Classic, false) => self.join(number),
        }
    }

    fn join(&mut self, number: usize) {
        let process = &mut self.processes[number];
        if !self.cooperative {
            process.owns.clear();
        }
        let protocol = JoinGroupRequestProtocol::default()
            .with_name(text("range"))
            .with_metadata(subscription(&process.owns));
        let request = JoinGroupRequest::default()
            .with_group_id(group_id())
            .with_member_id(process.id.clone())
            .with_session_timeout_ms(6_000)
            .with_rebalance_timeout_ms(9_000)
            .with_protocol_type(text("consumer"))
            .with_protocols(vec![protocol]);
        let fresh_id = Uuid::from_u128(u128::from(self.world.random.next()));
        let request = Request::Join {
            request,
            version: 9,
            client: client(number),
            fresh_id,
            topics: Arc::clone(&self.topics),
        };
        self.ask(number, Asked::Join, request);
    }

    fn joined(&mut self, number: usize, response: &JoinGroupResponse) {
        let process = &mut self.processes[number];
        if response.error_code == ResponseError::MemberIdRequired.code() {
            process.id = response.member_id.clone();
            return;
        }
        if response.error_code != 0 {
            return self.refused(number, response.error_code);
        }
        process.id = response.member_id.clone();
        process.epoch = response.generation_id;
        let leads = response.leader == response.member_id && !response.skip_assignment;
        let request = SyncGroupRequest::default()
            .with_group_id(group_id())
            .with_generation_id(process.epoch)
            .with_member_id(process.id.clone())
            .with_assignments(if leads { dealt(response) } else { Vec::new() });
        self.ask(number, Asked::Sync, Request::Sync(request));
    }

    fn synced(&mut self, number: usize, response: &SyncGroupResponse) {
        if response.error_code != 0 {
            return self.refused(number, response.error_code);
        }
        let given = decode_assignment(&response.assignment).expect("an assignment");
        let given: Owned = given.into_iter().flat_map(|(_, given)| given).collect();
        let process = &mut self.processes[number];
        // What it has given up, somebody else may have when it has joined again.
        process.settled = process.owns.is_subset(&given);
        process.owns = given;
    }

    fn heartbeat(&mut self, number: usize) {
        let process = &self.processes[number];
        let request = HeartbeatRequest::default()
            .with_group_id(group_id())
            .with_member_id(process.id.clone())
            .with_generation_id(process.epoch);
        self.ask(number, Asked::Heartbeat, Request::Heartbeat(request));
    }

    fn consumer_heartbeat(&mut self, number: usize) {
        let fresh = self.world.random.next();
        let process = &mut self.processes[number];
        if process.id.is_empty() {
            process.id = text(&format!("m{number}-{fresh}"));
        }
        let full = process.epoch == 0 || !process.settled;
        let mut request = leaving(process, process.epoch);
        if full {
            request.rebalance_timeout_ms = 9_000;
            request.subscribed_topic_names = Some(vec![TopicName(text(TOPIC))]);
        }
        if full || (process.changed && process.told.is_none()) {
            let held = TopicPartitions::default()
                .with_topic_id(topic_id())
                .with_partitions(process.owns.iter().copied().collect());
            process.told = None;
            process.changed = false;
            let nothing = process.owns.is_empty();
            request.topic_partitions = Some(if nothing { Vec::new() } else { vec![held] });
        }
        let request = self.in_consumer_heartbeat(number, request);
        self.ask(number, Asked::Heartbeat, request);
    }

    fn in_consumer_heartbeat(
        &self,
        number: usize,
        request: ConsumerGroupHeartbeatRequest,
    ) -> Request {
        Request::ConsumerHeartbeat {
            request,
            version: 1,
            client: client(number),
            fresh_id: Uuid::nil(),
            topics: Arc::clone(&self.topics),
        }
    }

    fn heard(&mut self, number: usize, response: &ConsumerGroupHeartbeatResponse) {
        let process = &mut self.processes[number];
        if response.error_code != 0 {
            return self.refused(number, response.error_code);
        }
        process.epoch = response.member_epoch;
        process.settled = true;
        if let Some(assignment) = &response.assignment {
            let topics = assignment.topic_partitions.iter();
            let told = topics.flat_map(|topic| topic.partitions.iter().copied());
            process.told = Some(told.collect());
        }
    }

    /// Stops reading what is not its any more, then begins to read what is new.
    fn adopt(&mut self, number: usize) {
        let process = &mut self.processes[number];
        let Some(told) = process.told.take() else {
            return;
        };
        let kept: Owned = process.owns.intersection(&told).copied().collect();
        if kept.len() < process.owns.len() && self.world.random.one_in(2) {
            process.owns = kept;
            process.told = Some(told);
            return;
        }
        process.owns = told;
        process.changed = true;
    }

    /// It stops reading before it says so.
    fn leave(&mut self, number: usize) {
        let process = &mut self.processes[number];
        process.owns.clear();
        process.told = None;
        let request = match process.protocol {
            Protocol::Classic => {
                let member = MemberIdentity::default().with_member_id(process.id.clone());
                let request = LeaveGroupRequest::default()
                    .with_group_id(group_id())
                    .with_members(vec![member]);
                Request::Leave(request)
            }
            Protocol::Consumer if process.epoch <= 0 => return self.restart(number),
            Protocol::Consumer => {
                let request = leaving(process, -1);
                self.in_consumer_heartbeat(number, request)
            }
        };
        self.ask(number, Asked::Leave, request);
    }

    fn commit(&mut self, number: usize) {
        let owned: Vec<_> = self.processes[number].owns.iter().copied().collect();
        let partition = *self.world.random.pick(&owned);
        // As a consumer does: from where the group is, on.
        let offset = self.committed(partition) + 1;
        let commit = OffsetCommitRequestPartition::default()
            .with_partition_index(partition)
            .with_committed_offset(offset)
            .with_committed_metadata(Some(StrBytes::new()));
        let topic = OffsetCommitRequestTopic::default()
            .with_name(TopicName(text(TOPIC)))
            .with_partitions(vec![commit]);
        let process = &self.processes[number];
        let request = OffsetCommitRequest::default()
            .with_group_id(group_id())
            .with_member_id(process.id.clone())
            .with_generation_id_or_member_epoch(process.epoch)
            .with_retention_time_ms(-1)
            .with_topics(vec![topic]);
        let request = Request::CommitOffsets {
            request,
            version: match process.protocol {
                Protocol::Classic => 8,
                Protocol::Consumer => 9,
            },
        };
        self.ask(number, Asked::Commit { partition, offset }, request);
    }

    fn committed(&self, partition: i32) -> i64 {
        let group = self.world.machine.groups.get(&text("g"));
        let found = group.and_then(|group| {
            let mut offsets = group.offsets.iter();
            offsets.find(|(_, index, _)| *index == partition)
        });
        found.map_or(-1, |(_, _, committed)| committed.offset)
    }

    fn ask(&mut self, number: usize, asked: Asked, request: Request) {
        let token = self.world.ask(request);
        self.processes[number].asked = Some((token, asked, self.world.now.tick_ms));
        self.deliver();
    }

    fn pass(&mut self, ms: u64) {
        let until = self.world.now.tick_ms + ms;
        while self.world.tick(until) {
            self.deliver();
        }
    }

    fn flush(&mut self) {
        self.world.flush();
        self.deliver();
    }

    fn deliver(&mut self) {
        while let Some(Out::Reply(token, response)) = self.world.out() {
            let mut askers = self.processes.iter_mut();
            let asker = askers.position(|p| p.asked.as_ref().is_some_and(|(t, ..)| *t == token));
            if let Some(number) = asker
                && let Some((_, asked, _)) = self.processes[number].asked.take()
            {
                self.answered(number, &asked, response);
            }
        }
    }

    fn answered(&mut self, number: usize, asked: &Asked, response: Response) {
        match (asked, response) {
            (Asked::Join, Response::Join(response)) => self.joined(number, &response),
            (Asked::Sync, Response::Sync(response)) => self.synced(number, &response),
            (Asked::Leave, _) => self.restart(number),
            (Asked::Heartbeat, Response::Heartbeat(response)) => {
                self.refused(number, response.error_code);
            }
            (Asked::Heartbeat, Response::ConsumerHeartbeat(response)) => {
                self.heard(number, &response);
            }
            (Asked::Commit { partition, offset }, Response::CommitOffsets(response)) => {
                let code = response.topics[0].partitions[0].error_code;
                if code == 0 {
                    let best = self.acknowledged.entry(*partition).or_insert(-1);
                    *best = (*best).max(*offset);
                }
                self.refused(number, code);
            }
            (asked, response) => panic!("{asked:?} was answered with {response:?}"),
        }
    }

    /// What a client does about an error; 0 is none.
    fn refused(&mut self, number: usize, code: i16) {
        let process = &mut self.processes[number];
        match ResponseError::try_from_code(code) {
            // A member epoch that is too old for a commit is right again after the next heartbeat.
            None | Some(ResponseError::StaleMemberEpoch) => {}
            Some(ResponseError::RebalanceInProgress) => process.settled = false,
            Some(ResponseError::IllegalGeneration | ResponseError::FencedMemberEpoch) => {
                // It has missed something: it gives everything up and comes again.
                process.owns.clear();
                process.told = None;
                process.settled = false;
                process.epoch = 0;
            }
            Some(ResponseError::UnknownMemberId | ResponseError::GroupIdNotFound) => {
                self.forget(number)
            }
            Some(other) => panic!("unexpected {other:?} for {process:?}"),
        }
    }

    fn forget(&mut self, number: usize) {
        let process = &mut self.processes[number];
        let away_until = process.away_until;
        *process = Process::new(process.protocol);
        process.away_until = away_until;
    }

    /// It comes back, perhaps with the other protocol: a step of a rolling restart.
    fn restart(&mut self, number: usize) {
        self.forget(number);
        let process = &mut self.processes[number];
        if self.world.random.one_in(2) {
            process.protocol = match process.protocol {
                Protocol::Classic => Protocol::Consumer,
                Protocol::Consumer => Protocol::Classic,
            };
        }
    }

    /// Its process dies: it forgets what it knew, and its request is nobody's.
    fn crash_process(&mut self) {
        let number = self.world.random.below(self.processes.len());
        self.restart(number);
        let away = self.world.random.below(15_000) as u64;
        self.processes[number].away_until = self.world.now.tick_ms + away;
    }

    /// Connections are cut; who has asked asks again, and says everything.
    fn crash_coordinator(&mut self) {
        self.world.crash_between_steps();
        for process in &mut self.processes {
            if process.asked.take().is_some() {
                process.settled = false;
            }
        }
        for (partition, offset) in &self.acknowledged {
            assert!(
                self.committed(*partition) >= *offset,
                "an acknowledged commit of {partition} was lost"
            );
        }
    }

    /// Who is a member reads only what nobody else reads.
    fn check(&mut self) {
        let Some(group) = self.world.machine.groups.get(&text("g")) else {
            return;
        };
        let consumer = match &group.membership {
            Membership::Classic(_) => None,
            Membership::Consumer(consumer) => Some(consumer),
        };
        self.migrations += usize::from(consumer.is_some() != self.was_consumer);
        self.was_consumer = consumer.is_some();
        let counts = |process: &&Process| match &group.membership {
            Membership::Classic(classic) => classic.has_member(&process.id),
            Membership::Consumer(consumer) => consumer.has_member(&process.id),
        };
        let mut readers: BTreeMap<i32, &StrBytes> = BTreeMap::new();
        for process in self.processes.iter().filter(counts) {
            for partition in &process.owns {
                if let Some(other) = readers.insert(*partition, &process.id) {
                    panic!("{other:?} and {:?} both read {partition}", process.id);
                }
                assert!(
                    consumer.is_none_or(|all| all.holds(&process.id, (topic_id(), *partition))),
                    "{process:?} reads {partition}, which the coordinator does not know: {consumer:?}"
                );
            }
        }
    }
}

fn client(number: usize) -> Client {
    Client {
        id: text(&format!("c{number}")),
        host: text("/127.0.0.1"),
    }
}

fn leaving(process: &Process, epoch: i32) -> ConsumerGroupHeartbeatRequest {
    ConsumerGroupHeartbeatRequest::default()
        .with_group_id(group_id())
        .with_member_id(process.id.clone())
        .with_member_epoch(epoch)
        .with_rebalance_timeout_ms(-1)
        .with_subscribed_topic_names(None)
        .with_topic_partitions(None)
}

/// `ConsumerProtocolSubscription` 1 of somebody who reads these partitions.
fn subscription(owned: &Owned) -> Bytes {
    let mut metadata = BytesMut::new();
    let name = |metadata: &mut BytesMut| {
        metadata.put_i16(TOPIC.len() as i16);
        metadata.put_slice(TOPIC.as_bytes());
    };
    metadata.put_i16(1);
    metadata.put_i32(1);
    name(&mut metadata);
    metadata.put_i32(-1);
    metadata.put_i32(1);
    name(&mut metadata);
    metadata.put_i32(owned.len() as i32);
    owned.iter().for_each(|index| metadata.put_i32(*index));
    metadata.freeze()
}

/// What a leader gives to everybody: a part that is the same every time, without what others still read.
fn dealt(response: &JoinGroupResponse) -> Vec<SyncGroupRequestAssignment> {
    let owned_by = |metadata: &Bytes| -> Owned {
        let owned = Subscription::decode(metadata)
            .expect("a subscription")
            .owned;
        owned.into_iter().flat_map(|(_, owned)| owned).collect()
    };
    let mut members: Vec<_> = response.members.iter().collect();
    members.sort_by(|a, b| a.member_id.cmp(&b.member_id));
    let claims: Vec<_> = members.iter().map(|m| owned_by(&m.metadata)).collect();
    let deal = |at: usize| {
        let free = |index: &i32| {
            let mut others = claims.iter().enumerate().filter(|(other, _)| *other != at);
            !others.any(|(_, owned)| owned.contains(index))
        };
        let given = (0..PARTITIONS).filter(|index| *index as usize % members.len() == at);
        let given = vec![(text(TOPIC), given.filter(free).collect())];
        SyncGroupRequestAssignment::default()
            .with_member_id(members[at].member_id.clone())
            .with_assignment(encode_assignment(1, &given))
    };
    (0..members.len()).map(deal).collect()
}

#[test]
fn a_service_changes_its_protocol_and_keeps_its_promises_whatever_happens() {
    let migrations = each_seed(SEEDS, |seed| {
        let mut simulation = Simulation::new(World::new(seed, begin));
        simulation.run();
        simulation.migrations
    });
    println!("{} migrations", migrations.iter().sum::<usize>());
}

#[test]
fn a_service_changes_its_protocol_on_a_disk_that_fails() {
    let simulate = |seed| Simulation::new(World::on_disk(seed, begin)).run();
    each_seed(SEEDS_ON_DISK, simulate);
    assert!(notices_a_bad_disk(simulate));
}
