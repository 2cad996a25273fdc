//! Deadlines and the replies that wait to be read: what came in time is not too late because nobody has read it.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests")]

mod database_url;
#[path = "../../ackwell/tests/support/kafka.rs"]
mod kafka;

use std::borrow::Cow;
use std::path::Path;
use std::process::{Command as Process, Stdio};
use std::time::Duration;

use ackwell::extract::{State, Text};
use ackwell::observe::{Health, Kind, Metrics};
use ackwell::producer::OutgoingRecord;
use ackwell::service::{Service, ServiceContext};
use ackwell::transaction::TransactionError;
use ackwell::{App, Config, Event, Listener, Producer, RunningApp, Topic, Transactions};
use ackwell_sql::saga::{Change, Declaration, Happening, Monitor, Saga, Sagas, Step};
use ackwell_sql::{Database, Error, Tx, params};
use database_url::database_url;
use kafka::{Kafka, within};
use serde::{Deserialize, Serialize};
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use uuid::{Uuid, uuid};

const SOON: Duration = Duration::from_millis(50);
const LONG: Duration = Duration::from_secs(3600);
const REPLIES: &str = "replies";
const GROUP: &str = "trips";
/// The folder of a process that is to be killed, and what it writes there when a deadline fires.
const FOLDER: &str = "ACKWELL_SAGA_FOLDER";
const FIRING: &str = "firing";

#[derive(Debug, Serialize, Deserialize)]
struct Command(String);

impl Event for Command {
    const TOPIC: Topic<Self> = Topic::new("commands");
    const TYPES: &'static [&'static str] = &["Book", "Free", "Charge", "Refund"];

    fn event_type(&self) -> &'static str {
        let word = Self::TYPES.iter().find(|word| **word == self.0);
        word.copied().unwrap_or("Book")
    }

    fn aggregate_id(&self) -> Cow<'_, str> {
        "rome".into()
    }
}

struct Trips;

impl Saga for Trips {
    const IDS: Uuid = uuid!("6f8e1f0a-6a9c-4a55-9d5e-0c8f6a1b2c3d");
    type Data = ();
    type Error = Error;

    /// In a process that is to be killed, a deadline gets so far and no further: everything is written, and nothing
    /// committed.
    async fn changed(&self, _: &mut Tx, change: &Change<'_, ()>) -> Result<(), Error> {
        let Ok(folder) = std::env::var(FOLDER) else {
            return Ok(());
        };
        if let Happening::TimedOut(_) = change.happening {
            std::fs::write(Path::new(&folder).join(FIRING), "").unwrap();
            std::future::pending::<()>().await;
        }
        Ok(())
    }

    fn declare(&self) -> Declaration<()> {
        let say = |word: &str| Command(word.to_owned());
        Declaration::named("trip")
            .step(
                Step::named("book seat")
                    .sends("Book", move |()| say("Book"))
                    .done_on("Booked")
                    .undone_by("Free", move |(), _| say("Free"))
                    .undone_on("Freed")
                    .within(SOON)
                    .or_compensate(),
            )
            .step(
                Step::named("charge card")
                    .sends("Charge", move |()| say("Charge"))
                    .done_on("Charged")
                    .undone_by("Refund", move |(), _| say("Refund"))
                    .undone_on("Refunded")
                    .within(SOON)
                    .or_compensate(),
            )
    }
}

async fn on_reply(
    Text(reply): Text,
    State(sagas): State<Sagas<Trips>>,
    mut tx: Tx,
) -> Result<(), Error> {
    let id = Sagas::<Trips>::id("rome");
    sagas.reply(&mut tx, id, &reply, None).await.map(drop)
}

/// A saga whose reply lies on its topic, and nobody has read it.
struct World {
    kafka: Kafka,
    database: Database,
    sagas: Sagas<Trips>,
    folder: TempDir,
}

impl World {
    async fn new() -> Self {
        let kafka = Kafka::start().await;
        kafka.create_topic(REPLIES, 3).await;
        let folder = tempfile::tempdir().unwrap();
        let url = database_url(folder.path());
        Self {
            kafka,
            database: Database::open(&url, &[]).await.unwrap(),
            sagas: Sagas::new(Trips).unwrap(),
            folder,
        }
    }

    fn booked() -> OutgoingRecord {
        OutgoingRecord::to(REPLIES).key("rome").value("Booked")
    }

    async fn start_saga(&self) {
        let mut tx = self.database.begin();
        self.sagas.start(&mut tx, "rome", &()).await.unwrap();
        tx.commit().await.unwrap();
    }

    fn monitor(&self, patience: Duration) -> Monitor<Trips> {
        let monitor = self.sagas.monitor(self.database.clone());
        monitor.replies(GROUP, &[REPLIES]).patience(patience)
    }

    fn watch(&self, monitor: Monitor<Trips>) -> Watching {
        watch(monitor, self.kafka.config())
    }

    async fn listen(&self) -> RunningApp {
        let app = App::new(self.kafka.config())
            .named(GROUP)
            .state(self.database.clone())
            .state(self.sagas.clone())
            .listener(Listener::on(REPLIES).group(GROUP).handle(on_reply))
            .start()
            .await
            .unwrap();
        within("readiness", app.ready()).await.unwrap();
        app
    }

