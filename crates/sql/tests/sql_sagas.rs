//! Sagas in a database: state and commands in one transaction, deadlines that fire once, restarts.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    reason = "helpers of tests"
)]

mod database_url;

use std::borrow::Cow;
use std::future::Future;
use std::time::{Duration, Instant};

use ackwell::core::RetryPolicy;
use ackwell::observe::{Health, Kind, Metrics};
use ackwell::service::{Service, ServiceContext};
use ackwell::{Config, Event, Topic};
use ackwell_sql::saga::{
    Answer, Change, Declaration, Monitor, Nothing, Refusal, Resolution, Saga, Sagas, Started,
    Status, Step, StepState,
};
use ackwell_sql::{Database, Error, Migration, Tx, params};
use database_url::{database_url, is_postgres};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use uuid::{Uuid, uuid};

const LIMIT: Duration = Duration::from_secs(60);
const LONG: Duration = Duration::from_secs(3600);
const SOON: Duration = Duration::from_millis(50);

/// Every command and reply, with the word that says which it is.
#[derive(Debug, Serialize, Deserialize)]
struct Said {
    word: String,
    trip: String,
    reason: String,
}

impl Event for Said {
    const TOPIC: Topic<Self> = Topic::new("trips");
    const TYPES: &'static [&'static str] = &["Book", "Free", "Charge", "Refund", "Print"];

    fn event_type(&self) -> &'static str {
        let word = Self::TYPES.iter().find(|word| **word == self.word);
        word.copied().unwrap_or("Book")
    }

    fn aggregate_id(&self) -> Cow<'_, str> {
        self.trip.as_str().into()
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Trip {
    name: String,
}

impl Trip {
    fn say(&self, word: &str, reason: &str) -> Said {
        Said {
            word: word.to_owned(),
            trip: self.name.clone(),
            reason: reason.to_owned(),
        }
    }
}

/// Trips whose steps time out after this.
struct Trips(Duration);

impl Saga for Trips {
    const IDS: Uuid = uuid!("6f8e1f0a-6a9c-4a55-9d5e-0c8f6a1b2c3d");
    type Data = Trip;
    type Error = Error;

    fn declare(&self) -> Declaration<Trip> {
        Declaration::named("trip")
            .step(
                Step::named("book seat")
                    .sends("Book", |trip: &Trip| trip.say("Book", ""))
                    .done_on("Booked")
                    .refused_on("SoldOut")
                    .undone_by("Free", |trip: &Trip, reason| trip.say("Free", reason))
                    .undone_on("Freed")
                    .within(self.0)
                    .or_compensate(),
            )
            .step(
                Step::named("charge card")
                    .sends("Charge", |trip: &Trip| trip.say("Charge", ""))
                    .done_on("Charged")
                    .refused_on("Declined")
                    .undone_by("Refund", |trip: &Trip, reason| trip.say("Refund", reason))
                    .undone_on("Refunded")
                    .within(self.0)
                    .or_compensate(),
            )
            .step(
                Step::named("print ticket")
                    .sends("Print", |trip: &Trip| trip.say("Print", ""))
                    .done_on("Printed")
                    .nothing_to_undo()
                    .point_of_no_return()
                    .within(self.0)
                    .or_review(),
            )
            .compensation(RetryPolicy::fixed(LONG).max_attempts(3))
    }

    async fn changed(&self, tx: &mut Tx, change: &Change<'_, Trip>) -> Result<(), Error> {
        let entry = "INSERT INTO log (trip, status) VALUES ($1, $2)";
        tx.execute(entry, params![change.key, change.now.status().name()])
            .await?;
        Ok(())
    }
}

const SCHEMA: &[Migration] = &[Migration::new(
    "log",
    "CREATE TABLE log (place INTEGER PRIMARY KEY, trip TEXT NOT NULL, status TEXT NOT NULL) STRICT",
)
.postgres(
    "CREATE TABLE log (place BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY, trip TEXT NOT NULL, status TEXT NOT NULL)",
)];

