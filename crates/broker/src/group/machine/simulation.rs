//! Members that join, work, stall, crash and come back, and a coordinator that crashes and replays,
//! in an order that a seed decides.
//!
//! What must hold, whatever happens: no two members of a generation own a partition; a committed
//! offset that was acknowledged is never lost and never goes back; every request is answered; and
//! what a replay gives is what was there.

use std::collections::{BTreeMap, BTreeSet};

use kafka_protocol::messages::join_group_request::JoinGroupRequestProtocol;
use kafka_protocol::messages::leave_group_request::MemberIdentity;
use kafka_protocol::messages::offset_commit_request::{
    OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use kafka_protocol::messages::sync_group_request::SyncGroupRequestAssignment;
use kafka_protocol::messages::{GroupId, TopicName};

use super::*;
use crate::coordinator::world::{Out, World, each_seed, notices_a_bad_disk};

const PARTITIONS: i32 = 6;
const STEPS: usize = 600;
const SEEDS: u64 = 300;
const SEEDS_ON_DISK: u64 = 15;

/// A consumer: what it knows, and what it has asked.
#[derive(Debug, Default)]
struct Consumer {
    instance: Option<StrBytes>,
    id: StrBytes,
    generation: i32,
    owns: Vec<i32>,
    stable: bool,
    /// Its request under way, and when it was sent.
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
    consumers: Vec<Consumer>,
    /// Who was told to own a partition in a generation.
    owners: BTreeMap<(i32, i32), StrBytes>,
    acknowledged: BTreeMap<i32, i64>,
    generations: BTreeSet<i32>,
}

fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
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
        let consumers = (0..2 + random.below(4)).map(|number| Consumer {
            instance: random.one_in(3).then(|| text(&format!("static-{number}"))),
            ..Consumer::default()
        });
        Self {
            consumers: consumers.collect(),
            owners: BTreeMap::new(),
            acknowledged: BTreeMap::new(),
            generations: BTreeSet::new(),
            world,
        }
    }

    fn run(&mut self) {
        for _ in 0..STEPS {
            match self.world.random.below(100) {
                0 => self.crash_coordinator(),
                1 => self.crash_consumer(),
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
        }
        self.calm_down();
    }

    /// Without disturbances every consumer gets into one generation, and all partitions are owned.
    fn calm_down(&mut self) {
        for consumer in &mut self.consumers {
            consumer.away_until = 0;
        }
        for _ in 0..400 {
            for number in 0..self.consumers.len() {
                self.speak(number, true);
                self.flush();
            }
            self.pass(200);
            self.flush();
        }
        let generations: BTreeSet<_> = self.consumers.iter().map(|c| c.generation).collect();
        assert!(
            self.consumers.iter().all(|c| c.stable),
            "somebody was never answered: {:?}",
            self.consumers
        );
        assert_eq!(
            generations.len(),
            1,
            "two generations: {:?}",
            self.consumers
        );
        let mut owned: Vec<_> = self.consumers.iter().flat_map(|c| c.owns.clone()).collect();
        owned.sort_unstable();
        assert_eq!(owned, (0..PARTITIONS).collect::<Vec<_>>());
        assert!(!self.world.is_holding());
    }

    fn act(&mut self) {
        let number = self.world.random.below(self.consumers.len());
        if self.consumers[number].away_until > self.world.now.tick_ms {
            return;
        }
        if self.world.random.one_in(60) {
            self.consumers[number].away_until =
                self.world.now.tick_ms + self.world.random.below(30_000) as u64;
        } else if self.world.random.one_in(40) && self.consumers[number].asked.is_none() {
            self.leave(number);
        } else {
            self.speak(number, false);
        }
    }

    /// A consumer's next step: join, sync, or heartbeat and commit.
    fn speak(&mut self, number: usize, calm: bool) {
        let consumer = &self.consumers[number];
        if let Some((_, _, since)) = consumer.asked {
            // A connection that is cut, or a request that timed out: asked again, on a new one.
            if calm || self.world.now.tick_ms < since + 40_000 {
                return;
            }
        }
        if !consumer.stable {
            return self.join(number);
        }
        if !calm && self.world.random.one_in(2) {
            return self.commit(number);
        }
        let (id, generation, instance) = self.identity(number);
        let request = HeartbeatRequest::default()
            .with_group_id(GroupId(text("g")))
            .with_member_id(id)
            .with_group_instance_id(instance)
            .with_generation_id(generation);
        self.ask(number, Asked::Heartbeat, Request::Heartbeat(request));
    }

    fn identity(&self, number: usize) -> (StrBytes, i32, Option<StrBytes>) {
        let consumer = &self.consumers[number];
        (
            consumer.id.clone(),
            consumer.generation,
            consumer.instance.clone(),
        )
    }

    fn ask(&mut self, number: usize, asked: Asked, request: Request) {
        let token = self.world.ask(request);
        self.consumers[number].asked = Some((token, asked, self.world.now.tick_ms));
        self.deliver();
    }

    fn join(&mut self, number: usize) {
        let (id, _, instance) = self.identity(number);
        let protocol = JoinGroupRequestProtocol::default().with_name(text("range"));
        let request = JoinGroupRequest::default()
            .with_group_id(GroupId(text("g")))
            .with_member_id(id)
            .with_group_instance_id(instance)
            .with_session_timeout_ms(6_000)
            .with_rebalance_timeout_ms(9_000)
            .with_protocol_type(text("consumer"))
            .with_protocols(vec![protocol]);
        let client = Client {
            id: text(&format!("c{number}")),
            host: text("/127.0.0.1"),
        };
        let fresh_id = Uuid::from_u128(u128::from(self.world.random.next()));
        let version = if number == 0 { 3 } else { 9 };
        self.ask(
            number,
            Asked::Join,
            Request::Join {
                request,
                version,
                client,
                fresh_id,
                topics: SharedTopics::default(),
            },
        );
    }

    fn leave(&mut self, number: usize) {
        let (id, _, instance) = self.identity(number);
        let member = MemberIdentity::default()
            .with_member_id(id)
            .with_group_instance_id(instance);
        let request = LeaveGroupRequest::default()
            .with_group_id(GroupId(text("g")))
            .with_members(vec![member]);
        self.ask(number, Asked::Leave, Request::Leave(request));
    }

    fn commit(&mut self, number: usize) {
        let (id, generation, instance) = self.identity(number);
        let owned = self.consumers[number].owns.clone();
        if owned.is_empty() {
            return;
        }
        let partition = owned[self.world.random.below(owned.len())];
        // As a consumer does: from where the group is, on.
        let offset = self.committed(partition).max(-1) + 1;
        let commit = OffsetCommitRequestPartition::default()
            .with_partition_index(partition)
            .with_committed_offset(offset)
            .with_committed_metadata(Some(StrBytes::new()));
        let topic = OffsetCommitRequestTopic::default()
            .with_name(TopicName(text("t")))
            .with_partitions(vec![commit]);
        let request = OffsetCommitRequest::default()
            .with_group_id(GroupId(text("g")))
            .with_member_id(id)
            .with_group_instance_id(instance)
            .with_generation_id_or_member_epoch(generation)
            .with_retention_time_ms(-1)
            .with_topics(vec![topic]);
        self.ask(
            number,
            Asked::Commit { partition, offset },
            Request::CommitOffsets {
                request,
                version: 8,
            },
        );
    }

    fn committed(&self, partition: i32) -> i64 {
        let group = self.world.machine.groups.get(&text("g"));
        let found = group.and_then(|g| {
            g.offsets
                .iter()
                .find(|(_, p, _)| *p == partition)
                .map(|(_, _, o)| o.offset)
        });
        found.unwrap_or(-1)
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
            let mut askers = self.consumers.iter_mut();
            let asker = askers.position(|c| c.asked.as_ref().is_some_and(|(t, ..)| *t == token));
            if let Some(number) = asker
                && let Some((_, asked, ..)) = self.consumers[number].asked.take()
            {
                self.answered(number, &asked, response);
            }
        }
    }

    fn answered(&mut self, number: usize, asked: &Asked, response: Response) {
        match (asked, response) {
            (Asked::Join, Response::Join(response)) => self.joined(number, &response),
            (Asked::Sync, Response::Sync(response)) => self.synced(number, &response),
            (Asked::Heartbeat, Response::Heartbeat(response)) => {
                self.told(number, response.error_code)
            }
            (Asked::Leave, Response::Leave(_)) => self.forget(number),
            (Asked::Commit { partition, offset }, Response::CommitOffsets(response)) => {
                let code = response.topics[0].partitions[0].error_code;
                if code == 0 {
                    let best = self.acknowledged.entry(*partition).or_insert(-1);
                    *best = (*best).max(*offset);
                }
                self.told(number, code);
            }
            (asked, response) => panic!("{asked:?} was answered with {response:?}"),
        }
    }

    fn joined(&mut self, number: usize, response: &JoinGroupResponse) {
        if response.error_code == ResponseError::MemberIdRequired.code() {
            self.consumers[number].id = response.member_id.clone();
            return;
        }
        if response.error_code != 0 {
            return self.told(number, response.error_code);
        }
        let consumer = &mut self.consumers[number];
        consumer.id = response.member_id.clone();
        consumer.generation = response.generation_id;
        let leads = response.leader == response.member_id && !response.skip_assignment;
        let members: Vec<_> = response
            .members
            .iter()
            .map(|m| m.member_id.clone())
            .collect();
        let deal = |(at, id): (usize, &StrBytes)| {
            let share: Vec<u8> = (0..PARTITIONS as u8)
                .filter(|p| usize::from(*p) % members.len() == at)
                .collect();
            SyncGroupRequestAssignment::default()
                .with_member_id(id.clone())
                .with_assignment(share.into())
        };
        let assignments = if leads {
            members.iter().enumerate().map(deal).collect()
        } else {
            Vec::new()
        };
        let (id, generation, instance) = self.identity(number);
        let request = SyncGroupRequest::default()
            .with_group_id(GroupId(text("g")))
            .with_generation_id(generation)
            .with_member_id(id)
            .with_group_instance_id(instance)
            .with_assignments(assignments);
        self.ask(number, Asked::Sync, Request::Sync(request));
    }

    fn synced(&mut self, number: usize, response: &SyncGroupResponse) {
        if response.error_code != 0 {
            return self.told(number, response.error_code);
        }
        let consumer = &mut self.consumers[number];
        consumer.stable = true;
        consumer.owns = response.assignment.iter().map(|p| i32::from(*p)).collect();
        let name = consumer
            .instance
            .clone()
            .unwrap_or_else(|| consumer.id.clone());
        self.generations.insert(consumer.generation);
        for partition in consumer.owns.clone() {
            let owner = self
                .owners
                .entry((consumer.generation, partition))
                .or_insert_with(|| name.clone());
            assert_eq!(
                *owner, name,
                "two owners of {partition} in generation {}",
                consumer.generation
            );
        }
    }

    fn told(&mut self, number: usize, code: i16) {
        let consumer = &mut self.consumers[number];
        match ResponseError::try_from_code(code) {
            None => {}
            Some(ResponseError::UnknownMemberId | ResponseError::FencedInstanceId) => {
                self.forget(number)
            }
            Some(ResponseError::RebalanceInProgress | ResponseError::IllegalGeneration) => {
                consumer.stable = false
            }
            Some(other) => panic!("unexpected {other:?}"),
        }
    }

    fn forget(&mut self, number: usize) {
        let instance = self.consumers[number].instance.take();
        self.consumers[number] = Consumer {
            instance,
            away_until: self.consumers[number].away_until,
            ..Consumer::default()
        };
    }

    /// Its process dies: it forgets what it knew, and its request is nobody's.
    fn crash_consumer(&mut self) {
        let number = self.world.random.below(self.consumers.len());
        self.forget(number);
        self.consumers[number].away_until =
            self.world.now.tick_ms + self.world.random.below(15_000) as u64;
    }

    /// The coordinator dies with what was not durable, and another replays the rest, from the whole
    /// log or from a snapshot. Connections are cut; consumers ask again.
    fn crash_coordinator(&mut self) {
        for consumer in &mut self.consumers {
            consumer.asked = None;
        }
        self.world.crash();
        for (partition, offset) in self.acknowledged.clone() {
            assert!(
                self.committed(partition) >= offset,
                "an acknowledged commit of {partition} was lost"
            );
        }
    }
}

#[test]
fn groups_keep_their_promises_whatever_happens() {
    let generations = each_seed(SEEDS, |seed| {
        let mut simulation = Simulation::new(World::new(seed, begin));
        simulation.run();
        simulation.generations.len()
    });
    println!("{} generations", generations.iter().sum::<usize>());
}

#[test]
fn groups_keep_their_promises_on_a_disk_that_fails() {
    let simulate = |seed| Simulation::new(World::on_disk(seed, begin)).run();
    each_seed(SEEDS_ON_DISK, simulate);
    assert!(notices_a_bad_disk(simulate));
}
