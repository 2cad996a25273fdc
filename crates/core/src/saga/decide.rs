//! What follows, in one place: the tables of the [module](super).

use super::plan::{OnTimeout, Plan, Reply, StepNo};
use super::state::{Phase, Question, State, StepState};
use crate::Timestamp;

/// What happens to a saga.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Input {
    /// A participant replies.
    Reply(StepNo, Reply),
    /// Its [deadline](State::deadline) has passed if it is not after this moment: replies that had come by then
    /// have been handled, see [`Watermark`](super::Watermark).
    DeadlinePassed(Timestamp),
    /// Whoever started it wants it taken back.
    CancelAsked,
    /// A person has decided.
    Resolved(Resolution),
}

/// What a person decides about a saga in review.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Resolution {
    /// Go on: the step's command is sent once more.
    Confirm,
    /// Take back what was done; or try once more to.
    Cancel,
}

/// A command to a participant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Command {
    /// Of which step.
    pub step: StepNo,
    /// Its command, or its compensation.
    pub which: Which,
}

/// One of a step's two commands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Which {
    /// Do it.
    Do,
    /// Take it back.
    Undo,
}

/// What happened, for the history.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Happening {
    /// It began.
    Started,
    /// A step was done.
    Done(StepNo),
    /// A step was refused.
    Refused(StepNo),
    /// A step was taken back.
    Undone(StepNo),
    /// A step that was given up, or had not begun, was done after all.
    DoneUnasked(StepNo),
    /// A step that was noted as done before it began is refused.
    NotedNoLonger(StepNo),
    /// A step was not answered in time.
    TimedOut(StepNo),
    /// A compensation was not answered in time, and is sent again; so many times until now.
    UndoUnanswered(StepNo, u32),
    /// A compensation was not answered, and is given up.
    UndoGivenUp(StepNo),
    /// It was cancelled.
    CancelAsked,
    /// A person decided.
    Resolved(Resolution),
}

/// Why a saga takes back, or is in review.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Cause {
    /// A step was refused; the reply may say why.
    Refused(StepNo),
    /// A step was not answered in time.
    TimedOut(StepNo),
    /// A compensation was not answered in the end.
    UndoGivenUp(StepNo),
    /// It was cancelled; whoever did may say why.
    CancelAsked,
    /// A person decided so.
    Resolved,
}

/// A change of state with all that belongs to it. A store carries all of it out, or nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Move {
    /// The new state; its version is one above the old one's.
    pub state: State,
    /// What to send.
    pub commands: Vec<Command>,
    /// What happened.
    pub happening: Happening,
    /// A new reason, if there is one; otherwise the old one stays.
    pub cause: Option<Cause>,
}

/// Why nothing changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Nothing {
    /// It is known already.
    Repeated,
    /// It came when the saga had gone on without it.
    Late,
    /// It does not fit to what was asked of the participant.
    OutOfPlace,
    /// The deadline has not passed, or there is none.
    NotDue,
}

/// Why something that a person asks for is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Refusal {
    /// Too late to cancel: the point of no return is passed.
    PastReturn,
    /// Too late to cancel: it is completed.
    Completed,
    /// It is in review: [`Input::Resolved`] decides.
    InReview,
    /// Only a saga in review can be resolved.
    NotInReview,
    /// It has begun to take back, and can't go on from there.
    TakenBack,
}

impl Refusal {
    /// In a sentence, for whoever asked.
    pub const fn text(self) -> &'static str {
        match self {
            Refusal::PastReturn => "it is past its point of no return",
            Refusal::Completed => "it is completed",
            Refusal::InReview => "it is in manual review, and is decided there",
            Refusal::NotInReview => "it is not in manual review",
            Refusal::TakenBack => "it has begun to take back, and can only be cancelled",
        }
    }
}

/// What follows from an input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// This.
    Move(Move),
    /// Nothing changes.
    Nothing(Nothing),
    /// The one who asked is told no.
    Refused(Refusal),
}

impl Plan {
    /// A new saga: its first command.
    pub fn begin(&self, now: Timestamp) -> Move {
        let state = State {
            version: 0,
            phase: Phase::Running(StepNo(0)),
            steps: vec![StepState::Waiting; self.steps.len()],
            deadline: None,
        };
        let mut draft = Next::of(self, &state, now);
        draft.run(StepNo(0));
        draft.into_move(Happening::Started, None)
    }

