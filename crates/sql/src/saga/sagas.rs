//! Starting sagas, and moving them.

use std::fmt;
use std::future::Future;
use std::sync::Arc;

use ackwell::Classify;
use ackwell::core::saga::{
    Cause, Decision, Happening, Input, Move, Nothing, Phase, Plan, PlanError, Refusal, Resolution,
    Status,
};
use jiff::Timestamp;
use serde::Serialize;
use serde::de::DeserializeOwned;
use uuid::Uuid;

use super::alarm::Alarm;
use super::declare::{Declaration, Declared};
use super::monitor::Monitor;
use super::observe::Counted;
use super::rows::{self, Loaded, Wait};
use crate::database::Database;
use crate::error::Error;
use crate::tx::Tx;

/// A kind of saga: its steps, its data, and what else belongs to its moves.
pub trait Saga: Send + Sync + Sized + 'static {
    /// The name space of the ids. Part of every id: never change it.
    const IDS: Uuid;

    /// What the commands are made from. It is stored as JSON when the saga starts, and stays as it is; a
    /// newer program must be able to read what an older one wrote.
    type Data: Serialize + DeserializeOwned + Send + Sync + 'static;

    /// What [`changed`](Saga::changed) fails with.
    type Error: From<Error> + Classify + std::error::Error + Send + Sync + 'static;

    /// Its steps.
    fn declare(&self) -> Declaration<Self::Data>;

    /// Does what belongs to a move in the service's own tables, in the same transaction. It is called
    /// once for each move, whoever caused it, also for a deadline that nobody waits for.
    ///
    /// By default nothing.
    ///
    /// # Errors
    /// Takes the move back.
    fn changed(
        &self,
        tx: &mut Tx,
        change: &Change<'_, Self::Data>,
    ) -> impl Future<Output = Result<(), Self::Error>> + Send {
        let _ = (tx, change);
        async { Ok(()) }
    }
}

/// A move of a saga.
#[derive(Debug)]
#[non_exhaustive]
pub struct Change<'a, D> {
    /// Whose.
    pub saga_id: Uuid,
    /// Its business key.
    pub key: &'a str,
    /// What its commands are made from.
    pub data: &'a D,
    /// Its declaration.
    pub plan: &'a Plan,
    /// What happened.
    pub happening: Happening,
    /// What it did before; `None` when it starts.
    pub before: Option<Phase>,
    /// What it does now.
    pub now: Phase,
    /// Why it takes back or is in review; empty while it runs.
    pub reason: &'a str,
}

impl<D> Change<'_, D> {
    /// Whether it has just come to this status.
    pub fn is_now(&self, status: Status) -> bool {
        self.now.status() == status && self.before.map(Phase::status) != Some(status)
    }
}

/// What starting a saga did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Started {
    /// It began.
    New(Uuid),
    /// It had begun before; nothing was done, whatever the data.
    Before(Uuid),
}

/// What became of what a saga was told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// It moved, and has this status now.
    Moved(Status),
    /// Nothing changed.
    Nothing(Nothing),
    /// It may not be.
    Refused(Refusal),
    /// The type of event is no reply to any step.
    NoReply,
    /// There is no such saga, or no longer: finished ones are forgotten after
    /// [their retention](super::Monitor::retention). It is counted as `ackwell_saga_unknown`.
    Unknown,
}

/// Sagas of one kind; cheap to clone. Give it to the app as state, and its
/// [`monitor`](Sagas::monitor) as a service.
pub struct Sagas<S: Saga>(Arc<Inner<S>>);

struct Inner<S: Saga> {
    saga: S,
    declared: Declared<S::Data>,
    alarm: Alarm,
    counted: Counted,
}

impl<S: Saga> Sagas<S> {
    /// Checks the declaration.
    ///
    /// # Errors
    /// All that is wrong with it, with steps and mends.
    pub fn new(saga: S) -> Result<Self, PlanError> {
        let declared = saga.declare().checked()?;
        Ok(Self(Arc::new(Inner {
            saga,
            declared,
            alarm: Alarm::default(),
            counted: Counted::default(),
        })))
    }

