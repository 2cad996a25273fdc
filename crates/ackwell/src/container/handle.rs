//! One run is carried out, and its end is reported.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ackwell_core::Timestamp;
use ackwell_core::engine::{End, Event, Failure as CoreFailure, PartitionId, RunId};
use ackwell_core::settle::Settlement;
use futures_util::FutureExt;

use super::mailbox::Mailbox;
use super::observation::{Observation, Observer};
use crate::failure::{Class, Failure, Verdict, Verdicts};
use crate::record::Record;
use crate::unit::{Control, Ended, Judged, ProgressSink, Run, UnitOfWork};

/// Reports a run's progress to the engine.
pub(super) struct Progress {
    pub(super) run: RunId,
    pub(super) partition: PartitionId,
    pub(super) mailbox: Mailbox,
    pub(super) verdicts: Arc<Verdicts>,
    /// For each policy in place whether it repeats anything, where that is asked for.
    pub(super) policies: Option<Arc<[bool]>>,
}

impl ProgressSink for Progress {
    fn progress(&self, count: usize) {
        self.mailbox.send(Event::Progress {
            run: self.run,
            settled: count,
        });
    }

    fn attempt_failed(
        &self,
        record: &Record,
        failure: CoreFailure,
        attempt: u32,
        settlement: Settlement,
    ) {
        log(&failure, Some(record));
        self.mailbox.send(Event::AttemptFailed {
            run: self.run,
            offset: record.offset_read(),
            failure,
            attempt,
            settlement,
        });
    }

    fn retry_at(&self, at: Timestamp) {
        let partition = self.partition;
        self.mailbox.send(Event::RetryAt { partition, at });
    }

    fn judge(&self, failure: &Failure) -> Judged {
        let failure = judged(failure, self.verdicts.judge(failure));
        let policies = self.policies.as_deref().unwrap_or_default();
        let in_place = policies.get(failure.policy).copied().unwrap_or(true);
        Judged { failure, in_place }
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
    /// Whether handled records wait for acknowledgements.
    pub(super) manual: bool,
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
        } else if !run.is_interrupted() && !run.is_held() {
            // Does nothing if everything is settled.
            run.failed(Failure::new(
                Class::Transient,
                "the unit of work left a record unsettled",
            ));
        }
        let mut ended = run.finish();
        let verdict = ended
            .failure
            .as_ref()
            .map(|failure| self.verdicts.judge(failure));
        self.observe(&ended, verdict, started.elapsed());
        self.settle_behind(&mut ended);
        if self.manual {
            self.give_back_handled(&mut ended);
        }
        self.mailbox.send(Event::Finished {
            run: self.id,
            end: end(ended, verdict),
        });
    }

    /// What of a list is settled behind its failed record is not given back.
    fn settle_behind(&self, ended: &mut Ended) {
        let offsets = std::mem::take(&mut ended.settled_behind);
        if offsets.is_empty() || ended.failure.is_none() {
            return;
        }
        let behind = |record: &Record| offsets.binary_search(&record.offset_read()).is_ok();
        ended.records.retain(|record| !behind(record));
        self.mailbox.send(Event::SettledBehind {
            run: self.id,
            offsets,
        });
    }

    /// What was handled waits with the engine for its acknowledgements.
    fn give_back_handled(&self, ended: &mut Ended) {
        let rest = ended.records.split_off(ended.settled);
        ended.settled = 0;
        self.mailbox.send(Event::Handled {
            run: self.id,
            records: std::mem::replace(&mut ended.records, rest),
        });
    }

    fn observe(&self, ended: &Ended, verdict: Option<Verdict>, elapsed: Duration) {
        let Some(first) = ended.records.first() else {
            return;
        };
        self.observer.observe(&Observation::Handled {
            topic: first.topic(),
            partition: first.partition(),
            settled: ended.settled + ended.settled_behind.len(),
            duplicates: ended.duplicates,
            filtered: ended.filtered,
            elapsed,
            waited: &ended.waited,
            failed: verdict.map(|verdict| (verdict.class, ended.failed_after)),
        });
    }
}

fn end(ended: Ended, verdict: Option<Verdict>) -> End<Record> {
    let Ended {
        mut records,
        settled,
        failure,
        held,
        ..
    } = ended;
    if settled >= records.len() {
        return End::Complete;
    }
    let mut rest = records.split_off(settled);
    if let Some(reason) = held {
        return End::Held { reason, rest };
    }
    let (Some(failure), Some(verdict)) = (failure, verdict) else {
        return End::Cancelled { rest };
    };
    let failure = judged(&failure, verdict);
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

pub(super) fn judged(failure: &Failure, Verdict { class, policy }: Verdict) -> CoreFailure {
    CoreFailure {
        class,
        summary: failure.reason(),
        policy,
        retry_after: failure.wait(),
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
