//! The tables of the module, as sentences.

use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::Timestamp;
use crate::backoff::Policy;

const START: Timestamp = Timestamp::from_millis(1_000);
const LATER: Timestamp = Timestamp::from_millis(i64::MAX);
const RESERVE: StepNo = StepNo(0);
const CHARGE: StepNo = StepNo(1);
const CONFIRM: StepNo = StepNo(2);

fn reserve() -> Step {
    Step::named("reserve")
        .sends("Reserve")
        .done_on("Reserved")
        .refused_on("NotReserved")
        .undone_by("Release")
        .undone_on("Released")
        .within(Duration::from_secs(30))
        .or_compensate()
}

fn charge() -> Step {
    Step::named("charge")
        .sends("Charge")
        .done_on("Charged")
        .refused_on("Declined")
        .undone_by("Refund")
        .undone_on("Refunded")
        .within(Duration::from_secs(60))
        .or_compensate()
}

fn confirm() -> Step {
    Step::named("confirm")
        .sends("Confirm")
        .done_on("Confirmed")
        .nothing_to_undo()
        .point_of_no_return()
        .within(Duration::from_secs(30))
        .or_review()
}

fn order() -> Plan {
    let retry = Policy::fixed(Duration::from_secs(10)).max_attempts(2);
    let draft = Plan::named("order").compensation(retry);
    draft
        .step(reserve())
        .step(charge())
        .step(confirm())
        .checked()
        .unwrap()
}

/// A saga that has been through something, and what it has sent.
struct Told {
    plan: Plan,
    state: State,
    sent: Vec<&'static str>,
}

impl Told {
    fn started() -> Self {
        let plan = order();
        let first = plan.begin(START);
        let mut told = Told {
            plan,
            state: first.state.clone(),
            sent: Vec::new(),
        };
        told.take(first);
        told
    }

    fn take(&mut self, next: Move) {
        for Command { step, which } in next.commands {
            self.sent.push(match which {
                Which::Do => self.plan.command(step),
                Which::Undo => self.plan.compensation_of(step).unwrap(),
            });
        }
        self.state = next.state;
    }

    fn on(mut self, input: Input) -> Self {
        match self.plan.decide(&self.state, input, LATER) {
            Decision::Move(next) => self.take(next),
            other => panic!("{input:?}: {other:?}"),
        }
        self
    }

    fn hears(self, event_type: &str) -> Self {
        let (step, reply) = self.plan.meaning(event_type).unwrap();
        self.on(Input::Reply(step, reply))
    }

    fn ignores(self, event_type: &str, why: Nothing) -> Self {
        let (step, reply) = self.plan.meaning(event_type).unwrap();
        let decision = self
            .plan
            .decide(&self.state, Input::Reply(step, reply), LATER);
        assert_eq!(decision, Decision::Nothing(why), "{event_type}");
        self
    }

    fn refuses(self, input: Input, why: Refusal) -> Self {
        let decision = self.plan.decide(&self.state, input, LATER);
        assert_eq!(decision, Decision::Refused(why));
        self
    }

    fn times_out(self) -> Self {
        self.on(Input::DeadlinePassed(LATER))
    }

    fn is(self, phase: Phase, sent: &[&str]) -> Self {
        assert_eq!(self.state.phase(), phase);
        assert_eq!(self.sent, sent);
        self
    }
}

#[test]
fn each_step_begins_when_the_one_before_is_done() {
    Told::started()
        .is(Phase::Running(RESERVE), &["Reserve"])
        .hears("Reserved")
        .is(Phase::Running(CHARGE), &["Reserve", "Charge"])
        .hears("Charged")
        .hears("Confirmed")
        .is(Phase::Completed, &["Reserve", "Charge", "Confirm"]);
}

#[test]
fn a_first_step_that_is_refused_leaves_nothing_to_take_back() {
    Told::started()
        .hears("NotReserved")
        .is(Phase::Compensated, &["Reserve"]);
}

#[test]
fn a_refused_step_takes_back_those_before_it() {
    Told::started()
        .hears("Reserved")
        .hears("Declined")
        .is(
            Phase::Compensating(RESERVE, 1),
            &["Reserve", "Charge", "Release"],
        )
        .hears("Released")
        .is(Phase::Compensated, &["Reserve", "Charge", "Release"]);
}

