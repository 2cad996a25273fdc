//! Where one saga stands.

use std::fmt;

use super::plan::{Plan, StepNo};
use crate::Timestamp;

/// Where one step stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum StepState {
    /// It has not begun.
    Waiting,
    /// It was reported done before it began.
    Noted,
    /// Its command was sent; its outcome is unknown.
    Sent,
    /// It was done.
    Done,
    /// It was refused.
    Refused,
    /// Its compensation was sent.
    Undoing,
    /// It was taken back.
    Undone,
}

impl StepState {
    const ALL: [Self; 7] = [
        Self::Waiting,
        Self::Noted,
        Self::Sent,
        Self::Done,
        Self::Refused,
        Self::Undoing,
        Self::Undone,
    ];

    /// The word for users and for the database.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Waiting => "WAITING",
            Self::Noted => "NOTED",
            Self::Sent => "SENT",
            Self::Done => "DONE",
            Self::Refused => "REFUSED",
            Self::Undoing => "UNDOING",
            Self::Undone => "UNDONE",
        }
    }

    /// The state with this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.name() == name)
    }

    /// Whether something of it may be there that has to be taken back.
    pub(super) const fn may_be_done(self) -> bool {
        matches!(self, Self::Noted | Self::Sent | Self::Done | Self::Undoing)
    }
}

/// What a person is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Question {
    /// Whether the step was done.
    Outcome,
    /// Whether the step was taken back.
    Compensation,
}

/// What a saga does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Phase {
    /// It waits for the outcome of a step.
    Running(StepNo),
    /// It takes back; it waits for this step's compensation, which was sent so many times.
    Compensating(StepNo, u32),
    /// A person decides about this step.
    Review(StepNo, Question),
    /// Every step was done.
    Completed,
    /// What was done is taken back.
    Compensated,
}

/// A [`Phase`] in a word, for lists and metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Status {
    /// [`Phase::Running`].
    Running,
    /// [`Phase::Compensating`].
    Compensating,
    /// [`Phase::Review`].
    ManualReview,
    /// [`Phase::Completed`].
    Completed,
    /// [`Phase::Compensated`].
    Compensated,
}

impl Status {
    /// Each of them.
    pub const ALL: [Self; 5] = [
        Self::Running,
        Self::Compensating,
        Self::ManualReview,
        Self::Completed,
        Self::Compensated,
    ];

    /// The word for users and for the database.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Running => "RUNNING",
            Self::Compensating => "COMPENSATING",
            Self::ManualReview => "MANUAL_REVIEW",
            Self::Completed => "COMPLETED",
            Self::Compensated => "COMPENSATED",
        }
    }

    /// The status with this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.name() == name)
    }

    /// Whether the saga is over. A late success opens a compensated one once more.
    pub const fn is_final(self) -> bool {
        matches!(self, Self::Completed | Self::Compensated)
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Where one saga stands. A new one comes from [`Plan::begin`], a stored one from [`State::restore`].
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct State {
    pub(super) version: u64,
    pub(super) phase: Phase,
    pub(super) steps: Vec<StepState>,
    pub(super) deadline: Option<Timestamp>,
}

/// A state as a store keeps it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Restored {
    /// See [`State::version`].
    pub version: u64,
    /// See [`Phase::status`].
    pub status: Status,
    /// See [`Phase::step`].
    pub step: Option<usize>,
    /// See [`Phase::attempt`].
    pub attempt: u32,
    /// See [`State::steps`].
    pub steps: Vec<StepState>,
    /// See [`State::deadline`].
    pub deadline: Option<Timestamp>,
}

impl Phase {
    /// In a word.
    pub const fn status(self) -> Status {
        match self {
            Phase::Running(_) => Status::Running,
            Phase::Compensating(..) => Status::Compensating,
            Phase::Review(..) => Status::ManualReview,
            Phase::Completed => Status::Completed,
            Phase::Compensated => Status::Compensated,
        }
    }

    /// The step that it is about.
    pub const fn step(self) -> Option<StepNo> {
        match self {
            Phase::Running(step) | Phase::Compensating(step, _) | Phase::Review(step, _) => {
                Some(step)
            }
            Phase::Completed | Phase::Compensated => None,
        }
    }

    /// How often the compensation that it waits for was sent; 0 if it waits for none.
    pub const fn attempt(self) -> u32 {
        match self {
            Phase::Compensating(_, attempt) => attempt,
            _ => 0,
        }
    }
}

impl State {
    /// The state that a store has kept; `None` if it is not one of this plan.
    pub fn restore(plan: &Plan, kept: Restored) -> Option<Self> {
        let step = kept.step.filter(|step| *step < plan.steps.len());
        let step = step.map(StepNo);
        let phase = match (kept.status, step) {
            (Status::Running, Some(step)) => Phase::Running(step),
            (Status::Compensating, Some(step)) => Phase::Compensating(step, kept.attempt),
            (Status::ManualReview, Some(step)) => match kept.steps.get(step.0)? {
                StepState::Undoing => Phase::Review(step, Question::Compensation),
                _ => Phase::Review(step, Question::Outcome),
            },
            (Status::Completed, None) => Phase::Completed,
            (Status::Compensated, None) => Phase::Compensated,
            _ => return None,
        };
        (kept.steps.len() == plan.steps.len()).then_some(State {
            version: kept.version,
            phase,
            steps: kept.steps,
            deadline: kept.deadline,
        })
    }

    /// How many moves it has made; a store writes a move only onto the version before it.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// What it does.
    pub fn phase(&self) -> Phase {
        self.phase
    }

    /// [`Phase`] in a word.
    pub fn status(&self) -> Status {
        self.phase.status()
    }

    /// Where each step stands, in order.
    pub fn steps(&self) -> &[StepState] {
        &self.steps
    }

    /// When it no longer waits.
    pub fn deadline(&self) -> Option<Timestamp> {
        self.deadline
    }
}
