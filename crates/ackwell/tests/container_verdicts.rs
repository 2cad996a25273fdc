//! What a listener makes of failures, who hears of them, and that poison hurts only itself.
#![allow(clippy::expect_used, reason = "helpers of tests")]

mod container_support;

use std::borrow::Cow;
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use ackwell::container::{Observation, Observer};
use ackwell::core::RetryPolicy;
use ackwell::extract::{Event, Key, State, Text};
use ackwell::failure::{
    Alert, Class, Classify, Destination, FailedAttempt, Failure, FailureListener, Raised, Recovered,
};
use ackwell::retry::fixed;
use ackwell::{App, Listener, Topic};
use container_support::{Cluster, Log, header, logged, raw, run};
use futures_util::FutureExt;
use rdkafka::Message;
use rdkafka::message::{Headers as _, OwnedMessage};
use serde::{Deserialize, Serialize};

const PATIENCE: Duration = Duration::from_secs(40);
const SOON: Duration = Duration::from_millis(20);

async fn until(what: &str, condition: impl Fn() -> bool) {
    let met = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let in_time = tokio::time::timeout(PATIENCE, met).await;
    assert!(in_time.is_ok(), "waited too long for {what}");
}

#[derive(Debug, thiserror::Error)]
#[error("charging the card")]
struct Charging(#[source] io::Error);

impl Classify for Charging {}

#[derive(Debug, thiserror::Error)]
#[error("no such card")]
struct NoSuchCard;

impl Classify for NoSuchCard {}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cause_however_deep_decides_on_class_and_policy() {
    let cluster = Cluster::start().await;
    let topic = cluster.topic(1).await;
    let log = Arc::new(Log::default());
    let mut spec = cluster.listener(
        &topic,
        logged(&log, |call| {
            async move {
                match call.value.as_str() {
                    "io" => Err(Charging(io::Error::other("reset")).into()),
                    "card" => Err(NoSuchCard.into()),
                    "other" => Err(Failure::transient("who knows")),
                    _ => Ok(()),
                }
            }
            .boxed()
        }),
    );
    spec.retry = RetryPolicy::fixed(SOON).max_attempts(5);
    spec.verdicts
        .retry_for::<io::Error>(RetryPolicy::fixed(SOON).max_attempts(2));
    spec.verdicts.classify::<NoSuchCard>(Class::Skip);
    spec.verdicts.classify_others(Class::Permanent);
    let container = run(spec).await;
    let sent = [("k", "io"), ("k", "card"), ("k", "other"), ("k", "fine")];
    cluster.send(&topic, 0, &sent).await;
    cluster.reaches(&topic, 0, 4).await;
    container.stop().await;
    assert_eq!(log.values(), ["io", "io", "card", "other", "fine"]);
    let letters = tokio::task::block_in_place(|| cluster.read(&format!("{topic}.DLQ"), 2));
    let said = |letter: &OwnedMessage| {
        ["failure.class", "failure.reason"].map(|name| header(letter, name).join(","))
    };
    assert_eq!(said(&letters[0]), ["transient", "charging the card: reset"]);
    assert_eq!(said(&letters[1]), ["permanent", "who knows"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wait_that_a_handler_asks_for_is_waited_by_the_container() {
    let cluster = Cluster::start().await;
    let topic = cluster.topic(2).await;
    let (log, times) = (Arc::new(Log::default()), Arc::new(Mutex::new(Vec::new())));
    let noted = Arc::clone(&times);
    let mut spec = cluster.listener(
        &topic,
        logged(&log, move |call| {
            noted
                .lock()
                .expect("times")
                .push((call.value.clone(), Instant::now()));
            async move {
                match (call.value.as_str(), call.attempt) {
                    ("busy", 1) => {
                        Err(Failure::transient("busy").retry_after(Duration::from_secs(2)))
                    }
                    _ => Ok(()),
                }
            }
            .boxed()
        }),
    );
    spec.retry = RetryPolicy::fixed(SOON).max_attempts(2);
    let container = run(spec).await;
    cluster
        .send(&topic, 0, &[("k", "busy"), ("k", "behind")])
        .await;
    log.wait_for(1).await;
    cluster.send(&topic, 1, &[("k", "aside")]).await;
    cluster.reaches(&topic, 0, 2).await;
    cluster.reaches(&topic, 1, 1).await;
    container.stop().await;
    let times = times.lock().expect("times").clone();
    let of = |value: &str| -> Vec<Instant> {
        times
            .iter()
            .filter(|(found, _)| found == value)
            .map(|(_, at)| *at)
            .collect()
    };
    // The container's clock counts milliseconds.
    let waited = of("busy")[1] - of("busy")[0];
    assert!(waited >= Duration::from_millis(1_999), "{waited:?}");
    assert!(of("behind")[0] > of("busy")[1], "order is kept");
    assert!(of("aside")[0] < of("busy")[1], "others do not wait");
}

#[derive(Debug, Serialize, Deserialize)]
struct Placed {
    number: u32,
}

impl ackwell::Event for Placed {
    const TOPIC: Topic<Self> = Topic::new("placed");

    fn event_type(&self) -> &'static str {
        "Placed"
    }

    fn knows(event_type: &str) -> bool {
        event_type == "Placed"
    }

    fn aggregate_id(&self) -> Cow<'_, str> {
        Cow::Owned(self.number.to_string())
    }
}

type Numbers = Arc<Mutex<Vec<u32>>>;

async fn note(Event(placed): Event<Placed>, Key(_): Key, State(seen): State<Numbers>) {
    seen.lock().expect("numbers").push(placed.number);
}

const PLACED: (&str, &[u8]) = ("eventType", b"Placed");

/// Key, value and headers.
type Parts = (
    Option<Vec<u8>>,
    Option<Vec<u8>>,
    Vec<(&'static str, Vec<u8>)>,
);

/// Poison of every kind, each with what makes it so.
fn poison() -> Vec<Parts> {
    let fine = || Some(br#"{"number":0}"#.to_vec());
    let key = || Some(b"k".to_vec());
    let placed = || vec![(PLACED.0, PLACED.1.to_vec())];
    let zeroes = br#"{"number":0000000000000000000000000000000000000}"#.to_vec();
    vec![
        (key(), Some(vec![0xff, 0xfe, 0x00]), placed()),
        (key(), Some(Vec::new()), placed()),
        (key(), None, placed()),
        (Some(vec![0xc3, 0x28]), fine(), placed()),
        (key(), fine(), vec![("eventType", b"Nobody knows".to_vec())]),
        (key(), fine(), vec![("eventType", vec![0xff])]),
        (key(), fine(), Vec::new()),
        (key(), Some(zeroes), placed()),
        (key(), Some(b"[[[[[[[[".repeat(1_000)), placed()),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn poison_of_every_kind_is_dead_lettered_as_it_was_and_leaves_its_neighbours_alone() {
    let cluster = Cluster::start().await;
    let topic: &'static str = cluster.topic(1).await.leak();
    let numbers = Numbers::default();
    let app = App::new(cluster.config())
        .named(format!("g-{topic}"))
        .state(Arc::clone(&numbers))
        .listener(Listener::on(topic).retry(fixed(SOON)).handle(note));
    let app = app.start().await.expect("the app starts");
    let poison = poison();
    for (number, (key, value, headers)) in poison.iter().enumerate() {
        let fine = format!("{{\"number\":{number}}}");
        let good = (Some(&b"k"[..]), Some(fine.as_bytes()));
        cluster.send_bytes(topic, 0, good, &[PLACED]).await;
        let headers: Vec<_> = headers
            .iter()
            .map(|(name, value)| (*name, &value[..]))
            .collect();
        let bad = (key.as_deref(), value.as_deref());
        cluster.send_bytes(topic, 0, bad, &headers).await;
    }
    let count = poison.len();
    cluster.reaches(topic, 0, 2 * count as i64).await;
    app.stop().await.expect("the app stops");
    let expected: Vec<u32> = (0..count as u32).collect();
    assert_eq!(*numbers.lock().expect("numbers"), expected);
    let letters = tokio::task::block_in_place(|| cluster.read(&format!("{topic}.DLQ"), count));
    for ((key, value, _), letter) in poison.iter().zip(&letters) {
        assert_eq!(letter.key(), key.as_deref());
        assert_eq!(letter.payload(), value.as_deref());
        assert_eq!(header(letter, "failure.class"), ["permanent"]);
        assert_eq!(header(letter, "failure.attempts"), ["1"]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_header_whose_name_is_no_text_is_dead_lettered_with_its_record() {
    let cluster = Cluster::start().await;
    let topic = cluster.topic(1).await;
    let log = Arc::new(Log::default());
    let spec = cluster.listener(&topic, logged(&log, |_| async { Ok(()) }.boxed()));
    let container = run(spec).await;
    cluster.send(&topic, 0, &[("k", "a")]).await;
    tokio::task::block_in_place(|| raw::produce(cluster.servers(), &topic, b"bad", b"\xff\xfe"));
    cluster.send(&topic, 0, &[("k", "c")]).await;
    cluster.reaches(&topic, 0, 3).await;
    container.stop().await;
    assert_eq!(log.values(), ["a", "c"]);
    let letters = tokio::task::block_in_place(|| cluster.read(&format!("{topic}.DLQ"), 1));
    assert_eq!(letters[0].payload(), Some(&b"bad"[..]));
    // The client library can count headers that it can't read.
    let headers = letters[0].headers().expect("headers");
    assert!(
        headers.count() > 9,
        "its own header is kept beside those added"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_header_whose_name_is_no_text_does_not_matter_to_who_looks_at_no_header() {
    let cluster = Cluster::start().await;
    let topic: &'static str = cluster.topic(1).await.leak();
    let seen: Arc<Mutex<Vec<String>>> = Arc::default();
    let noted = Arc::clone(&seen);
    let note = move |Text(value): Text| {
        noted.lock().expect("values").push(value);
        async {}
    };
    let app = App::new(cluster.config())
        .named(format!("g-{topic}"))
        .listener(Listener::on(topic).handle(note));
    let app = app.start().await.expect("the app starts");
    cluster.send(topic, 0, &[("k", "a")]).await;
    tokio::task::block_in_place(|| raw::produce(cluster.servers(), topic, b"odd", b"\xff\xfe"));
    cluster.send(topic, 0, &[("k", "c")]).await;
    cluster.reaches(topic, 0, 3).await;
    app.stop().await.expect("the app stops");
    assert_eq!(*seen.lock().expect("values"), ["a", "odd", "c"]);
}

/// Keeps what a container says of its health and of recoveries that failed.
#[derive(Default)]
struct Watched {
    problem: Mutex<Option<String>>,
    failures: Mutex<Vec<Instant>>,
}

impl Observer for Watched {
    fn observe(&self, observation: &Observation<'_>) {
        match observation {
            Observation::Health { problem } => {
                *self.problem.lock().expect("the problem") = problem.map(str::to_owned);
            }
            Observation::RecoveryFailed { .. } => {
                self.failures
                    .lock()
                    .expect("the failures")
                    .push(Instant::now());
            }
            _ => {}
        }
    }
}

const LIMIT: usize = 20_000;

/// A topic whose records, and whose dead letters, may have up to [`LIMIT`] bytes.
async fn limited(cluster: &Cluster, dead_letters: bool) -> String {
    let topic = format!("t-{}", uuid::Uuid::new_v4().simple());
    let limit = LIMIT.to_string();
    let settings = [("max.message.bytes", limit.as_str())];
    cluster.make_with(&topic, 2, &settings).await;
    if dead_letters {
        cluster
            .make_with(&format!("{topic}.DLQ"), 2, &settings)
            .await;
    }
    topic
}

/// Fails what is large, with a long reason.
fn fails_large(log: &Arc<Log>) -> Arc<dyn ackwell::container::RecordHandler> {
    logged(log, |call| {
        async move {
            if call.value.len() > 1_000 {
                Err(Failure::permanent("why ".repeat(300)))
            } else {
                Ok(())
            }
        }
        .boxed()
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_record_that_fills_its_topics_limit_still_fits_as_a_dead_letter() {
    let cluster = Cluster::start().await;
    let topic = limited(&cluster, false).await;
    let log = Arc::new(Log::default());
    let container = run(cluster.listener(&topic, fails_large(&log))).await;
    let large = vec![b'x'; LIMIT - 200];
    cluster
        .send_bytes(&topic, 0, (Some(b"k"), Some(&large)), &[])
        .await;
    cluster.send(&topic, 0, &[("k", "behind")]).await;
    cluster.reaches(&topic, 0, 2).await;
    container.stop().await;
    let letters = tokio::task::block_in_place(|| cluster.read(&format!("{topic}.DLQ"), 1));
    assert_eq!(letters[0].payload(), Some(&large[..]));
    assert!(header(&letters[0], "failure.reason")[0].len() > 1_000);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_a_dead_letter_does_not_fit_its_reason_is_shortened_first() {
    let cluster = Cluster::start().await;
    let topic = limited(&cluster, true).await;
    let log = Arc::new(Log::default());
    let container = run(cluster.listener(&topic, fails_large(&log))).await;
    let large = vec![b'x'; LIMIT - 900];
    cluster
        .send_bytes(&topic, 0, (Some(b"k"), Some(&large)), &[])
        .await;
    cluster.reaches(&topic, 0, 1).await;
    container.stop().await;
    let letters = tokio::task::block_in_place(|| cluster.read(&format!("{topic}.DLQ"), 1));
    assert_eq!(letters[0].payload(), Some(&large[..]));
    assert!(header(&letters[0], "failure.reason")[0].starts_with("why why"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_letter_that_fits_in_no_way_keeps_its_record_visibly_and_without_haste() {
    let cluster = Cluster::start().await;
    let topic = limited(&cluster, true).await;
    let (log, watched) = (Arc::new(Log::default()), Arc::new(Watched::default()));
    let mut spec = cluster.listener(&topic, fails_large(&log));
    spec.observer = Arc::clone(&watched) as Arc<dyn Observer>;
    let container = run(spec).await;
    let large = vec![b'x'; LIMIT - 150];
    cluster
        .send_bytes(&topic, 0, (Some(b"k"), Some(&large)), &[])
        .await;
    cluster.send(&topic, 0, &[("k", "behind")]).await;
    cluster.send(&topic, 1, &[("k", "aside")]).await;
    let problem = || watched.problem.lock().expect("the problem").clone();
    until("the problem", || {
        problem().is_some_and(|problem| problem.contains("dead letter"))
    })
    .await;
    cluster.reaches(&topic, 1, 1).await;
    let failures = || watched.failures.lock().expect("the failures").clone();
    until("three attempts", || failures().len() >= 3).await;
    container.stop().await;
    let failures = failures();
    assert!(
        failures[1] - failures[0] >= Duration::from_millis(800),
        "not hot"
    );
    assert!(
        failures[2] - failures[1] >= Duration::from_millis(1_600),
        "slower each time"
    );
    assert_eq!(cluster.committed(&topic, 0).max(0), 0, "the record is kept");
    assert_eq!(
        log.values()
            .iter()
            .filter(|value| value.as_str() == "behind")
            .count(),
        0
    );
    assert_eq!(
        log.calls()
            .iter()
            .filter(|call| call.partition == 0)
            .count(),
        1
    );
}

/// Counts what it hears, and then never comes back.
#[derive(Default)]
struct Stuck(Arc<AtomicUsize>);

impl FailureListener for Stuck {
    fn attempt_failed(&self, _: &FailedAttempt) {
        self.0.fetch_add(1, Ordering::SeqCst);
        loop {
            std::thread::park();
        }
    }
}

/// Keeps what it hears, in words.
#[derive(Clone, Default)]
struct Heard(Arc<Mutex<Vec<String>>>);

impl Heard {
    fn add(&self, text: String) {
        self.0.lock().expect("what was heard").push(text);
    }
}

impl FailureListener for Heard {
    fn attempt_failed(&self, attempt: &FailedAttempt) {
        self.add(format!(
            "attempt {} at {}",
            attempt.attempt, attempt.place.offset
        ));
    }

    fn given_up(&self, attempt: &FailedAttempt) {
        self.add(format!(
            "given up {}: {}",
            attempt.place.offset, attempt.reason
        ));
    }

    fn recovered(&self, recovered: &Recovered) {
        let dead = recovered.destination == Destination::DeadLetter;
        self.add(format!("recovered {}, dead {dead}", recovered.place.offset));
    }
}

async fn refuse() -> Result<(), Failure> {
    Err(Failure::transient("not yet"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn listeners_to_failures_hear_of_each_and_one_that_is_stuck_holds_up_nothing() {
    let cluster = Cluster::start().await;
    let topic: &'static str = cluster.topic(1).await.leak();
    let (heard, stuck, alerts) = (Heard::default(), Stuck::default(), Heard::default());
    let (reached, told) = (Arc::clone(&stuck.0), alerts.clone());
    let app = App::new(cluster.config())
        .named(format!("g-{topic}"))
        .on_failure(stuck)
        .alert(Alert::failed_attempts(3), move |raised: &Raised| {
            told.add(format!("{} in {:?}", raised.count, raised.within));
        })
        .listener(
            Listener::on(topic)
                .retry(fixed(SOON).max_attempts(2))
                .on_failure(heard.clone())
                .handle(refuse),
        );
    let app = app.start().await.expect("the app starts");
    cluster.send(topic, 0, &[("k", "a"), ("k", "b")]).await;
    cluster.reaches(topic, 0, 2).await;
    let metrics = app.metrics().render();
    let stopping = Instant::now();
    app.stop().await.expect("the app stops");
    assert!(
        stopping.elapsed() < Duration::from_secs(15),
        "a stuck listener is left behind"
    );
    assert_eq!(reached.load(Ordering::SeqCst), 1);
    let of = |offset: i64| {
        [
            format!("attempt 1 at {offset}"),
            format!("attempt 2 at {offset}"),
            format!("given up {offset}: not yet"),
            format!("recovered {offset}, dead true"),
        ]
    };
    assert_eq!(
        *heard.0.lock().expect("what was heard"),
        [of(0), of(1)].concat()
    );
    assert_eq!(*alerts.0.lock().expect("the alerts"), ["3 in 60s"]);
    let timed = |line: &str| {
        line.starts_with("ackwell_handling_seconds_count{") && line.contains("\"transient\"")
    };
    assert!(
        metrics
            .lines()
            .any(|line| timed(line) && line.ends_with(" 4")),
        "{metrics}"
    );
}
