//! The schedule: who does what, and what goes wrong.
#![allow(clippy::unwrap_used, reason = "a plan of a test")]

use std::time::Duration;

use ackwell_core::RetryPolicy;
use ackwell_core::Timestamp;
use ackwell_core::saga::{
    Command, Decision, Happening, Input, Move, Nothing, Phase, Plan, Question, Reply, Resolution,
    State, Status, Step, StepNo, StepState, Which,
};

use crate::dice::Dice;
use crate::participant::{Held, Participant};

const SAGAS: usize = 6;
/// When nothing goes wrong any more, and when all must be over; in steps.
const CALM_AT: u32 = 600;
const END_AT: u32 = 6_000;
/// Messages under way at most.
const UNDER_WAY_MAX: usize = 400;

/// What a broken orchestrator does wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    None,
    /// A success that comes when the step was given up changes nothing.
    LateSuccessIgnored,
    /// A step that was not answered in time counts as not done.
    UnknownOutcomeTakenForRefused,
    /// A compensation counts as carried out when it is sent.
    CompensationNotAwaited,
    /// A move is written whatever version is there.
    VersionNotChecked,
    /// What a deadline was for is not looked at again when it fires.
    DeadlineNotLookedAt,
    /// Deadlines do not survive.
    DeadlineForgotten,
    /// A refusal is taken for a success.
    RefusalTakenForSuccess,
    /// The earliest step is taken back first.
    TakenBackInOrder,
}

impl Fault {
    pub(crate) const ALL: [Fault; 8] = [
        Fault::LateSuccessIgnored,
        Fault::UnknownOutcomeTakenForRefused,
        Fault::CompensationNotAwaited,
        Fault::VersionNotChecked,
        Fault::DeadlineNotLookedAt,
        Fault::DeadlineForgotten,
        Fault::RefusalTakenForSuccess,
        Fault::TakenBackInOrder,
    ];
}

const NAMES: [&str; 13] = [
    "completed",
    "compensated",
    "timed out",
    "cancelled",
    "cancel refused",
    "late successes",
    "repeated",
    "reviews",
    "resolved",
    "overtaken",
    "taken back",
    "lost",
    "duplicated",
];

/// How often the rare things happened.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Seen([u64; NAMES.len()]);

impl Seen {
    pub(crate) fn add(&mut self, other: &Seen) {
        for (sum, more) in self.0.iter_mut().zip(other.0) {
            *sum += more;
        }
    }

    pub(crate) fn never(&self) -> Vec<&'static str> {
        let counted = NAMES.iter().zip(self.0);
        let never = counted.filter(|(_, count)| *count == 0);
        never.map(|(name, _)| *name).collect()
    }

    fn count(&mut self, name: &str) {
        if let Some(at) = NAMES.iter().position(|known| *known == name) {
            self.0[at] += 1;
        }
    }
}

/// A message under way.
#[derive(Debug, Clone, Copy)]
enum Message {
    Command(usize, Command),
    Reply(usize, StepNo, Reply),
}

/// Somebody who has read a saga and decided, and has not written yet.
#[derive(Debug, Clone)]
struct Deciding {
    saga: usize,
    read: u64,
    next: Move,
}

/// What is durable of one saga.
#[derive(Debug, Clone)]
struct Stored {
    state: State,
    happenings: Vec<Happening>,
    undos: Vec<StepNo>,
    resolved: usize,
}

pub(crate) struct World {
    dice: Dice,
    fault: Fault,
    plan: Plan,
    now: Timestamp,
    sagas: Vec<Stored>,
    participants: Vec<Participant>,
    under_way: Vec<Message>,
    deciding: Vec<Deciding>,
    seen: Seen,
}

