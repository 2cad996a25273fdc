//! A plan, with what makes its commands.

use std::fmt;
use std::time::Duration;

use ackwell::core::RetryPolicy;
use ackwell::core::saga::{self as plan, Plan, PlanError, Which};
use ackwell::{EncodedEvent, Event};

use crate::error::{Error, Result};

/// Makes a command from a saga's data and the reason for which it is taken back; the third is the trace.
type Make<D> = Box<dyn Fn(&D, &str, Option<&str>) -> Result<EncodedEvent> + Send + Sync>;

/// One step of a [`Declaration`]: see [`ackwell::core::saga::Step`], whose words these are.
#[must_use]
pub struct Step<D> {
    step: plan::Step,
    commands: Commands<D>,
}

struct Commands<D> {
    /// The command, or a step that has none and is refused as a part of its plan.
    go: Option<Make<D>>,
    back: Option<Make<D>>,
}

impl<D: 'static> Step<D> {
    /// A step, named for people: in histories, drawings and reasons.
    pub const fn named(name: &'static str) -> Self {
        let commands = Commands {
            go: None,
            back: None,
        };
        Self {
            step: plan::Step::named(name),
            commands,
        }
    }

    /// The command that does it: its type, and how it is made. It may be sent more than once, each time
    /// in the same words, so a participant must know it again.
    pub fn sends<E: Event>(
        mut self,
        event_type: &'static str,
        make: impl Fn(&D) -> E + Send + Sync + 'static,
    ) -> Self {
        self.step = self.step.sends(event_type);
        self.commands.go = Some(Box::new(move |data, _, trace| {
            encode(event_type, &make(data), trace)
        }));
        self
    }

    /// A type of reply that says that it was done.
    pub fn done_on(mut self, event_type: &'static str) -> Self {
        self.step = self.step.done_on(event_type);
        self
    }

    /// A type of reply that says that it was not, and won't be, done.
    pub fn refused_on(mut self, event_type: &'static str) -> Self {
        self.step = self.step.refused_on(event_type);
        self
    }

    /// The command that takes it back, made from the data and the reason. It may be sent more than once,
    /// and before the step's own command was carried out.
    pub fn undone_by<E: Event>(
        mut self,
        event_type: &'static str,
        make: impl Fn(&D, &str) -> E + Send + Sync + 'static,
    ) -> Self {
        self.step = self.step.undone_by(event_type);
        self.commands.back = Some(Box::new(move |data, reason, trace| {
            encode(event_type, &make(data, reason), trace)
        }));
        self
    }

    /// The type of the reply to [`undone_by`](Self::undone_by).
    pub fn undone_on(mut self, event_type: &'static str) -> Self {
        self.step = self.step.undone_on(event_type);
        self
    }

    /// It leaves nothing that would have to be taken back.
    pub fn nothing_to_undo(mut self) -> Self {
        self.step = self.step.nothing_to_undo();
        self
    }

    /// When its command is sent, the saga can't be cancelled any more.
    pub fn point_of_no_return(mut self) -> Self {
        self.step = self.step.point_of_no_return();
        self
    }

    /// How long to wait for a reply.
    pub fn within(mut self, timeout: Duration) -> Self {
        self.step = self.step.within(timeout);
        self
    }

    /// Without a reply in time, the saga takes back what it has done, this step included.
    pub fn or_compensate(mut self) -> Self {
        self.step = self.step.or_compensate();
        self
    }

    /// Without a reply in time, a person decides.
    pub fn or_review(mut self) -> Self {
        self.step = self.step.or_review();
        self
    }
}

/// A command of the declared type: the drawing, and whoever looks for the type, rely on it.
fn encode<E: Event>(declared: &str, event: &E, trace: Option<&str>) -> Result<EncodedEvent> {
    if event.event_type() != declared {
        return Err(Error::usage(format!(
            "making the command {declared}: it is a {}",
            event.event_type()
        )));
    }
    let encoded = EncodedEvent::with_trace(event, trace);
    encoded.map_err(|error| Error::usage(format!("making the command {declared}")).because(error))
}

/// The steps of a saga in order, with what makes their commands.
#[must_use]
pub struct Declaration<D> {
    draft: plan::Draft,
    commands: Vec<Commands<D>>,
}

impl<D: 'static> Declaration<D> {
    /// Begins a declaration. Several kinds of sagas in one database are told apart by the name.
    pub fn named(name: &'static str) -> Self {
        Self {
            draft: Plan::named(name),
            commands: Vec::new(),
        }
    }

    /// The next step.
    pub fn step(mut self, step: Step<D>) -> Self {
        self.draft = self.draft.step(step.step);
        self.commands.push(step.commands);
        self
    }

    /// When a compensation that is not answered is sent again, and after how many attempts the saga goes
    /// to review; see [`Draft::compensation`](plan::Draft::compensation) for the default.
    pub fn compensation(mut self, policy: RetryPolicy) -> Self {
        self.draft = self.draft.compensation(policy);
        self
    }

    /// The plan alone: to walk its paths in a test, or to draw it.
    ///
    /// # Errors
    /// What is wrong with it, with steps and mends.
    pub fn plan(self) -> Result<Plan, PlanError> {
        self.draft.checked()
    }

    pub(super) fn checked(self) -> Result<Declared<D>, PlanError> {
        Ok(Declared {
            plan: self.draft.checked()?,
            commands: self.commands,
        })
    }
}

impl<D> fmt::Debug for Step<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.step.fmt(f)
    }
}

impl<D> fmt::Debug for Declaration<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.draft.fmt(f)
    }
}

/// A sound declaration.
pub(super) struct Declared<D> {
    pub(super) plan: Plan,
    commands: Vec<Commands<D>>,
}

impl<D> Declared<D> {
    pub(super) fn make(
        &self,
        command: plan::Command,
        data: &D,
        reason: &str,
        trace: Option<&str>,
    ) -> Result<EncodedEvent> {
        let commands = self.commands.get(command.step.get());
        let make = commands.and_then(|commands| match command.which {
            Which::Do => commands.go.as_ref(),
            Which::Undo => commands.back.as_ref(),
        });
        match make {
            Some(make) => make(data, reason, trace),
            // A sound plan has both wherever it sends them.
            None => Err(Error::usage("making a command that was not declared")),
        }
    }
}
