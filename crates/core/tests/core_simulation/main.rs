//! Containers of one group, a broker and handlers, all modelled, under seeded schedules of
//! crashes, rebalances, outages, failures and lost replies. A checker holds them to the promise.
//!
//! | command | tries |
//! |---|---|
//! | `cargo test --test core_simulation` | a few hundred fixed seeds |
//! | `ACKWELL_SECONDS=60 cargo test …` | new seeds for a minute |
//! | `ACKWELL_SEEDS=1000000 cargo test …` | a million; `a_million.txt` is what one such run held |
//! | `ACKWELL_SEED=7 cargo test …` | this one, and says what happened last |
//!
//! For many seeds use `cargo test --profile simulation -p ackwell-core --test core_simulation`,
//! which is optimised and still checks arithmetic. A failing seed is narrowed down before it is
//! printed: fewer troubles, fewer records, a shorter time.
//!
//! | file | |
//! |---|---|
//! | `weather.rs` | what a seed stands for: configuration and troubles |
//! | `world.rs` | the queue of what happens when |
//! | `shell.rs` | a container's shell: polls, and carries out what the engine asks for |
//! | `handlers.rs` | runs of handlers, recoveries |
//! | `acks.rs` | acknowledgements in the manual ack modes |
//! | `lists.rs` | handlers that take lists |
//! | `parked.rs` | records of failing keys, in a durable place |
//! | `reading.rs` | partitions that are held, and those that can't be read |
//! | `group.rs`, `broker.rs` | who owns what; logs and committed positions |
//! | `chaos.rs` | what goes wrong |
//! | `checker.rs` | the promise: nothing lost, nothing out of order, nothing twice at once |
//! | `manners.rs` | attempts, waits, pauses and limits as configured |
//! | `campaign.rs`, `seen.rs` | many seeds, and what they held |
//! | `mutations.rs` | each fault built into the engine is noticed |

mod acks;
mod broker;
mod campaign;
mod chaos;
mod checker;
mod dice;
mod group;
mod handlers;
mod lists;
mod manners;
mod member;
#[cfg(feature = "mutations")]
mod mutations;
mod parked;
mod reading;
mod seen;
mod shell;
mod weather;
mod world;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use campaign::Extent;
use weather::{Limits, Troubles};
use world::World;

/// Seeds of an ordinary test run: a second or two in a debug build.
const SEEDS: u64 = 300;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// The limits that a printed replay names.
fn limits() -> Limits {
    let without = std::env::var("ACKWELL_WITHOUT").unwrap_or_default();
    Limits {
        calm_at: number("ACKWELL_CALM").unwrap_or(Limits::NONE.calm_at),
        produced: number("ACKWELL_PRODUCED").unwrap_or(Limits::NONE.produced),
        without: Troubles::named(&without),
    }
}

/// A seed that was not tried before.
fn new_seed() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.map_or(0, |time| time.as_secs() << 20)
}

#[test]
fn the_promise_holds_whatever_happens() {
    if let Some(seed) = number("ACKWELL_SEED") {
        if let Some(explanation) = campaign::explain(seed, &limits()) {
            panic!("{explanation}");
        }
        return;
    }
    let (first, extent) = match (number("ACKWELL_SEEDS"), number("ACKWELL_SECONDS")) {
        (Some(count), _) => (0, Extent::Count(count)),
        (None, Some(seconds)) => (new_seed(), Extent::Time(Duration::from_secs(seconds))),
        (None, None) => (0, Extent::Count(SEEDS)),
    };
    let report = campaign::run(first, extent).unwrap_or_else(|seed| {
        let limits = campaign::shrink(seed, Limits::NONE);
        panic!("{}", campaign::explain(seed, &limits).unwrap_or_default());
    });
    println!("{report}");
    if report.schedules >= SEEDS {
        let never = report.seen.never();
        assert_eq!(never, [""; 0], "schedules must make everything happen");
    }
}

#[test]
fn the_same_seed_plays_the_same() {
    for seed in 0..20 {
        let play = || World::new(seed, &Limits::NONE).run();
        assert_eq!(play(), play());
    }
}
