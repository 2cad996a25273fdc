//! Records of a run that are handled and not yet durable: they are settled when their group is.

use std::collections::VecDeque;

use ackwell::unit::Run;
use futures_util::FutureExt;

use crate::error::Result;
use crate::group::{Outcome, Turn};

/// Handled records by the group that they wait for, oldest first.
#[derive(Default)]
pub(super) struct Unsettled(VecDeque<Batch>);

/// Handled records that become durable together.
struct Batch {
    outcome: Outcome,
    handled: usize,
    duplicates: usize,
}

impl Unsettled {
    /// The group of the record handled last; `None` when everything is settled.
    pub(super) fn newest(&self) -> Option<&Outcome> {
        self.0.back().map(|batch| &batch.outcome)
    }

    /// Waits until the oldest group is durable, or has failed; without one, it waits for ever.
    pub(super) fn oldest(&self) -> impl Future<Output = Result<()>> + Send + use<> {
        let oldest = self.0.front().map(|batch| batch.outcome.clone());
        async move {
            match oldest {
                Some(outcome) => outcome.durable().await,
                None => std::future::pending().await,
            }
        }
    }

    /// The next record was handled in the group of `turn`.
    pub(super) fn handled(&mut self, turn: &Turn) {
        self.batch(turn).handled += 1;
    }

    /// The next record was handled before, as was found in the group of `turn`.
    pub(super) fn duplicate(&mut self, turn: &Turn) {
        self.batch(turn).duplicates += 1;
    }

    /// The next record was handled without a group: it is settled with those before it.
    pub(super) fn handled_outside(&mut self, run: &mut Run) {
        match self.0.back_mut() {
            Some(batch) => batch.handled += 1,
            None => run.settled(1),
        }
    }

    /// The next record was handled before, as was known without a group.
    pub(super) fn duplicate_outside(&mut self, run: &mut Run) {
        match self.0.back_mut() {
            Some(batch) => batch.duplicates += 1,
            None => run.duplicates(1),
        }
    }

    fn batch(&mut self, turn: &Turn) -> &mut Batch {
        let outcome = turn.outcome();
        let known = self.newest().is_some_and(|newest| newest.is_same(&outcome));
        if !known {
            self.0.push_back(Batch {
                outcome,
                handled: 0,
                duplicates: 0,
            });
        }
        let last = self.0.len() - 1;
        &mut self.0[last]
    }

    /// Waits until all of it is durable.
    pub(super) async fn settle_all(&mut self, run: &mut Run) -> Result<()> {
        while let Some(batch) = self.0.front() {
            let durable = batch.outcome.clone().durable();
            let durable = match durable.now_or_never() {
                Some(durable) => durable,
                None => {
                    run.report();
                    batch.outcome.clone().durable().await
                }
            };
            self.settle_oldest(run, durable)?;
        }
        Ok(())
    }

    /// The oldest group has become durable, or was lost.
    pub(super) fn settle_oldest(&mut self, run: &mut Run, durable: Result<()>) -> Result<()> {
        let Some(batch) = self.0.pop_front() else {
            return Ok(());
        };
        if let Err(error) = durable {
            // Nothing behind it may be reported either.
            self.0.clear();
            return Err(error);
        }
        run.settled(batch.handled);
        run.duplicates(batch.duplicates);
        Ok(())
    }
}
