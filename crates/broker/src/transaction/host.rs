//! What the machine of transactions needs around it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use super::Config;
use super::machine::{Action, Machine, Request};
use super::participants::Participants;
use crate::coordinator::{Host, Now, Verdict};

#[derive(Debug, Clone)]
pub(super) struct TransactionHost {
    pub(super) config: Config,
    pub(super) participants: Participants,
    pub(super) ends: Arc<Ends>,
}

/// How many transactions ended how; those that a start takes up again count anew.
#[derive(Debug, Default)]
pub(crate) struct Ends {
    committed: AtomicU64,
    aborted: AtomicU64,
}

impl Ends {
    fn count(&self, verdict: Verdict) {
        let counter = match verdict {
            Verdict::Commit => &self.committed,
            Verdict::Abort => &self.aborted,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    /// By the outcome's name.
    pub(crate) fn read(&self) -> [(&'static str, u64); 2] {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        [
            ("committed", read(&self.committed)),
            ("aborted", read(&self.aborted)),
        ]
    }
}

impl Host for TransactionHost {
    type Machine = Machine;

    const NAME: &'static str = "transactions";

    fn machine(&self, now: Now) -> Machine {
        Machine::new(self.config.clone(), now)
    }

    fn act(&self, action: Action) -> BoxFuture<'static, Option<Request>> {
        match action {
            Action::Admit {
                token,
                producer,
                partitions,
            } => {
                let admitted = self.participants.admit(producer, &partitions);
                admitted
                    .map(move |()| Some(Request::Admitted(token)))
                    .boxed()
            }
            Action::End {
                transactional_id,
                producer,
                verdict,
                partitions,
            } => {
                self.ends.count(verdict);
                let ended = self.participants.end(producer, verdict, partitions);
                let done = Request::Ended {
                    transactional_id,
                    producer,
                };
                ended.map(move |()| Some(done)).boxed()
            }
        }
    }

    fn snapshot_bytes(&self) -> u64 {
        self.config.snapshot_bytes
    }

    fn queue_max(&self) -> usize {
        self.config.queue_max
    }
}
