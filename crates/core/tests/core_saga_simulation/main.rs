//! Many sagas, their participants, a store and two monitors, all modelled, under a seeded schedule of
//! messages that are duplicated, reordered, late and lost, of timers, of transactions that are taken
//! back and of two who move a saga at the same time. A checker holds the outcome to the promise: each saga
//! ends, and what was done is confirmed or taken back. Broken orchestrators show that it notices.
//!
//! A failing seed is printed; `ACKWELL_SEED=n cargo test --test core_saga_simulation` replays it, and
//! `ACKWELL_SEEDS=n` tries that many.

mod backlog;
#[path = "../core_simulation/dice.rs"]
#[allow(dead_code, reason = "shared with the simulation of the container")]
mod dice;
mod participant;
mod world;

use backlog::Backlog;
use world::{Fault, Seen, World};

/// Seeds of an ordinary test run: a second in a debug build.
const SEEDS: u64 = 400;
/// Seeds within which a broken orchestrator must be caught.
const SEEDS_TO_CATCH: u64 = 2_000;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

#[test]
fn every_saga_ends_and_what_was_done_is_confirmed_or_taken_back() {
    let seeds = match number("ACKWELL_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("ACKWELL_SEEDS").unwrap_or(SEEDS),
    };
    let mut seen = Seen::default();
    for seed in seeds.clone() {
        match World::new(seed, Fault::None).run() {
            Ok(found) => seen.add(&found),
            Err(violation) => panic!("seed {seed}: {violation}\nreplay with ACKWELL_SEED={seed}"),
        }
    }
    println!("{seen:?}");
    if seeds.end - seeds.start >= SEEDS {
        assert_eq!(seen.never(), [""; 0], "never happened");
    }
}

#[test]
fn the_same_seed_plays_the_same() {
    for seed in 0..20 {
        let run = || World::new(seed, Fault::None).run();
        assert_eq!(run(), run());
    }
}

#[test]
fn every_broken_orchestrator_is_caught() {
    let mut unnoticed = Vec::new();
    for fault in Fault::ALL {
        let caught =
            (0..SEEDS_TO_CATCH).find_map(|seed| Some((seed, World::new(seed, fault).run().err()?)));
        match caught {
            Some((seed, violation)) => println!("{:>5} seeds  {fault:?}: {violation}", seed + 1),
            None => unnoticed.push(fault),
        }
    }
    assert_eq!(unnoticed, []);
}

#[test]
fn no_deadline_passes_while_a_reply_that_came_before_it_waits_to_be_read() {
    let mut seen = backlog::Seen::default();
    for seed in 0..SEEDS {
        match Backlog::new(seed, backlog::Fault::None).run() {
            Ok(found) => {
                seen.waited += found.waited;
                seen.reached += found.reached;
                seen.given_up += found.given_up;
            }
            Err(violation) => panic!("seed {seed}: {violation}"),
        }
    }
    println!("{seen:?}");
    assert!(seen.waited > 0 && seen.reached > 0 && seen.given_up > 0);
}

#[test]
fn every_monitor_that_does_not_wait_for_replies_is_caught() {
    for fault in backlog::Fault::ALL {
        let caught = (0..SEEDS_TO_CATCH).any(|seed| Backlog::new(seed, fault).run().is_err());
        assert!(caught, "{fault:?}");
    }
}
