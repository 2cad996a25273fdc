//! Load drivers, and the peers' side of every comparison.
//!
//! A figure without its peer says nothing about a program, only about a machine. So each command
//! runs both sides in one go, on the same records, in the same process and against the same
//! broker, in turns; it prints every side with its spread, the ratio, and the goal.
//!
//! | module | what it measures |
//! |---|---|
//! | `listener` | a listener that does nothing, against a bare `BaseConsumer::poll` loop |
//! | `lanes` | work that waits, by key, against as many plain tasks as there are lanes |
//! | `backlog` | a listener's memory with a backlog of ten million records |
//! | `drain` | how long a stop takes with a thousand records in work |
//! | `transaction` | a listener with a transaction, against one transaction and one commit a record |
//! | `ordered` | ordered retry: what failing keys cost the others |
//! | `broker` | the embedded broker: in, out, latency, start, idle |
//! | `kafka` | the embedded broker against Apache Kafka: in, out, latency, memory |
//! | `import` | the order system on a file of real orders |
//! | `client` | librdkafka with the same settings for everybody, topics and loads |
//! | `memory` | a process's memory over time |
//! | `meter` | the time from the first record to the last |
//! | `process` | the programs under test as children, their memory and CPU time |
//! | `server` | Apache Kafka and PostgreSQL, started for a benchmark |
//! | `target` | the broker that the clients talk to |
//! | `report` | what is printed, for people and as JSON |

mod backlog;
mod broker;
mod client;
mod drain;
mod import;
mod kafka;
mod lanes;
mod listener;
mod memory;
mod meter;
mod ordered;
mod process;
mod report;
mod server;
mod target;
mod transaction;

use std::error::Error;
use std::io::Write;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use tracing_subscriber::EnvFilter;

use report::Report;

#[cfg(feature = "count-allocations")]
#[global_allocator]
static ALLOCATOR: &stats_alloc::StatsAlloc<std::alloc::System> = &stats_alloc::INSTRUMENTED_SYSTEM;

/// Allocations of Rust code so far; librdkafka's own are C's.
#[cfg(feature = "count-allocations")]
pub(crate) fn allocations() -> Option<u64> {
    let stats = ALLOCATOR.stats();
    u64::try_from(stats.allocations + stats.reallocations).ok()
}

/// Nothing is counted.
#[cfg(not(feature = "count-allocations"))]
pub(crate) fn allocations() -> Option<u64> {
    None
}

/// What can go wrong in a benchmark ends it, with a sentence.
pub(crate) type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

/// Measures Ackwell, and what one would use instead, in one run on this machine.
#[derive(Parser)]
#[command(name = "ackwell-bench")]
struct Arguments {
    /// Print the result as JSON; the lines for people then go to standard error.
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    benchmark: Benchmark,
}

#[derive(Subcommand)]
enum Benchmark {
    /// A listener that does nothing, against a bare rdkafka poll loop.
    Listener(listener::Arguments),
    /// Handlers that wait, by key on one partition, against as many plain tasks.
    Lanes(lanes::Arguments),
    /// A listener's memory, first with its handlers stuck before a backlog, then working it off.
    Backlog(backlog::Arguments),
    /// How long a stop takes with a thousand records in work.
    Drain(drain::Arguments),
    /// A listener with inbox, update and outbox in a transaction, against the plain way.
    Transaction(transaction::Arguments),
    /// Ordered retry: other keys' throughput with 1 % failing keys, against none.
    Ordered(ordered::Arguments),
    /// The embedded broker: records in and out, latency, start, memory.
    Broker(broker::Arguments),
    /// The embedded broker against Apache Kafka on one node, which `scripts/kafka.sh` fetches and starts.
    Kafka(kafka::Arguments),
    /// Transactions of 100 records a second, on the embedded broker and on Apache Kafka.
    Transactions(kafka::transactions::Arguments),
    /// `orders import` of a whole file, with memory over time and the audit afterwards.
    Import(import::Arguments),
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    tell_warnings();
    let result = match &arguments.benchmark {
        Benchmark::Listener(arguments) => listener::run(arguments),
        Benchmark::Lanes(arguments) => lanes::run(arguments),
        Benchmark::Backlog(arguments) => backlog::run(arguments),
        Benchmark::Drain(arguments) => drain::run(arguments),
        Benchmark::Transaction(arguments) => transaction::run(arguments),
        Benchmark::Ordered(arguments) => ordered::run(arguments),
        Benchmark::Broker(arguments) => broker::run(arguments),
        Benchmark::Kafka(arguments) => kafka::run(arguments),
        Benchmark::Transactions(arguments) => kafka::transactions::run(arguments),
        Benchmark::Import(arguments) => import::run(arguments),
    };
    match result.and_then(|report| print(&report, arguments.json)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            note(&format!("the benchmark failed: {error}"));
            ExitCode::FAILURE
        }
    }
}

/// What the framework warns of belongs beside its figures; `RUST_LOG` asks for more.
fn tell_warnings() {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("warn"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .init();
}

/// Tells how far a benchmark has come.
pub(crate) fn note(line: &str) {
    // Who closed standard error does not want to know.
    let _ = writeln!(std::io::stderr(), "{line}");
}

fn print(report: &Report, json: bool) -> Outcome<()> {
    if json {
        note(&report.to_string());
        writeln!(
            std::io::stdout(),
            "{}",
            serde_json::to_string_pretty(report)?
        )?;
    } else {
        writeln!(std::io::stdout(), "{report}")?;
    }
    Ok(())
}
