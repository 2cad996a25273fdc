//! The order system on a file of real orders: how many a second become final, how long each takes,
//! whether memory stays flat, and whether the books are right afterwards.
//!
//! The program runs as users run it, `orders` with everything in one process, and is fed by
//! `orders import`. What import prints is passed on as it is; memory is sampled from outside.

use std::path::{Path, PathBuf};
use std::time::Instant;

use serde_json::Value;

use crate::memory::{self, SAMPLE, sampled};
use crate::process::{Child, cpu, output, program, work_folder};
use crate::report::Report;
use crate::{Outcome, note};

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

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Orders, in the columns of cdnow.csv.
    #[arg(long, default_value = "../shared/data/cdnow.csv")]
    file: PathBuf,
    /// Import the file this often, each time under another name, which makes its orders new ones:
    /// whether memory is flat shows only when every cache has its size.
    #[arg(long, default_value_t = 1)]
    repeat: usize,
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
    let folder = data
        .path()
        .to_str()
        .ok_or("the data folder's name is not text")?;

    note("starting orders");
    let system = Child::start(&orders, &["all", "--data", folder], 1)?;
    let (cpu_before, started) = (cpu(system.id())?, Instant::now());
    let (memory, imports) = sampled(system.id(), || {
        let import = |file: &PathBuf| import(&orders, file, folder);
        files.iter().map(import).collect::<Outcome<Vec<_>>>()
    })?;
    let (took, used) = (started.elapsed(), cpu(system.id())? - cpu_before);
    let (clean, audit) = output(&orders, &["audit", "--json", "--data", folder])?;

    let mut report = Report::new(
        "import",
        format!(
            "orders import {}, {} times; orders all in one process, SQLite, embedded broker",
            arguments.file.display(),
            files.len()
        ),
    );
    tell_imports(&mut report, &imports)?;
    memory::tell(&mut report, &memory);
    if arguments.samples {
        tell_samples(&mut report, &memory);
    }
    report.figure("orders' CPU time", used.as_secs_f64(), "s", None);
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
fn import(orders: &Path, file: &Path, data: &str) -> Outcome<Value> {
    let name = file.to_str().ok_or("the file's name is not text")?;
    let (complete, printed) = output(orders, &["import", name, "--json", "--data", data])?;
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
