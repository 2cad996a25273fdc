//! What happens to records that can't be handled.

mod container_support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use ackwell::container::{DeadLetters, End};
use ackwell::core::RetryPolicy;
use ackwell::failure::{Class, Failure};
use container_support::{Cluster, Log, header, logged, run};
use futures_util::FutureExt;
use rdkafka::Message;

const SOON: Duration = Duration::from_millis(20);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failing_record_is_retried_before_those_behind_it_and_other_partitions_go_on() {
    let cluster = Cluster::start().await;
    let topic = cluster.topic(2).await;
    cluster
        .send(&topic, 0, &[("k", "a"), ("k", "bad"), ("k", "c")])
        .await;
    cluster
        .send(&topic, 1, &[("k", "x"), ("k", "y"), ("k", "z")])
        .await;
    let log = Arc::new(Log::default());
    let mut spec = cluster.listener(
        &topic,
        logged(&log, |call| {
            let fails = call.value == "bad" && call.attempt < 4;
            async move {
                if fails {
                    Err(Failure::new(Class::Transient, "not yet"))
                } else {
                    Ok(())
                }
            }
            .boxed()
        }),
    );
    spec.retry = RetryPolicy::fixed(Duration::from_millis(300));
    let container = run(spec).await;
    log.wait_for(9).await;
    cluster.reaches(&topic, 0, 3).await;
    cluster.reaches(&topic, 1, 3).await;
    container.stop().await;
    let calls = log.calls();
    let first: Vec<_> = calls.iter().filter(|call| call.partition == 0).collect();
    let order: Vec<_> = first
        .iter()
        .map(|call| (call.value.as_str(), call.attempt))
        .collect();
    assert_eq!(
        order,
        [
            ("a", 1),
            ("bad", 1),
            ("bad", 2),
            ("bad", 3),
            ("bad", 4),
            ("c", 1)
        ]
    );
    let z = calls.iter().position(|call| call.value == "z");
    let c = calls.iter().position(|call| call.value == "c");
    assert!(z < c, "the other partition did not wait");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_poison_record_is_dead_lettered_as_it_was_and_its_neighbours_go_on() {
    let cluster = Cluster::start().await;
    let topic = cluster.topic(2).await;
    cluster
        .send(&topic, 1, &[("k", "a"), ("poison", "bad"), ("k", "c")])
        .await;
    let log = Arc::new(Log::default());
    let mut spec = cluster.listener(
        &topic,
        logged(&log, |call| {
            async move {
                if call.value == "bad" {
                    Err(Failure::new(Class::Transient, "boom"))
                } else {
                    Ok(())
                }
            }
            .boxed()
        }),
    );
    spec.retry = RetryPolicy::fixed(SOON).max_attempts(3);
    let container = run(spec).await;
    cluster.reaches(&topic, 1, 3).await;
    assert_eq!(container.stats().dead_letters, 1);
    container.stop().await;
    assert_eq!(log.values(), ["a", "bad", "bad", "bad", "c"]);

    let letters = tokio::task::block_in_place(|| cluster.read(&format!("{topic}.DLQ"), 1));
    let letter = &letters[0];
    assert_eq!(
        (letter.key(), letter.payload()),
        (Some(&b"poison"[..]), Some(&b"bad"[..]))
    );
    assert_eq!(letter.partition(), 1);
    assert_eq!(header(letter, "trace"), ["a", "b"]);
    let one = |name: &str| header(letter, name).join(",");
    assert_eq!(one("original.topic"), topic);
    assert_eq!(one("original.partition"), "1");
    assert_eq!(one("original.offset"), "1");
    assert_eq!(one("original.group"), format!("g-{topic}"));
    assert_eq!(one("failure.reason"), "boom");
    assert_eq!(one("failure.class"), "transient");
    assert_eq!(one("failure.attempts"), "3");
    assert!(one("failure.timestamp").ends_with('Z'));
    assert!(
        one("original.timestamp")
            .parse::<i64>()
            .is_ok_and(|at| at > 0)
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_panic_is_a_permanent_failure_of_its_record_only() {
    let cluster = Cluster::start().await;
    let topic = cluster.topic(1).await;
    cluster
        .send(&topic, 0, &[("k", "a"), ("k", "bad"), ("k", "c")])
        .await;
    let log = Arc::new(Log::default());
    let spec = cluster.listener(
        &topic,
        logged(&log, |call| {
            async move {
                assert!(call.value != "bad", "out of cheese");
                Ok(())
            }
            .boxed()
        }),
    );
    let container = run(spec).await;
    cluster.reaches(&topic, 0, 3).await;
    container.stop().await;
    assert_eq!(log.values(), ["a", "bad", "c"]);
    let letters = tokio::task::block_in_place(|| cluster.read(&format!("{topic}.DLQ"), 1));
    assert_eq!(header(&letters[0], "failure.class"), ["permanent"]);
    assert!(header(&letters[0], "failure.reason")[0].contains("out of cheese"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn skipped_records_are_settled_without_a_dead_letter() {
    let cluster = Cluster::start().await;
    let topic = cluster.topic(1).await;
    cluster.send(&topic, 0, &[("k", "a"), ("k", "b")]).await;
    let log = Arc::new(Log::default());
    let spec = cluster.listener(
        &topic,
        logged(&log, |_| {
            async { Err(Failure::new(Class::Skip, "not for us")) }.boxed()
        }),
    );
    let container = run(spec).await;
    cluster.reaches(&topic, 0, 2).await;
    assert_eq!(container.stats().dead_letters, 0);
    assert_eq!(container.stats().failures, 2);
    container.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_something_is_unavailable_one_record_probes_and_no_attempt_is_used_up() {
    let cluster = Cluster::start().await;
    let topic = cluster.topic(3).await;
    for partition in 0..3 {
        cluster
            .send(&topic, partition, &[("k", "a"), ("k", "b")])
            .await;
    }
    let (log, away) = (Arc::new(Log::default()), Arc::new(AtomicBool::new(true)));
    let (gate, probes) = (Arc::clone(&away), Arc::new(AtomicUsize::new(0)));
    let counted = Arc::clone(&probes);
    let mut spec = cluster.listener(
        &topic,
        logged(&log, move |_| {
            let away = gate.load(Ordering::SeqCst);
            counted.fetch_add(usize::from(away), Ordering::SeqCst);
            async move {
                if away {
                    Err(Failure::unavailable("the database is away"))
                } else {
                    Ok(())
                }
            }
            .boxed()
        }),
    );
    spec.retry = RetryPolicy::none();
    spec.limits.probe = RetryPolicy::fixed(Duration::from_millis(100));
    let container = run(spec).await;
    log.wait_for(8).await;
    away.store(false, Ordering::SeqCst);
    for partition in 0..3 {
        cluster.reaches(&topic, partition, 2).await;
    }
    assert_eq!(container.stats().dead_letters, 0);
    container.stop().await;
    assert!(log.calls().iter().all(|call| call.attempt == 1));
    // The first of each partition may have failed before the pause; then one probe at a time.
    let failed = probes.load(Ordering::SeqCst);
    let settled = log.calls().len() - failed;
    assert_eq!(settled, 6, "each record was handled once after the outage");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_listener_that_must_stop_stops_with_its_reason_and_keeps_the_record() {
    let cluster = Cluster::start().await;
    let topic = cluster.topic(1).await;
    cluster
        .send(&topic, 0, &[("k", "a"), ("k", "bad"), ("k", "c")])
        .await;
    let log = Arc::new(Log::default());
    let mut spec = cluster.listener(
        &topic,
        logged(&log, |call| {
            async move {
                if call.value == "bad" {
                    Err(Failure::new(Class::Stop, "wrong schema"))
                } else {
                    Ok(())
                }
            }
            .boxed()
        }),
    );
    spec.dead_letters = DeadLetters::Stop;
    let container = run(spec).await;
    let End::Failed(reason) = container.wait().await else {
        panic!("it should have failed")
    };
    assert!(reason.contains("wrong schema"), "{reason}");
    assert_eq!(cluster.committed(&topic, 0), 1);
}
