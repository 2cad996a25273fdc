//! What an extractor can see, at the record and at the start.

use std::any::{Any, TypeId};
use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use prometheus_client::metrics::counter::Counter;

use crate::extensions::Extensions;
use crate::extract::UnknownEvent;
use crate::failure::{Class, Failure};
use crate::listener::{AckMode, ListenerHandle, OnUndecodable, WeakHandle};
use crate::record::Record;
use crate::unit::UnitOfWork;

/// One record on its way into a handler: what [`FromRecord`](crate::FromRecord) takes from.
#[derive(Debug)]
pub struct Context {
    record: Record,
    /// All that the handler is given, if it takes batches.
    batch: Vec<Record>,
    attempt: u32,
    extensions: Extensions,
    shared: Arc<Shared>,
}

/// What all records of a listener share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) group: Arc<str>,
    pub(crate) states: States,
    pub(crate) on_undecodable: OnUndecodable,
    pub(crate) on_unknown_event: OnUndecodable,
    pub(crate) undecodable: Counter,
    /// `None` outside an app.
    pub(crate) listener: Option<WeakHandle>,
}

impl Shared {
    /// Extractors refuse what can't be decoded as permanent; the listener may see it otherwise.
    pub(crate) fn refused(&self, failure: Failure) -> Failure {
        if failure.class() != Class::Permanent {
            return failure;
        }
        self.undecodable.inc();
        let policy = if failure.find::<UnknownEvent>().is_some() {
            self.on_unknown_event
        } else {
            self.on_undecodable
        };
        match policy {
            OnUndecodable::DeadLetter => failure,
            OnUndecodable::Skip => failure.reclassified(Class::Skip),
            OnUndecodable::Stop => failure.reclassified(Class::Stop),
        }
    }
}

impl Context {
    pub(crate) fn new(
        record: Record,
        attempt: u32,
        extensions: Extensions,
        shared: Arc<Shared>,
    ) -> Self {
        Self {
            record,
            batch: Vec::new(),
            attempt,
            extensions,
            shared,
        }
    }

    /// What extractors beside a batch see: `records` is not empty.
    pub(crate) fn of_batch(
        records: Vec<Record>,
        attempt: u32,
        extensions: Extensions,
        shared: Arc<Shared>,
    ) -> Self {
        let first = records[0].clone();
        Self {
            batch: records,
            ..Self::new(first, attempt, extensions, shared)
        }
    }

    /// The same for another record of the run.
    pub(crate) fn turn_to(&mut self, record: &Record, attempt: u32) {
        self.record.clone_from(record);
        self.attempt = attempt;
        self.extensions.clear();
    }

    /// The record; of a batch, the first.
    pub fn record(&self) -> &Record {
        &self.record
    }

    /// The listener, to seek, pause or look; `None` outside an app.
    pub fn listener(&self) -> Option<ListenerHandle> {
        self.shared.listener.as_ref()?.upgrade()
    }

    /// The records that the handler is given: one, unless it takes batches.
    pub fn records(&self) -> &[Record] {
        if self.batch.is_empty() {
            std::slice::from_ref(&self.record)
        } else {
            &self.batch
        }
    }

    /// The listener's consumer group.
    pub fn group(&self) -> &str {
        &self.shared.group
    }

    /// Which attempt at this record it is, from 1.
    pub fn attempt(&self) -> u32 {
        self.attempt
    }

    /// A value given to [`App::state`](crate::App::state).
    pub fn state<T: 'static>(&self) -> Option<&T> {
        self.shared.states.get()
    }

    /// What the unit of work laid at hand for this record.
    pub fn extensions(&mut self) -> &mut Extensions {
        &mut self.extensions
    }
}

/// A listener about to start: extractors ask here for what they will need.
pub struct Setup<'a> {
    listener: &'a str,
    group: &'a str,
    states: &'a States,
    unit: Option<(TypeId, Arc<dyn UnitOfWork>)>,
    ack_mode: AckMode,
    takes_ack: bool,
    transactional: bool,
    problem: Option<SetupError>,
    /// What the handler at hand has asked for once and may not ask for twice.
    taken: Vec<TypeId>,
    /// Whether an extractor is asked that stands within a batch.
    in_batch: bool,
    /// The events that the handler at hand asks for.
    events: Vec<KnownEvents>,
}

/// The event types that an extractor decodes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct KnownEvents {
    /// The event's Rust type.
    pub(crate) name: &'static str,
    /// Empty if it does not list them.
    pub(crate) types: &'static [&'static str],
}

