//! Partitions change hands, by every way in which a group deals them out.

#![allow(clippy::expect_used, clippy::panic, reason = "a test may fail")]

mod container_support;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use ackwell::container::{
    AssignedPartition, Container, End, Observation, Observer, RebalanceListener, Spec,
    TopicPartition,
};
use ackwell::failure::Failure;
use container_support::raw::remove_member;
use container_support::{Call, Cluster, Log, logged, run};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use rdkafka::admin::{AdminClient, AdminOptions, NewPartitions};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::producer::{FutureProducer, FutureRecord};
use tokio::sync::Notify;
use tokio::task::JoinHandle;

/// How long a condition is awaited before the test fails.
const PATIENCE: Duration = Duration::from_secs(40);

/// So long that no member of a busy machine is taken for dead.
const LONG_SESSION: (&str, &str) = ("session.timeout.ms", "30000");

type Settings = [(&'static str, &'static str)];

async fn until(what: &str, condition: impl AsyncFn() -> bool) {
    let started = Instant::now();
    while !condition().await {
        assert!(started.elapsed() < PATIENCE, "waited for {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn quick(_: Call) -> BoxFuture<'static, Result<(), Failure>> {
    async { Ok(()) }.boxed()
}

/// The partitions that a member owns, in order.
async fn owned(container: &Container) -> Vec<i32> {
    let owned = container.assignment().await;
    let mut owned: Vec<_> = owned.iter().map(|one| one.partition.partition).collect();
    owned.sort_unstable();
    owned
}

async fn owns(container: &Container, count: usize) {
    let what = format!("{count} partitions");
    until(&what, async || owned(container).await.len() == count).await;
}

/// What a member was told of its partitions and said of its health, in order.
#[derive(Default)]
struct Told {
    rebalances: Mutex<Vec<(&'static str, Vec<i32>)>>,
    problem: Mutex<Option<String>>,
}

impl Told {
    fn note(&self, what: &'static str, partitions: impl Iterator<Item = i32>) {
        let mut partitions: Vec<_> = partitions.collect();
        partitions.sort_unstable();
        let mut rebalances = self.rebalances.lock().expect("the notes");
        rebalances.push((what, partitions));
    }

    fn rebalances(&self) -> Vec<(&'static str, Vec<i32>)> {
        self.rebalances.lock().expect("the notes").clone()
    }

    fn heard(&self, what: &str) -> bool {
        self.rebalances().iter().any(|(told, _)| *told == what)
    }

    fn problem(&self) -> String {
        let problem = self.problem.lock().expect("the problem");
        problem.clone().unwrap_or_default()
    }
}

/// Listens and observes.
struct Telling(Arc<Told>);

impl RebalanceListener for Telling {
    fn assigned(&self, partitions: Vec<AssignedPartition>) -> BoxFuture<'_, ()> {
        let partitions = partitions.into_iter().map(|one| one.partition.partition);
        self.0.note("assigned", partitions);
        async {}.boxed()
    }

    fn revoked_after_commit(&self, partitions: Vec<TopicPartition>) -> BoxFuture<'_, ()> {
        let partitions = partitions.iter().map(|one| one.partition);
        self.0.note("revoked", partitions);
        async {}.boxed()
    }

    fn lost(&self, partitions: Vec<TopicPartition>) -> BoxFuture<'_, ()> {
        let partitions = partitions.iter().map(|one| one.partition);
        self.0.note("lost", partitions);
        async {}.boxed()
    }
}

impl Observer for Telling {
    fn observe(&self, observation: &Observation<'_>) {
        if let Observation::Health { problem } = observation {
            *self.0.problem.lock().expect("the problem") = problem.map(str::to_owned);
        }
    }
}

/// Starts a member with these settings.
async fn member(spec: &Spec, settings: &Settings) -> (Container, Arc<Told>) {
    let told = Arc::new(Told::default());
    let mut spec = spec.clone();
    for (name, value) in settings {
        spec.consumer.set(*name, *value);
    }
    spec.rebalance = Some(Arc::new(Telling(Arc::clone(&told))));
    spec.observer = Arc::new(Telling(Arc::clone(&told)));
    (run(spec).await, told)
}

/// A partition with its owner, and another one.
type Met = (i32, &'static str, &'static str);

/// Who works on which partition, and where two were met: noted, because a handler's panic would
/// only be dead-lettered.
#[derive(Clone, Default)]
struct InWork {
    owners: Arc<Mutex<BTreeMap<i32, &'static str>>>,
    met: Arc<Mutex<Vec<Met>>>,
}