    /// The id of the saga of a business key. It is derived, so a key has one saga whatever is
    /// delivered again.
    pub fn id(key: &str) -> Uuid {
        Uuid::new_v5(&S::IDS, key.as_bytes())
    }

    /// The checked declaration: its steps, its drawings.
    pub fn plan(&self) -> &Plan {
        &self.0.declared.plan
    }

    /// The service that fires deadlines. Run one in each instance: a deadline fires once. Tell it who
    /// reads the replies ([`Monitor::replies`]), or it fires by the clock, also over replies that wait to be read.
    pub fn monitor(&self, database: Database) -> Monitor<S> {
        Monitor::new(self.clone(), database)
    }

    /// Starts the saga of a business key: its state and its first command are part of the
    /// transaction. Started again, it changes nothing.
    ///
    /// # Errors
    /// Those of [`Tx::execute`] and [`Tx::emit`], and of [`Saga::changed`].
    pub async fn start(&self, tx: &mut Tx, key: &str, data: &S::Data) -> Result<Started, S::Error> {
        let (saga_id, at) = (Self::id(key), Timestamp::now());
        let first = self.plan().begin(rows::to_core(at));
        let json = serde_json::to_string(data)
            .map_err(|error| Error::usage("writing the data of a saga").because(error))?;
        let inserted = rows::insert(tx, self.plan(), saga_id, key, json, &first, at).await?;
        let Some(begun) = inserted else {
            return Ok(Started::Before(saga_id));
        };
        self.carry_out(tx, &begun, None, first, data, "").await?;
        Ok(Started::New(saga_id))
    }

    /// Tells a saga what a participant says: the type of the reply, and why, where it says so.
    ///
    /// To be called in the listener that reads the reply, with its transaction. A reply that is late,
    /// early or repeated is not an error: [the tables](ackwell::core::saga) say what it does.
    ///
    /// # Errors
    /// Those of [`start`](Self::start); a conflict when another instance moves the saga at the same
    /// time, which the listener's retry resolves.
    pub async fn reply(
        &self,
        tx: &mut Tx,
        saga_id: Uuid,
        event_type: &str,
        reason: Option<&str>,
    ) -> Result<Answer, S::Error> {
        match self.plan().meaning(event_type) {
            None => Ok(Answer::NoReply),
            Some((step, reply)) => {
                let input = Input::Reply(step, reply);
                self.tell(tx, saga_id, input, reason, Wait::ForThem).await
            }
        }
    }

    /// What the commands of a saga are made from, to hold a reply against it.
    ///
    /// # Errors
    /// Those of [`Tx::query`]; and when a newer program can't read what an older one wrote.
    pub async fn data(&self, tx: &mut Tx, saga_id: Uuid) -> Result<Option<S::Data>, S::Error> {
        let loaded = rows::load(tx, self.plan(), saga_id, Wait::ForThem).await?;
        Ok(loaded.map(|saga| data(&saga)).transpose()?)
    }

    /// Asks for a saga to be taken back.
    ///
    /// # Errors
    /// Those of [`reply`](Self::reply).
    pub async fn cancel(
        &self,
        tx: &mut Tx,
        saga_id: Uuid,
        reason: &str,
    ) -> Result<Answer, S::Error> {
        let reason = Some(reason);
        self.tell(tx, saga_id, Input::CancelAsked, reason, Wait::ForThem)
            .await
    }

    /// Decides by hand about a saga in review, with a note for the history.
    ///
    /// # Errors
    /// Those of [`reply`](Self::reply).
    pub async fn resolve(
        &self,
        tx: &mut Tx,
        saga_id: Uuid,
        resolution: Resolution,
        note: &str,
    ) -> Result<Answer, S::Error> {
        let input = Input::Resolved(resolution);
        self.tell(tx, saga_id, input, Some(note), Wait::ForThem)
            .await
    }

