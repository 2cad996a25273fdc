//! When records are settled and positions committed, on a real broker.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod container_support;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use ackwell::AckMode;
use ackwell::container::{Container, Observation, Observer, RecordHandler, Spec};
use ackwell::extensions::Extensions;
use ackwell::extract::{Ack, Acknowledged, NotCommitted};
use ackwell::failure::Failure;
use ackwell::record::Record;
use ackwell::retry::fixed;
use container_support::{Call, Cluster, Log, logged, run};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;

const MS: Duration = Duration::from_millis(1);

/// A handler that keeps its acknowledgements for the test to give.
#[derive(Default)]
struct Desk {
    log: Arc<Log>,
    acks: Mutex<BTreeMap<i64, Ack>>,
}

impl Desk {
    fn take(&self, offset: i64) -> Ack {
        self.acks.lock().unwrap().remove(&offset).unwrap()
    }

    async fn wait_for(&self, count: usize) {
        self.log.wait_for(count).await;
    }
}

struct Keeping(Arc<Desk>);

impl RecordHandler for Keeping {
    fn call(
        &self,
        record: Record,
        attempt: u32,
        mut extensions: Extensions,
    ) -> BoxFuture<'static, Result<(), Failure>> {
        let ack = extensions.take_ack().unwrap();
        // A second delivery must not drop the first one's acknowledgement.
        let before = self.0.acks.lock().unwrap().insert(record.offset(), ack);
        std::mem::forget(before);
        self.0.log.push(Call {
            partition: record.partition(),
            offset: record.offset(),
            key: String::from_utf8_lossy(record.key().unwrap_or_default()).into_owned(),
            value: String::new(),
            attempt,
        });
        async { Ok(()) }.boxed()
    }
}

fn manual(cluster: &Cluster, topic: &str, desk: &Arc<Desk>, mode: AckMode) -> Spec {
    let mut spec = cluster.listener(topic, Arc::new(Keeping(Arc::clone(desk))));
    spec.commit = mode;
    spec.limits.stop_drain = 100 * MS;
    spec
}

fn numbered(count: usize) -> Vec<(String, String)> {
    (0..count)
        .map(|number| (format!("k{}", number % 7), number.to_string()))
        .collect()
}

async fn send(cluster: &Cluster, topic: &str, count: usize) {
    let records = numbered(count);
    let records: Vec<_> = records
        .iter()
        .map(|(key, value)| (key.as_str(), value.as_str()))
        .collect();
    cluster.send(topic, 0, &records).await;
}

