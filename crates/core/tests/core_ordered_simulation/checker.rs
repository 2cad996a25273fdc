//! What must hold, looked at after each commit.

use std::collections::{BTreeMap, BTreeSet};

use crate::database::{Database, Slot};

pub(crate) type Checked = Result<(), String>;

/// Checks what a commit has made durable: once, in order, and not also dead-lettered.
pub(crate) fn effects(database: &Database, log: &[Slot], dead: &BTreeMap<i64, u32>) -> Checked {
    let mut done = BTreeSet::new();
    let mut last: BTreeMap<Slot, i64> = BTreeMap::new();
    for offset in &database.effects {
        if !done.insert(*offset) {
            return Err(format!("record {offset} took effect twice"));
        }
        if dead.contains_key(offset) {
            return Err(format!("record {offset} was applied and dead-lettered"));
        }
        let slot = log[*offset as usize];
        let before = last.insert(slot, *offset);
        if before.is_some_and(|before| before > *offset) {
            return Err(format!(
                "record {offset} came out of order behind {before:?}"
            ));
        }
    }
    // Nothing may be passed: what comes earlier is applied, skipped or dead.
    for (slot, last) in last {
        let earlier = (0..last).filter(|offset| log[*offset as usize] == slot);
        for offset in earlier {
            let over = done.contains(&offset)
                || dead.contains_key(&offset)
                || database.skipped.contains(&offset);
            if !over {
                return Err(format!("record {last} came out of order: {offset} waits"));
            }
        }
    }
    Ok(())
}

/// Checks a commit of the group's position.
pub(crate) fn position(durable: &Database, position: i64) -> Checked {
    match (0..position).find(|offset| !durable.has_taken(*offset)) {
        Some(offset) => Err(format!("the position {position} passes record {offset}")),
        None => Ok(()),
    }
}
