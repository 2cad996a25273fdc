//! What a dead letter is made of, where it goes, and what happens when it can't be written.

#![allow(clippy::expect_used, clippy::panic, reason = "a test may fail")]

mod container_support;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use ackwell::container::{Container, DeadLetters, Observation, Observer, RecordHandler, Spec};
use ackwell::core::RetryPolicy;
use ackwell::dead_letters::{Target, parked, per_class, spring, suffix};
use ackwell::failure::{Class, Failure};
use ackwell::record::Record;
use container_support::{Cluster, header, run};
use rdkafka::admin::{
    AdminClient, AdminOptions, AlterConfig, NewTopic, ResourceSpecifier, TopicReplication,
};
use rdkafka::client::DefaultClientContext;
use rdkafka::message::{Header, Headers, Message, OwnedHeaders, OwnedMessage};
use rdkafka::producer::{FutureProducer, FutureRecord};

/// Longer than anything here takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(40);

fn admin(cluster: &Cluster) -> AdminClient<DefaultClientContext> {
    cluster.client().create().expect("an admin")
}

async fn create(cluster: &Cluster, topic: &str, partitions: i32, size: Option<&str>) {
    let mut new = NewTopic::new(topic, partitions, TopicReplication::Fixed(-1));
    if let Some(size) = size {
        new = new.set("max.message.bytes", size);
    }
    // Dropped before the answer, it would never give it.
    let admin = admin(cluster);
    let made = admin.create_topics([&new], &AdminOptions::new());
    for made in made.await.expect("an answer") {
        made.expect("the topic is made");
    }
}

/// One record as it is: key, value, headers, each of which may be null.
type Parts<'a> = (
    Option<&'a [u8]>,
    Option<&'a [u8]>,
    &'a [(&'a str, Option<&'a [u8]>)],
);

async fn send(cluster: &Cluster, topic: &str, partition: i32, (key, value, headers): Parts<'_>) {
    let producer: FutureProducer = cluster
        .client()
        .set("message.max.bytes", "10000000")
        .create()
        .expect("a producer");
    let mut record = FutureRecord::<[u8], [u8]>::to(topic).partition(partition);
    record.key = key;
    record.payload = value;
    record.timestamp = Some(1_700_000_000_000);
    let headers = headers
        .iter()
        .fold(OwnedHeaders::new(), |all, (key, value)| {
            all.insert(Header { key, value: *value })
        });
    let sent = producer.send(record.headers(headers), PATIENCE).await;
    sent.map_err(|(error, _)| error).expect("it is written");
}

/// Refuses everything; the value says how.
async fn refuse(record: Record) -> Result<(), Failure> {
    let class = match record.value() {
        Some(b"transient") => Class::Transient,
        _ => Class::Permanent,
    };
    Err(Failure::new(class, "r".repeat(5_000)))
}

fn refusing() -> Arc<dyn RecordHandler> {
    Arc::new(refuse)
}

fn spec(cluster: &Cluster, topic: &str, target: Target) -> Spec {
    let mut spec = cluster.listener(topic, refusing());
    spec.dead_letters = DeadLetters::To(target);
    spec.retry = RetryPolicy::fixed(Duration::from_millis(10)).max_attempts(2);
    spec.limits.recovery = RetryPolicy::fixed(Duration::from_millis(200));
    spec
}

fn read(cluster: &Cluster, topic: &str, count: usize) -> Vec<OwnedMessage> {
    tokio::task::block_in_place(|| cluster.read(topic, count))
}

/// All headers but the last `added`, as they are.
fn own_headers(letter: &OwnedMessage, added: usize) -> Vec<(String, Option<Vec<u8>>)> {
    let headers = letter.headers().expect("headers");
    let own = headers.count() - added;
    let own = headers.iter().take(own);
    own.map(|header| (header.key.to_owned(), header.value.map(<[u8]>::to_vec)))
        .collect()
}

