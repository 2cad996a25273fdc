//! `ackwell broker`: the embedded broker as a process of its own.

use std::error::Error;
use std::fmt;
use std::io::{self, Write as _};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use ackwell::observe::{Health, Kind, Metrics, Reporter, Status};
use ackwell_broker::{Broker, Config, Flush};
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

const EXAMPLES: &str = "\
Examples:
  ackwell broker
  ackwell broker --listen 127.0.0.1:0 --data /tmp/try
  ackwell broker --listen 0.0.0.0:9092 --advertised broker.lan:9092
  ackwell broker --config broker.toml

Logs go to standard error; RUST_LOG sets how much (default info). Ctrl-C or SIGTERM stops it
cleanly. Whoever can connect may do everything: listen only where you trust everyone, or give a
file with listeners, users and access rules (deploy/broker.toml is an example).";

/// Run the embedded broker alone: one node, durable, any Kafka client can connect.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// Settings in a file (TOML): all that there are, with listeners, TLS, users and access rules;
    /// flags have precedence
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,

    /// Address to listen on; port 0 picks a free one [default: 127.0.0.1:9092]
    #[arg(long, value_name = "HOST:PORT")]
    listen: Option<String>,

    /// Address that clients are told to connect to [default: the one they came by]
    #[arg(long, value_name = "HOST:PORT")]
    advertised: Option<String>,

    /// Data folder; the broker keeps its files in the subfolder `broker` [default: ./ackwell-data,
    /// or `folder` of the file]
    #[arg(long, value_name = "DIR", env = "ACKWELL_DATA")]
    data: Option<PathBuf>,

    /// When a record acknowledged with acks=all is on disk: `always` before the acknowledgement,
    /// or `interval:MS` within so many milliseconds (survives a crash of the process; a loss of
    /// power can take the last MS), or `never` (the operating system decides, as with Apache
    /// Kafka's defaults; a topic can ask for more by flush.messages and flush.ms)
    /// [default: always]
    #[arg(long, value_name = "WHEN")]
    flush: Option<Flush>,

    /// Create a topic when a client first asks for it
    #[arg(long)]
    auto_create_topics: bool,

    /// Partitions of topics whose creator does not say [default: 1]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i32).range(1..))]
    default_partitions: Option<i32>,

    /// How long records are kept where the topic does not say: `forever` or a number with s, m, h
    /// or d [default: 7d]
    #[arg(long, value_name = "TIME")]
    retention: Option<Retention>,

    /// Bytes a partition keeps where the topic does not say [default: unlimited]
    #[arg(long, value_name = "BYTES")]
    retention_bytes: Option<u64>,

    /// Connections at a time; more are refused
    #[arg(long, value_name = "N")]
    connections_max: Option<usize>,

    /// Bytes of one request; a larger one closes its connection
    #[arg(long, value_name = "BYTES")]
    request_bytes_max: Option<usize>,

    /// Connections at a time from one address [default: unlimited]
    #[arg(long, value_name = "N")]
    connections_per_address_max: Option<usize>,

    /// Bytes that requests and fetched records of all connections take together [default: 512 MiB]
    #[arg(long, value_name = "BYTES")]
    memory_max: Option<usize>,

    /// Address to serve /metrics, /healthz and /readyz on; port 0 picks a free one. Not ready while a
    /// partition only reads after an error of the disk [default: none]
    #[arg(long, value_name = "HOST:PORT")]
    metrics: Option<String>,

    /// Seconds between two looks for topics to compact [default: 15]
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..))]
    cleaning_interval: Option<u64>,

    /// Bytes of memory for the keys of one pass of compaction [default: 64 MiB]
    #[arg(long, value_name = "BYTES")]
    cleaning_memory_max: Option<usize>,

    /// Bytes that compaction reads and writes a second [default: unlimited]
    #[arg(long, value_name = "BYTES")]
    cleaning_bytes_per_second: Option<u64>,

    /// Seconds a connection may say nothing
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..))]
    idle_max: Option<u64>,
}

/// How often health looks whether the disk still takes records.
const LOOK: Duration = Duration::from_secs(1);

/// How long records are kept; `None` is for ever.
#[derive(Debug, Clone, Copy)]
struct Retention(Option<Duration>);

/// Serves until Ctrl-C or SIGTERM.
pub(crate) fn run(args: Args) -> Result<(), Box<dyn Error>> {
    log_to_stderr();
    // Two threads carry the connections of one machine; work on the disk has threads of its own
    // that come and go.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .max_blocking_threads(16)
        .thread_name("ackwell-broker")
        .enable_all()
        .build()?;
    let metrics = args.metrics.clone();
    runtime.block_on(serve(args.into_config()?, metrics))
}

