//! How the container stops a run before its end.

use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio_util::sync::CancellationToken;

/// Stops a run: softly, after the record in work, or at once.
#[derive(Debug, Default)]
pub(crate) struct Control {
    /// Asked for each record, so it is no more than a load; the token takes a lock.
    halted: AtomicBool,
    cancelled: CancellationToken,
}

impl Control {
    /// Starts no further record.
    pub(crate) fn halt(&self) {
        self.halted.store(true, Ordering::Release);
    }

    /// Drops the record in work, too.
    pub(crate) fn cancel(&self) {
        self.halt();
        self.cancelled.cancel();
    }

    pub(crate) fn is_halted(&self) -> bool {
        self.halted.load(Ordering::Acquire)
    }

    pub(crate) fn cancelled(&self) -> impl Future<Output = ()> + Send + 'static + use<> {
        self.cancelled.clone().cancelled_owned()
    }
}
