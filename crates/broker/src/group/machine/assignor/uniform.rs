//! Uniform: as many partitions to each member as to any other, with as few moves as that allows.
//!
//! First everybody keeps what they had, then what nobody has goes to whoever has least, and last
//! whoever has two more than another reader of the same topic gives one away. With equal
//! subscriptions that ends with shares that differ by at most one; with different ones, with shares
//! that no single move could make more even.

use std::collections::{BTreeMap, BTreeSet};

use uuid::Uuid;

use super::Subscriber;
use crate::group::record::Partitions;

pub(super) fn assign(members: &[Subscriber], topics: &BTreeMap<Uuid, i32>) -> Vec<Partitions> {
    let mut deal = Deal::new(members, topics);
    deal.keep(members, topics);
    deal.hand_out(topics);
    deal.even_out();
    deal.into_targets()
}

/// Shares while they are being made. Members are numbers here.
struct Deal {
    /// By topic, the members who read it.
    readers: BTreeMap<Uuid, Vec<usize>>,
    /// By member and topic, the partitions.
    shares: Vec<BTreeMap<Uuid, BTreeSet<i32>>>,
    /// By member, the number of partitions.
    loads: Vec<usize>,
}

impl Deal {
    fn new(members: &[Subscriber], topics: &BTreeMap<Uuid, i32>) -> Self {
        let mut readers: BTreeMap<Uuid, Vec<usize>> = BTreeMap::new();
        for (number, member) in members.iter().enumerate() {
            for topic in member
                .topics
                .iter()
                .filter(|topic| topics.contains_key(topic))
            {
                readers.entry(*topic).or_default().push(number);
            }
        }
        Self {
            readers,
            shares: vec![BTreeMap::new(); members.len()],
            loads: vec![0; members.len()],
        }
    }

    /// What members had and may still have. Targets do not overlap; should a log say otherwise, the
    /// first wins.
    fn keep(&mut self, members: &[Subscriber], topics: &BTreeMap<Uuid, i32>) {
        let mut taken = BTreeSet::new();
        for (number, member) in members.iter().enumerate() {
            for (topic, partition) in member.had.iter() {
                let exists = topics
                    .get(&topic)
                    .is_some_and(|count| (0..*count).contains(&partition));
                let reads = member.topics.binary_search(&topic).is_ok();
                if exists && reads && taken.insert((topic, partition)) {
                    self.give(number, topic, partition);
                }
            }
        }
    }

    /// What nobody has, to the least loaded reader. Topics with few readers first: the others have
    /// more choice left.
    fn hand_out(&mut self, topics: &BTreeMap<Uuid, i32>) {
        let mut order: Vec<(usize, Uuid)> = self
            .readers
            .iter()
            .map(|(topic, readers)| (readers.len(), *topic))
            .collect();
        order.sort_unstable();
        for (_, topic) in order {
            let readers = self.readers.get(&topic).cloned().unwrap_or_default();
            let mut queue: BTreeSet<(usize, usize)> = readers
                .iter()
                .map(|number| (self.loads[*number], *number))
                .collect();
            let had: BTreeSet<i32> = readers
                .iter()
                .filter_map(|number| self.shares[*number].get(&topic))
                .flatten()
                .copied()
                .collect();
            let count = topics.get(&topic).copied().unwrap_or(0);
            for partition in (0..count).filter(|partition| !had.contains(partition)) {
                let Some((load, number)) = queue.pop_first() else {
                    break;
                };
                self.give(number, topic, partition);
                queue.insert((load + 1, number));
            }
        }
    }

    /// Every move makes the sum of the squares of the loads smaller, so this ends.
    fn even_out(&mut self) {
        let topics: Vec<Uuid> = self.readers.keys().copied().collect();
        loop {
            let mut moved = false;
            for topic in &topics {
                moved |= self.even_out_topic(*topic);
            }
            if !moved {
                return;
            }
        }
    }

    fn even_out_topic(&mut self, topic: Uuid) -> bool {
        let readers = self.readers.get(&topic).cloned().unwrap_or_default();
        let mut by_load: BTreeSet<(usize, usize)> = readers
            .iter()
            .map(|number| (self.loads[*number], *number))
            .collect();
        let mut moved = false;
        // The most loaded that has something of this topic to give, until nobody has two more.
        while let Some(&(most, from)) = by_load.last() {
            let Some(&(least, to)) = by_load.first() else {
                break;
            };
            if most < least + 2 {
                break;
            }
            by_load.remove(&(most, from));
            let Some(partition) = self.take_last(from, topic) else {
                // It stays out: it has nothing to give, and is no receiver with that load.
                continue;
            };
            by_load.remove(&(least, to));
            self.give(to, topic, partition);
            by_load.insert((most - 1, from));
            by_load.insert((least + 1, to));
            moved = true;
        }
        moved
    }

    fn give(&mut self, number: usize, topic: Uuid, partition: i32) {
        self.shares[number]
            .entry(topic)
            .or_default()
            .insert(partition);
        self.loads[number] += 1;
    }

    fn take_last(&mut self, number: usize, topic: Uuid) -> Option<i32> {
        let partition = self.shares[number].get_mut(&topic)?.pop_last()?;
        self.loads[number] -= 1;
        Some(partition)
    }

    fn into_targets(self) -> Vec<Partitions> {
        let flat = |share: BTreeMap<Uuid, BTreeSet<i32>>| {
            share
                .into_iter()
                .flat_map(|(topic, of)| of.into_iter().map(move |partition| (topic, partition)))
                .collect()
        };
        self.shares.into_iter().map(flat).collect()
    }
}