fn plan() -> Plan {
    let ms = Duration::from_millis;
    let retry = RetryPolicy::exponential(ms(40), 2.0).max_attempts(3);
    let reserve = Step::named("reserve")
        .sends("Reserve")
        .done_on("Reserved")
        .refused_on("NotReserved")
        .undone_by("Release")
        .undone_on("Released")
        .within(ms(120))
        .or_compensate();
    let charge = Step::named("charge")
        .sends("Charge")
        .done_on("Charged")
        .refused_on("Declined")
        .undone_by("Refund")
        .undone_on("Refunded")
        .within(ms(120))
        .or_compensate();
    let confirm = Step::named("confirm")
        .sends("Confirm")
        .done_on("Confirmed")
        .nothing_to_undo()
        .point_of_no_return()
        .within(ms(120))
        .or_review();
    let draft = Plan::named("order").compensation(retry);
    draft
        .step(reserve)
        .step(charge)
        .step(confirm)
        .checked()
        .unwrap()
}

impl World {
    pub(crate) fn new(seed: u64, fault: Fault) -> Self {
        let (plan, now) = (plan(), Timestamp::from_millis(1_000));
        let mut participants = vec![Participant::default(); 3];
        participants[2].always = true;
        let mut world = World {
            dice: Dice::new(seed),
            fault,
            now,
            sagas: Vec::new(),
            participants,
            under_way: Vec::new(),
            deciding: Vec::new(),
            seen: Seen::default(),
            plan,
        };
        for saga in 0..SAGAS {
            let first = world.plan.begin(now);
            world.sagas.push(Stored {
                state: first.state.clone(),
                happenings: vec![first.happening],
                undos: Vec::new(),
                resolved: 0,
            });
            world.send(saga, &first.commands, true);
        }
        world
    }

    pub(crate) fn run(mut self) -> Result<Seen, String> {
        for step in 0..END_AT {
            let trouble = step < CALM_AT;
            self.now += Duration::from_millis(self.dice.in_range(0, 4));
            match self.dice.in_range(0, 99) {
                0..45 => self.deliver(trouble)?,
                45..60 => self.finish_work(),
                60..75 => self.fire(trouble)?,
                75..95 => self.write(trouble)?,
                95..97 if trouble => self.ask(Input::CancelAsked)?,
                _ => self.review()?,
            }
            if !trouble && self.is_over() {
                break;
            }
        }
        self.check_end()?;
        Ok(self.seen)
    }

    fn is_over(&self) -> bool {
        let over = |stored: &Stored| stored.state.status().is_final();
        let idle =
            |participant: &Participant| participant.held.values().all(|held| *held != Held::InWork);
        self.under_way.is_empty()
            && self.deciding.is_empty()
            && self.sagas.iter().all(over)
            && self.participants.iter().all(idle)
    }

    fn send(&mut self, saga: usize, commands: &[Command], trouble: bool) {
        for command in commands {
            self.post(Message::Command(saga, *command), trouble);
        }
    }

    fn post(&mut self, message: Message, trouble: bool) {
        if trouble && self.dice.percent(8) {
            return self.seen.count("lost");
        }
        if trouble && self.dice.percent(15) && self.under_way.len() < UNDER_WAY_MAX {
            self.seen.count("duplicated");
            self.under_way.push(message);
        }
        self.under_way.push(message);
    }

    /// Delivers any message: there is no order among them.
    fn deliver(&mut self, trouble: bool) -> Result<(), String> {
        if self.under_way.is_empty() {
            return Ok(());
        }
        let at = self.dice.in_range(0, self.under_way.len() as u64 - 1) as usize;
        match self.under_way.swap_remove(at) {
            Message::Command(saga, Command { step, which }) => {
                let participant = &mut self.participants[step.get()];
                if let Some(reply) = participant.handle(saga, which, &mut self.dice) {
                    self.post(Message::Reply(saga, step, reply), trouble);
                }
            }
            Message::Reply(saga, step, reply) => {
                // Taken back before it was durable: it is read again.
                if trouble && self.dice.percent(5) {
                    self.seen.count("taken back");
                    self.under_way.push(Message::Reply(saga, step, reply));
                    return Ok(());
                }
                let reply = match reply {
                    Reply::Refused if self.fault == Fault::RefusalTakenForSuccess => Reply::Done,
                    reply => reply,
                };
                self.tell(saga, Input::Reply(step, reply))?;
            }
        }
        Ok(())
    }

