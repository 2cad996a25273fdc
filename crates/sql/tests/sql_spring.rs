//! What users of Spring for Apache Kafka complain about where a database and Kafka meet, a test
//! each, on a real broker; the whole list is in `core_spring.rs`. Numbers are issues of
//! <https://github.com/spring-projects/spring-kafka>.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests")]

mod events;
#[path = "../../ackwell/tests/support/kafka.rs"]
mod kafka;

use std::sync::Arc;
use std::time::{Duration, Instant};

use ackwell::extract::{Attempt, State, Text};
use ackwell::retry::{none, topics};
use ackwell::{App, Batch, Failure, Listener, Record, RunningApp, TRACEPARENT};
use ackwell_sql::{Database, Relay, Tx, params};
use events::{Happened, ids, open};
use kafka::{Kafka, LIMIT};
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::{Header, Headers, Message, OwnedHeaders};
use rdkafka::producer::{FutureProducer, FutureRecord};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use tokio::sync::Semaphore;

const TOPIC: &str = "bookings";
const GROUP: &str = "booking";
/// As long as what must not come may take.
const QUIET: Duration = Duration::from_secs(1);

struct World {
    kafka: Kafka,
    database: Database,
    _folder: tempfile::TempDir,
}

impl World {
    async fn start(kafka: Kafka) -> World {
        for topic in [TOPIC, "happenings"] {
            kafka.create_topic(topic, 1).await;
        }
        let folder = tempfile::tempdir().unwrap();
        World {
            database: open(&folder).await,
            kafka,
            _folder: folder,
        }
    }

    async fn run(&self, app: App) -> RunningApp {
        let relay = Relay::new(self.database.clone());
        app.service(relay).start().await.unwrap()
    }

    fn app(&self) -> App {
        let app = App::new(self.kafka.config()).named(GROUP);
        app.state(self.database.clone())
    }

    fn client(&self) -> ClientConfig {
        let mut client = ClientConfig::new();
        client.set("bootstrap.servers", &self.kafka.address);
        client
    }

    async fn send(&self, values: &[&str]) {
        let producer: FutureProducer = self.client().create().unwrap();
        for value in values {
            let trace = trace(value);
            let header = Header {
                key: TRACEPARENT,
                value: Some(&trace),
            };
            let headers = OwnedHeaders::new().insert(header);
            let record = FutureRecord::to(TOPIC).key("k").payload(*value);
            producer.send(record.headers(headers), LIMIT).await.unwrap();
        }
    }

    /// The group has passed so many records.
    async fn commits(&self, position: i64) {
        let client = self.client();
        until("the commit", async || {
            let mut client = client.clone();
            let committed = tokio::task::spawn_blocking(move || {
                let consumer: BaseConsumer = client.set("group.id", GROUP).create().ok()?;
                let mut list = TopicPartitionList::new();
                list.add_partition(TOPIC, 0);
                let found = consumer
                    .committed_offsets(list, Duration::from_secs(5))
                    .ok()?;
                found.elements().first()?.offset().to_raw()
            });
            committed.await.unwrap() == Some(position)
        })
        .await;
    }

    /// What was published, once there is so much and no more comes.
    fn published(&self, count: usize) -> Vec<i64> {
        let published = self.published_with_traces(count).into_iter();
        published.map(|(item, _)| item).collect()
    }

    fn published_with_traces(&self, count: usize) -> Vec<(i64, Option<String>)> {
        let mut client = self.client();
        let consumer: BaseConsumer = client.set("group.id", "reader").create().unwrap();
        let mut list = TopicPartitionList::new();
        list.add_partition_offset("happenings", 0, Offset::Beginning)
            .unwrap();
        consumer.assign(&list).unwrap();
        let (started, mut last) = (Instant::now(), Instant::now());
        let mut items = Vec::new();
        while items.len() < count && started.elapsed() < LIMIT || last.elapsed() < QUIET {
            if let Some(Ok(message)) = consumer.poll(Duration::from_millis(100)) {
                let happened: Happened =
                    serde_json::from_slice(message.payload().unwrap()).unwrap();
                let headers = message.headers().unwrap();
                let trace = headers.iter().find(|header| header.key == TRACEPARENT);
                let trace = trace.and_then(|header| header.value);
                let trace = trace.map(|trace| String::from_utf8_lossy(trace).into_owned());
                items.push((happened.item, trace));
                last = Instant::now();
            }
        }
        items
    }
}

