//! Listeners on a network that loses requests and answers of chosen kinds.
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
use processes::worker::Stage;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "the process of the other tests"]
async fn works_until_it_is_killed() {
    processes::worker::work().await;
}

/// Longer than the clients wait for an answer, 3 s.
const LATE: Duration = Duration::from_millis(3_500);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commits_that_are_lost_and_answers_that_are_lost() {
    let scene = Scene::new().await;
    let proxy = Proxy::start(scene.brokers.servers()).await;
    let fates = [
        Fate::CutRequest,
        Fate::CutResponse,
        Fate::DropResponse,
        Fate::DropRequest,
        Fate::Delay(LATE),
    ];
    let commits = proxy.on(ApiKey::OffsetCommit, 2, &fates);
    let worker = scene
        .worker("worker")
        .through(&proxy)
        .committing_each_record();
    let _worker = worker.start(scene.folder());
    for _ in 0..fates.len() * 2 {
        let hits = commits.hits();
        scene.send(20).await;
        commits.met(hits + 1).await;
        if hits + 1 >= fates.len() {
            break;
        }
    }
    scene.check().await;
}

/// Of each second and each third commit the broker refuses one partition and takes the others: however many commits
/// a round has, the last one of some round is refused.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commits_of_which_one_partition_is_refused() {
    let scene = Scene::new().await;
    let proxy = Proxy::start(scene.brokers.servers()).await;
    let commits = proxy.on(ApiKey::OffsetCommit, 2, &[Fate::RefuseOnePartition]);
    let others = proxy.on(ApiKey::OffsetCommit, 3, &[Fate::RefuseOnePartition]);
    let worker = scene.worker("worker").through(&proxy);
    let _worker = worker.start(scene.folder());
    for _ in 0..10 {
        // Whichever commit comes last: nothing else would bring the position up to date.
        scene.send(30).await;
        scene.until_settled().await;
    }
    assert!(commits.hits() > 0 && others.hits() > 0);
    scene.check().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn heartbeats_that_are_lost_until_the_session_ends() {
    let scene = Scene::new().await;
    let proxy = Proxy::start(scene.brokers.servers()).await;
    let first = scene
        .worker("first")
        .through(&proxy)
        .handling(Duration::from_millis(5));
    let mut first = first.start(scene.folder());
    first.ready().await;
    let heartbeats = proxy.on(ApiKey::Heartbeat, 1, &[Fate::CutRequest]);
    let mut second = scene.worker("second").start(scene.folder());
    second.ready().await;
    for _ in 0..5 {
        scene.send(60).await;
        tokio::time::sleep(Duration::from_millis(700)).await;
    }
    assert!(heartbeats.hits() > 1);
    heartbeats.lift();
    scene.check().await;
}

