//! Records are handled, committed, and kept in order.

mod container_support;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use ackwell::container::End;
use ackwell::core::Concurrency;
use ackwell::core::commit::AckMode;
use container_support::{Cluster, Log, logged, patiently, run};
use futures_util::FutureExt;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_is_handled_once_and_committed() {
    let cluster = Cluster::start().await;
    let topic = cluster.topic(3).await;
    let values: Vec<String> = (0..1_000).map(|n| n.to_string()).collect();
    let records: Vec<_> = values.iter().map(|value| ("k", value.as_str())).collect();
    for partition in 0..3 {
        cluster.send(&topic, partition, &records).await;
    }
    let log = Arc::new(Log::default());
    let spec = cluster.listener(&topic, logged(&log, |_| async { Ok(()) }.boxed()));
    let container = run(spec).await;
    log.wait_for(3_000).await;
    for partition in 0..3 {
        cluster.reaches(&topic, partition, 1_000).await;
    }
    assert_eq!(container.stop().await, End::Stopped);
    for partition in 0..3 {
        let of = log
            .calls()
            .into_iter()
            .filter(|call| call.partition == partition);
        let seen: Vec<String> = of.map(|call| call.value).collect();
        assert_eq!(seen, values, "partition {partition}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn record_mode_commits_while_a_later_record_is_still_in_work() {
    let cluster = Cluster::start().await;
    let topic = cluster.topic(1).await;
    cluster
        .send(&topic, 0, &[("k", "fast"), ("k", "fast"), ("k", "slow")])
        .await;
    let log = Arc::new(Log::default());
    let mut spec = cluster.listener(
        &topic,
        logged(&log, |call| {
            async move {
                if call.value == "slow" {
                    std::future::pending::<()>().await;
                }
                Ok(())
            }
            .boxed()
        }),
    );
    spec.commit = AckMode::Record;
    spec.limits.stop_drain = Duration::from_millis(100);
    let container = run(spec).await;
    cluster.reaches(&topic, 0, 2).await;
    assert_eq!(
        container.stop().await,
        End::Stopped,
        "the slow record is given back"
    );
    assert_eq!(cluster.committed(&topic, 0), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn by_key_a_slow_key_does_not_hold_up_others_and_each_key_stays_in_order() {
    let cluster = Cluster::start().await;
    let topic = cluster.topic(1).await;
    let keys: Vec<String> = (0..20).map(|n| format!("key-{n}")).collect();
    let values: Vec<String> = (0..400).map(|n| format!("{n:04}")).collect();
    let records: Vec<_> = values
        .iter()
        .enumerate()
        .map(|(n, v)| (keys[n % 20].as_str(), v.as_str()))
        .collect();
    cluster.send(&topic, 0, &records).await;
    let log = Arc::new(Log::default());
    let release = Arc::new(tokio::sync::Semaphore::new(0));
    let gate = Arc::clone(&release);
    let mut spec = cluster.listener(
        &topic,
        logged(&log, move |call| {
            let gate = Arc::clone(&gate);
            async move {
                if call.value == "0000" {
                    drop(gate.acquire().await);
                }
                tokio::task::yield_now().await;
                Ok(())
            }
            .boxed()
        }),
    );
    spec.concurrency = Concurrency::ByKey(64);
    let container = run(spec).await;
    // All but those behind the slow record in its lane.
    log.wait_until(|calls| calls.len() >= 300).await;
    release.add_permits(1);
    log.wait_for(400).await;
    cluster.reaches(&topic, 0, 400).await;
    container.stop().await;
    let mut of_key: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for call in log.calls() {
        of_key.entry(call.key).or_default().push(call.value);
    }
    assert_eq!(of_key.len(), 20);
    assert!(
        of_key
            .values()
            .all(|values| values.len() == 20 && values.is_sorted())
    );
}

/// Records keep their batch in memory: one of 32 large records would keep 10 MB where 1 MiB is the limit.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_of_large_records_stays_at_its_limit() {
    let cluster = Cluster::start().await;
    let topic = cluster.topic(1).await;
    let value = "x".repeat(300 << 10);
    cluster.send(&topic, 0, &[("k", &*value); 24]).await;
    let log = Arc::new(Log::default());
    let release = Arc::new(tokio::sync::Semaphore::new(0));
    let gate = Arc::clone(&release);
    let mut spec = cluster.listener(
        &topic,
        logged(&log, move |_| {
            let gate = Arc::clone(&gate);
            async move {
                drop(gate.acquire().await);
                Ok(())
            }
            .boxed()
        }),
    );
    // All of them come in one fetch, and one batch of them is as much as may wait.
    spec.consumer.set("max.partition.fetch.bytes", "20000000");
    spec.limits.queued_bytes = 1;
    let container = run(spec).await;
    log.wait_for(1).await;
    let full = async {
        while container.stats().paused == 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let in_time = patiently(full).await;
    in_time.expect("the partition is full");
    let taken = container.stats().polled;
    assert!(taken <= 4, "{taken} records of 300 KiB at once");
    release.add_permits(1);
    log.wait_for(24).await;
    cluster.reaches(&topic, 0, 24).await;
    container.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_repeats_only_what_was_in_work() {
    let cluster = Cluster::start().await;
    let topic = cluster.topic(1).await;
    let keys: Vec<String> = (0..50).map(|n| format!("key-{n}")).collect();
    let records: Vec<_> = keys
        .iter()
        .map(|key| (key.as_str(), key.as_str()))
        .collect();
    cluster.send(&topic, 0, &records).await;
    let log = Arc::new(Log::default());
    let mut spec = cluster.listener(
        &topic,
        logged(&log, |call| {
            async move {
                if call.offset == 0 {
                    std::future::pending::<()>().await;
                }
                Ok(())
            }
            .boxed()
        }),
    );
    spec.concurrency = Concurrency::ByKey(1_024);
    spec.commit = AckMode::Record;
    spec.limits.stop_drain = Duration::from_millis(200);
    let container = run(spec.clone()).await;
    log.wait_for(50).await;
    container.stop().await;
    assert_eq!(
        cluster.committed(&topic, 0),
        0,
        "the first record is not settled"
    );

    let again = Arc::new(Log::default());
    spec.handler = logged(&again, |_| async { Ok(()) }.boxed());
    let container = run(spec).await;
    cluster.reaches(&topic, 0, 50).await;
    container.stop().await;
    assert!(again.calls().len() <= 3, "repeated: {:?}", again.values());
    assert_eq!(again.calls()[0].offset, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stop_waits_for_records_in_work_and_starts_no_others() {
    let cluster = Cluster::start().await;
    let topic = cluster.topic(1).await;
    cluster
        .send(&topic, 0, &[("k", "1"), ("k", "2"), ("k", "3")])
        .await;
    let log = Arc::new(Log::default());
    let release = Arc::new(tokio::sync::Semaphore::new(0));
    let gate = Arc::clone(&release);
    let spec = cluster.listener(
        &topic,
        logged(&log, move |_| {
            let gate = Arc::clone(&gate);
            async move {
                gate.acquire().await.map(|permit| permit.forget()).ok();
                Ok(())
            }
            .boxed()
        }),
    );
    let container = Arc::new(run(spec).await);
    log.wait_for(1).await;
    let stopping = tokio::spawn({
        let container = Arc::clone(&container);
        async move { container.stop().await }
    });
    tokio::time::sleep(Duration::from_millis(200)).await;
    release.add_permits(3);
    assert_eq!(stopping.await.expect("stopped"), End::Stopped);
    assert_eq!(log.values(), ["1"]);
    assert_eq!(cluster.committed(&topic, 0), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_paused_listener_handles_nothing_until_it_is_resumed() {
    let cluster = Cluster::start().await;
    let topic = cluster.topic(1).await;
    let log = Arc::new(Log::default());
    let container = run(cluster.listener(&topic, logged(&log, |_| async { Ok(()) }.boxed()))).await;
    cluster.send(&topic, 0, &[("k", "1")]).await;
    log.wait_for(1).await;
    container.pause();
    cluster.send(&topic, 0, &[("k", "2")]).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(log.values(), ["1"]);
    container.resume();
    log.wait_for(2).await;
    container.stop().await;
}
