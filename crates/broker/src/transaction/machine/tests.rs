//! The decisions, one by one: a world with a clock that the test turns and a log that always lasts.

use std::collections::BTreeSet;

use super::*;
use crate::coordinator::Machine as _;

pub(super) const TIMEOUT_MS: i32 = 60_000;

pub(super) fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

pub(super) fn partitions(indexes: &[i32]) -> Partitions {
    Partitions::from([(
        text("orders"),
        indexes.iter().copied().collect::<BTreeSet<_>>(),
    )])
}

pub(super) struct World {
    pub(super) machine: Machine,
    now: Now,
    log: Vec<Change>,
    replies: BTreeMap<Token, Response>,
    pub(super) actions: Vec<Action>,
    next: u64,
}

impl World {
    pub(super) fn new() -> Self {
        let now = Now {
            tick_ms: 0,
            unix_ms: 1_700_000_000_000,
        };
        Self {
            machine: Machine::new(Config::default(), now),
            now,
            log: Vec::new(),
            replies: BTreeMap::new(),
            actions: Vec::new(),
            next: 0,
        }
    }

    pub(super) fn ask(&mut self, request: Request) -> Token {
        self.next += 1;
        let token = Token(self.next);
        self.machine.on_request(self.now, token, request);
        self.collect();
        token
    }

    fn collect(&mut self) {
        let output = self.machine.take_output();
        self.replies.extend(output.replies);
        self.log.extend(output.changes);
        self.actions.extend(output.actions);
    }

    pub(super) fn reply(&mut self, token: Token) -> Option<Response> {
        self.replies.remove(&token)
    }

    pub(super) fn pass(&mut self, ms: u64) {
        self.now.tick_ms += ms;
        self.now.unix_ms += ms as i64;
        self.machine.on_tick(self.now);
        self.collect();
    }

    /// Carries out what the machine asked for.
    pub(super) fn act(&mut self) {
        for action in std::mem::take(&mut self.actions) {
            let done = match action {
                Action::Admit { token, .. } => Request::Admitted(token),
                Action::End {
                    transactional_id,
                    producer,
                    ..
                } => Request::Ended {
                    transactional_id,
                    producer,
                },
            };
            self.ask(done);
        }
    }

    pub(super) fn restart(&mut self) {
        let mut machine = Machine::new(Config::default(), self.now);
        for change in &self.log {
            machine.replay(change.clone());
        }
        machine.replay_done(self.now);
        self.machine = machine;
        self.actions.clear();
        self.collect();
    }

    pub(super) fn init_as(&mut self, expected: Option<ProducerEpoch>) -> Token {
        let fresh_id = 1_000 + self.next as i64;
        self.ask(Request::Init {
            transactional_id: text("t"),
            timeout_ms: TIMEOUT_MS,
            expected,
            fresh_id,
        })
    }

    pub(super) fn init(&mut self) -> ProducerEpoch {
        let token = self.init_as(None);
        self.act();
        match self.reply(token) {
            Some(Response::Init(Ok(producer))) => producer,
            other => panic!("{other:?}"),
        }
    }

    pub(super) fn add(&mut self, producer: ProducerEpoch, indexes: &[i32]) -> Token {
        self.ask(Request::Add {
            transactional_id: text("t"),
            producer,
            partitions: partitions(indexes),
        })
    }

    pub(super) fn end(&mut self, producer: ProducerEpoch, verdict: Verdict) -> Token {
        self.ask(Request::End {
            transactional_id: text("t"),
            producer,
            verdict,
            epochs: Epochs::Shared,
        })
    }

    pub(super) fn open(&mut self, indexes: &[i32]) -> ProducerEpoch {
        let producer = self.init();
        let token = self.add(producer, indexes);
        self.act();
        assert_eq!(self.reply(token), Some(Response::Admitted));
        producer
    }

    pub(super) fn refused(&mut self, token: Token) -> ResponseError {
        match self.reply(token) {
            Some(
                Response::Init(Err(error))
                | Response::Done(Err(error))
                | Response::Ended(Err(error)),
            ) => error,
            other => panic!("{other:?}"),
        }
    }

    pub(super) fn state(&self) -> State {
        self.machine.ids[&text("t")].transaction.state
    }
}

#[test]
fn each_start_of_a_producer_is_a_new_epoch_of_one_id() {
    let mut world = World::new();
    let (first, second) = (world.init(), world.init());
    assert_eq!((first.epoch, second.epoch), (0, 1));
    assert_eq!(first.id, second.id);
}

