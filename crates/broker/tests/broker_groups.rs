//! Rebalances as librdkafka lives them: members that come, stay away, return, and a broker that
//! restarts under them.

#![expect(
    clippy::expect_used,
    clippy::panic,
    reason = "a test that cannot go on has failed"
)]

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use ackwell_broker::{Broker, Config};
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer, ConsumerContext, Rebalance};
use rdkafka::message::Message;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::{ClientConfig, ClientContext, Offset, TopicPartitionList};
use tempfile::TempDir;
use tokio::runtime::Runtime;

/// Longer than anything takes here; a test that waits as long has failed.
const PATIENCE: Duration = Duration::from_secs(40);
const TOPIC: &str = "orders";
const PARTITIONS: i32 = 6;

/// A broker on a runtime of its own, with a topic.
struct Node {
    broker: Option<Broker>,
    runtime: Runtime,
    folder: TempDir,
    address: SocketAddr,
}

impl Node {
    fn start() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let runtime = Runtime::new().expect("a runtime");
        let broker = start_in(&runtime, folder.path(), "127.0.0.1:0");
        let address = broker.local_addr();
        let node = Self {
            broker: Some(broker),
            runtime,
            folder,
            address,
        };
        let admin: AdminClient<DefaultClientContext> =
            node.client().create().expect("an admin client");
        let topic = NewTopic::new(TOPIC, PARTITIONS, TopicReplication::Fixed(1));
        let created = node
            .runtime
            .block_on(admin.create_topics(&[topic], &AdminOptions::new()));
        created.expect("answered")[0].as_ref().expect("created");
        node
    }

    /// Stops, and starts again at the same address.
    fn restart(&mut self) {
        let broker = self.broker.take().expect("running");
        self.runtime.block_on(broker.shutdown()).expect("stops");
        self.broker = Some(start_in(
            &self.runtime,
            self.folder.path(),
            &self.address.to_string(),
        ));
    }

    fn client(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config
            .set("bootstrap.servers", self.address.to_string())
            .set("reconnect.backoff.ms", "10")
            .set("reconnect.backoff.max.ms", "100");
        config
    }

    /// One record to each partition.
    fn send(&self, value: &str) {
        let producer: BaseProducer = self.client().create().expect("a producer");
        for partition in 0..PARTITIONS {
            let record = BaseRecord::<(), str>::to(TOPIC)
                .partition(partition)
                .payload(value);
            producer
                .send(record)
                .map_err(|(error, _)| error)
                .expect("queued");
        }
        producer.flush(PATIENCE).expect("delivered");
    }

    fn member(&self, group: &str, adjust: impl FnOnce(&mut ClientConfig)) -> Member {
        let mut config = self.client();
        config
            .set("group.id", group)
            .set("session.timeout.ms", "2000")
            .set("heartbeat.interval.ms", "100")
            .set("enable.auto.commit", "false")
            .set("auto.offset.reset", "earliest");
        adjust(&mut config);
        Member::start(&config)
    }

    fn committed(&self, group: &str) -> Vec<Offset> {
        let consumer: BaseConsumer = self
            .client()
            .set("group.id", group)
            .create()
            .expect("a consumer");
        let mut wanted = TopicPartitionList::new();
        wanted.add_partition_range(TOPIC, 0, PARTITIONS - 1);
        let committed = consumer
            .committed_offsets(wanted, PATIENCE)
            .expect("answered");
        committed
            .elements()
            .iter()
            .map(|element| element.offset())
            .collect()
    }
}

fn start_in(runtime: &Runtime, folder: &Path, listen: &str) -> Broker {
    let mut config = Config::new(folder);
    config.listen = listen.to_owned();
    runtime.block_on(Broker::start(config)).expect("starts")
}

/// What happened to a consumer.
#[derive(Debug, Default)]
struct Seen {
    owned: BTreeSet<i32>,
    /// How many rebalances gave or took partitions.
    rebalances: usize,
    /// Partitions that were taken away, in all.
    revoked: usize,
    records: usize,
}

#[derive(Clone, Default)]
struct Watch(Arc<Mutex<Seen>>);

impl Watch {
    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.0.lock().expect("not poisoned")
    }
}

impl ClientContext for Watch {}

