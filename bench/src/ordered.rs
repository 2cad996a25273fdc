//! What failing keys cost the others: a listener with ordered retry, with and without them.
//!
//! Both sides handle the same records in transactions, from the same topic. On one of them every
//! hundredth key fails, again and again, for as long as the run lasts: its records are parked, and
//! its head is retried. What is counted is the records of the other keys, on both sides. A
//! third side, a listener without ordered retry, shows what it costs where nothing fails.

use std::borrow::Cow;
use std::path::Path;
use std::time::Duration;

use ackwell::extract::{Event, State};
use ackwell::retry::exponential;
use ackwell::{App, Failure, Listener, Topic, TopicDeclaration, by_key};
use ackwell_sql::{Database, Migration, Tx, ordered, params};
use serde::{Deserialize, Serialize};

use crate::listener::{config, runtime, until_done};
use crate::meter::Meter;
use crate::process::work_folder;
use crate::report::{Goal, Report, Run, in_turns};
use crate::target::{Broker, Target};
use crate::{Outcome, client, note, transaction};

const GOAL: Goal = Goal::AtLeast(0.9);

/// One key of so many fails.
const FAILING: u64 = 100;

/// Between two looks at what is committed.
const LOOK: Duration = Duration::from_millis(1);

const MIGRATIONS: &[Migration] = &[Migration::new(
    "stock",
    "CREATE TABLE stock (product INTEGER PRIMARY KEY, reserved INTEGER NOT NULL) STRICT;
     WITH RECURSIVE products (id) AS (SELECT 0 UNION ALL SELECT id + 1 FROM products WHERE id < 99)
     INSERT INTO stock SELECT id, 0 FROM products;",
)];

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Records of each run.
    #[arg(long, default_value_t = 100_000)]
    records: u64,
    /// Keys that they are spread over, in turn.
    #[arg(long, default_value_t = 5_000)]
    keys: u64,
    /// Runs of each side; they take turns.
    #[arg(long, default_value_t = 5)]
    runs: usize,
    /// Partitions of the topic.
    #[arg(long, default_value_t = 6)]
    partitions: i32,
    /// Lanes of each partition.
    #[arg(long, default_value_t = 16)]
    lanes: u16,
    /// Only this side, to look at it with a profiler.
    #[arg(long)]
    only: Option<Way>,
    #[command(flatten)]
    target: Target,
}

/// The sides.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Way {
    /// Without ordered retry; nothing fails.
    Plain,
    /// With ordered retry; nothing fails.
    Calm,
    /// With ordered retry; every hundredth key fails.
    Failing,
}

pub(crate) fn run(arguments: &Arguments) -> Outcome<Report> {
    let data = work_folder()?;
    let broker = arguments.target.start(&data.path().join("broker"), &[])?;
    let topic = client::fresh("bench-ordered");
    client::create_topic(&broker, &topic, arguments.partitions)?;
    note("filling the topic");
    let keys = arguments.keys;
    let record = |number, record: &mut client::Outgoing| requested(number % keys, record);
    client::send(&broker, &topic, arguments.records, record)?;

    let all = || vec![Way::Plain, Way::Calm, Way::Failing];
    let ways: Vec<Way> = arguments.only.map_or_else(all, |way| vec![way]);
    let runs = in_turns(&ways, arguments.runs, |way, turn| {
        one(way, turn, &broker, &topic, data.path(), arguments)
    })?;
    Ok(report(arguments, &ways, runs))
}

