//! Listeners of one group that would share a topic, or be the same member: each would see only some
//! of its records, or the broker would throw out one.

use std::collections::BTreeMap;

use ackwell_core::envelope;

use super::StartError;
use super::plan::Named;
use crate::config::Kafka;
use crate::context::SetupError;
use crate::listener::{Common, Matcher, Options};
use crate::retry::Later;

/// Refuses topics that two listeners of a group read, or one listener twice.
pub(super) fn check(listeners: &[Named]) -> Result<(), StartError> {
    let mut readers: BTreeMap<(&str, String), &Named> = BTreeMap::new();
    for listener in listeners {
        for topic in topics_read(&listener.options) {
            match readers.insert((&listener.group, topic.clone()), listener) {
                Some(first) if std::ptr::eq(first, listener) => {
                    return Err(named_twice(listener, &topic));
                }
                Some(first) => return Err(clash(first, listener, topic)),
                None => {}
            }
        }
    }
    for (place, second) in listeners.iter().enumerate() {
        for first in listeners.iter().take(place) {
            if first.group == second.group {
                between(first, second)?;
            }
        }
    }
    Ok(())
}

/// Refuses static members of a group with the same id: of two, the broker fences one.
pub(super) fn members(listeners: &[Named], kafka: &Kafka) -> Result<(), StartError> {
    let mut seen: BTreeMap<(&str, &str), &Named> = BTreeMap::new();
    for listener in listeners {
        let own = listener.options.member.instance_id.as_deref();
        let for_all = kafka.given("group.instance.id");
        let Some(id) = own.or(for_all.map(|(_, id)| id)) else {
            continue;
        };
        if let Some(first) = seen.insert((&listener.group, id), listener) {
            let (first, group) = (&first.name, &listener.group);
            let what = format!(
                "it is the static member `{id}` of the group `{group}`, and so is `{first}`"
            );
            let mend = "give each listener an `.instance_id(..)` of its own, in place of `group.instance.id` in the settings";
            return Err(StartError::Listener {
                listener: listener.name.clone(),
                problem: SetupError::new(what).mend(mend),
            });
        }
    }
    Ok(())
}

/// Patterns against names, and against each other.
fn between(first: &Named, second: &Named) -> Result<(), StartError> {
    let meant = |by: &Option<std::sync::Arc<Matcher>>, of: &Named| {
        let matcher = by.as_ref()?;
        topics_read(&of.options).find(|topic| matcher.means(topic))
    };
    let named = meant(&first.matcher, second).or_else(|| meant(&second.matcher, first));
    if let Some(topic) = named {
        return Err(clash(first, second, topic));
    }
    let (Some(one), Some(other)) = (&first.matcher, &second.matcher) else {
        return Ok(());
    };
    match one.common(other) {
        Common::Nothing => Ok(()),
        Common::Topic(topic) => Err(clash(first, second, topic)),
        Common::Unknown => {
            let what = format!(
                "its pattern `{}` and `{}` of `{}` in the same group are too large to tell apart",
                other.source(),
                one.source(),
                first.name
            );
            Err(StartError::Listener {
                listener: second.name.clone(),
                problem: SetupError::new(what).mend("give them different groups"),
            })
        }
    }
}

/// What a listener reads by name: its topics, and their retry topics.
fn topics_read(options: &Options) -> impl Iterator<Item = String> {
    let delays = match &options.retry.later {
        Later::Topics(delays) => delays.len(),
        _ => 0,
    };
    let last = u32::try_from(delays).unwrap_or(u32::MAX);
    options.topics.iter().flat_map(move |topic| {
        let retries = (1..=last).map(|number| envelope::retry::topic(&topic.name, number));
        std::iter::once(topic.name.to_string()).chain(retries)
    })
}

fn named_twice(listener: &Named, topic: &str) -> StartError {
    StartError::Listener {
        listener: listener.name.clone(),
        problem: SetupError::new(format!("it names the topic `{topic}` twice"))
            .mend("name it once"),
    }
}

fn clash(first: &Named, second: &Named, topic: String) -> StartError {
    StartError::Clash {
        first: first.name.clone(),
        second: second.name.clone(),
        topic,
        group: second.group.clone(),
    }
}