impl ConsumerContext for Watch {
    fn pre_rebalance(&self, _: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        let partitions = |list: &TopicPartitionList| -> BTreeSet<i32> {
            list.elements()
                .iter()
                .map(|element| element.partition())
                .collect()
        };
        let mut seen = self.seen();
        match rebalance {
            Rebalance::Assign(list) => seen.owned.extend(partitions(list)),
            Rebalance::Revoke(list) => {
                let gone = partitions(list);
                seen.revoked += gone.len();
                seen.owned.retain(|partition| !gone.contains(partition));
            }
            Rebalance::Error(error) => panic!("{error}"),
        }
        seen.rebalances += 1;
    }
}

/// A consumer on a thread of its own, that commits each record before it takes the next.
struct Member {
    watch: Watch,
    stop: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Member {
    fn start(config: &ClientConfig) -> Self {
        let watch = Watch::default();
        let stop = Arc::new(AtomicBool::new(false));
        let consumer: BaseConsumer<Watch> = config
            .create_with_context(watch.clone())
            .expect("a consumer");
        consumer.subscribe(&[TOPIC]).expect("subscribed");
        let thread = std::thread::spawn({
            let (watch, stop) = (watch.clone(), Arc::clone(&stop));
            move || consume(&consumer, &watch, &stop)
        });
        Self {
            watch,
            stop,
            thread,
        }
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.watch.seen()
    }

    fn owns(&self, count: usize) -> bool {
        self.seen().owned.len() == count
    }

    /// Closes the consumer. A dynamic member leaves the group; a static one is just gone.
    fn close(self) {
        self.stop.store(true, Ordering::Release);
        self.thread.join().expect("did not panic");
    }
}

fn consume(consumer: &BaseConsumer<Watch>, watch: &Watch, stop: &AtomicBool) {
    while !stop.load(Ordering::Acquire) {
        // Errors are the connection's, while the broker restarts; librdkafka goes on by itself.
        if let Some(Ok(record)) = consumer.poll(Duration::from_millis(20)) {
            let _ = record.payload();
            watch.seen().records += 1;
            let _ = consumer.commit_message(&record, CommitMode::Sync);
        }
    }
}

fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "not in time: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_member_that_is_gone_without_a_word_is_replaced_after_its_session() {
    let node = Node::start();
    // A static member does not leave when it is closed: to the group, it is a process that died.
    let dies = node.member("g", |config| {
        config.set("group.instance.id", "dies");
    });
    let stays = node.member("g", |_| {});
    eventually("shared", || dies.owns(3) && stays.owns(3));
    dies.close();
    let gone = Instant::now();
    eventually("taken over", || stays.owns(6));
    assert!(
        gone.elapsed() > Duration::from_millis(1_000),
        "its session was waited for"
    );
    node.send("after");
    eventually("all partitions are read", || stays.seen().records == 6);
    stays.close();
}

#[test]
fn a_member_that_leaves_is_replaced_at_once() {
    let node = Node::start();
    let patient = |config: &mut ClientConfig| {
        config.set("session.timeout.ms", "60000");
    };
    let leaves = node.member("g", patient);
    let stays = node.member("g", patient);
    eventually("shared", || leaves.owns(3) && stays.owns(3));
    leaves.close();
    let gone = Instant::now();
    eventually("taken over", || stays.owns(6));
    assert!(
        gone.elapsed() < Duration::from_secs(10),
        "no session was waited for"
    );
    stays.close();
}

#[test]
fn cooperative_members_keep_what_they_need_not_give() {
    let node = Node::start();
    let cooperative = |config: &mut ClientConfig| {
        config.set("partition.assignment.strategy", "cooperative-sticky");
    };
    let first = node.member("g", cooperative);
    eventually("alone", || first.owns(6));
    let second = node.member("g", cooperative);
    eventually("shared", || first.owns(3) && second.owns(3));
    assert_eq!(first.seen().revoked, 3, "three were never taken from it");
    second.close();
    eventually("alone again", || first.owns(6));
    assert_eq!(first.seen().revoked, 3);
    first.close();
}

