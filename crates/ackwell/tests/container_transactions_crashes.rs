//! Exactly once from topic to topic, whatever dies when: processes are killed, stopped and woken.
//!
//! The child is this test binary again, running one ignored test with what it needs in its
//! environment. It ends with its test, by the end of its input.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod container_support;
mod transactions_support;

use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use ackwell::extract::{State, Text};
use ackwell::retry::fixed;
use ackwell::transaction::Transaction;
use ackwell::{App, Config, Failure, Listener, TopicDeclaration};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use transactions_support::{Out, Scene, out, within};

/// How long one answer of a broker is awaited.
const ANSWER: Duration = Duration::from_secs(10);
const PARTITIONS: i32 = 3;
const RECORDS: i64 = 400;
/// Every so-manieth record can't be handled.
const BAD: u32 = 50;

/// Set for the child: its broker, data folder, name, and three topics.
const CHILD: &str = "ACKWELL_TRANSACTIONS_CHILD";

/// Sends on what it reads, slowly enough to be killed in the middle.
async fn send_on(Text(value): Text, State(to): State<Out>, tx: Transaction) -> Result<(), Failure> {
    tx.send_record(out(&to.0, &value)).await?;
    tokio::time::sleep(Duration::from_millis(2)).await;
    tx.send_record(out(&to.1, &value)).await?;
    if value.ends_with("-bad") {
        return Err(Failure::permanent("a bad one"));
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "the child of another test"]
async fn works_until_it_is_killed() {
    let Ok(setup) = std::env::var(CHILD) else {
        return;
    };
    let [servers, data, name, from, one, other] =
        serde_json::from_str::<[String; 6]>(&setup).unwrap();
    std::thread::spawn(|| {
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        std::process::exit(0);
    });
    let mut config = Config::with_bootstrap_servers(servers);
    config.data = data.into();
    config.transactions.timeout = Duration::from_secs(8);
    for (key, value) in [
        ("session.timeout.ms", "6000"),
        // A killed one takes its partitions over when it is back.
        ("group.instance.id", &name),
    ] {
        config
            .kafka
            .consumer
            .insert(key.to_owned(), value.to_owned());
    }
    let listener = Listener::on(TopicDeclaration::named(from.clone()))
        .group(format!("g-{from}"))
        .run_limit(15)
        .retry(fixed(Duration::from_millis(10)).max_attempts(2))
        .handle(send_on);
    let app = App::new(config).state(Out(one, other)).listener(listener);
    let ended = app.start().await.unwrap().wait().await;
    panic!("it has ended: {ended:?}");
}

struct Worker(Child);

impl Worker {
    fn start(scene: &Scene, data: &Path, name: &str, from: &str, to: &Out) -> Self {
        let data = data.to_str().unwrap();
        let setup = [scene.cluster.bootstrap(), data, name, from, &to.0, &to.1];
        let child = Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "works_until_it_is_killed",
                "--ignored",
                "--nocapture",
            ])
            .env(CHILD, serde_json::to_string(&setup).unwrap())
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        Worker(child)
    }

    fn signal(&self, signal: &str) {
        let pid = self.0.id().to_string();
        let sent = Command::new("kill").args([signal, &pid]).status();
        assert!(sent.unwrap().success());
    }

    fn is_running(&mut self) -> bool {
        self.0.try_wait().unwrap().is_none()
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

async fn fill(scene: &Scene, from: &str) {
    for partition in 0..PARTITIONS {
        let values: Vec<_> = (0..u32::try_from(RECORDS).unwrap())
            .map(|number| match number % BAD {
                7 => format!("{partition}-{number}-bad"),
                _ => format!("{partition}-{number}"),
            })
            .collect();
        scene.send(from, partition, &values).await;
    }
}

/// How much the group has settled.
fn settled(scene: &Scene, from: &str) -> i64 {
    let consumer: BaseConsumer = scene
        .cluster
        .client()
        .set("group.id", format!("g-{from}"))
        // A transaction that is open does not keep the answer back.
        .set("isolation.level", "read_uncommitted")
        .create()
        .unwrap();
    let mut list = TopicPartitionList::new();
    list.add_partition_range(from, 0, PARTITIONS - 1);
    let found = tokio::task::block_in_place(|| consumer.committed_offsets(list, ANSWER));
    let Ok(found) = found else { return 0 };
    let at = |offset| match offset {
        Offset::Offset(at) => at,
        _ => 0,
    };
    found
        .elements()
        .iter()
        .map(|found| at(found.offset()))
        .sum()
}

async fn settles(scene: &Scene, from: &str, count: i64) {
    within(&format!("{count} records to be settled"), async {
        while settled(scene, from) < count {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
}

/// Each good record is on both outputs once, in order, and each bad one among the dead letters.
fn check(scene: &Scene, from: &str, to: &Out) {
    let total = usize::try_from(RECORDS).unwrap() * usize::try_from(PARTITIONS).unwrap();
    let dead = scene.seen(&format!("{from}.DLQ"));
    for topic in [&to.0, &to.1] {
        let seen = scene.seen(topic);
        let mut last = BTreeMap::new();
        for value in &seen {
            assert!(!value.ends_with("-bad"), "{value} is on {topic}");
            let (partition, number) = value.split_once('-').unwrap();
            let number: u32 = number.parse().unwrap();
            let before = last.insert(partition, number);
            assert!(
                before < Some(number),
                "{value} behind {before:?} on {topic}"
            );
        }
        assert_eq!(seen.len() + dead.len(), total, "on {topic}");
    }
    let mut once = dead.clone();
    once.sort();
    once.dedup();
    assert_eq!(once.len(), dead.len(), "dead letters are there twice");
    assert!(dead.iter().all(|value| value.ends_with("-bad")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_that_is_killed_again_and_again_has_sent_everything_once() {
    let scene = Scene::new().await;
    let (from, to) = (scene.cluster.topic(PARTITIONS).await, scene.out().await);
    fill(&scene, &from).await;
    let data = tempfile::tempdir().unwrap();
    let start = || Worker::start(&scene, data.path(), "one", &from, &to);
    let mut before = 0;
    for round in 0..6 {
        let worker = start();
        // At another moment each time.
        settles(&scene, &from, (before + 20 + 17 * round).min(RECORDS)).await;
        tokio::time::sleep(Duration::from_millis(
            u64::try_from(round * 23 % 60).unwrap(),
        ))
        .await;
        worker.signal("-KILL");
        drop(worker);
        before = settled(&scene, &from);
    }
    let _last = start();
    settles(&scene, &from, RECORDS * i64::from(PARTITIONS)).await;
    check(&scene, &from, &to);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_wakes_up_after_it_was_replaced_commits_nothing_and_goes_on() {
    let scene = Scene::new().await;
    let (from, to) = (scene.cluster.topic(PARTITIONS).await, scene.out().await);
    fill(&scene, &from).await;
    // One folder for both: their ids are told apart by leases.
    let data = tempfile::tempdir().unwrap();
    let mut first = Worker::start(&scene, data.path(), "one", &from, &to);
    settles(&scene, &from, 40).await;
    first.signal("-STOP");
    let second = Worker::start(&scene, data.path(), "two", &from, &to);
    settles(&scene, &from, 500).await;
    first.signal("-CONT");
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert!(first.is_running());
    drop(second);
    settles(&scene, &from, RECORDS * i64::from(PARTITIONS)).await;
    assert!(first.is_running());
    check(&scene, &from, &to);
}
