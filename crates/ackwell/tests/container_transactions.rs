//! Several records as one, and exactly once from topic to topic, on a real broker.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod container_support;
mod transactions_support;

use std::sync::Arc;
use std::time::Duration;

use ackwell::extract::{Attempt, State, Text};
use ackwell::observe::{Metrics, Status};
use ackwell::producer::OutgoingRecord;
use ackwell::retry::{fixed, topics};
use ackwell::transaction::{Transaction, TransactionError, Transactions};
use ackwell::{App, Batch, Class, Failure, Listener, TopicDeclaration};
use tokio::sync::Notify;
use transactions_support::{Calls, Out, Scene, out, within};

const LONG: Duration = Duration::from_secs(60);

fn numbers(range: std::ops::Range<u32>) -> Vec<String> {
    range.map(|number| number.to_string()).collect()
}

/// Sends each value on to both outputs.
async fn transform(
    Text(value): Text,
    State(to): State<Out>,
    tx: Transaction,
) -> Result<(), TransactionError> {
    tx.send_record(out(&to.0, &value)).await?;
    tx.send_record(out(&to.1, &value)).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_sent_in_a_transaction_is_seen_together_or_not_at_all() {
    let scene = Scene::new().await;
    let (one, other) = (scene.cluster.topic(1).await, scene.cluster.topic(3).await);
    let transactions = Transactions::open(&scene.patient()).await.unwrap();
    let sent: Result<u32, TransactionError> = transactions
        .run(async |tx| {
            tx.send_record(out(&one, "a")).await?;
            tx.send_record(out(&other, "b")).await?;
            Ok(7)
        })
        .await;
    assert_eq!(sent.unwrap(), 7);

    let refused: Result<(), Failure> = transactions
        .run(async |tx| {
            tx.send_record(out(&one, "never")).await?;
            tx.send_record(out(&other, "never")).await?;
            Err(Failure::permanent("no"))
        })
        .await;
    assert_eq!(refused.unwrap_err().summary(), "no");

    let again: Result<(), TransactionError> = transactions
        .run(async |tx| tx.send_record(out(&one, "c")).await)
        .await;
    again.unwrap();
    assert_eq!(scene.seen(&one), ["a", "c"]);
    assert_eq!(scene.seen(&other), ["b"]);
    transactions.close(LONG).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_closure_that_is_dropped_or_panics_leaves_nothing_and_the_producer_goes_on() {
    let scene = Scene::new().await;
    let topic = scene.cluster.topic(1).await;
    let mut config = scene.patient();
    config.transactions.producers = 1;
    let transactions = Transactions::open(&config).await.unwrap();
    let hanging = transactions.run(async |tx| -> Result<(), TransactionError> {
        tx.send_record(out(&topic, "dropped")).await?;
        std::future::pending().await
    });
    let waited = tokio::time::timeout(Duration::from_millis(300), hanging).await;
    assert!(waited.is_err());

    let (panicking, to) = (transactions.clone(), topic.clone());
    let panicked = tokio::spawn(async move {
        let work = async |tx: Transaction| -> Result<(), TransactionError> {
            tx.send_record(out(&to, "panicked")).await?;
            panic!("in the closure");
        };
        panicking.run(work).await
    });
    assert!(panicked.await.unwrap_err().is_panic());

    let sent: Result<Transaction, TransactionError> = within(
        "the producer",
        transactions.run(async |tx| {
            tx.send_record(out(&topic, "a")).await?;
            Ok(tx)
        }),
    )
    .await;
    let late = sent.unwrap().send_record(out(&topic, "late")).await;
    assert!(late.unwrap_err().to_string().contains("has ended"));
    assert_eq!(scene.seen(&topic), ["a"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_record_that_the_broker_refuses_fails_the_transaction_whoever_looked() {
    let scene = Scene::new().await;
    let (topic, small) = (scene.cluster.topic(1).await, scene.small().await);
    let transactions = Transactions::open(&scene.patient()).await.unwrap();
    let sent: Result<(), TransactionError> = transactions
        .run(async |tx| {
            tx.send_record(out(&topic, "never")).await?;
            let _ = tx.send_record(out(&small, &"x".repeat(5_000))).await;
            Ok(())
        })
        .await;
    let error = sent.unwrap_err();
    assert!(error.is_permanent() && !error.is_unknown(), "{error}");
    assert!(error.to_string().contains(&small), "{error}");
    let sent: Result<(), TransactionError> = transactions
        .run(async |tx| tx.send_record(out(&topic, "a")).await)
        .await;
    sent.unwrap();
    assert_eq!(scene.seen(&topic), ["a"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_record_is_sent_on_once_with_its_position() {
    let scene = Scene::new().await;
    let (from, to) = (scene.cluster.topic(3).await, scene.out().await);
    for partition in 0..3 {
        scene.send(&from, partition, &numbers(0..200)).await;
    }
    let listener = || {
        Listener::on(TopicDeclaration::named(from.clone()))
            .group(format!("g-{from}"))
            .handle(transform)
    };
    let app = scene
        .start(
            App::new(scene.patient())
                .state(to.clone())
                .listener(listener()),
        )
        .await;
    for partition in 0..3 {
        scene.settled(&from, partition, 200).await;
    }
    app.stop().await.unwrap();
    // Nothing is left to do for another one.
    let app = scene
        .start(
            App::new(scene.patient())
                .state(to.clone())
                .listener(listener()),
        )
        .await;
    scene.send(&from, 0, &numbers(200..201)).await;
    scene.settled(&from, 0, 201).await;
    app.stop().await.unwrap();
    for topic in [&to.0, &to.1] {
        let mut seen = scene.seen(topic);
        assert_eq!(seen.len(), 601);
        seen.sort();
        seen.dedup();
        assert_eq!(seen.len(), 201);
    }
}

/// Fails at `bad` values after sending, transient or permanent.
async fn fail_some(
    Text(value): Text,
    Attempt(attempt): Attempt,
    State(to): State<Out>,
    State(calls): State<Calls>,
    tx: Transaction,
) -> Result<(), Failure> {
    calls.push(format!("{value}:{attempt}"));
    tx.send_record(out(&to.0, &format!("{value}:{attempt}")))
        .await?;
    match &*value {
        "flaky" if attempt < 3 => Err(Failure::transient("not yet")),
        "bad" => Err(Failure::permanent("never")),
        "skipped" => Err(Failure::new(Class::Skip, "not for us")),
        _ => Ok(()),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failing_record_has_sent_nothing_and_its_neighbours_are_not_repeated() {
    let scene = Scene::new().await;
    let (from, to) = (scene.cluster.topic(1).await, scene.out().await);
    let calls = Calls::default();
    let values = [
        "a", "b", "flaky", "c", "bad", "d", "skipped", "e", "skipped",
    ];
    scene.send(&from, 0, &values.map(str::to_owned)).await;
    let listener = Listener::on(TopicDeclaration::named(from.clone()))
        .group(format!("g-{from}"))
        .retry(fixed(Duration::from_millis(20)).max_attempts(5))
        .handle(fail_some);
    let app = App::new(scene.patient())
        .state(to.clone())
        .state(calls.clone());
    let app = scene.start(app.listener(listener)).await;
    scene.settled(&from, 0, 9).await;
    app.stop().await.unwrap();
    assert_eq!(
        scene.seen(&to.0),
        ["a:1", "b:1", "flaky:3", "c:1", "d:1", "e:1"]
    );
    assert_eq!(scene.seen(&format!("{from}.DLQ")), ["bad"]);
    let expected = [
        "a:1",
        "b:1",
        "flaky:1",
        "flaky:2",
        "flaky:3",
        "c:1",
        "bad:1",
        "d:1",
        "skipped:1",
        "e:1",
        "skipped:1",
    ];
    assert_eq!(calls.all(), expected);
}

async fn to_small(
    Text(value): Text,
    State(to): State<Out>,
    State(calls): State<Calls>,
    tx: Transaction,
) -> Result<(), Failure> {
    calls.push(value.clone());
    let bytes = if value.ends_with('7') { 5_000 } else { 10 };
    tx.send_record(out(&to.0, &value)).await?;
    tx.send_record(OutgoingRecord::to(to.1.clone()).value(vec![0; bytes]))
        .await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_group_that_the_broker_refuses_is_taken_apart_until_the_one_to_blame_is_alone() {
    let scene = Scene::new().await;
    let from = scene.cluster.topic(1).await;
    let to = Out(scene.cluster.topic(1).await, scene.small().await);
    let calls = Calls::default();
    scene.send(&from, 0, &numbers(0..20)).await;
    let listener = Listener::on(TopicDeclaration::named(from.clone()))
        .group(format!("g-{from}"))
        .handle(to_small);
    let app = App::new(scene.patient())
        .state(to.clone())
        .state(calls.clone());
    let app = scene.start(app.listener(listener)).await;
    scene.settled(&from, 0, 20).await;
    app.stop().await.unwrap();
    let expected = numbers(0..20)
        .into_iter()
        .filter(|value| !value.ends_with('7'));
    assert_eq!(scene.seen(&to.0), expected.collect::<Vec<_>>());
    assert_eq!(scene.seen(&to.1).len(), 18);
    assert_eq!(scene.seen(&format!("{from}.DLQ")), ["7", "17"]);
}

async fn hang(
    Text(value): Text,
    State(to): State<Out>,
    State(go): State<Arc<Notify>>,
    tx: Transaction,
) -> Result<(), Failure> {
    tx.send_record(out(&to.0, &value)).await?;
    if value == "slow" {
        go.notified().await;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_handler_that_waits_holds_up_nobody_before_it_and_outlasts_the_timeout() {
    let scene = Scene::new().await;
    let (from, to) = (scene.cluster.topic(1).await, scene.out().await);
    let values = ["a", "b", "slow", "c"];
    scene.send(&from, 0, &values.map(str::to_owned)).await;
    let mut config = scene.patient();
    config.transactions.timeout = Duration::from_secs(2);
    let go = Arc::new(Notify::new());
    let listener = Listener::on(TopicDeclaration::named(from.clone()))
        .group(format!("g-{from}"))
        .handle(hang);
    let app = App::new(config).state(to.clone()).state(Arc::clone(&go));
    let app = scene.start(app.listener(listener)).await;
    scene.settled(&from, 0, 2).await;
    assert_eq!(scene.seen(&to.0), ["a", "b"]);
    tokio::time::sleep(Duration::from_secs(3)).await;
    go.notify_one();
    scene.settled(&from, 0, 4).await;
    assert_eq!(scene.seen(&to.0), values);
    app.stop().await.unwrap();
}

async fn sum(
    Batch(values): Batch<Text>,
    State(to): State<Out>,
    State(calls): State<Calls>,
    tx: Transaction,
) -> Result<(), Failure> {
    let values: Vec<_> = values.into_iter().map(|Text(value)| value).collect();
    calls.push(values.join("+"));
    for value in &values {
        tx.send_record(out(&to.0, value)).await?;
    }
    if values.iter().any(|value| value == "bad") {
        return Err(Failure::permanent("a bad one"));
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_list_has_one_transaction_and_the_bad_one_in_it_is_found() {
    let scene = Scene::new().await;
    let (from, to) = (scene.cluster.topic(1).await, scene.out().await);
    let values = ["a", "b", "c", "bad", "d", "e"];
    scene.send(&from, 0, &values.map(str::to_owned)).await;
    let calls = Calls::default();
    let listener = Listener::on(TopicDeclaration::named(from.clone()))
        .group(format!("g-{from}"))
        .handle_batch(sum);
    let app = App::new(scene.patient())
        .state(to.clone())
        .state(calls.clone());
    let app = scene.start(app.listener(listener)).await;
    scene.settled(&from, 0, 6).await;
    app.stop().await.unwrap();
    assert_eq!(scene.seen(&to.0), ["a", "b", "c", "d", "e"]);
    assert_eq!(scene.seen(&format!("{from}.DLQ")), ["bad"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_record_goes_to_its_retry_topic_once_and_comes_back() {
    let scene = Scene::new().await;
    let (from, to) = (scene.cluster.topic(1).await, scene.out().await);
    let calls = Calls::default();
    scene
        .send(&from, 0, &["a", "flaky", "b"].map(str::to_owned))
        .await;
    let delays = [Duration::from_millis(100), Duration::from_millis(300)];
    let listener = Listener::on(TopicDeclaration::named(from.clone()))
        .group(format!("g-{from}"))
        .retry(topics(delays))
        .handle(fail_some);
    let app = App::new(scene.patient())
        .state(to.clone())
        .state(calls.clone());
    let app = scene.start(app.listener(listener)).await;
    scene.settled(&from, 0, 3).await;
    within("the record to come back", async {
        while scene.seen(&to.0).len() < 3 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
    app.stop().await.unwrap();
    assert_eq!(scene.seen(&to.0), ["a:1", "b:1", "flaky:3"]);
    // Each topic has its own position.
    scene.settled(&from, 0, 3).await;
    for number in 1..=2 {
        let retry = format!("{from}.retry.{number}");
        assert_eq!(scene.seen(&retry), ["flaky"]);
        let group = format!("g-{from}");
        let end = scene.end(&retry);
        scene.cluster.reaches_of(&group, &retry, 0, end).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_filter_passes_over_moves_the_position_without_a_record() {
    let scene = Scene::new().await;
    let (from, to) = (scene.cluster.topic(1).await, scene.out().await);
    scene.send(&from, 0, &numbers(0..50)).await;
    let listener = Listener::on(TopicDeclaration::named(from.clone()))
        .group(format!("g-{from}"))
        .filter(|record: &ackwell::Record| record.value() == Some(b"20"))
        .handle(transform);
    let app = scene
        .start(
            App::new(scene.patient())
                .state(to.clone())
                .listener(listener),
        )
        .await;
    scene.settled(&from, 0, 50).await;
    app.stop().await.unwrap();
    assert_eq!(scene.seen(&to.0), ["20"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_instance_whose_ids_were_taken_over_stops_visibly_and_loses_nothing() {
    let scene = Scene::new().await;
    let (from, to) = (scene.cluster.topic(1).await, scene.out().await);
    let instance = |data: &str| {
        let mut config = scene.patient();
        config.data = config.data.join(data);
        config.transactions.instance = Some(format!("same-{from}"));
        config
    };
    let listener = || {
        Listener::on(TopicDeclaration::named(from.clone()))
            .group(format!("g-{from}"))
            .handle(transform)
    };
    let app = App::new(instance("one"))
        .state(to.clone())
        .listener(listener());
    let older = scene.start(app).await;
    scene.send(&from, 0, &numbers(0..10)).await;
    scene.settled(&from, 0, 10).await;
    // The same ids from another folder, as if it were another machine.
    let taken: Transactions = Transactions::open(&instance("other")).await.unwrap();
    scene.send(&from, 0, &numbers(10..20)).await;
    within(
        "the older one to stop",
        older.health().until(|health| !health.live().ok),
    )
    .await;
    let status = older.listeners().next().unwrap().status();
    let Status::Failed(reason) = &status else {
        panic!("it is {status:?}");
    };
    assert!(reason.contains("transactions.instance"), "{reason}");
    let _ = older.stop().await;
    taken.close(LONG).await.unwrap();
    drop(taken);
    let app = App::new(instance("other"))
        .state(to.clone())
        .listener(listener());
    let newer = scene.start(app).await;
    scene.settled(&from, 0, 20).await;
    newer.stop().await.unwrap();
    assert_eq!(scene.seen(&to.0), numbers(0..20));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn partitions_move_between_members_without_a_loss_or_a_repetition() {
    let scene = Scene::new().await;
    let (from, to) = (scene.cluster.topic(4).await, scene.out().await);
    let listener = || {
        Listener::on(TopicDeclaration::named(from.clone()))
            .group(format!("g-{from}"))
            .run_limit(10)
            .handle(transform)
    };
    let member = || async {
        let app = App::new(scene.patient())
            .state(to.clone())
            .listener(listener());
        scene.start(app).await
    };
    let mut members = vec![member().await];
    for round in 0..4 {
        for partition in 0..4 {
            scene
                .send(&from, partition, &numbers(round * 100..round * 100 + 100))
                .await;
        }
        members.push(member().await);
        if round % 2 == 1 {
            members.remove(0).stop().await.unwrap();
        }
    }
    for partition in 0..4 {
        scene.settled(&from, partition, 400).await;
    }
    for member in members {
        member.stop().await.unwrap();
    }
    let mut seen = scene.seen(&to.0);
    assert_eq!(seen.len(), 1_600);
    seen.sort();
    seen.dedup();
    assert_eq!(seen.len(), 400);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fenced_transactions_begin_nothing_and_leave_the_id_to_the_other_instance() {
    let scene = Scene::new().await;
    let topic = scene.cluster.topic(1).await;
    let instance = format!("i{}", uuid::Uuid::new_v4().simple());
    let (folders, same) = (
        [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()],
        |folder: &tempfile::TempDir| {
            let mut config = scene.patient();
            config.data = folder.path().to_owned();
            config.transactions.instance = Some(instance.clone());
            config
        },
    );
    let send = async |from: &Transactions, value: &'static str| {
        let topic = &topic;
        from.run(async |tx| tx.send_record(out(topic, value)).await)
            .await
    };
    let older = Transactions::open(&same(&folders[0])).await.unwrap();
    let app = App::new(same(&folders[0])).named("older");
    let app = scene.start(app.state(older.clone())).await;
    send(&older, "before").await.unwrap();
    let newer = Transactions::open(&same(&folders[1])).await.unwrap();
    for _ in 0..2 {
        let error = send(&older, "fenced").await.unwrap_err();
        assert!(error.is_fenced(), "{error}");
        assert!(error.to_string().contains("of its own"), "{error}");
        send(&newer, "after").await.unwrap();
    }
    let health = app.health().live();
    let template = health.against.iter().find(|c| c.name == "transactions");
    let said = template.expect("it is not alive").status.to_string();
    assert!(said.contains("another instance"), "{said}");
    assert_eq!(scene.seen(&topic), ["before", "after", "after"]);
    app.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_becomes_of_transactions_outside_of_listeners_is_counted_and_timed() {
    let scene = Scene::new().await;
    let topic = scene.cluster.topic(1).await;
    let instance = |data: &str| {
        let mut config = scene.patient();
        config.data = config.data.join(data);
        config.transactions.instance = Some(format!("same-{topic}"));
        config
    };
    let metrics = Metrics::new();
    let transactions = Transactions::observed(&instance("one"), &metrics).await;
    let transactions = transactions.unwrap();
    let send = || transactions.run(async |tx| tx.send_record(out(&topic, "a")).await);
    let sent: Result<(), TransactionError> = send().await;
    sent.unwrap();
    let refused: Result<(), Failure> = transactions
        .run(async |_| Err(Failure::permanent("no")))
        .await;
    refused.unwrap_err();
    let dropped = transactions
        .run(async |_| -> Result<(), TransactionError> { std::future::pending().await });
    let waited = tokio::time::timeout(Duration::from_millis(100), dropped).await;
    waited.unwrap_err();
    // The same ids from another folder, as if it were another machine.
    let newer = Transactions::open(&instance("other")).await.unwrap();
    let fenced: Result<(), TransactionError> = send().await;
    assert!(fenced.unwrap_err().is_fenced());
    newer.close(LONG).await.unwrap();

    let text = metrics.render();
    let ended = "ackwell_transactions_total{listener=\"\",outcome=";
    for line in [
        format!("{ended}\"committed\"}} 1"),
        format!("{ended}\"aborted\"}} 2"),
        format!("{ended}\"fenced\"}} 1"),
    ] {
        assert!(text.lines().any(|found| found == line), "{line}: {text}");
    }
    let timed = "ackwell_transaction_commit_seconds_count{listener=\"\"}";
    assert!(text.contains(timed), "{text}");
}