    /// What follows from `input`. `now` is looked at for deadlines only.
    pub fn decide(&self, state: &State, input: Input, now: Timestamp) -> Decision {
        let next = Next::of(self, state, now);
        match input {
            Input::Reply(step, Reply::Done) => next.done(step),
            Input::Reply(step, Reply::Refused) => next.refused(step),
            Input::Reply(step, Reply::Undone) => next.undone(step),
            Input::DeadlinePassed(handled) => next.deadline_passed(handled),
            Input::CancelAsked => next.cancel_asked(),
            Input::Resolved(resolution) => next.resolved(resolution),
        }
    }
}

/// The state that follows, in the making.
struct Next<'a> {
    plan: &'a Plan,
    now: Timestamp,
    state: State,
    commands: Vec<Command>,
}

impl<'a> Next<'a> {
    fn of(plan: &'a Plan, state: &State, now: Timestamp) -> Self {
        Next {
            plan,
            now,
            state: state.clone(),
            commands: Vec::new(),
        }
    }

    fn done(mut self, step: StepNo) -> Decision {
        use StepState::{Done, Noted, Refused, Sent, Undoing, Undone, Waiting};
        match self.step(step) {
            Sent if self.waits_for(step) => {
                self.set(step, Done);
                self.go_on(step);
                self.decided(Happening::Done(step), None)
            }
            Waiting if !self.takes_back() => {
                self.set(step, Noted);
                self.decided(Happening::DoneUnasked(step), None)
            }
            // Its turn to be taken back comes, if there is anything to take back.
            Sent => Decision::Nothing(Nothing::Late),
            Waiting | Refused | Undoing | Undone => self.done_after_all(step),
            Done | Noted => Decision::Nothing(Nothing::Repeated),
        }
    }

    /// A step that was given up is done. Its compensation may have come before, so it is sent again.
    fn done_after_all(mut self, step: StepNo) -> Decision {
        if self.plan.compensation_of(step).is_none() {
            return Decision::Nothing(Nothing::Late);
        }
        self.set(step, StepState::Undoing);
        self.send(step, Which::Undo);
        match self.state.phase {
            // Its own deadline runs already, or a person looks after it.
            Phase::Compensating(current, _) if current >= step => {}
            Phase::Review(..) => {}
            _ => self.await_undo(step, 1),
        }
        self.decided(Happening::DoneUnasked(step), None)
    }

    fn refused(mut self, step: StepNo) -> Decision {
        use StepState::{Done, Noted, Refused, Sent, Undoing, Undone, Waiting};
        match self.step(step) {
            Sent if self.waits_for(step) => {
                self.set(step, Refused);
                self.take_back();
                self.decided(Happening::Refused(step), Some(Cause::Refused(step)))
            }
            Sent => Decision::Nothing(Nothing::Late),
            Noted if self.takes_back() => Decision::Nothing(Nothing::Late),
            Noted => {
                self.set(step, Waiting);
                self.decided(Happening::NotedNoLonger(step), None)
            }
            Refused => Decision::Nothing(Nothing::Repeated),
            Undoing | Undone => Decision::Nothing(Nothing::Late),
            Waiting | Done => Decision::Nothing(Nothing::OutOfPlace),
        }
    }

    fn undone(mut self, step: StepNo) -> Decision {
        match self.step(step) {
            StepState::Undoing => {}
            StepState::Undone => return Decision::Nothing(Nothing::Repeated),
            _ => return Decision::Nothing(Nothing::OutOfPlace),
        }
        self.set(step, StepState::Undone);
        if self.state.phase.step() == Some(step) {
            self.take_back();
        }
        self.decided(Happening::Undone(step), None)
    }

    fn deadline_passed(mut self, handled: Timestamp) -> Decision {
        let until = handled.min(self.now);
        let due = self.state.deadline.is_some_and(|at| at <= until);
        match self.state.phase {
            _ if !due => Decision::Nothing(Nothing::NotDue),
            Phase::Running(step) => {
                match self.plan.steps[step.0].on_timeout {
                    OnTimeout::Compensate => self.take_back(),
                    OnTimeout::Review => self.review(step, Question::Outcome),
                }
                self.decided(Happening::TimedOut(step), Some(Cause::TimedOut(step)))
            }
            Phase::Compensating(step, attempt) if self.may_try_again(attempt) => {
                self.send(step, Which::Undo);
                self.await_undo(step, attempt + 1);
                self.decided(Happening::UndoUnanswered(step, attempt), None)
            }
            Phase::Compensating(step, _) => {
                self.review(step, Question::Compensation);
                let cause = Cause::UndoGivenUp(step);
                self.decided(Happening::UndoGivenUp(step), Some(cause))
            }
            Phase::Review(..) | Phase::Completed | Phase::Compensated => {
                Decision::Nothing(Nothing::NotDue)
            }
        }
    }

