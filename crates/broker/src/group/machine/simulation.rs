//! Members that join, work, stall, crash and come back, and a coordinator that crashes and replays,
//! in an order that a seed decides.
//!
//! What must hold, whatever happens: no two members of a generation own a partition; a committed
//! offset that was acknowledged is never lost and never goes back; every request is answered; and
//! what a replay gives is what was there. A failing seed is printed; `ACKWELL_SEED` replays it.

use std::collections::{BTreeMap, BTreeSet};

use kafka_protocol::messages::join_group_request::JoinGroupRequestProtocol;
use kafka_protocol::messages::leave_group_request::MemberIdentity;
use kafka_protocol::messages::offset_commit_request::{
    OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use kafka_protocol::messages::sync_group_request::SyncGroupRequestAssignment;
use kafka_protocol::messages::{GroupId, TopicName};

use super::*;

const PARTITIONS: i32 = 6;
const STEPS: usize = 600;
const SEEDS: u64 = 300;

/// A small random generator (splitmix64): the run must be the same for a seed on every machine.
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub(super) fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    pub(super) fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }
}

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
    random: Random,
    machine: Machine,
    now: Now,
    log: Vec<Change>,
    /// Records up to here are durable; a crash takes the rest.
    durable: usize,
    /// Replies, and how much of the log must be durable for them to go out.
    held: Vec<(usize, Token, Response)>,
    consumers: Vec<Consumer>,
    next: u64,
    /// Who was told to own a partition in a generation.
    owners: BTreeMap<(i32, i32), StrBytes>,
    acknowledged: BTreeMap<i32, i64>,
    generations: BTreeSet<i32>,
}

fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

fn config() -> Config {
    Config {
        new_member_timeout_ms: 20_000,
        ..Config::default()
    }
}

impl Simulation {
    fn new(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let now = Now {
            tick_ms: 0,
            unix_ms: 1_700_000_000_000,
        };
        let consumers = (0..2 + random.below(4)).map(|number| Consumer {
            instance: random.one_in(3).then(|| text(&format!("static-{number}"))),
            ..Consumer::default()
        });
        Self {
            machine: Machine::new(config(), now),
            now,
            log: Vec::new(),
            durable: 0,
            held: Vec::new(),
            consumers: consumers.collect(),
            next: 0,
            owners: BTreeMap::new(),
            acknowledged: BTreeMap::new(),
            generations: BTreeSet::new(),
            random,
        }
    }

    fn run(&mut self) {
        for _ in 0..STEPS {
            match self.random.below(100) {
                0 => self.crash_coordinator(),
                1 => self.crash_consumer(),
                2..20 => self.flush(),
                20..40 => {
                    let longest = if self.random.one_in(10) {
                        12_000
                    } else {
                        1_500
                    };
                    let ms = self.random.below(longest);
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
        assert!(self.held.is_empty());
    }

    fn act(&mut self) {
        let number = self.random.below(self.consumers.len() as u64) as usize;
        if self.consumers[number].away_until > self.now.tick_ms {
            return;
        }
        if self.random.one_in(60) {
            self.consumers[number].away_until = self.now.tick_ms + self.random.below(30_000);
        } else if self.random.one_in(40) && self.consumers[number].asked.is_none() {
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
            if calm || self.now.tick_ms < since + 40_000 {
                return;
            }
        }
        if !consumer.stable {
            return self.join(number);
        }
        if !calm && self.random.one_in(2) {
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
        self.next += 1;
        let token = Token(self.next);
        self.consumers[number].asked = Some((token, asked, self.now.tick_ms));
        self.machine.on_request(self.now, token, request);
        self.collect();
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
        let fresh_id = Uuid::from_u128(u128::from(self.random.next()));
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
        let partition = owned[self.random.below(owned.len() as u64) as usize];
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
        let group = self.machine.groups.get(&text("g"));
        let found = group.and_then(|g| {
            g.offsets
                .iter()
                .find(|(_, p, _)| *p == partition)
                .map(|(_, _, o)| o.offset)
        });
        found.unwrap_or(-1)
    }

    fn pass(&mut self, ms: u64) {
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

    fn collect(&mut self) {
        let output = self.machine.take_output();
        self.log.extend(output.changes);
        let end = self.log.len();
        self.held.extend(
            output
                .replies
                .into_iter()
                .map(|(token, response)| (end, token, response)),
        );
        self.deliver();
    }

    fn flush(&mut self) {
        self.durable = self.log.len();
        self.deliver();
    }

    fn deliver(&mut self) {
        let durable = self.durable;
        let (free, held) =
            std::mem::take(&mut self.held)
                .into_iter()
                .partition(|(needs, _, response)| {
                    *needs <= durable || matches!(response, Response::Heartbeat(_))
                });
        self.held = held;
        let free: Vec<(usize, Token, Response)> = free;
        for (_, token, response) in free {
            let asker = self
                .consumers
                .iter()
                .position(|c| c.asked.as_ref().is_some_and(|(t, ..)| *t == token));
            if let Some(number) = asker
                && let Some((_, asked, _)) = self.consumers[number].asked.take()
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
        let number = self.random.below(self.consumers.len() as u64) as usize;
        self.forget(number);
        self.consumers[number].away_until = self.now.tick_ms + self.random.below(15_000);
    }

    /// The coordinator dies with what was not durable, and another replays the rest, from the whole
    /// log or from a snapshot. Connections are cut; consumers ask again.
    fn crash_coordinator(&mut self) {
        let survives = self.durable
            + self
                .random
                .below((self.log.len() - self.durable) as u64 + 1) as usize;
        self.log.truncate(survives);
        self.durable = survives;
        self.held.clear();
        for consumer in &mut self.consumers {
            consumer.asked = None;
        }
        self.machine = replayed(&self.log, self.now);
        for (partition, offset) in self.acknowledged.clone() {
            assert!(
                self.committed(partition) >= offset,
                "an acknowledged commit of {partition} was lost"
            );
        }
        let live: Vec<_> = self.machine.live().collect();
        let again = replayed(&live, self.now);
        assert_eq!(
            again.live().collect::<Vec<_>>(),
            live,
            "a snapshot is the whole log"
        );
        if self.random.one_in(2) {
            self.log = live;
            self.durable = self.log.len();
            self.machine = again;
        }
    }
}

fn replayed(log: &[Change], now: Now) -> Machine {
    let mut machine = Machine::new(config(), now);
    for change in log {
        machine.replay(change.clone());
    }
    machine.replay_done(now);
    machine
}

#[test]
fn groups_keep_their_promises_whatever_happens() {
    let seeds = match std::env::var("ACKWELL_SEED") {
        Ok(seed) => seed
            .parse()
            .map(|seed: u64| seed..seed + 1)
            .expect("ACKWELL_SEED is a number"),
        Err(_) => 0..SEEDS,
    };
    let mut generations = 0;
    for seed in seeds {
        let ran = std::panic::catch_unwind(|| {
            let mut simulation = Simulation::new(seed);
            simulation.run();
            simulation.generations.len()
        });
        match ran {
            Ok(count) => generations += count,
            Err(panic) => {
                println!("seed {seed} failed; replay it with ACKWELL_SEED={seed}");
                std::panic::resume_unwind(panic);
            }
        }
    }
    println!("{generations} generations");
}
