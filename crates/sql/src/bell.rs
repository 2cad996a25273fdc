//! Rung when events were committed, so that the relay need not look again and again.
//!
//! The relay may be in another process, which on PostgreSQL is told by `NOTIFY`. As part of the transaction that
//! commits the events it would be dear: the server has such transactions commit one after the other, each
//! keeping a lock of all databases until its commit is on the disk. In a transaction of its own there is nothing to
//! bring to the disk, and the lock is held for a moment. So it is sent afterwards, on a connection of its own, once
//! for all commits that came while the one before was under way, and not at all while the relay is in this
//! process. If it gets lost, the relay finds the events when it looks by itself.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::{Mutex, Notify};

use crate::backend::Postgres;
use crate::error::{Chain, Error, Result};

/// How long a notification may take; then its connection counts as lost.
const NOTIFY_MAX: Duration = Duration::from_secs(5);

/// Tells the relay of a database, wherever it is.
pub(crate) struct Bell {
    here: Notify,
    /// Relays in this process that are at work.
    relays: AtomicUsize,
    /// How to reach another process.
    far: Option<Mutex<Postgres>>,
    state: AtomicU8,
}

/// Nothing to send.
const IDLE: u8 = 0;
/// A notification is under way.
const SENDING: u8 = 1;
/// There were commits since it was sent.
const AGAIN: u8 = 2;

impl Bell {
    /// `far` reaches other processes, where there may be some.
    pub(crate) fn new(far: Option<Postgres>) -> Self {
        Self {
            here: Notify::new(),
            relays: AtomicUsize::new(0),
            far: far.map(Mutex::new),
            state: AtomicU8::new(IDLE),
        }
    }

    /// Events were committed by this process.
    pub(crate) fn ring(self: &Arc<Self>) {
        self.here.notify_one();
        if self.far.is_none() || self.relays.load(SeqCst) > 0 || !self.begins() {
            return;
        }
        match Handle::try_current() {
            Ok(runtime) => drop(runtime.spawn(Arc::clone(self).tell())),
            Err(_) => self.state.store(IDLE, SeqCst),
        }
    }

    /// Events were committed by another process.
    pub(crate) fn heard(&self) {
        self.here.notify_one();
    }

    /// Returns when it was rung since the last time.
    pub(crate) async fn rung(&self) {
        self.here.notified().await;
    }

    /// A relay is at work in this process, until what is answered is dropped.
    pub(crate) fn relay_is_here(self: &Arc<Self>) -> RelayHere {
        self.relays.fetch_add(1, SeqCst);
        RelayHere(Arc::clone(self))
    }

    /// Notes that there is something to tell; answers whether nobody is telling.
    fn begins(&self) -> bool {
        let next = |state| match state {
            IDLE => Some(SENDING),
            SENDING => Some(AGAIN),
            _ => None,
        };
        self.state.fetch_update(SeqCst, SeqCst, next) == Ok(IDLE)
    }

    /// A notification was sent; answers whether that was the last one.
    fn ends(&self) -> bool {
        let next = |state| Some(if state == AGAIN { SENDING } else { IDLE });
        self.state.fetch_update(SeqCst, SeqCst, next) != Ok(AGAIN)
    }

    async fn tell(self: Arc<Self>) {
        loop {
            if let Err(error) = self.notify().await {
                tracing::debug!(error = %Chain(&error), "relays of other processes are not told; they look by themselves");
            }
            if self.ends() {
                return;
            }
        }
    }

    async fn notify(&self) -> Result<()> {
        let Some(far) = &self.far else { return Ok(()) };
        let mut server = far.lock().await;
        match tokio::time::timeout(NOTIFY_MAX, server.notify()).await {
            Ok(told) => told,
            Err(_) => {
                server.unlink();
                Err(Error::unavailable(format!(
                    "the database has not taken a notification for {NOTIFY_MAX:?}"
                )))
            }
        }
    }
}

/// A relay that is at work in this process.
pub(crate) struct RelayHere(Arc<Bell>);

impl Drop for RelayHere {
    fn drop(&mut self) {
        self.0.relays.fetch_sub(1, SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commits_while_a_notification_is_under_way_are_told_by_one_more() {
        let bell = Bell::new(None);
        assert!(bell.begins());
        assert!(!bell.begins());
        assert!(!bell.begins());
        assert!(!bell.ends(), "one more");
        assert!(bell.ends());
        assert!(bell.begins());
    }
}
