//! How a lane's run is carried out.
//!
//! The container hands over records in runs: what waits in one lane, in order. A unit of work
//! decides what they share. [`OneByOne`] shares nothing; `ackwell-sql` gives one whose records
//! share a database transaction, which is where the speed of a transactional listener comes from.

mod control;
mod group;
mod handling;
mod parking;
mod portion;
mod rehearsal;
mod run;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use futures_util::future::BoxFuture;

pub(crate) use control::Control;
pub use handling::Handling;
pub(crate) use handling::panicked;
pub(crate) use parking::Grave;
pub use parking::{Judged, Parking, Retried, Retries, Waiting};
pub use portion::{Judgement, Portion};
pub use rehearsal::{Rehearsal, Rehearsed};
pub use run::Run;
pub(crate) use run::{Ended, ProgressSink};

use crate::extensions::Extensions;

use crate::container::SnapshotStore;
use crate::service::Service;

/// Carries out the records of a run.
pub trait UnitOfWork: Send + Sync + 'static {
    /// Handles the records of `run` in order and returns when each outcome is durable. Stops at
    /// the first failure, which it reports by [`Run::failed`].
    ///
    /// The run of a [batch handler](crate::batch) is carried out by
    /// [portions](Run::next_portion); a unit of work that starts its records one by one gives the
    /// handler lists of one.
    ///
    /// # Cancel safety
    ///
    /// The container drops the future when the partition is revoked or the listener stops and
    /// the drain limit has passed. What was not reported by [`Run::settled`] is handled again,
    /// here or by the next owner.
    fn carry_out<'a>(&'a self, run: &'a mut Run) -> BoxFuture<'a, ()>;

    /// Where to keep what is settled beyond a position and has no room in its commit, if this unit
    /// has a place for it; otherwise a topic is used, see
    /// [`Snapshots`](crate::container::Snapshots).
    fn snapshot_store(&self) -> Option<Arc<dyn SnapshotStore>> {
        None
    }

    /// A service that has to run where listeners have this unit, such as one that looks after its
    /// database. The app runs one of each name, and none of the name of a service that it has anyway.
    fn companion(&self) -> Option<Box<dyn Service>> {
        None
    }
}

/// The default: one record (or list) after another, each settled when its handler returns.
#[derive(Debug, Clone, Copy, Default)]
pub struct OneByOne;

impl UnitOfWork for OneByOne {
    fn carry_out<'a>(&'a self, run: &'a mut Run) -> BoxFuture<'a, ()> {
        if run.is_batch() {
            return Box::pin(by_portions(run));
        }
        Box::pin(async move {
            let handler = run.handler();
            handler.handle_run(run).await;
        })
    }
}

async fn by_portions(run: &mut Run) {
    while let Some(mut portion) = run.next_portion() {
        if portion.has_work() {
            let handling = run.start_portion(&portion, Extensions::new());
            // There is nothing to take back: what the handler did, it did.
            let _ = portion.judge(run.drive(handling).await);
        }
        run.close_portion(portion);
    }
}