fn trips(timeout: Duration) -> Sagas<Trips> {
    Sagas::new(Trips(timeout)).unwrap()
}

async fn open(folder: &TempDir) -> Database {
    Database::open(&database_url(folder.path()), SCHEMA)
        .await
        .unwrap()
}

async fn started(db: &Database, sagas: &Sagas<Trips>, name: &str) -> Uuid {
    let mut tx = db.begin();
    let trip = Trip {
        name: name.to_owned(),
    };
    let begun = sagas.start(&mut tx, name, &trip).await.unwrap();
    tx.commit().await.unwrap();
    let (Started::New(id) | Started::Before(id)) = begun;
    id
}

async fn told(db: &Database, sagas: &Sagas<Trips>, id: Uuid, word: &str) -> Answer {
    let mut tx = db.begin();
    let answer = sagas.reply(&mut tx, id, word, Some("no luck")).await;
    tx.commit().await.unwrap();
    answer.unwrap()
}

async fn status(db: &Database, sagas: &Sagas<Trips>, id: Uuid) -> Status {
    let view = sagas.view(db, id).await.unwrap().unwrap();
    view.summary.phase.status()
}

/// The commands that were sent, in order.
async fn sent(db: &Database) -> Vec<String> {
    let rows = db
        .query("SELECT value FROM ackwell_outbox ORDER BY id", params![])
        .await
        .unwrap();
    let said = |row: &ackwell_sql::Row| {
        let value: Vec<u8> = row.get(0).unwrap();
        serde_json::from_slice::<Said>(&value).unwrap().word
    };
    rows.iter().map(said).collect()
}

async fn logged(db: &Database) -> Vec<String> {
    let rows = db
        .query("SELECT status FROM log ORDER BY place", params![])
        .await
        .unwrap();
    rows.iter().map(|row| row.get(0).unwrap()).collect()
}

