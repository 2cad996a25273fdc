//! The end of a transaction that nobody hears of: the network takes the request, or its answer.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod container_support;
#[allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    reason = "shared with other tests, of which each uses its part"
)]
#[path = "../../sql/tests/processes/proxy.rs"]
mod proxy;
mod transactions_support;

use std::time::Duration;

use ackwell::core::seek::SeekTo;
use ackwell::extract::{State, Text};
use ackwell::transaction::{Transaction, TransactionError, Transactions};
use ackwell::{App, Config, Listener, TopicDeclaration};
use kafka_protocol::messages::ApiKey;
use proxy::{Fate, Proxy};
use transactions_support::{Calls, Out, Scene, out, within};

/// Long enough for a busy machine to commit in, short enough to wait for.
const TIMEOUT: Duration = Duration::from_secs(5);

fn through(proxy: &Proxy, scene: &Scene) -> Config {
    let mut config = scene.config();
    config.kafka.bootstrap_servers = proxy.address().to_owned();
    config.transactions.timeout = TIMEOUT;
    config
}

fn numbers(range: std::ops::Range<u32>) -> Vec<String> {
    range.map(|number| number.to_string()).collect()
}

/// Sends each value on to both outputs.
async fn transform(
    Text(value): Text,
    State(to): State<Out>,
    State(calls): State<Calls>,
    tx: Transaction,
) -> Result<(), TransactionError> {
    calls.push(value.clone());
    tx.send_record(out(&to.0, &value)).await?;
    tx.send_record(out(&to.1, &value)).await
}

/// Sends three records on, then three more; the ends of the former meet this fate until the listener
/// takes its id anew. What the handler was called with.
async fn send_on_while_ends_are_lost(scene: &Scene, fate: Fate) -> Vec<String> {
    let (from, to) = (scene.cluster.topic(1).await, scene.out().await);
    let proxy = Proxy::start(scene.cluster.bootstrap()).await;
    let begins = proxy.on(ApiKey::InitProducerId, 1, &[Fate::Delay(Duration::ZERO)]);
    let ends = proxy.on(ApiKey::EndTxn, 1, &[fate]);
    let calls = Calls::default();
    let listener = Listener::on(TopicDeclaration::named(from.clone())).group(format!("g-{from}"));
    let app = App::new(through(&proxy, scene))
        .state(to.clone())
        .state(calls.clone());
    let app = scene.start(app.listener(listener.handle(transform))).await;
    let opened = begins.hits();
    scene.send(&from, 0, &numbers(0..3)).await;
    begins.met(opened + 1).await;
    ends.lift();
    scene.settled(&from, 0, 3).await;
    scene.send(&from, 0, &numbers(3..6)).await;
    scene.settled(&from, 0, 6).await;
    let metrics = app.metrics().render();
    for outcome in ["committed", "unknown"] {
        let counted = metrics
            .lines()
            .any(|line| line.starts_with("ackwell_transactions_total") && line.contains(outcome));
        assert!(counted, "{outcome} is not in {metrics}");
    }
    within("the app to stop", app.stop()).await.unwrap();
    for topic in [&to.0, &to.1] {
        assert_eq!(scene.seen(topic), numbers(0..6));
    }
    calls.all()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_committed_without_an_answer_is_not_handled_again() {
    let scene = Scene::new().await;
    let calls = send_on_while_ends_are_lost(&scene, Fate::CutResponse).await;
    // The first is surely in the transaction that was committed; the others may have come later.
    let first = calls.iter().filter(|call| *call == "0");
    assert_eq!(first.count(), 1, "{calls:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_not_committed_is_handled_again_and_seen_once() {
    let scene = Scene::new().await;
    let calls = send_on_while_ends_are_lost(&scene, Fate::CutRequest).await;
    assert!(calls.len() > 6, "{calls:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_whose_answer_is_lost_is_reported_as_unknown_and_the_next_goes_well() {
    let scene = Scene::new().await;
    let topic = scene.cluster.topic(1).await;
    let proxy = Proxy::start(scene.cluster.bootstrap()).await;
    let transactions = Transactions::open(&through(&proxy, &scene)).await.unwrap();
    let ends = proxy.on(ApiKey::EndTxn, 1, &[Fate::CutResponse]);
    let send = async |value: &str| -> Result<(), TransactionError> {
        transactions
            .run(async |tx| tx.send_record(out(&topic, value)).await)
            .await
    };
    let error = within("the commit", send("kept")).await.unwrap_err();
    assert!(error.is_unknown() && error.is_unavailable(), "{error}");
    ends.lift();
    within("the next commit", send("next")).await.unwrap();
    assert_eq!(scene.seen(&topic), ["kept", "next"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_seeks_back_behind_a_doubt_is_given_its_records_again() {
    let scene = Scene::new().await;
    let (from, to) = (scene.cluster.topic(1).await, scene.out().await);
    let proxy = Proxy::start(scene.cluster.bootstrap()).await;
    let begins = proxy.on(ApiKey::InitProducerId, 1, &[Fate::Delay(Duration::ZERO)]);
    let ends = proxy.on(ApiKey::EndTxn, 1, &[Fate::CutResponse]);
    let listener = Listener::on(TopicDeclaration::named(from.clone()))
        .group(format!("g-{from}"))
        .name("sender");
    let app = App::new(through(&proxy, &scene))
        .state(to.clone())
        .state(Calls::default());
    let app = scene.start(app.listener(listener.handle(transform))).await;
    let opened = begins.hits();
    scene.send(&from, 0, &numbers(0..1)).await;
    begins.met(opened + 1).await;
    ends.lift();
    // Known again, and passed over: until the next commit the listener remembers that.
    let handle = app.listener("sender").unwrap();
    within("the record to be passed over", async {
        while handle
            .assignment()
            .await
            .first()
            .and_then(|one| one.position)
            != Some(1)
        {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    assert_eq!(
        handle.seek(from.as_str(), 0, SeekTo::Beginning).await,
        Ok(0)
    );
    within("the record to be sent again", async {
        while scene.seen(&to.0) != ["0", "0"] {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    within("the app to stop", app.stop()).await.unwrap();
}
