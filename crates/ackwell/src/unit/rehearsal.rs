//! A handler and its unit of work without a container: for tests and measurements.

use std::any::{Any, TypeId};
use std::collections::HashMap;
use std::sync::Arc;

use super::{Control, OneByOne, ProgressSink, Run, UnitOfWork};
use crate::batch::BatchHandler;
use crate::context::{Setup, SetupError, Shared, States};
use crate::failure::Failure;
use crate::handler::{Erased, Handler, Typed, TypedBatch};
use crate::record::Record;

/// A handler that is given records as a listener would be, with no broker in sight.
pub struct Rehearsal {
    handler: Arc<dyn crate::container::RecordHandler>,
    unit: Arc<dyn UnitOfWork>,
    group: Arc<str>,
}

/// How the records of a rehearsal ended.
#[derive(Debug)]
pub struct Rehearsed {
    /// How many were settled, duplicates included.
    pub settled: usize,
    /// How many were recognised as handled before.
    pub duplicates: usize,
    /// Why the record behind the settled ones failed.
    pub failure: Option<Failure>,
}

impl Rehearsal {
    /// Prepares `handler` in consumer group `group`, with `state` as the app's state.
    ///
    /// # Errors
    /// When an extractor lacks something, as at an app's start.
    pub fn new<H, A, T>(group: &str, state: T, handler: H) -> Result<Self, SetupError>
    where
        H: Handler<A>,
        A: 'static,
        T: Clone + Send + Sync + 'static,
    {
        Self::of(group, state, &Typed::new(handler))
    }

    /// The same for a handler that takes lists.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn of_batches<H, A, T>(group: &str, state: T, handler: H) -> Result<Self, SetupError>
    where
        H: BatchHandler<A>,
        A: 'static,
        T: Clone + Send + Sync + 'static,
    {
        Self::of(group, state, &TypedBatch::new(handler))
    }

    fn of<T>(group: &str, state: T, handler: &dyn Erased) -> Result<Self, SetupError>
    where
        T: Clone + Send + Sync + 'static,
    {
        let values: HashMap<TypeId, Box<dyn Any + Send + Sync>> =
            HashMap::from([(TypeId::of::<T>(), Box::new(state) as _)]);
        let states = States::from_values(values);
        let mut setup = Setup::new("rehearsal", group, &states);
        handler.prepare(&mut setup)?;
        let unit = setup.finish()?.unwrap_or_else(|| Arc::new(OneByOne));
        let group: Arc<str> = group.into();
        let handler = handler.bind(Arc::new(Shared {
            group: Arc::clone(&group),
            states,
            on_undecodable: crate::listener::OnUndecodable::default(),
            on_unknown_event: crate::listener::OnUndecodable::default(),
            undecodable: prometheus_client::metrics::counter::Counter::default(),
        }));
        Ok(Self {
            handler,
            unit,
            group,
        })
    }

    /// Hands over `records` as one run, at their first attempt.
    ///
    /// # Cancel safety
    /// Dropping the future is what a listener does to a run that outlasts its drain limit.
    pub async fn deliver(&self, records: Vec<Record>) -> Rehearsed {
        let handler = Arc::clone(&self.handler);
        let control = Arc::new(Control::default());
        let mut run = Run::new(
            Arc::clone(&self.group),
            handler,
            Box::new(Unheard),
            control,
            records,
            1,
        );
        self.unit.carry_out(&mut run).await;
        let ended = run.finish();
        let (settled, duplicates, failure) = (ended.settled, ended.duplicates, ended.failure);
        Rehearsed {
            settled,
            duplicates,
            failure,
        }
    }
}

impl std::fmt::Debug for Rehearsal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Rehearsal")
            .field("group", &self.group)
            .finish_non_exhaustive()
    }
}

struct Unheard;

impl ProgressSink for Unheard {
    fn progress(&self, _count: usize) {}
}
