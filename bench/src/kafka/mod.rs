//! The embedded broker against Apache Kafka on one node.
//!
//! Both are processes of their own on the same disk, with the same clients, settings, records and
//! durability, and take turns. What the clients themselves need of the machine is the same on both
//! sides and part of each figure; the brokers' own CPU time and memory stand beside it.

mod latency;
mod load;
pub(crate) mod transactions;

use std::path::PathBuf;

use crate::report::{Goal, Report};
use crate::server::{self, Apache};
use crate::target::{self, Broker};
use crate::{Outcome, note, process};

/// At least as many records a second.
const RATE_GOAL: Goal = Goal::AtLeast(1.0);
/// At most half the time.
const LATENCY_GOAL: Goal = Goal::AtMost(0.5);

/// How often the brokers write to the disk, in the words of each.
const DURABILITIES: [Durability; 2] = [
    Durability {
        name: "no fsync before answers",
        ackwell: &["--flush", "never"],
        apache: "",
    },
    Durability {
        name: "fsync before answers",
        ackwell: &[],
        apache: "log.flush.interval.messages=1",
    },
];

struct Durability {
    name: &'static str,
    ackwell: &'static [&'static str],
    apache: &'static str,
}

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Records of each run with values of 100 bytes; of longer ones as many as have the bytes of twice so many.
    #[arg(long, default_value_t = 500_000)]
    records: u64,
    /// Runs of each side; they take turns, after one that is not counted.
    #[arg(long, default_value_t = 3)]
    runs: usize,
    /// Bytes of a value.
    #[arg(long, value_delimiter = ',', default_values_t = [100, 1024])]
    sizes: Vec<usize>,
    /// Partitions of a topic.
    #[arg(long, value_delimiter = ',', default_values_t = [1, 100])]
    partitions: Vec<i32>,
    /// Clients, each with connections of its own.
    #[arg(long, value_delimiter = ',', default_values_t = [1, 10, 50])]
    connections: Vec<usize>,
    /// Records a second while the latency is measured.
    #[arg(long, default_value_t = 500)]
    rate: u32,
    /// Records of which the latency is measured.
    #[arg(long, default_value_t = 5000)]
    latency_records: usize,
}

/// One row of the comparison.
#[derive(Debug, Clone, Copy)]
struct Shape {
    bytes: usize,
    partitions: i32,
    connections: usize,
    records: u64,
}

impl Shape {
    fn name(&self, durability: &str) -> String {
        let Shape {
            bytes,
            partitions,
            connections,
            ..
        } = self;
        format!("{bytes} B, {partitions} part., {connections} conn., {durability}")
    }
}

/// Both brokers, with the same durability.
struct Pair {
    ackwell: Broker,
    apache: Apache,
    _data: tempfile::TempDir,
}

impl Pair {
    fn start(program: &std::path::Path, durability: &Durability) -> Outcome<Self> {
        let data = process::work_folder()?;
        Ok(Pair {
            ackwell: target::start(program, data.path(), durability.ackwell)?,
            apache: Apache::start(durability.apache)?,
            _data: data,
        })
    }

    fn brokers(&self) -> [(&'static str, &Broker, u32); 2] {
        let ackwell = self.ackwell.process().unwrap_or_default();
        [
            ("Ackwell", &self.ackwell, ackwell),
            ("Apache Kafka", &self.apache.broker, self.apache.process),
        ]
    }
}

pub(crate) fn run(arguments: &Arguments) -> Outcome<Report> {
    let method = format!(
        "{} records with keys (of 100 bytes; longer ones fewer), librdkafka idempotent with acks=all, linger 5 ms, no compression, \
         {} runs after one to warm up; latency of {} records at {} a second, linger 0; Apache Kafka {}",
        arguments.records,
        arguments.runs,
        arguments.latency_records,
        arguments.rate,
        server::HOW,
    );
    let mut report = Report::new("kafka", method);
    let program: PathBuf = process::program("ackwell")?;
    for durability in &DURABILITIES {
        note(&format!("starting both brokers, {}", durability.name));
        let pair = Pair::start(&program, durability)?;
        memory(&pair, &format!("idle, {}", durability.name), &mut report)?;
        for shape in arguments.shapes() {
            load::compare(arguments, &pair, shape, durability.name, &mut report)?;
        }
        // The Java machine has compiled what it runs often by now.
        latency::compare(arguments, &pair, durability.name, &mut report)?;
        memory(
            &pair,
            &format!("after all, {}", durability.name),
            &mut report,
        )?;
        pair.ackwell.stop()?;
    }
    Ok(report)
}

impl Arguments {
    fn shapes(&self) -> impl Iterator<Item = Shape> + '_ {
        let sizes = self.sizes.iter();
        sizes.flat_map(move |bytes| {
            self.partitions.iter().flat_map(move |partitions| {
                self.connections.iter().map(move |connections| Shape {
                    bytes: *bytes,
                    partitions: *partitions,
                    connections: *connections,
                    records: self.records_of(*bytes),
                })
            })
        })
    }

    fn records_of(&self, bytes: usize) -> u64 {
        let longer = 200 * self.records / bytes.max(1) as u64;
        self.records.min(longer).max(1)
    }
}

/// What each broker has in memory now, and has had at most.
fn memory(pair: &Pair, when: &str, report: &mut Report) -> Outcome<()> {
    for (name, _, process) in pair.brokers() {
        let now = process::resident_mib(process)?;
        let most = process::resident_peak_mib(process)?;
        report.figure(format!("memory {when}, {name}"), now, "MiB", None);
        report.figure(format!("memory at most {when}, {name}"), most, "MiB", None);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        arguments: Arguments,
    }

    #[test]
    fn by_default_every_shape_of_the_comparison_is_measured() {
        let line = Line::parse_from(["kafka"]);
        let shapes: Vec<_> = line.arguments.shapes().collect();
        assert_eq!(shapes.len(), 12);
        assert_eq!((shapes[0].bytes, shapes[0].records), (100, 500_000));
        assert_eq!((shapes[11].bytes, shapes[11].records), (1024, 97_656));
    }
}
