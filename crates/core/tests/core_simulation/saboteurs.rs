//! Broken engines, to see that the checker notices.

use ackwell_core::engine::{End, Event as CoreEvent, RunId};

use crate::brain::{Effect, Event, HONEST, Tampering};
use crate::world::World;

/// Seeds within which a broken engine must be caught.
const SEEDS: u64 = 100;

/// The violation that gives a broken engine away.
#[expect(clippy::expect_used, reason = "a test fails by it")]
fn caught(tampering: Tampering) -> String {
    let found = (0..SEEDS).find_map(|seed| World::new(seed, tampering).run().err());
    found.expect("a broken engine went unnoticed")
}

fn assert_caught(tampering: Tampering, as_what: &str) {
    let violation = caught(tampering);
    assert!(violation.contains(as_what), "{violation}");
}

#[test]
fn a_position_that_runs_ahead_is_caught() {
    let effect = |mut effect: Effect| {
        if let Effect::Commit { positions, .. } = &mut effect {
            positions.iter_mut().for_each(|position| {
                position.offset.0 += 1;
                position.metadata.clear();
            });
        }
        (vec![effect], vec![])
    };
    assert_caught(
        Tampering { effect, ..HONEST },
        "passes the unsettled record",
    );
}

#[test]
fn a_dead_letter_that_is_not_awaited_is_caught() {
    let effect = |effect: Effect| match effect {
        Effect::Recover { recovery, .. } => (
            vec![],
            vec![CoreEvent::Recovered {
                recovery,
                result: Ok(()),
            }],
        ),
        other => (vec![other], vec![]),
    };
    assert_caught(Tampering { effect, ..HONEST }, "settled");
}

#[test]
fn settling_at_delivery_is_caught() {
    let effect = |effect: Effect| {
        let early = match &effect {
            Effect::Dispatch { run, records, .. } => {
                vec![CoreEvent::Progress {
                    run: *run,
                    settled: records.len(),
                }]
            }
            _ => vec![],
        };
        (vec![effect], early)
    };
    assert_caught(Tampering { effect, ..HONEST }, "settled");
}

#[test]
fn forgetting_what_is_behind_a_failure_is_caught() {
    let event = |event: &mut Event| {
        if let CoreEvent::Finished { end, .. } = event {
            *end = End::Complete;
        }
    };
    assert_caught(Tampering { event, ..HONEST }, "settled");
}

#[test]
fn handing_over_without_a_drain_is_caught() {
    let event = |event: &mut Event| {
        if let CoreEvent::Revoke(partitions) = event {
            *event = CoreEvent::Lost(std::mem::take(partitions));
        }
    };
    assert_caught(Tampering { event, ..HONEST }, "hands over");
}

#[test]
fn a_lane_out_of_order_is_caught() {
    let effect = |mut effect: Effect| {
        if let Effect::Dispatch { records, .. } = &mut effect {
            records.reverse();
        }
        (vec![effect], vec![])
    };
    assert_caught(Tampering { effect, ..HONEST }, "out of order");
}

#[test]
fn two_runs_of_one_lane_at_once_are_caught() {
    let effect = |effect: Effect| match effect {
        Effect::Dispatch {
            run,
            partition,
            lane,
            attempt,
            mut records,
        } if records.len() > 1 => {
            let rest = records.split_off(1);
            let other = RunId(u64::MAX - run.0);
            let first = Effect::Dispatch {
                run,
                partition,
                lane,
                attempt,
                records,
            };
            (
                vec![
                    first,
                    Effect::Dispatch {
                        run: other,
                        partition,
                        lane,
                        attempt: 1,
                        records: rest,
                    },
                ],
                vec![],
            )
        }
        other => (vec![other], vec![]),
    };
    assert_caught(Tampering { effect, ..HONEST }, "");
}

#[test]
fn a_claim_of_more_than_is_settled_is_caught() {
    use ackwell_core::metadata::encode;
    use ackwell_core::offset::{Offset, Span};
    let effect = |mut effect: Effect| {
        if let Effect::Commit { positions, .. } = &mut effect {
            for position in positions {
                let claim = Span {
                    first: Offset(position.offset.0 + 1),
                    count: 3,
                };
                position.metadata = encode(position.offset, [claim].into_iter(), 100);
            }
        }
        (vec![effect], vec![])
    };
    assert_caught(Tampering { effect, ..HONEST }, "metadata claims");
}

#[test]
fn an_engine_that_misses_its_deadlines_is_caught() {
    assert_caught(
        Tampering {
            keeps_time: false,
            ..HONEST
        },
        "stalled",
    );
}
