//! Whether a topic can be read and written, by what the cluster says of its replicas.
//!
//! A cluster that answers may still have partitions without a leader, or with fewer replicas in sync than a
//! write needs. Clients then wait without a word, so this looks for it: "the brokers do not acknowledge" is
//! no help to whoever has to start one again.

use std::collections::BTreeSet;

use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, ResourceSpecifier};
use rdkafka::client::DefaultClientContext;
use rdkafka::metadata::{Metadata, MetadataPartition};

use super::broker::ANSWER_WAIT;

/// How many replicas must have a record before it is acknowledged.
const MIN_IN_SYNC: &str = "min.insync.replicas";

/// A partition as the cluster describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Partition {
    id: i32,
    /// Negative if there is none.
    leader: i32,
    replicas: Vec<i32>,
    in_sync: Vec<i32>,
}

/// Looks at the replicas of topics. The least number in sync is asked for while some are missing, and kept
/// until none is.
#[derive(Default)]
pub(super) struct Replicas {
    min_in_sync: Option<(String, usize)>,
}

impl Replicas {
    /// What is the matter with `topic`, if anything.
    pub(super) async fn problem(
        &mut self,
        topic: &str,
        metadata: &Metadata,
        admin: &ClientConfig,
    ) -> Option<String> {
        let found = metadata
            .topics()
            .iter()
            .find(|found| found.name() == topic)?;
        let partitions: Vec<_> = found.partitions().iter().map(Partition::from).collect();
        if let Some(problem) = leaderless(topic, &partitions) {
            return Some(problem);
        }
        if partitions.iter().all(Partition::is_whole) {
            self.min_in_sync = None;
            return None;
        }
        let known = self.min_in_sync.take().filter(|(of, _)| of == topic);
        let min = match known {
            Some((_, min)) => min,
            // Who may not ask is not told; the outbox says that it waits.
            None => min_in_sync(topic, admin).await?,
        };
        self.min_in_sync = Some((topic.to_owned(), min));
        too_few(topic, &partitions, min)
    }
}

async fn min_in_sync(topic: &str, admin: &ClientConfig) -> Option<usize> {
    let admin: AdminClient<DefaultClientContext> = admin.create().ok()?;
    let options = AdminOptions::new().request_timeout(Some(ANSWER_WAIT));
    let topic = ResourceSpecifier::Topic(topic);
    let described = admin.describe_configs([&topic], &options).await.ok()?;
    let settings = described.into_iter().next()?.ok()?;
    settings.get(MIN_IN_SYNC)?.value.as_ref()?.parse().ok()
}

/// No leader: neither read nor written.
fn leaderless(topic: &str, partitions: &[Partition]) -> Option<String> {
    let without = || partitions.iter().filter(|partition| partition.leader < 0);
    let first = without().next()?;
    let brokers = list(without().flat_map(|partition| &partition.replicas));
    Some(format!(
        "{} of {} partitions of `{topic}` have no leader (the first is {}) and can be neither read nor \
         written; one of the brokers that have them must be started again: {brokers}",
        without().count(),
        partitions.len(),
        first.id,
    ))
}

/// Fewer replicas in sync than a write needs.
fn too_few(topic: &str, partitions: &[Partition], min: usize) -> Option<String> {
    let short = || {
        partitions
            .iter()
            .filter(|partition| partition.in_sync.len() < min)
    };
    let first = short().next()?;
    let away = list(short().flat_map(Partition::away));
    Some(format!(
        "{} of {} partitions of `{topic}` can't be written to: partition {} has {} replicas in sync and needs \
         {min} (`{MIN_IN_SYNC}`); these brokers are away or behind: {away}",
        short().count(),
        partitions.len(),
        first.id,
        first.in_sync.len(),
    ))
}

fn list<'a>(brokers: impl Iterator<Item = &'a i32>) -> String {
    let brokers: BTreeSet<_> = brokers.collect();
    let brokers: Vec<_> = brokers.into_iter().map(i32::to_string).collect();
    brokers.join(", ")
}

impl Partition {
    fn is_whole(&self) -> bool {
        self.in_sync.len() >= self.replicas.len()
    }

    /// The brokers whose replicas are not in sync.
    fn away(&self) -> impl Iterator<Item = &i32> {
        let in_sync = &self.in_sync;
        self.replicas
            .iter()
            .filter(move |broker| !in_sync.contains(broker))
    }
}

impl From<&MetadataPartition> for Partition {
    fn from(found: &MetadataPartition) -> Self {
        Self {
            id: found.id(),
            leader: found.leader(),
            replicas: found.replicas().to_vec(),
            in_sync: found.isr().to_vec(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn partition(id: i32, leader: i32, in_sync: &[i32]) -> Partition {
        Partition {
            id,
            leader,
            replicas: vec![1, 2, 3],
            in_sync: in_sync.to_vec(),
        }
    }

    #[test]
    fn a_partition_without_a_leader_is_named_with_the_brokers_that_have_it() {
        let partitions = [partition(0, 1, &[1, 3]), partition(1, -1, &[2])];
        let problem = leaderless("t", &partitions).unwrap();
        assert!(problem.starts_with("1 of 2 partitions of `t` have no leader (the first is 1)"));
        assert!(problem.ends_with("1, 2, 3"), "{problem}");
        assert_eq!(leaderless("t", &partitions[..1]), None);
    }

    #[test]
    fn too_few_replicas_in_sync_are_counted_and_those_away_are_named() {
        let partitions = [
            partition(0, 1, &[1, 3]),
            partition(1, 3, &[3]),
            partition(2, 1, &[1, 2, 3]),
        ];
        assert_eq!(too_few("t", &partitions, 1), None);
        let problem = too_few("t", &partitions, 2).unwrap();
        assert!(problem.contains("partition 1 has 1 replicas in sync and needs 2"));
        assert!(problem.ends_with("away or behind: 1, 2"), "{problem}");
        let problem = too_few("t", &partitions, 3).unwrap();
        assert!(problem.starts_with("2 of 3 partitions of `t`"), "{problem}");
    }

    #[test]
    fn a_replica_that_is_away_hurts_nobody_while_enough_are_in_sync() {
        let partitions = [partition(0, 1, &[1, 3])];
        assert!(!partitions[0].is_whole());
        assert_eq!(too_few("t", &partitions, 2), None);
    }
}
