//! Records that are tried again later, without holding up those behind them.
#![allow(clippy::expect_used, reason = "helpers of tests")]

mod container_support;

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use ackwell::container::{RecordHandler, Spec};
use ackwell::core::RetryPolicy;
use ackwell::extensions::Extensions;
use ackwell::extract::{Attempt, State, Text};
use ackwell::failure::{Class, Failure};
use ackwell::record::Record;
use ackwell::retry::topics;
use ackwell::{App, Batch, BatchError, Listener};
use container_support::{Call, Cluster, Log, header, logged, run};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use rdkafka::Message;
use rdkafka::admin::{AdminClient, AdminOptions, NewPartitions};
use rdkafka::client::DefaultClientContext;
use rdkafka::producer::{FutureProducer, Producer};

const SECOND: Duration = Duration::from_secs(1);
const PATIENCE: Duration = Duration::from_secs(40);

/// When each value was handled, by value and attempt.
#[derive(Clone, Default)]
struct Times(Arc<Mutex<HashMap<(String, u32), Instant>>>);

impl Times {
    fn note(&self, call: &Call) {
        let key = (call.value.clone(), call.attempt);
        self.0.lock().expect("times").insert(key, Instant::now());
    }

    fn of(&self, value: &str, attempt: u32) -> Instant {
        self.0.lock().expect("times")[&(value.to_owned(), attempt)]
    }

    /// Between two attempts at the same value.
    fn between(&self, value: &str, one: u32, other: u32) -> Duration {
        self.of(value, other) - self.of(value, one)
    }
}

/// Fails each record that says so (`bad`, `bad-..`) in its first `attempts` attempts.
fn failing(log: &Arc<Log>, times: &Times, attempts: u32) -> Arc<dyn RecordHandler> {
    let times = times.clone();
    logged(log, move |call| {
        times.note(&call);
        let fails = call.value.starts_with("bad") && call.attempt <= attempts;
        async move {
            if fails {
                Err(Failure::transient("not yet"))
            } else {
                Ok(())
            }
        }
        .boxed()
    })
}

fn with_topics(mut spec: Spec, delays: &[Duration]) -> Spec {
    spec.retry = RetryPolicy::none();
    spec.retry_topics = delays.to_vec();
    spec
}