#[test]
fn an_older_epoch_is_fenced() {
    let mut world = World::new();
    let first = world.init();
    world.init();
    let token = world.add(first, &[0]);
    assert_eq!(world.refused(token), ResponseError::ProducerFenced);
    let token = world.end(first, Verdict::Commit);
    assert_eq!(world.refused(token), ResponseError::ProducerFenced);
    let stranger = ProducerEpoch { id: 9, epoch: 0 };
    let token = world.add(stranger, &[0]);
    assert_eq!(
        world.refused(token),
        ResponseError::InvalidProducerIdMapping
    );
}

#[test]
fn a_partition_is_admitted_before_the_producer_hears_that_it_may_write() {
    let mut world = World::new();
    let producer = world.init();
    let token = world.add(producer, &[0]);
    assert_eq!(world.reply(token), None);
    world.act();
    assert_eq!(world.reply(token), Some(Response::Admitted));
    let again = world.add(producer, &[0]);
    assert_eq!(world.reply(again), Some(Response::Done(Ok(()))));
    assert_eq!(world.actions, []);
}

#[test]
fn a_commit_reaches_every_partition_and_then_is_complete() {
    let mut world = World::new();
    let producer = world.open(&[0]);
    world.add(producer, &[2]);
    world.act();
    let token = world.end(producer, Verdict::Commit);
    assert_eq!(world.reply(token), Some(Response::Ended(Ok(producer))));
    assert_eq!(world.state(), State::Preparing(Verdict::Commit));
    assert_eq!(
        world.actions,
        [Action::End {
            transactional_id: text("t"),
            producer,
            verdict: Verdict::Commit,
            partitions: partitions(&[0, 2]),
        }]
    );
    world.act();
    assert_eq!(world.state(), State::Complete(Verdict::Commit));
    let again = world.end(producer, Verdict::Commit);
    assert_eq!(world.reply(again), Some(Response::Ended(Ok(producer))));
    let other = world.end(producer, Verdict::Abort);
    assert_eq!(world.refused(other), ResponseError::InvalidTxnState);
}

#[test]
fn an_end_without_a_transaction_is_refused() {
    let mut world = World::new();
    let producer = world.init();
    let token = world.end(producer, Verdict::Commit);
    assert_eq!(world.refused(token), ResponseError::InvalidTxnState);
}

#[test]
fn the_next_transaction_waits_until_the_one_before_has_reached_all() {
    let mut world = World::new();
    let producer = world.open(&[0]);
    world.end(producer, Verdict::Commit);
    let waits = world.add(producer, &[1]);
    let second = world.add(producer, &[1]);
    assert_eq!(world.reply(waits), None);
    assert_eq!(world.refused(second), ResponseError::ConcurrentTransactions);
    world.act();
    world.act();
    assert_eq!(world.reply(waits), Some(Response::Admitted));
    assert_eq!(world.state(), State::Ongoing);
}

#[test]
fn who_waited_long_enough_is_told_to_come_back() {
    let mut world = World::new();
    let producer = world.open(&[0]);
    world.end(producer, Verdict::Commit);
    let waits = world.add(producer, &[1]);
    world.pass(1_000);
    assert_eq!(world.refused(waits), ResponseError::ConcurrentTransactions);
}

#[test]
fn a_successor_aborts_what_was_open_with_an_epoch_that_nobody_has() {
    let mut world = World::new();
    let first = world.open(&[0]);
    let token = world.init_as(None);
    assert_eq!(world.reply(token), None);
    let Some(Action::End {
        producer, verdict, ..
    }) = world.actions.first()
    else {
        panic!("{:?}", world.actions);
    };
    assert_eq!(
        (producer.epoch, *verdict),
        (first.epoch + 1, Verdict::Abort)
    );
    world.act();
    let Some(Response::Init(Ok(second))) = world.reply(token) else {
        panic!("not answered");
    };
    assert_eq!(second.epoch, first.epoch + 2);
}

#[test]
fn a_transaction_past_its_timeout_is_aborted_and_its_producer_fenced() {
    let mut world = World::new();
    let producer = world.open(&[0]);
    world.pass(TIMEOUT_MS as u64 - 1);
    assert_eq!(world.state(), State::Ongoing);
    world.pass(1);
    assert_eq!(world.state(), State::Preparing(Verdict::Abort));
    let late = world.end(producer, Verdict::Commit);
    assert_eq!(world.refused(late), ResponseError::ProducerFenced);
}

