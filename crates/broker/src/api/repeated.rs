//! What one request names more than once.
//!
//! Two wishes for one topic may contradict each other, and whoever made them should not learn from the broker's
//! order of work which one counted. So such a name is refused, once for all its places, as by Apache Kafka.

use std::collections::HashMap;
use std::hash::Hash;

use kafka_protocol::error::ResponseError;

use crate::Error;

/// Takes out of `items` those whose name is given more than once; gives each such name once.
pub(super) fn take_repeated<T, N: Eq + Hash>(items: &mut Vec<T>, name: impl Fn(&T) -> N) -> Vec<N> {
    let mut counts: HashMap<N, usize> = HashMap::with_capacity(items.len());
    for item in items.iter() {
        *counts.entry(name(item)).or_default() += 1;
    }
    if counts.len() == items.len() {
        return Vec::new();
    }
    let mut repeated = Vec::new();
    items.retain(|item| match counts.get(&name(item)) {
        Some(1) => true,
        Some(_) => {
            repeated.push(name(item));
            counts.remove(&name(item));
            false
        }
        None => false,
    });
    repeated
}

/// The refusal of a topic that is named more than once.
pub(super) fn refused(topic: &str) -> Error {
    Error::refused(
        ResponseError::InvalidRequest,
        format!("topic {topic} is named more than once in the request"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_named_once_stays_in_its_order_and_the_rest_is_told_once() {
        let mut names = vec!["c", "a", "b", "a", "d", "a", "b"];
        assert_eq!(take_repeated(&mut names, |name| *name), ["a", "b"]);
        assert_eq!(names, ["c", "d"]);
        assert!(take_repeated(&mut names, |name| *name).is_empty());
    }
}
