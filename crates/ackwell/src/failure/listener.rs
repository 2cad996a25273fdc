//! Who wants to hear of failures, and of what.

use std::sync::Arc;
use std::time::SystemTime;

pub use ackwell_core::settle::{Destination, Settlement};

use super::Class;

/// Hears of failed attempts and of what becomes of their records: for a page, a ticket, a
/// counter of one's own. Given to [`ListenerBuilder::on_failure`] or, for all listeners of an app,
/// to [`App::on_failure`].
///
/// The methods are called one after another on a thread of their own, never on that of the
/// container, so a slow one holds up nothing. Up to 1,024 notices wait; what comes beyond that is
/// dropped and counted (`ackwell_dropped_notices`). A panic is logged and ends nothing.
///
/// [`ListenerBuilder::on_failure`]: crate::listener::ListenerBuilder::on_failure
/// [`App::on_failure`]: crate::App::on_failure
pub trait FailureListener: Send + Sync + 'static {
    /// An attempt has failed; [`FailedAttempt::next`] says what follows.
    fn attempt_failed(&self, attempt: &FailedAttempt) {
        let _ = attempt;
    }

    /// The last attempt has failed: the record will be dead-lettered, or the listener stops. Told
    /// in addition to [`attempt_failed`](Self::attempt_failed).
    fn given_up(&self, attempt: &FailedAttempt) {
        let _ = attempt;
    }

    /// The record is safe elsewhere, which the broker has acknowledged: on the dead-letter topic
    /// or, to be tried again, on a retry topic.
    fn recovered(&self, recovered: &Recovered) {
        let _ = recovered;
    }

    /// A dead letter or a retry could not be written. The record is kept and its lane waits;
    /// writing is tried again until it succeeds.
    fn recovery_failed(&self, failed: &RecoveryFailed) {
        let _ = failed;
    }
}

/// A record by where it stands. Of one that came back by a retry topic, where it failed first.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Place {
    /// The listener's name.
    pub listener: Arc<str>,
    /// Its topic.
    pub topic: String,
    /// Its partition.
    pub partition: i32,
    /// Its offset.
    pub offset: i64,
}

/// An attempt that has failed.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct FailedAttempt {
    /// Which record.
    pub place: Place,
    /// When.
    pub at: SystemTime,
    /// What kind of failure it was.
    pub class: Class,
    /// What went wrong, with all causes.
    pub reason: String,
    /// Which attempt it was, from 1, everywhere.
    pub attempt: u32,
    /// What follows.
    pub next: Settlement,
}

/// A record that is safe elsewhere.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Recovered {
    /// Which record.
    pub place: Place,
    /// When.
    pub at: SystemTime,
    /// Where it is now.
    pub destination: Destination,
}

/// A record that could not be written elsewhere.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct RecoveryFailed {
    /// Which record.
    pub place: Place,
    /// When.
    pub at: SystemTime,
    /// What went wrong.
    pub error: String,
}