async fn until<F: Future<Output = bool>>(what: &str, mut is: impl FnMut() -> F) {
    let waited = async {
        while !is().await {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(LIMIT, waited).await.expect(what);
}

/// A monitor at work.
struct Watching {
    metrics: Metrics,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

fn watch(db: &Database, sagas: &Sagas<Trips>) -> Watching {
    watch_by(sagas.monitor(db.clone()))
}

fn watch_by(monitor: Monitor<Trips>) -> Watching {
    let (health, metrics, stop) = (Health::default(), Metrics::new(), CancellationToken::new());
    let reporter = health.add(Kind::Service, "sagas");
    let cx = ServiceContext::detached(Config::default(), metrics.clone(), reporter, stop.clone());
    let task = tokio::spawn(async move { Box::new(monitor).run(cx).await.unwrap() });
    Watching {
        metrics,
        stop,
        task,
    }
}

impl Watching {
    async fn stop(self) {
        self.stop.cancel();
        timeout(LIMIT, self.task).await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn a_saga_goes_step_by_step_and_its_history_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let (db, sagas) = (open(&folder).await, trips(LONG));
    let id = started(&db, &sagas, "rome").await;
    assert_eq!(id, Sagas::<Trips>::id("rome"));
    for word in ["Booked", "Charged", "Printed"] {
        assert!(matches!(
            told(&db, &sagas, id, word).await,
            Answer::Moved(_)
        ));
        let repeated = told(&db, &sagas, id, word).await;
        assert_eq!(repeated, Answer::Nothing(Nothing::Repeated));
    }
    assert_eq!(sent(&db).await, ["Book", "Charge", "Print"]);
    assert_eq!(
        logged(&db).await,
        ["RUNNING", "RUNNING", "RUNNING", "COMPLETED"]
    );
    let view = sagas.view(&db, id).await.unwrap().unwrap();
    assert_eq!(view.summary.phase.status(), Status::Completed);
    assert!(view.summary.completed_at.is_some() && view.summary.deadline.is_none());
    assert_eq!(view.data.name, "rome");
    assert!(
        view.steps
            .iter()
            .all(|step| step.state == StepState::Done && step.at.is_some())
    );
    let told: Vec<_> = view
        .history
        .into_iter()
        .map(|entry| entry.happening)
        .collect();
    assert_eq!(
        told,
        [
            "started",
            "book seat: done",
            "charge card: done",
            "print ticket: done"
        ]
    );
}

#[tokio::test]
async fn started_again_it_is_one_saga_and_one_command() {
    let folder = tempfile::tempdir().unwrap();
    let (db, sagas) = (open(&folder).await, trips(LONG));
    let id = started(&db, &sagas, "rome").await;
    assert_eq!(started(&db, &sagas, "rome").await, id);
    assert_eq!(sent(&db).await, ["Book"]);
}

#[tokio::test]
async fn a_transaction_that_is_dropped_leaves_neither_move_nor_command() {
    let folder = tempfile::tempdir().unwrap();
    let (db, sagas) = (open(&folder).await, trips(LONG));
    let id = started(&db, &sagas, "rome").await;
    let mut tx = db.begin();
    sagas.reply(&mut tx, id, "Booked", None).await.unwrap();
    drop(tx);
    let view = sagas.view(&db, id).await.unwrap().unwrap();
    assert_eq!(
        (view.steps[0].state, view.history.len()),
        (StepState::Sent, 1)
    );
    assert_eq!(sent(&db).await, ["Book"]);
}

#[tokio::test]
async fn a_refusal_takes_back_and_its_reason_is_kept() {
    let folder = tempfile::tempdir().unwrap();
    let (db, sagas) = (open(&folder).await, trips(LONG));
    let id = started(&db, &sagas, "rome").await;
    told(&db, &sagas, id, "Booked").await;
    told(&db, &sagas, id, "Declined").await;
    assert_eq!(sent(&db).await, ["Book", "Charge", "Free"]);
    assert_eq!(
        told(&db, &sagas, id, "Freed").await,
        Answer::Moved(Status::Compensated)
    );
    let view = sagas.view(&db, id).await.unwrap().unwrap();
    assert_eq!(view.summary.reason.as_deref(), Some("no luck"));
}

#[tokio::test]
async fn what_belongs_to_no_saga_or_to_no_step_moves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (db, sagas) = (open(&folder).await, trips(LONG));
    let id = started(&db, &sagas, "rome").await;
    assert_eq!(told(&db, &sagas, id, "Book").await, Answer::NoReply);
    assert_eq!(
        told(&db, &sagas, Uuid::nil(), "Booked").await,
        Answer::Unknown
    );
}

#[tokio::test]
async fn a_success_after_its_timeout_is_taken_back() {
    let folder = tempfile::tempdir().unwrap();
    let (db, sagas) = (open(&folder).await, trips(SOON));
    let watching = watch(&db, &sagas);
    let id = started(&db, &sagas, "rome").await;
    until("the timeout fires", || async {
        status(&db, &sagas, id).await == Status::Compensating
    })
    .await;
    told(&db, &sagas, id, "Freed").await;
    assert_eq!(status(&db, &sagas, id).await, Status::Compensated);
    told(&db, &sagas, id, "Booked").await;
    assert_eq!(status(&db, &sagas, id).await, Status::Compensating);
    told(&db, &sagas, id, "Freed").await;
    assert_eq!(status(&db, &sagas, id).await, Status::Compensated);
    assert_eq!(sent(&db).await, ["Book", "Free", "Free"]);
    watching.stop().await;
}

#[tokio::test]
async fn two_monitors_fire_each_deadline_once() {
    const SAGAS: usize = 60;
    let folder = tempfile::tempdir().unwrap();
    let db = open(&folder).await;
    let first = trips(SOON);
    let second = trips(SOON);
    for number in 0..SAGAS {
        started(&db, &first, &format!("trip {number}")).await;
    }
    // Another process has connections of its own.
    let other = open(&folder).await;
    let watching = [watch(&db, &first), watch(&other, &second)];
    until("each fires", || async {
        logged(&db).await.len() >= 2 * SAGAS
    })
    .await;
    for watching in watching {
        watching.stop().await;
    }
    assert_eq!(logged(&db).await.len(), 2 * SAGAS);
    let sent = sent(&db).await;
    assert_eq!(sent.iter().filter(|word| *word == "Free").count(), SAGAS);
}

#[tokio::test]
async fn a_deadline_that_passes_while_all_are_stopped_fires_when_one_starts() {
    let folder = tempfile::tempdir().unwrap();
    let db = open(&folder).await;
    let id = started(&db, &trips(SOON), "rome").await;
    drop(db);
    tokio::time::sleep(SOON).await;
    let (db, sagas) = (open(&folder).await, trips(LONG));
    let watching = watch(&db, &sagas);
    until("it fires", || async {
        status(&db, &sagas, id).await == Status::Compensating
    })
    .await;
    watching.stop().await;
}

#[tokio::test]
async fn a_monitor_that_dies_before_its_commit_leaves_the_deadline_to_the_next() {
    let folder = tempfile::tempdir().unwrap();
    let (db, sagas) = (open(&folder).await, trips(SOON));
    let id = started(&db, &sagas, "rome").await;
    let watching = watch(&db, &sagas);
    // Killed at any moment: whatever it had begun is taken back.
    tokio::time::sleep(SOON).await;
    watching.task.abort();
    let watching = watch(&db, &sagas);
    until("it fires", || async {
        status(&db, &sagas, id).await == Status::Compensating
    })
    .await;
    watching.stop().await;
    assert_eq!(sent(&db).await, ["Book", "Free"]);
    assert_eq!(logged(&db).await, ["RUNNING", "COMPENSATING"]);
}

#[tokio::test]
async fn a_confirmation_without_an_answer_is_reviewed_and_resolved_by_hand() {
    let folder = tempfile::tempdir().unwrap();
    let (db, sagas) = (open(&folder).await, trips(SOON));
    let ids = [
        started(&db, &sagas, "rome").await,
        started(&db, &sagas, "oslo").await,
    ];
    for id in ids {
        told(&db, &sagas, id, "Booked").await;
        told(&db, &sagas, id, "Charged").await;
    }
    let watching = watch(&db, &sagas);
    for id in ids {
        until("it is in review", || async {
            status(&db, &sagas, id).await == Status::ManualReview
        })
        .await;
    }
    watching.stop().await;
    let resolve = async |id, resolution| {
        let mut tx = db.begin();
        let answer = sagas
            .resolve(&mut tx, id, resolution, "asked the printer")
            .await;
        tx.commit().await.unwrap();
        answer.unwrap()
    };
    let confirmed = resolve(ids[0], Resolution::Confirm).await;
    assert_eq!(confirmed, Answer::Moved(Status::Running));
    told(&db, &sagas, ids[0], "Printed").await;
    assert_eq!(status(&db, &sagas, ids[0]).await, Status::Completed);
    assert_eq!(
        resolve(ids[0], Resolution::Cancel).await,
        Answer::Refused(Refusal::NotInReview)
    );
    let cancelled = resolve(ids[1], Resolution::Cancel).await;
    assert_eq!(cancelled, Answer::Moved(Status::Compensating));
    told(&db, &sagas, ids[1], "Refunded").await;
    told(&db, &sagas, ids[1], "Freed").await;
    let view = sagas.view(&db, ids[1]).await.unwrap().unwrap();
    assert_eq!(view.summary.phase.status(), Status::Compensated);
    assert_eq!(view.summary.reason.as_deref(), Some("asked the printer"));
}

#[tokio::test]
async fn replies_and_cancels_of_many_at_once_move_each_saga_one_way() {
    let folder = tempfile::tempdir().unwrap();
    let (db, sagas) = (open(&folder).await, trips(LONG));
    let mut ids = Vec::new();
    for number in 0..20 {
        ids.push(started(&db, &sagas, &format!("trip {number}")).await);
    }
    let told = |id: Uuid, cancels: bool| {
        let (db, sagas) = (db.clone(), sagas.clone());
        tokio::spawn(async move {
            let mut tx = db.begin();
            match cancels {
                true => sagas.cancel(&mut tx, id, "changed my mind").await.unwrap(),
                false => sagas.reply(&mut tx, id, "SoldOut", None).await.unwrap(),
            };
            tx.commit().await.unwrap();
        })
    };
    let tasks: Vec<_> = ids
        .iter()
        .flat_map(|id| [told(*id, true), told(*id, false)])
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    for id in ids {
        let view = sagas.view(&db, id).await.unwrap().unwrap();
        let refused = view.steps[0].state == StepState::Refused;
        assert_eq!(view.history.len(), 2, "the first one decides");
        let phase = view.summary.phase.status();
        assert_eq!(phase == Status::Compensated, refused, "{:?}", view.steps);
    }
}

#[tokio::test]
async fn sagas_are_listed_by_status_in_pages_and_counted() {
    let folder = tempfile::tempdir().unwrap();
    let (db, sagas) = (open(&folder).await, trips(LONG));
    let mut ids = Vec::new();
    for name in ["a", "b", "c", "d"] {
        ids.push(started(&db, &sagas, name).await);
    }
    told(&db, &sagas, ids[1], "SoldOut").await;
    let page = async |status, after, limit| {
        let page = sagas
            .page(&db, status, after, limit)
            .await
            .unwrap()
            .unwrap();
        let keys: Vec<_> = page.sagas.into_iter().map(|saga| saga.key).collect();
        (keys.concat(), page.next)
    };
    assert_eq!(page(None, None, 2).await, ("ab".to_owned(), Some(ids[1])));
    assert_eq!(page(None, Some(ids[1]), 2).await, ("cd".to_owned(), None));
    let running = Some(Status::Running);
    assert_eq!(
        page(running, None, 2).await,
        ("ac".to_owned(), Some(ids[2]))
    );
    assert_eq!(page(Some(Status::Compensated), None, 2).await.0, "b");
    let unknown = sagas.page(&db, None, Some(Uuid::nil()), 2).await.unwrap();
    assert_eq!(unknown, None);
    let open = sagas.open(&db).await.unwrap();
    assert_eq!(
        (open.len(), open[0].status, open[0].count),
        (1, Status::Running, 3)
    );
    let watching = watch(&db, &sagas);
    until("the metrics say so", || async {
        let text = watching.metrics.render();
        text.contains("ackwell_sagas{saga=\"trip\",status=\"RUNNING\"} 3")
    })
    .await;
    watching.stop().await;
}

#[tokio::test]
async fn finished_sagas_are_forgotten_after_their_retention_and_late_replies_with_them() {
    const FINISHED: usize = 450;
    let folder = tempfile::tempdir().unwrap();
    let (db, sagas) = (open(&folder).await, trips(LONG));
    let open = started(&db, &sagas, "open").await;
    told(&db, &sagas, open, "Booked").await;
    let mut finished = Vec::new();
    for number in 0..FINISHED {
        let id = started(&db, &sagas, &format!("trip {number}")).await;
        told(&db, &sagas, id, "SoldOut").await;
        finished.push(id);
    }
    let kept = watch(&db, &sagas);
    let monitor = sagas.monitor(db.clone()).retention(Duration::ZERO);
    let watching = watch_by(monitor);
    let rows = async |table: &str| {
        let sql = format!("SELECT count(*) FROM {table}");
        let row = db.query_opt(&sql, params![]).await.unwrap().unwrap();
        row.get::<i64>(0).unwrap()
    };
    until("they are forgotten", || async {
        rows("ackwell_sagas").await == 1 && rows("ackwell_saga_history").await == 2
    })
    .await;
    assert_eq!(
        told(&db, &sagas, finished[0], "Booked").await,
        Answer::Unknown
    );
    assert_eq!(
        told(&db, &sagas, open, "Charged").await,
        Answer::Moved(Status::Running)
    );
    until("it is counted", || async {
        let text = watching.metrics.render();
        text.contains("ackwell_saga_unknown_total{saga=\"trip\"} 1")
            && text.contains(&format!(
                "ackwell_sagas_pruned_total{{saga=\"trip\"}} {FINISHED}"
            ))
    })
    .await;
    watching.stop().await;
    kept.stop().await;
}

/// Time per transition, with few and with many open sagas:
/// `cargo test --release --workspace --test sql_sagas -- --ignored --nocapture`.
///
/// The three databases take turns, so that whatever else the machine does befalls all of them. The sagas that move are
/// spread over all that are open, which is the worst case for the pages of a database. The medians are held to be
/// flat; the worst rounds have the checkpoints of SQLite in them, which write each page that was changed once.
#[tokio::test]
#[ignore = "a measurement; takes minutes"]
async fn a_transition_costs_the_same_with_50_000_open_sagas() {
    const AT_ONCE: usize = 64;
    const ROUNDS: usize = 60;
    let folders = [(); 3].map(|()| tempfile::tempdir().unwrap());
    let mut worlds = Vec::new();
    for (folder, size) in folders.iter().zip([1_000, 10_000, 50_000]) {
        let (db, sagas) = (open(folder).await, trips(LONG));
        fill(&db, &sagas, size).await;
        let watching = watch(&db, &sagas);
        worlds.push((size, db, sagas, watching, Vec::new()));
    }
    for round in 0..ROUNDS {
        for (size, db, sagas, _, rounds) in &mut worlds {
            let since = Instant::now();
            let moves = (0..AT_ONCE).map(|at| {
                let number = (at * ROUNDS + round) * *size / (AT_ONCE * ROUNDS);
                move_and_back(db, sagas, number)
            });
            futures_util::future::join_all(moves).await;
            rounds.push(since.elapsed() / (2 * AT_ONCE as u32));
        }
    }
    let mut medians = Vec::new();
    for (size, _, _, watching, mut rounds) in worlds {
        watching.stop().await;
        let mean = rounds.iter().sum::<Duration>() / ROUNDS as u32;
        rounds.sort_unstable();
        let (median, worst) = (rounds[ROUNDS / 2], rounds[ROUNDS - 1]);
        println!(
            "{size:>6} open sagas: {median:?} a transition (median), mean {mean:?}, worst round {worst:?}"
        );
        medians.push(median);
    }
    let database = if is_postgres() {
        "PostgreSQL"
    } else {
        "SQLite"
    };
    println!("on {database}, {}", Timestamp::now());
    assert!(medians[2] < medians[0] * 2, "{medians:?}");
}

/// Early, and taken back: the saga stays open.
async fn move_and_back(db: &Database, sagas: &Sagas<Trips>, number: usize) {
    let id = Sagas::<Trips>::id(&format!("trip {number}"));
    told(db, sagas, id, "Charged").await;
    told(db, sagas, id, "Declined").await;
}

async fn fill(db: &Database, sagas: &Sagas<Trips>, size: usize) {
    const AT_ONCE: usize = 500;
    for first in (0..size).step_by(AT_ONCE) {
        let mut tx = db.begin();
        for number in first..size.min(first + AT_ONCE) {
            let name = format!("trip {number}");
            let trip = Trip { name: name.clone() };
            sagas.start(&mut tx, &name, &trip).await.unwrap();
        }
        tx.commit().await.unwrap();
    }
}
