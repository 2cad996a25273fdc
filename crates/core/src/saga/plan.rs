//! The declaration of a saga.

use std::fmt;
use std::time::Duration;

use super::check::{self, PlanError};
use crate::backoff::Policy;

/// The place of a step in its plan, from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StepNo(pub(super) usize);

impl StepNo {
    /// The place, from 0.
    pub const fn get(self) -> usize {
        self.0
    }
}

impl fmt::Display for StepNo {
    /// Counted from 1, for people.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0 + 1)
    }
}

/// What a participant says of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reply {
    /// Its command was carried out.
    Done,
    /// Its command was not, and won't be, carried out.
    Refused,
    /// Its compensation was carried out, or there was nothing to take back.
    Undone,
}

/// What happens when a step is not answered in time. In both cases its outcome is unknown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum OnTimeout {
    /// The saga takes back what it has done, this step included.
    Compensate,
    /// A person decides.
    Review,
}

/// How a step is taken back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Undo {
    pub(super) command: &'static str,
    pub(super) reply: Option<&'static str>,
}

/// One step: a command to one participant, the replies to it, and the way back.
#[derive(Debug, Clone, PartialEq)]
#[must_use]
pub struct Step {
    pub(super) name: &'static str,
    pub(super) command: Option<&'static str>,
    pub(super) done: Vec<&'static str>,
    pub(super) refused: Vec<&'static str>,
    pub(super) undo: Option<Undo>,
    pub(super) undone_before_undo: bool,
    pub(super) nothing_to_undo: bool,
    pub(super) no_return: bool,
    pub(super) timeout: Option<Duration>,
    pub(super) on_timeout: Option<OnTimeout>,
}

impl Step {
    /// A step, named for people: in histories, drawings and reasons.
    pub const fn named(name: &'static str) -> Self {
        Step {
            name,
            command: None,
            done: Vec::new(),
            refused: Vec::new(),
            undo: None,
            undone_before_undo: false,
            nothing_to_undo: false,
            no_return: false,
            timeout: None,
            on_timeout: None,
        }
    }

    /// The type of its command. It may be sent more than once, so a participant must know it again.
    pub fn sends(mut self, command: &'static str) -> Self {
        self.command = Some(command);
        self
    }

    /// A type of reply that says that it was done. There may be several.
    pub fn done_on(mut self, reply: &'static str) -> Self {
        self.done.push(reply);
        self
    }

    /// A type of reply that says that it was not and won't be done. There may be several, or none
    /// for a step that can't be refused.
    pub fn refused_on(mut self, reply: &'static str) -> Self {
        self.refused.push(reply);
        self
    }

    /// The type of the command that takes it back. It may be sent more than once, and before the
    /// step's own command was carried out.
    pub fn undone_by(mut self, command: &'static str) -> Self {
        self.undo = Some(Undo {
            command,
            reply: None,
        });
        self
    }

    /// The type of the reply to [`undone_by`](Step::undone_by).
    pub fn undone_on(mut self, reply: &'static str) -> Self {
        match &mut self.undo {
            Some(undo) => undo.reply = Some(reply),
            None => self.undone_before_undo = true,
        }
        self
    }

    /// It leaves nothing that would have to be taken back.
    pub fn nothing_to_undo(mut self) -> Self {
        self.nothing_to_undo = true;
        self
    }

    /// When its command is sent, the saga can't be cancelled any more. A later step, and this one's
    /// timeout, can then only go on or go to review.
    pub fn point_of_no_return(mut self) -> Self {
        self.no_return = true;
        self
    }

    /// How long to wait for a reply, from a millisecond to [`Plan::TIMEOUT_MAX`].
    pub fn within(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// Without a reply in time, the saga takes back what it has done, this step included.
    pub fn or_compensate(mut self) -> Self {
        self.on_timeout = Some(OnTimeout::Compensate);
        self
    }

    /// Without a reply in time, a person decides.
    pub fn or_review(mut self) -> Self {
        self.on_timeout = Some(OnTimeout::Review);
        self
    }
}

/// A plan that is being written; [`checked`](Draft::checked) makes it one to run.
#[derive(Debug, Clone, PartialEq)]
#[must_use]
pub struct Draft {
    pub(super) name: &'static str,
    pub(super) steps: Vec<Step>,
    pub(super) compensation: Policy,
}

impl Draft {
    /// The next step.
    pub fn step(mut self, step: Step) -> Self {
        self.steps.push(step);
        self
    }