#[test]
fn a_step_of_unknown_outcome_is_taken_back_first() {
    let all = ["Reserve", "Charge", "Refund", "Release"];
    Told::started()
        .hears("Reserved")
        .times_out()
        .is(Phase::Compensating(CHARGE, 1), &all[..3])
        .hears("Refunded")
        .is(Phase::Compensating(RESERVE, 1), &all)
        .hears("Released")
        .is(Phase::Compensated, &all);
}

#[test]
fn a_late_success_is_taken_back_again_also_when_the_saga_was_over() {
    let told = Told::started()
        .hears("Reserved")
        .times_out()
        .hears("Refunded")
        .hears("Charged");
    assert_eq!(told.state.phase(), Phase::Compensating(CHARGE, 1));
    let told = told
        .hears("Released")
        .is(
            Phase::Compensating(CHARGE, 1),
            &["Reserve", "Charge", "Refund", "Release", "Refund"],
        )
        .hears("Refunded");
    assert_eq!(told.state.phase(), Phase::Compensated);
    let told = told.hears("Charged");
    assert_eq!(told.state.phase(), Phase::Compensating(CHARGE, 1));
    assert_eq!(told.sent.last(), Some(&"Refund"));
    assert_eq!(told.hears("Refunded").state.phase(), Phase::Compensated);
}

#[test]
fn a_repeated_reply_changes_nothing() {
    Told::started()
        .hears("Reserved")
        .ignores("Reserved", Nothing::Repeated)
        .hears("Declined")
        .ignores("Declined", Nothing::Repeated)
        .hears("Released")
        .ignores("Released", Nothing::Repeated)
        .ignores("NotReserved", Nothing::Late);
}

#[test]
fn a_reply_to_what_was_never_asked_changes_nothing() {
    Told::started()
        .ignores("Released", Nothing::OutOfPlace)
        .ignores("Declined", Nothing::OutOfPlace)
        .hears("Reserved")
        .ignores("NotReserved", Nothing::OutOfPlace)
        .ignores("Released", Nothing::OutOfPlace);
}

#[test]
fn an_early_success_is_noted_and_taken_back_if_the_saga_is() {
    Told::started()
        .hears("Charged")
        .is(Phase::Running(RESERVE), &["Reserve"])
        .ignores("Charged", Nothing::Repeated)
        .hears("NotReserved")
        .is(Phase::Compensating(CHARGE, 1), &["Reserve", "Refund"])
        .hears("Refunded")
        .is(Phase::Compensated, &["Reserve", "Refund"]);
}

#[test]
fn cancelled_at_any_step_before_the_point_of_no_return_it_takes_back() {
    Told::started()
        .on(Input::CancelAsked)
        .is(Phase::Compensating(RESERVE, 1), &["Reserve", "Release"])
        .ignores("NotReserved", Nothing::Late)
        .hears("Released")
        .is(Phase::Compensated, &["Reserve", "Release"]);
    Told::started().hears("Reserved").on(Input::CancelAsked).is(
        Phase::Compensating(CHARGE, 1),
        &["Reserve", "Charge", "Refund"],
    );
}

#[test]
fn past_the_point_of_no_return_a_cancel_is_refused() {
    let confirming = Told::started().hears("Reserved").hears("Charged");
    let completed = confirming
        .refuses(Input::CancelAsked, Refusal::PastReturn)
        .hears("Confirmed");
    completed.refuses(Input::CancelAsked, Refusal::Completed);
}

#[test]
fn a_compensation_without_an_answer_is_sent_again_and_then_shown_to_a_person() {
    let told = Told::started()
        .on(Input::CancelAsked)
        .times_out()
        .is(
            Phase::Compensating(RESERVE, 2),
            &["Reserve", "Release", "Release"],
        )
        .times_out();
    assert_eq!(
        told.state.phase(),
        Phase::Review(RESERVE, Question::Compensation)
    );
    assert_eq!(told.state.deadline(), None);
    let told = told.refuses(Input::Resolved(Resolution::Confirm), Refusal::TakenBack);
    let again = told.on(Input::Resolved(Resolution::Cancel));
    assert_eq!(again.sent.len(), 4);
    assert_eq!(again.hears("Released").state.phase(), Phase::Compensated);
}

