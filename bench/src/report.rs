//! What is printed, for people and as JSON.

use std::fmt;
use std::time::Duration;

use serde::Serialize;

use crate::{Outcome, note};

/// One benchmark's result.
#[derive(Serialize)]
pub(crate) struct Report {
    benchmark: &'static str,
    method: String,
    machine: Machine,
    sides: Vec<Side>,
    figures: Vec<Figure>,
}

/// One timed run.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Run {
    pub(crate) records: u64,
    pub(crate) seconds: f64,
    /// Of the process that is measured, all its threads.
    pub(crate) cpu_seconds: f64,
    /// Of Rust code; counted only when the build was asked to.
    pub(crate) allocations: Option<u64>,
}

/// One way of doing the work, with all its runs.
#[derive(Serialize)]
pub(crate) struct Side {
    name: String,
    records_per_second: Spread,
    cpu_us_per_record: Spread,
    runs: Vec<Run>,
}

/// The middle of several runs, and how far they lie apart.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) min: f64,
    pub(crate) max: f64,
}

/// One number, with its goal where it has one.
#[derive(Serialize)]
pub(crate) struct Figure {
    name: String,
    value: f64,
    unit: &'static str,
    goal: Option<Goal>,
    reached: Option<bool>,
}

/// What a figure has to reach.
#[derive(Debug, Clone, Copy, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Goal {
    AtLeast(f64),
    AtMost(f64),
}

#[derive(Serialize)]
struct Machine {
    processor: String,
    cores: usize,
    memory_mib: u64,
    kernel: String,
    build: &'static str,
}

/// Runs each of the `ways` in turn, `turns` times after one to warm up.
pub(crate) fn in_turns<W: Copy + fmt::Debug>(
    ways: &[W],
    turns: usize,
    mut one: impl FnMut(W, usize) -> Outcome<Run>,
) -> Outcome<Vec<Vec<Run>>> {
    let mut runs: Vec<Vec<Run>> = vec![Vec::new(); ways.len()];
    for turn in 0..=turns {
        for (way, runs) in ways.iter().zip(&mut runs) {
            let run = one(*way, turn)?;
            let rate = run.rate();
            note(&format!("turn {turn}, {way:?}: {rate:.0} records/s"));
            if turn > 0 {
                runs.push(run);
            }
        }
    }
    Ok(runs)
}

impl Report {
    pub(crate) fn new(benchmark: &'static str, method: String) -> Self {
        Self {
            benchmark,
            method,
            machine: Machine::this(),
            sides: Vec::new(),
            figures: Vec::new(),
        }
    }

    /// Adds sides and returns their median rates.
    pub(crate) fn sides(
        &mut self,
        names: impl Iterator<Item = &'static str>,
        runs: Vec<Vec<Run>>,
    ) -> Vec<f64> {
        let sides = names.zip(runs);
        sides.map(|(name, runs)| self.side(name, runs)).collect()
    }

    /// Adds a side and returns its median rate.
    pub(crate) fn side(&mut self, name: impl Into<String>, runs: Vec<Run>) -> f64 {
        let side = Side {
            name: name.into(),
            records_per_second: Spread::of(runs.iter().map(Run::rate)),
            cpu_us_per_record: Spread::of(runs.iter().map(Run::cpu_us)),
            runs,
        };
        let median = side.records_per_second.median;
        self.sides.push(side);
        median
    }

    pub(crate) fn figure(
        &mut self,
        name: impl Into<String>,
        value: f64,
        unit: &'static str,
        goal: Option<Goal>,
    ) {
        let reached = goal.map(|goal| match goal {
            Goal::AtLeast(least) => value >= least,
            Goal::AtMost(most) => value <= most,
        });
        self.figures.push(Figure {
            name: name.into(),
            value,
            unit,
            goal,
            reached,
        });
    }
}

impl Run {
    pub(crate) fn new(records: u64, took: Duration, cpu: Duration) -> Self {
        Self {
            records,
            seconds: took.as_secs_f64(),
            cpu_seconds: cpu.as_secs_f64(),
            allocations: None,
        }
    }

    pub(crate) fn with_allocations(self, allocations: Option<u64>) -> Self {
        Self {
            allocations,
            ..self
        }
    }

    pub(crate) fn rate(&self) -> f64 {
        self.records as f64 / self.seconds
    }

    fn cpu_us(&self) -> f64 {
        self.cpu_seconds * 1e6 / self.records as f64
    }
}

