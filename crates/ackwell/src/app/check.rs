//! What can be wrong with a declaration, found before anything runs.
//!
//! A setting that is out of range or contradicts another would otherwise show at the first
//! record, or never. Each function of [`CHECKS`] looks at one concern of a listener's settings; a
//! new setting adds its own function, or a line to the one of its concern.

use std::collections::{BTreeMap, BTreeSet};

use super::StartError;
use super::plan::Named;
use crate::context::SetupError;
use crate::listener::Concurrency;

/// What is wrong, with how to mend it; or nothing.
type Checked = Result<(), SetupError>;

/// In the order in which they are told: the first problem is shown alone.
const CHECKS: &[fn(&Named) -> Checked] = &[group, topics, lanes, limits];

/// Looks at a listener's settings one by one.
pub(super) fn listener(named: &Named) -> Checked {
    CHECKS.iter().try_for_each(|check| check(named))
}

fn group(named: &Named) -> Checked {
    refuse_if(named.group.is_empty(), || {
        SetupError::new("it has no consumer group")
            .mend("add `.group(..)`, or name the app with `App::named`")
    })
}

fn topics(named: &Named) -> Checked {
    let mut topics = named.options.topics.iter();
    match topics.find(|topic| !is_legal(&topic.name)) {
        Some(topic) => Err(
            SetupError::new(format!("`{}` is not a topic's name", topic.name))
                .mend("use up to 249 letters, digits, `.`, `_` and `-`"),
        ),
        None => Ok(()),
    }
}

/// Kafka's `Topic.validate`.
fn is_legal(name: &str) -> bool {
    let fits = (1..=249).contains(&name.len()) && name != "." && name != "..";
    fits && name
        .bytes()
        .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
}

fn lanes(named: &Named) -> Checked {
    refuse_if(named.options.concurrency == Concurrency::ByKey(0), || {
        SetupError::new("`by_key(0)` leaves no lane to work in")
            .mend("write a positive number, or `by_partition()`")
    })
}

fn limits(named: &Named) -> Checked {
    let limits = &named.options.limits;
    let sizes = [
        ("queued_records", limits.queued_records),
        ("queued_bytes", limits.queued_bytes),
        ("run_limit", limits.run_records),
    ];
    sizes.into_iter().try_for_each(|(setting, value)| {
        refuse_if(value == 0, || {
            SetupError::new(format!("`{setting}(0)` leaves no room for a record"))
                .mend("write a positive number")
        })
    })
}

fn refuse_if(wrong: bool, problem: impl FnOnce() -> SetupError) -> Checked {
    if wrong { Err(problem()) } else { Ok(()) }
}

/// Two listeners of one group must not share a topic: each would see only some of its records.
pub(super) fn clashes(listeners: &[Named]) -> Result<(), StartError> {
    let mut readers: BTreeMap<(&str, &str), &str> = BTreeMap::new();
    for listener in listeners {
        for topic in &listener.options.topics {
            if let Some(first) = readers.insert((&listener.group, &topic.name), &listener.name) {
                return Err(StartError::Clash {
                    first: first.to_owned(),
                    second: listener.name.clone(),
                    topic: topic.name.to_string(),
                    group: listener.group.clone(),
                });
            }
        }
    }
    Ok(())
}

/// Components are told apart by their names in health, metrics and logs.
pub(super) fn names(names: impl Iterator<Item = String>) -> Result<(), StartError> {
    let mut seen = BTreeSet::new();
    for name in names {
        if !seen.insert(name.clone()) {
            return Err(StartError::Name { name });
        }
    }
    Ok(())
}
