//! A running container is paused, sought, watched and stopped.
#![allow(clippy::expect_used, reason = "helpers of tests")]

mod container_support;

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use ackwell::container::{
    AssignedPartition, Container, ControlError, Notice, RebalanceListener, TopicPartition,
};
use ackwell::core::Concurrency;
use ackwell::core::seek::SeekTo;
use container_support::{Call, Cluster, Log, logged, run};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;

fn quick(_: Call) -> BoxFuture<'static, Result<(), ackwell::Failure>> {
    async { Ok(()) }.boxed()
}

async fn until(what: &str, condition: impl AsyncFn() -> bool) {
    let started = Instant::now();
    while !condition().await {
        assert!(
            started.elapsed() < Duration::from_secs(40),
            "waited for {what}"
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn owns(container: &Container, count: usize) {
    until("an assignment", async || {
        container.assignment().await.len() == count
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_partition_is_sought_and_its_records_come_again() {
    let cluster = Cluster::start().await;
    let topic = cluster.topic(1).await;
    let records = [("k", "a"), ("k", "b"), ("k", "c"), ("k", "d")];
    cluster.send(&topic, 0, &records).await;
    let log = Arc::new(Log::default());
    let container = run(cluster.listener(&topic, logged(&log, quick))).await;
    let partition = TopicPartition::new(topic.as_str(), 0);
    log.wait_for(4).await;
    cluster.reaches(&topic, 0, 4).await;

    assert_eq!(container.seek(&partition, SeekTo::Offset(2)).await, Ok(2));
    log.wait_for(6).await;
    assert_eq!(container.seek(&partition, SeekTo::Beginning).await, Ok(0));
    log.wait_for(10).await;
    assert_eq!(container.seek(&partition, SeekTo::Last(1)).await, Ok(3));
    log.wait_for(11).await;
    until("the last record's settlement", async || {
        container.assignment().await[0].position == Some(4)
    })
    .await;
    assert_eq!(
        container.seek(&partition, SeekTo::Relative(-2)).await,
        Ok(2)
    );
    log.wait_for(13).await;
    let epoch = SeekTo::Time(ackwell::core::Timestamp::EPOCH);
    assert_eq!(container.seek(&partition, epoch).await, Ok(0));
    log.wait_for(17).await;
    assert_eq!(container.seek(&partition, SeekTo::End).await, Ok(4));
    cluster.send(&topic, 0, &[("k", "e")]).await;
    log.wait_for(18).await;
    cluster.reaches(&topic, 0, 5).await;
    let order: String = log.values().concat();
    assert_eq!(order, "abcdcdabcddcdabcde");

    let refused = container.seek(&partition, SeekTo::Offset(99)).await;
    assert!(
        matches!(refused, Err(ControlError::OutOfRange { .. })),
        "{refused:?}"
    );
    let other = TopicPartition::new(topic.as_str(), 7);
    let refused = container.seek(&other, SeekTo::End).await;
    assert!(
        matches!(refused, Err(ControlError::NotAssigned { .. })),
        "{refused:?}"
    );
    container.stop().await;
    assert_eq!(
        container.seek(&partition, SeekTo::End).await,
        Err(ControlError::Stopped)
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_paused_partition_stays_paused_when_it_goes_and_comes_back() {
    let cluster = Cluster::start().await;
    let topic = cluster.topic(2).await;
    let log = Arc::new(Log::default());
    let spec = cluster.listener(&topic, logged(&log, quick));
    let first = run(spec.clone()).await;
    owns(&first, 2).await;
    for partition in 0..2 {
        let partition = TopicPartition::new(topic.as_str(), partition);
        first.pause_partition(&partition).expect("room for a pause");
    }
    let second = run(spec).await;
    owns(&second, 1).await;
    second.stop().await;
    owns(&first, 2).await;
    assert!(first.assignment().await.iter().all(|found| found.paused));
    cluster.send(&topic, 0, &[("k", "a")]).await;
    cluster.send(&topic, 1, &[("k", "b")]).await;
    // Long enough for a fetch; the records may not come.
    tokio::time::sleep(Duration::from_millis(700)).await;
    assert_eq!(log.values(), [""; 0]);
    first.resume_partition(&TopicPartition::new(topic.as_str(), 1));
    log.wait_for(1).await;
    assert_eq!(log.values(), ["b"]);
    first.resume_partition(&TopicPartition::new(topic.as_str(), 0));
    log.wait_for(2).await;
    first.stop().await;
}

/// Notes what it is told, in order.
#[derive(Default)]
struct Told(Mutex<Vec<(&'static str, Vec<i32>)>>);

impl Told {
    fn note(&self, what: &'static str, partitions: impl Iterator<Item = i32>) {
        let mut partitions: Vec<_> = partitions.collect();
        partitions.sort_unstable();
        self.0.lock().expect("the notes").push((what, partitions));
    }
}

struct Telling(Arc<Told>);

impl RebalanceListener for Telling {
    fn assigned(&self, partitions: Vec<AssignedPartition>) -> BoxFuture<'_, ()> {
        let partitions = partitions
            .into_iter()
            .map(|found| found.partition.partition);
        self.0.note("assigned", partitions);
        async {}.boxed()
    }

    fn revoked_before_commit(&self, partitions: Vec<TopicPartition>) -> BoxFuture<'_, ()> {
        self.0.note(
            "before commit",
            partitions.iter().map(|found| found.partition),
        );
        async {}.boxed()
    }

    fn revoked_after_commit(&self, partitions: Vec<TopicPartition>) -> BoxFuture<'_, ()> {
        self.0.note(
            "after commit",
            partitions.iter().map(|found| found.partition),
        );
        async {}.boxed()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rebalance_listener_hears_of_partitions_that_come_and_go() {
    let cluster = Cluster::start().await;
    let topic = cluster.topic(2).await;
    cluster.send(&topic, 0, &[("k", "a")]).await;
    let (log, told) = (Arc::new(Log::default()), Arc::new(Told::default()));
    let mut spec = cluster.listener(&topic, logged(&log, quick));
    spec.rebalance = Some(Arc::new(Telling(Arc::clone(&told))));
    let container = run(spec).await;
    log.wait_for(1).await;
    container.stop().await;
    cluster.reaches(&topic, 0, 1).await;
    let told = told.0.lock().expect("the notes").clone();
    let expected = ["assigned", "before commit", "after commit"];
    assert_eq!(told, expected.map(|what| (what, vec![0, 1])));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn silence_is_noticed_and_its_end() {
    let cluster = Cluster::start().await;
    let topic = cluster.topic(1).await;
    let (log, kinds) = (
        Arc::new(Log::default()),
        Arc::new(Mutex::new(BTreeSet::new())),
    );
    let mut spec = cluster.listener(&topic, logged(&log, quick));
    spec.notices.idle_after = Some(Duration::from_millis(100));
    spec.notices.partition_idle_after = Some(Duration::from_millis(100));
    let heard = Arc::clone(&kinds);
    spec.notices.listener = Some(Arc::new(move |notice: &Notice| {
        heard.lock().expect("the kinds").insert(notice.kind());
    }));
    let container = run(spec).await;
    let knows = |kind| kinds.lock().expect("the kinds").contains(kind);
    until("silence", async || knows("idle") && knows("partition-idle")).await;
    cluster.send(&topic, 0, &[("k", "a")]).await;
    until("its end", async || {
        knows("no-longer-idle") && knows("partition-no-longer-idle")
    })
    .await;
    container.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drain_of_a_thousand_records_in_work_ends_within_its_limit() {
    let cluster = Cluster::start().await;
    let topic = cluster.topic(1).await;
    let values: Vec<String> = (0..1_000).map(|n| n.to_string()).collect();
    let records: Vec<_> = values.iter().map(|v| (v.as_str(), v.as_str())).collect();
    cluster.send(&topic, 0, &records).await;
    let log = Arc::new(Log::default());
    let mut spec = cluster.listener(
        &topic,
        logged(&log, |_| futures_util::future::pending().boxed()),
    );
    spec.concurrency = Concurrency::ByKey(1_000);
    spec.limits.stop_drain = Duration::from_secs(1);
    let container = run(spec).await;
    // Keys share lanes, so not all of them are in work at once.
    log.wait_for(500).await;
    let started = Instant::now();
    container.stop().await;
    let took = started.elapsed();
    assert!(took < Duration::from_secs(6), "{took:?}");
    assert!(cluster.committed(&topic, 0) <= 0, "nothing was settled");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_container_that_is_stopped_while_it_joins_ends_soon() {
    let cluster = Cluster::start().await;
    let topic = cluster.topic(1).await;
    let log = Arc::new(Log::default());
    for wait in [0, 5, 50, 150, 400] {
        let container = run(cluster.listener(&topic, logged(&log, quick))).await;
        tokio::time::sleep(Duration::from_millis(wait)).await;
        let ended = tokio::time::timeout(Duration::from_secs(30), container.stop()).await;
        assert!(ended.is_ok(), "stopped after {wait} ms");
    }
}