async fn serve(config: Config, metrics: Option<String>) -> Result<(), Box<dyn Error>> {
    // Before the broker is ready, so that no signal is lost.
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let broker = Broker::start(config).await?;
    announce(&broker);
    let stop = CancellationToken::new();
    let health = Health::default();
    let disk = health.add(Kind::Broker, "disk");
    disk.report(condition(&broker.read_only()));
    let watched = match metrics {
        Some(address) => Some(watch(&broker, health, &address, stop.clone()).await?),
        None => None,
    };
    tokio::select! {
        () = look(&broker, &disk) => {}
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    stop.cancel();
    if let Some(watched) = watched {
        watched.await??;
    }
    broker.shutdown().await?;
    Ok(())
}

/// Reports how the disk is, again and again.
async fn look(broker: &Broker, disk: &Reporter) {
    loop {
        tokio::time::sleep(LOOK).await;
        disk.report(condition(&broker.read_only()));
    }
}

/// What the partitions that only read say of the broker: others go on, so it is alive, and not ready.
fn condition(read_only: &[String]) -> Status {
    match read_only {
        [] => Status::Running,
        [one] => Status::Degraded(one.clone()),
        [first, others @ ..] => {
            Status::Degraded(format!("{first} (and {} more such)", others.len()))
        }
    }
}

/// Serves the broker's metrics and health until `stop`.
async fn watch(
    broker: &Broker,
    health: Health,
    address: &str,
    stop: CancellationToken,
) -> Result<JoinHandle<std::io::Result<()>>, Box<dyn Error>> {
    let metrics = Metrics::default();
    metrics.register(|registry| registry.register_collector(broker.metrics()));
    let listener = ackwell_http::bind(address).await?;
    tell(format_args!(
        "metrics on http://{}/metrics",
        listener.local_addr()?
    ));
    let routes = ackwell_http::ops_of(health, metrics);
    let stopped = async move { stop.cancelled().await };
    Ok(tokio::spawn(ackwell_http::serve(listener, routes, stopped)))
}

/// A line a listener on standard output, for people and for scripts that chose port 0.
fn announce(broker: &Broker) {
    let mut addresses = broker.addresses();
    if let Some((_, address)) = addresses.next() {
        tell(format_args!("broker listening on {address}"));
    }
    for (name, address) in addresses {
        tell(format_args!("broker listening on {address} as {name}"));
    }
}

/// A line on standard output. Whoever started the broker may have read what it wanted and closed
/// the other end: that is no reason to stop.
fn tell(line: fmt::Arguments<'_>) {
    let _ = writeln!(io::stdout(), "{line}");
}

fn log_to_stderr() {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .init();
}

impl Args {
    fn into_config(self) -> Result<Config, ackwell_broker::Error> {
        let mut config = match &self.config {
            Some(file) => Config::from_file(file)?,
            None => Config::new("./ackwell-data/broker"),
        };
        if let Some(data) = self.data {
            config.folder = data.join("broker");
        }
        set(&mut config.listen, self.listen);
        config.advertised = self.advertised.or(config.advertised);
        set(&mut config.flush, self.flush);
        config.auto_create_topics |= self.auto_create_topics;
        set(&mut config.default_partitions, self.default_partitions);
        set(&mut config.retention, self.retention.map(|kept| kept.0));
        config.retention_bytes = self.retention_bytes.or(config.retention_bytes);
        let cleaning = &mut config.cleaning;
        let interval = self.cleaning_interval.map(Duration::from_secs);
        set(&mut cleaning.interval, interval);
        set(&mut cleaning.memory_max, self.cleaning_memory_max);
        cleaning.bytes_per_second = self.cleaning_bytes_per_second.or(cleaning.bytes_per_second);
        let limits = &mut config.limits;
        set(&mut limits.connections_max, self.connections_max);
        limits.connections_per_address_max = self
            .connections_per_address_max
            .or(limits.connections_per_address_max);
        set(&mut limits.memory_max, self.memory_max);
        set(&mut limits.request_bytes_max, self.request_bytes_max);
        set(&mut limits.idle_max, self.idle_max.map(Duration::from_secs));
        Ok(config)
    }
}

fn set<T>(setting: &mut T, flag: Option<T>) {
    if let Some(value) = flag {
        *setting = value;
    }
}

impl FromStr for Retention {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "forever" {
            return Ok(Self(None));
        }
        let seconds = |number: &str, unit: u64| number.parse::<u64>().ok()?.checked_mul(unit);
        let units = [("s", 1), ("m", 60), ("h", 60 * 60), ("d", 24 * 60 * 60)];
        let kept = units
            .iter()
            .find_map(|(suffix, unit)| seconds(text.strip_suffix(suffix)?, *unit));
        kept.map(|seconds| Self(Some(Duration::from_secs(seconds))))
            .ok_or_else(|| "it is `forever` or a number with s, m, h or d, as in 7d".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_partition_that_only_reads_makes_the_broker_not_ready_and_leaves_it_alive() {
        let health = Health::default();
        let disk = health.add(Kind::Broker, "disk");
        disk.report(condition(&[]));
        assert!(health.ready().ok);
        let texts = ["a-0 only reads", "b-1 only reads", "c-2 only reads"].map(str::to_owned);
        disk.report(condition(&texts[..1]));
        assert!(!health.ready().ok && health.live().ok);
        let several = condition(&texts);
        assert_eq!(several.reason(), Some("a-0 only reads (and 2 more such)"));
    }
}
