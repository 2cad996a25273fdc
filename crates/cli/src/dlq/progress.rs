//! How far a long replay is: on a terminal only, on standard error.

use std::time::Duration;

use ackwell::dead_letters::Report;
use indicatif::ProgressBar;

/// How often the sign of life moves.
const TICK: Duration = Duration::from_millis(120);

/// Shown while dead letters are read and moved.
pub(super) struct Progress {
    bar: ProgressBar,
}

impl Progress {
    pub(super) fn start() -> Self {
        // Hides itself where standard error is no terminal.
        let bar = ProgressBar::new_spinner().with_message("reading");
        bar.enable_steady_tick(TICK);
        Self { bar }
    }

    pub(super) fn show(&self, report: &Report) {
        let Report {
            matched,
            left,
            replayed,
            parked,
            failed,
            ..
        } = report;
        self.bar.set_message(format!(
            "{matched} found, {replayed} replayed, {parked} parked, {left} left alone, {failed} failed"
        ));
    }

    pub(super) fn finish(&self) {
        self.bar.finish_and_clear();
    }
}
