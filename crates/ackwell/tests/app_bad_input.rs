//! What is wrong outside an app is visible with what to do, nothing is skipped in silence, and
//! work goes on by itself once it is mended. On a real broker.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod container_support;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use ackwell::container::{ControlError, Notice};
use ackwell::core::seek::SeekTo;
use ackwell::extract::{State, Text};
use ackwell::listener::ListenerBuilder;
use ackwell::observe::Status;
use ackwell::{App, Config, Listener, ListenerHandle, RunningApp};
use container_support::Cluster;
use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

/// Longer than anything here takes on a busy machine; a test that waits for it has failed.
const LIMIT: Duration = Duration::from_secs(50);

/// Long enough for a fetch of what may not come.
const FETCH: Duration = Duration::from_millis(600);

/// Texts in the order in which they came.
#[derive(Clone, Default)]
struct Seen(Arc<Mutex<Vec<String>>>);

impl Seen {
    fn push(&self, text: String) {
        self.0.lock().unwrap().push(text);
    }

    fn all(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }

    fn holds(&self, text: &str) -> bool {
        self.all().iter().any(|seen| seen == text)
    }

    async fn are(&self, expected: &[&str]) {
        let counted = || self.all().len() >= expected.len();
        until(&format!("{expected:?}"), async || counted()).await;
        assert_eq!(self.all(), expected);
    }
}

async fn note(Text(value): Text, State(seen): State<Seen>) {
    seen.push(value);
}

