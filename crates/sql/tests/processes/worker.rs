//! A listener in a process of its own, which tests kill, stop and wake.
//!
//! The process is the test binary again, running one ignored test that calls [`work`], with its
//! [`Setup`] in the environment. It ends when its test does, by the end of its input.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::Duration;

use ackwell::extract::{Ack, Attempt, Key, State, Text};
use ackwell::retry::{Retry, exponential, fixed, topics};
use ackwell::{
    AckMode, App, Batch, BatchError, Config, Failure, Listener, TopicDeclaration, by_key,
    by_partition,
};
use ackwell_sql::{Database, Settings, Tx, ordered, params};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::sync::Notify;

use super::within;
use crate::events::{Happened, SCHEMA};

const SETUP: &str = "ACKWELL_WORKER_SETUP";
/// The name of the ignored test that each file with workers has.
const TEST: &str = "works_until_it_is_killed";
/// How the lines begin that are meant for the test.
const SAYS: &str = "@ ";

/// A place in a handler where it waits until it is told to go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Stage {
    /// Before the first statement.
    Handling,
    /// After the last.
    Transaction,
}

/// What a worker starts with.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Setup {
    pub name: String,
    pub servers: String,
    pub topic: String,
    pub group: String,
    pub database: String,
    /// librdkafka's properties for all clients.
    pub properties: BTreeMap<String, String>,
    /// Where to wait, at the record with this number.
    pub wait_at: Option<(Stage, i64)>,
    /// How long handling a record takes besides.
    pub handling: Duration,
    /// How long another process may keep the database locked before it counts as away.
    pub lock_wait: Duration,
    /// How long PostgreSQL leaves a transaction open whose process stands still.
    pub idle_max: Duration,
    pub acks: Acks,
    /// How transient failures are retried, and which numbers fail how often: all that this number
    /// divides, but for 0, so many times.
    pub retries: Retries,
    pub fails: (i64, u32),
    /// How long a record waits in a retry topic, or parked, before it is tried again.
    pub retry_after: Duration,
    /// Whether a partition's records are handled one after the other, whatever their keys.
    pub one_lane: bool,
    /// Whether the handler takes lists of records.
    pub in_lists: bool,
    /// Where calls of the handler are written down.
    pub calls: Option<PathBuf>,
}

/// When records are settled and committed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Acks {
    Batch,
    Record,
    /// By another task, later and in another order.
    Manual,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Retries {
    InPlace,
    Topics,
    Ordered,
}

impl Setup {
    pub fn set(mut self, property: &str, value: impl ToString) -> Self {
        self.properties.insert(property.into(), value.to_string());
        self
    }

    pub fn through(mut self, proxy: &super::proxy::Proxy) -> Self {
        self.servers = proxy.address().to_owned();
        self
    }

    pub fn wait_at(mut self, stage: Stage, number: i64) -> Self {
        self.wait_at = Some((stage, number));
        self
    }

    pub fn handling(mut self, time: Duration) -> Self {
        self.handling = time;
        self
    }

    /// Commits after each record instead of when a run has ended.
    pub fn committing_each_record(mut self) -> Self {
        self.acks = Acks::Record;
        self
    }

    pub fn acknowledging_by_hand(mut self) -> Self {
        self.acks = Acks::Manual;
        self
    }

    /// Every `nth` record fails so many times.
    pub fn failing(mut self, nth: i64, times: u32, retries: Retries) -> Self {
        (self.fails, self.retries) = ((nth, times), retries);
        self
    }

    /// Failed records are tried again after so long.
    pub fn retrying_after(mut self, delay: Duration) -> Self {
        self.retry_after = delay;
        self
    }

    /// One record of a partition after the other.
    pub fn in_one_lane(mut self) -> Self {
        self.one_lane = true;
        self
    }

    /// Many records in one call and one transaction.
    pub fn in_lists(mut self) -> Self {
        self.in_lists = true;
        self
    }

    fn write_down(&self, number: i64) {
        let Some(file) = &self.calls else { return };
        let file = std::fs::File::options()
            .create(true)
            .append(true)
            .open(file);
        // One write: others append to it, too.
        let line = format!("{number}\n");
        file.unwrap().write_all(line.as_bytes()).unwrap();
    }

    fn fail(&self, number: i64, attempt: u32) -> Result<(), Failure> {
        let (nth, times) = self.fails;
        match number > 0 && number % nth == 0 && attempt <= times {
            true => Err(Failure::transient("not yet")),
            false => Ok(()),
        }
    }

    /// Starts the process, with its log in `folder`.
    pub fn start(self, folder: &Path) -> Worker {
        let log = folder.join(format!("{}.log", self.name));
        let log = std::fs::File::options().create(true).append(true).open(log);
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", TEST, "--ignored", "--nocapture"])
            .env(SETUP, serde_json::to_string(&self).unwrap())
            .env("RUST_LOG", "info")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log.unwrap())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        Worker {
            name: self.name,
            input: child.stdin.take().unwrap(),
            output: BufReader::new(child.stdout.take().unwrap()).lines(),
            child,
        }
    }
}

