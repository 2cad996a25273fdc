//! Groups whose members come and go all the time, handlers that take too long, and a database
//! that another process keeps locked.
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
use rusqlite::Connection;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "the process of the other tests"]
async fn works_until_it_is_killed() {
    processes::worker::work().await;
}

/// Members join and leave every second, by stopping and by dying, while records come.
async fn storm(strategy: &str) {
    let scene = Scene::new().await;
    let worker = |name: &str| {
        let worker = scene.worker(name).handling(Duration::from_millis(2));
        let worker = worker.set("partition.assignment.strategy", strategy);
        worker.committing_each_record().start(scene.folder())
    };
    let _steady = worker("steady");
    for round in 0..8 {
        let passing = worker(&format!("passing-{round}"));
        scene.send(50).await;
        tokio::time::sleep(Duration::from_millis(500)).await;
        scene.send(50).await;
        tokio::time::sleep(Duration::from_millis(500)).await;
        match round % 4 {
            3 => passing.kill().await,
            _ => passing.stop().await,
        }
    }
    scene.check().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_storm_of_eager_rebalances() {
    storm("range").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_storm_of_cooperative_rebalances() {
    storm("cooperative-sticky").await;
}

/// Members join and leave in an orderly way, and none is late: not even a handler that knows no
/// transaction sees a record twice.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn orderly_rebalances_have_no_record_handled_twice() {
    let scene = Scene::new().await;
    let worker = |name: &str| {
        // So long that a busy machine's member is not taken for dead.
        let worker = scene.worker_that_counts(name);
        let worker = worker.set("session.timeout.ms", 30_000);
        let worker = worker.handling(Duration::from_millis(100));
        worker.start(scene.folder())
    };
    let mut steady = worker("steady");
    steady.ready().await;
    for round in 0..3 {
        scene.send(60).await;
        let mut passing = worker(&format!("passing-{round}"));
        passing.ready().await;
        scene.send(60).await;
        // In the middle of its work, and not of the rebalance: a join under way would hold up its
        // leave, and so the group until its session ends.
        scene.until_applied_by(&format!("passing-{round}")).await;
        passing.stop().await;
    }
    scene.check().await;
    assert_eq!(scene.calls(), (0..360).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_handler_that_takes_longer_than_the_poll_interval_keeps_its_partition() {
    let scene = Scene::new().await;
    let workers = ["first", "second"].map(|name| {
        let worker = scene.worker(name).set("max.poll.interval.ms", 3_000);
        worker
            .handling(Duration::from_secs(4))
            .start(scene.folder())
    });
    for mut worker in workers {
        worker.ready().await;
        tokio::spawn(async move {
            let _running = worker;
            std::future::pending::<()>().await;
        });
    }
    scene.send(20).await;
    scene.check().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_another_process_keeps_locked() {
    if events::database_url::is_postgres() {
        return; // Nobody can lock all of it.
    }
    let scene = Scene::new().await;
    let worker = scene.worker("worker").committing_each_record();
    let mut worker = worker
        .handling(Duration::from_millis(1))
        .start(scene.folder());
    worker.ready().await;
    scene.send(300).await;
    scene.until_applied(50).await;
    // The worker waits one second for the lock; ten of them are ten times away.
    let file = scene.database_file();
    let applied = tokio::task::spawn_blocking(move || {
        let other = Connection::open(file).unwrap();
        other.busy_timeout(Duration::from_secs(30)).unwrap();
        other.execute_batch("BEGIN EXCLUSIVE").unwrap();
        let count = |sql| {
            other
                .query_row(sql, [], |row| row.get::<_, i64>(0))
                .unwrap()
        };
        let before = count("SELECT count(*) FROM effects");
        std::thread::sleep(Duration::from_secs(10));
        let after = count("SELECT count(*) FROM effects");
        other.execute_batch("COMMIT").unwrap();
        (before, after)
    });
    tokio::time::sleep(Duration::from_secs(2)).await;
    scene.send(300).await;
    let (before, after) = applied.await.unwrap();
    assert_eq!(before, after, "it was locked");
    scene.check().await;
}