fn one(
    way: Way,
    turn: usize,
    broker: &Broker,
    topic: &str,
    folder: &Path,
    arguments: &Arguments,
) -> Outcome<Run> {
    let group = client::fresh(&format!("{way:?}-{turn}").to_lowercase());
    let database = folder.join(format!("{group}.db"));
    let url = format!("sqlite:{}", database.display());
    let runtime = runtime()?;
    let database = runtime.block_on(Database::open(&url, MIGRATIONS))?;
    let numbers = 0..arguments.records;
    let others = numbers.filter(|number| !is_counted_out(number % arguments.keys));
    let meter = Meter::of(others.count() as u64);
    let listener = Listener::on(TopicDeclaration::named(topic.to_owned()))
        .group(group.clone())
        .concurrency(by_key(arguments.lanes));
    let policy = exponential(Duration::from_millis(50), 2.0)
        .max(Duration::from_secs(1))
        .max_attempts(1_000);
    let listener = match way {
        Way::Plain => listener,
        Way::Calm | Way::Failing => listener.retry(ordered(policy)),
    };
    let app = App::new(config(broker))
        .named("bench")
        .state(database.clone())
        .state(meter)
        .state(way)
        .listener(listener.handle(reserve));
    until_done(&runtime, app, durable(database.clone(), meter))?;
    let committed = client::committed(broker, &group, topic, arguments.partitions)?;
    if committed != arguments.records as i64 {
        note(&format!(
            "{way:?} stopped at {committed} of {} records, when those counted were done",
            arguments.records
        ));
    }
    let parked = runtime.block_on(database.parked(1))?;
    if (way == Way::Failing) == parked.is_empty() {
        return Err(format!("{way:?} has parked {parked:?}").into());
    }
    meter.run()
}

/// Waits until the transactions of all counted records are on disk.
async fn durable(database: Database, meter: &Meter) {
    meter.all().await;
    let counted = "SELECT sum(reserved) AS sum FROM stock";
    loop {
        let row = database.query_opt(counted, params![]).await;
        let sum = row
            .ok()
            .flatten()
            .and_then(|row| row.get::<i64>("sum").ok());
        if sum.is_some_and(|sum| sum >= meter.expected() as i64) {
            return meter.finish();
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// Whether the key is one of those that fail, on the side where they do.
fn is_counted_out(key: u64) -> bool {
    key.is_multiple_of(FAILING)
}

/// What is asked for by a record.
#[derive(Deserialize, Serialize)]
struct Requested {
    key: u64,
    product: i64,
}

fn requested(key: u64, record: &mut client::Outgoing) -> std::fmt::Result {
    use std::fmt::Write as _;
    record.key.clear();
    write!(record.key, "key-{key:08}")?;
    let product = key % 100;
    record.value = format!("{{\"key\":{key},\"product\":{product}}}").into_bytes();
    record.headers = Some(transaction::headers(&record.key, "StockRequested"));
    Ok(())
}

async fn reserve(
    Event(requested): Event<Requested>,
    State(meter): State<&'static Meter>,
    State(way): State<Way>,
    mut tx: Tx,
) -> Result<(), Failure> {
    let Requested { key, product } = requested;
    let out = is_counted_out(key);
    let quantity = i64::from(!out);
    tx.execute(
        "UPDATE stock SET reserved = reserved + $2 WHERE product = $1",
        params![product, quantity],
    )
    .await?;
    if out && way == Way::Failing {
        return Err(Failure::transient("this key fails"));
    }
    if !out {
        meter.count();
    }
    Ok(())
}

impl ackwell::Event for Requested {
    const TOPIC: Topic<Self> = Topic::new("bench-requests");

    fn event_type(&self) -> &'static str {
        "StockRequested"
    }

    fn knows(event_type: &str) -> bool {
        event_type == "StockRequested"
    }

    fn aggregate_id(&self) -> Cow<'_, str> {
        Cow::Owned(self.key.to_string())
    }
}

fn report(arguments: &Arguments, ways: &[Way], runs: Vec<Vec<Run>>) -> Report {
    let method = format!(
        "{} records of {} keys, {} partitions, {} lanes each; inbox and one update a record; SQLite, \
         WAL, synchronous=FULL; one key of {FAILING} fails throughout; counted are the other keys' \
         records, first to last; {}; {} runs a side in turns after one to warm up",
        arguments.records,
        arguments.keys,
        arguments.partitions,
        arguments.lanes,
        arguments.target.name(),
        arguments.runs
    );
    let mut report = Report::new("ordered", method);
    let rates = report.sides(ways.iter().map(|way| way.name()), runs);
    if let [plain, calm, failing] = rates[..] {
        report.figure(
            "with failing keys / without",
            failing / calm,
            "",
            Some(GOAL),
        );
        report.figure("ordered / in place, nothing fails", calm / plain, "", None);
    }
    report
}

impl Way {
    fn name(self) -> &'static str {
        match self {
            Self::Plain => "retry in place, nothing fails",
            Self::Calm => "ordered retry, nothing fails",
            Self::Failing => "ordered retry, 1 % of the keys fail",
        }
    }
}