/// A worker's process as its test sees it. Dropped, it is killed.
pub struct Worker {
    name: String,
    child: Child,
    input: ChildStdin,
    output: Lines<BufReader<ChildStdout>>,
}

impl Worker {
    /// Waits until it says so.
    async fn says(&mut self, what: &str) {
        within(&format!("{} to say `{what}`", self.name), async {
            loop {
                let line = self.output.next_line().await.unwrap();
                let line = line.unwrap_or_else(|| panic!("{} ended before `{what}`", self.name));
                if line.strip_prefix(SAYS) == Some(what) {
                    return;
                }
            }
        })
        .await;
    }

    /// Waits until its listener is a member of its group.
    pub async fn ready(&mut self) {
        self.says("ready").await;
    }

    /// Waits until it has reached the place where it is to wait.
    pub async fn waits(&mut self) {
        self.says("waiting").await;
    }

    /// Lets it go on, as soon as it is awake.
    pub async fn go_on(&mut self) {
        self.input.write_all(b"go on\n").await.unwrap();
    }

    /// SIGKILL.
    pub async fn kill(mut self) {
        self.child.kill().await.unwrap();
    }

    /// SIGSTOP.
    pub async fn pause(&self) {
        self.signal("STOP").await;
        // Each of its threads goes on until it hears of that, and could yet lock the database.
        while !self.stands_still() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    /// Whether all of its threads are stopped.
    fn stands_still(&self) -> bool {
        let threads = format!("/proc/{}/task", self.child.id().unwrap());
        let mut threads = std::fs::read_dir(threads).unwrap();
        threads.all(|thread| {
            let status = std::fs::read_to_string(thread.unwrap().path().join("status"));
            status.is_ok_and(|status| status.contains("State:\tT"))
        })
    }

    /// SIGCONT.
    pub async fn wake(&self) {
        self.signal("CONT").await;
    }

    async fn signal(&self, name: &str) {
        let command = format!("kill -{name} {}", self.child.id().unwrap());
        let sent = Command::new("sh").args(["-c", &command]).status().await;
        assert!(sent.unwrap().success(), "{command}");
    }

    /// Stops it as an orchestrator does, and waits for its end.
    pub async fn stop(mut self) {
        self.input.write_all(b"stop\n").await.unwrap();
        self.says("stopped").await;
        within("the worker's end", self.child.wait()).await.unwrap();
    }
}

/// What the child does.
pub async fn work() {
    let Ok(setup) = std::env::var(SETUP) else {
        return;
    };
    let _ = tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
        .try_init();
    let setup: Setup = serde_json::from_str(&setup).unwrap();
    let (go_on, stop) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    obey(Arc::clone(&go_on), Arc::clone(&stop));
    let app = app(&setup, go_on).await.start().await.unwrap();
    app.ready().await.unwrap();
    say("ready");
    stop.notified().await;
    app.stop().await.unwrap();
    say("stopped");
    std::process::exit(0);
}

async fn app(setup: &Setup, go_on: Arc<Notify>) -> App {
    let mut limits = Settings::default();
    (limits.lock_wait, limits.idle_max) = (setup.lock_wait, setup.idle_max);
    let database = open(&setup.database, limits).await;
    let mut config = Config::with_bootstrap_servers(setup.servers.clone());
    config.kafka.extra = setup.properties.clone();
    let listener = Listener::on(TopicDeclaration::named(setup.topic.clone()))
        .concurrency(if setup.one_lane {
            by_partition()
        } else {
            by_key(4)
        })
        .revoke_drain(Duration::from_secs(2))
        .retry(retry(setup.retries, setup.retry_after));
    let listener = match setup.acks {
        Acks::Batch if setup.in_lists => listener.handle_batch(apply_list),
        Acks::Batch => listener.handle(apply),
        Acks::Record => listener.ack_mode(AckMode::Record).handle(apply),
        Acks::Manual => listener.ack_mode(AckMode::Manual).handle(apply_by_hand),
    };
    App::new(config)
        .named(setup.group.clone())
        .state(database)
        .state(Arc::new((setup.clone(), go_on)))
        .listener(listener)
}

/// As a supervisor would: a process that was stopped in the middle of a transaction keeps the
/// database locked until it goes on or is killed.
async fn open(url: &str, limits: Settings) -> Database {
    loop {
        match Database::open_with(url, SCHEMA, limits).await {
            Err(error) if error.is_unavailable() => eprintln!("{error}"),
            opened => return opened.unwrap(),
        }
    }
}

fn retry(retries: Retries, delay: Duration) -> Retry {
    match retries {
        Retries::InPlace => exponential(Duration::from_millis(50), 2.0)
            .max(Duration::from_secs(1))
            .max_attempts(8)
            .into(),
        Retries::Topics => topics([delay, delay * 2, delay * 3]),
        Retries::Ordered => ordered(fixed(delay).max_attempts(8)).into(),
    }
}

/// With an acknowledgement of one's own there is no inbox: a repetition is recognised by what the
/// first time left. Acknowledged when it is applied, but not in that order.
async fn apply_by_hand(
    Key(key): Key,
    Text(value): Text,
    Attempt(attempt): Attempt,
    State(setup): State<Arc<(Setup, Arc<Notify>)>>,
    State(database): State<Database>,
    ack: Ack,
) -> Result<(), Failure> {
    let (setup, _) = &*setup;
    let number: i64 = value
        .parse()
        .map_err(|_| Failure::permanent("not a number"))?;
    tokio::time::sleep(setup.handling).await;
    setup.fail(number, attempt)?;
    let (mut tx, worker) = (database.begin(), setup.name.as_str());
    if crate::events::database_url::is_postgres() {
        // Nobody else may look for the same number meanwhile.
        tx.query("SELECT pg_advisory_xact_lock($1)", params![number])
            .await?;
    }
    let new = tx
        .execute(
            "INSERT INTO effects (key, number, worker) SELECT $1, $2, $3 \
             WHERE NOT EXISTS (SELECT 1 FROM effects WHERE number = $2)",
            params![key, number, worker],
        )
        .await?;
    if new == 1 {
        tx.emit(&Happened { item: number }).await?;
    }
    tx.commit().await?;
    tokio::spawn(async move {
        let other_order = Duration::from_millis(number as u64 * 7 % 5 * 10);
        tokio::time::sleep(other_order).await;
        ack.acknowledge();
    });
    Ok(())
}

/// Writes down that the record was applied, and by whom. Nothing in the schema hinders doing so
/// twice.
async fn apply(
    Key(key): Key,
    Text(value): Text,
    Attempt(attempt): Attempt,
    State(setup): State<Arc<(Setup, Arc<Notify>)>>,
    mut tx: Tx,
) -> Result<(), Failure> {
    apply_one((key, value), attempt, &setup, &mut tx).await
}

/// The same for each record of a list, in one transaction; names the one that fails.
async fn apply_list(
    Batch(records): Batch<(Key, Text)>,
    Attempt(attempt): Attempt,
    State(setup): State<Arc<(Setup, Arc<Notify>)>>,
    mut tx: Tx,
) -> Result<(), BatchError> {
    for (index, (Key(key), Text(value))) in records.into_iter().enumerate() {
        // Only the first of a list can have been tried before.
        let attempt = if index == 0 { attempt } else { 1 };
        let applied = apply_one((key, value), attempt, &setup, &mut tx).await;
        applied.map_err(|failure| BatchError::at(index, failure))?;
    }
    Ok(())
}

async fn apply_one(
    (key, value): (Option<String>, String),
    attempt: u32,
    (setup, go_on): &(Setup, Arc<Notify>),
    tx: &mut Tx,
) -> Result<(), Failure> {
    let number: i64 = value
        .parse()
        .map_err(|_| Failure::permanent("not a number"))?;
    setup.write_down(number);
    if !setup.handling.is_zero() {
        tokio::time::sleep(setup.handling).await;
    }
    wait_at(Stage::Handling, number, setup, go_on).await;
    let worker = setup.name.as_str();
    tx.execute(
        "INSERT INTO effects (key, number, worker) VALUES ($1, $2, $3)",
        params![key, number, worker],
    )
    .await?;
    tx.emit(&Happened { item: number }).await?;
    setup.fail(number, attempt)?;
    wait_at(Stage::Transaction, number, setup, go_on).await;
    Ok(())
}

/// Waits once: the record may come again.
async fn wait_at(stage: Stage, number: i64, setup: &Setup, go_on: &Notify) {
    static WAITED: AtomicBool = AtomicBool::new(false);
    if setup.wait_at == Some((stage, number)) && !WAITED.swap(true, SeqCst) {
        say("waiting");
        go_on.notified().await;
    }
}

/// Takes orders from the input on a thread; its end is the end of the process.
fn obey(go_on: Arc<Notify>, stop: Arc<Notify>) {
    std::thread::spawn(move || {
        for line in std::io::stdin().lines().map_while(Result::ok) {
            match line.as_str() {
                "go on" => go_on.notify_one(),
                "stop" => stop.notify_one(),
                other => panic!("an unknown order: {other}"),
            }
        }
        std::process::exit(1);
    });
}

fn say(what: &str) {
    println!("\n{SAYS}{what}");
}