#[test]
fn a_static_member_restarts_without_a_rebalance() {
    let node = Node::start();
    let named = |name: &'static str| {
        move |config: &mut ClientConfig| {
            config
                .set("group.instance.id", name)
                .set("session.timeout.ms", "30000");
        }
    };
    let restarts = node.member("g", named("one"));
    let other = node.member("g", named("two"));
    eventually("shared", || restarts.owns(3) && other.owns(3));
    let had = restarts.seen().owned.clone();
    let rebalances = other.seen().rebalances;
    restarts.close();
    let restarted = node.member("g", named("one"));
    eventually("back", || restarted.owns(3));
    assert_eq!(restarted.seen().owned, had);
    node.send("after");
    eventually("all read", || {
        restarted.seen().records + other.seen().records == 6
    });
    assert_eq!(
        other.seen().rebalances,
        rebalances,
        "the other did not notice"
    );
    restarted.close();
    other.close();
}

#[test]
fn a_group_goes_on_over_a_restart_of_the_broker() {
    let mut node = Node::start();
    let members = [node.member("g", |_| {}), node.member("g", |_| {})];
    eventually("shared", || members.iter().all(|member| member.owns(3)));
    node.send("before");
    let records = || {
        members
            .iter()
            .map(|member| member.seen().records)
            .sum::<usize>()
    };
    eventually("read", || records() == 6);
    eventually("committed", || {
        node.committed("g") == vec![Offset::Offset(1); 6]
    });
    let rebalances: Vec<_> = members
        .iter()
        .map(|member| member.seen().rebalances)
        .collect();

    node.restart();
    node.send("after");
    eventually("read on", || records() == 12);
    eventually("committed", || {
        node.committed("g") == vec![Offset::Offset(2); 6]
    });
    let after: Vec<_> = members
        .iter()
        .map(|member| member.seen().rebalances)
        .collect();
    assert_eq!(after, rebalances, "the members are those of the log");
    members.into_iter().for_each(Member::close);
}

/// What the consumer protocol needs: its timeouts are the broker's.
fn told_by_the_broker(config: &mut ClientConfig) {
    config
        .remove("session.timeout.ms")
        .remove("heartbeat.interval.ms")
        .set("group.protocol", "consumer");
}

#[test]
fn a_service_changes_to_the_consumer_protocol_and_back_by_a_rolling_restart() {
    for strategy in ["range", "cooperative-sticky"] {
        let node = Node::start();
        let agreeing = |config: &mut ClientConfig| {
            config.set("partition.assignment.strategy", strategy);
        };
        let mut sent = 0;
        let mut send = |members: &[&Member]| {
            let read = |members: &[&Member]| -> usize {
                members.iter().map(|member| member.seen().records).sum()
            };
            let before = read(members);
            node.send("at rest");
            sent += 1;
            eventually("read", || read(members) - before == 6);
            eventually("committed", || {
                node.committed("g") == vec![Offset::Offset(sent); 6]
            });
        };
        let old = [node.member("g", agreeing), node.member("g", agreeing)];
        eventually("shared", || old.iter().all(|member| member.owns(3)));
        send(&[&old[0], &old[1]]);

        let first = node.member("g", told_by_the_broker);
        eventually("shared by both protocols", || {
            first.owns(2) && old.iter().all(|member| member.owns(2))
        });
        send(&[&first, &old[0], &old[1]]);
        let [one, two] = old;
        one.close();
        let second = node.member("g", told_by_the_broker);
        two.close();
        eventually("changed", || first.owns(3) && second.owns(3));
        send(&[&first, &second]);

        let back = node.member("g", agreeing);
        eventually("shared again", || {
            [&first, &second, &back].iter().all(|member| member.owns(2))
        });
        first.close();
        second.close();
        eventually("changed back", || back.owns(6));
        send(&[&back]);
        back.close();
    }
}

#[test]
fn many_members_come_and_go_and_every_partition_has_one_owner() {
    let node = Node::start();
    let members: Vec<_> = (0..6).map(|_| node.member("g", |_| {})).collect();
    eventually("one each", || members.iter().all(|member| member.owns(1)));
    let owned: BTreeSet<_> = members
        .iter()
        .flat_map(|member| member.seen().owned.clone())
        .collect();
    assert_eq!(owned.len(), 6);
    let mut members = members.into_iter();
    let stays = members.next().expect("the first");
    members.for_each(Member::close);
    eventually("alone", || stays.owns(6));
    stays.close();
}
