//! Each fault built into the engine is noticed.

use ackwell_core::mutation::{Fault, choose};

use crate::weather::Limits;
use crate::world::World;

/// Seeds within which a fault must be noticed.
const SEEDS: u64 = 1_000;

/// The seed that gives a fault away, and the violation.
fn noticed(fault: Fault) -> Option<(u64, String)> {
    choose(Some(fault));
    let found = (0..SEEDS).find_map(|seed| {
        let played = std::panic::catch_unwind(|| World::new(seed, &Limits::NONE).run());
        let violation = played.unwrap_or_else(|_| Err("a panic".into())).err()?;
        Some((seed, violation))
    });
    choose(None);
    found
}

#[test]
fn every_fault_of_the_engine_is_noticed() {
    let mut unnoticed = Vec::new();
    for fault in Fault::ALL {
        match noticed(*fault) {
            Some((seed, violation)) => {
                let brief: String = violation.chars().take(90).collect();
                println!("{:>5} seeds  {fault:?}: {brief}", seed + 1);
            }
            None => unnoticed.push(format!("{fault:?}:{}", fault.what())),
        }
    }
    assert_eq!(unnoticed, [""; 0], "faults that {SEEDS} seeds do not show");
}