impl InWork {
    fn enter(&self, partition: i32, who: &'static str) {
        let mut owners = self.owners.lock().expect("who works");
        if let Some(other) = owners.insert(partition, who) {
            self.met
                .lock()
                .expect("who met")
                .push((partition, other, who));
        }
    }

    fn leave(&self, partition: i32) {
        self.owners.lock().expect("who works").remove(&partition);
    }

    /// Partitions on which two worked at the same time, with both.
    fn met(&self) -> Vec<(i32, &'static str, &'static str)> {
        self.met.lock().expect("who met").clone()
    }
}

/// A listener whose handler notes whether it is alone on its partition.
fn alone(
    cluster: &Cluster,
    topic: &str,
    log: &Arc<Log>,
    in_work: &InWork,
    who: &'static str,
) -> Spec {
    let in_work = in_work.clone();
    let handler = logged(log, move |call| {
        let in_work = in_work.clone();
        async move {
            in_work.enter(call.partition, who);
            tokio::time::sleep(Duration::from_millis(1)).await;
            in_work.leave(call.partition);
            Ok(())
        }
        .boxed()
    });
    cluster.listener(topic, handler)
}

/// Sends record after record to each of the partitions until it is told to end; returns how many
/// each has then.
fn stream(cluster: &Cluster, topic: &str, partitions: i32) -> (Arc<AtomicBool>, JoinHandle<i64>) {
    let producer: FutureProducer = cluster
        .client()
        .set("enable.idempotence", "true")
        .create()
        .expect("a producer");
    let (topic, enough) = (topic.to_owned(), Arc::new(AtomicBool::new(false)));
    let told = Arc::clone(&enough);
    let sending = tokio::spawn(async move {
        let mut sent = 0;
        while !told.load(Ordering::Acquire) {
            let value = sent.to_string();
            for partition in 0..partitions {
                let record = FutureRecord::to(&topic).partition(partition);
                let record = record.key("k").payload(&value);
                let sent = producer.send(record, PATIENCE).await;
                sent.expect("the record is written");
            }
            sent += 1;
        }
        sent
    });
    (enough, sending)
}

/// A second member joins and leaves again, while records come. Returns what the first was told.
async fn a_member_comes_and_goes(cluster: &Cluster, prepare: impl Fn(&mut Spec)) -> Arc<Told> {
    let topic = cluster.topic(4).await;
    let (log, in_work) = (Arc::new(Log::default()), InWork::default());
    let spec = |who| {
        let mut spec = alone(cluster, &topic, &log, &in_work, who);
        prepare(&mut spec);
        spec
    };
    let (enough, sending) = stream(cluster, &topic, 4);
    let (first, told) = member(&spec("first"), &[]).await;
    log.wait_for(100).await;
    let (second, _) = member(&spec("second"), &[]).await;
    owns(&second, 2).await;
    owns(&first, 2).await;
    log.wait_for(log.calls().len() + 100).await;
    assert_eq!(second.stop().await, End::Stopped);
    owns(&first, 4).await;
    log.wait_for(log.calls().len() + 100).await;
    enough.store(true, Ordering::Release);
    let sent = sending.await.expect("the stream ends");
    for partition in 0..4 {
        cluster.reaches(&topic, partition, sent).await;
    }
    assert_eq!(first.stop().await, End::Stopped);
    assert_eq!(in_work.met(), [], "a partition has one owner");
    for partition in 0..4 {
        let calls = log.calls().into_iter();
        let handled = calls.filter(|call| call.partition == partition);
        let handled: Vec<_> = handled.map(|call| call.offset).collect();
        let all: Vec<_> = (0..sent).collect();
        assert_eq!(handled, all, "partition {partition} in order, once each");
    }
    told
}

