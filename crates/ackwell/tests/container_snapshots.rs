//! A listener with thousands of gaps is killed: a restart repeats exactly what was unsettled.
//!
//! The child is this test binary again, running one ignored test with its topic in its
//! environment.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test fails by panicking, and its child talks to it"
)]

mod container_support;

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use ackwell::AckMode;
use ackwell::container::{Origin, Snapshot, SnapshotStore, Snapshots, Spec, StoreError, Wanted};
use ackwell::core::Concurrency;
use container_support::{Call, Cluster, Log, logged, run};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::sync::Notify;

const RECORDS: usize = 20_000;
const KEYS: usize = 8;
const BOOTSTRAP: &str = "ACKWELL_SNAPSHOTS_BOOTSTRAP";
const TOPIC: &str = "ACKWELL_SNAPSHOTS_TOPIC";

/// Records of this key are not handled by the first listener.
fn is_held(call: &Call) -> bool {
    call.key == "k3"
}

fn by_key(cluster: &Cluster, topic: &str, log: &Arc<Log>, hold: bool) -> Spec {
    let handler = logged(log, move |call| {
        if hold && is_held(&call) {
            return std::future::pending().boxed();
        }
        async { Ok(()) }.boxed()
    });
    let mut spec = cluster.listener(topic, handler);
    spec.concurrency = Concurrency::ByKey(64);
    spec.commit = AckMode::Batch;
    spec.limits.queued_records = Some(2 * RECORDS);
    spec.limits.queued_bytes = 64 << 20;
    spec.snapshots = Snapshots::Topic(format!("{topic}-snapshots"));
    spec
}