    fn finish_work(&mut self) {
        let saga = self.dice.in_range(0, SAGAS as u64 - 1) as usize;
        for step in self.plan.steps() {
            if self.dice.percent(30)
                && let Some(reply) = self.participants[step.get()].finish(saga)
            {
                // It has said before that there was nothing; whoever loses this loses the promise.
                self.post(Message::Reply(saga, step, reply), false);
            }
        }
    }

    /// A monitor reads a saga and decides; it writes later, unless it is alone.
    fn fire(&mut self, trouble: bool) -> Result<(), String> {
        let saga = self.dice.in_range(0, SAGAS as u64 - 1) as usize;
        let state = &self.sagas[saga].state;
        let blind = self.fault == Fault::DeadlineNotLookedAt && self.dice.percent(20);
        let at = if blind {
            Timestamp::from_millis(i64::MAX)
        } else {
            self.now
        };
        if self.fault == Fault::DeadlineForgotten {
            return Ok(());
        }
        let Decision::Move(next) = self.plan.decide(state, Input::DeadlinePassed(at), at) else {
            return Ok(());
        };
        let early = state.deadline().is_none_or(|deadline| deadline > self.now);
        if early {
            return Err(format!("saga {saga}: a deadline fired early"));
        }
        let read = state.version();
        self.deciding.push(Deciding { saga, read, next });
        if trouble && self.dice.percent(50) {
            return Ok(());
        }
        self.write(false)
    }

    /// Somebody who has decided writes; the version says whether it was overtaken.
    fn write(&mut self, trouble: bool) -> Result<(), String> {
        let Some(Deciding { saga, read, next }) = self.deciding.pop() else {
            return Ok(());
        };
        if trouble && self.dice.percent(10) {
            self.seen.count("taken back");
            return Ok(());
        }
        let overtaken = self.sagas[saga].state.version() != read;
        if overtaken {
            self.seen.count("overtaken");
            if self.fault != Fault::VersionNotChecked {
                return Ok(());
            }
        }
        self.commit(saga, next)
    }

    /// A reply, or what a person asks for, is decided and written in one transaction.
    fn tell(&mut self, saga: usize, input: Input) -> Result<(), String> {
        let state = &self.sagas[saga].state;
        if let Input::Reply(step, Reply::Done) = input {
            let given_up = matches!(
                state.steps()[step.get()],
                StepState::Undoing | StepState::Undone | StepState::Refused
            );
            if given_up && self.fault == Fault::LateSuccessIgnored {
                return Ok(());
            }
            if given_up {
                self.seen.count("late successes");
            }
        }
        match self.plan.decide(state, input, self.now) {
            Decision::Move(next) => self.commit(saga, next)?,
            Decision::Nothing(Nothing::Repeated) => self.seen.count("repeated"),
            Decision::Refused(_) if input == Input::CancelAsked => {
                self.seen.count("cancel refused");
            }
            Decision::Nothing(_) | Decision::Refused(_) => {}
        }
        Ok(())
    }

    /// State, history and commands become durable together.
    fn commit(&mut self, saga: usize, next: Move) -> Result<(), String> {
        let trouble = self.dice.percent(50);
        self.check_order(saga, &next)?;
        let before = self.sagas[saga].state.phase();
        let stored = &mut self.sagas[saga];
        if next.state.version() <= stored.state.version() {
            return Err(format!(
                "saga {saga}: version {} twice",
                next.state.version()
            ));
        }
        stored.state = next.state;
        stored.happenings.push(next.happening);
        let undos = next
            .commands
            .iter()
            .filter(|command| command.which == Which::Undo);
        stored.undos.extend(undos.map(|command| command.step));
        match next.happening {
            Happening::TimedOut(_) => self.seen.count("timed out"),
            Happening::CancelAsked => self.seen.count("cancelled"),
            Happening::Resolved(_) => {
                self.sagas[saga].resolved += 1;
                self.seen.count("resolved");
            }
            _ => {}
        }
        if matches!(self.sagas[saga].state.phase(), Phase::Review(..))
            && !matches!(before, Phase::Review(..))
        {
            self.seen.count("reviews");
        }
        self.send(saga, &next.commands, trouble);
        self.sabotage(saga)
    }

