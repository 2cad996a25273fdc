//! When the monitor of this process has to look next.
//!
//! A transaction that sets a deadline says so here before it commits. That is early enough to wake the monitor in
//! time and can't wake it for nothing but once: what it finds is what is committed.

use std::sync::atomic::{AtomicI64, Ordering::SeqCst};
use std::time::Duration;

use tokio::sync::Notify;

/// The earliest deadline that this process knows of, in milliseconds since 1970.
#[derive(Debug)]
pub(super) struct Alarm {
    at: AtomicI64,
    earlier: Notify,
}

impl Default for Alarm {
    fn default() -> Self {
        Self {
            at: AtomicI64::new(i64::MAX),
            earlier: Notify::new(),
        }
    }
}

impl Alarm {
    /// There is, or will be, a deadline at this time.
    pub(super) fn set(&self, at: i64) {
        if at < self.at.fetch_min(at, SeqCst) {
            self.earlier.notify_one();
        }
    }

    /// Forgets all deadlines; to be called before the database is asked for them.
    pub(super) fn clear(&self) {
        self.at.store(i64::MAX, SeqCst);
    }

    /// Returns when the earliest deadline has passed.
    pub(super) async fn rings(&self) {
        loop {
            let now = jiff::Timestamp::now().as_millisecond();
            let left = self.at.load(SeqCst).saturating_sub(now);
            let Ok(left) = u64::try_from(left) else {
                return;
            };
            if left == 0 {
                return;
            }
            tokio::select! {
                () = tokio::time::sleep(Duration::from_millis(left.min(LONG))) => {}
                () = self.earlier.notified() => {}
            }
        }
    }
}

/// No clock is trusted for longer: it may have been set.
const LONG: u64 = 60_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_earlier_deadline_wakes_who_waits_for_a_later_one() {
        let alarm = Alarm::default();
        let now = jiff::Timestamp::now().as_millisecond();
        alarm.set(now + 3_600_000);
        let (rang, ()) = tokio::join!(
            tokio::time::timeout(Duration::from_secs(10), alarm.rings()),
            async { alarm.set(now) }
        );
        rang.unwrap();
    }
}
