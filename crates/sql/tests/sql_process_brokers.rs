//! Brokers that are killed (SIGKILL) and started again under load.
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
use processes::brokers::Brokers;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "the process of the other tests"]
async fn works_until_it_is_killed() {
    processes::worker::work().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "the broker of the other tests"]
async fn serves_until_it_is_killed() {
    processes::brokers::serve_until_killed().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn brokers_killed_and_started_again_under_load() {
    let mut scene = Scene::on(Brokers::mortal().await).await;
    let _workers = ["first", "second"].map(|name| {
        let worker = scene.worker(name).committing_each_record();
        worker
            .handling(Duration::from_millis(1))
            .start(scene.folder())
    });
    scene.send(200).await;
    scene.until_applied(100).await;
    // Apache Kafka takes its time to start.
    let rounds = if scene.brokers.are_embedded() { 4 } else { 2 };
    for round in 0..rounds {
        let number = round % scene.brokers.count() + 1;
        scene.brokers.kill(number).await;
        // Sent while the broker is away, and written when it is back.
        let sending = scene.sending(100);
        scene.brokers.restart(number).await;
        sending.await;
        scene.send_poison().await;
        scene.send(100).await;
        scene.until_more_applied(50).await;
    }
    scene.check().await;
}
