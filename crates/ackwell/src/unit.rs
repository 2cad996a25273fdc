//! How a lane's run is carried out.
//!
//! The container hands over records in runs: what waits in one lane, in order. A unit of work
//! decides what they share. [`OneByOne`] shares nothing; `ackwell-sql` gives one whose records
//! share a database transaction, which is where the speed of a transactional listener comes from.

mod control;
mod parking;
mod rehearsal;
mod run;

use futures_util::future::BoxFuture;

pub(crate) use control::Control;
pub(crate) use parking::Grave;
pub use parking::{Judged, Parking, Retried, Retries, Waiting};
pub use rehearsal::{Rehearsal, Rehearsed};
pub(crate) use run::{Ended, ProgressSink, panicked, readable};
pub use run::{Handling, Run};

/// Carries out the records of a run.
pub trait UnitOfWork: Send + Sync + 'static {
    /// Handles the records of `run` in order and returns when each outcome is durable. Stops at
    /// the first failure, which it reports by [`Run::failed`].
    ///
    /// # Cancel safety
    ///
    /// The container drops the future when the partition is revoked or the listener stops and
    /// the drain limit has passed. What was not reported by [`Run::settled`] is handled again,
    /// here or by the next owner.
    fn carry_out<'a>(&'a self, run: &'a mut Run) -> BoxFuture<'a, ()>;
}

/// The default: one record after another, each settled when its handler returns.
#[derive(Debug, Clone, Copy, Default)]
pub struct OneByOne;

impl UnitOfWork for OneByOne {
    fn carry_out<'a>(&'a self, run: &'a mut Run) -> BoxFuture<'a, ()> {
        Box::pin(async move {
            let handler = run.handler();
            handler.handle_run(run).await;
        })
    }
}