async fn until(what: &str, condition: impl Fn() -> bool) {
    let met = async {
        while !condition() {
            tokio::time::sleep(10 * MS).await;
        }
    };
    let in_time = tokio::time::timeout(Duration::from_secs(40), met).await;
    assert!(in_time.is_ok(), "{what}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_position_follows_acknowledgements_in_any_order_and_never_passes_an_open_record() {
    for mode in [AckMode::Manual, AckMode::ManualImmediate] {
        let cluster = Cluster::start().await;
        let topic = cluster.topic(1).await;
        let desk = Arc::new(Desk::default());
        let container = run(manual(&cluster, &topic, &desk, mode)).await;
        send(&cluster, &topic, 100).await;
        desk.wait_for(100).await;
        for offset in (0..100).rev().filter(|offset| *offset != 50) {
            let ack = desk.take(offset);
            let given = tokio::spawn(async move { ack.acknowledge() });
            assert_eq!(given.await.unwrap(), Acknowledged::InTime);
        }
        cluster.reaches(&topic, 0, 50).await;
        until("all but one are settled", || {
            container.stats().unacknowledged == 1
        })
        .await;
        assert_eq!(desk.take(50).acknowledge(), Acknowledged::InTime);
        cluster.reaches(&topic, 0, 100).await;
        assert_eq!(desk.log.calls().len(), 100);
        container.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_repeats_exactly_what_was_not_acknowledged() {
    let cluster = Cluster::start().await;
    let topic = cluster.topic(1).await;
    let desk = Arc::new(Desk::default());
    let container = run(manual(&cluster, &topic, &desk, AckMode::ManualImmediate)).await;
    send(&cluster, &topic, 60).await;
    desk.wait_for(60).await;
    let mut last = None;
    for offset in (0..60).filter(|offset| ![3, 40, 41].contains(offset)) {
        last = Some(desk.take(offset).commit());
    }
    last.unwrap().await.unwrap();
    container.stop().await;
    assert_eq!(cluster.committed(&topic, 0), 3);

    let again = Arc::new(Desk::default());
    let container = run(manual(&cluster, &topic, &again, AckMode::ManualImmediate)).await;
    again.wait_for(3).await;
    send(&cluster, &topic, 1).await;
    again.wait_for(4).await;
    let offsets: Vec<_> = again.log.calls().iter().map(|call| call.offset).collect();
    assert_eq!(offsets, [3, 40, 41, 60]);
    container.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_awaited_commit_is_stored_when_it_is_answered() {
    let cluster = Cluster::start().await;
    let topic = cluster.topic(1).await;
    let desk = Arc::new(Desk::default());
    let container = run(manual(&cluster, &topic, &desk, AckMode::ManualImmediate)).await;
    for offset in 0..5 {
        send(&cluster, &topic, 1).await;
        desk.wait_for(offset + 1).await;
        let offset = i64::try_from(offset).unwrap();
        desk.take(offset).commit().await.unwrap();
        assert_eq!(cluster.committed(&topic, 0), offset + 1);
    }
    container.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_record_comes_again_not_before_its_delay_and_before_what_is_behind_it() {
    let cluster = Cluster::start().await;
    let topic = cluster.topic(1).await;
    let desk = Arc::new(Desk::default());
    let container = run(manual(&cluster, &topic, &desk, AckMode::ManualImmediate)).await;
    send(&cluster, &topic, 2).await;
    desk.wait_for(2).await;
    let delay = 300 * MS;
    let refused = Instant::now();
    assert_eq!(desk.take(0).nack(delay), Acknowledged::InTime);
    until("the refusal has arrived", || container.stats().nacks == 1).await;
    send(&cluster, &topic, 2).await;
    desk.wait_for(3).await;
    assert!(refused.elapsed() >= delay);
    desk.wait_for(5).await;
    let calls = desk.log.calls();
    let seen: Vec<_> = calls
        .iter()
        .map(|call| (call.offset, call.attempt))
        .collect();
    assert_eq!(seen, [(0, 1), (1, 1), (0, 1), (2, 1), (3, 1)]);
    (0..4).for_each(|offset| assert_eq!(desk.take(offset).acknowledge(), Acknowledged::InTime));
    cluster.reaches(&topic, 0, 4).await;
    container.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dropped_acknowledgement_is_retried_and_then_dead_lettered() {
    let cluster = Cluster::start().await;
    let topic = cluster.topic(1).await;
    let desk = Arc::new(Desk::default());
    let mut spec = manual(&cluster, &topic, &desk, AckMode::Manual);
    spec.retry = fixed(10 * MS).max_attempts(2);
    let container = run(spec).await;
    send(&cluster, &topic, 2).await;
    desk.wait_for(2).await;
    drop(desk.take(0));
    desk.wait_for(3).await;
    drop(desk.take(0));
    let letters = cluster.read(&format!("{topic}.DLQ"), 1);
    let reason = container_support::header(&letters[0], "failure.reason");
    assert!(reason[0].contains("dropped"), "{reason:?}");
    assert_eq!(desk.take(1).acknowledge(), Acknowledged::InTime);
    cluster.reaches(&topic, 0, 2).await;
    assert_eq!(container.stats().nacks, 2);
    container.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn open_records_pause_their_partition_and_acknowledging_lets_it_go_on() {
    let cluster = Cluster::start().await;
    let topic = cluster.topic(1).await;
    let desk = Arc::new(Desk::default());
    let mut spec = manual(&cluster, &topic, &desk, AckMode::Manual);
    spec.limits.queued_records = Some(50);
    let container = run(spec).await;
    send(&cluster, &topic, 2_000).await;
    until("its queue is full", || container.stats().paused == 1).await;
    until("all are handled", || container.stats().unacknowledged >= 50).await;
    let open = desk.log.calls().len();
    assert!(open <= 50 + 500, "one poll more at most: {open}");
    let mut given = 0;
    while given < 2_000 {
        let taken = std::mem::take(&mut *desk.acks.lock().unwrap());
        given += taken.len();
        for ack in taken.into_values() {
            assert_eq!(ack.acknowledge(), Acknowledged::InTime);
        }
        tokio::time::sleep(MS).await;
    }
    cluster.reaches(&topic, 0, 2_000).await;
    container.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_acknowledgement_after_the_end_is_stale_and_says_so() {
    let cluster = Cluster::start().await;
    let topic = cluster.topic(1).await;
    let desk = Arc::new(Desk::default());
    let container = run(manual(&cluster, &topic, &desk, AckMode::Manual)).await;
    send(&cluster, &topic, 2).await;
    desk.wait_for(2).await;
    container.stop().await;
    let (first, second) = (desk.take(0), desk.take(1));
    assert!(first.is_stale());
    assert_eq!(first.acknowledge(), Acknowledged::Stale);
    assert_eq!(second.commit().await, Err(NotCommitted));
    assert_eq!(container.stats().stale_acks, 2);
    assert!(cluster.committed(&topic, 0) <= 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_waits_for_acknowledgements_within_its_limit() {
    let cluster = Cluster::start().await;
    let topic = cluster.topic(1).await;
    let desk = Arc::new(Desk::default());
    let mut spec = manual(&cluster, &topic, &desk, AckMode::Manual);
    spec.limits.stop_drain = Duration::from_secs(20);
    let container = Arc::new(run(spec).await);
    send(&cluster, &topic, 1).await;
    desk.wait_for(1).await;
    let stopping = tokio::spawn({
        let container = Arc::clone(&container);
        async move { container.stop().await }
    });
    tokio::time::sleep(200 * MS).await;
    assert!(!stopping.is_finished());
    assert_eq!(desk.take(0).acknowledge(), Acknowledged::InTime);
    stopping.await.unwrap();
    assert_eq!(cluster.committed(&topic, 0), 1);
}

/// Hears of health alone.
#[derive(Clone, Default)]
struct Health(Arc<Mutex<Vec<Option<String>>>>);

impl Observer for Health {
    fn observe(&self, observation: &Observation<'_>) {
        if let Observation::Health { problem } = observation {
            self.0.lock().unwrap().push(problem.map(str::to_owned));
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_record_that_stays_open_for_long_makes_the_listener_unhealthy_until_it_is_acknowledged() {
    let cluster = Cluster::start().await;
    let topic = cluster.topic(1).await;
    let (desk, health) = (Arc::new(Desk::default()), Health::default());
    let mut spec = manual(&cluster, &topic, &desk, AckMode::Manual);
    spec.limits.unacknowledged_limit = 100 * MS;
    spec.observer = Arc::new(health.clone());
    let container = run(spec).await;
    send(&cluster, &topic, 1).await;
    desk.wait_for(1).await;
    let says = |found: &Option<String>| {
        found
            .as_ref()
            .is_some_and(|p| p.contains("acknowledgement"))
    };
    until("it is unhealthy", || {
        health.0.lock().unwrap().iter().any(says)
    })
    .await;
    assert_eq!(desk.take(0).acknowledge(), Acknowledged::InTime);
    until("it is healthy", || {
        health.0.lock().unwrap().last() == Some(&None)
    })
    .await;
    container.stop().await;
}

async fn listener(
    cluster: &Cluster,
    topic: &str,
    mode: AckMode,
    strict: bool,
) -> (Container, Arc<Log>) {
    let log = Arc::new(Log::default());
    let mut spec = cluster.listener(topic, logged(&log, |_| async { Ok(()) }.boxed()));
    spec.commit = mode;
    spec.strict_commits = strict;
    (run(spec).await, log)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_mode_commits_everything_in_the_end() {
    let cluster = Cluster::start().await;
    let modes = [
        (AckMode::Batch, false),
        (AckMode::Batch, true),
        (AckMode::Record, false),
        (AckMode::Record, true),
        (AckMode::Time(50 * MS), false),
        (AckMode::Count(64), false),
        (AckMode::CountOrTime(64, 50 * MS), false),
        (AckMode::AutoCommitMayLoseRecords(50 * MS), false),
    ];
    for (mode, strict) in modes {
        let topic = cluster.topic(1).await;
        let (container, log) = listener(&cluster, &topic, mode, strict).await;
        send(&cluster, &topic, 300).await;
        log.wait_for(300).await;
        cluster.reaches(&topic, 0, 300).await;
        let stats = container.stats();
        if matches!(mode, AckMode::Count(_)) {
            // 300 records are four times 64, and a rest that nothing follows.
            assert!(stats.commits <= 5, "{mode:?}: {} commits", stats.commits);
        }
        container.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strict_record_mode_handles_a_record_when_the_one_before_it_is_committed() {
    let cluster = Arc::new(Cluster::start().await);
    let topic = cluster.topic(1).await;
    let (log, late) = (Arc::new(Log::default()), Arc::new(AtomicUsize::new(0)));
    let handler = {
        let (cluster, topic, late) = (Arc::clone(&cluster), topic.clone(), Arc::clone(&late));
        logged(&log, move |call| {
            let (cluster, topic, late) = (Arc::clone(&cluster), topic.clone(), Arc::clone(&late));
            async move {
                let asked = tokio::task::spawn_blocking(move || cluster.committed(&topic, 0));
                if call.offset > 0 && asked.await.unwrap() != call.offset {
                    late.fetch_add(1, Ordering::Relaxed);
                }
                Ok(())
            }
            .boxed()
        })
    };
    let mut spec = cluster.listener(&topic, handler);
    (spec.commit, spec.strict_commits) = (AckMode::Record, true);
    let container = run(spec).await;
    send(&cluster, &topic, 10).await;
    cluster.reaches(&topic, 0, 10).await;
    assert_eq!(late.load(Ordering::Relaxed), 0);
    container.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn auto_commit_passes_a_record_that_is_still_in_work() {
    let cluster = Cluster::start().await;
    let topic = cluster.topic(1).await;
    let log = Arc::new(Log::default());
    let handler = logged(&log, |_| std::future::pending().boxed());
    let mut spec = cluster.listener(&topic, handler);
    spec.commit = AckMode::AutoCommitMayLoseRecords(50 * MS);
    spec.limits.stop_drain = 50 * MS;
    let container = run(spec).await;
    send(&cluster, &topic, 1).await;
    log.wait_for(1).await;
    cluster.reaches(&topic, 0, 1).await;
    container.stop().await;
}
