//! What users of Spring for Apache Kafka complain about, a test each, on a real broker; the rest
//! and where it is ruled out is listed in `core_spring.rs`. Numbers are issues of
//! <https://github.com/spring-projects/spring-kafka>.

#![allow(clippy::panic, reason = "helpers of tests")]

mod container_support;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use ackwell::container::{End, Observation, Observer};
use ackwell::core::RetryPolicy;
use ackwell::core::commit::AckMode;
use ackwell::extract::{Attempt, State, Text};
use ackwell::failure::{Class, Failure};
use ackwell::producer::OutgoingRecord;
use ackwell::retry::fixed;
use ackwell::{App, Batch, BatchError, Listener, Producer, RunningApp};
use container_support::{Call, Cluster, Log, header, logged, run};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;

/// Longer than a stop may take, and shorter than the waits that must not hold it up.
const PROMPT: Duration = Duration::from_secs(15);

/// Fails records with the value `bad` before their `from`th attempt.
fn fails_before(from: u32) -> impl Fn(Call) -> BoxFuture<'static, Result<(), Failure>> {
    move |call| {
        let fails = call.value == "bad" && call.attempt < from;
        async move {
            if fails {
                Err(Failure::new(Class::Transient, "not yet"))
            } else {
                Ok(())
            }
        }
        .boxed()
    }
}

/// #4371: a partition that goes well resets the attempts of one that does not, whose record is
/// then never dead-lettered.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_busy_partition_leaves_the_attempts_of_a_failing_one_alone() {
    let cluster = Cluster::start().await;
    let topic = cluster.topic(2).await;
    cluster.send(&topic, 0, &[("k", "bad"), ("k", "c")]).await;
    let log = Arc::new(Log::default());
    let mut spec = cluster.listener(&topic, logged(&log, fails_before(u32::MAX)));
    spec.retry = RetryPolicy::fixed(Duration::from_millis(300)).max_attempts(4);
    let container = run(spec).await;
    for attempt in 1..=4 {
        let failed = move |call: &Call| call.value == "bad" && call.attempt == attempt;
        log.wait_until(|calls| calls.iter().any(failed)).await;
        cluster.send(&topic, 1, &[("k", "good")]).await;
    }
    cluster.reaches(&topic, 0, 2).await;
    cluster.reaches(&topic, 1, 4).await;
    container.stop().await;
    let calls = log.calls();
    let attempts: Vec<_> = calls
        .iter()
        .filter(|call| call.value == "bad")
        .map(|call| call.attempt)
        .collect();
    assert_eq!(attempts, [1, 2, 3, 4]);
    let letters = tokio::task::block_in_place(|| cluster.read(&format!("{topic}.DLQ"), 1));
    assert_eq!(header(&letters[0], "failure.attempts"), ["4"]);
}

/// #2340, #3703: a rebalance during a retry resumes what was paused, discards polled records or
/// skips them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rebalance_during_a_retry_skips_nothing_and_keeps_the_order() {
    let cluster = Cluster::start().await;
    let topic = cluster.topic(2).await;
    for partition in 0..2 {
        let records = [("k", "a"), ("k", "bad"), ("k", "c"), ("k", "d")];
        cluster.send(&topic, partition, &records).await;
    }
    let log = Arc::new(Log::default());
    let mut spec = cluster.listener(&topic, logged(&log, fails_before(4)));
    spec.retry = RetryPolicy::fixed(Duration::from_secs(1));
    spec.commit = AckMode::Record;
    let first = run(spec.clone()).await;
    log.wait_until(|calls| calls.iter().filter(|call| call.value == "bad").count() == 2)
        .await;
    let second = run(spec).await;
    for partition in 0..2 {
        cluster.reaches(&topic, partition, 4).await;
    }
    first.stop().await;
    second.stop().await;
    let mut order: BTreeMap<i32, Vec<String>> = BTreeMap::new();
    for call in log.calls() {
        let values = order.entry(call.partition).or_default();
        if values.last() != Some(&call.value) {
            values.push(call.value);
        }
    }
    for (partition, values) in order {
        assert_eq!(values, ["a", "bad", "c", "d"], "partition {partition}");
    }
}

/// What a container says of its health.
#[derive(Default)]
struct Health(Mutex<Option<String>>);

impl Observer for Health {
    fn observe(&self, observation: &Observation<'_>) {
        if let Observation::Health { problem } = observation {
            *self.0.lock().unwrap_or_else(PoisonError::into_inner) = problem.map(str::to_owned);
        }
    }
}