#[test]
fn a_compensation_that_is_answered_in_review_needs_no_person() {
    let told = Told::started()
        .on(Input::CancelAsked)
        .times_out()
        .times_out();
    assert_eq!(told.hears("Released").state.phase(), Phase::Compensated);
}

fn in_review() -> Told {
    let told = Told::started().hears("Reserved").hears("Charged");
    let told = told.times_out();
    assert_eq!(
        told.state.phase(),
        Phase::Review(CONFIRM, Question::Outcome)
    );
    told
}

#[test]
fn a_review_is_resolved_by_a_person_or_by_the_answer() {
    let confirmed = in_review().on(Input::Resolved(Resolution::Confirm));
    assert_eq!(confirmed.sent.last(), Some(&"Confirm"));
    assert_eq!(confirmed.hears("Confirmed").state.phase(), Phase::Completed);
    assert_eq!(
        in_review().hears("Confirmed").state.phase(),
        Phase::Completed
    );
    let cancelled = in_review()
        .refuses(Input::CancelAsked, Refusal::InReview)
        .on(Input::Resolved(Resolution::Cancel))
        .ignores("Confirmed", Nothing::Late)
        .hears("Refunded")
        .hears("Released");
    assert_eq!(cancelled.state.phase(), Phase::Compensated);
}

#[test]
fn what_is_not_in_review_is_not_resolved() {
    let cancel = Input::Resolved(Resolution::Cancel);
    Told::started().refuses(cancel, Refusal::NotInReview);
}

#[test]
fn a_deadline_is_looked_at_again_when_it_fires_and_waits_for_replies_that_came_before_it() {
    let told = Told::started();
    let at = told.state.deadline().unwrap();
    assert_eq!(at, START + Duration::from_secs(30));
    let early = at - Duration::from_millis(1);
    let decide = |handled, now| {
        let input = Input::DeadlinePassed(handled);
        told.plan.decide(&told.state, input, now)
    };
    assert_eq!(decide(early, early), Decision::Nothing(Nothing::NotDue));
    assert_eq!(decide(LATER, early), Decision::Nothing(Nothing::NotDue));
    assert_eq!(decide(early, LATER), Decision::Nothing(Nothing::NotDue));
    assert!(matches!(decide(at, at), Decision::Move(_)));
}

#[test]
fn a_stored_state_comes_back_as_it_was() {
    let plan = order();
    for state in [in_review().state, Told::started().times_out().state] {
        let kept = Restored {
            version: state.version(),
            status: state.status(),
            step: state.phase().step().map(StepNo::get),
            attempt: state.phase().attempt(),
            steps: state.steps().to_vec(),
            deadline: state.deadline(),
        };
        let shorter = Restored {
            steps: kept.steps[1..].to_vec(),
            ..kept.clone()
        };
        assert_eq!(State::restore(&plan, kept), Some(state));
        assert_eq!(State::restore(&plan, shorter), None);
    }
}

