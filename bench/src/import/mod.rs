//! The order system on a file of real orders: how many a second become final, how long each takes,
//! whether memory stays flat, and whether the books are right afterwards.
//!
//! The program runs as users run it, `orders` with everything in one process, or each service alone
//! on Apache Kafka and PostgreSQL, and is fed by `orders import`. What import prints is passed on as
//! it is; memory is sampled from outside.

mod system;

use std::path::{Path, PathBuf};
use std::time::Instant;

use serde_json::Value;

use crate::Outcome;
use crate::memory::{self, SAMPLE, sampled};
use crate::process::{program, work_folder};
use crate::report::Report;
use system::System;

/// What `orders import` prints and is added up.
const COUNTS: [&str; 7] = [
    "rows",
    "accepted",
    "repeated",
    "confirmed",
    "cancelled",
    "manual_review",
    "failed",
];

/// What follows an order's final state, such as telling its customer, may wait behind all of them.
const SETTLE: &str = "--settle=300";

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Orders, in the columns of cdnow.csv.
    #[arg(long, default_value = "../shared/data/cdnow.csv")]
    file: PathBuf,
    /// Import the file this often, each time under another name, which makes its orders new ones:
    /// whether memory is flat shows only when every cache has its size.
    #[arg(long, default_value_t = 1)]
    repeat: usize,
    /// Each service a process of its own, on Apache Kafka and PostgreSQL, which the scripts start.
    #[arg(long)]
    cluster: bool,
    /// Units of each product, instead of enough for all.
    #[arg(long)]
    stock: Option<u32>,
    /// Print the samples of memory too.
    #[arg(long)]
    samples: bool,
}

pub(crate) fn run(arguments: &Arguments) -> Outcome<Report> {
    let orders = program("orders")?;
    let data = work_folder()?;
    std::fs::metadata(&arguments.file)
        .map_err(|error| format!("{}: {error}", arguments.file.display()))?;
    let files = copies(&arguments.file, data.path(), arguments.repeat.max(1))?;
    let system = if arguments.cluster {
        System::cluster(orders, data.path())?
    } else {
        System::embedded(orders, data.path())?
    };
    let processes = system.processes();
    let (cpu_before, started) = (system.cpu()?, Instant::now());
    let (memory, imports) = sampled(&processes, || {
        let import = |file: &PathBuf| import(&system, file, arguments.stock);
        files.iter().map(import).collect::<Outcome<Vec<_>>>()
    })?;
    let (took, cpu_after) = (started.elapsed(), system.cpu()?);
    let (clean, audit) = system.run("audit", &["--json", SETTLE])?;

    let mut report = Report::new(
        "import",
        format!(
            "orders import {}, {} times; {}",
            arguments.file.display(),
            files.len(),
            system.form()
        ),
    );
    tell_imports(&mut report, &imports)?;
    memory::tell(&mut report, &memory);
    if arguments.samples {
        tell_samples(&mut report, &memory);
    }
    for ((part, before), (_, after)) in cpu_before.iter().zip(&cpu_after) {
        let used = after.saturating_sub(*before).as_secs_f64();
        report.figure(format!("CPU time, {part}"), used, "s", None);
    }
    report.figure("import's wall time", took.as_secs_f64(), "s", None);
    report.figure(
        "audit is clean",
        f64::from(u8::from(clean)),
        "",
        Some(crate::report::Goal::AtLeast(1.0)),
    );
    system.stop()?;
    if clean {
        Ok(report)
    } else {
        Err(format!("the audit found differences\n{report}\n{audit}").into())
    }
}

/// The file under as many names: an order's idempotency key is made of its file's name and line.
fn copies(file: &Path, folder: &Path, count: usize) -> Outcome<Vec<PathBuf>> {
    let stem = file.file_stem().ok_or("the file has no name")?;
    let stem = stem.to_str().ok_or("the file's name is not text")?;
    let copy = |number: usize| {
        let copy = folder.join(format!("{stem}-{number}.csv"));
        std::fs::copy(file, &copy)?;
        Ok(copy)
    };
    (1..=count).map(copy).collect()
}

/// Imports one file; answers what was printed.
fn import(system: &System, file: &Path, stock: Option<u32>) -> Outcome<Value> {
    let name = file.to_str().ok_or("the file's name is not text")?;
    let stock = stock.map(|units| format!("--stock={units}"));
    let arguments: Vec<&str> = [name, "--json"]
        .into_iter()
        .chain(stock.as_deref())
        .collect();
    let (complete, printed) = system.run("import", &arguments)?;
    if !complete {
        return Err(format!("orders import failed\n{printed}").into());
    }
    serde_json::from_str(&printed)
        .map_err(|error| format!("orders import printed no JSON ({error}): {printed}").into())
}

/// Counts are of all imports together, times of the slowest.
fn tell_imports(report: &mut Report, imports: &[Value]) -> Outcome<()> {
    let values = |field: &str| -> Outcome<Vec<f64>> {
        let value = |told: &Value| told[field].as_f64();
        let found: Option<_> = imports.iter().map(value).collect();
        found.ok_or_else(|| format!("orders import did not print {field}").into())
    };
    for field in COUNTS {
        report.figure(field, values(field)?.iter().sum(), "", None);
    }
    let seconds = values("seconds")?.iter().sum::<f64>();
    let rows = values("rows")?.iter().sum::<f64>();
    report.figure("seconds", seconds, "s", None);
    report.figure("orders_per_second", rows / seconds, "", None);
    for field in ["p50_ms", "p99_ms"] {
        let slowest = values(field)?.into_iter().fold(0.0, f64::max);
        report.figure(field, slowest, "ms", None);
    }
    Ok(())
}

fn tell_samples(report: &mut Report, memory: &[f64]) {
    for (at, sample) in memory.iter().enumerate() {
        let name = format!("memory at {:.2} s", at as f64 * SAMPLE.as_secs_f64());
        report.figure(name, *sample, "MiB", None);
    }
}
