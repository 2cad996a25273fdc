//! What the embedded broker carries, with librdkafka on the other end of the connection.
//!
//! There is no peer to run beside it that starts without a Java machine, so these are figures with
//! goals instead of ratios. Client and broker share the machine's cores: what librdkafka itself
//! needs is in the figures, and the broker's own CPU time is told beside them.

mod latency;
mod start;
mod throughput;

use crate::Outcome;
use crate::report::Report;
use crate::target::Target;

/// Each side of the disk: what is measured, and what `ackwell broker` is told for it.
const FLUSHES: [(&str, &[&str]); 2] = [
    ("fsync before each answer", &[]),
    ("fsync every second", &["--flush", "interval:1000"]),
];

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Records of each run.
    #[arg(long, default_value_t = 1_000_000)]
    records: u64,
    /// Runs in and out, each on a topic of its own.
    #[arg(long, default_value_t = 5)]
    runs: usize,
    /// Partitions of the topics.
    #[arg(long, default_value_t = 6)]
    partitions: i32,
    /// Records sent one by one to measure the latency.
    #[arg(long, default_value_t = 3000)]
    latency_records: usize,
    /// Starts to measure.
    #[arg(long, default_value_t = 20)]
    starts: usize,
    #[command(flatten)]
    target: Target,
}

pub(crate) fn run(arguments: &Arguments) -> Outcome<Report> {
    let method = format!(
        "{} records of {} bytes with keys, {} partitions, librdkafka idempotent with acks=all, linger 5 ms, \
         no compression, {} runs after one to warm up; latency of {} records sent one by one, linger 0; {} starts",
        arguments.records,
        crate::client::VALUE_BYTES,
        arguments.partitions,
        arguments.runs,
        arguments.latency_records,
        arguments.starts
    );
    let mut report = Report::new("broker", method);
    if arguments.target.is_embedded() {
        start::measure(arguments, &mut report)?;
    }
    for (name, flags) in arguments.flushes() {
        throughput::measure(arguments, name, flags, &mut report)?;
        latency::measure(arguments, name, flags, &mut report)?;
    }
    Ok(report)
}

impl Arguments {
    /// The settings to measure; of another broker only the one it has.
    fn flushes(&self) -> &'static [(&'static str, &'static [&'static str])] {
        if self.target.is_embedded() {
            &FLUSHES
        } else {
            &[("as it is set", &[])]
        }
    }
}