    fn cancel_asked(mut self) -> Decision {
        match self.state.phase {
            Phase::Running(step) if self.plan.is_past_return(step) => {
                Decision::Refused(Refusal::PastReturn)
            }
            Phase::Running(_) => {
                self.take_back();
                self.decided(Happening::CancelAsked, Some(Cause::CancelAsked))
            }
            Phase::Review(_, Question::Outcome) => Decision::Refused(Refusal::InReview),
            Phase::Completed => Decision::Refused(Refusal::Completed),
            Phase::Compensating(..)
            | Phase::Compensated
            | Phase::Review(_, Question::Compensation) => Decision::Nothing(Nothing::Repeated),
        }
    }

    fn resolved(mut self, resolution: Resolution) -> Decision {
        let Phase::Review(step, question) = self.state.phase else {
            return Decision::Refused(Refusal::NotInReview);
        };
        let happening = Happening::Resolved(resolution);
        match (resolution, question) {
            (Resolution::Confirm, Question::Outcome) => {
                self.run(step);
                self.decided(happening, None)
            }
            (Resolution::Confirm, Question::Compensation) => Decision::Refused(Refusal::TakenBack),
            (Resolution::Cancel, Question::Outcome) => {
                self.take_back();
                self.decided(happening, Some(Cause::Resolved))
            }
            (Resolution::Cancel, Question::Compensation) => {
                self.send(step, Which::Undo);
                self.await_undo(step, 1);
                self.decided(happening, Some(Cause::Resolved))
            }
        }
    }

    fn step(&self, step: StepNo) -> StepState {
        self.state.steps[step.0]
    }

    fn set(&mut self, step: StepNo, state: StepState) {
        self.state.steps[step.0] = state;
    }

    fn send(&mut self, step: StepNo, which: Which) {
        self.commands.push(Command { step, which });
    }

    /// Whether the outcome of this step is what the saga, or a person, waits for.
    fn waits_for(&self, step: StepNo) -> bool {
        let phase = self.state.phase;
        phase == Phase::Running(step) || phase == Phase::Review(step, Question::Outcome)
    }

    /// Whether it has begun to take back; it never goes forward again then.
    fn takes_back(&self) -> bool {
        matches!(
            self.state.phase,
            Phase::Compensating(..) | Phase::Compensated | Phase::Review(_, Question::Compensation)
        )
    }

    fn may_try_again(&self, attempt: u32) -> bool {
        // The time for all attempts is not kept; their number bounds it.
        let policy = &self.plan.compensation;
        let elapsed = (1..attempt).map(|before| policy.wait(before, 0.5)).sum();
        policy.allows(attempt, elapsed, policy.wait(attempt, 0.5))
    }

    /// Begins a step, or begins it once more.
    fn run(&mut self, step: StepNo) {
        self.set(step, StepState::Sent);
        self.send(step, Which::Do);
        self.state.phase = Phase::Running(step);
        self.state.deadline = Some(self.now + self.plan.steps[step.0].timeout);
    }

    /// After a step that was done.
    fn go_on(&mut self, done: StepNo) {
        let next = StepNo(done.0 + 1);
        if next.0 < self.plan.steps.len() {
            return self.run(next);
        }
        self.end(Phase::Completed);
    }

    /// Takes back the latest step that may be done; ends when there is none.
    fn take_back(&mut self) {
        let mut steps = self.plan.steps().rev();
        let latest = steps.find(|step| {
            self.step(*step).may_be_done() && self.plan.compensation_of(*step).is_some()
        });
        let Some(step) = latest else {
            return self.end(Phase::Compensated);
        };
        if self.step(step) != StepState::Undoing {
            self.set(step, StepState::Undoing);
            self.send(step, Which::Undo);
        }
        self.await_undo(step, 1);
    }

    fn await_undo(&mut self, step: StepNo, attempt: u32) {
        self.state.phase = Phase::Compensating(step, attempt);
        self.state.deadline = Some(self.now + self.plan.compensation.wait(attempt, 0.5));
    }

    fn review(&mut self, step: StepNo, question: Question) {
        self.state.phase = Phase::Review(step, question);
        self.state.deadline = None;
    }

    fn end(&mut self, phase: Phase) {
        self.state.phase = phase;
        self.state.deadline = None;
    }

    fn decided(self, happening: Happening, cause: Option<Cause>) -> Decision {
        Decision::Move(self.into_move(happening, cause))
    }

    fn into_move(mut self, happening: Happening, cause: Option<Cause>) -> Move {
        self.state.version += 1;
        Move {
            state: self.state,
            commands: self.commands,
            happening,
            cause,
        }
    }
}