/// #850, #3948: a consumer that is dead looks healthy, or stopped for a wrong reason.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_listener_that_has_stopped_by_itself_is_unhealthy_for_its_reason() {
    let cluster = Cluster::start().await;
    let topic = cluster.topic(1).await;
    cluster.send(&topic, 0, &[("k", "a")]).await;
    let log = Arc::new(Log::default());
    let stops = |_| async { Err(Failure::new(Class::Stop, "the licence is over")) }.boxed();
    let mut spec = cluster.listener(&topic, logged(&log, stops));
    let health = Arc::new(Health::default());
    spec.observer = Arc::clone(&health) as Arc<dyn Observer>;
    let container = run(spec).await;
    let End::Failed(reason) = container.wait().await else {
        panic!("it stops by itself");
    };
    assert!(reason.contains("the licence is over"), "{reason}");
    let known = health.0.lock().unwrap_or_else(PoisonError::into_inner);
    let known = known.clone().unwrap_or_default();
    assert!(known.contains("the licence is over"), "{known}");
    assert_eq!(cluster.committed(&topic, 0), -1, "its record is kept");
}

/// #1480: a wait between attempts blocks the shutdown.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_does_not_wait_for_the_next_attempt() {
    let cluster = Cluster::start().await;
    let topic = cluster.topic(1).await;
    cluster.send(&topic, 0, &[("k", "bad"), ("k", "b")]).await;
    let log = Arc::new(Log::default());
    let mut spec = cluster.listener(&topic, logged(&log, fails_before(u32::MAX)));
    spec.retry = RetryPolicy::fixed(Duration::from_secs(3_600));
    let container = run(spec).await;
    log.wait_for(1).await;
    let stopped = tokio::time::timeout(PROMPT, container.stop()).await;
    assert_eq!(stopped.ok(), Some(End::Stopped));
    assert_eq!(log.values(), ["bad"], "and what is behind it waits");
}

/// #1716: a delay of 1 s takes 10 s.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_delay_is_never_short_and_does_not_wait_for_a_poll() {
    let cluster = Cluster::start().await;
    let topic = cluster.topic(1).await;
    cluster.send(&topic, 0, &[("k", "bad")]).await;
    let (log, times) = (Arc::new(Log::default()), Arc::new(Mutex::new(Vec::new())));
    let (seen, fails) = (Arc::clone(&times), fails_before(3));
    let mut spec = cluster.listener(
        &topic,
        logged(&log, move |call| {
            let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
            seen.push(Instant::now());
            fails(call)
        }),
    );
    let delay = Duration::from_secs(1);
    spec.retry = RetryPolicy::fixed(delay);
    let container = run(spec).await;
    cluster.reaches(&topic, 0, 1).await;
    container.stop().await;
    let times = times.lock().unwrap_or_else(PoisonError::into_inner);
    let waits: Vec<_> = times.windows(2).map(|two| two[1] - two[0]).collect();
    assert_eq!(waits.len(), 2);
    // The container's clock counts whole milliseconds.
    let shortest = delay - Duration::from_millis(1);
    assert!(waits.iter().all(|wait| *wait > shortest), "{waits:?}");
    assert!(waits.iter().all(|wait| *wait < 8 * delay), "{waits:?}");
}

type Taken = Arc<Mutex<Vec<(String, u32)>>>;