async fn until(what: &str, condition: impl AsyncFn() -> bool) {
    let met = async {
        while !condition().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let in_time = tokio::time::timeout(LIMIT, met).await;
    assert!(in_time.is_ok(), "waited too long for {what}");
}

/// The trace of the record with this value.
fn trace(value: &str) -> String {
    format!("00-{value:0>32}-00000000000000aa-01")
}

fn number(text: &str) -> Result<i64, Failure> {
    let parsed = text.parse();
    parsed.map_err(|_| Failure::permanent("no number"))
}

async fn book(tx: &mut Tx, item: i64) -> Result<(), Failure> {
    tx.execute("INSERT INTO items (id) VALUES ($1)", params![item])
        .await?;
    tx.emit(&Happened { item }).await?;
    Ok(())
}

/// #3790: the handler throws after it has written and sent; the database takes its part back,
/// Kafka keeps its own.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_handler_that_fails_after_it_wrote_and_emitted_leaves_neither() {
    async fn odd_ones_fail(Text(item): Text, mut tx: Tx) -> Result<(), Failure> {
        let item = number(&item)?;
        book(&mut tx, item).await?;
        match item % 2 {
            0 => Ok(()),
            _ => Err(Failure::permanent("it is odd")),
        }
    }
    let world = World::start(Kafka::start().await).await;
    let listener = Listener::on(TOPIC).retry(none()).handle(odd_ones_fail);
    let app = world.run(world.app().listener(listener)).await;
    world.send(&["1", "2", "3", "4", "5"]).await;
    world.commits(5).await;
    let published = tokio::task::block_in_place(|| world.published(2));
    assert_eq!(published, [2, 4]);
    assert_eq!(ids(&world.database).await, [2, 4]);
    app.stop().await.unwrap();
}

/// #1699: of two transactions that are committed one after the other, the second one fails, and
/// what should be atomic is half done.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_is_away_at_the_commit_loses_no_event_and_repeats_no_work() {
    /// The handler says that it has begun, and waits until it may go on.
    #[derive(Clone)]
    struct Gate {
        begun: Arc<Semaphore>,
        open: Arc<Semaphore>,
    }
    async fn through_the_gate(
        Text(item): Text,
        State(gate): State<Gate>,
        mut tx: Tx,
    ) -> Result<(), Failure> {
        gate.begun.add_permits(1);
        let _open = gate.open.acquire().await.expect("it is never closed");
        book(&mut tx, number(&item)?).await
    }
    let mut world = World::start(Kafka::own().await).await;
    let gate = Gate {
        begun: Arc::new(Semaphore::new(0)),
        open: Arc::new(Semaphore::new(0)),
    };
    let listener = Listener::on(TOPIC).handle(through_the_gate);
    let app = world
        .run(world.app().state(gate.clone()).listener(listener))
        .await;
    world.send(&["7"]).await;
    let begun = tokio::time::timeout(LIMIT, gate.begun.acquire()).await;
    begun.unwrap().unwrap().forget();

    world.kafka.stop().await;
    gate.open.add_permits(1);
    until("the database's commit", async || {
        ids(&world.database).await == [7]
    })
    .await;
    let depth = world.database.outbox().await.unwrap().depth;
    assert_eq!(depth, 1, "the event is durable without a broker");

    world.kafka.restart().await;
    world.commits(1).await;
    let published = tokio::task::block_in_place(|| world.published(1));
    assert_eq!(published, [7]);
    assert_eq!(ids(&world.database).await, [7]);
    app.stop().await.unwrap();
}

/// #2934: a record that goes to a retry topic commits what its failed attempt has done.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_attempt_that_goes_to_a_retry_topic_leaves_nothing_of_its_transaction() {
    async fn second_time(Attempt(attempt): Attempt, mut tx: Tx) -> Result<(), Failure> {
        book(&mut tx, i64::from(attempt)).await?;
        match attempt {
            1 => Err(Failure::transient("not yet")),
            _ => Ok(()),
        }
    }
    let world = World::start(Kafka::start().await).await;
    let delays = topics([Duration::from_millis(300)]);
    let listener = Listener::on(TOPIC).retry(delays).handle(second_time);
    let app = world.run(world.app().listener(listener)).await;
    world.send(&["1"]).await;
    world.commits(1).await;
    let published = tokio::task::block_in_place(|| world.published(1));
    assert_eq!(published, [2], "nothing of the first attempt");
    assert_eq!(ids(&world.database).await, [2]);
    app.stop().await.unwrap();
}

/// #3872: a batch listener loses the traces of its records.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_follows_from_a_record_of_a_batch_carries_its_trace_on() {
    async fn book_all(Batch(bookings): Batch<(Record, Text)>, mut tx: Tx) -> Result<(), Failure> {
        for (record, Text(item)) in bookings {
            let item = number(&item)?;
            tx.emit_for(&record, &Happened { item }).await?;
        }
        Ok(())
    }
    let world = World::start(Kafka::start().await).await;
    world.send(&["1", "2", "3"]).await;
    let listener = Listener::on(TOPIC).handle_batch(book_all);
    let app = world.run(world.app().listener(listener)).await;
    world.commits(3).await;
    let published = tokio::task::block_in_place(|| world.published_with_traces(3));
    let expected = ["1", "2", "3"].map(|item| (item.parse().unwrap(), Some(trace(item))));
    assert_eq!(published, expected);
    app.stop().await.unwrap();
}
