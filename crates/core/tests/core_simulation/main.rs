//! Containers of one group, a broker and handlers, all modelled, under a seeded schedule of
//! crashes, rebalances, outages, failures and lost replies. A checker holds them to the promise.
//!
//! A failing seed is printed; `ACKWELL_SEED=n cargo test --test core_simulation` replays it, and
//! `ACKWELL_SEEDS=n` tries that many.

mod brain;
mod broker;
mod chaos;
mod checker;
mod dice;
mod member;
mod saboteurs;
mod world;

use brain::HONEST;
use world::{Seen, World};

/// Seeds of an ordinary test run: a few seconds in a debug build.
const SEEDS: u64 = 100;

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
        match World::new(seed, HONEST).run() {
            Ok(found) => seen.add(&found),
            Err(violation) => panic!("seed {seed}: {violation}\nreplay with ACKWELL_SEED={seed}"),
        }
    }
    println!("{seen:?}");
    if seeds.end - seeds.start >= SEEDS {
        assert_eq!(
            seen.never(),
            [""; 0],
            "the schedule must make everything happen"
        );
    }
}

#[test]
fn the_same_seed_plays_the_same() {
    for seed in 0..20 {
        assert_eq!(
            World::new(seed, HONEST).run(),
            World::new(seed, HONEST).run()
        );
    }
}