async fn until(what: &str, condition: impl AsyncFn() -> bool) {
    let started = Instant::now();
    while !condition().await {
        assert!(started.elapsed() < LIMIT, "waited for {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Waits until a listener tells a problem that names all `parts`, and is not ready for it.
async fn tells(app: &RunningApp, handle: &ListenerHandle, parts: &[&str]) {
    let started = Instant::now();
    loop {
        let status = handle.status();
        let told = status.reason().unwrap_or_default();
        if parts.iter().all(|part| told.contains(part)) {
            assert!(!app.health().ready().ok, "{status}");
            return;
        }
        assert!(started.elapsed() < LIMIT, "{parts:?} in `{status}`");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

async fn topic(cluster: &Cluster, partitions: i32) -> &'static str {
    cluster.topic(partitions).await.leak()
}

fn listener(topic: &'static str) -> ListenerBuilder {
    let listener = Listener::on(topic).name("orders");
    listener.group(format!("g-{topic}")).without_dead_letters()
}

/// A running app with this listener.
async fn started(config: Config, seen: &Seen, listener: ListenerBuilder) -> RunningApp {
    let app = App::new(config)
        .state(seen.clone())
        .listener(listener.handle(note));
    tokio::time::timeout(LIMIT, app.start())
        .await
        .unwrap()
        .unwrap()
}

async fn ready(app: &RunningApp) {
    let readiness = tokio::time::timeout(LIMIT, app.ready()).await;
    readiness.unwrap().unwrap();
}

fn admin(cluster: &Cluster) -> AdminClient<DefaultClientContext> {
    cluster.client().create().unwrap()
}

async fn delete(cluster: &Cluster, topic: &str) {
    let admin = admin(cluster);
    let deleted = admin.delete_topics(&[topic], &AdminOptions::new()).await;
    deleted.unwrap()[0].as_ref().unwrap();
}

/// Commits for a group that has no member.
fn commit(cluster: &Cluster, topic: &str, partition: i32, offset: i64) {
    let consumer: BaseConsumer = cluster
        .client()
        .set("group.id", format!("g-{topic}"))
        .create()
        .unwrap();
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(topic, partition, Offset::Offset(offset))
        .unwrap();
    let started = Instant::now();
    while let Err(error) = consumer.commit(&list, CommitMode::Sync) {
        assert!(started.elapsed() < LIMIT, "committing: {error}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// An embedded broker of one's own, whose files and whose end are at hand.
struct Own {
    broker: ackwell_broker::Broker,
    folder: tempfile::TempDir,
}

impl Own {
    async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let broker = serve(folder.path(), "127.0.0.1:0").await;
        Self { broker, folder }
    }

    fn cluster(&self) -> Cluster {
        Cluster::at(&self.broker.local_addr().to_string())
    }
}

async fn serve(folder: &Path, listen: &str) -> ackwell_broker::Broker {
    let mut config = ackwell_broker::Config::new(folder);
    config.listen = listen.to_owned();
    ackwell_broker::Broker::start(config).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_listener_waits_for_a_broker_that_is_not_up_yet_and_goes_on_by_itself() {
    let Own { broker, folder } = Own::start().await;
    let address = broker.local_addr().to_string();
    let cluster = Cluster::at(&address);
    let topic = topic(&cluster, 1).await;
    cluster.send(topic, 0, &[("k", "a")]).await;
    broker.shutdown().await.unwrap();

    let seen = Seen::default();
    let app = started(cluster.config(), &seen, listener(topic)).await;
    assert!(app.health().live().ok, "a restart would not help");
    let told = app.health().ready().against;
    let reasons: Vec<_> = told.iter().map(|c| c.status.to_string()).collect();
    let helps =
        |reason: &String| reason.contains(&address) && reason.contains("check that it runs");
    assert!(reasons.iter().any(helps), "{reasons:?}");

    let broker = serve(folder.path(), &address).await;
    ready(&app).await;
    seen.are(&["a"]).await;
    app.stop().await.unwrap();
    broker.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_misnamed_broker_of_several_keeps_nobody_from_work() {
    let cluster = Cluster::start().await;
    let topic = topic(&cluster, 1).await;
    cluster.send(topic, 0, &[("k", "a")]).await;
    let seen = Seen::default();
    let servers = format!("no-such-host.invalid:9092,{}", cluster.bootstrap());
    let config = Config::with_bootstrap_servers(servers);
    let app = started(config, &seen, listener(topic)).await;
    seen.are(&["a"]).await;
    assert!(app.health().live().ok);
    app.stop().await.unwrap();
    tokio::task::block_in_place(|| assert_eq!(cluster.committed(topic, 0), 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_listener_of_a_topic_that_is_missing_and_must_not_be_created_does_not_start() {
    let cluster = Cluster::start().await;
    let topic: &'static str = format!("t-{}", uuid::Uuid::new_v4().simple()).leak();
    let mut config = cluster.config();
    config.topics.create = false;
    let app = App::new(config)
        .state(Seen::default())
        .listener(listener(topic).handle(note));
    let said = app.start().await.unwrap_err().to_string();
    for part in [topic, "does not exist", "create it", "topics.create"] {
        assert!(said.contains(part), "{part} in {said}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topic_that_is_deleted_is_told_and_read_again_when_it_is_back() {
    let cluster = Cluster::start().await;
    let topic = topic(&cluster, 1).await;
    let seen = Seen::default();
    let app = started(cluster.config(), &seen, listener(topic)).await;
    let handle = app.listener("orders").unwrap();
    ready(&app).await;
    cluster.send(topic, 0, &[("k", "a"), ("k", "b")]).await;
    seen.are(&["a", "b"]).await;
    cluster.reaches(topic, 0, 2).await;

    delete(&cluster, topic).await;
    tells(&app, &handle, &[topic, "create the topic"]).await;
    assert!(app.health().live().ok, "it can come back");

    let before = handle.stats().turns;
    let pause = Duration::from_secs(2);
    tokio::time::sleep(pause).await;
    let turns = handle.stats().turns - before;
    assert!(turns < 400, "{turns} turns in {pause:?}: a hot loop");
    tells(&app, &handle, &[topic, "create the topic"]).await;

    cluster.make(topic, 1).await;
    cluster.send(topic, 0, &[("k", "c")]).await;
    seen.are(&["a", "b", "c"]).await;
    ready(&app).await;
    assert_eq!(handle.status(), Status::Running);
    app.stop().await.unwrap();
    cluster.reaches(topic, 0, 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topic_that_comes_back_with_more_records_than_the_old_position_is_read_from_its_beginning()
 {
    let cluster = Cluster::start().await;
    let topic = topic(&cluster, 1).await;
    let seen = Seen::default();
    let app = started(cluster.config(), &seen, listener(topic)).await;
    let handle = app.listener("orders").unwrap();
    ready(&app).await;
    cluster.send(topic, 0, &[("k", "a"), ("k", "b")]).await;
    seen.are(&["a", "b"]).await;
    cluster.reaches(topic, 0, 2).await;

    delete(&cluster, topic).await;
    tells(&app, &handle, &[topic, "create the topic"]).await;
    cluster.make(topic, 1).await;
    let new = ["1", "2", "3", "4", "5"];
    cluster.send(topic, 0, &new.map(|value| ("k", value))).await;
    until("the new records", async || {
        new.iter().all(|value| seen.holds(value))
    })
    .await;
    ready(&app).await;
    cluster.reaches(topic, 0, 5).await;
    app.stop().await.unwrap();
    cluster.reaches(topic, 0, 5).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topic_that_is_replaced_before_anybody_misses_it_is_read_from_its_beginning() {
    let cluster = Cluster::start().await;
    let topic = topic(&cluster, 1).await;
    let (seen, (listener, resets)) = (Seen::default(), resets(listener(topic)));
    let app = started(resetting(&cluster, "latest"), &seen, listener).await;
    ready(&app).await;
    // Each time longer than before: by its offsets nothing tells the new log from the old one.
    for round in 0..4 {
        let records: Vec<_> = (0..=round * 5).map(|n| format!("{round}.{n}")).collect();
        if round > 0 {
            delete(&cluster, topic).await;
            cluster.make(topic, 1).await;
        }
        let keyed: Vec<_> = records.iter().map(|value| ("k", &**value)).collect();
        cluster.send(topic, 0, &keyed).await;
        let expected: Vec<_> = records.iter().map(String::as_str).collect();
        until("the records of the new log", async || {
            expected.iter().all(|value| seen.holds(value))
        })
        .await;
        let end = i64::try_from(records.len()).unwrap();
        cluster.reaches(topic, 0, end).await;
        let told = |reason: &String| reason.contains(topic) && reason.contains("created again");
        until("the notice", async || {
            resets.all().iter().filter(|reason| told(reason)).count() == round
        })
        .await;
    }
    ready(&app).await;
    app.stop().await.unwrap();
}

/// Notices of positions that the log did not hold.
fn resets(listener: ListenerBuilder) -> (ListenerBuilder, Seen) {
    let resets = Seen::default();
    let heard = resets.clone();
    let listener = listener.on_notice(move |notice| {
        if let Notice::OffsetReset { reason } = notice {
            heard.push(reason.clone());
        }
    });
    (listener, resets)
}

/// The reset of one partition was told once, in notices and metrics.
fn told_once(app: &RunningApp, resets: &Seen, topic: &str) {
    let told = resets.all();
    assert!(
        matches!(&told[..], [reason] if reason.contains(topic)),
        "{told:?}"
    );
    let text = app.metrics().render();
    let line = "ackwell_notices_total{listener=\"orders\",outcome=\"offset-reset\"} 1";
    assert!(text.lines().any(|found| found == line), "{text}");
}

fn resetting(cluster: &Cluster, policy: &str) -> Config {
    let mut config = cluster.config();
    let setting = ("auto.offset.reset".to_owned(), policy.to_owned());
    config.kafka.consumer.extend([setting]);
    config
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_deleted_ahead_of_the_position_are_told_and_the_rest_is_read() {
    let cluster = Cluster::start().await;
    let topic = topic(&cluster, 1).await;
    let records = [("k", "a"), ("k", "b"), ("k", "c")];
    cluster.send(topic, 0, &records).await;
    tokio::task::block_in_place(|| commit(&cluster, topic, 0, 0));
    let mut before = TopicPartitionList::new();
    before
        .add_partition_offset(topic, 0, Offset::Offset(2))
        .unwrap();
    let options = AdminOptions::new();
    let deleted = admin(&cluster).delete_records(&before, &options).await;
    let deleted = deleted.unwrap();
    assert_eq!(deleted.elements()[0].error(), Ok(()));

    let (seen, (listener, resets)) = (Seen::default(), resets(listener(topic)));
    let app = started(cluster.config(), &seen, listener).await;
    seen.are(&["c"]).await;
    until("the notice", async || !resets.all().is_empty()).await;
    told_once(&app, &resets, topic);
    ready(&app).await;
    app.stop().await.unwrap();
    cluster.reaches(topic, 0, 3).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_position_beyond_the_log_is_told_and_reading_goes_on_at_the_end_if_that_is_wanted() {
    let cluster = Cluster::start().await;
    let topic = topic(&cluster, 1).await;
    cluster.send(topic, 0, &[("k", "a"), ("k", "b")]).await;
    tokio::task::block_in_place(|| commit(&cluster, topic, 0, 1_000));

    let (seen, (listener, resets)) = (Seen::default(), resets(listener(topic)));
    let app = started(resetting(&cluster, "latest"), &seen, listener).await;
    until("the notice", async || !resets.all().is_empty()).await;
    told_once(&app, &resets, topic);
    // Where the end is the client asks for afterwards.
    until("a new record", async || {
        cluster.send(topic, 0, &[("k", "new")]).await;
        tokio::time::sleep(Duration::from_millis(100)).await;
        seen.holds("new")
    })
    .await;
    assert!(!seen.holds("a") && !seen.holds("b"), "{:?}", seen.all());
    ready(&app).await;
    app.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_position_beyond_the_log_stops_its_partition_if_no_reset_is_wanted() {
    let cluster = Cluster::start().await;
    let topic = topic(&cluster, 2).await;
    cluster.send(topic, 0, &[("k", "a"), ("k", "b")]).await;
    cluster.send(topic, 1, &[("k", "other")]).await;
    tokio::task::block_in_place(|| {
        commit(&cluster, topic, 0, 1_000);
        commit(&cluster, topic, 1, 0);
    });
    let seen = Seen::default();
    let app = started(resetting(&cluster, "error"), &seen, listener(topic)).await;
    let handle = app.listener("orders").unwrap();
    let partition = format!("{topic}-0");
    let parts = [
        partition.as_str(),
        "1000",
        "auto.offset.reset",
        "set the group's position",
    ];
    tells(&app, &handle, &parts).await;
    seen.are(&["other"]).await;
    cluster.send(topic, 1, &[("k", "another")]).await;
    seen.are(&["other", "another"]).await;
    tokio::time::sleep(FETCH).await;
    seen.are(&["other", "another"]).await;
    tells(&app, &handle, &parts).await;
    let refused = handle.seek(topic, 0, SeekTo::Beginning).await;
    assert!(
        matches!(refused, Err(ControlError::ReadingStopped { .. })),
        "{refused:?}"
    );

    handle.stop().await;
    tokio::task::block_in_place(|| commit(&cluster, topic, 0, 1));
    handle.start().await.unwrap();
    seen.are(&["other", "another", "b"]).await;
    ready(&app).await;
    app.stop().await.unwrap();
    cluster.reaches(topic, 0, 2).await;
}

/// Changes one byte of a record's value, in the log files below `folder`.
fn damage(folder: &Path, value: &str) {
    let found = files(folder).into_iter().find_map(|path| {
        let bytes = std::fs::read(&path).ok()?;
        let at = bytes
            .windows(value.len())
            .position(|found| found == value.as_bytes())?;
        Some((path, bytes, at))
    });
    let (path, mut bytes, at) = found.unwrap();
    bytes[at] ^= 0x20;
    std::fs::write(path, bytes).unwrap();
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap();
    let paths = entries.map(|entry| entry.unwrap().path());
    paths
        .flat_map(|path| {
            if path.is_dir() {
                files(&path)
            } else {
                vec![path]
            }
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_batch_stops_its_partition_and_no_other_until_it_is_passed_over() {
    let own = Own::start().await;
    let cluster = own.cluster();
    let topic = topic(&cluster, 2).await;
    // One by one, so that each is a batch of its own.
    for value in ["before", "damaged", "behind"] {
        cluster.send(topic, 0, &[("k", value)]).await;
    }
    cluster.send(topic, 1, &[("k", "other")]).await;
    damage(own.folder.path(), "damaged");

    let seen = Seen::default();
    let app = started(cluster.config(), &seen, listener(topic)).await;
    let handle = app.listener("orders").unwrap();
    let place = format!("{topic}-0 can't be read at offset 1");
    let parts = [place.as_str(), "restore the log", "seek"];
    tells(&app, &handle, &parts).await;
    until("the others", async || {
        seen.holds("before") && seen.holds("other")
    })
    .await;
    cluster.send(topic, 1, &[("k", "another")]).await;
    until("the other partition", async || seen.holds("another")).await;
    let before = handle.stats().turns;
    tokio::time::sleep(FETCH).await;
    let turns = handle.stats().turns - before;
    assert!(turns < 400, "{turns} turns in {FETCH:?}: a hot loop");
    assert!(!seen.holds("behind"), "it was skipped in silence");
    tells(&app, &handle, &parts).await;
    cluster.reaches(topic, 0, 1).await;

    assert_eq!(handle.seek(topic, 0, SeekTo::Offset(2)).await, Ok(2));
    until("what is behind", async || seen.holds("behind")).await;
    ready(&app).await;
    assert_eq!(seen.all().len(), 4, "{:?}", seen.all());
    app.stop().await.unwrap();
    cluster.reaches(topic, 0, 3).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_batch_that_is_restored_is_read_without_a_seek() {
    let own = Own::start().await;
    let cluster = own.cluster();
    let topic = topic(&cluster, 1).await;
    for value in ["damaged", "behind"] {
        cluster.send(topic, 0, &[("k", value)]).await;
    }
    damage(own.folder.path(), "damaged");
    let seen = Seen::default();
    let app = started(cluster.config(), &seen, listener(topic)).await;
    let handle = app.listener("orders").unwrap();
    tells(&app, &handle, &["can't be read at offset 0"]).await;
    // The same byte again.
    damage(own.folder.path(), "Damaged");
    seen.are(&["damaged", "behind"]).await;
    ready(&app).await;
    app.stop().await.unwrap();
    cluster.reaches(topic, 0, 2).await;
}
