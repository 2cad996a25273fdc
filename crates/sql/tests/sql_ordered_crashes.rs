//! Processes with ordered retry that are killed, or stopped and woken up when somebody else has
//! their partitions: effects once, order per key, offsets exact, dead letters those of what was
//! given up, and nothing left behind.
//!
//! The child is this test binary again, running one ignored test with what it needs in its
//! environment. How a record fails depends on the record and the attempt alone, so it is the same
//! for all processes.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod ordered_support;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use ackwell::extract::{Attempt, Key, Text};
use ackwell::retry::exponential;
use ackwell::{App, Failure, Listener, by_key};
use ackwell_sql::{Database, Settings, Tx, ordered, params};
use ordered_support::{World, config, effects, header, open, parked, until};
use rdkafka::message::Message;

const FOLDER: &str = "ACKWELL_ORDERED_FOLDER";
const BOOTSTRAP: &str = "ACKWELL_ORDERED_BOOTSTRAP";
const TOPIC: &str = "ACKWELL_ORDERED_TOPIC";
const INSTANCE: &str = "ACKWELL_ORDERED_INSTANCE";
const PACE_OF: &str = "ACKWELL_ORDERED_PACE";
const WAIT: &str = "ACKWELL_ORDERED_WAIT";
const PARTITIONS: i32 = 3;
const KEYS: usize = 12;
/// Attempts of a record, the first one included.
const ATTEMPTS: u32 = 4;

/// Every third key has records that fail.
fn fails(key: usize, number: usize, attempt: u32) -> bool {
    match (key % 3, number % 10) {
        (0, 3) => attempt <= 2,
        (0, 7) => true,
        _ => false,
    }
}

fn is_given_up(key: usize, number: usize) -> bool {
    fails(key, number, u32::MAX)
}

fn parts(value: &str) -> (usize, usize) {
    let (key, number) = value.split_once('-').unwrap();
    (key.parse().unwrap(), number.parse().unwrap())
}

/// How long a handler takes. Who will be stopped is slow at its first records and would then
/// rush ahead; its successor takes its time.
fn pace(number: usize) -> Duration {
    static PACE: OnceLock<String> = OnceLock::new();
    let pace = PACE.get_or_init(|| std::env::var(PACE_OF).unwrap_or_default());
    Duration::from_millis(match (pace.as_str(), number) {
        ("rushing", 2) => 500,
        ("rushing", _) => 0,
        ("slow", _) => 60,
        (_, number) => u64::from(number % 4 == 1),
    })
}

async fn handle(
    Key(key): Key,
    Text(value): Text,
    Attempt(attempt): Attempt,
    mut tx: Tx,
) -> Result<(), Failure> {
    let insert = "INSERT INTO effects (key, value) VALUES ($1, $2)";
    let name = key.unwrap_or_default();
    let (key, number) = parts(&value);
    tokio::time::sleep(pace(number)).await;
    tx.execute(insert, params![name, value]).await?;
    if fails(key, number, attempt) {
        return Err(Failure::transient("by plan"));
    }
    Ok(())
}

#[test]
#[ignore = "the child of the crash tests"]
fn works_until_it_is_killed() {
    let Ok(folder) = std::env::var(FOLDER) else {
        return;
    };
    let setting = |name| std::env::var(name).unwrap();
    let topic: &'static str = setting(TOPIC).leak();
    let mut config = config(&setting(BOOTSTRAP));
    let instance = setting(INSTANCE);
    if !instance.is_empty() {
        let name = "group.instance.id".to_owned();
        config.kafka.consumer.insert(name, instance);
    }
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        let database = open(Path::new(&folder)).await;
        let wait = Duration::from_millis(setting(WAIT).parse().unwrap());
        let policy = exponential(wait, 2.0).max(wait * 4).max_attempts(ATTEMPTS);
        let listener = Listener::on(topic)
            .group(format!("g-{topic}"))
            .concurrency(by_key(4))
            .retry(ordered(policy))
            .handle(handle);
        let app = App::new(config).state(database).listener(listener);
        let app = app.start().await.unwrap();
        app.wait().await.unwrap();
    });
}

/// A member that takes its own place again at once when it is started anew.
fn child(world: &World) -> Child {
    start(world, "one", "", 5)
}

/// A member of this pace that waits so many milliseconds before the first retry.
fn start(world: &World, instance: &str, pace: &str, wait: u64) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "works_until_it_is_killed",
            "--ignored",
            "--nocapture",
        ])
        .env(FOLDER, world.folder.path())
        .env(BOOTSTRAP, &world.bootstrap)
        .env(TOPIC, world.topic)
        .env(INSTANCE, instance)
        .env(PACE_OF, pace)
        .env(WAIT, wait.to_string())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

fn signal(child: &Child, signal: &str) {
    let sent = Command::new("kill")
        .args([signal, &child.id().to_string()])
        .status();
    assert!(sent.unwrap().success());
}