/// Is not taken for dead, and hears of rebalances soon.
fn patient(spec: &mut Spec) {
    for (name, value) in [LONG_SESSION, ("heartbeat.interval.ms", "200")] {
        spec.consumer.set(name, value);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn eager_members_come_and_go_under_a_stream_of_records() {
    let cluster = Cluster::start().await;
    let told = a_member_comes_and_goes(&cluster, |spec| {
        patient(spec);
        spec.consumer.set("partition.assignment.strategy", "range");
    })
    .await;
    let all = vec![0, 1, 2, 3];
    assert_eq!(
        told.rebalances()[..2],
        [("assigned", all.clone()), ("revoked", all)]
    );
    assert!(!told.heard("lost"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cooperative_members_come_and_go_under_a_stream_of_records() {
    let cluster = Cluster::start().await;
    let told = a_member_comes_and_goes(&cluster, |spec| {
        patient(spec);
        let name = "partition.assignment.strategy";
        spec.consumer.set(name, "cooperative-sticky");
    })
    .await;
    let rebalances = told.rebalances();
    let revoked = rebalances.iter().find(|(what, _)| *what == "revoked");
    let kept = 4 - revoked.map_or(4, |(_, partitions)| partitions.len());
    assert_eq!(kept, 2, "what stays is not interrupted: {rebalances:?}");
    assert!(!told.heard("lost"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_the_broker_assigns_members_come_and_go_without_losing_anything() {
    let cluster = Cluster::start().await;
    let told = a_member_comes_and_goes(&cluster, |spec| {
        spec.consumer.remove("session.timeout.ms");
        spec.consumer.set("group.protocol", "consumer");
    })
    .await;
    assert!(!told.heard("lost"));
}

/// More members than partitions: who gets nothing is in the group all the same.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_without_partitions_is_healthy_where_the_broker_assigns() {
    let cluster = Cluster::start().await;
    let topic = cluster.topic(1).await;
    let mut spec = cluster.listener(&topic, logged(&Arc::default(), quick));
    spec.consumer.remove("session.timeout.ms");
    let by_broker = [
        ("group.protocol", "consumer"),
        ("statistics.interval.ms", "500"),
    ];
    let (first, _) = member(&spec, &by_broker).await;
    owns(&first, 1).await;
    let (second, told) = member(&spec, &by_broker).await;
    // Longer than a member may be silent; nothing may happen.
    tokio::time::sleep(Duration::from_secs(22)).await;
    assert_eq!(told.problem(), "");
    first.stop().await;
    owns(&second, 1).await;
    second.stop().await;
}

/// Eager, since every rebalance is told then; with heartbeats that hear of a fence soon.
fn resident(id: &'static str) -> [(&'static str, &'static str); 4] {
    [
        ("group.instance.id", id),
        ("partition.assignment.strategy", "range"),
        ("heartbeat.interval.ms", "200"),
        LONG_SESSION,
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_static_member_comes_back_to_its_partitions_without_a_rebalance() {
    let cluster = Cluster::start().await;
    let topic = cluster.topic(4).await;
    let log = Arc::new(Log::default());
    let spec = cluster.listener(&topic, logged(&log, quick));
    let (first, told) = member(&spec, &resident("a")).await;
    owns(&first, 4).await;
    let (second, _) = member(&spec, &resident("b")).await;
    owns(&second, 2).await;
    owns(&first, 2).await;
    let (before, its_own) = (told.rebalances(), owned(&second).await);
    assert_eq!(second.stop().await, End::Stopped);
    // They wait for it.
    for partition in 0..4 {
        cluster.send(&topic, partition, &[("k", "a")]).await;
    }
    log.wait_for(2).await;
    let (second, _) = member(&spec, &resident("b")).await;
    log.wait_for(4).await;
    for partition in 0..4 {
        cluster.reaches(&topic, partition, 1).await;
    }
    assert_eq!(owned(&second).await, its_own);
    assert_eq!(told.rebalances(), before, "the other member is left alone");
    assert_eq!(log.calls().len(), 4);
    first.stop().await;
    second.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_members_with_one_instance_id_the_first_ends_and_says_why() {
    let cluster = Cluster::start().await;
    let topic = cluster.topic(2).await;
    let log = Arc::new(Log::default());
    let spec = cluster.listener(&topic, logged(&log, quick));
    let (first, told) = member(&spec, &resident("a")).await;
    owns(&first, 2).await;
    let (second, _) = member(&spec, &resident("a")).await;
    let ended = tokio::time::timeout(PATIENCE, first.wait()).await;
    let Ok(End::Failed(reason)) = ended else {
        panic!("the first is fenced: {ended:?}");
    };
    assert!(reason.contains("`group.instance.id`"), "{reason}");
    assert_eq!(told.problem(), reason);
    assert!(!first.is_running());
    owns(&second, 2).await;
    for partition in 0..2 {
        cluster.send(&topic, partition, &[("k", "a")]).await;
        cluster.reaches(&topic, partition, 1).await;
    }
    assert_eq!(log.calls().len(), 2);
    assert_eq!(second.stop().await, End::Stopped);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn partitions_that_are_added_are_read_from_their_beginning() {
    let cluster = Cluster::start().await;
    let topic = cluster.topic(1).await;
    cluster.send(&topic, 0, &[("k", "a")]).await;
    let log = Arc::new(Log::default());
    let spec = cluster.listener(&topic, logged(&log, quick));
    let refresh = [("topic.metadata.refresh.interval.ms", "1000")];
    let (container, told) = member(&spec, &refresh).await;
    log.wait_for(1).await;
    let admin: AdminClient<DefaultClientContext> = cluster.client().create().expect("an admin");
    let more = [NewPartitions::new(&topic, 3)];
    let made = admin.create_partitions(&more, &AdminOptions::new()).await;
    for made in made.expect("an answer") {
        made.expect("the partitions are made");
    }
    let there = async || {
        let metadata = tokio::task::block_in_place(|| {
            admin
                .inner()
                .fetch_metadata(Some(&topic), PATIENCE)
                .expect("metadata")
        });
        metadata.topics()[0].partitions().len() == 3
    };
    until("the new partitions", there).await;
    for partition in 1..3 {
        cluster
            .send(&topic, partition, &[("k", "b"), ("k", "c")])
            .await;
    }
    log.wait_for(5).await;
    for (partition, position) in [(0, 1), (1, 2), (2, 2)] {
        cluster.reaches(&topic, partition, position).await;
    }
    assert_eq!(owned(&container).await, [0, 1, 2]);
    assert_eq!(log.calls().len(), 5);
    assert!(!told.heard("revoked"), "what it had is not interrupted");
    container.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_handler_slower_than_the_poll_interval_is_not_rebalanced() {
    let cluster = Cluster::start().await;
    let topic = cluster.topic(2).await;
    cluster
        .send(&topic, 0, &[("k", "slow"), ("k", "next")])
        .await;
    let log = Arc::new(Log::default());
    let handler = logged(&log, |call| {
        async move {
            if call.value == "slow" {
                tokio::time::sleep(Duration::from_secs(8)).await;
            }
            Ok(())
        }
        .boxed()
    });
    let spec = cluster.listener(&topic, handler);
    // The least that Kafka's brokers take for a session, and that the client takes for a poll.
    let least = [
        ("session.timeout.ms", "6000"),
        ("max.poll.interval.ms", "6000"),
    ];
    let (container, told) = member(&spec, &least).await;
    log.wait_for(1).await;
    cluster.send(&topic, 1, &[("k", "elsewhere")]).await;
    cluster.reaches(&topic, 1, 1).await;
    cluster.reaches(&topic, 0, 2).await;
    assert_eq!(told.rebalances(), [("assigned", vec![0, 1])]);
    assert_eq!(log.values(), ["slow", "elsewhere", "next"]);
    container.stop().await;
}

/// The only member's id in the group of a topic.
fn member_id(cluster: &Cluster, topic: &str) -> String {
    let consumer: BaseConsumer = cluster.client().create().expect("a client");
    let group = format!("g-{topic}");
    let found = consumer.fetch_group_list(Some(&group), PATIENCE);
    let found = found.expect("the group");
    found.groups()[0].members()[0].id().to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_the_group_took_for_dead_hears_that_its_partitions_are_lost() {
    let cluster = Cluster::start().await;
    let topic = cluster.topic(1).await;
    cluster.send(&topic, 0, &[("k", "a"), ("k", "b")]).await;
    let (log, gone) = (Arc::new(Log::default()), Arc::new(Notify::new()));
    let cancelled = Arc::clone(&gone);
    let stuck = Arc::new(AtomicBool::new(true));
    let handler = logged(&log, move |_| {
        let (cancelled, stuck) = (Arc::clone(&cancelled), stuck.swap(false, Ordering::AcqRel));
        async move {
            if stuck {
                let _told = Dropped(cancelled);
                std::future::pending::<()>().await;
            }
            Ok(())
        }
        .boxed()
    });
    let spec = cluster.listener(&topic, handler);
    let (container, told) = member(&spec, &[("heartbeat.interval.ms", "200")]).await;
    log.wait_for(1).await;
    let id = tokio::task::block_in_place(|| member_id(&cluster, &topic));
    tokio::task::block_in_place(|| {
        for server in cluster.servers().split(',') {
            remove_member(server, &format!("g-{topic}"), &id);
        }
    });
    let ended = tokio::time::timeout(PATIENCE, gone.notified()).await;
    assert!(ended.is_ok(), "what was in work is cancelled");
    cluster.reaches(&topic, 0, 2).await;
    let expected = ["assigned", "lost", "assigned"];
    assert_eq!(told.rebalances(), expected.map(|what| (what, vec![0])));
    assert_eq!(log.values(), ["a", "a", "b"]);
    container.stop().await;
}

/// Tells when it is dropped.
struct Dropped(Arc<Notify>);

impl Drop for Dropped {
    fn drop(&mut self) {
        self.0.notify_one();
    }
}
