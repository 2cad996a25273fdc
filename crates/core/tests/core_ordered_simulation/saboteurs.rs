//! Broken versions, to see that the checker notices.

use crate::world::{Faults, World};

/// Seeds within which a broken version must be caught.
const SEEDS: u64 = 300;

/// The violation that gives a broken version away.
fn caught(faults: Faults) -> String {
    let found = (0..SEEDS).find_map(|seed| World::new(seed, faults).run().err());
    assert!(found.is_some(), "{faults:?} went unnoticed");
    found.unwrap_or_default()
}

macro_rules! caught {
    ($($fault:ident: $what:literal)*) => {$(
        #[test]
        fn $fault() {
            let faults = Faults { $fault: true, ..Faults::default() };
            let violation = caught(faults);
            assert!(violation.contains($what), "{violation}");
        }
    )*};
}

caught! {
    epoch_is_not_looked_at: ""
    parked_without_a_mark: "record"
    handled_past_a_parked_one: "out of order"
    settled_before_durable: "passes record"
    key_freed_before_durable: "forgotten"
    key_known_only_when_durable: "forgotten"
    row_removed_before_the_dead_letter: ""
    row_left_by_a_retry: ""
    given_up_in_memory_only: "applied and dead-lettered"
    retried_early: "before it is due"
    attempts_not_counted: "stalled"
    failed_and_not_parked: "out of order"
    given_up_without_a_mark: ""
    nothing_loaded_by_a_new_owner: "forgotten"
}
