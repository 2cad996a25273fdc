//! Listeners whose process stands still for longer than their session (SIGSTOP), so that another
//! takes over, and then goes on (SIGCONT): it may not apply or commit anything again.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    reason = "helpers of tests"
)]

mod events;
mod processes;

use std::time::Duration;

use events::database_url::is_postgres;
use kafka_protocol::messages::ApiKey;
use processes::Scene;
use processes::proxy::{Fate, Proxy};
use processes::worker::{Retries, Stage, Worker};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "the process of the other tests"]
async fn works_until_it_is_killed() {
    processes::worker::work().await;
}

/// The one that was woken finds its way back, or out, and the books stay right.
async fn woken(scene: &Scene, mut first: Worker, second: Worker) {
    first.wake().await;
    first.go_on().await;
    scene.check().await;
    // Both at work, then only the first: it is a full member again.
    scene.send(60).await;
    scene.check().await;
    second.stop().await;
    scene.send(60).await;
    scene.check().await;
    first.stop().await;
    scene.check().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stopped_while_it_only_polls() {
    let scene = Scene::new().await;
    let mut first = scene.worker("first").start(scene.folder());
    first.ready().await;
    scene.pause(&first).await;
    let second = scene.worker("second").start(scene.folder());
    scene.send(60).await;
    scene.check().await;
    woken(&scene, first, second).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stopped_while_a_record_is_handled() {
    let scene = Scene::new().await;
    let first = scene.worker("first").wait_at(Stage::Handling, 35);
    let mut first = first.start(scene.folder());
    scene.send(60).await;
    first.waits().await;
    scene.pause(&first).await;
    let second = scene.worker("second").start(scene.folder());
    // The second applies what the first had begun with.
    scene.check().await;
    woken(&scene, first, second).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stopped_inside_the_transaction() {
    let scene = Scene::new().await;
    let [mut left, mut right] = ["left", "right"].map(|name| {
        let worker = scene.worker(name).wait_at(Stage::Transaction, 35);
        worker.start(scene.folder())
    });
    left.ready().await;
    right.ready().await;
    scene.send(60).await;
    let is_left = tokio::select! {
        () = left.waits() => true,
        () = right.waits() => false,
    };
    let (first, mut second) = if is_left {
        (left, right)
    } else {
        (right, left)
    };
    first.pause().await;
    let before = scene.applied().await;
    second.go_on().await;
    scene.send(60).await;
    if is_postgres() {
        // The server ends the transaction that stands still, and the second applies everything.
        scene.check().await;
    } else {
        // The second is given the partitions, but not the file: it waits, and uses no attempt up.
        tokio::time::sleep(Duration::from_secs(6)).await;
        assert_eq!(scene.applied().await, before);
    }
    woken(&scene, first, second).await;
}

/// With `release`, the held request reaches the broker after the session has ended; otherwise its
/// connection is gone when the process wakes.
async fn stopped_between_the_commits(release: bool) {
    let scene = Scene::new().await;
    let proxy = Proxy::start(scene.brokers.servers()).await;
    let commits = proxy.on(ApiKey::OffsetCommit, 1, &[Fate::HoldRequest]);
    let first = scene.worker("first").through(&proxy).start(scene.folder());
    scene.send(60).await;
    scene.until_applied(60).await;
    commits.met(1).await;
    scene.pause(&first).await;
    let second = scene.worker("second").start(scene.folder());
    scene.send(60).await;
    scene.check().await;
    match release {
        true => commits.release(),
        false => commits.discard(),
    }
    // What was committed may not be taken back, now or when the first has woken.
    scene.check().await;
    woken(&scene, first, second).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stopped_between_the_databases_commit_and_the_offsets() {
    stopped_between_the_commits(false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_that_arrives_after_the_session_has_ended() {
    stopped_between_the_commits(true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stopped_while_a_dead_letter_is_written() {
    let scene = Scene::new().await;
    let proxy = Proxy::start(scene.brokers.servers()).await;
    let writes = proxy.on(ApiKey::Produce, 1, &[Fate::HoldRequest]);
    let first = scene.worker("first").through(&proxy).start(scene.folder());
    scene.send(30).await;
    scene.send_poison().await;
    scene.send(30).await;
    writes.met(1).await;
    scene.pause(&first).await;
    let second = scene.worker("second").start(scene.folder());
    scene.check().await;
    writes.release();
    woken(&scene, first, second).await;
    let letters = scene.dead_letters().await;
    assert!(letters.len() <= 2, "once by each: {letters:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stopped_while_the_group_rebalances() {
    let scene = Scene::new().await;
    let proxy = Proxy::start(scene.brokers.servers()).await;
    let mut first = scene.worker("first").through(&proxy).start(scene.folder());
    first.ready().await;
    scene.send(60).await;
    scene.until_applied(60).await;
    let step = proxy.on(ApiKey::JoinGroup, 1, &[Fate::HoldRequest]);
    let second = scene.worker("second").start(scene.folder());
    step.met(1).await;
    scene.pause(&first).await;
    scene.send(60).await;
    scene.check().await;
    step.release();
    woken(&scene, first, second).await;
}

/// It was replaced under its own name (a static member), and can't hear of that: nobody but the
/// database keeps it from handling what follows a record that its successor has parked.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stopped_and_replaced_it_does_not_get_ahead_of_a_parked_record() {
    let scene = Scene::of_one_partition().await;
    let proxy = Proxy::start(scene.brokers.servers()).await;
    let worker = |name: &str| {
        let worker = scene.worker(name).in_one_lane();
        // It stays parked while the first is woken, also on a busy machine.
        let worker = worker
            .failing(25, 1, Retries::Ordered)
            .retrying_after(Duration::from_secs(8));
        worker
            .set("group.instance.id", "one")
            .set("session.timeout.ms", 30_000)
    };
    scene.send(60).await;
    let first = worker("first").wait_at(Stage::Handling, 25).through(&proxy);
    let mut first = first.start(scene.folder());
    // It has polled all of them, and is at the first that will fail.
    first.waits().await;
    scene.pause(&first).await;
    let second = worker("second").wait_at(Stage::Handling, 26);
    let mut second = second.start(scene.folder());
    // It has parked record 25, and has not come to record 35 of the same key.
    second.waits().await;
    scene.until_parked(1).await;
    proxy.disconnect();
    first.wake().await;
    first.go_on().await;
    scene.let_a_wrong_commit_happen().await;
    first.kill().await;
    second.go_on().await;
    scene.check().await;
    assert_eq!(scene.parked().await, 0);
    second.stop().await;
}
