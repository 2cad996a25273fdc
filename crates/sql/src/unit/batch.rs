//! Lists of records, each in one transaction.
//!
//! What was handled before is taken out before the handler sees the list; what only turns out to
//! be a duplicate when the list is marked (another owner was a moment faster) has the handler begin
//! anew without it. A list that fails is taken back as a whole.

use std::sync::Arc;

use ackwell::unit::{Judgement, Portion, Run};
use ackwell::{Extensions, Failure};

use super::{Halt, Lane, failure, must_wait, unavailable_halt};
use crate::group::Outcome;
use crate::inbox;
use crate::seat::{Closed, Mark, Seat, Stage};

impl Lane<'_> {
    pub(super) async fn handle_portions(&mut self, run: &mut Run) -> Result<(), Halt> {
        while let Some(mut portion) = run.next_portion() {
            let records = portion.records();
            let known = inbox::known(self.database, &self.group, records).await?;
            self.take_out(&mut portion, &known);
            let mut outcomes = Vec::new();
            while portion.has_work() {
                if !self
                    .handle_portion(run, &mut portion, &mut outcomes)
                    .await?
                {
                    break;
                }
            }
            // Leaving the turn lets the group commit.
            self.turn = None;
            for outcome in outcomes {
                outcome.durable().await.map_err(unavailable_halt)?;
            }
            run.close_portion(portion);
            tokio::task::coop::consume_budget().await;
        }
        Ok(())
    }

    /// Has a list handled in a transaction; answers whether it is to be handled once more.
    async fn handle_portion(
        &mut self,
        run: &mut Run,
        portion: &mut Portion,
        outcomes: &mut Vec<Outcome>,
    ) -> Result<bool, Halt> {
        let mark = Mark::Batch(Arc::clone(&self.group));
        let seat = Seat::new(self.database.clone(), mark, None, self.turn.take(), None);
        let seat = Arc::new(seat);
        let mut extensions = Extensions::new();
        extensions.insert(Arc::clone(&seat));
        let handling = run.start_portion(portion, extensions);
        let end = self.drive(run, &seat, handling).await?;
        let Closed {
            stage,
            mut turn,
            emitted,
            known,
        } = seat.close();
        let again = if matches!(stage, Stage::Duplicate) {
            // They may be marked by this very group, so they are settled when it is durable.
            outcomes.extend(turn.as_ref().map(|turn| turn.outcome()));
            self.take_out(portion, &known);
            true
        } else {
            match portion.judge(verdict(&stage, end)) {
                Judgement::Keep => {
                    if let (Stage::Joined, Some(turn)) = (&stage, &mut turn) {
                        turn.keep(emitted)?;
                        outcomes.push(turn.outcome());
                    }
                    false
                }
                Judgement::TakeBack => {
                    portion.taken_back();
                    true
                }
            }
        };
        if let Some(turn) = &mut turn {
            turn.undo().await;
        }
        self.turn = turn;
        Ok(again)
    }

    fn take_out(&self, portion: &mut Portion, known: &[i64]) {
        if known.is_empty() {
            return;
        }
        known.iter().for_each(|_| self.database.stats().duplicate());
        tracing::debug!(
            group = &*self.group,
            records = known.len(),
            "records were handled before; skipped"
        );
        portion.take_out(|record| known.contains(&record.offset()));
    }
}

/// The database's own verdict wins: a handler may not know that it is away.
fn verdict(stage: &Stage, end: Option<Result<(), Failure>>) -> Result<(), Failure> {
    let end = end.unwrap_or(Ok(()));
    match stage {
        Stage::Failed(error) if end.is_ok() || must_wait(error) => Err(failure(error.clone())),
        _ => end,
    }
}
