//! Ordered retry: records are parked, and those that are due are tried again.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use ackwell_core::Timestamp;
use ackwell_core::engine::{Event, Failure as CoreFailure, FirstFailure, PartitionId, RunId};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use super::act::Waits;
use super::dead_letter::{DeadLetterWriter, Letter};
use super::handle::Progress;
use super::poll::Poller;
use crate::record::Record;
use crate::unit::{Control, Grave, Judged, Retried, Retries};

/// How soon retries go on after one that panicked.
const PANIC_WAIT: Duration = Duration::from_secs(1);

impl Grave for DeadLetterWriter {
    fn bury(
        &self,
        record: Record,
        failure: CoreFailure,
        attempts: u32,
        first: Option<FirstFailure>,
    ) -> BoxFuture<'_, Result<(), String>> {
        let letter = Letter {
            record,
            failure,
            attempts,
            first,
        };
        Box::pin(async move { self.put(&letter).await })
    }
}

impl Poller {
    /// Parks a record in the background and reports to the engine.
    pub(super) fn park(&self, recovery: RunId, partition: PartitionId, waits: Waits) {
        let Some(parking) = self.dispatcher.parking.clone() else {
            return;
        };
        let mailbox = self.mailbox.clone();
        let work = async move {
            let Waits {
                record,
                failure,
                attempts,
                first,
            } = waits;
            let judged = Judged {
                failure,
                in_place: false,
            };
            let parking = parking.park(record, judged, attempts, first);
            let parked = AssertUnwindSafe(parking).catch_unwind();
            let parked = parked
                .await
                .unwrap_or_else(|_| Err("parking a record panicked".to_owned()));
            if let Ok(Some(at)) = parked {
                mailbox.send(Event::RetryAt { partition, at });
            }
            let result = parked.map(drop);
            mailbox.send(Event::Recovered { recovery, result });
        };
        self.dispatcher
            .tasks
            .spawn_on(work, &self.dispatcher.runtime);
    }

    /// Retries what is due in a partition.
    pub(super) fn retry(&mut self, run: RunId, partition: PartitionId) {
        let (Some(parking), Some(grave)) = (self.dispatcher.parking.clone(), &self.dead_letters)
        else {
            return;
        };
        let Some((topic, number)) = self.partitions.name(partition).cloned() else {
            return;
        };
        let control = Arc::new(Control::default());
        let dispatcher = &mut self.dispatcher;
        dispatcher.runs.insert(run, Arc::clone(&control));
        let retries = Retries {
            topic,
            partition: number,
            lanes: dispatcher.lanes,
            handler: Arc::clone(&dispatcher.handler),
            sink: Box::new(Progress {
                run,
                partition,
                mailbox: self.mailbox.clone(),
                verdicts: Arc::clone(&dispatcher.verdicts),
                policies: dispatcher.policies.clone(),
            }),
            control: Arc::clone(&control),
            grave: Arc::new(grave.clone()),
        };
        let mailbox = self.mailbox.clone();
        let panicked = self.clock.now() + PANIC_WAIT;
        let verdicts = Arc::clone(&dispatcher.verdicts);
        let work = async move {
            let cancelled = control.cancelled();
            let retrying = AssertUnwindSafe(parking.retry(&retries)).catch_unwind();
            let retried = tokio::select! {
                biased;
                retried = retrying => retried.unwrap_or_else(|_| after_panic(panicked)),
                () = cancelled => Retried::default(),
            };
            let failure = retried
                .failure
                .map(|failure| super::handle::judged(&failure, verdicts.judge(&failure)));
            mailbox.send(Event::Retried {
                run,
                next: retried.next,
                failure,
                problem: retried.problem,
            });
        };
        dispatcher.tasks.spawn_on(work, &dispatcher.runtime);
    }

    /// Tells the place where records are parked whose they are now.
    pub(super) fn tell_parking(&self, named: &[super::consumer::Named], assigned: bool) {
        let Some(parking) = &self.dispatcher.parking else {
            return;
        };
        for (topic, partition) in named {
            if assigned {
                parking.assigned(topic, *partition);
            } else {
                parking.revoked(topic, *partition);
            }
        }
    }
}

fn after_panic(next: Timestamp) -> Retried {
    Retried {
        next: Some(next),
        failure: None,
        problem: Some("retrying parked records panicked".to_owned()),
    }
}