    /// Fires the deadline of a saga, if it was `handled` or earlier and nobody else is at it.
    pub(super) async fn deadline_passed(
        &self,
        tx: &mut Tx,
        saga_id: Uuid,
        handled: Timestamp,
    ) -> Result<Answer, S::Error> {
        let input = Input::DeadlinePassed(rows::to_core(handled));
        self.tell(tx, saga_id, input, None, Wait::Not).await
    }

    async fn tell(
        &self,
        tx: &mut Tx,
        saga_id: Uuid,
        input: Input,
        said: Option<&str>,
        wait: Wait,
    ) -> Result<Answer, S::Error> {
        let Some(before) = rows::load(tx, self.plan(), saga_id, wait).await? else {
            // A monitor finds nothing when somebody else is at it.
            if wait == Wait::ForThem {
                self.counted().unknown();
            }
            return Ok(Answer::Unknown);
        };
        let at = Timestamp::now();
        let decision = self.plan().decide(&before.state, input, rows::to_core(at));
        let next = match decision {
            Decision::Move(next) => next,
            Decision::Nothing(why) => return Ok(Answer::Nothing(why)),
            Decision::Refused(why) => return Ok(Answer::Refused(why)),
        };
        let reason = match next.cause {
            Some(cause) => Some(self.told(cause, &before, said)),
            None => before.reason.clone(),
        };
        let reason = reason.as_deref();
        rows::update(tx, self.plan(), &before, &next, reason, at).await?;
        let data = data(&before)?;
        let status = next.state.status();
        let phase = Some(before.state.phase());
        self.carry_out(tx, &before, phase, next, &data, reason.unwrap_or_default())
            .await?;
        Ok(Answer::Moved(status))
    }

    /// Emits the commands of a move and does what else belongs to it.
    async fn carry_out(
        &self,
        tx: &mut Tx,
        saga: &Loaded,
        before: Option<Phase>,
        next: Move,
        data: &S::Data,
        reason: &str,
    ) -> Result<(), S::Error> {
        for command in &next.commands {
            let trace = tx.traceparent().map(str::to_owned);
            let declared = &self.0.declared;
            let event = declared.make(*command, data, reason, trace.as_deref());
            tx.emit_encoded(event).await?;
        }
        let change = Change {
            saga_id: saga.saga_id,
            key: &saga.key,
            data,
            plan: self.plan(),
            happening: next.happening,
            before,
            now: next.state.phase(),
            reason,
        };
        self.0.saga.changed(tx, &change).await?;
        self.0
            .counted
            .moved(before.map(Phase::status), next.state.status());
        if let Some(deadline) = next.state.deadline() {
            self.0.alarm.set(deadline.as_millis());
        }
        Ok(())
    }

    fn told(&self, cause: Cause, before: &Loaded, said: Option<&str>) -> String {
        let said = said.filter(|said| !said.is_empty());
        let name = |step| self.plan().step_name(step);
        match cause {
            Cause::Refused(step) => {
                said.map_or_else(|| format!("{}: refused", name(step)), str::to_owned)
            }
            Cause::TimedOut(step) => format!("{}: no answer in time", name(step)),
            Cause::UndoGivenUp(step) => format!(
                "{}: could not be taken back, no answer after {} attempts ({})",
                name(step),
                before.state.phase().attempt(),
                before.reason.as_deref().unwrap_or("no reason is known")
            ),
            Cause::CancelAsked => said.unwrap_or("cancelled").to_owned(),
            Cause::Resolved => said.unwrap_or("decided by hand").to_owned(),
        }
    }

    pub(super) fn alarm(&self) -> &Alarm {
        &self.0.alarm
    }

    pub(super) fn counted(&self) -> &Counted {
        &self.0.counted
    }
}

fn data<D: DeserializeOwned>(saga: &Loaded) -> Result<D, Error> {
    serde_json::from_str(&saga.data).map_err(|error| {
        Error::usage(format!("reading the data of saga {}", saga.saga_id)).because(error)
    })
}

impl<S: Saga> Clone for Sagas<S> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<S: Saga> fmt::Debug for Sagas<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Sagas").field(&self.plan().name()).finish()
    }
}
