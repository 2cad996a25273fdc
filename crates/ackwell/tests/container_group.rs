//! Several containers share a group.

mod container_support;

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ackwell::core::Concurrency;
use ackwell::core::commit::AckMode;
use container_support::{Cluster, Log, logged, run};
use futures_util::FutureExt;

/// Records in work.
#[derive(Default)]
struct InWork {
    records: Mutex<BTreeSet<(i32, i64)>>,
    /// Those that had two owners: noted, because a handler's panic would only be dead-lettered.
    twice: Mutex<Vec<(i32, i64)>>,
}

impl InWork {
    fn enter(&self, record: (i32, i64)) {
        if !lock(&self.records).insert(record) {
            lock(&self.twice).push(record);
        }
    }

    fn leave(&self, record: (i32, i64)) {
        lock(&self.records).remove(&record);
    }

    /// Records that two owners handled at the same time.
    fn twice(&self) -> Vec<(i32, i64)> {
        lock(&self.twice).clone()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn hand_over(strategy: &str) {
    let cluster = Cluster::start().await;
    let topic = cluster.topic(4).await;
    let values: Vec<String> = (0..150).map(|n| n.to_string()).collect();
    let records: Vec<_> = values
        .iter()
        .map(|value| (value.as_str(), value.as_str()))
        .collect();
    for partition in 0..4 {
        cluster.send(&topic, partition, &records).await;
    }
    let (log, in_work) = (Arc::new(Log::default()), Arc::new(InWork::default()));
    let seen = Arc::clone(&in_work);
    let mut spec = cluster.listener(
        &topic,
        logged(&log, move |call| {
            let seen = Arc::clone(&seen);
            async move {
                let record = (call.partition, call.offset);
                seen.enter(record);
                tokio::time::sleep(Duration::from_millis(10)).await;
                seen.leave(record);
                Ok(())
            }
            .boxed()
        }),
    );
    spec.consumer.set("partition.assignment.strategy", strategy);
    spec.commit = AckMode::Record;
    spec.concurrency = Concurrency::ByKey(4);
    let first = run(spec.clone()).await;
    log.wait_for(50).await;
    let second = run(spec.clone()).await;
    log.wait_for(300).await;
    let third = run(spec).await;
    log.wait_for(450).await;
    second.stop().await;
    for partition in 0..4 {
        cluster.reaches(&topic, partition, 150).await;
    }
    first.stop().await;
    third.stop().await;
    let calls = log.calls();
    let distinct: BTreeSet<_> = calls
        .iter()
        .map(|call| (call.partition, call.offset))
        .collect();
    assert_eq!(in_work.twice(), [], "records have one owner");
    assert_eq!(distinct.len(), 600, "nothing is lost");
    assert_eq!(calls.len(), 600, "a drained handover repeats nothing");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_eager_rebalance_hands_over_without_loss_or_repetition() {
    hand_over("range").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cooperative_rebalance_hands_over_without_loss_or_repetition() {
    hand_over("cooperative-sticky").await;
}