fn taken(taken: &Taken) -> Vec<(String, u32)> {
    taken.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

/// Takes a list as far as a bad line that was not tried before.
async fn import(
    Batch(lines): Batch<Text>,
    Attempt(attempt): Attempt,
    State(taken): State<Taken>,
) -> Result<(), BatchError> {
    for (index, Text(line)) in lines.into_iter().enumerate() {
        let bad = line == "bad" && attempt == 1;
        let mut taken = taken.lock().unwrap_or_else(PoisonError::into_inner);
        taken.push((line, attempt));
        if bad {
            return Err(BatchError::at(index, Failure::transient("not yet")));
        }
    }
    Ok(())
}

/// #3712: a batch listener does not poll while it waits for its next attempt, and the group takes
/// its partitions away. (#2699, retry topics of a batch listener: `container_retry_topics.rs`.)
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_may_wait_longer_than_the_poll_interval_and_keeps_its_partition() {
    let cluster = Cluster::start().await;
    let topic: &'static str = cluster.topic(2).await.leak();
    let list = [("k", "a"), ("k", "bad"), ("k", "c")];
    cluster.send(topic, 0, &list).await;
    let mut config = cluster.config();
    for setting in ["session.timeout.ms", "max.poll.interval.ms"] {
        let setting = (setting.to_owned(), "6000".to_owned());
        config.kafka.consumer.extend([setting]);
    }
    let lines = Taken::default();
    let app = App::new(config)
        .named(format!("g-{topic}"))
        .state(Arc::clone(&lines));
    let wait = fixed(Duration::from_secs(9)).max_attempts(2);
    let listener = Listener::on(topic).retry(wait);
    let listener = listener.revoke_drain(Duration::from_secs(2));
    let app = app.listener(listener.handle_batch(import));
    let started = Instant::now();
    let Ok(app) = app.start().await else {
        panic!("the app starts")
    };
    cluster.reaches(topic, 0, 1).await;
    cluster.send(topic, 1, &[("k", "other")]).await;
    cluster.reaches(topic, 1, 1).await;
    cluster.reaches(topic, 0, 3).await;
    assert!(started.elapsed() > Duration::from_secs(8));
    drop(app.stop().await);
    let handled = taken(&lines);
    let times = |line: &str| {
        let of = handled.iter().filter(|(found, _)| found == line);
        of.map(|(_, attempt)| *attempt).collect::<Vec<_>>()
    };
    let place = |line: &str, attempt| {
        let mut handled = handled.iter();
        handled.position(|found| *found == (line.to_owned(), attempt))
    };
    assert!(place("other", 1) < place("bad", 2), "{handled:?}");
    assert_eq!(times("bad"), [1, 2], "counted on, so nobody took it away");
    for line in ["a", "c", "other"] {
        assert_eq!(times(line), [1], "{line}");
    }
}

/// Answers each question on the topic of answers.
async fn answer(
    Text(question): Text,
    State(producer): State<Producer>,
    State(answers): State<&'static str>,
) -> Result<(), Failure> {
    let record = OutgoingRecord::to(answers).key(question.clone());
    let sent = producer.send_record(record.value(question)).await;
    sent.map(drop)
        .map_err(|error| Failure::transient(error.to_string()))
}

async fn take(Text(line): Text, State(taken): State<Taken>) {
    let mut taken = taken.lock().unwrap_or_else(PoisonError::into_inner);
    taken.push((line, 1));
}

async fn running(app: App) -> RunningApp {
    match app.start().await {
        Ok(app) => app,
        Err(error) => panic!("{error}"),
    }
}

/// #731: each instance that asks needs a topic, a partition or a group of its own for its answers,
/// or reads everybody's. Here answers are events: the instances share a group, each answer reaches
/// one of them, and instances come and go without anything being declared.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_are_read_once_however_many_instances_ask() {
    let cluster = Cluster::start().await;
    let questions: &'static str = cluster.topic(2).await.leak();
    let answers: &'static str = cluster.topic(2).await.leak();
    let Ok(producer) = Producer::new(&cluster.config()) else {
        panic!("a producer")
    };
    let answering = App::new(cluster.config())
        .named(format!("g-{questions}"))
        .state(producer)
        .state(answers)
        .listener(Listener::on(questions).handle(answer));
    let answering = running(answering).await;
    let (first, second) = (Taken::default(), Taken::default());
    let asking = |taken: &Taken| {
        App::new(cluster.config())
            .named(format!("g-{answers}"))
            .state(Arc::clone(taken))
            .listener(Listener::on(answers).handle(take))
    };
    let one = running(asking(&first)).await;
    let other = running(asking(&second)).await;
    for app in [&one, &other] {
        drop(app.ready().await);
    }
    let ask = async |numbers: std::ops::Range<u32>| {
        for partition in 0..2 {
            let of = numbers.clone().filter(|number| number % 2 == partition);
            let texts: Vec<_> = of.map(|number| number.to_string()).collect();
            let records: Vec<_> = texts.iter().map(|text| ("k", text.as_str())).collect();
            let partition = partition.cast_signed();
            cluster.send(questions, partition, &records).await;
        }
    };
    let all = || [taken(&first), taken(&second)].concat();
    let answered = async |count: usize| {
        let started = Instant::now();
        while all().len() < count && started.elapsed() < Duration::from_secs(40) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let found = all();
        let different: BTreeSet<_> = found.iter().collect();
        assert_eq!((found.len(), different.len()), (count, count), "each once");
    };
    ask(0..20).await;
    answered(20).await;
    assert!(!taken(&first).is_empty() && !taken(&second).is_empty());
    drop(one.stop().await);
    ask(20..30).await;
    answered(30).await;
    drop(other.stop().await);
    drop(answering.stop().await);
}
