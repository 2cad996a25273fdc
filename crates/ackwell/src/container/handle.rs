//! One run is carried out, and its end is reported.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Instant;

use ackwell_core::engine::{End, Event, Failure as CoreFailure, RunId};
use futures_util::FutureExt;

use super::mailbox::Mailbox;
use super::spec::{Observation, Observer};
use crate::failure::{Class, Failure, Verdict, Verdicts};
use crate::record::Record;
use crate::unit::{Control, Ended, ProgressSink, Run, UnitOfWork};

/// Reports a run's progress to the engine.
pub(super) struct Progress {
    pub(super) run: RunId,
    pub(super) mailbox: Mailbox,
}

impl ProgressSink for Progress {
    fn progress(&self, count: usize) {
        self.mailbox.send(Event::Progress {
            run: self.run,
            settled: count,
        });
    }
}

/// What one run needs besides its records.
pub(super) struct Work {
    pub(super) id: RunId,
    pub(super) unit: Arc<dyn UnitOfWork>,
    pub(super) verdicts: Arc<Verdicts>,
    pub(super) observer: Arc<dyn Observer>,
    pub(super) mailbox: Mailbox,
    pub(super) control: Arc<Control>,
}

impl Work {
    /// Carries the run out until its end, a failure, or its cancellation.
    pub(super) async fn carry_out(self, mut run: Run) {
        let started = Instant::now();
        let cancelled = self.control.cancelled();
        let carried = {
            let work = AssertUnwindSafe(self.unit.carry_out(&mut run)).catch_unwind();
            tokio::select! {
                biased;
                carried = work => carried,
                () = cancelled => Ok(()),
            }
        };
        if carried.is_err() {
            run.failed(Failure::new(Class::Transient, "the unit of work panicked"));
        } else if !run.is_interrupted() {
            // Does nothing if everything is settled.
            run.failed(Failure::new(
                Class::Transient,
                "the unit of work left a record unsettled",
            ));
        }
        let ended = run.finish();
        self.observe(&ended, started);
        self.mailbox.send(Event::Finished {
            run: self.id,
            end: end(ended, &self.verdicts),
        });
    }

    fn observe(&self, ended: &Ended, started: Instant) {
        let Some(first) = ended.records.first() else {
            return;
        };
        self.observer.observe(&Observation::Handled {
            topic: first.topic(),
            partition: first.partition(),
            settled: ended.settled,
            duplicates: ended.duplicates,
            elapsed: started.elapsed(),
        });
    }
}

fn end(ended: Ended, verdicts: &Verdicts) -> End<Record> {
    let Ended {
        mut records,
        settled,
        failure,
        ..
    } = ended;
    if settled >= records.len() {
        return End::Complete;
    }
    let mut rest = records.split_off(settled);
    let Some(failure) = failure else {
        return End::Cancelled { rest };
    };
    let Verdict { class, policy } = verdicts.judge(&failure);
    let failure = CoreFailure {
        class,
        summary: failure.reason(),
        policy,
        retry_after: failure.wait(),
    };
    log(&failure, rest.first());
    let behind = rest.split_off(1);
    match rest.pop() {
        Some(record) => End::Failed {
            failure,
            record,
            rest: behind,
        },
        None => End::Complete,
    }
}

fn log(failure: &CoreFailure, record: Option<&Record>) {
    let Some(record) = record else { return };
    tracing::warn!(
        topic = record.topic(),
        partition = record.partition(),
        offset = record.offset(),
        class = failure.class.as_str(),
        reason = failure.summary,
        "a record could not be handled",
    );
}
