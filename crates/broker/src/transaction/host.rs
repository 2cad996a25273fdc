//! What the machine of transactions needs around it.

use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use super::Config;
use super::machine::{Action, Machine, Request};
use super::participants::Participants;
use crate::coordinator::{Host, Now};

#[derive(Debug, Clone)]
pub(super) struct TransactionHost {
    pub(super) config: Config,
    pub(super) participants: Participants,
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
