use ackwell::Config;
use ackwell::observe::{Health, Kind, Metrics};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::database::Settings;
use crate::params;

const SOON: Duration = Duration::from_millis(10);
const LIMIT: Duration = Duration::from_secs(60);

/// A database of its own on the server that `DATABASE_URL` names, or a file.
async fn database() -> (TempDir, Database) {
    let folder = tempfile::tempdir().unwrap();
    let server = std::env::var("DATABASE_URL").ok();
    let url = match server.filter(|url| url.starts_with("postgres")) {
        Some(server) => {
            let separator = if server.contains('?') { '&' } else { '?' };
            format!(
                "{server}{separator}schema=care_{}",
                uuid::Uuid::new_v4().simple()
            )
        }
        None => format!("sqlite:{}", folder.path().join("test.db").display()),
    };
    let settings = Settings {
        inbox_retention: Duration::from_secs(3600),
        ..Settings::default()
    };
    let db = Database::open_with(&url, &[], settings).await.unwrap();
    (folder, db)
}

struct Running {
    health: Health,
    metrics: Metrics,
    stop: CancellationToken,
    ended: tokio::task::JoinHandle<Result<(), ServiceError>>,
}

fn start(database: &Database) -> Running {
    let (health, metrics, stop) = (Health::default(), Metrics::new(), CancellationToken::new());
    let times = Times {
        look: SOON,
        patience: SOON,
        absence: SOON,
    };
    let database = database.clone();
    let caretaker = Box::new(Caretaker { database, times });
    let reporter = health.add(Kind::Service, caretaker.name());
    let cx = ServiceContext::detached(Config::default(), metrics.clone(), reporter, stop.clone());
    let ended = tokio::spawn(caretaker.run(cx));
    Running {
        health,
        metrics,
        stop,
        ended,
    }
}

impl Running {
    async fn until(&self, condition: impl Fn(&Health) -> bool) {
        let waited = tokio::time::timeout(LIMIT, self.health.until(condition)).await;
        waited.expect("health tells it in time");
    }

    async fn stop(self) {
        self.stop.cancel();
        self.ended.await.unwrap().unwrap();
    }
}

async fn emit(database: &Database) {
    let event = ackwell::EncodedEvent {
        topic: "orders",
        key: "o-1".into(),
        value: "{}".into(),
        headers: ackwell::Headers::new(),
        event_id: uuid::Uuid::new_v4(),
    };
    let mut tx = database.begin();
    tx.emit_encoded(Ok(event)).await.unwrap();
    tx.commit().await.unwrap();
}

fn degraded(health: &Health) -> bool {
    let components = health.components();
    let mut reasons = components.iter().filter_map(|one| one.status.reason());
    reasons.any(|reason| reason.contains("Relay::new"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_that_nobody_publishes_are_told_until_a_relay_is_at_work() {
    let (_folder, db) = database().await;
    let running = start(&db);
    running.until(|health| health.ready().ok).await;
    emit(&db).await;
    running.until(degraded).await;
    assert!(running.health.live().ok, "a restart would mend nothing");
    let told = running.metrics.render();
    assert!(told.contains("ackwell_outbox_depth 1"), "{told}");
    let lease = lease::Candidate::default().attempt(&db).await.unwrap();
    assert!(lease.is_some());
    running.until(|health| health.ready().ok).await;
    drop(lease);
    running.until(degraded).await;
    running.stop().await;
}

async fn marks(database: &Database) -> i64 {
    let rows = database
        .query("SELECT count(*) FROM ackwell_inbox", &[])
        .await;
    rows.unwrap()[0].get(0).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_relay_old_marks_of_the_inbox_are_forgotten_all_the_same() {
    let (_folder, db) = database().await;
    let mut tx = db.begin();
    for (event, hours) in [("old", 2), ("young", 0)] {
        let at = jiff::Timestamp::now() - jiff::SignedDuration::from_hours(hours);
        let insert =
            "INSERT INTO ackwell_inbox (consumer_group, event, handled_at) VALUES ('g', $1, $2)";
        tx.execute(insert, params![event.as_bytes().to_vec(), at])
            .await
            .unwrap();
    }
    tx.commit().await.unwrap();
    let lease = lease::Candidate::default().attempt(&db).await.unwrap();
    let running = start(&db);
    for _ in 0..20 {
        tokio::time::sleep(SOON).await;
        assert_eq!(marks(&db).await, 2, "the relay may keep them for longer");
    }
    drop(lease);
    let pruned = async {
        while marks(&db).await > 1 {
            tokio::time::sleep(SOON).await;
        }
    };
    tokio::time::timeout(LIMIT, pruned)
        .await
        .expect("pruned in time");
    running.stop().await;
}
