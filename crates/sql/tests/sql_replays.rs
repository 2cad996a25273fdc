//! Dead letters that are replayed to a listener with a transaction: each takes effect once.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests")]

#[path = "../../ackwell/tests/support/kafka.rs"]
mod kafka;

mod database_url;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ackwell::dead_letters::{DeadLetter, DeadLetterQueue, Filter, Replay, Report};
use ackwell::extract::{State, Text};
use ackwell::producer::OutgoingRecord;
use ackwell::{App, EVENT_ID, Failure, Headers, Listener, Producer, RunningApp};
use ackwell_sql::{Database, Migration, Tx, params};
use database_url::database_url;
use kafka::{Kafka, within};
use uuid::Uuid;

const SCHEMA: &[Migration] = &[Migration::new(
    "effects",
    "CREATE TABLE applied (item TEXT NOT NULL) STRICT; CREATE TABLE noted (item TEXT NOT NULL) STRICT",
)
.postgres("CREATE TABLE applied (item TEXT NOT NULL); CREATE TABLE noted (item TEXT NOT NULL)")];

type Mended = Arc<AtomicBool>;

/// Writes, and fails afterwards as long as something is broken.
async fn apply(Text(item): Text, State(mended): State<Mended>, mut tx: Tx) -> Result<(), Failure> {
    tx.execute("INSERT INTO applied (item) VALUES ($1)", params![item])
        .await?;
    if mended.load(Ordering::SeqCst) {
        Ok(())
    } else {
        Err(Failure::permanent("it is broken"))
    }
}

async fn note(letter: DeadLetter, mut tx: Tx) -> Result<(), ackwell_sql::Error> {
    let item = String::from_utf8_lossy(letter.value().unwrap_or_default()).into_owned();
    let insert = "INSERT INTO noted (item) VALUES ($1)";
    tx.execute(insert, params![item]).await.map(drop)
}

async fn items(db: &Database, table: &str) -> Vec<String> {
    let query = format!("SELECT item FROM {table} ORDER BY item");
    let rows = db.query(&query, params![]).await.unwrap();
    rows.iter().map(|row| row.get(0).unwrap()).collect()
}

async fn until(db: &Database, table: &str, expected: &[&str]) {
    within(table, async {
        while items(db, table).await != expected {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
}

/// Waits until the app's metrics say `line`.
async fn metrics_say(app: &RunningApp, line: &str) {
    within(line, async {
        while !app.metrics().render().lines().any(|found| found == line) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
}

async fn send(producer: &Producer, value: &'static str, id: Option<Uuid>) {
    let mut headers = Headers::new();
    if let Some(id) = id {
        headers.push(EVENT_ID, id.to_string());
    }
    let record = OutgoingRecord::to("stock").key("k").value(value);
    producer.send_record(record.headers(headers)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_letter_that_is_replayed_twice_takes_effect_once() {
    let kafka = Kafka::start().await;
    let folder = tempfile::tempdir().unwrap();
    let url = database_url(folder.path());
    let db = Database::open(&url, SCHEMA).await.unwrap();
    let mended = Mended::default();
    // Both listeners are in the app's group: that a dead letter was noted must not make the
    // replay of its event a duplicate.
    let app = App::new(kafka.config())
        .named("inventory")
        .state(db.clone())
        .state(Arc::clone(&mended))
        .listener(Listener::on("stock").name("stock").handle(apply))
        .listener(Listener::on_dead_letters("stock").name("dead").handle(note))
        .start()
        .await
        .unwrap();
    within("readiness", app.ready()).await.unwrap();

    let producer = Producer::new(&kafka.config()).unwrap();
    send(&producer, "with an id", Some(Uuid::now_v7())).await;
    send(&producer, "without", None).await;
    until(&db, "noted", &["with an id", "without"]).await;
    assert_eq!(items(&db, "applied").await, [""; 0], "rolled back");
    let of = "{listener=\"stock\",topic=\"stock\",reason=\"permanent\"}";
    metrics_say(&app, &format!("ackwell_dead_letters_total{of} 2")).await;
    metrics_say(&app, &format!("ackwell_dead_letter_bytes_total{of} 62")).await;

    mended.store(true, Ordering::SeqCst);
    let queue = DeadLetterQueue::new(&kafka.config(), "stock.DLQ");
    let mut replay = Replay::of(Filter::all(), "ada");
    let replayed = |report: Report| (report.replayed, report.left, report.failed);
    let report = queue.replay(replay.clone(), |_| ()).await.unwrap();
    assert_eq!(replayed(report), (2, 0, 0));
    until(&db, "applied", &["with an id", "without"]).await;

    // Once more, as after a crash before the trail was written.
    replay.again = true;
    let report = queue.replay(replay, |_| ()).await.unwrap();
    assert_eq!(replayed(report), (2, 0, 0));
    let duplicates = "ackwell_duplicate_records_total{listener=\"stock\",topic=\"stock\"} 2";
    metrics_say(&app, duplicates).await;
    assert_eq!(items(&db, "applied").await, ["with an id", "without"]);
    assert_eq!(items(&db, "noted").await, ["with an id", "without"]);
    app.stop().await.unwrap();
}
