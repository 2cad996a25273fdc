use std::sync::Mutex;

use ackwell::Config;
use ackwell::observe::{Health, Kind, Metrics};
use ackwell::producer::OutgoingRecord;
use futures_util::future::BoxFuture;
use tempfile::TempDir;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::params;

/// Brokers that acknowledge when they are told to.
#[derive(Default)]
struct Told(Mutex<Vec<oneshot::Sender<Result<(), String>>>>);

impl Publish for Told {
    fn enqueue(&self, _record: OutgoingRecord) -> BoxFuture<'_, Result<Delivery, String>> {
        let (sender, receiver) = oneshot::channel();
        self.0.lock().unwrap().push(sender);
        let delivery = receiver
            .map(|result| result.unwrap_or_else(|_| Err("gone".into())))
            .boxed();
        Box::pin(async move { Ok(delivery) })
    }
}

impl Told {
    fn waiting(&self) -> usize {
        self.0.lock().unwrap().len()
    }

    fn answer(&self, place: usize, result: Result<(), String>) {
        self.0.lock().unwrap().remove(place).send(result).unwrap();
    }
}

async fn database(events: i64) -> (TempDir, Database) {
    let folder = tempfile::tempdir().unwrap();
    let url = format!("sqlite:{}", folder.path().join("test.db").display());
    let db = Database::open(&url, &[]).await.unwrap();
    let mut tx = db.begin();
    for _ in 0..events {
        let insert = "INSERT INTO ackwell_outbox (topic, headers, created_at) VALUES ('t', x'', 0)";
        tx.execute(insert, params![]).await.unwrap();
    }
    tx.commit().await.unwrap();
    (folder, db)
}

fn context() -> (ServiceContext, Health, CancellationToken) {
    let (health, stop) = (Health::default(), CancellationToken::new());
    let reporter = health.add(Kind::Service, "relay");
    let cx = ServiceContext::detached(Config::default(), Metrics::new(), reporter, stop.clone());
    (cx, health, stop)
}

async fn until(condition: impl AsyncFn() -> bool) {
    let waited = tokio::time::timeout(Duration::from_secs(10), async {
        while !condition().await {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    });
    waited.await.unwrap();
}

async fn depth(db: &Database) -> u64 {
    db.outbox().await.unwrap().depth
}

#[tokio::test]
async fn only_what_is_acknowledged_without_a_gap_is_deleted() {
    let (_folder, db) = database(5).await;
    let (cx, _, stop) = context();
    let (told, published) = (Told::default(), Published::default());
    let mut session = Session::new(&db, &told, &published);
    let story = async {
        until(async || told.waiting() == 5).await;
        told.answer(4, Ok(()));
        told.answer(1, Ok(()));
        told.answer(0, Ok(()));
        until(async || depth(&db).await == 3).await;
        assert_eq!(published.count(), 2);
        told.answer(0, Ok(()));
        until(async || depth(&db).await == 2).await;
        told.answer(0, Ok(()));
        until(async || depth(&db).await == 0).await;
        stop.cancel();
    };
    let (ended, ()) = tokio::join!(session.run(&cx), story);
    assert!(ended.is_ok());
}

#[tokio::test]
async fn a_refused_event_ends_the_session_and_stays() {
    let (_folder, db) = database(3).await;
    let (cx, _, _) = context();
    let (told, published) = (Told::default(), Published::default());
    let mut session = Session::new(&db, &told, &published);
    let story = async {
        until(async || told.waiting() == 3).await;
        told.answer(0, Ok(()));
        told.answer(0, Err("too large".into()));
    };
    let (ended, ()) = tokio::join!(session.run(&cx), story);
    assert_eq!(ended.unwrap_err(), "event 2: too large");
    assert!(depth(&db).await >= 2);
}

#[tokio::test]
async fn stopping_waits_for_what_is_in_flight_and_sends_no_more() {
    let (_folder, db) = database(2).await;
    let (cx, _, stop) = context();
    let (told, published) = (Told::default(), Published::default());
    let mut session = Session::new(&db, &told, &published);
    let story = async {
        until(async || told.waiting() == 2).await;
        stop.cancel();
        tokio::task::yield_now().await;
        told.answer(0, Ok(()));
        told.answer(0, Ok(()));
    };
    let (ended, ()) = tokio::join!(session.run(&cx), story);
    assert!(ended.is_ok());
    assert_eq!(depth(&db).await, 0);
}

#[tokio::test]
async fn large_events_are_read_a_few_at_a_time() {
    let (_folder, db) = database(0).await;
    let mut tx = db.begin();
    for _ in 0..20 {
        let insert = "INSERT INTO ackwell_outbox (topic, value, headers, created_at) \
                      VALUES ('t', zeroblob(900000), x'', 0)";
        tx.execute(insert, params![]).await.unwrap();
    }
    tx.commit().await.unwrap();
    let (mut seen, mut next) = (0, Rows::new(&db));
    loop {
        let (rows, more) = next.next(&db).await.unwrap();
        assert!(rows.len() <= 9, "{} rows at once", rows.len());
        seen += rows.len();
        if !more {
            break;
        }
    }
    assert_eq!(seen, 20);
}