fn partitions(cluster: &Cluster, topic: &str) -> usize {
    let producer: FutureProducer = cluster.client().create().expect("a client");
    let metadata = producer.client().fetch_metadata(Some(topic), PATIENCE);
    metadata.expect("metadata").topics()[0].partitions().len()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_record_waits_on_growing_retry_topics_while_those_behind_it_go_on_and_ends_as_it_was() {
    let cluster = Cluster::start().await;
    let topic = cluster.topic(2).await;
    let (log, times) = (Arc::new(Log::default()), Times::default());
    let spec = cluster.listener(&topic, failing(&log, &times, u32::MAX));
    let mut spec = with_topics(spec, &[SECOND, 2 * SECOND]);
    spec.retry = RetryPolicy::fixed(Duration::from_millis(50)).max_attempts(2);
    let container = run(spec).await;
    let records = [("k", "a"), ("poison", "bad"), ("k", "c")];
    cluster.send(&topic, 1, &records).await;
    log.wait_for(6).await;
    let letters = format!("{topic}.DLQ");
    let letters = tokio::task::block_in_place(|| cluster.read(&letters, 1));
    cluster.reaches(&topic, 1, 3).await;
    assert_eq!(container.stats().postponed, 2);
    assert_eq!(container.stats().dead_letters, 1);
    container.stop().await;

    assert_eq!(log.values(), ["a", "bad", "bad", "c", "bad", "bad"]);
    let attempts: Vec<_> = log.calls().iter().map(|call| call.attempt).collect();
    assert_eq!(attempts, [1, 1, 2, 1, 3, 4]);
    assert!(times.between("bad", 2, 3) >= SECOND, "never early");
    assert!(times.between("bad", 3, 4) >= 2 * SECOND, "never early");
    let places: Vec<_> = log
        .calls()
        .iter()
        .map(|call| (call.partition, call.offset))
        .collect();
    assert_eq!(places, [(1, 0), (1, 1), (1, 1), (1, 2), (1, 1), (1, 1)]);

    let letter = &letters[0];
    let one = |name: &str| header(letter, name).join(",");
    assert_eq!(letter.key(), Some(&b"poison"[..]));
    assert_eq!(
        (letter.payload(), letter.partition()),
        (Some(&b"bad"[..]), 1)
    );
    assert_eq!(header(letter, "trace"), ["a", "b"]);
    assert_eq!(one("original.topic"), topic);
    assert_eq!(
        (one("original.partition"), one("original.offset")),
        ("1".into(), "1".into())
    );
    assert_eq!(
        (one("failure.attempts"), one("failure.class")),
        ("4".into(), "transient".into())
    );
    assert_eq!(
        (one("failure.first.class"), one("failure.first.reason")),
        ("transient".into(), "not yet".into())
    );
    let between = one("failure.timestamp")
        .parse::<jiff::Timestamp>()
        .expect("a time")
        - one("failure.first.timestamp")
            .parse::<jiff::Timestamp>()
            .expect("a time");
    let between = Duration::try_from(between).expect("later");
    assert!(between >= 3 * SECOND, "{between:?}");
    assert_eq!(
        one("retry.due"),
        "",
        "what the retry topics needed is taken off"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_record_on_a_retry_topic_says_where_it_comes_from_and_why() {
    let cluster = Cluster::start().await;
    let topic = cluster.topic(2).await;
    let (log, times) = (Arc::new(Log::default()), Times::default());
    let spec = cluster.listener(&topic, failing(&log, &times, 1));
    let container = run(with_topics(spec, &[SECOND])).await;
    cluster.send(&topic, 1, &[("k", "bad")]).await;
    log.wait_for(2).await;
    container.stop().await;
    let retry = format!("{topic}.retry.1");
    assert_eq!(partitions(&cluster, &retry), 2);
    let waiting = tokio::task::block_in_place(|| cluster.read(&retry, 1));
    let record = &waiting[0];
    let one = |name: &str| header(record, name).join(",");
    assert_eq!(
        (record.key(), record.payload()),
        (Some(&b"k"[..]), Some(&b"bad"[..]))
    );
    assert_eq!(
        (record.partition(), header(record, "trace")),
        (1, vec!["a".into(), "b".into()])
    );
    assert_eq!(one("original.topic"), topic);
    assert_eq!(
        (one("original.partition"), one("original.offset")),
        ("1".into(), "0".into())
    );
    assert_eq!(one("original.group"), format!("g-{topic}"));
    assert_eq!(
        (one("failure.attempts"), one("failure.reason")),
        ("1".into(), "not yet".into())
    );
    assert_eq!(
        (one("failure.first.class"), one("retry.number")),
        ("transient".into(), "1".into())
    );
    assert!(one("failure.first.timestamp").ends_with('Z'));
    let due: i64 = one("retry.due").parse().expect("a time");
    let written = record.timestamp().to_millis().expect("a time");
    assert!((due - written).abs() <= 2_000, "{due} {written}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_in_the_middle_of_a_delay_neither_loses_the_record_nor_makes_it_early() {
    let cluster = Cluster::start().await;
    let topic = cluster.topic(1).await;
    let (log, times) = (Arc::new(Log::default()), Times::default());
    let spec = cluster.listener(&topic, failing(&log, &times, 1));
    let mut spec = with_topics(spec, &[4 * SECOND]);
    // What waits must not be passed over, although nothing of the retry topic was committed yet.
    spec.consumer.set("auto.offset.reset", "latest");
    let container = run(spec.clone()).await;
    while container.stats().partitions < 2 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    // `latest` is looked up when the partition is taken over; a first record makes sure it was.
    loop {
        cluster.send(&topic, 0, &[("k", "warm")]).await;
        tokio::time::sleep(Duration::from_millis(300)).await;
        if !log.calls().is_empty() {
            break;
        }
    }
    cluster.send(&topic, 0, &[("k", "bad")]).await;
    log.wait_until(|calls| calls.iter().any(|call| call.value == "bad"))
        .await;
    tokio::time::timeout(PATIENCE, async {
        while container.stats().postponed < 1 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await
    .expect("it is postponed");
    let stopping = Instant::now();
    container.stop().await;
    assert!(
        stopping.elapsed() < 3 * SECOND,
        "a delay does not hold up a stop"
    );
    assert_eq!(
        log.calls()
            .iter()
            .filter(|call| call.value == "bad")
            .count(),
        1
    );

    let container = run(spec).await;
    log.wait_until(|calls| calls.iter().any(|call| call.attempt == 2))
        .await;
    cluster
        .reaches_of(&format!("g-{topic}"), &format!("{topic}.retry.1"), 0, 1)
        .await;
    container.stop().await;
    assert!(times.between("bad", 1, 2) >= 4 * SECOND);
    assert_eq!(
        log.calls()
            .iter()
            .filter(|call| call.value == "bad")
            .count(),
        2
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_partition_reassigned_in_the_middle_of_a_delay_goes_on_at_its_new_owner() {
    let cluster = Cluster::start().await;
    let topic = cluster.topic(2).await;
    let (log, times) = (Arc::new(Log::default()), Times::default());
    let handler = failing(&log, &times, 1);
    let spec = with_topics(cluster.listener(&topic, handler), &[5 * SECOND]);
    let first = run(spec.clone()).await;
    cluster.send(&topic, 0, &[("k", "bad-0"), ("k", "x")]).await;
    cluster.send(&topic, 1, &[("k", "bad-1"), ("k", "y")]).await;
    log.wait_for(4).await;
    // The second one takes some over, then all of them.
    let second = run(spec).await;
    tokio::time::timeout(PATIENCE, async {
        while second.stats().partitions == 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await
    .expect("a rebalance");
    first.stop().await;
    log.wait_until(|calls| calls.iter().filter(|call| call.attempt == 2).count() == 2)
        .await;
    for partition in 0..2 {
        cluster.reaches(&topic, partition, 2).await;
        cluster
            .reaches_of(
                &format!("g-{topic}"),
                &format!("{topic}.retry.1"),
                partition,
                1,
            )
            .await;
    }
    second.stop().await;
    for value in ["bad-0", "bad-1"] {
        assert!(times.between(value, 1, 2) >= 5 * SECOND, "never early");
    }
    assert_eq!(log.calls().len(), 6, "each retry was handled once");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn groups_that_share_retry_topics_leave_each_others_records_alone() {
    let cluster = Cluster::start().await;
    let topic = cluster.topic(1).await;
    let (ours, theirs, times) = (
        Arc::new(Log::default()),
        Arc::new(Log::default()),
        Times::default(),
    );
    let spec = with_topics(
        cluster.listener(&topic, failing(&ours, &times, 1)),
        &[SECOND],
    );
    let mut other = spec.clone();
    other.group = format!("other-{topic}");
    other.handler = failing(&theirs, &Times::default(), 0);
    let (one, two) = (run(spec).await, run(other).await);
    cluster.send(&topic, 0, &[("k", "bad"), ("k", "b")]).await;
    ours.wait_for(3).await;
    theirs.wait_for(2).await;
    // Their position passes it nevertheless.
    let retry = format!("{topic}.retry.1");
    cluster
        .reaches_of(&format!("other-{topic}"), &retry, 0, 1)
        .await;
    one.stop().await;
    two.stop().await;
    assert_eq!(ours.values(), ["bad", "b", "bad"]);
    assert_eq!(theirs.values(), ["bad", "b"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_retry_topic_with_too_few_partitions_gets_those_of_its_origin() {
    let cluster = Cluster::start().await;
    let topic = cluster.topic(3).await;
    let retry = format!("{topic}.retry.1");
    cluster.make(&retry, 1).await;
    let log = Arc::new(Log::default());
    let spec = cluster.listener(&topic, logged(&log, |_| async { Ok(()) }.boxed()));
    let container = run(with_topics(spec, &[SECOND])).await;
    container.stop().await;
    assert_eq!(partitions(&cluster, &retry), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_permanent_failure_goes_to_no_retry_topic_and_a_wait_asked_for_is_kept_there() {
    let cluster = Cluster::start().await;
    let topic = cluster.topic(1).await;
    let (log, times) = (Arc::new(Log::default()), Times::default());
    let noted = times.clone();
    let handler = logged(&log, move |call| {
        noted.note(&call);
        async move {
            match (call.value.as_str(), call.attempt) {
                ("never", _) => Err(Failure::permanent("no such product")),
                ("busy", 1) => Err(Failure::transient("busy").retry_after(3 * SECOND)),
                _ => Ok(()),
            }
        }
        .boxed()
    });
    let spec = with_topics(cluster.listener(&topic, handler), &[SECOND, 4 * SECOND]);
    let container = run(spec).await;
    cluster
        .send(&topic, 0, &[("k", "never"), ("k", "busy"), ("k", "c")])
        .await;
    log.wait_for(4).await;
    cluster.reaches(&topic, 0, 3).await;
    let stats = container.stats();
    assert_eq!((stats.postponed, stats.dead_letters), (1, 1));
    container.stop().await;
    assert_eq!(log.values(), ["never", "busy", "c", "busy"]);
    assert!(times.between("busy", 1, 2) >= 3 * SECOND);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_partition_that_is_added_to_a_topic_is_added_to_its_retry_topic() {
    let cluster = Cluster::start().await;
    let topic = cluster.topic(1).await;
    let (log, times) = (Arc::new(Log::default()), Times::default());
    let spec = cluster.listener(&topic, failing(&log, &times, 1));
    let mut spec = with_topics(spec, &[Duration::from_millis(100)]);
    let refresh = "topic.metadata.refresh.interval.ms";
    spec.consumer.set(refresh, "500");
    let container = run(spec).await;
    cluster.send(&topic, 0, &[("k", "bad")]).await;
    log.wait_for(2).await;

    let admin: AdminClient<DefaultClientContext> = cluster.client().create().expect("a client");
    let more = NewPartitions::new(&topic, 3);
    let grown = admin.create_partitions([&more], &AdminOptions::new()).await;
    assert!(grown.expect("an answer")[0].is_ok());
    // Not where its key belongs.
    cluster.send(&topic, 2, &[("k", "bad-new")]).await;
    log.wait_for(4).await;
    cluster.reaches(&topic, 2, 1).await;
    container.stop().await;
    let retry = format!("{topic}.retry.1");
    assert_eq!(partitions(&cluster, &retry), 3);
    let copies = tokio::task::block_in_place(|| cluster.read(&retry, 2));
    let place = |value: &[u8]| {
        let copy = copies.iter().find(|copy| copy.payload() == Some(value));
        copy.map(|copy| copy.partition())
    };
    assert_eq!((place(b"bad"), place(b"bad-new")), (Some(0), Some(2)));
}

/// Tells by which topic each record was read.
struct ReadFrom(Mutex<Vec<(String, String)>>, Arc<Log>);

impl RecordHandler for ReadFrom {
    fn call(
        &self,
        record: Record,
        attempt: u32,
        _: Extensions,
    ) -> BoxFuture<'static, Result<(), Failure>> {
        let seen = (record.topic().to_owned(), record.read_from().0.to_owned());
        self.0.lock().expect("places").push(seen);
        self.1.push(Call {
            partition: record.partition(),
            offset: record.offset(),
            key: String::new(),
            value: String::new(),
            attempt,
        });
        let class = Class::Transient;
        let failed = (attempt == 1).then(|| Failure::new(class, "not yet"));
        async move { failed.map_or(Ok(()), Err) }.boxed()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_handler_sees_the_origins_topic_and_can_ask_for_where_it_was_read() {
    let cluster = Cluster::start().await;
    let topic = cluster.topic(1).await;
    let log = Arc::new(Log::default());
    let handler = Arc::new(ReadFrom(Mutex::default(), Arc::clone(&log)));
    let spec = cluster.listener(&topic, Arc::clone(&handler) as Arc<dyn RecordHandler>);
    let container = run(with_topics(spec, &[Duration::from_millis(100)])).await;
    cluster.send(&topic, 0, &[("k", "a")]).await;
    log.wait_for(2).await;
    container.stop().await;
    let retry = format!("{topic}.retry.1");
    let seen = handler.0.lock().expect("places").clone();
    assert_eq!(seen, [(topic.clone(), topic.clone()), (topic, retry)]);
}

type Lines = Arc<Mutex<Vec<(String, u32)>>>;

/// Takes a list as far as its first bad line, unless it has been tried before.
async fn import(
    Batch(lines): Batch<Text>,
    Attempt(attempt): Attempt,
    State(taken): State<Lines>,
) -> Result<(), BatchError> {
    for (index, Text(line)) in lines.into_iter().enumerate() {
        if line == "bad" && attempt == 1 {
            return Err(BatchError::at(index, Failure::transient("not yet")));
        }
        taken.lock().expect("lines").push((line, attempt));
    }
    Ok(())
}

/// Spring for Apache Kafka #2699: there is no retry by topics for batch listeners.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_listeners_failed_record_is_retried_later_without_its_neighbours() {
    let cluster = Cluster::start().await;
    let topic: &'static str = cluster.topic(1).await.leak();
    let sent = [("k", "a"), ("k", "bad"), ("k", "c"), ("k", "d")];
    cluster.send(topic, 0, &sent).await;
    let taken = Lines::default();
    let app = App::new(cluster.config())
        .named(format!("g-{topic}"))
        .state(Arc::clone(&taken))
        .listener(
            Listener::on(topic)
                .retry(topics([SECOND]))
                .handle_batch(import),
        );
    let app = app.start().await.expect("the app starts");
    cluster.reaches(topic, 0, 4).await;
    let group = format!("g-{topic}");
    cluster
        .reaches_of(&group, &format!("{topic}.retry.1"), 0, 1)
        .await;
    app.stop().await.expect("the app stops");
    let taken = taken.lock().expect("lines").clone();
    let lines: Vec<_> = taken
        .iter()
        .map(|(line, attempt)| (line.as_str(), *attempt))
        .collect();
    assert_eq!(lines, [("a", 1), ("c", 1), ("d", 1), ("bad", 2)]);
}
