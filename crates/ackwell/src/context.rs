//! What an extractor can see, at the record and at the start.

use std::any::{Any, TypeId};
use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use prometheus_client::metrics::counter::Counter;

use crate::extensions::Extensions;
use crate::listener::{AckMode, ListenerHandle, OnUndecodable, WeakHandle};
use crate::record::Record;
use crate::unit::UnitOfWork;

/// One record on its way into a handler: what [`FromRecord`](crate::FromRecord) takes from.
#[derive(Debug)]
pub struct Context {
    record: Record,
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
    pub(crate) undecodable: Counter,
    /// `None` outside an app.
    pub(crate) listener: Option<WeakHandle>,
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
            attempt,
            extensions,
            shared,
        }
    }

    /// The same for another record of the run.
    pub(crate) fn turn_to(&mut self, record: Record, attempt: u32) {
        self.record = record;
        self.attempt = attempt;
        self.extensions.clear();
    }

    /// The record.
    pub fn record(&self) -> &Record {
        &self.record
    }

    /// The listener, to seek, pause or look; `None` outside an app.
    pub fn listener(&self) -> Option<ListenerHandle> {
        self.shared.listener.as_ref()?.upgrade()
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
    problem: Option<SetupError>,
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
            problem: None,
        }
    }

    /// For a listener with this ack mode.
    pub(crate) fn with_ack_mode(self, ack_mode: AckMode) -> Self {
        Self { ack_mode, ..self }
    }

    /// The handler acknowledges its records.
    pub(crate) fn acknowledges(&mut self) -> Result<(), SetupError> {
        if !self.ack_mode.is_manual() {
            let what = "its handler asks for `Ack`, but its ack mode settles a record when the handler returns";
            return Err(SetupError::new(what)
                .mend("add `.ack_mode(AckMode::Manual)`, or remove the argument"));
        }
        if std::mem::replace(&mut self.takes_ack, true) {
            return Err(SetupError::new("its handler asks for `Ack` twice")
                .mend("ask once; an acknowledgement is given once"));
        }
        Ok(())
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
        if manual && !self.takes_ack {
            let what = "its ack mode is manual, but its handler does not ask for `Ack`: no record would be settled";
            return Err(SetupError::new(what)
                .mend("add an argument `ack: Ack`, or use `AckMode::Record` or `AckMode::Batch`"));
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
