//! What is settled beyond a position, and has no room in its commit, is kept in the listener's
//! database.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod ordered_support;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ackwell::extract::{Ack, Key, Offset, State};
use ackwell::{AckMode, App, Failure, Listener, RunningApp, by_key};
use ackwell_sql::{Database, Tx, params};
use ordered_support::{World, config, until};

const RECORDS: usize = 6_000;

/// What the handler was called with, and whether it holds one key back.
#[derive(Clone, Default)]
struct Calls {
    offsets: Arc<Mutex<Vec<i64>>>,
    holds: Arc<AtomicBool>,
}

async fn apply(
    Key(key): Key,
    Offset(offset): Offset,
    State(calls): State<Calls>,
    mut tx: Tx,
) -> Result<(), Failure> {
    let key = key.unwrap();
    if key == "k3" && calls.holds.load(Ordering::Relaxed) {
        std::future::pending::<()>().await;
    }
    calls.offsets.lock().unwrap().push(offset);
    let insert = "INSERT INTO effects (key, value) VALUES ($1, $2)";
    tx.execute(insert, params![key, offset.to_string()]).await?;
    Ok(())
}

async fn start(world: &World, database: &Database, calls: &Calls) -> RunningApp {
    let mut config = config(&world.bootstrap);
    config.stop.drain = Duration::from_millis(200);
    let listener = Listener::on(world.topic)
        .group(world.group())
        .concurrency(by_key(64))
        .queued_records(2 * RECORDS)
        .handle(apply);
    let app = App::new(config)
        .state(database.clone())
        .state(calls.clone())
        .listener(listener);
    let app = app.start().await.unwrap();
    app.ready().await.unwrap();
    app
}

async fn kept(database: &Database) -> i64 {
    let count = "SELECT count(*) FROM ackwell_snapshots";
    let row = database.query_opt(count, &[]).await.unwrap();
    row.unwrap().get(0).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_listener_with_a_database_keeps_its_gaps_there_and_repeats_only_what_is_unsettled() {
    let world = World::start(1).await;
    let database = world.database().await;
    let records: Vec<_> = (0..RECORDS)
        .map(|number| (Some(if number % 2 == 0 { "k0" } else { "k3" }), "v"))
        .collect();
    world.send(0, &records).await;

    let calls = Calls::default();
    calls.holds.store(true, Ordering::Relaxed);
    let app = start(&world, &database, &calls).await;
    let all_free = async || calls.offsets.lock().unwrap().len() == RECORDS / 2;
    until("the other key's records", all_free).await;
    app.stop().await.unwrap();
    assert_eq!(world.committed(0), 1);
    assert!(
        kept(&database).await > 0,
        "three thousand gaps have no room"
    );

    let again = Calls::default();
    let app = start(&world, &database, &again).await;
    world.commits(0, i64::try_from(RECORDS).unwrap()).await;
    let repeated = again.offsets.lock().unwrap().clone();
    let held: Vec<_> = (1..i64::try_from(RECORDS).unwrap()).step_by(2).collect();
    assert_eq!(repeated, held);
    until("what is not needed is gone", async || {
        kept(&database).await == 0
    })
    .await;
    app.stop().await.unwrap();
}

async fn both(_: Ack, _: Tx) {}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_acknowledgement_beside_a_transaction_is_refused_with_the_reason() {
    let world = World::start(1).await;
    let listener = Listener::on(world.topic)
        .group(world.group())
        .ack_mode(AckMode::Manual)
        .handle(both);
    let app = App::new(config(&world.bootstrap))
        .state(world.database().await)
        .listener(listener);
    let error = app.start().await.unwrap_err().to_string();
    assert!(
        error.contains("duplicate") && error.contains("remove `Ack`"),
        "{error}"
    );
}
