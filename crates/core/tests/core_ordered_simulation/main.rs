//! Ordered retry with several owners of a partition, a database and a broker, all modelled, under
//! a seeded schedule of crashes, rebalances, owners that have not heard of them, lost commits,
//! groups that do not commit and dead letters that can't be written. A checker holds it to the
//! promise, and broken versions of it show that the checker notices.
//!
//! A failing seed is printed; `ACKWELL_SEED=n cargo test --test core_ordered_simulation` replays
//! it, and `ACKWELL_SEEDS=n` tries that many.

mod checker;
mod database;
#[path = "../core_simulation/dice.rs"]
#[allow(dead_code, reason = "shared with the simulation of the container")]
mod dice;
mod member;
mod saboteurs;
mod world;

use world::{Faults, Seen, World};

/// Seeds of an ordinary test run: a few seconds in a debug build.
const SEEDS: u64 = 150;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

#[test]
fn the_promise_holds_whatever_happens() {
    let seeds = match number("ACKWELL_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("ACKWELL_SEEDS").unwrap_or(SEEDS),
    };
    let mut seen = Seen::default();
    for seed in seeds.clone() {
        match World::new(seed, Faults::default()).run() {
            Ok(found) => seen.add(&found),
            Err(violation) => panic!("seed {seed}: {violation}\nreplay with ACKWELL_SEED={seed}"),
        }
    }
    println!("{seen:?}");
    if seeds.end - seeds.start >= SEEDS {
        let never = seen.never();
        assert!(never.is_empty(), "never happened: {never:?}");
    }
}

#[test]
fn the_same_seed_plays_the_same() {
    for seed in 0..20 {
        let run = || World::new(seed, Faults::default()).run();
        assert_eq!(run(), run());
    }
}
