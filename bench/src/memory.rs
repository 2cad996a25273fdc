//! The memory of processes over time.

use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

use crate::Outcome;
use crate::process::resident_mib;
use crate::report::{Report, quantile, sorted};

/// Between two looks.
pub(crate) const SAMPLE: Duration = Duration::from_millis(250);

/// Does `work` while looking every so often at what these processes need together.
pub(crate) fn sampled<T: Send>(
    processes: &[u32],
    work: impl FnOnce() -> Outcome<T> + Send,
) -> Outcome<(Vec<f64>, T)> {
    std::thread::scope(|scope| {
        let (done, waiting) = mpsc::channel::<()>();
        let sampler = scope.spawn(move || {
            let mut memory = Vec::new();
            while waiting.recv_timeout(SAMPLE) == Err(RecvTimeoutError::Timeout) {
                let each = processes.iter().map(|pid| resident_mib(*pid));
                memory.extend(each.sum::<Outcome<f64>>().ok());
            }
            memory
        });
        let result = work();
        drop(done);
        let memory = sampler.join().map_err(|_| "the sampler stopped early")?;
        Ok((memory, result?))
    })
}

/// Flat means that the last quarter of the time needs no more than the second: by then every
/// cache and pool has its size.
pub(crate) fn tell(report: &mut Report, memory: &[f64]) {
    let quarter = |number: usize| {
        let (from, to) = (memory.len() * number / 4, memory.len() * (number + 1) / 4);
        quantile(&sorted(memory[from..to].to_vec()), 0.5)
    };
    let most = memory.iter().copied().fold(0.0, f64::max);
    report.figure("memory at most", most, "MiB", None);
    for number in 0..4 {
        let name = format!("memory, median of quarter {}", number + 1);
        report.figure(name, quarter(number), "MiB", None);
    }
}