/// Stops a process at a moment when it does not hold the file's lock: nobody could write then.
async fn stop_between_transactions(world: &World, child: &Child) {
    let url = ordered_support::database_url::database_url(world.folder.path());
    let mut settings = Settings::default();
    settings.lock_wait = Duration::from_millis(200);
    let database = Database::open_with(&url, ordered_support::SCHEMA, settings);
    let database = database.await.unwrap();
    loop {
        signal(child, "-STOP");
        let mut tx = database.begin();
        let nothing = "UPDATE effects SET value = value WHERE place < 0";
        if tx.execute(nothing, params![]).await.is_ok() {
            return tx.commit().await.unwrap();
        }
        drop(tx);
        signal(child, "-CONT");
        tokio::time::sleep(Duration::from_millis(3)).await;
    }
}

/// Sends the next `count` numbers of every key.
async fn send(world: &World, numbers: std::ops::Range<usize>) {
    for partition in 0..PARTITIONS {
        let keys = (0..KEYS).filter(|key| *key as i32 % PARTITIONS == partition);
        let keys: Vec<_> = keys.collect();
        let records = numbers
            .clone()
            .flat_map(|number| keys.iter().map(move |key| (*key, number)));
        let records: Vec<_> = records
            .map(|(key, number)| (format!("k{key}"), format!("{key}-{number}")))
            .collect();
        let records: Vec<_> = records
            .iter()
            .map(|(key, value)| (Some(&**key), &**value))
            .collect();
        world.send(partition, &records).await;
    }
}

async fn effects_count(database: &Database) -> usize {
    let rows = database
        .query("SELECT count(*) FROM effects", params![])
        .await;
    rows.unwrap()[0].get::<i64>(0).unwrap() as usize
}

/// The end of all: everything in effect, in order, or dead-lettered; nothing left.
async fn check(world: &World, database: &Database, numbers: usize) {
    let expected: BTreeMap<String, Vec<String>> = (0..KEYS)
        .map(|key| {
            let kept = (0..numbers).filter(|number| !is_given_up(key, *number));
            let values = kept.map(|number| format!("{key}-{number}")).collect();
            (format!("k{key}"), values)
        })
        .collect();
    let total: usize = expected.values().map(Vec::len).sum();
    until("all effects", async || {
        effects_count(database).await >= total
    })
    .await;
    until("the end of the wait", async || parked(database).await == 0).await;
    assert_eq!(effects(database).await, expected);
    for partition in 0..PARTITIONS {
        let keys = KEYS / PARTITIONS as usize;
        world.commits(partition, (keys * numbers) as i64).await;
    }
    let given_up: BTreeSet<_> = (0..KEYS)
        .flat_map(|key| (0..numbers).map(move |number| (key, number)))
        .filter(|(key, number)| is_given_up(*key, *number))
        .map(|(key, number)| format!("{key}-{number}"))
        .collect();
    let letters = world.dead_letters(given_up.len());
    let values = letters.iter().map(|letter| {
        assert_eq!(header(letter, "failure.attempts"), ATTEMPTS.to_string());
        String::from_utf8_lossy(letter.payload().unwrap()).into_owned()
    });
    assert_eq!(values.collect::<BTreeSet<_>>(), given_up);
    let twice = letters.len() - given_up.len();
    assert!(twice <= 20, "{twice} dead letters were written again");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_is_killed_when_ever_nothing_is_lost_repeated_or_out_of_order() {
    let world = World::start(PARTITIONS).await;
    let database = world.database().await;
    let rounds = 10;
    let mut random = u64::from(std::process::id());
    for round in 0..rounds {
        send(&world, round * 20..(round + 1) * 20).await;
        let before = effects_count(&database).await;
        let mut child = child(&world);
        random = random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        let wanted = before + (random >> 33) as usize % 200;
        let more = tokio::time::timeout(Duration::from_secs(10), async {
            while effects_count(&database).await <= wanted {
                tokio::time::sleep(Duration::from_millis(3)).await;
            }
        });
        // All that is left may be waiting for its retry: that is a moment like any other.
        let _ = more.await;
        tokio::time::sleep(Duration::from_millis((random >> 40) % 60)).await;
        child.kill().unwrap();
        child.wait().unwrap();
    }
    assert!(effects_count(&database).await > 0);
    let mut child = child(&world);
    check(&world, &database, rounds * 20).await;
    child.kill().unwrap();
    child.wait().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_owner_that_wakes_up_behind_its_successor_changes_nothing() {
    let world = World::start(PARTITIONS).await;
    let database = world.database().await;
    let numbers = 20;
    send(&world, 0..numbers).await;
    let mut old = start(&world, "", "rushing", 1_000);
    until("the old owner's work", async || {
        effects_count(&database).await >= 2 * KEYS
    })
    .await;
    stop_between_transactions(&world, &old).await;
    assert_eq!(
        parked(&database).await,
        0,
        "the old owner has not come so far"
    );
    let mut new = start(&world, "", "slow", 1_000);
    until("a record that fails at the new owner", async || {
        parked(&database).await > 0
    })
    .await;
    signal(&old, "-CONT");
    check(&world, &database, numbers).await;
    for child in [&mut old, &mut new] {
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