impl Side {
    /// Of all runs together.
    fn allocations_per_record(&self) -> Option<f64> {
        let allocations: Option<u64> = self.runs.iter().map(|run| run.allocations).sum();
        let records: u64 = self.runs.iter().map(|run| run.records).sum();
        Some(allocations? as f64 / records as f64)
    }
}

impl Spread {
    fn of(values: impl Iterator<Item = f64>) -> Self {
        let sorted = sorted(values.collect());
        Self {
            median: quantile(&sorted, 0.5),
            min: quantile(&sorted, 0.0),
            max: quantile(&sorted, 1.0),
        }
    }
}

/// Values in order.
pub(crate) fn sorted(mut values: Vec<f64>) -> Vec<f64> {
    values.sort_by(f64::total_cmp);
    values
}

/// The value below which `share` of the sorted values lie (nearest rank; the middle of two for the
/// median of an even count). Not a number when there are none.
pub(crate) fn quantile(sorted: &[f64], share: f64) -> f64 {
    if sorted.is_empty() {
        return f64::NAN;
    }
    let at = share * (sorted.len() - 1) as f64;
    (sorted[at.floor() as usize] + sorted[at.ceil() as usize]) / 2.0
}

impl Machine {
    fn this() -> Self {
        let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let field = |text: &str, name: &str| {
            let line = text.lines().find(|line| line.starts_with(name))?;
            Some(line.split_once(':')?.1.trim().to_owned())
        };
        let kib = field(&read("/proc/meminfo"), "MemTotal")
            .and_then(|size| size.split(' ').next()?.parse::<u64>().ok());
        Self {
            processor: field(&read("/proc/cpuinfo"), "model name")
                .unwrap_or_else(|| "unknown".to_owned()),
            cores: std::thread::available_parallelism().map_or(0, usize::from),
            memory_mib: kib.unwrap_or(0) / 1024,
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            build: if cfg!(debug_assertions) {
                "debug: these figures mean nothing"
            } else {
                "release"
            },
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let machine = &self.machine;
        writeln!(f, "{}: {}", self.benchmark, self.method)?;
        writeln!(
            f,
            "  {}, {} cores, {} MiB, Linux {}, {} build",
            machine.processor, machine.cores, machine.memory_mib, machine.kernel, machine.build
        )?;
        for side in &self.sides {
            writeln!(f, "  {side}")?;
        }
        for figure in &self.figures {
            writeln!(f, "  {figure}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Spread { median, min, max } = self.records_per_second;
        let (name, runs) = (&self.name, self.runs.len());
        write!(f, "{name:<48} {:>11} records/s", thousands(median))?;
        write!(
            f,
            " ({} to {}, {runs} runs)",
            thousands(min),
            thousands(max)
        )?;
        write!(f, "  {:.2} µs CPU a record", self.cpu_us_per_record.median)?;
        if let Some(allocations) = self.allocations_per_record() {
            write!(f, ", {allocations:.3} allocations")?;
        }
        Ok(())
    }
}

impl fmt::Display for Figure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let value = if self.value >= 1000.0 {
            thousands(self.value)
        } else {
            format!("{:.3}", self.value)
        };
        write!(f, "{:<48} {value:>11} {}", self.name, self.unit)?;
        match self.goal {
            Some(Goal::AtLeast(least)) => write!(f, "  goal: at least {least}")?,
            Some(Goal::AtMost(most)) => write!(f, "  goal: at most {most}")?,
            None => return Ok(()),
        }
        f.write_str(if self.reached == Some(true) {
            ", reached"
        } else {
            ", MISSED"
        })
    }
}

fn thousands(value: f64) -> String {
    let digits = format!("{value:.0}");
    let mut grouped = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at) % 3 == 0 {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_of_an_even_count_is_the_middle_of_two() {
        assert_eq!(quantile(&[1.0, 2.0, 4.0, 9.0], 0.5), 3.0);
        assert_eq!(quantile(&[7.0], 0.99), 7.0);
        assert!(quantile(&[], 0.5).is_nan());
    }

    #[test]
    fn rates_are_printed_in_thousands() {
        assert_eq!(thousands(1_234_567.4), "1,234,567");
        assert_eq!(thousands(999.0), "999");
    }

    #[test]
    fn a_missed_goal_is_said() {
        let mut report = Report::new("x", "a method".to_owned());
        report.figure("ratio", 0.7, "", Some(Goal::AtLeast(0.8)));
        assert!(
            report.to_string().contains("goal: at least 0.8, MISSED"),
            "{report}"
        );
    }
}
