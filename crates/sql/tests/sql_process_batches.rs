//! Listeners whose handler takes lists of records in one transaction, and whose process is killed,
//! or joined by another, in the middle of a list.
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
use processes::Scene;
use processes::worker::{Retries, Stage};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "the process of the other tests"]
async fn works_until_it_is_killed() {
    processes::worker::work().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_again_and_again_between_lists_whose_records_fail_at_first() {
    let scene = Scene::new().await;
    let worker = |name: &str| {
        let worker = scene.worker(name).in_lists();
        let worker = worker.failing(7, 2, Retries::InPlace);
        worker
            .handling(Duration::from_millis(1))
            .start(scene.folder())
    };
    for round in 1..=4 {
        let worker = worker(&format!("w-{round}"));
        scene.send(100).await;
        scene.until_more_applied(40).await;
        worker.kill().await;
    }
    let _last = worker("last");
    scene.check().await;
}

async fn killed_at(stage: Stage) {
    let scene = Scene::new().await;
    scene.send(100).await;
    let first = scene.worker("first").in_lists().wait_at(stage, 35);
    let mut first = first.start(scene.folder());
    first.waits().await;
    scene.let_a_wrong_commit_happen().await;
    first.kill().await;
    let _second = scene.worker("second").in_lists().start(scene.folder());
    scene.check().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_before_a_record_in_the_middle_of_a_list() {
    killed_at(Stage::Handling).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_behind_a_record_in_the_middle_of_a_list() {
    killed_at(Stage::Transaction).await;
}

/// The lists in work are longer than the drain limit allows: they are given up and handed over.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn joined_by_another_while_lists_are_in_work() {
    let scene = Scene::new().await;
    // On PostgreSQL lists are handled side by side, in a file one after the other.
    let handling = Duration::from_millis(if is_postgres() { 100 } else { 40 });
    let worker = |name: &str| {
        let worker = scene.worker(name).in_lists();
        worker.handling(handling).start(scene.folder())
    };
    scene.send(300).await;
    let mut first = worker("first");
    first.ready().await;
    let mut second = worker("second");
    second.ready().await;
    scene.send(30).await;
    scene.check().await;
    let by = scene.applied_by().await;
    assert!(by.contains_key("second"), "{by:?}");
}