#[test]
fn a_timeout_goes_on_over_a_restart() {
    let mut world = World::new();
    world.open(&[0]);
    world.pass(40_000);
    world.restart();
    world.pass(19_999);
    assert_eq!(world.state(), State::Ongoing);
    world.pass(1);
    assert_eq!(world.state(), State::Preparing(Verdict::Abort));
}

#[test]
fn what_was_decided_is_carried_out_after_a_restart() {
    let mut world = World::new();
    let producer = world.open(&[0, 1]);
    world.end(producer, Verdict::Commit);
    world.restart();
    let incomplete = world.ask(Request::Incomplete);
    assert_eq!(
        world.reply(incomplete),
        Some(Response::Incomplete(vec![(producer, partitions(&[0, 1]))]))
    );
    world.act();
    assert_eq!(world.state(), State::Complete(Verdict::Commit));
}

#[test]
fn a_producer_that_goes_on_gets_the_next_epoch_once() {
    let mut world = World::new();
    let first = world.init();
    for _ in 0..2 {
        let token = world.init_as(Some(first));
        let Some(Response::Init(Ok(second))) = world.reply(token) else {
            panic!("not answered");
        };
        assert_eq!(second.epoch, first.epoch + 1, "asking twice is one step");
        world.restart();
    }
    world.init();
    let token = world.init_as(Some(first));
    assert_eq!(world.refused(token), ResponseError::ProducerFenced);
}

#[test]
fn when_its_epochs_are_used_up_a_producer_gets_a_new_id() {
    let mut world = World::new();
    let first = world.init();
    if let Some(entry) = world.machine.ids.get_mut(&text("t")) {
        entry.transaction.producer.epoch = i16::MAX - 1;
    }
    let second = world.init();
    assert_ne!(second.id, first.id);
    assert_eq!(second.epoch, 0);
    let last = ProducerEpoch {
        epoch: i16::MAX - 1,
        ..first
    };
    let token = world.init_as(Some(last));
    assert_eq!(world.refused(token), ResponseError::ProducerFenced);
}

#[test]
fn a_producer_whose_new_id_got_lost_is_given_it_again() {
    let mut world = World::new();
    let mut last = world.init();
    last.epoch = i16::MAX - 1;
    if let Some(entry) = world.machine.ids.get_mut(&text("t")) {
        entry.transaction.producer = last;
    }
    let mut given = Vec::new();
    for _ in 0..2 {
        let token = world.init_as(Some(last));
        given.push(world.reply(token));
    }
    assert!(matches!(given[0], Some(Response::Init(Ok(_)))));
    assert_eq!(given[0], given[1]);
}

#[test]
fn timeouts_and_ids_out_of_range_are_refused() {
    let mut world = World::new();
    for (id, timeout_ms, error) in [
        ("t", 0, ResponseError::InvalidTransactionTimeout),
        ("t", 900_001, ResponseError::InvalidTransactionTimeout),
        ("", 1, ResponseError::InvalidRequest),
    ] {
        let token = world.ask(Request::Init {
            transactional_id: text(id),
            timeout_ms,
            expected: None,
            fresh_id: 1,
        });
        assert_eq!(world.refused(token), error);
    }
    assert!(world.machine.ids.is_empty());
}

#[test]
fn an_id_that_nobody_uses_is_forgotten_and_an_open_one_is_not() {
    let mut world = World::new();
    world.init();
    world.pass(7 * 24 * 60 * 60 * 1_000);
    assert!(world.machine.ids.is_empty());
    world.restart();
    assert!(world.machine.ids.is_empty());
}

#[test]
fn operators_see_transactions_by_state_producer_and_age() {
    let mut world = World::new();
    let producer = world.open(&[0]);
    world.pass(500);
    let mut list = |filter: Filter| {
        let token = world.ask(Request::List(filter));
        match world.reply(token) {
            Some(Response::Listed(listed)) => listed.len(),
            other => panic!("{other:?}"),
        }
    };
    let state = |name: &str| Filter {
        states: BTreeSet::from([text(name)]),
        ..Filter::default()
    };
    let age = |ms| Filter {
        open_longer_ms: Some(ms),
        ..Filter::default()
    };
    let of = |id| Filter {
        producer_ids: BTreeSet::from([id]),
        ..Filter::default()
    };
    assert_eq!(list(Filter::default()), 1);
    assert_eq!((list(state("Ongoing")), list(state("Empty"))), (1, 0));
    assert_eq!((list(age(499)), list(age(500))), (1, 0));
    assert_eq!((list(of(producer.id)), list(of(7))), (1, 0));
}
