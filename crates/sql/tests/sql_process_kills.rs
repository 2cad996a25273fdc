//! Listeners whose process is killed (SIGKILL), at each stage of a record's way: another one
//! goes on, and every record takes effect once.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    reason = "helpers of tests"
)]

mod events;
mod processes;

use std::time::Duration;

use kafka_protocol::messages::ApiKey;
use processes::Scene;
use processes::proxy::{Fate, Proxy};
use processes::worker::{Retries, Stage};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "the process of the other tests"]
async fn works_until_it_is_killed() {
    processes::worker::work().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_again_and_again_while_records_come() {
    let scene = Scene::new().await;
    for round in 1..=4 {
        let worker = scene.worker(&format!("w-{round}"));
        let worker = worker.committing_each_record();
        let worker = worker
            .handling(Duration::from_millis(1))
            .start(scene.folder());
        scene.send(200).await;
        // In the middle of what is waiting.
        scene.until_applied(round * 200 - 120).await;
        worker.kill().await;
    }
    let _last = scene.worker("last").start(scene.folder());
    scene.check().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_while_it_only_polls() {
    let scene = Scene::new().await;
    let first = scene.worker("first").start(scene.folder());
    scene.send(50).await;
    scene.until_settled().await;
    first.kill().await;
    scene.send(50).await;
    let _second = scene.worker("second").start(scene.folder());
    scene.check().await;
}

async fn killed_at(stage: Stage) {
    let scene = Scene::new().await;
    scene.send(100).await;
    let first = scene.worker("first").wait_at(stage, 35);
    let mut first = first.committing_each_record().start(scene.folder());
    first.waits().await;
    scene.let_a_wrong_commit_happen().await;
    first.kill().await;
    let _second = scene.worker("second").start(scene.folder());
    scene.check().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_while_a_record_is_handled() {
    killed_at(Stage::Handling).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_inside_the_transaction() {
    killed_at(Stage::Transaction).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_between_the_databases_commit_and_the_offsets() {
    let scene = Scene::new().await;
    let proxy = Proxy::start(scene.brokers.servers()).await;
    let commits = proxy.on(ApiKey::OffsetCommit, 1, &[Fate::HoldRequest]);
    scene.send(100).await;
    let first = scene.worker("first").through(&proxy).start(scene.folder());
    scene.until_applied(100).await;
    commits.met(1).await;
    assert_eq!(scene.committed().await, [0, 0, 0]);
    first.kill().await;
    commits.discard();
    let _second = scene.worker("second").start(scene.folder());
    scene.check().await;
    assert_eq!(
        scene.applied_by().await.get("second"),
        None,
        "all was applied"
    );
}

/// Kills a worker whose request to write a dead letter, or the answer to it, is on its way.
async fn killed_at_a_dead_letter(fate: Fate) -> usize {
    let scene = Scene::new().await;
    let proxy = Proxy::start(scene.brokers.servers()).await;
    let writes = proxy.on(ApiKey::Produce, 1, &[fate]);
    scene.send(15).await;
    scene.send_poison().await;
    scene.send(15).await;
    let first = scene.worker("first").through(&proxy).start(scene.folder());
    writes.met(1).await;
    // The answer is held when it is there, which is soon.
    if fate == Fate::HoldResponse {
        processes::within("the dead letter to be written", async {
            while scene.dead_letters().await.is_empty() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        })
        .await;
    }
    scene.let_a_wrong_commit_happen().await;
    first.kill().await;
    writes.discard();
    let _second = scene.worker("second").start(scene.folder());
    scene.check().await;
    scene.dead_letters().await.len()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_before_its_dead_letter_is_written() {
    assert_eq!(killed_at_a_dead_letter(Fate::HoldRequest).await, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_before_it_knows_that_its_dead_letter_is_written() {
    // The offset follows the answer, so the letter is there once more, with the same headers.
    assert_eq!(killed_at_a_dead_letter(Fate::HoldResponse).await, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_before_its_copy_for_a_retry_topic_is_written() {
    let scene = Scene::new().await.unordered();
    let worker = |name: &str| scene.worker(name).failing(7, 1, Retries::Topics);
    let proxy = Proxy::start(scene.brokers.servers()).await;
    let writes = proxy.on(ApiKey::Produce, 1, &[Fate::HoldRequest]);
    scene.send(30).await;
    let first = worker("first").through(&proxy).start(scene.folder());
    writes.met(1).await;
    scene.let_a_wrong_commit_happen().await;
    first.kill().await;
    writes.discard();
    let _second = worker("second").start(scene.folder());
    scene.check().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_while_the_group_rebalances() {
    let scene = Scene::new().await;
    scene.send(50).await;
    let mut first = scene.worker("first").start(scene.folder());
    first.ready().await;
    // The second never takes what it is given, and the third does not get so far.
    for (name, api) in [("second", ApiKey::SyncGroup), ("third", ApiKey::JoinGroup)] {
        let proxy = Proxy::start(scene.brokers.servers()).await;
        let step = proxy.on(api, 1, &[Fate::HoldRequest]);
        let joining = scene.worker(name).through(&proxy).start(scene.folder());
        step.met(1).await;
        scene.send(50).await;
        joining.kill().await;
        step.discard();
    }
    scene.check().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_owner_of_the_partitions_killed_while_it_rejoins() {
    let scene = Scene::new().await;
    let proxy = Proxy::start(scene.brokers.servers()).await;
    scene.send(50).await;
    let mut first = scene.worker("first").through(&proxy).start(scene.folder());
    first.ready().await;
    scene.until_applied(50).await;
    let step = proxy.on(ApiKey::JoinGroup, 1, &[Fate::HoldRequest]);
    let _second = scene.worker("second").start(scene.folder());
    step.met(1).await;
    scene.send(50).await;
    first.kill().await;
    step.discard();
    scene.check().await;
}
