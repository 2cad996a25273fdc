//! A handler and its unit of work without a container: for tests and measurements.

use std::any::{Any, TypeId};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use ackwell_core::engine::{Failure as CoreFailure, FirstFailure};
use futures_util::future::BoxFuture;

use super::{
    Control, Grave, Judged, OneByOne, Parking, ProgressSink, Retried, Retries, Run, UnitOfWork,
};
use crate::batch::BatchHandler;
use crate::context::{Setup, SetupError, Shared, States};
use crate::failure::Failure;
use crate::handler::{Erased, Handler, Typed, TypedBatch};
use crate::record::Record;
use crate::retry::{Ordered, Retry};

/// A handler that is given records as a listener would be, with no broker in sight.
pub struct Rehearsal {
    handler: Arc<dyn crate::container::RecordHandler>,
    unit: Arc<dyn UnitOfWork>,
    parking: Option<Arc<dyn Parking>>,
    buried: Arc<Buried>,
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
    /// Why it can't go on now, although nothing failed.
    pub held: Option<String>,
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
        Self::of(group, state, &Typed::new(handler), None)
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
        Self::of(group, state, &TypedBatch::new(handler), None)
    }

    /// With ordered retry: partitions are [assigned](Self::assign), and what is due is
    /// [retried](Self::retry).
    ///
    /// # Errors
    /// As [`new`](Self::new), and when the place for parked records is missing.
    pub fn ordered<H, A, T>(
        group: &str,
        state: T,
        handler: H,
        ordered: Ordered,
    ) -> Result<Self, SetupError>
    where
        H: Handler<A>,
        A: 'static,
        T: Clone + Send + Sync + 'static,
    {
        Self::of(group, state, &Typed::new(handler), Some(ordered))
    }

    fn of<T>(
        group: &str,
        state: T,
        handler: &dyn Erased,
        ordered: Option<Ordered>,
    ) -> Result<Self, SetupError>
    where
        T: Clone + Send + Sync + 'static,
    {
        let values: HashMap<TypeId, Box<dyn Any + Send + Sync>> =
            HashMap::from([(TypeId::of::<T>(), Box::new(state) as _)]);
        let states = States::from_values(values);
        let mut setup = Setup::new("rehearsal", group, &states);
        handler.prepare(&mut setup)?;
        let recovery = crate::container::Limits::default().recovery;
        let parking = match ordered {
            Some(ordered) => Retry::from(ordered).parking(&setup, &recovery)?,
            None => None,
        };
        let unit = setup.finish()?.unwrap_or_else(|| Arc::new(OneByOne));
        let unit = match &parking {
            Some(parking) => Arc::clone(parking) as Arc<dyn UnitOfWork>,
            None => unit,
        };
        let group: Arc<str> = group.into();
        let handler = handler.bind(Arc::new(Shared {
            group: Arc::clone(&group),
            states,
            on_undecodable: crate::listener::OnUndecodable::default(),
            listener: None,
            on_unknown_event: crate::listener::OnUndecodable::default(),
            undecodable: prometheus_client::metrics::counter::Counter::default(),
        }));
        Ok(Self {
            handler,
            unit,
            parking,
            buried: Arc::default(),
            group,
        })
    }

    /// Gives a partition to this rehearsal, as a rebalance does.
    pub fn assign(&self, topic: &str, partition: i32) {
        if let Some(parking) = &self.parking {
            parking.assigned(topic, partition);
        }
    }

    /// Retries what is due in a partition.
    pub async fn retry(&self, topic: &str, partition: i32) -> Retried {
        let Some(parking) = &self.parking else {
            return Retried::default();
        };
        let retries = Retries {
            topic: topic.into(),
            partition,
            lanes: 1,
            handler: Arc::clone(&self.handler),
            sink: Box::new(Unheard),
            control: Arc::new(Control::default()),
            grave: Arc::clone(&self.buried) as Arc<dyn Grave>,
        };
        parking.retry(&retries).await
    }

    /// Offsets of the records that were given up, in order.
    pub fn dead_letters(&self) -> Vec<i64> {
        self.buried.lock().clone()
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
        Rehearsed {
            settled: ended.settled,
            duplicates: ended.duplicates,
            failure: ended.failure,
            held: ended.held,
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

    fn judge(&self, failure: &Failure) -> Judged {
        Judged {
            failure: CoreFailure::new(failure.class(), failure.reason()),
            in_place: false,
        }
    }
}

/// Remembers what was given up.
#[derive(Default)]
struct Buried(Mutex<Vec<i64>>);

impl Buried {
    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<i64>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Grave for Buried {
    fn bury(
        &self,
        record: Record,
        _failure: CoreFailure,
        _attempts: u32,
        _first: Option<FirstFailure>,
    ) -> BoxFuture<'_, Result<(), String>> {
        self.lock().push(record.offset());
        Box::pin(std::future::ready(Ok(())))
    }
}
