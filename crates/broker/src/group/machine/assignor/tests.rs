//! What assignors promise, by example and for any group.

use std::collections::BTreeSet;

use proptest::collection::vec;
use proptest::prelude::any;

use super::*;

fn topic(number: u128) -> Uuid {
    Uuid::from_u128(number)
}

fn member(id: usize, topics: impl IntoIterator<Item = u128>) -> Subscriber {
    let mut topics: Vec<_> = topics.into_iter().map(topic).collect();
    topics.sort();
    topics.dedup();
    Subscriber {
        id: StrBytes::from_string(format!("m{id:03}")),
        instance_id: None,
        topics,
        had: Partitions::default(),
    }
}

fn loads(targets: &[Partitions]) -> Vec<usize> {
    targets.iter().map(Partitions::len).collect()
}

/// The next round: everybody had what they were given.
fn again(members: &[Subscriber], targets: Vec<Partitions>) -> Vec<Subscriber> {
    members
        .iter()
        .cloned()
        .zip(targets)
        .map(|(member, had)| Subscriber { had, ..member })
        .collect()
}

/// Each partition that somebody reads is somebody's, and nobody's twice.
fn check_complete(members: &[Subscriber], topics: &BTreeMap<Uuid, i32>, targets: &[Partitions]) {
    let mut owned = BTreeSet::new();
    for (member, target) in members.iter().zip(targets) {
        for (topic, partition) in target.iter() {
            assert!(member.topics.contains(&topic));
            assert!(owned.insert((topic, partition)), "two owners");
        }
    }
    let read = topics
        .iter()
        .filter(|(topic, _)| members.iter().any(|member| member.topics.contains(topic)));
    let all: BTreeSet<_> = read
        .flat_map(|(topic, count)| (0..*count).map(move |partition| (*topic, partition)))
        .collect();
    assert_eq!(owned, all);
}

#[test]
fn uniform_shares_differ_by_at_most_one() {
    let topics = BTreeMap::from([(topic(1), 7), (topic(2), 4)]);
    let members: Vec<_> = (0..3).map(|id| member(id, [1, 2])).collect();
    let targets = Assignor::Uniform.assign(&members, &topics);
    check_complete(&members, &topics, &targets);
    assert_eq!(loads(&targets), [4, 4, 3]);
}

#[test]
fn uniform_moves_only_what_a_newcomer_needs() {
    let topics = BTreeMap::from([(topic(1), 9)]);
    let mut members: Vec<_> = (0..2).map(|id| member(id, [1])).collect();
    let targets = Assignor::Uniform.assign(&members, &topics);
    members = again(&members, targets);
    members.push(member(2, [1]));
    let targets = Assignor::Uniform.assign(&members, &topics);
    assert_eq!(loads(&targets), [3, 3, 3]);
    for (member, target) in members.iter().zip(&targets).take(2) {
        assert!(target.difference(&member.had).is_empty(), "only given away");
    }
}

#[test]
fn range_gives_equal_partitions_of_equal_topics_to_the_same_member() {
    let topics = BTreeMap::from([(topic(1), 5), (topic(2), 5)]);
    let members: Vec<_> = (0..2).map(|id| member(id, [1, 2])).collect();
    let targets = Assignor::Range.assign(&members, &topics);
    let of = |at: usize, number| -> Vec<i32> {
        let partitions = targets[at].iter();
        partitions
            .filter(|(of, _)| *of == topic(number))
            .map(|(_, partition)| partition)
            .collect()
    };
    assert_eq!((of(0, 1), of(1, 1)), (vec![0, 1, 2], vec![3, 4]));
    assert_eq!((of(0, 2), of(1, 2)), (vec![0, 1, 2], vec![3, 4]));
}

proptest::proptest! {
    #[test]
    fn every_partition_has_one_owner_who_reads_it(
        subscriptions in vec(vec(0_u128..5, 0..5), 0..9),
        counts in vec(0_i32..12, 5),
        range in any::<bool>(),
    ) {
        let topics: BTreeMap<_, _> = (0..).map(topic).zip(counts).collect();
        let members: Vec<_> = subscriptions
            .into_iter()
            .enumerate()
            .map(|(id, topics)| member(id, topics))
            .collect();
        let assignor = if range { Assignor::Range } else { Assignor::Uniform };
        let targets = assignor.assign(&members, &topics);
        check_complete(&members, &topics, &targets);
        let settled = again(&members, targets.clone());
        proptest::prop_assert_eq!(assignor.assign(&settled, &topics), targets, "nothing moves when nothing changed");
    }

    #[test]
    fn no_single_move_makes_uniform_shares_more_even(
        subscriptions in vec(vec(0_u128..4, 1..4), 1..8),
        counts in vec(0_i32..10, 4),
    ) {
        let topics: BTreeMap<_, _> = (0..).map(topic).zip(counts).collect();
        let members: Vec<_> = subscriptions
            .into_iter()
            .enumerate()
            .map(|(id, topics)| member(id, topics))
            .collect();
        let targets = Assignor::Uniform.assign(&members, &topics);
        let loads = loads(&targets);
        for (from, target) in targets.iter().enumerate() {
            for (topic, _) in target.iter() {
                for to in 0..members.len() {
                    let reads = members[to].topics.contains(&topic);
                    proptest::prop_assert!(!reads || loads[from] < loads[to] + 2);
                }
            }
        }
    }
}
