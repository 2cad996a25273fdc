//! A right that is missing is told with the command that grants it, and work goes on by itself once
//! it is granted. On an Apache Kafka that demands rights: `scripts/kafka.sh start --acl`, then with
//! what that prints `cargo test --workspace --test app_rights -- --ignored`.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod container_support;

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use ackwell::extract::{State, Text};
use ackwell::producer::OutgoingRecord;
use ackwell::{App, Failure, Listener, Producer, RunningApp};
use container_support::acl::{Guarded, On, Right};
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;

/// Longer than anything here takes on a busy machine; a test that waits for it has failed.
const LIMIT: Duration = Duration::from_secs(60);

/// How long readiness is watched for a change that must not come: several of the client's own
/// retries, any of which could be taken for a recovery.
const STAYS: Duration = Duration::from_secs(5);

type Seen = Arc<Mutex<Vec<String>>>;

/// A topic of this test's own, with a group of the same name.
struct World {
    kafka: Guarded,
    topic: &'static str,
    seen: Seen,
}

async fn note(Text(value): Text, State(seen): State<Seen>) -> Result<(), Failure> {
    seen.lock().unwrap().push(value.clone());
    match &*value {
        "bad" => Err(Failure::permanent("no")),
        _ => Ok(()),
    }
}

impl World {
    async fn start() -> World {
        let world = World {
            kafka: Guarded::named(),
            topic: format!("t-{}", uuid::Uuid::new_v4().simple()).leak(),
            seen: Seen::default(),
        };
        world.create(world.topic).await;
        world
    }

    async fn create(&self, topic: &str) {
        let mut client = ClientConfig::new();
        client.set("bootstrap.servers", self.kafka.servers());
        for (name, value) in Guarded::login("admin") {
            client.set(name, value);
        }
        let admin: AdminClient<DefaultClientContext> = client.create().unwrap();
        let new = NewTopic::new(topic, 1, TopicReplication::Fixed(1));
        let made = admin.create_topics([&new], &AdminOptions::new()).await;
        made.unwrap()[0].as_ref().unwrap();
    }

    fn topic(&self) -> On<'static> {
        On::Topic(self.topic)
    }

    fn group(&self) -> On<'static> {
        On::Group(self.topic)
    }

    async fn send(&self, value: &str) {
        let producer = Producer::new(&self.kafka.config("admin")).unwrap();
        let record = OutgoingRecord::to(self.topic).key("k");
        let sent = producer.send_record(record.value(value.to_owned())).await;
        sent.unwrap();
    }

    fn app(&self, dead_letters: bool) -> App {
        let listener = Listener::on(self.topic).name("orders").group(self.topic);
        let listener = match dead_letters {
            true => listener,
            false => listener.without_dead_letters(),
        };
        App::new(self.kafka.config("service"))
            .state(Arc::clone(&self.seen))
            .listener(listener.handle(note))
    }

    async fn handles(&self, value: &str) {
        until(value, || {
            let seen = self.seen.lock().unwrap();
            seen.iter().any(|seen| seen == value)
        })
        .await;
    }
}

async fn until(what: &str, condition: impl Fn() -> bool) {
    let started = Instant::now();
    while !condition() {
        assert!(started.elapsed() < LIMIT, "waited for {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Waits until readiness fails for a reason that names all `parts`, and stays so for a while.
async fn tells(app: &RunningApp, parts: &[&str]) {
    let reasons = || {
        let against = app.health().ready().against;
        let reasons = against.iter().map(|found| found.status.to_string());
        reasons.collect::<Vec<_>>().join("\n")
    };
    let told = || parts.iter().all(|part| reasons().contains(part));
    let started = Instant::now();
    while !told() {
        assert!(started.elapsed() < LIMIT, "{parts:?} in `{}`", reasons());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    tokio::time::sleep(STAYS).await;
    assert!(told(), "it is still so, but readiness says `{}`", reasons());
}

async fn ready(app: &RunningApp) {
    let readiness = tokio::time::timeout(LIMIT, app.ready()).await;
    readiness.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs scripts/kafka.sh start --acl"]
async fn a_topic_that_may_not_be_seen_is_an_error_at_the_start_and_a_group_a_visible_state() {
    let world = World::start().await;
    world.send("a").await;
    let refused = world.app(false).start().await.unwrap_err().to_string();
    let command = format!(
        "kafka-acls.sh --bootstrap-server {} --add --allow-principal User:service --operation Read --topic {}",
        world.kafka.servers(),
        world.topic
    );
    assert!(refused.contains(&command), "{refused}");

    world.kafka.grant(world.topic(), Right::Read);
    let app = tokio::time::timeout(LIMIT, world.app(false).start()).await;
    let app = app.unwrap().unwrap();
    let on_group = format!("--operation Read --group {}", world.topic);
    tells(&app, &["`Read` on the group", &on_group]).await;
    assert!(app.health().live().ok, "a restart would not help");

    world.kafka.grant(world.group(), Right::Read);
    world.handles("a").await;
    ready(&app).await;
    app.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs scripts/kafka.sh start --acl"]
async fn a_right_to_read_that_is_taken_away_is_told_until_it_is_granted_again() {
    let world = World::start().await;
    for right in [Right::Read, Right::Describe] {
        world.kafka.grant(world.topic(), right);
    }
    world.kafka.grant(world.group(), Right::Read);
    let app = world.app(false).start().await.unwrap();
    ready(&app).await;
    world.send("a").await;
    world.handles("a").await;

    world.kafka.revoke(world.topic(), Right::Read);
    world.send("b").await;
    let on_topic = format!("--operation Read --topic {}", world.topic);
    tells(&app, &["`Read` on the topic", &on_topic]).await;

    world.kafka.grant(world.topic(), Right::Read);
    world.handles("b").await;
    ready(&app).await;
    app.stop().await.unwrap();
    assert_eq!(*world.seen.lock().unwrap(), ["a", "b"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs scripts/kafka.sh start --acl"]
async fn a_topic_that_may_be_read_again_is_fine_also_when_nothing_comes() {
    let world = World::start().await;
    world.kafka.grant(world.topic(), Right::Describe);
    world.kafka.grant(world.group(), Right::Read);
    let app = world.app(false).start().await.unwrap();
    tells(&app, &["`Read` on the topic"]).await;
    world.kafka.grant(world.topic(), Right::Read);
    ready(&app).await;
    world.send("a").await;
    world.handles("a").await;
    app.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs scripts/kafka.sh start --acl"]
async fn dead_letters_wait_for_the_right_to_write_them() {
    let world = World::start().await;
    let letters: &'static str = format!("{}.DLQ", world.topic).leak();
    // Who may write anywhere may begin to write here (KIP-679); nobody else's test grants it.
    world.kafka.revoke_everywhere(Right::Write);
    world.kafka.grant(world.topic(), Right::Read);
    world.kafka.grant(world.group(), Right::Read);
    let app = tokio::time::timeout(LIMIT, world.app(true).start()).await;
    let app = app.unwrap().unwrap();
    let on_letters = format!("--operation Write --topic {letters}");
    tells(&app, &["`Write` on the topic", &on_letters]).await;

    world.create(letters).await;
    world.kafka.grant(On::Topic(letters), Right::Describe);
    ready(&app).await;
    world.send("bad").await;
    tells(&app, &["`Write` on the topic", &on_letters]).await;

    world.kafka.grant(On::Topic(letters), Right::Write);
    ready(&app).await;
    world.send("behind").await;
    world.handles("behind").await;
    let handle = app.listener("orders").unwrap();
    assert_eq!(handle.stats().dead_letters, 1);
    app.stop().await.unwrap();
}
