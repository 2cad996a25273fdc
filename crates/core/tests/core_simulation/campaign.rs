//! Many seeds on all cores; a failing one is narrowed down and explained.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::seen::{Report, Seen};
use crate::weather::{Limits, Trouble};
use crate::world::World;

/// Which seeds are tried.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Extent {
    /// So many.
    Count(u64),
    /// As many as fit into this time.
    Time(Duration),
}

/// Runs seeds from `first` on, and reports what they held or the first seed that failed.
pub(crate) fn run(first: u64, extent: Extent) -> Result<Report, u64> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let (next, failed) = (AtomicU64::new(first), AtomicBool::new(false));
    let found = Mutex::new((Seen::default(), 0, None::<u64>));
    let start = Instant::now();
    let work = || {
        let (mut seen, mut schedules, mut failing) = (Seen::default(), 0, None);
        while !failed.load(Ordering::Relaxed) {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            let over = match extent {
                Extent::Count(count) => seed - first >= count,
                Extent::Time(limit) => start.elapsed() >= limit,
            };
            if over {
                break;
            }
            schedules += 1;
            match World::new(seed, &Limits::NONE).run() {
                Ok(found) => seen.add(&found),
                Err(_) => {
                    failed.store(true, Ordering::Relaxed);
                    failing = Some(seed);
                }
            }
        }
        if let Ok(mut found) = found.lock() {
            found.0.add(&seen);
            found.1 += schedules;
            found.2 = [found.2, failing].into_iter().flatten().min();
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(work);
        }
    });
    let (seen, schedules, failing) = found.into_inner().unwrap_or_default();
    let took = start.elapsed();
    failing.map_or(
        Ok(Report {
            schedules,
            took,
            threads,
            seen,
        }),
        Err,
    )
}

/// Narrows a failing seed down: fewer troubles, fewer records, a shorter time.
pub(crate) fn shrink(seed: u64, mut limits: Limits) -> Limits {
    let fails = |limits: &Limits| World::new(seed, limits).run().is_err();
    for trouble in Trouble::ALL {
        let without = limits.without.with(*trouble);
        let fewer = Limits { without, ..limits };
        if fails(&fewer) {
            limits = fewer;
        }
    }
    for _ in 0..20 {
        let candidates = [
            (limits.calm_at / 2, limits.produced),
            (limits.calm_at, limits.produced / 2),
            (limits.calm_at * 7 / 8, limits.produced),
            (limits.calm_at, limits.produced.saturating_sub(1)),
        ];
        let smaller = candidates.map(|(calm_at, produced)| Limits {
            calm_at,
            produced: produced.max(1),
            ..limits
        });
        let Some(smaller) = smaller.into_iter().find(|l| *l != limits && fails(l)) else {
            break;
        };
        limits = smaller;
    }
    limits
}

/// How much of what came before a violation is shown, unless `ACKWELL_LAST` says otherwise.
const LAST: u64 = 40;

/// What a failing seed shows, how to replay it, and what happened last.
pub(crate) fn explain(seed: u64, limits: &Limits) -> Option<String> {
    let shown = crate::number("ACKWELL_LAST").unwrap_or(LAST) as usize;
    let mut world = World::new(seed, limits);
    let (violation, trace) = world.traced()?;
    let last = &trace[trace.len().saturating_sub(shown)..];
    Some(format!(
        "{}\n\nseed {seed}: {violation}\nreplay it with\n  ACKWELL_SEED={seed} ACKWELL_CALM={} ACKWELL_PRODUCED={} ACKWELL_WITHOUT={} \
         cargo test -p ackwell-core --test core_simulation promise",
        last.join("\n"),
        limits.calm_at,
        limits.produced,
        limits.without.names(),
    ))
}
