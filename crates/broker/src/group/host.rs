//! What the machine of groups needs around it.

use std::convert::Infallible;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use kafka_protocol::protocol::StrBytes;

use super::machine::{Machine, Request};
use super::{Config, GroupConfig};
use crate::coordinator::{Host, Now, Token};
use crate::store::Store;

#[derive(Debug, Clone)]
pub(super) struct GroupHost {
    pub(super) config: Config,
    pub(super) store: Arc<Store>,
}

impl Host for GroupHost {
    type Machine = Machine;

    const NAME: &'static str = "groups";

    fn machine(&self, now: Now) -> Machine {
        let mut machine = Machine::new(self.config.clone(), now);
        // Every shard learns of every group: there are few with times of their own.
        for (group, own) in self.store.group_configs() {
            match GroupConfig::new(own, self.config.consumer) {
                Ok(config) => {
                    machine.set_timeouts(StrBytes::from_string(group), Some(config.timeouts));
                }
                Err(error) => {
                    tracing::warn!(group, %error, "settings of a group do not fit those of the broker, which it has instead");
                }
            }
        }
        machine
    }

    /// A crash may have come between the deletion of a topic and that of its offsets.
    fn caught_up(&self, now: Now, machine: &mut Machine) {
        let gone: Vec<_> = machine
            .committed_topics()
            .into_iter()
            .filter(|topic| self.store.topic(topic).is_none())
            .collect();
        if !gone.is_empty() {
            machine.on_request(now, Token(0), Request::ForgetTopics(gone));
        }
    }

    fn act(&self, action: Infallible) -> BoxFuture<'static, Option<Request>> {
        match action {}
    }

    fn snapshot_bytes(&self) -> u64 {
        self.config.snapshot_bytes
    }

    fn queue_max(&self) -> usize {
        self.config.queue_max
    }
}
