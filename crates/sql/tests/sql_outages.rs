//! A database that goes away under a listener and comes back: health says so meanwhile, no attempt is used up, and
//! each record takes effect once. PostgreSQL (where `DATABASE_URL` names a server) is cut off by a proxy that ends
//! all connections and refuses new ones; a SQLite file is locked by somebody else.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests")]

mod events;
#[path = "../../ackwell/tests/support/kafka.rs"]
mod kafka;

use std::sync::Arc;
use std::time::Duration;

use ackwell::extract::{Attempt, Offset};
use ackwell::observe::Health;
use ackwell::retry::fixed;
use ackwell::{App, Failure, Listener};
use ackwell_sql::{Database, Settings, Tx, params};
use events::{SCHEMA, ids, url};
use kafka::{Kafka, LIMIT};
use rdkafka::ClientConfig;
use rdkafka::producer::{FutureProducer, FutureRecord};
use rusqlite::Connection;
use tempfile::TempDir;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

const TOPIC: &str = "outages";

/// How long it stays away after health has said so.
const SOMEWHAT: Duration = Duration::from_secs(5);
const A_MINUTE: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_is_away_is_told_and_waited_for() {
    outage(SOMEWHAT).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes more than a minute; `.ci/run postgres` runs it"]
async fn a_database_that_is_away_for_a_minute_is_told_and_waited_for() {
    outage(A_MINUTE).await;
}

/// Writes once for each record; whoever is called for one again after a failure that used up an attempt says so.
async fn apply(
    Offset(offset): Offset,
    Attempt(attempt): Attempt,
    mut tx: Tx,
) -> Result<(), Failure> {
    if attempt > 1 {
        return Err(Failure::permanent("an attempt was used up"));
    }
    let insert = "INSERT INTO effects (key, number, worker) VALUES ('k', $1, 'w')";
    tx.execute(insert, params![offset]).await?;
    tx.execute("INSERT INTO items (id) VALUES ($1)", params![offset])
        .await?;
    Ok(())
}

async fn outage(long: Duration) {
    let kafka = Kafka::start().await;
    kafka.create_topic(TOPIC, 1).await;
    let folder = tempfile::tempdir().unwrap();
    let away = Away::of(&folder).await;
    let db = away.database().await;
    let retry = fixed(Duration::from_millis(20)).max_attempts(2);
    let listener = Listener::on(TOPIC).retry(retry).handle(apply);
    let app = App::new(kafka.config()).named("outages").state(db.clone());
    let running = app.listener(listener).start().await.unwrap();
    send(&kafka, 50).await;
    until(async || ids(&db).await.len() == 50).await;

    let cut = away.begins().await;
    send(&kafka, 50).await;
    let told = running.health().until(says_that_it_waits);
    timeout(LIMIT * 3, told).await.expect("health says so");
    assert!(
        running.health().live().ok,
        "a restart would not bring it back"
    );
    sleep(long).await;
    assert!(!running.health().ready().ok, "it is still away");
    cut.ends().await;

    let ready = running.health().until(|health| health.ready().ok);
    timeout(LIMIT * 3, ready)
        .await
        .expect("it goes on by itself");
    until(async || ids(&db).await.len() == 100).await;
    running.stop().await.unwrap();
    assert_eq!(ids(&db).await, (0..100).collect::<Vec<_>>());
    let effects = db.query("SELECT count(*) FROM effects", &[]).await.unwrap();
    assert_eq!(
        effects[0].get::<i64>(0).unwrap(),
        100,
        "each took effect once"
    );
}

/// The listener is degraded, with a reason.
fn says_that_it_waits(health: &Health) -> bool {
    let components = health.components();
    let mut listeners = components
        .iter()
        .filter(|one| one.kind == ackwell::observe::Kind::Listener);
    listeners.any(|one| one.status.as_str() == "degraded" && one.status.reason().is_some())
}

async fn send(kafka: &Kafka, count: usize) {
    let mut client = ClientConfig::new();
    client.set("bootstrap.servers", &kafka.address);
    let producer: FutureProducer = client.create().unwrap();
    for _ in 0..count {
        let record = FutureRecord::to(TOPIC).key("k").payload("v");
        producer.send(record, LIMIT).await.unwrap();
    }
}

async fn until(condition: impl AsyncFn() -> bool) {
    let met = async {
        while !condition().await {
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(LIMIT * 3, met).await.expect("waited too long");
}

/// How the database is taken away.
enum Away {
    /// By who stands between.
    Proxy {
        url: String,
        reachable: watch::Sender<bool>,
    },
    /// By who locks the file.
    Lock(String),
}

enum Cut {
    Proxy(watch::Sender<bool>),
    Lock(Connection),
}

impl Away {
    async fn of(folder: &TempDir) -> Self {
        let url = url(folder);
        let Some(file) = url.strip_prefix("sqlite:") else {
            let (proxied, reachable) = proxy(&url).await;
            return Self::Proxy {
                url: proxied,
                reachable,
            };
        };
        Self::Lock(file.to_owned())
    }

    async fn database(&self) -> Database {
        let url = match self {
            Self::Proxy { url, .. } => url.clone(),
            Self::Lock(file) => format!("sqlite:{file}"),
        };
        let mut settings = Settings::default();
        settings.lock_wait = Duration::from_millis(500);
        settings.turn_wait = Duration::from_secs(1);
        Database::open_with(&url, SCHEMA, settings).await.unwrap()
    }

    async fn begins(&self) -> Cut {
        match self {
            Self::Proxy { reachable, .. } => {
                reachable.send_replace(false);
                Cut::Proxy(reachable.clone())
            }
            Self::Lock(file) => {
                let file = file.clone();
                let locking = tokio::task::spawn_blocking(move || {
                    let other = Connection::open(file).unwrap();
                    other.busy_timeout(Duration::from_secs(30)).unwrap();
                    other.execute_batch("BEGIN EXCLUSIVE").unwrap();
                    other
                });
                Cut::Lock(locking.await.unwrap())
            }
        }
    }
}

impl Cut {
    async fn ends(self) {
        match self {
            Self::Proxy(reachable) => drop(reachable.send_replace(true)),
            Self::Lock(other) => {
                let ending = tokio::task::spawn_blocking(move || other.execute_batch("COMMIT"));
                ending.await.unwrap().unwrap();
            }
        }
    }
}

/// Stands before the server of `url` while it is reachable; answers the URL by which to come.
async fn proxy(url: &str) -> (String, watch::Sender<bool>) {
    let (_, rest) = url.split_once('@').unwrap();
    let end = rest.find('/').unwrap();
    let server = rest[..end].to_owned();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let proxied = url.replacen(&server, &address, 1);
    let (sender, reachable) = watch::channel(true);
    let server: Arc<str> = server.into();
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let (server, mut reachable) = (Arc::clone(&server), reachable.clone());
            // Whoever comes while it is away is dropped at once.
            if *reachable.borrow_and_update() {
                tokio::spawn(async move {
                    tokio::select! {
                        () = carry(client, &server) => {}
                        _ = reachable.wait_for(|reachable| !reachable) => {}
                    }
                });
            }
        }
    });
    (proxied, sender)
}

async fn carry(mut client: TcpStream, server: &str) {
    if let Ok(mut server) = TcpStream::connect(server).await {
        let _ended = copy_bidirectional(&mut client, &mut server).await;
    }
}
