//! KIP-848 members that join, work, stall, lose answers, crash and come back, topics that change,
//! and a coordinator that crashes and replays, in an order that a seed decides.
//!
//! What must hold, whatever happens: no two members ever read a partition at once, as long as they
//! are members; what a member reads, the coordinator knows; a committed offset that was acknowledged
//! is never lost and never goes back; what a replay gives is what was there; and when disturbances
//! end, every partition has an owner within a few heartbeats.

use std::collections::{BTreeMap, BTreeSet};

use kafka_protocol::messages::consumer_group_heartbeat_request::TopicPartitions;
use kafka_protocol::messages::offset_commit_request::{
    OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use kafka_protocol::messages::{GroupId, TopicName};

use super::group::Membership;
use super::*;
use crate::coordinator::world::{Out, World, each_seed, notices_a_bad_disk};

const STEPS: usize = 800;
const SEEDS: u64 = 150;
const SEEDS_ON_DISK: u64 = 15;
const NAMES: [&str; 3] = ["t0", "t1", "t2"];

type Owned = BTreeSet<(Uuid, i32)>;

/// A consumer: what it knows, what it reads, and what it has asked.
#[derive(Debug, Default)]
struct Consumer {
    instance: Option<StrBytes>,
    regex: bool,
    id: StrBytes,
    epoch: i32,
    /// What it reads.
    owns: Owned,
    /// What it was last told to read, until it does.
    told: Option<Owned>,
    /// Its next heartbeat says everything: it has just joined, or its last answer was lost.
    full: bool,
    /// It has something new to say about what it owns.
    changed: bool,
    asked: Option<(Token, Asked)>,
    /// It does nothing until then: a pause, or a process that is gone.
    away_until: u64,
}

#[derive(Debug, Clone, PartialEq)]
enum Asked {
    Heartbeat,
    Leave,
    Commit {
        topic: Uuid,
        partition: i32,
        offset: i64,
    },
}

struct Simulation {
    world: World<Machine>,
    topics: SharedTopics,
    counts: BTreeMap<&'static str, (Uuid, i32)>,
    consumers: Vec<Consumer>,
    acknowledged: BTreeMap<(StrBytes, i32), i64>,
    moves: usize,
}

fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

fn begin(now: Now) -> Machine {
    Machine::new(Config::default(), now)
}

impl Simulation {
    fn new(mut world: World<Machine>) -> Self {
        let random = &mut world.random;
        let consumers = (0..2 + random.below(4)).map(|number| Consumer {
            instance: random.one_in(3).then(|| text(&format!("static-{number}"))),
            regex: random.one_in(3),
            ..Consumer::default()
        });
        let mut simulation = Self {
            topics: Arc::default(),
            counts: BTreeMap::new(),
            consumers: consumers.collect(),
            acknowledged: BTreeMap::new(),
            moves: 0,
            world,
        };
        simulation.change_topics();
        simulation
    }

    fn run(&mut self) {
        for _ in 0..STEPS {
            match self.world.random.below(100) {
                0 => self.crash_coordinator(),
                1 => self.crash_consumer(),
                2 => self.change_topics(),
                3..20 => self.flush(),
                20..40 => {
                    let longest = if self.world.random.one_in(10) {
                        40_000
                    } else {
                        2_000
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

    /// A topic appears, grows, or is deleted; the next of its name has another id.
    fn change_topics(&mut self) {
        let name = NAMES[self.world.random.below(3)];
        let fresh = Uuid::from_u128(u128::from(self.world.random.next()) | 1 << 100);
        match self.counts.get_mut(name) {
            None => {
                self.counts
                    .insert(name, (fresh, 1 + self.world.random.below(4) as i32));
            }
            Some((_, count)) if self.world.random.one_in(2) => *count += 1,
            Some(_) => {
                self.counts.remove(name);
            }
        }
        let version = self.topics.version() + 1;
        let all = self
            .counts
            .iter()
            .map(|(name, (id, count))| (text(name), *id, *count));
        self.topics = Arc::new(Topics::new(version, all));
    }

    /// Without disturbances every partition is read, by one member, which knows it.
    fn calm_down(&mut self) {
        for consumer in &mut self.consumers {
            consumer.away_until = 0;
            consumer.full |= consumer.asked.take().is_some();
        }
        for _ in 0..200 {
            for number in 0..self.consumers.len() {
                self.adopt(number);
                self.heartbeat(number);
                self.flush();
                self.check();
            }
            self.pass(500);
        }
        let mut owned = Vec::new();
        self.consumers
            .iter()
            .for_each(|c| owned.extend(c.owns.iter().copied()));
        owned.sort_unstable();
        let mut all: Vec<_> = self
            .counts
            .values()
            .flat_map(|(id, count)| (0..*count).map(|partition| (*id, partition)))
            .collect();
        all.sort_unstable();
        assert_eq!(owned, all, "{:?}", self.consumers);
        let group = self
            .world
            .machine
            .groups
            .get(&text("g"))
            .expect("the group");
        let Membership::Consumer(consumer) = &group.membership else {
            panic!("another kind of group");
        };
        assert_eq!(consumer.state_name(), "Stable");
    }

    fn act(&mut self) {
        let number = self.world.random.below(self.consumers.len());
        if self.consumers[number].away_until > self.world.now.tick_ms {
            return;
        }
        if self.world.random.one_in(60) {
            self.consumers[number].away_until =
                self.world.now.tick_ms + self.world.random.below(60_000) as u64;
        } else if self.world.random.one_in(4) {
            self.adopt(number);
        } else if self.consumers[number].asked.is_some() {
            // Its answer was lost, or will be: it asks again, on a new connection.
            if self.world.random.one_in(6) {
                let consumer = &mut self.consumers[number];
                consumer.asked = None;
                consumer.full = true;
            }
        } else if self.world.random.one_in(40) && self.consumers[number].epoch > 0 {
            self.leave(number);
        } else if self.world.random.one_in(3) && !self.consumers[number].owns.is_empty() {
            self.commit(number);
        } else {
            self.heartbeat(number);
        }
    }

    /// Stops reading what is not its any more, then begins to read what is new.
    fn adopt(&mut self, number: usize) {
        let consumer = &mut self.consumers[number];
        let Some(told) = consumer.told.take() else {
            return;
        };
        let kept: Owned = consumer.owns.intersection(&told).copied().collect();
        if kept.len() < consumer.owns.len() && self.world.random.one_in(2) {
            consumer.owns = kept;
            consumer.told = Some(told);
            return;
        }
        if consumer.owns != told {
            self.moves += 1;
        }
        consumer.owns = told;
        consumer.changed = true;
    }

    fn heartbeat(&mut self, number: usize) {
        let consumer = &mut self.consumers[number];
        if consumer.id.is_empty() {
            consumer.id = text(&format!("m{number}-{}", self.world.random.next()));
        }
        let joins = consumer.epoch == 0;
        let full = joins || consumer.full;
        let mut request = ConsumerGroupHeartbeatRequest::default()
            .with_group_id(GroupId(text("g")))
            .with_member_id(consumer.id.clone())
            .with_member_epoch(consumer.epoch)
            .with_instance_id(consumer.instance.clone())
            .with_rebalance_timeout_ms(if full { 20_000 } else { -1 })
            .with_subscribed_topic_names(None)
            .with_topic_partitions(None);
        if full {
            let names = NAMES.map(|name| TopicName(text(name))).to_vec();
            request.subscribed_topic_names = Some(if consumer.regex { Vec::new() } else { names });
            request.subscribed_topic_regex = consumer.regex.then(|| text("t[0-9]"));
        }
        // What it owns, and has not confirmed, it says as soon as it has done what it was told.
        if full || (consumer.changed && consumer.told.is_none()) {
            let held = consumer.owns.iter().map(|(topic, partition)| {
                TopicPartitions::default()
                    .with_topic_id(*topic)
                    .with_partitions(vec![*partition])
            });
            // The answer tells it everything anew: what it was told before, and has not begun to
            // read, the coordinator takes for given up.
            consumer.told = None;
            request.topic_partitions = Some(held.collect());
            consumer.changed = false;
        }
        let client = Client {
            id: text(&format!("c{number}")),
            host: text("/127.0.0.1"),
        };
        let request = Request::ConsumerHeartbeat {
            request,
            version: 1,
            client,
            fresh_id: Uuid::nil(),
            topics: Arc::clone(&self.topics),
        };
        self.ask(number, Asked::Heartbeat, request);
    }

    fn leave(&mut self, number: usize) {
        let consumer = &mut self.consumers[number];
        // It stops reading before it says so.
        consumer.owns.clear();
        consumer.told = None;
        let epoch = match consumer.instance {
            Some(_) if self.world.random.one_in(2) => -2,
            _ => -1,
        };
        let request = ConsumerGroupHeartbeatRequest::default()
            .with_group_id(GroupId(text("g")))
            .with_member_id(consumer.id.clone())
            .with_member_epoch(epoch)
            .with_instance_id(consumer.instance.clone())
            .with_rebalance_timeout_ms(-1)
            .with_subscribed_topic_names(None)
            .with_topic_partitions(None);
        let request = Request::ConsumerHeartbeat {
            request,
            version: 1,
            client: Client::default(),
            fresh_id: Uuid::nil(),
            topics: Arc::clone(&self.topics),
        };
        self.ask(number, Asked::Leave, request);
    }

    fn commit(&mut self, number: usize) {
        let owned: Vec<_> = self.consumers[number].owns.iter().copied().collect();
        let (topic, partition) = owned[self.world.random.below(owned.len())];
        // As a consumer does: from where the group is, on.
        let offset = self.committed(&text(&topic.to_string()), partition).max(-1) + 1;
        let commit = OffsetCommitRequestPartition::default()
            .with_partition_index(partition)
            .with_committed_offset(offset)
            .with_committed_metadata(Some(StrBytes::new()));
        let named = OffsetCommitRequestTopic::default()
            .with_name(TopicName(text(&topic.to_string())))
            .with_partitions(vec![commit]);
        let consumer = &self.consumers[number];
        let request = OffsetCommitRequest::default()
            .with_group_id(GroupId(text("g")))
            .with_member_id(consumer.id.clone())
            .with_generation_id_or_member_epoch(consumer.epoch)
            .with_retention_time_ms(-1)
            .with_topics(vec![named]);
        let request = Request::CommitOffsets {
            request,
            version: 9,
        };
        let asked = Asked::Commit {
            topic,
            partition,
            offset,
        };
        self.ask(number, asked, request);
    }

    fn committed(&self, topic: &StrBytes, partition: i32) -> i64 {
        let group = self.world.machine.groups.get(&text("g"));
        let found = group.and_then(|group| {
            let mut offsets = group.offsets.iter();
            offsets.find(|(t, p, _)| *t == topic && *p == partition)
        });
        found.map_or(-1, |(_, _, committed)| committed.offset)
    }

    fn ask(&mut self, number: usize, asked: Asked, request: Request) {
        let token = self.world.ask(request);
        self.consumers[number].asked = Some((token, asked));
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
            (Asked::Heartbeat, Response::ConsumerHeartbeat(response)) => {
                self.heard(number, &response);
            }
            (Asked::Leave, Response::ConsumerHeartbeat(_)) => self.forget(number),
            (
                Asked::Commit {
                    topic,
                    partition,
                    offset,
                },
                Response::CommitOffsets(response),
            ) => {
                if response.topics[0].partitions[0].error_code == 0 {
                    let key = (text(&topic.to_string()), *partition);
                    let best = self.acknowledged.entry(key).or_insert(-1);
                    *best = (*best).max(*offset);
                }
            }
            (asked, response) => panic!("{asked:?} was answered with {response:?}"),
        }
    }

    fn heard(&mut self, number: usize, response: &ConsumerGroupHeartbeatResponse) {
        let consumer = &mut self.consumers[number];
        match ResponseError::try_from_code(response.error_code) {
            None => {
                consumer.epoch = response.member_epoch;
                consumer.full = false;
                if let Some(assignment) = &response.assignment {
                    let topics = assignment.topic_partitions.iter();
                    let told = topics.flat_map(|t| t.partitions.iter().map(|p| (t.topic_id, *p)));
                    consumer.told = Some(told.collect());
                }
            }
            Some(ResponseError::FencedMemberEpoch) => {
                // It gives everything up and comes again.
                consumer.owns.clear();
                consumer.told = None;
                consumer.epoch = 0;
            }
            Some(
                ResponseError::UnknownMemberId
                | ResponseError::FencedInstanceId
                | ResponseError::GroupIdNotFound,
            ) => self.forget(number),
            // The place of its last life is not free yet.
            Some(ResponseError::UnreleasedInstanceId) => {}
            Some(other) => panic!("unexpected {other:?}"),
        }
    }

    fn forget(&mut self, number: usize) {
        let consumer = &mut self.consumers[number];
        *consumer = Consumer {
            instance: consumer.instance.take(),
            regex: consumer.regex,
            away_until: consumer.away_until,
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
    /// log or from a snapshot. Connections are cut; consumers ask again, in full.
    fn crash_coordinator(&mut self) {
        for consumer in &mut self.consumers {
            if consumer.asked.take().is_some() {
                consumer.full = true;
            }
        }
        self.world.crash();
        for ((topic, partition), offset) in self.acknowledged.clone() {
            assert!(
                self.committed(&topic, partition) >= offset,
                "an acknowledged commit of {partition} was lost"
            );
        }
    }

    /// Who is a member reads only what nobody else reads.
    fn check(&self) {
        let Some(Membership::Consumer(group)) = self
            .world
            .machine
            .groups
            .get(&text("g"))
            .map(|group| &group.membership)
        else {
            return;
        };
        let mut readers: BTreeMap<(Uuid, i32), &StrBytes> = BTreeMap::new();
        for consumer in self.consumers.iter().filter(|c| group.has_member(&c.id)) {
            for partition in &consumer.owns {
                if let Some(other) = readers.insert(*partition, &consumer.id) {
                    panic!("{other:?} and {:?} both read {partition:?}", consumer.id);
                }
                assert!(
                    group.holds(&consumer.id, *partition),
                    "{:?} reads {partition:?}, which the coordinator does not know",
                    consumer.id
                );
            }
        }
    }
}

#[test]
fn consumer_groups_keep_their_promises_whatever_happens() {
    let moves = each_seed(SEEDS, |seed| {
        let mut simulation = Simulation::new(World::new(seed, begin));
        simulation.run();
        simulation.moves
    });
    println!("{} assignments taken up", moves.iter().sum::<usize>());
}

#[test]
fn consumer_groups_keep_their_promises_on_a_disk_that_fails() {
    let simulate = |seed| Simulation::new(World::on_disk(seed, begin)).run();
    each_seed(SEEDS_ON_DISK, simulate);
    assert!(notices_a_bad_disk(simulate));
}