impl<'a> Setup<'a> {
    pub(crate) fn new(listener: &'a str, group: &'a str, states: &'a States) -> Self {
        Self {
            listener,
            group,
            states,
            unit: None,
            ack_mode: AckMode::default(),
            takes_ack: false,
            transactional: false,
            problem: None,
            taken: Vec::new(),
            in_batch: false,
            events: Vec::new(),
        }
    }

    /// Lets one handler ask for what it needs.
    pub(crate) fn handler(
        &mut self,
        prepare: impl FnOnce(&mut Self) -> Result<(), SetupError>,
    ) -> Result<(), SetupError> {
        self.taken.clear();
        self.takes_ack = false;
        let others = std::mem::take(&mut self.events);
        prepare(self)?;
        if self.ack_mode.is_manual() && !self.takes_ack {
            let what = "its ack mode is manual, but its handler does not ask for `Ack`: no record would be settled";
            return Err(SetupError::new(what)
                .mend("add an argument `ack: Ack`, or use `AckMode::Record` or `AckMode::Batch`"));
        }
        agree(&self.events)?;
        self.events.splice(0..0, others);
        Ok(())
    }

    /// Lets an extractor ask that stands within a batch.
    pub(crate) fn each_of_batch<T: crate::FromRecord>(&mut self) -> Result<(), SetupError> {
        self.in_batch = true;
        let prepared = T::prepare(self);
        self.in_batch = false;
        prepared
    }

    /// Notes that the handler asks for events of these types.
    pub(crate) fn knows(&mut self, events: KnownEvents) {
        self.events.push(events);
    }

    /// The events that its handlers ask for.
    pub(crate) fn known_events(&self) -> &[KnownEvents] {
        &self.events
    }

    /// For an extractor `T` of which a handler can have one only.
    ///
    /// # Errors
    /// When the handler has asked for it before.
    pub fn once<T: 'static>(&mut self) -> Result<(), SetupError> {
        let id = TypeId::of::<T>();
        if self.in_batch {
            let name = short_name::<T>();
            let what = format!("its handler asks for `{name}` of each record of a batch");
            return Err(SetupError::new(what)
                .mend("ask for it beside the batch, if it is there for batches at all"));
        }
        if self.taken.contains(&id) {
            let name = short_name::<T>();
            return Err(
                SetupError::new(format!("its handler asks for `{name}` twice"))
                    .mend("ask once, and pass it on"),
            );
        }
        self.taken.push(id);
        Ok(())
    }

    /// For a listener with this ack mode.
    pub(crate) fn with_ack_mode(self, ack_mode: AckMode) -> Self {
        Self { ack_mode, ..self }
    }

    /// The handler says by its outcome what becomes of each record.
    pub(crate) fn settles_by_outcomes(&self) -> Result<(), SetupError> {
        if self.ack_mode.is_manual() {
            let what =
                "its ack mode is manual, but a batch handler says by its outcomes what is settled";
            return Err(SetupError::new(what).mend(
                "use `AckMode::Record` or `AckMode::Batch`, or a handler of single records",
            ));
        }
        Ok(())
    }

    /// The handler acknowledges its records.
    pub(crate) fn acknowledges(&mut self) -> Result<(), SetupError> {
        if !self.ack_mode.is_manual() {
            let what = "its handler asks for `Ack`, but its ack mode settles a record when the handler returns";
            return Err(SetupError::new(what)
                .mend("add `.ack_mode(AckMode::Manual)`, or remove the argument"));
        }
        self.takes_ack = true;
        self.once::<crate::extract::Ack>()
    }

    /// The handler sends in a transaction of Kafka.
    pub(crate) fn transactional(&mut self) -> Result<(), SetupError> {
        self.transactional = true;
        self.once::<crate::transaction::Transaction>()
    }

    /// Whether one of its handlers sends in a transaction of Kafka.
    pub(crate) fn is_transactional(&self) -> bool {
        self.transactional
    }

    /// The listener's name.
    pub fn listener(&self) -> &str {
        self.listener
    }

    /// The listener's consumer group.
    pub fn group(&self) -> &str {
        self.group
    }

    /// A value given to [`App::state`](crate::App::state).
    pub fn state<T: 'static>(&self) -> Option<&T> {
        self.states.get()
    }

    /// How the listener's runs are carried out, for instance in a shared database transaction.
    /// Installing the same type again changes nothing; two different ones are a start-up error.
    pub fn unit_of_work<U: UnitOfWork>(&mut self, unit: Arc<U>) {
        match &self.unit {
            None => self.unit = Some((TypeId::of::<U>(), unit)),
            Some((installed, _)) if *installed == TypeId::of::<U>() => {}
            Some(_) => {
                self.problem = Some(
                    SetupError::new("two of its extractors bring different units of work")
                        .mend("use the extractors of one database in a handler"),
                );
            }
        }
    }

    /// Whether an extractor has brought a unit of work.
    pub fn has_unit_of_work(&self) -> bool {
        self.unit.is_some()
    }

    /// Whether the listener's runs are carried out by another unit of work than a `U`.
    pub fn has_other_unit_than<U: UnitOfWork>(&self) -> bool {
        let installed = self.unit.as_ref();
        installed.is_some_and(|(installed, _)| *installed != TypeId::of::<U>())
    }

    pub(crate) fn finish(self) -> Result<Option<Arc<dyn UnitOfWork>>, SetupError> {
        if let Some(problem) = self.problem {
            return Err(problem);
        }
        let (manual, unit) = (self.ack_mode.is_manual(), self.unit);
        if self.transactional && unit.is_some() {
            let what = "its handler asks for `Transaction` and for a transaction of a database, and no crash leaves both or neither";
            return Err(SetupError::new(what).mend(
                "use `Tx` and its outbox, with which events leave exactly if the database commits; or `Transaction` alone",
            ));
        }
        if manual && self.transactional {
            let what = "its handler asks for `Ack` and for `Transaction`, whose commit says that the record is done";
            return Err(SetupError::new(what).mend(
                "remove `Ack` and the manual ack mode; the position is committed in the transaction",
            ));
        }
        if manual && unit.is_some() {
            let what = "its handler asks for `Ack` and for a transaction, whose commit says that the record is done: one that is refused later would be taken for a duplicate";
            return Err(SetupError::new(what).mend(
                "remove `Ack` and use `AckMode::Record` or `AckMode::Batch`; the offset follows the transaction",
            ));
        }
        Ok(unit.map(|(_, unit)| unit))
    }
}

