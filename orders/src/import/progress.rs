//! How far the import is: a bar on a terminal, a line now and then elsewhere.
//!
//! Everything goes to standard error; standard output belongs to the report.

use std::io::{IsTerminal, Write, stderr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

/// How often a line is printed where there is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(1);

/// Shown progress; clones show the same.
#[derive(Clone)]
pub(crate) struct Progress {
    shown: Arc<Shown>,
}

enum Shown {
    Bar(ProgressBar),
    Lines { rows: u64, last: Mutex<Instant> },
}

impl Progress {
    /// Progress over `rows`.
    pub(crate) fn over(rows: u64) -> Self {
        let shown = if stderr().is_terminal() {
            let style = ProgressStyle::with_template(
                "{bar:40} {pos}/{len} final, {msg}, {per_sec}, {eta} left",
            );
            let bar = ProgressBar::new(rows);
            bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
            Shown::Bar(bar)
        } else {
            Shown::Lines {
                rows,
                last: Mutex::new(Instant::now()),
            }
        };
        Self {
            shown: Arc::new(shown),
        }
    }

    /// So many orders are posted, and so many of them final.
    pub(crate) fn update(&self, posted: u64, finished: u64) {
        match &*self.shown {
            Shown::Bar(bar) => {
                bar.set_position(finished);
                bar.set_message(format!("{posted} posted"));
            }
            Shown::Lines { rows, last } => {
                let mut last = last.lock().unwrap_or_else(PoisonError::into_inner);
                if last.elapsed() >= LINE_EVERY {
                    *last = Instant::now();
                    line(&format!("{posted} of {rows} posted, {finished} final"));
                }
            }
        }
    }

    /// A message of its own.
    pub(crate) fn say(&self, message: &str) {
        match &*self.shown {
            Shown::Bar(bar) => bar.suspend(|| line(message)),
            Shown::Lines { .. } => line(message),
        }
    }

    /// Takes the bar away.
    pub(crate) fn done(&self) {
        if let Shown::Bar(bar) = &*self.shown {
            bar.finish_and_clear();
        }
    }
}

/// A closed standard error is no reason to stop an import.
fn line(text: &str) {
    let _ = writeln!(stderr(), "{text}");
}
