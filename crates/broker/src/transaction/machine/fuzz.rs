//! A log that is not what this coordinator would have written, and the time after it.

use std::collections::BTreeSet;

use super::*;
use crate::coordinator::Machine as _;
use crate::coordinator::fuzz::{NOW, read_back, read_damaged, records};
use crate::fuzz::inputs;

fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

/// A record of each state.
fn each_state() -> Vec<Change> {
    let states = [
        State::Empty,
        State::Ongoing,
        State::Preparing(Verdict::Commit),
        State::Preparing(Verdict::Abort),
        State::Complete(Verdict::Commit),
        State::Complete(Verdict::Abort),
    ];
    let of = |(at, state)| Change {
        transactional_id: text(["t", "u"][at % 2]),
        value: Some(Transaction {
            producer: ProducerEpoch {
                id: 1 + at as i64,
                epoch: 2,
            },
            previous_id: if at == 3 { 0 } else { -1 },
            next_id: if at == 2 { 9 } else { -1 },
            last_epoch: at as i16 - 1,
            timeout_ms: 60_000,
            state,
            partitions: Partitions::from([(text("orders"), BTreeSet::from([0, 1]))]),
            update_ms: NOW.unix_ms,
            start_ms: NOW.unix_ms,
        }),
    };
    let forgotten = Change {
        transactional_id: text("t"),
        value: None,
    };
    states
        .into_iter()
        .enumerate()
        .map(of)
        .chain([forgotten])
        .collect()
}

#[test]
fn a_strange_log_of_transactions_is_taken_up_and_ends_them() {
    let records = records("transactions", &each_state());
    inputs(|random| {
        let mut machine = read_back(random, &records, || Machine::new(Config::default(), NOW));
        let mut now = NOW;
        for number in 0..12 {
            now.tick_ms += random.below(100_000) as u64;
            now.unix_ms = now.unix_ms.saturating_add(random.number());
            let id = text(["t", "u"][random.below(2)]);
            match random.below(5) {
                2 => {
                    let end = Request::End {
                        transactional_id: id,
                        producer: ProducerEpoch {
                            id: random.below(8) as i64,
                            epoch: [-1, 1, 2, i16::MAX - 1, i16::MAX][random.below(5)],
                        },
                        verdict: [Verdict::Commit, Verdict::Abort][random.below(2)],
                        epochs: Epochs::Own { fresh_id: Some(98) },
                    };
                    machine.on_request(now, Token(number), end);
                }
                1 => {
                    let init = Request::Init {
                        transactional_id: id,
                        timeout_ms: 1_000,
                        expected: None,
                        fresh_id: 99,
                    };
                    machine.on_request(now, Token(number), init);
                }
                0 => machine.on_request(now, Token(number), Request::Describe(text("t"))),
                _ => machine.on_tick(now),
            }
            machine.take_output();
            machine.deadline();
        }
    });
}

#[test]
fn a_damaged_log_of_transactions_is_taken_up_or_refused_by_name() {
    let changes = each_state();
    inputs(|random| {
        let make = || Machine::new(Config::default(), NOW);
        if let Some(mut machine) = read_damaged(random, &changes, make) {
            machine.replay_done(NOW);
            machine.on_tick(NOW);
            machine.take_output();
        }
    });
}
