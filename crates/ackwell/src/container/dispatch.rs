//! A lane's waiting records go to a task as one run.

use std::collections::HashMap;
use std::sync::Arc;

use ackwell_core::engine::{PartitionId, RunId};
use tokio::runtime::Handle;
use tokio_util::task::TaskTracker;

use super::acks::Acks;
use super::handle;
use super::mailbox::Mailbox;
use super::observation::Observer;
use super::spec::RecordHandler;
use crate::failure::Verdicts;
use crate::listener::Filter;
use crate::record::Record;
use crate::unit::{Control, Parking, Run, UnitOfWork};

/// Starts, halts and cancels runs.
pub(super) struct Dispatcher {
    pub(super) group: Arc<str>,
    pub(super) handler: Arc<dyn RecordHandler>,
    pub(super) filter: Option<Filter>,
    pub(super) unit: Arc<dyn UnitOfWork>,
    pub(super) verdicts: Arc<Verdicts>,
    /// Where records of failing keys wait.
    pub(super) parking: Option<Arc<dyn Parking>>,
    /// For each policy in place whether it repeats anything; `None` where nothing is parked.
    pub(super) policies: Option<Arc<[bool]>>,
    /// Lanes of a partition.
    pub(super) lanes: usize,
    pub(super) observer: Arc<dyn Observer>,
    pub(super) mailbox: Mailbox,
    pub(super) runtime: Handle,
    pub(super) tasks: TaskTracker,
    pub(super) runs: HashMap<RunId, Arc<Control>>,
    /// In a manual ack mode, what waits for acknowledgements.
    pub(super) acks: Option<Acks>,
}

impl Dispatcher {
    pub(super) fn dispatch(
        &mut self,
        id: RunId,
        partition: PartitionId,
        attempt: u32,
        records: Vec<Record>,
    ) {
        let control = Arc::new(Control::default());
        self.runs.insert(id, Arc::clone(&control));
        let work = handle::Work {
            id,
            unit: Arc::clone(&self.unit),
            verdicts: Arc::clone(&self.verdicts),
            observer: Arc::clone(&self.observer),
            mailbox: self.mailbox.clone(),
            control: Arc::clone(&control),
            manual: self.acks.is_some(),
        };
        let sink = Box::new(handle::Progress {
            run: id,
            partition,
            mailbox: self.mailbox.clone(),
            verdicts: Arc::clone(&self.verdicts),
            policies: self.policies.clone(),
        });
        let group = Arc::clone(&self.group);
        let handler = Arc::clone(&self.handler);
        let acks = self.acks.as_mut().map(|acks| acks.open(id, records.len()));
        let run = Run::new(group, handler, sink, control, records, attempt);
        let run = run.acknowledged_at(acks).filtered(self.filter.clone());
        self.tasks.spawn_on(work.carry_out(run), &self.runtime);
    }

    pub(super) fn halt(&self, id: RunId) {
        if let Some(control) = self.runs.get(&id) {
            control.halt();
        }
    }

    pub(super) fn cancel(&self, id: RunId) {
        if let Some(control) = self.runs.get(&id) {
            control.cancel();
        }
    }

    pub(super) fn ended(&mut self, id: RunId) {
        self.runs.remove(&id);
    }
}
