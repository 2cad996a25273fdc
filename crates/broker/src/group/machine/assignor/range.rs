//! Range: each topic is cut into as many ranges as it has subscribers.
//!
//! Members stand in the same order for every topic, those with an instance id first, so that
//! partitions with the same number in topics with as many partitions go to the same member: what is
//! joined by key meets in one place.

use std::collections::BTreeMap;

use uuid::Uuid;

use super::Subscriber;
use crate::group::record::Partitions;

pub(super) fn assign(members: &[Subscriber], topics: &BTreeMap<Uuid, i32>) -> Vec<Partitions> {
    let mut order: Vec<usize> = (0..members.len()).collect();
    order.sort_by_key(|at| {
        let member = &members[*at];
        (
            member.instance_id.is_none(),
            &member.instance_id,
            &member.id,
        )
    });
    let mut targets = vec![Partitions::default(); members.len()];
    for (topic, partitions) in topics {
        let readers: Vec<usize> = order
            .iter()
            .copied()
            .filter(|at| members[*at].topics.binary_search(topic).is_ok())
            .collect();
        let Ok(count) = i32::try_from(readers.len()) else {
            continue;
        };
        if count == 0 {
            continue;
        }
        let (share, extra) = (partitions / count, partitions % count);
        let mut next = 0;
        for (place, at) in (0_i32..).zip(readers) {
            let end = next + share + i32::from(place < extra);
            (next..end).for_each(|partition| targets[at].insert(*topic, partition));
            next = end;
        }
    }
    targets
}
