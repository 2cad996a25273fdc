//! The order system on a file of real orders: how many a second become final, how long each takes,
//! whether memory stays flat, and whether the books are right afterwards.
//!
//! The program runs as users run it, `orders` with everything in one process, and is fed by
//! `orders import`. What import prints is passed on as it is; memory is sampled from outside.

use std::path::PathBuf;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::process::{Child, cpu, output, program, resident_mib, work_folder};
use crate::report::{Report, quantile, sorted};
use crate::{Outcome, note};

/// Between two looks at the memory.
const SAMPLE: Duration = Duration::from_millis(250);

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Orders, in the columns of cdnow.csv.
    #[arg(long, default_value = "../shared/data/cdnow.csv")]
    file: PathBuf,
    /// Print the samples of memory too.
    #[arg(long)]
    samples: bool,
}

pub(crate) fn run(arguments: &Arguments) -> Outcome<Report> {
    let orders = program("orders")?;
    let data = work_folder()?;
    std::fs::metadata(&arguments.file)
        .map_err(|error| format!("{}: {error}", arguments.file.display()))?;
    let file = arguments
        .file
        .to_str()
        .ok_or("the file's name is not text")?;
    let folder = data
        .path()
        .to_str()
        .ok_or("the data folder's name is not text")?;

    note("starting orders");
    let system = Child::start(&orders, &["all", "--data", folder], 1)?;
    let (cpu_before, started) = (cpu(system.id())?, Instant::now());
    let (memory, (complete, printed)) = sampled(system.id(), || {
        output(&orders, &["import", file, "--json", "--data", folder])
    })?;
    let (took, used) = (started.elapsed(), cpu(system.id())? - cpu_before);
    let (clean, audit) = output(&orders, &["audit", "--json", "--data", folder])?;

    let mut report = Report::new(
        "import",
        format!("orders import {file}; orders all in one process, SQLite, embedded broker"),
    );
    tell_import(&mut report, &printed)?;
    tell_memory(&mut report, &memory, arguments.samples);
    report.figure("orders' CPU time", used.as_secs_f64(), "s", None);
    report.figure("import's wall time", took.as_secs_f64(), "s", None);
    report.figure(
        "audit is clean",
        f64::from(u8::from(clean)),
        "",
        Some(crate::report::Goal::AtLeast(1.0)),
    );
    system.stop()?;
    match (complete, clean) {
        (true, true) => Ok(report),
        (false, _) => Err(format!("orders import failed\n{report}\n{printed}").into()),
        (true, false) => Err(format!("the audit found differences\n{report}\n{audit}").into()),
    }
}

/// Does `work` while looking at a process's memory every so often.
fn sampled<T: Send>(pid: u32, work: impl FnOnce() -> Outcome<T> + Send) -> Outcome<(Vec<f64>, T)> {
    std::thread::scope(|scope| {
        let (done, waiting) = mpsc::channel::<()>();
        let sampler = scope.spawn(move || {
            let mut memory = Vec::new();
            while waiting.recv_timeout(SAMPLE) == Err(RecvTimeoutError::Timeout) {
                memory.extend(resident_mib(pid).ok());
            }
            memory
        });
        let result = work();
        drop(done);
        let memory = sampler.join().map_err(|_| "the sampler stopped early")?;
        Ok((memory, result?))
    })
}

fn tell_import(report: &mut Report, printed: &str) -> Outcome<()> {
    let told: Value = serde_json::from_str(printed)
        .map_err(|error| format!("orders import printed no JSON ({error}): {printed}"))?;
    let fields = [
        ("rows", ""),
        ("accepted", ""),
        ("repeated", ""),
        ("confirmed", ""),
        ("cancelled", ""),
        ("manual_review", ""),
        ("failed", ""),
        ("seconds", "s"),
        ("orders_per_second", ""),
        ("p50_ms", "ms"),
        ("p99_ms", "ms"),
    ];
    for (field, unit) in fields {
        let value = told[field]
            .as_f64()
            .ok_or_else(|| format!("orders import did not print {field}: {printed}"))?;
        report.figure(field, value, unit, None);
    }
    Ok(())
}

/// Flat means that the last quarter of the time needs no more than the second: by then every
/// cache and pool has its size.
fn tell_memory(report: &mut Report, memory: &[f64], samples: bool) {
    let quarter = |number: usize| {
        let (from, to) = (memory.len() * number / 4, memory.len() * (number + 1) / 4);
        quantile(&sorted(memory[from..to].to_vec()), 0.5)
    };
    report.figure(
        "memory at most",
        memory.iter().copied().fold(0.0, f64::max),
        "MiB",
        None,
    );
    for number in 0..4 {
        report.figure(
            format!("memory, median of quarter {}", number + 1),
            quarter(number),
            "MiB",
            None,
        );
    }
    if samples {
        for (at, sample) in memory.iter().enumerate() {
            report.figure(
                format!("memory at {:.2} s", at as f64 * SAMPLE.as_secs_f64()),
                *sample,
                "MiB",
                None,
            );
        }
    }
}
