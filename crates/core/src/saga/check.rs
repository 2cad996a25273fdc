//! What is wrong with a declaration, before the first saga finds out.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use super::plan::{Draft, OnTimeout, Plan, Step};

/// One thing that is wrong with a plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The step, unless it is the plan as a whole.
    pub step: Option<&'static str>,
    /// What is wrong.
    pub what: String,
    /// What mends it.
    pub mend: &'static str,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(step) = self.step {
            write!(f, "step {step:?} ")?;
        }
        write!(f, "{}: {}", self.what, self.mend)
    }
}

/// A plan that can't be run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlanError {
    name: &'static str,
    problems: Vec<Problem>,
}

impl PlanError {
    pub(super) fn new(name: &'static str, problems: Vec<Problem>) -> Self {
        PlanError { name, problems }
    }

    /// All that is wrong.
    pub fn problems(&self) -> &[Problem] {
        &self.problems
    }
}

impl fmt::Display for PlanError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the saga {:?} is not sound", self.name)?;
        for problem in &self.problems {
            write!(f, "\n  {problem}")?;
        }
        Ok(())
    }
}

impl std::error::Error for PlanError {}

/// All that is wrong with a plan.
pub(super) fn problems(draft: &Draft) -> Vec<Problem> {
    let mut found = Vec::new();
    let mut whole = |wrong: bool, what: &str, mend| {
        if wrong {
            let what = what.to_owned();
            found.push(Problem {
                step: None,
                what,
                mend,
            });
        }
    };
    let no_returns = draft.steps.iter().filter(|step| step.no_return).count();
    whole(draft.name.is_empty(), "it has no name", "name it");
    whole(draft.steps.is_empty(), "it has no steps", "declare one");
    whole(
        draft.steps.len() > Plan::STEPS_MAX,
        "it has more than 32 steps",
        "split it",
    );
    whole(
        no_returns > 1,
        "it has several points of no return",
        "declare the first one only",
    );
    whole(
        !draft.compensation.is_limited() || draft.compensation.problem().is_some(),
        "its compensations are tried again without an end, or without sense",
        "limit the policy by max_attempts or within",
    );
    let mut past_return = false;
    for step in &draft.steps {
        found.extend(of_step(step, past_return));
        past_return |= step.no_return;
    }
    found.extend(claimed_twice(draft));
    found
}

fn of_step(step: &Step, past_return: bool) -> Vec<Problem> {
    let compensates = step.on_timeout == Some(OnTimeout::Compensate);
    let in_range = |timeout| (Duration::from_millis(1)..=Plan::TIMEOUT_MAX).contains(&timeout);
    let undo_unanswered = step.undo.is_some_and(|undo| undo.reply.is_none());
    let rules = [
        (step.name.is_empty(), "has no name", "name it"),
        (
            step.command.is_none_or(str::is_empty),
            "sends nothing",
            "say by sends(..) which command does it",
        ),
        (
            step.done.is_empty(),
            "is never done",
            "say by done_on(..) which reply completes it",
        ),
        (
            step.timeout.is_none() || step.on_timeout.is_none(),
            "has no end when nobody answers",
            "give it within(..) and or_compensate() or or_review()",
        ),
        (
            step.timeout.is_some_and(|timeout| !in_range(timeout)),
            "has a timeout out of range",
            "choose one from a millisecond to 366 days",
        ),
        (
            step.undo.is_none() && !step.nothing_to_undo,
            "can't be taken back",
            "give it undone_by(..) and undone_on(..), or nothing_to_undo()",
        ),
        (
            step.undo.is_some() && step.nothing_to_undo,
            "has a compensation and nothing to undo",
            "remove undone_by(..) or nothing_to_undo()",
        ),
        (
            undo_unanswered || step.undone_before_undo,
            "has a compensation without an answer, or an answer without a compensation",
            "give it undone_by(..) and then undone_on(..)",
        ),
        (
            (past_return || step.no_return) && compensates,
            "takes back by a timeout what is past the point of no return",
            "use or_review()",
        ),
        (
            past_return && !step.refused.is_empty(),
            "can be refused past the point of no return",
            "move point_of_no_return() to a later step, or have the command carried out in the end",
        ),
    ];
    let broken = rules.into_iter().filter(|(broken, ..)| *broken);
    let problem = |(_, what, mend): (bool, &str, &'static str)| Problem {
        step: Some(step.name),
        what: what.to_owned(),
        mend,
    };
    broken.map(problem).collect()
}

/// A type of event must say by itself which step it belongs to.
fn claimed_twice(draft: &Draft) -> Vec<Problem> {
    let mut names = BTreeMap::new();
    let mut types = BTreeMap::new();
    let mut found = Vec::new();
    for step in &draft.steps {
        let mut taken = |twice: bool, what, mend| {
            if twice {
                found.push(Problem {
                    step: Some(step.name),
                    what,
                    mend,
                });
            }
        };
        let twice = names.insert(step.name, ()).is_some();
        taken(
            twice,
            "has the name of another step".to_owned(),
            "rename one",
        );
        for event_type in types_of(step) {
            let owner = types.insert(event_type, step.name);
            let what = format!(
                "uses the type {event_type:?}, which {:?} uses already",
                owner.unwrap_or_default()
            );
            taken(
                owner.is_some(),
                what,
                "give each command and each reply a type of its own",
            );
        }
    }
    found
}

fn types_of(step: &Step) -> impl Iterator<Item = &'static str> {
    let undo = step.undo.into_iter();
    let undo = undo.flat_map(|undo| [Some(undo.command), undo.reply]);
    let replies = step.done.iter().chain(&step.refused).copied();
    step.command
        .into_iter()
        .chain(replies)
        .chain(undo.flatten())
}