impl fmt::Debug for Setup<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Setup")
            .field("listener", &self.listener)
            .field("group", &self.group)
            .finish_non_exhaustive()
    }
}

/// A record has one event: a handler that asks for two that have no type in common would fail at
/// each.
fn agree(events: &[KnownEvents]) -> Result<(), SetupError> {
    let mut pairs = events.iter().zip(events.iter().skip(1));
    let apart = pairs.find(|(one, other)| {
        let listed = !one.types.is_empty() && !other.types.is_empty();
        listed && !one.types.iter().any(|known| other.types.contains(known))
    });
    match apart {
        None => Ok(()),
        Some((one, other)) => Err(SetupError::new(format!(
            "its handler asks for `Event<{}>` and `Event<{}>`, and no record is both",
            one.name, other.name
        ))
        .mend("write a handler for each, and join them with `.on_event(..)`")),
    }
}

/// A type's name without its path.
pub(crate) fn short_name<T>() -> &'static str {
    let name = std::any::type_name::<T>();
    let end = name.find('<').unwrap_or(name.len());
    let start = name[..end].rfind("::").map_or(0, |at| at + 2);
    &name[start..]
}

/// Something that a listener needs is missing at its start.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what}{}", .mend.as_ref().map(|mend| format!("; {mend}")).unwrap_or_default())]
pub struct SetupError {
    what: String,
    mend: Option<String>,
}

impl SetupError {
    /// `what` is missing or wrong.
    pub fn new(what: impl Into<String>) -> Self {
        Self {
            what: what.into(),
            mend: None,
        }
    }

    /// How to mend it, as an instruction: ``"add `.state(db)` to the App"``.
    #[must_use]
    pub fn mend(mut self, mend: impl Into<String>) -> Self {
        self.mend = Some(mend.into());
        self
    }

    /// The state `T` is missing.
    pub fn missing_state<T>() -> Self {
        let name = std::any::type_name::<T>();
        Self::new(format!(
            "it needs the state `{name}`, which the app does not have"
        ))
        .mend("add it with `App::state(..)`")
    }
}

/// Values by their type, shared by all handlers of an app.
#[derive(Clone, Default)]
pub(crate) struct States {
    values: Arc<HashMap<TypeId, Box<dyn Any + Send + Sync>>>,
}

impl States {
    pub(crate) fn from_values(values: HashMap<TypeId, Box<dyn Any + Send + Sync>>) -> Self {
        Self {
            values: Arc::new(values),
        }
    }

    pub(crate) fn get<T: 'static>(&self) -> Option<&T> {
        self.values.get(&TypeId::of::<T>())?.downcast_ref()
    }
}

impl fmt::Debug for States {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("States")
            .field("len", &self.values.len())
            .finish()
    }
}
