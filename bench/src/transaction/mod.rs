//! What the transaction gains: a listener with `Tx`, whose records share transactions and whose
//! offsets follow, against what one writes by hand for the same promise.
//!
//! Both sides do the same for every record: remember its event id, change one of 100 rows of
//! stock, and put an event into the outbox, in a SQLite file with `journal_mode=WAL` and
//! `synchronous=FULL`, or on a PostgreSQL server with its own settings. By hand that is one database transaction and one awaited offset commit a
//! record, because a record whose offset is committed first can be lost, and one whose transaction
//! is shared by hand is where the bugs are. Nobody publishes the outbox on either side.

mod ours;
mod plain;
mod store;

use std::path::Path;

use rdkafka::message::{Header, OwnedHeaders};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::meter::Meter;
use crate::process::work_folder;
use crate::report::{Goal, Report, Run, in_turns};
use crate::target::{Broker, Target};
use crate::{Outcome, client, note};
use store::Store;

/// Where both sides say that their answers go.
const ANSWERS: &str = "bench-answers";
/// On SQLite; on PostgreSQL nobody has set one.
const GOAL: Goal = Goal::AtLeast(10.0);

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Records of each run.
    #[arg(long, default_value_t = 20_000)]
    records: u64,
    /// Runs of each side; they take turns.
    #[arg(long, default_value_t = 5)]
    runs: usize,
    /// Partitions of the topic.
    #[arg(long, default_value_t = 6)]
    partitions: i32,
    /// Rows of stock, which the records change in turn.
    #[arg(long, default_value_t = 100)]
    products: u64,
    /// Both sides on this PostgreSQL server (`scripts/postgres.sh start`) instead of SQLite, each run in a schema of
    /// its own, which is dropped afterwards.
    #[arg(long, value_name = "postgres://..")]
    database_url: Option<String>,
    /// Only this side, to look at it with a profiler.
    #[arg(long)]
    only: Option<Way>,
    #[command(flatten)]
    target: Target,
}

/// The sides.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Way {
    /// One transaction and one awaited commit a record.
    Plain,
    /// Ackwell's `Tx`.
    Ackwell,
}

pub(crate) fn run(arguments: &Arguments) -> Outcome<Report> {
    let data = work_folder()?;
    let broker = arguments.target.start(&data.path().join("broker"), &[])?;
    let topic = client::fresh("bench-transaction");
    client::create_topic(&broker, &topic, arguments.partitions)?;
    note("filling the topic");
    let products = arguments.products;
    let record = |number, record: &mut client::Outgoing| order_record(number, products, record);
    client::send(&broker, &topic, arguments.records, record)?;

    let ways: Vec<Way> = arguments
        .only
        .map_or_else(|| vec![Way::Plain, Way::Ackwell], |way| vec![way]);
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
    let store = Store::new(arguments.database_url.as_deref(), folder, &group);
    let meter = Meter::of(arguments.records);
    match way {
        Way::Plain => plain::run(broker, &group, topic, &store, arguments.products, meter)?,
        Way::Ackwell => ours::run(broker, &group, topic, &store, arguments.products, meter)?,
    }
    let committed = client::committed(broker, &group, topic, arguments.partitions)?;
    if committed != arguments.records as i64 {
        return Err(format!(
            "{way:?} committed {committed} of {} records",
            arguments.records
        )
        .into());
    }
    let reserved = store.reserved()?;
    if reserved != arguments.records as i64 {
        return Err(format!(
            "{way:?} applied {reserved} of {} records",
            arguments.records
        )
        .into());
    }
    store.remove()?;
    meter.run()
}

/// What is asked for by a record.
#[derive(Deserialize, Serialize)]
struct Requested {
    order: String,
    product: i64,
    quantity: i64,
}

/// What is put into the outbox.
#[derive(Deserialize, Serialize)]
struct Reserved {
    order: String,
    product: i64,
    quantity: i64,
}

/// A record as the order system sends it.
fn order_record(number: u64, products: u64, record: &mut client::Outgoing) -> std::fmt::Result {
    use std::fmt::Write as _;
    record.key.clear();
    write!(record.key, "order-{number:08}")?;
    let product = number % products;
    let order = &record.key;
    record.value =
        format!("{{\"order\":\"{order}\",\"product\":{product},\"quantity\":1}}").into_bytes();
    record.headers = Some(headers(&record.key, "StockRequested"));
    Ok(())
}

pub(crate) fn headers(aggregate: &str, event_type: &str) -> OwnedHeaders {
    let id = Uuid::now_v7().to_string();
    let header = |key, value| Header {
        key,
        value: Some(value),
    };
    OwnedHeaders::new_with_capacity(5)
        .insert(header("eventId", id.as_str()))
        .insert(header("eventType", event_type))
        .insert(header("occurredAt", "2026-01-01T00:00:00.000Z"))
        .insert(header("aggregateId", aggregate))
        .insert(header("contentType", "application/json"))
}

fn report(arguments: &Arguments, ways: &[Way], runs: Vec<Vec<Run>>) -> Report {
    let method = format!(
        "{} records, {} partitions; inbox, one update of {} rows, one outbox event; {}; {}; first record to last; \
         {} runs a side in turns after one to warm up",
        arguments.records,
        arguments.partitions,
        arguments.products,
        store::name(arguments.database_url.is_some()),
        arguments.target.name(),
        arguments.runs
    );
    let mut report = Report::new("transaction", method);
    let rates = report.sides(ways.iter().map(|way| way.name()), runs);
    if let [plain, ackwell] = rates[..] {
        let goal = arguments.database_url.is_none().then_some(GOAL);
        report.figure("Ackwell / plain", ackwell / plain, "", goal);
    }
    report
}

impl Way {
    fn name(self) -> &'static str {
        match self {
            Self::Plain => "a transaction and an awaited commit a record",
            Self::Ackwell => "Ackwell, listener with Tx",
        }
    }
}