    /// What happened, in order, once so much has.
    async fn history(&self, length: usize) -> Vec<String> {
        let id = Sagas::<Trips>::id("rome");
        loop {
            let view = self.sagas.view(&self.database, id).await.unwrap().unwrap();
            if view.history.len() >= length {
                let entries = view.history.into_iter().take(length);
                return entries.map(|entry| entry.happening).collect();
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// The saga's deadline is over, its reply unread: the monitor waits. Then somebody reads it.
    async fn reads_late(self) {
        let watching = self.watch(self.monitor(LONG));
        let fired = tokio::time::timeout(Duration::from_millis(700), self.history(2));
        assert!(fired.await.is_err(), "fired over a reply that came in time");
        let app = self.listen().await;
        let history = within("the next deadline", self.history(3)).await;
        let expected = [
            "started",
            "book seat: done",
            "charge card: no answer in time",
        ];
        assert_eq!(history, expected);
        app.stop().await.unwrap();
        watching.stop().await;
    }
}

fn watch(monitor: Monitor<Trips>, config: Config) -> Watching {
    let (health, stop) = (Health::default(), CancellationToken::new());
    let reporter = health.add(Kind::Service, "sagas");
    let cx = ServiceContext::detached(config, Metrics::new(), reporter, stop.clone());
    let task = tokio::spawn(async move { Box::new(monitor).run(cx).await.unwrap() });
    Watching { stop, task }
}

struct Watching {
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Watching {
    async fn stop(self) {
        self.stop.cancel();
        within("the monitor", self.task).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reply_that_came_in_time_and_waits_to_be_read_is_waited_for() {
    let world = World::new().await;
    let producer = Producer::new(&world.kafka.config()).unwrap();
    producer.send_record(World::booked()).await.unwrap();
    world.start_saga().await;
    world.reads_late().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_marker_behind_a_transaction_is_no_reply_to_wait_for() {
    let world = World::new().await;
    let mut config = world.kafka.config();
    config.data = world.folder.path().to_owned();
    let transactions = Transactions::open(&config).await.unwrap();
    let sent = transactions.run(async |tx| {
        tx.send_record(World::booked()).await?;
        Ok::<_, TransactionError>(())
    });
    sent.await.unwrap();
    world.start_saga().await;
    world.reads_late().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reply_that_nobody_reads_holds_a_deadline_for_no_longer_than_the_patience() {
    let world = World::new().await;
    let producer = Producer::new(&world.kafka.config()).unwrap();
    producer.send_record(World::booked()).await.unwrap();
    world.start_saga().await;
    let watching = world.watch(world.monitor(Duration::from_secs(1)));
    let history = within("the deadline", world.history(2)).await;
    assert_eq!(history, ["started", "book seat: no answer in time"]);
    watching.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn topics_that_nobody_has_made_yet_hold_nothing_up() {
    let world = World::new().await;
    world.start_saga().await;
    let monitor = world.sagas.monitor(world.database.clone());
    let watching = world.watch(monitor.replies(GROUP, &["no-such-topic"]).patience(LONG));
    within("the deadline", world.history(2)).await;
    watching.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_monitor_killed_between_its_move_and_its_commit_leaves_the_deadline_to_fire_once() {
    let folder = tempfile::tempdir().unwrap();
    let url = database_url(folder.path());
    let database = Database::open(&url, &[]).await.unwrap();
    let sagas = Sagas::new(Trips).unwrap();
    let mut tx = database.begin();
    sagas.start(&mut tx, "rome", &()).await.unwrap();
    tx.commit().await.unwrap();
    let mut child = Process::new(std::env::current_exe().unwrap())
        .args(["--exact", "watches_until_it_is_killed", "--ignored"])
        .env(FOLDER, folder.path())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    within("the deadline to fire", async {
        while !folder.path().join(FIRING).exists() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    child.kill().unwrap();
    child.wait().unwrap();
    let id = Sagas::<Trips>::id("rome");
    let view = sagas.view(&database, id).await.unwrap().unwrap();
    assert_eq!(view.history.len(), 1, "nothing was committed");

    let watching = watch(sagas.monitor(database.clone()), Config::default());
    let fired = async {
        loop {
            let view = sagas.view(&database, id).await.unwrap().unwrap();
            if view.history.len() > 1 {
                return view.history[1].happening.clone();
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let fired = within("the deadline to fire again", fired).await;
    assert_eq!(fired, "book seat: no answer in time");
    watching.stop().await;
    let sql = "SELECT value FROM ackwell_outbox ORDER BY id";
    let rows = database.query(sql, params![]).await.unwrap();
    let freed = rows.iter().filter(|row| {
        let value: Vec<u8> = row.get(0).unwrap();
        value == b"\"Free\""
    });
    assert_eq!(freed.count(), 1);
}

/// The process that is killed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a process of another test"]
async fn watches_until_it_is_killed() {
    let Ok(folder) = std::env::var(FOLDER) else {
        return;
    };
    let url = database_url(Path::new(&folder));
    let database = Database::open(&url, &[]).await.unwrap();
    let sagas = Sagas::new(Trips).unwrap();
    let watching = watch(sagas.monitor(database), Config::default());
    within("the end", watching.task).await.unwrap();
}