async fn send(cluster: &Cluster, topic: &str) -> BTreeSet<i64> {
    let keys: Vec<_> = (0..RECORDS)
        .map(|number| format!("k{}", number % KEYS))
        .collect();
    let records: Vec<_> = keys.iter().map(|key| (key.as_str(), "v")).collect();
    cluster.send(topic, 0, &records).await;
    let held = keys.iter().enumerate().filter(|(_, key)| *key == "k3");
    held.map(|(offset, _)| i64::try_from(offset).unwrap())
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "the child of the test below"]
async fn handles_until_it_is_killed() {
    let (Ok(bootstrap), Ok(topic)) = (std::env::var(BOOTSTRAP), std::env::var(TOPIC)) else {
        return;
    };
    let cluster = Cluster::at(&bootstrap);
    let log = Arc::new(Log::default());
    let container = run(by_key(&cluster, &topic, &log, true)).await;
    // Two keys may share a lane: what is behind the held one waits, too. A poll that stays open is
    // committed after 5 s; how long it takes until there is one, no matter.
    let (mut commits, mut still) = (0, 0);
    while log.calls().len() < RECORDS / 2 || still < 70 {
        tokio::time::sleep(Duration::from_millis(100)).await;
        let now = container.stats().commits;
        still = if now > 0 && now == commits {
            still + 1
        } else {
            0
        };
        commits = now;
    }
    let handled: Vec<_> = log
        .calls()
        .into_iter()
        .filter(|call| !is_held(call))
        .collect();
    for call in handled {
        println!("+{}", call.offset);
    }
    println!("snapshots {}", container.stats().snapshots);
    println!("quiet");
    std::future::pending::<()>().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_partition_that_the_broker_refuses_does_not_pass_for_committed() {
    let cluster = Cluster::start().await;
    let topic = cluster.topic(2).await;
    send(&cluster, &topic).await;
    cluster.send(&topic, 1, &[("k0", "v")]).await;
    let log = Arc::new(Log::default());
    let mut spec = by_key(&cluster, &topic, &log, true);
    // More than brokers take by default: what is sent for the partition with gaps is refused.
    spec.limits.metadata_bytes = 20_000;
    spec.snapshots = Snapshots::Off;
    spec.commit = AckMode::Time(Duration::from_secs(1));
    spec.limits.stop_drain = Duration::from_millis(100);
    let container = run(spec).await;
    cluster.reaches(&topic, 1, 1).await;
    // Only with less metadata can its position be stored: it is, in the end.
    cluster.reaches(&topic, 0, 3).await;
    container.stop().await;
}

async fn within<T>(what: &str, awaited: impl Future<Output = T>) -> T {
    match tokio::time::timeout(Duration::from_secs(40), awaited).await {
        Ok(found) => found,
        Err(_) => panic!("waited too long for {what}"),
    }
}

/// A store that is so slow that a commit is given up before its snapshot is written.
#[derive(Debug, Default)]
struct Slow {
    asked: Notify,
    goes_on: Notify,
}

impl SnapshotStore for Slow {
    fn write<'a>(&'a self, _: &'a [Snapshot]) -> BoxFuture<'a, Result<Vec<Vec<u8>>, StoreError>> {
        async {
            self.asked.notify_one();
            self.goes_on.notified().await;
            Err("too slow".into())
        }
        .boxed()
    }

    fn read<'a>(
        &'a self,
        wanted: &'a [Wanted],
    ) -> BoxFuture<'a, Result<Vec<Option<Vec<u8>>>, StoreError>> {
        async { Ok(vec![None; wanted.len()]) }.boxed()
    }

    fn remove<'a>(&'a self, _: &'a [Origin]) -> BoxFuture<'a, Result<(), StoreError>> {
        async { Ok(()) }.boxed()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_that_waits_takes_nothing_back_from_the_next_owner() {
    let cluster = Cluster::start().await;
    let topic = cluster.topic(2).await;
    let records: Vec<_> = (0..400)
        .map(|number| format!("k{}", number % KEYS))
        .collect();
    let records: Vec<_> = records.iter().map(|key| (key.as_str(), "v")).collect();
    for partition in [0, 1] {
        cluster.send(&topic, partition, &records).await;
    }
    let store = Arc::new(Slow::default());
    let listener = |hold| {
        let mut spec = by_key(&cluster, &topic, &Arc::default(), hold);
        spec.consumer.set("heartbeat.interval.ms", "500");
        spec.consumer.set("session.timeout.ms", "30000");
        spec.limits.revoke_drain = Duration::from_millis(100);
        spec.limits.commit_wait = Duration::from_millis(300);
        spec.snapshots = Snapshots::Off;
        spec
    };
    let mut spec = listener(true);
    spec.limits.metadata_bytes = 60;
    spec.snapshots = Snapshots::Store(Arc::clone(&store) as _);
    spec.commit = AckMode::Time(Duration::from_secs(1));
    let first = run(spec).await;
    store.asked.notified().await;
    // The first gives one partition up while its commit of both waits for the store.
    let second = run(listener(false)).await;
    let given = async {
        loop {
            match second.assignment().await.first() {
                Some(owned) => return owned.partition.partition,
                None => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    };
    let given = within("a partition", given).await;
    cluster.reaches(&topic, given, 400).await;
    let commits = first.stats().commits;
    store.goes_on.notify_one();
    within("a commit", async {
        while first.stats().commits == commits {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    let committed = || cluster.committed(&topic, given);
    assert_eq!(tokio::task::block_in_place(committed), 400);
    first.stop().await;
    second.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_listener_with_thousands_of_gaps_repeats_exactly_what_was_unsettled() {
    let cluster = Cluster::start().await;
    let topic = cluster.topic(1).await;
    let held = send(&cluster, &topic).await;

    let mut child = Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "handles_until_it_is_killed",
            "--ignored",
            "--nocapture",
        ])
        .env(BOOTSTRAP, cluster.bootstrap())
        .env(TOPIC, &topic)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let output = BufReader::new(child.stdout.take().unwrap());
    let lines = tokio::task::spawn_blocking(move || {
        let lines = output.lines().map_while(Result::ok);
        lines.take_while(|line| line != "quiet").collect::<Vec<_>>()
    });
    let lines = tokio::time::timeout(Duration::from_secs(120), lines)
        .await
        .unwrap()
        .unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    let offset = |line: &String| line.strip_prefix('+')?.parse::<i64>().ok();
    let settled: BTreeSet<_> = lines.iter().filter_map(offset).collect();
    let snapshots = lines
        .iter()
        .find_map(|line| line.strip_prefix("snapshots "));
    assert!(snapshots.is_some_and(|count| count != "0"), "{snapshots:?}");
    assert!(held.iter().all(|offset| !settled.contains(offset)));
    let all = 0..i64::try_from(RECORDS).unwrap();
    let unsettled: BTreeSet<_> = all.filter(|offset| !settled.contains(offset)).collect();
    assert!(
        unsettled.len() >= RECORDS / KEYS,
        "{} gaps",
        unsettled.len()
    );

    let log = Arc::new(Log::default());
    let container = run(by_key(&cluster, &topic, &log, false)).await;
    log.wait_for(unsettled.len()).await;
    cluster
        .reaches(&topic, 0, i64::try_from(RECORDS).unwrap())
        .await;
    let repeated: Vec<_> = log.calls().iter().map(|call| call.offset).collect();
    assert_eq!(repeated.len(), unsettled.len());
    assert_eq!(repeated.into_iter().collect::<BTreeSet<_>>(), unsettled);
    container.stop().await;
}
