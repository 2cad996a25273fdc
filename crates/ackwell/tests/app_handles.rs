//! The listeners of a running app are stopped, started, paused, sought and looked at by their
//! handles, on a real broker.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod container_support;

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use ackwell::container::{ControlError, Stats};
use ackwell::core::Timestamp;
use ackwell::core::seek::SeekTo;
use ackwell::extract::{Seek, State, Text};
use ackwell::observe::Status;
use ackwell::{App, Listener, ListenerHandle, RunningApp, StartError};
use container_support::Cluster;
use rdkafka::Message;

/// Longer than anything here takes on a busy machine; a test that waits for it has failed.
const LIMIT: Duration = Duration::from_secs(50);

/// Long enough for a fetch of what may not come.
const FETCH: Duration = Duration::from_millis(600);

/// What handlers saw, in order.
#[derive(Clone, Default)]
struct Seen(Arc<Mutex<Vec<String>>>);

impl Seen {
    fn push(&self, value: String) {
        self.0.lock().unwrap().push(value);
    }

    /// The values that begin so.
    fn of(&self, prefix: &str) -> Vec<String> {
        let seen = self.0.lock().unwrap();
        seen.iter()
            .filter(|value| value.starts_with(prefix))
            .cloned()
            .collect()
    }

    async fn are(&self, expected: &[&str]) {
        let counted = || self.of("").len() >= expected.len();
        until(&format!("{expected:?}"), async || counted()).await;
        assert_eq!(self.of(""), expected);
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

async fn topic(cluster: &Cluster, partitions: i32) -> &'static str {
    cluster.topic(partitions).await.leak()
}

fn listener(name: &'static str, topic: &'static str) -> ackwell::listener::ListenerBuilder {
    let listener = Listener::on(topic).name(name).group(format!("g-{topic}"));
    listener.without_dead_letters()
}

async fn ready(app: App) -> RunningApp {
    let app = app.start().await.unwrap();
    let readiness = tokio::time::timeout(LIMIT, app.ready()).await;
    readiness.unwrap().unwrap();
    app
}

/// The paused ones of the partitions that it owns.
async fn paused(handle: &ListenerHandle) -> Vec<i32> {
    let assigned = handle.assignment().await;
    let mut paused: Vec<_> = assigned
        .iter()
        .filter(|found| found.paused)
        .map(|found| found.partition.partition)
        .collect();
    paused.sort_unstable();
    paused
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_listener_is_stopped_and_started_again_while_another_goes_on() {
    let cluster = Cluster::start().await;
    let (orders, parcels) = (topic(&cluster, 1).await, topic(&cluster, 1).await);
    let seen = Seen::default();
    let app = App::new(cluster.config())
        .state(seen.clone())
        .listener(listener("orders", orders).handle(note))
        .listener(listener("parcels", parcels).handle(note));
    let app = ready(app).await;
    cluster.send(orders, 0, &[("k", "order 1")]).await;
    cluster.send(parcels, 0, &[("k", "parcel 1")]).await;
    until("both", async || seen.of("").len() == 2).await;

    let handle = app.listener("orders").unwrap();
    handle.stop().await;
    handle.stop().await;
    assert_eq!(handle.status(), Status::Stopped);
    assert_eq!(handle.stats(), Stats::default());
    assert!(handle.assignment().await.is_empty());
    assert_eq!(
        handle.seek(orders, 0, SeekTo::Beginning).await,
        Err(ControlError::Stopped)
    );
    let ready = app.health().ready();
    let against: Vec<_> = ready.against.iter().map(|c| c.name.as_str()).collect();
    assert_eq!(against, ["orders"], "and nothing else");
    assert!(app.health().live().ok, "stopped on request is no failure");

    cluster.send(orders, 0, &[("k", "order 2")]).await;
    cluster.send(parcels, 0, &[("k", "parcel 2")]).await;
    until("the other", async || seen.of("parcel").len() == 2).await;
    tokio::time::sleep(FETCH).await;
    assert_eq!(seen.of("order"), ["order 1"]);

    handle.start().await.unwrap();
    handle.start().await.unwrap();
    until("what came meanwhile", async || seen.of("order").len() == 2).await;
    assert_eq!(seen.of("order"), ["order 1", "order 2"]);
    until("readiness", async || app.health().ready().ok).await;
    assert_eq!(handle.status(), Status::Running);

    app.stop().await.unwrap();
    assert_eq!(handle.status(), Status::Stopped);
    let refused = handle.start().await;
    assert!(matches!(refused, Err(StartError::Stopped)), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_paused_listener_handles_nothing_until_it_is_resumed_even_if_it_is_started_anew() {
    let cluster = Cluster::start().await;
    let topic = topic(&cluster, 2).await;
    let seen = Seen::default();
    let app = App::new(cluster.config())
        .state(seen.clone())
        .listener(listener("orders", topic).handle(note));
    let app = ready(app).await;
    let handle = app.listener("orders").unwrap();

    handle.pause();
    until("the pause", async || {
        handle.status() == Status::Paused && paused(&handle).await == [0, 1]
    })
    .await;
    let verdict = (app.health().ready().ok, app.health().live().ok);
    assert_eq!(verdict, (false, true), "ready and alive");
    handle.stop().await;
    handle.start().await.unwrap();
    until("the pause again", async || {
        handle.status() == Status::Paused && paused(&handle).await == [0, 1]
    })
    .await;
    cluster.send(topic, 0, &[("k", "a")]).await;
    tokio::time::sleep(FETCH).await;
    assert_eq!(seen.of(""), [""; 0]);
    handle.resume();
    seen.are(&["a"]).await;
    until("readiness", async || app.health().ready().ok).await;
    assert_eq!(handle.status(), Status::Running);
    app.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_paused_partition_waits_alone_and_what_is_told_of_it_is_right() {
    let cluster = Cluster::start().await;
    let topic = topic(&cluster, 2).await;
    let seen = Seen::default();
    let app = App::new(cluster.config())
        .state(seen.clone())
        .listener(listener("orders", topic).handle(note));
    let app = ready(app).await;
    let handle = app.listener("orders").unwrap();

    handle.pause_partition(topic, 1).unwrap();
    until("the pause", async || paused(&handle).await == [1]).await;
    assert_eq!(handle.status(), Status::Running, "the other is at work");
    cluster.send(topic, 1, &[("k", "waits")]).await;
    cluster.send(topic, 0, &[("k", "a"), ("k", "b")]).await;
    until("the other partition", async || seen.of("").len() == 2).await;
    tokio::time::sleep(FETCH).await;
    seen.are(&["a", "b"]).await;
    assert_eq!((handle.stats().partitions, handle.stats().paused), (2, 1));

    handle.resume_partition(topic, 1).unwrap();
    seen.are(&["a", "b", "waits"]).await;
    until("the positions", async || {
        let assigned = handle.assignment().await;
        let mut positions: Vec<_> = assigned.iter().map(|found| found.position).collect();
        positions.sort_unstable();
        positions == [Some(1), Some(2)]
    })
    .await;
    assert!(paused(&handle).await.is_empty());
    until("the commits", async || handle.stats().commits > 0).await;
    until("idleness", async || {
        let stats = handle.stats();
        (stats.polled, stats.in_flight, stats.paused, stats.failures) == (3, 0, 0, 0)
    })
    .await;
    app.stop().await.unwrap();
}

/// Reads everything once more when it is told so for the first time.
async fn rewind(Text(value): Text, seek: Seek, State(seen): State<Seen>) {
    if value == "again" && seen.of("again").is_empty() {
        seek.to(SeekTo::Beginning);
    }
    seen.push(value);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_listener_is_sought_by_its_handler_and_from_outside() {
    let cluster = Cluster::start().await;
    let topic = topic(&cluster, 1).await;
    let seen = Seen::default();
    let app = App::new(cluster.config())
        .state(seen.clone())
        .listener(listener("orders", topic).handle(rewind));
    let app = ready(app).await;
    let handle = app.listener("orders").unwrap();

    cluster.send(topic, 0, &[("k", "a")]).await;
    cluster.send(topic, 0, &[("k", "again")]).await;
    let mut expected = vec!["a", "again", "a", "again"];
    seen.are(&expected).await;
    cluster.send(topic, 0, &[("k", "b")]).await;
    expected.push("b");
    seen.are(&expected).await;

    assert_eq!(handle.seek(topic, 0, SeekTo::Offset(2)).await, Ok(2));
    expected.push("b");
    seen.are(&expected).await;
    let sought = handle.seek_all(SeekTo::Beginning).await.unwrap();
    assert!(matches!(&sought[..], [(_, Ok(0))]), "{sought:?}");
    expected.extend(["a", "again", "b"]);
    seen.are(&expected).await;

    let written = tokio::task::block_in_place(|| cluster.read(topic, 3));
    let times: Vec<_> = written
        .iter()
        .map(|record| record.timestamp().to_millis().unwrap())
        .collect();
    // Records of one millisecond are one moment.
    let first = times.iter().position(|at| *at == times[2]).unwrap();
    let to = SeekTo::Time(Timestamp::from_millis(times[2]));
    let sought = handle.seek(topic, 0, to).await;
    assert_eq!(sought, Ok(i64::try_from(first).unwrap()));
    expected.extend(&["a", "again", "b"][first..]);
    seen.are(&expected).await;

    let refused = handle.seek(topic, 0, SeekTo::Offset(99)).await;
    assert!(
        matches!(refused, Err(ControlError::OutOfRange { .. })),
        "{refused:?}"
    );
    assert_eq!(handle.seek(topic, 0, SeekTo::End).await, Ok(3));
    app.stop().await.unwrap();
    cluster.reaches(topic, 0, 3).await;
    seen.are(&expected).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_name_that_no_listener_has_and_a_topic_that_it_does_not_read_are_told() {
    let cluster = Cluster::start().await;
    let (orders, parcels) = (topic(&cluster, 1).await, topic(&cluster, 1).await);
    let app = App::new(cluster.config())
        .state(Seen::default())
        .listener(listener("parcels", parcels).handle(note))
        .listener(listener("orders", orders).handle(note));
    let app = ready(app).await;
    assert!(app.listener("order").is_none());
    let names: Vec<_> = app.listeners().map(ListenerHandle::name).collect();
    assert_eq!(names, ["orders", "parcels"]);

    let handle = app.listener("orders").unwrap();
    let refusals = [
        handle.pause_partition(parcels, 0).unwrap_err(),
        handle.resume_partition(parcels, 0).unwrap_err(),
        handle.seek(parcels, 0, SeekTo::End).await.unwrap_err(),
        handle.request_seek(parcels, 0, SeekTo::End).unwrap_err(),
    ];
    let wanted = ControlError::NotSubscribed {
        topic: parcels.to_owned(),
    };
    assert!(
        refusals.iter().all(|refused| *refused == wanted),
        "{refusals:?}"
    );
    let refused = handle.seek(orders, 7, SeekTo::End).await.unwrap_err();
    let said = refused.to_string();
    assert!(
        said.contains(orders) && said.contains("is not assigned"),
        "{said}"
    );
    app.stop().await.unwrap();
}