    /// When a compensation that is not answered is sent again, and after how many attempts the
    /// saga goes to review. Default: 8 attempts, after 10 s, doubling up to 5 min; 19 minutes in
    /// all, long enough for a participant to be started anew.
    pub fn compensation(mut self, policy: Policy) -> Self {
        self.compensation = policy;
        self
    }

    /// The plan, if it is sound.
    ///
    /// # Errors
    /// What is wrong with it, all of it at once, each with the step and the mend.
    pub fn checked(self) -> Result<Plan, PlanError> {
        let problems = check::problems(&self);
        if !problems.is_empty() {
            return Err(PlanError::new(self.name, problems));
        }
        let steps = self.steps.into_iter().map(Checked::of).collect();
        Ok(Plan {
            name: self.name,
            steps,
            compensation: self.compensation,
        })
    }
}

/// A step that has all it needs.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Checked {
    pub(super) name: &'static str,
    pub(super) command: &'static str,
    pub(super) done: Vec<&'static str>,
    pub(super) refused: Vec<&'static str>,
    pub(super) undo: Option<(&'static str, &'static str)>,
    pub(super) no_return: bool,
    pub(super) timeout: Duration,
    pub(super) on_timeout: OnTimeout,
}

impl Checked {
    fn of(step: Step) -> Self {
        let undo = step.undo.and_then(|undo| Some((undo.command, undo.reply?)));
        Checked {
            name: step.name,
            command: step.command.unwrap_or_default(),
            done: step.done,
            refused: step.refused,
            undo,
            no_return: step.no_return,
            timeout: step.timeout.unwrap_or_default(),
            on_timeout: step.on_timeout.unwrap_or(OnTimeout::Review),
        }
    }
}

/// A saga's declaration, checked: its steps in order.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    pub(super) name: &'static str,
    pub(super) steps: Vec<Checked>,
    pub(super) compensation: Policy,
}

impl Plan {
    /// Steps of a plan at most; more are a sign that two sagas are written as one.
    pub const STEPS_MAX: usize = 32;
    /// The longest timeout of a step: a year.
    pub const TIMEOUT_MAX: Duration = Duration::from_secs(366 * 24 * 3600);

    /// Begins a plan. The name is part of each saga's id: it can't be changed later.
    pub fn named(name: &'static str) -> Draft {
        let compensation = Policy::exponential(Duration::from_secs(10), 2.0)
            .max(Duration::from_secs(300))
            .max_attempts(8);
        Draft {
            name,
            steps: Vec::new(),
            compensation,
        }
    }

    /// Its name.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Its steps, in order.
    pub fn steps(&self) -> impl ExactSizeIterator<Item = StepNo> + DoubleEndedIterator + use<> {
        (0..self.steps.len()).map(StepNo)
    }

    /// The name of a step.
    pub fn step_name(&self, step: StepNo) -> &'static str {
        self.steps.get(step.0).map_or("", |step| step.name)
    }

    /// The type of the command that does a step.
    pub fn command(&self, step: StepNo) -> &'static str {
        self.steps.get(step.0).map_or("", |step| step.command)
    }

    /// The type of the command that takes a step back, unless there is nothing to take back.
    pub fn compensation_of(&self, step: StepNo) -> Option<&'static str> {
        self.steps.get(step.0)?.undo.map(|(command, _)| command)
    }

    /// Which step a type of event replies to, and what it says; `None` for what is no reply.
    pub fn meaning(&self, event_type: &str) -> Option<(StepNo, Reply)> {
        self.steps.iter().enumerate().find_map(|(at, step)| {
            let reply = if step.done.contains(&event_type) {
                Reply::Done
            } else if step.refused.contains(&event_type) {
                Reply::Refused
            } else if step.undo.is_some_and(|(_, reply)| reply == event_type) {
                Reply::Undone
            } else {
                return None;
            };
            Some((StepNo(at), reply))
        })
    }

    /// Whether the saga can't be cancelled while it waits for this step.
    pub fn is_past_return(&self, step: StepNo) -> bool {
        let pivot = self.steps.iter().position(|step| step.no_return);
        pivot.is_some_and(|pivot| step.0 >= pivot)
    }
}