#[test]
fn what_is_wrong_with_a_plan_is_said_with_step_and_mend() {
    let wrong = |draft: Draft| draft.checked().unwrap_err().to_string();
    let of = |step| wrong(Plan::named("order").step(step));
    for (text, part) in [
        (wrong(Plan::named("order")), "it has no steps"),
        (
            of(Step::named("x")),
            "step \"x\" sends nothing: say by sends(..)",
        ),
        (of(Step::named("x")), "is never done"),
        (of(Step::named("x")), "has no end when nobody answers"),
        (of(Step::named("x")), "can't be taken back"),
        (of(reserve().within(Duration::ZERO)), "timeout out of range"),
        (of(reserve().nothing_to_undo()), "and nothing to undo"),
        (
            of(reserve().undone_by("Free")),
            "compensation without an answer",
        ),
        (of(reserve().point_of_no_return()), "use or_review()"),
        (of(reserve().done_on("NotReserved")), "uses already"),
        (
            wrong(Plan::named("order").step(reserve()).step(reserve())),
            "has the name of another step",
        ),
        (
            wrong(
                Plan::named("order")
                    .step(confirm())
                    .step(reserve().or_review()),
            ),
            "can be refused past the point of no return",
        ),
        (
            wrong(
                Plan::named("order")
                    .step(reserve())
                    .compensation(Policy::fixed(Duration::from_secs(1))),
            ),
            "tried again without an end",
        ),
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
}

#[test]
fn every_path_ends_and_leaves_nothing_half_done() {
    let plan = order();
    let walked = plan.walk();
    assert!(!walked.truncated, "{}", walked.paths.len());
    assert_eq!(walked.stuck, []);
    assert!(walked.paths.len() > 20, "{}", walked.paths.len());
    for path in &walked.paths {
        let told = path.told(&plan).to_string();
        assert!(path.state.status().is_final(), "{told}");
        assert!(path.is_balanced(&plan), "{told}");
    }
    let ends = |status| {
        let mut ends = walked.paths.iter().map(|path| path.state.status());
        ends.any(|end| end == status)
    };
    assert!(ends(Status::Completed) && ends(Status::Compensated));
}

#[test]
fn a_plan_draws_itself() {
    let mermaid = order().to_mermaid();
    for line in [
        "[*] --> do0 : Reserve",
        "do0 --> do1 : Reserved",
        "do1 --> undo0 : Declined",
        "do1 --> undo1 : no answer in 1 min",
        "do2 --> review : no answer in 30 s",
        "undo1 --> undo0 : Refunded",
        "undo0 --> compensated : Released",
    ] {
        assert!(mermaid.contains(line), "{line} in {mermaid}");
    }
    let svg = order().to_svg();
    assert!(svg.starts_with("<svg") && svg.ends_with("</svg>\n"));
    for word in ["Reserve", "Refund", "manual review", "point of no return"] {
        assert!(svg.contains(word), "{word}");
    }
}

fn inputs() -> impl Strategy<Value = Vec<Input>> {
    let reply = (0..3_usize, 0..3_usize).prop_map(|(step, reply)| {
        let reply = [Reply::Done, Reply::Refused, Reply::Undone][reply];
        Input::Reply(StepNo(step), reply)
    });
    let input = prop_oneof![
        6 => reply,
        2 => Just(Input::DeadlinePassed(LATER)),
        1 => Just(Input::CancelAsked),
        1 => Just(Input::Resolved(Resolution::Confirm)),
        1 => Just(Input::Resolved(Resolution::Cancel)),
    ];
    prop::collection::vec(input, 0..40)
}

proptest! {
    #[test]
    fn whatever_comes_in_whatever_order_the_state_is_sound(inputs in inputs()) {
        let plan = order();
        let mut state = plan.begin(START).state;
        let mut taken_back = false;
        for input in inputs {
            let before = state.clone();
            let Decision::Move(next) = plan.decide(&state, input, LATER) else { continue };
            state = next.state;
            prop_assert_eq!(state.version(), before.version() + 1);
            let waits = matches!(state.phase(), Phase::Running(_) | Phase::Compensating(..));
            prop_assert_eq!(state.deadline().is_some(), waits);
            prop_assert!(next.commands.len() <= 1);
            // There is no way forward again once it takes back.
            let forward = matches!(state.phase(), Phase::Running(_) | Phase::Completed);
            prop_assert!(!(taken_back && forward), "{:?} after {:?}", state.phase(), before.phase());
            taken_back |= matches!(state.phase(), Phase::Compensating(..) | Phase::Compensated);
            if state.phase() == Phase::Completed {
                prop_assert!(state.steps().iter().all(|step| *step == StepState::Done));
            }
            if state.phase() == Phase::Compensated {
                let held = [StepState::Done, StepState::Noted, StepState::Undoing, StepState::Sent];
                for step in plan.steps().filter(|step| plan.compensation_of(*step).is_some()) {
                    prop_assert!(!held.contains(&state.steps()[step.0]), "{:?}", state);
                }
            }
        }
    }
}