async fn joins(api: ApiKey) {
    let scene = Scene::new().await;
    let proxy = Proxy::start(scene.brokers.servers()).await;
    let fates = [Fate::CutResponse, Fate::CutRequest, Fate::DropResponse];
    // A join is awaited for as long as a rebalance may take.
    let worker = |name| {
        let worker = scene.worker(name).set("max.poll.interval.ms", 4_000);
        worker.through(&proxy).start(scene.folder())
    };
    let _first = worker("first");
    scene.send(60).await;
    scene.until_applied(60).await;
    // A new member joins twice, first for its id: losing each second would lose all of its joins.
    let steps = proxy.on(api, 3, &fates);
    // Each of these makes the first join again.
    for name in ["second", "third"] {
        let mut other = worker(name);
        scene.send(60).await;
        other.ready().await;
        other.stop().await;
    }
    assert!(steps.hits() > 0);
    steps.lift();
    scene.send(60).await;
    scene.check().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn joins_that_are_lost() {
    joins(ApiKey::JoinGroup).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn assignments_that_are_lost() {
    joins(ApiKey::SyncGroup).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fetches_that_are_lost_late_or_answered_to_nobody() {
    let scene = Scene::new().await;
    let proxy = Proxy::start(scene.brokers.servers()).await;
    let fates = [
        Fate::CutResponse,
        Fate::Delay(Duration::from_secs(1)),
        Fate::CutRequest,
        Fate::DropResponse,
    ];
    let fetches = proxy.on(ApiKey::Fetch, 3, &fates);
    let _worker = scene.worker("worker").through(&proxy).start(scene.folder());
    for _ in 0..10 {
        scene.send(100).await;
        scene.until_more_applied(1).await;
    }
    fetches.met(4).await;
    scene.check().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dead_letters_whose_acknowledgement_is_lost() {
    let scene = Scene::new().await;
    let proxy = Proxy::start(scene.brokers.servers()).await;
    let fates = [Fate::CutResponse, Fate::CutRequest, Fate::DropResponse];
    let writes = proxy.on(ApiKey::Produce, 2, &fates);
    let _worker = scene.worker("worker").through(&proxy).start(scene.folder());
    for _ in 0..8 {
        scene.send(20).await;
        scene.send_poison().await;
    }
    writes.met(3).await;
    scene.check().await;
    assert_eq!(
        scene.dead_letters().await.len(),
        8,
        "the producer is idempotent"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_that_end_at_any_request() {
    let scene = Scene::new().await;
    let (left, right) = (
        Proxy::start(scene.brokers.servers()).await,
        Proxy::start(scene.brokers.servers()).await,
    );
    let cuts = [
        left.on_any(23, &[Fate::CutResponse]),
        right.on_any(31, &[Fate::CutRequest]),
    ];
    let _workers = [("left", &left), ("right", &right)].map(|(name, proxy)| {
        let worker = scene.worker(name).through(proxy).committing_each_record();
        worker
            .handling(Duration::from_millis(2))
            .start(scene.folder())
    });
    for _ in 0..6 {
        scene.send(100).await;
        scene.send_poison().await;
    }
    for cut in cuts {
        cut.met(4).await;
        cut.lift();
    }
    scene.check().await;
}

/// A record is in work while its worker is cut off for longer than its session.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_is_cut_off_while_it_works() {
    let scene = Scene::new().await;
    let proxy = Proxy::start(scene.brokers.servers()).await;
    let first = scene
        .worker("first")
        .through(&proxy)
        .wait_at(Stage::Handling, 35);
    let mut first = first.start(scene.folder());
    scene.send(60).await;
    first.waits().await;
    proxy.disconnect();
    let second = scene.worker("second").start(scene.folder());
    scene.check().await;
    first.go_on().await;
    proxy.connect();
    scene.send(60).await;
    scene.check().await;
    second.stop().await;
    scene.send(60).await;
    scene.check().await;
    first.stop().await;
    scene.check().await;
}

/// The broker does not answer a commit, until the container has given it up, the next one waits,
/// and the session has ended. Sent then, that one would be taken for a current one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_that_waits_through_a_rebalance_takes_nothing_back() {
    let scene = Scene::new().await;
    let proxy = Proxy::start(scene.brokers.servers()).await;
    let first = scene
        .worker("first")
        .through(&proxy)
        .committing_each_record();
    let first = first.set("socket.timeout.ms", 60_000);
    // Longer than the container waits for a commit.
    let mut first = first
        .set("session.timeout.ms", 13_000)
        .start(scene.folder());
    first.ready().await;
    scene.send(30).await;
    scene.until_settled().await;
    let commits = proxy.on(ApiKey::OffsetCommit, 1, &[Fate::HoldRequest]);
    scene.send(30).await;
    commits.met(1).await;
    let second = scene.worker("second").committing_each_record();
    let mut second = second.start(scene.folder());
    second.ready().await;
    scene.send(30).await;
    // Only the second can commit.
    scene.until_settled_somewhere().await;
    commits.release();
    scene.check().await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    scene.check().await;
    first.stop().await;
    scene.check().await;
}