    /// What a broken orchestrator does in the same breath.
    fn sabotage(&mut self, saga: usize) -> Result<(), String> {
        let Phase::Compensating(step, 1) = self.sagas[saga].state.phase() else {
            return Ok(());
        };
        let timed_out = self.sagas[saga].happenings.last() == Some(&Happening::TimedOut(step));
        let skips = match self.fault {
            Fault::CompensationNotAwaited => true,
            Fault::UnknownOutcomeTakenForRefused if timed_out => {
                let its = |message: &Message| matches!(message, Message::Command(of, command) if *of == saga && command.step == step);
                self.under_way.retain(|message| !its(message));
                true
            }
            _ => false,
        };
        match skips {
            true => self.tell(saga, Input::Reply(step, Reply::Undone)),
            false => Ok(()),
        }
    }

    /// A step is taken back when all later ones are.
    fn check_order(&self, saga: usize, next: &Move) -> Result<(), String> {
        for Command { step, which } in &next.commands {
            let step = match self.fault {
                Fault::TakenBackInOrder if *which == Which::Undo => self.plan.steps().next(),
                _ => Some(*step),
            };
            let Some(step) = step else { continue };
            let open = [StepState::Done, StepState::Noted];
            let later = next.state.steps().iter().enumerate().skip(step.get() + 1);
            let mut undoable = later.filter(|(at, _)| *at < 2);
            let first = !self.sagas[saga].undos.contains(&step);
            let undoing = next.state.steps().get(step.get() + 1) == Some(&StepState::Undoing);
            let early =
                undoable.any(|(_, state)| open.contains(state)) || (undoing && step.get() < 1);
            if *which == Which::Undo
                && first
                && early
                && next.happening != Happening::DoneUnasked(step)
            {
                return Err(format!(
                    "saga {saga}: step {step} is taken back before a later one"
                ));
            }
        }
        Ok(())
    }

    fn ask(&mut self, input: Input) -> Result<(), String> {
        let saga = self.dice.in_range(0, SAGAS as u64 - 1) as usize;
        self.tell(saga, input)
    }

    /// A person looks at a saga in review, if there is one.
    fn review(&mut self) -> Result<(), String> {
        let in_review = |stored: &Stored| matches!(stored.state.phase(), Phase::Review(..));
        let Some(saga) = self.sagas.iter().position(in_review) else {
            return Ok(());
        };
        let outcome = matches!(
            self.sagas[saga].state.phase(),
            Phase::Review(_, Question::Outcome)
        );
        let confirmed = self.participants[2].held.contains_key(&saga);
        // Whoever cancels has looked that the last step was not done, and prevents it.
        let resolution = match outcome && (confirmed || self.dice.percent(50)) {
            true => Resolution::Confirm,
            false => Resolution::Cancel,
        };
        if outcome && resolution == Resolution::Cancel {
            self.participants[2].held.insert(saga, Held::Undone);
        }
        self.tell(saga, Input::Resolved(resolution))
    }

    fn check_end(&mut self) -> Result<(), String> {
        for saga in 0..SAGAS {
            let stored = &self.sagas[saga];
            let held = |step: usize| self.participants[step].held.get(&saga);
            match stored.state.status() {
                Status::Completed => {
                    if (0..3).any(|step| held(step) != Some(&Held::Done)) {
                        return Err(format!("saga {saga} is completed, and not all is done"));
                    }
                    if !stored.undos.is_empty() {
                        return Err(format!("saga {saga} is completed, and has taken back"));
                    }
                    self.seen.count("completed");
                }
                Status::Compensated => {
                    if let Some(step) = (0..3).find(|step| held(*step) == Some(&Held::Done)) {
                        return Err(format!(
                            "saga {saga} is compensated, and step {step} is done"
                        ));
                    }
                    self.seen.count("compensated");
                }
                status => return Err(format!("saga {saga} does not end: {status}")),
            }
            let stored = &self.sagas[saga];
            let fired = stored.happenings.iter();
            let fired = fired.filter(|happening| matches!(happening, Happening::TimedOut(_)));
            if fired.count() > 1 + stored.resolved {
                return Err(format!("saga {saga}: a deadline fired twice"));
            }
        }
        Ok(())
    }
}
