//! Every path through a plan, for tests: what the users of a saga should have thought of.

use std::fmt;

use super::decide::{Command, Decision, Happening, Input, Resolution, Which};
use super::plan::{Plan, Reply};
use super::state::{Phase, State, Status};
use crate::Timestamp;
use crate::backoff::Policy;

/// Paths at most; a plan of ten steps has more, and nobody reads them.
const PATHS_MAX: usize = 20_000;
/// Compensations are sent twice before they are given up: more would be the same again.
const ATTEMPTS: u32 = 2;

/// One way from the beginning to an end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Path {
    /// What happened, in order; it began first.
    pub happenings: Vec<Happening>,
    /// What was sent, in order.
    pub commands: Vec<Command>,
    /// Where it ended.
    pub state: State,
}

/// Every path through a plan. A path ends where the saga is over; it takes no turn that leads back to
/// where it was. Nothing comes late to a saga that is over: that one path more would be endless.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Paths {
    /// The paths.
    pub paths: Vec<Path>,
    /// Whether there are more than were walked.
    pub truncated: bool,
    /// States in which the saga stands still: neither over, nor waiting for an answer with a
    /// deadline, nor in review. A sound plan has none.
    pub stuck: Vec<State>,
}

impl Plan {
    /// Walks every path: each reply, deadline, cancel and decision of a person, in every state in
    /// which it changes something. For tests:
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use ackwell_core::saga::{Plan, Status, Step};
    /// # fn plan() -> Plan {
    /// #     let step = Step::named("reserve").sends("Reserve").done_on("Reserved").refused_on("Refused")
    /// #         .undone_by("Release").undone_on("Released").within(Duration::from_secs(1)).or_compensate();
    /// #     Plan::named("order").step(step).checked().unwrap()
    /// # }
    /// let plan = plan();
    /// let walked = plan.walk();
    /// assert!(walked.stuck.is_empty());
    /// for path in &walked.paths {
    ///     assert!(path.state.status().is_final(), "{}", path.told(&plan));
    /// }
    /// ```
    pub fn walk(&self) -> Paths {
        let mut plan = self.clone();
        plan.compensation =
            Policy::fixed(std::time::Duration::from_millis(1)).max_attempts(ATTEMPTS);
        let mut walker = Walker {
            plan: &plan,
            been: Vec::new(),
            found: Paths {
                paths: Vec::new(),
                truncated: false,
                stuck: Vec::new(),
            },
        };
        let first = plan.begin(Timestamp::EPOCH);
        walker.go(Path {
            happenings: vec![first.happening],
            commands: first.commands,
            state: first.state,
        });
        walker.found
    }

    fn inputs(&self) -> impl Iterator<Item = Input> + '_ {
        let replies = self.steps().flat_map(|step| {
            [Reply::Done, Reply::Refused, Reply::Undone].map(|reply| Input::Reply(step, reply))
        });
        let can_be_said = |input: &Input| match *input {
            Input::Reply(step, Reply::Refused) => !self.steps[step.0].refused.is_empty(),
            Input::Reply(step, Reply::Undone) => self.steps[step.0].undo.is_some(),
            _ => true,
        };
        let others = [
            Input::DeadlinePassed(FAR),
            Input::CancelAsked,
            Input::Resolved(Resolution::Confirm),
            Input::Resolved(Resolution::Cancel),
        ];
        replies.filter(can_be_said).chain(others)
    }
}

/// When every deadline has passed.
const FAR: Timestamp = Timestamp::from_millis(i64::MAX);

struct Walker<'a> {
    plan: &'a Plan,
    /// The states of the path in hand.
    been: Vec<State>,
    found: Paths,
}

impl Walker<'_> {
    fn go(&mut self, path: Path) {
        if path.state.status().is_final() {
            return self.found.paths.push(path);
        }
        if self.found.paths.len() >= PATHS_MAX {
            self.found.truncated = true;
            return;
        }
        let here = plain(&path.state);
        let in_review = matches!(here.phase, Phase::Review(..));
        let stands_still = path.state.deadline.is_none() && !in_review;
        if stands_still && !self.found.stuck.contains(&here) {
            self.found.stuck.push(here.clone());
        }
        if self.been.contains(&here) {
            return;
        }
        self.been.push(here);
        for input in self.plan.inputs() {
            let Decision::Move(next) = self.plan.decide(&path.state, input, FAR) else {
                continue;
            };
            let mut longer = path.clone();
            longer.happenings.push(next.happening);
            longer.commands.extend(next.commands);
            longer.state = next.state;
            self.go(longer);
        }
        self.been.pop();
    }
}

/// The state without what makes each different: version and deadline.
fn plain(state: &State) -> State {
    State {
        version: 0,
        deadline: None,
        ..state.clone()
    }
}

impl Path {
    /// The path as a line of text.
    pub fn told<'a>(&'a self, plan: &'a Plan) -> impl fmt::Display + 'a {
        Told(self, plan)
    }

    /// Whether this happened on the way.
    pub fn has(&self, happening: Happening) -> bool {
        self.happenings.contains(&happening)
    }

    /// Whether what was sent so far leaves a step done that was not confirmed: of a saga that is compensated,
    /// each command was taken back.
    pub fn is_balanced(&self, plan: &Plan) -> bool {
        self.state.status() != Status::Compensated
            || plan.steps().all(|step| {
                let sent = |which| self.commands.contains(&Command { step, which });
                let refused = self.has(Happening::Refused(step));
                refused
                    || !sent(Which::Do)
                    || sent(Which::Undo)
                    || plan.compensation_of(step).is_none()
            })
    }
}

struct Told<'a>(&'a Path, &'a Plan);

impl fmt::Display for Told<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for happening in &self.0.happenings {
            write!(f, "{} → ", happening.told(self.1))?;
        }
        write!(f, "{}", self.0.state.status())
    }
}

impl Happening {
    /// It in words, with the names of the plan's steps.
    pub fn told(self, plan: &Plan) -> String {
        let name = |step| plan.step_name(step);
        match self {
            Happening::Started => "started".to_owned(),
            Happening::Done(step) => format!("{}: done", name(step)),
            Happening::Refused(step) => format!("{}: refused", name(step)),
            Happening::Undone(step) => format!("{}: taken back", name(step)),
            Happening::DoneUnasked(step) => format!("{}: done unasked", name(step)),
            Happening::NotedNoLonger(step) => format!("{}: not done after all", name(step)),
            Happening::TimedOut(step) => format!("{}: no answer in time", name(step)),
            Happening::UndoUnanswered(step, attempt) => {
                format!("{}: compensation {attempt} not answered", name(step))
            }
            Happening::UndoGivenUp(step) => format!("{}: compensation given up", name(step)),
            Happening::CancelAsked => "cancelled".to_owned(),
            Happening::Resolved(Resolution::Confirm) => "confirmed by hand".to_owned(),
            Happening::Resolved(Resolution::Cancel) => "cancelled by hand".to_owned(),
        }
    }
}