async fn stop_at(cluster: &Cluster, container: &Container, topic: &str, ends: &[(i32, i64)]) {
    for (partition, end) in ends {
        cluster.reaches(topic, *partition, *end).await;
    }
    container.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_letter_has_every_byte_of_its_record() {
    let cluster = Cluster::start().await;
    let topic = cluster.topic(1).await;
    let headers: &[(&str, Option<&[u8]>)] = &[
        ("b", Some(b"1")),
        ("a", Some(b"\xff\x00binary")),
        ("b", None),
        ("b", Some(b"")),
        ("failure.reason", Some(b"the sender's own")),
    ];
    let records: [Parts<'_>; 4] = [
        (Some(b"\xfe\x01"), Some(b"\x00\xff"), headers),
        (Some(b"k"), None, headers),
        (None, Some(b""), &[]),
        (Some(b""), None, headers),
    ];
    for record in records {
        send(&cluster, &topic, 0, record).await;
    }
    let container = run(spec(&cluster, &topic, Target::default())).await;
    stop_at(&cluster, &container, &topic, &[(0, 4)]).await;

    let letters = read(&cluster, &format!("{topic}.DLQ"), 4);
    for (letter, (key, value, headers)) in letters.iter().zip(records) {
        assert_eq!((letter.key(), letter.payload()), (key, value));
        let own: Vec<_> = headers
            .iter()
            .map(|(name, value)| ((*name).to_owned(), value.map(<[u8]>::to_vec)))
            .collect();
        assert_eq!(own_headers(letter, 9), own);
        assert_eq!(header(letter, "original.timestamp"), ["1700000000000"]);
        let reason = header(letter, "failure.reason");
        assert_eq!(reason.last().map(String::len), Some(1_024));
    }
    let places: Vec<_> = letters
        .iter()
        .map(|letter| header(letter, "original.offset").concat())
        .collect();
    assert_eq!(places, ["0", "1", "2", "3"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn spring_finds_its_headers_in_its_encodings() {
    let cluster = Cluster::start().await;
    let topic = cluster.topic(3).await;
    send(&cluster, &topic, 2, (Some(b"k"), Some(b"v"), &[])).await;
    let container = run(spec(&cluster, &topic, spring())).await;
    stop_at(&cluster, &container, &topic, &[(2, 1)]).await;

    let letters = read(&cluster, &format!("{topic}-dlt"), 1);
    let bytes = |name: &str| {
        let headers = letters[0].headers().expect("headers");
        let found = headers.iter().find(|header| header.key == name);
        found.and_then(|header| header.value).map(<[u8]>::to_vec)
    };
    let text = |name: &str| bytes(name).and_then(|bytes| String::from_utf8(bytes).ok());
    assert_eq!(letters[0].partition(), 2);
    assert_eq!(text("kafka_dlt-original-topic").as_ref(), Some(&topic));
    assert_eq!(
        bytes("kafka_dlt-original-partition"),
        Some(vec![0, 0, 0, 2])
    );
    assert_eq!(bytes("kafka_dlt-original-offset"), Some(vec![0; 8]));
    assert_eq!(
        bytes("kafka_dlt-original-timestamp"),
        Some(1_700_000_000_000_i64.to_be_bytes().to_vec())
    );
    assert_eq!(
        text("kafka_dlt-original-timestamp-type").as_deref(),
        Some("CreateTime")
    );
    assert_eq!(
        text("kafka_dlt-original-consumer-group"),
        Some(format!("g-{topic}"))
    );
    assert!(text("kafka_dlt-exception-message").is_some_and(|text| text.starts_with("rrr")));
    assert_eq!(
        text("kafka_dlt-exception-fqcn").as_deref(),
        Some("ackwell.PermanentFailure")
    );
    assert_eq!(text("failure.class").as_deref(), Some("permanent"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_class_has_its_own_topic_and_a_partition_that_is_missing_there_is_not_chosen() {
    let cluster = Cluster::start().await;
    let topic = cluster.topic(3).await;
    create(&cluster, &format!("{topic}.poison"), 1, None).await;
    for partition in 0..3 {
        let record = (Some(&b"k"[..]), Some(&b"poison"[..]), &[][..]);
        send(&cluster, &topic, partition, record).await;
    }
    send(&cluster, &topic, 1, (Some(b"k"), Some(b"transient"), &[])).await;
    let target = per_class([(Class::Permanent, ".poison")]);
    let container = run(spec(&cluster, &topic, target)).await;
    stop_at(&cluster, &container, &topic, &[(0, 1), (1, 2), (2, 1)]).await;

    let poison = read(&cluster, &format!("{topic}.poison"), 3);
    assert!(poison.iter().all(|letter| letter.partition() == 0));
    let exhausted = read(&cluster, &format!("{topic}.DLQ"), 1);
    assert_eq!(exhausted[0].partition(), 1);
    assert_eq!(header(&exhausted[0], "failure.attempts"), ["2"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_record_that_fills_its_topics_limit_fits_into_the_dead_letter_topic_that_we_make() {
    let cluster = Cluster::start().await;
    let topic = format!("t-{}", uuid::Uuid::new_v4().simple());
    create(&cluster, &topic, 1, Some("2000000")).await;
    // A batch of one record costs 61 bytes, and the record's own fields a few more.
    let value = vec![b'x'; 2_000_000 - 90];
    send(&cluster, &topic, 0, (None, Some(&value), &[])).await;
    let container = run(spec(&cluster, &topic, Target::default())).await;
    stop_at(&cluster, &container, &topic, &[(0, 1)]).await;
    let letters = read(&cluster, &format!("{topic}.DLQ"), 1);
    assert_eq!(letters[0].payload().map(<[u8]>::len), Some(value.len()));
}

/// Notes the last problem and whether it is over.
#[derive(Default)]
struct Problems(Mutex<(Option<String>, Vec<String>)>);

impl Observer for Problems {
    fn observe(&self, observation: &Observation<'_>) {
        if let Observation::Health { problem } = observation {
            let mut told = self.0.lock().expect("the list");
            told.0 = problem.map(str::to_owned);
            told.1.extend(problem.map(str::to_owned));
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_letter_that_is_too_large_is_kept_and_health_says_what_to_do() {
    let cluster = Cluster::start().await;
    let topic = cluster.topic(1).await;
    let letters = format!("{topic}.DLQ");
    create(&cluster, &letters, 1, Some("5000")).await;
    // Its reason is shortened, and then it fits.
    let fits = vec![b'x'; 4_300];
    send(&cluster, &topic, 0, (None, Some(&fits), &[])).await;
    let too_large = vec![b'x'; 6_000];
    send(&cluster, &topic, 0, (None, Some(&too_large), &[])).await;
    let problems = Arc::new(Problems::default());
    let mut spec = spec(&cluster, &topic, Target::default());
    spec.observer = Arc::clone(&problems) as Arc<dyn Observer>;
    let container = run(spec).await;

    let reason = header(&read(&cluster, &letters, 1)[0], "failure.reason").concat();
    assert_eq!(reason.len(), 80);
    let told = async {
        loop {
            if let Some(problem) = problems.0.lock().expect("the list").0.clone() {
                return problem;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let told = tokio::time::timeout(PATIENCE, told).await.expect("told");
    assert!(told.contains("max.message.bytes"), "{told}");
    assert!(told.contains(&letters), "{told}");

    let raised =
        AlterConfig::new(ResourceSpecifier::Topic(&letters)).set("max.message.bytes", "9000");
    let admin = admin(&cluster);
    let altered = admin.alter_configs([&raised], &AdminOptions::new()).await;
    altered.expect("an answer")[0].as_ref().expect("raised");
    stop_at(&cluster, &container, &topic, &[(0, 2)]).await;
    assert_eq!(read(&cluster, &letters, 2).len(), 2);
    assert_eq!(problems.0.lock().expect("the list").0, None, "it is over");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_dead_lettered_before_keeps_its_origin_and_piles_up_no_headers() {
    let cluster = Cluster::start().await;
    let topic = cluster.topic(2).await;
    // As a replay sends it: on its topic again, at another place.
    let came_back: &[(&str, Option<&[u8]>)] = &[
        ("mine", Some(b"1")),
        ("original.topic", Some(topic.as_bytes())),
        ("original.partition", Some(b"1")),
        ("original.offset", Some(b"77")),
        ("original.timestamp", Some(b"5")),
        ("original.group", Some(b"before")),
        ("replay.hops", Some(b"2")),
    ];
    send(&cluster, &topic, 0, (None, Some(b"v"), came_back)).await;
    let container = run(spec(&cluster, &topic, suffix(".DLQ"))).await;
    stop_at(&cluster, &container, &topic, &[(0, 1)]).await;

    let letters = format!("{topic}.DLQ");
    let letter = &read(&cluster, &letters, 1)[0];
    let expected = [
        ("original.offset", "77"),
        ("original.timestamp", "5"),
        ("replay.hops", "2"),
        ("mine", "1"),
        ("original.group", &*format!("g-{topic}")),
    ];
    for (name, value) in expected {
        assert_eq!(header(letter, name), [value], "{name}");
    }
    assert_eq!(letter.partition(), 1, "where its neighbours are");

    // And the dead letter itself fails.
    let container = run(spec(&cluster, &letters, parked())).await;
    stop_at(&cluster, &container, &letters, &[(1, 1)]).await;
    let parked = &read(&cluster, &format!("{topic}.parked"), 1)[0];
    for (name, value) in expected {
        assert_eq!(header(parked, name), [value], "{name}");
    }
    let reason = header(parked, "failure.reason");
    assert_eq!(reason.len(), 1);
    let first = header(parked, "failure.first.reason");
    assert_eq!(first, header(letter, "failure.reason"));
    assert_eq!(own_headers(parked, 12).len(), 2);
}
