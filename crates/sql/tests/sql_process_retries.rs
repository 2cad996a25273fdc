//! Listeners whose records fail at first, or are acknowledged later, and whose process is killed or
//! stopped meanwhile: retries go on where they were.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    reason = "helpers of tests"
)]

mod events;
mod processes;

use std::time::Duration;

use processes::Scene;
use processes::worker::{Retries, Setup};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "the process of the other tests"]
async fn works_until_it_is_killed() {
    processes::worker::work().await;
}

/// Kills one worker after the other while records wait to be tried again.
async fn killed_again_and_again(scene: &Scene, change: impl Fn(Setup) -> Setup) {
    let worker = |name: &str| {
        let worker = scene.worker(name).handling(Duration::from_millis(1));
        change(worker).start(scene.folder())
    };
    for round in 1..=4 {
        let worker = worker(&format!("w-{round}"));
        scene.send(100).await;
        scene.until_more_applied(40).await;
        tokio::time::sleep(Duration::from_millis(300)).await;
        worker.kill().await;
    }
    let _last = worker("last");
    scene.check().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_while_records_wait_in_place() {
    let scene = Scene::new().await;
    killed_again_and_again(&scene, |worker| {
        worker
            .failing(7, 2, Retries::InPlace)
            .committing_each_record()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_while_records_wait_in_retry_topics() {
    let scene = Scene::new().await.unordered();
    killed_again_and_again(&scene, |worker| worker.failing(7, 2, Retries::Topics)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_while_records_wait_behind_those_of_their_key() {
    let scene = Scene::new().await;
    killed_again_and_again(&scene, |worker| worker.failing(7, 2, Retries::Ordered)).await;
    assert_eq!(scene.parked().await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_before_records_are_acknowledged_by_hand() {
    let scene = Scene::new().await;
    killed_again_and_again(&scene, |worker| {
        worker
            .failing(7, 1, Retries::InPlace)
            .acknowledging_by_hand()
    })
    .await;
}

/// Stops a worker while records wait, has another take over, and wakes it.
async fn stopped(scene: &Scene, change: impl Fn(Setup) -> Setup) {
    let worker = |name: &str| change(scene.worker(name)).start(scene.folder());
    let mut first = worker("first");
    first.ready().await;
    scene.send(100).await;
    scene.until_applied(20).await;
    scene.pause(&first).await;
    let second = worker("second");
    scene.send(100).await;
    // Before and after the second has done its work.
    scene.until_applied(150).await;
    first.wake().await;
    scene.check().await;
    scene.send(100).await;
    scene.check().await;
    second.stop().await;
    first.stop().await;
    scene.check().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stopped_while_records_wait_in_retry_topics() {
    let scene = Scene::new().await.unordered();
    stopped(&scene, |worker| worker.failing(7, 2, Retries::Topics)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stopped_while_records_wait_behind_those_of_their_key() {
    let scene = Scene::new().await;
    stopped(&scene, |worker| worker.failing(7, 2, Retries::Ordered)).await;
    assert_eq!(scene.parked().await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stopped_before_records_are_acknowledged_by_hand() {
    let scene = Scene::new().await;
    stopped(&scene, |worker| {
        worker
            .failing(7, 1, Retries::InPlace)
            .acknowledging_by_hand()
    })
    .await;
}
