//! Ordered retry on a broker: the failing key waits in the database, the others go on, and
//! nothing is lost, repeated, or out of order.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod ordered_support;

use std::collections::BTreeMap;
use std::time::Duration;

use ackwell::observe::Status;
use ackwell::retry::{exponential, fixed};
use ackwell::{App, Class, Listener};
use ackwell_sql::ordered;
use ordered_support::{Plan, World, config, effects, header, parked, patient, until};
use rdkafka::message::Message;

fn of(entries: &[(&str, &[&str])]) -> BTreeMap<String, Vec<String>> {
    let owned = |values: &[&str]| values.iter().map(|value| value.to_string()).collect();
    let entries = entries.iter();
    entries
        .map(|(key, values)| (key.to_string(), owned(values)))
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failing_key_waits_in_order_while_the_others_go_on() {
    let world = World::start(1).await;
    let database = world.database().await;
    let plan = Plan::failing(Class::Transient, &["a1"]);
    let listener = world.listener(&plan, ordered(patient()));
    let app = world.app(&database, listener).await;
    let a = Some("a");
    let b = Some("b");
    world
        .send(0, &[(a, "a1"), (b, "b1"), (a, "a2"), (b, "b2"), (a, "a3")])
        .await;
    world.commits(0, 5).await;
    assert_eq!(effects(&database).await, of(&[("b", &["b1", "b2"])]));
    until("a retry", async || plan.attempts("a1").len() > 2).await;
    let keys = database.parked(10).await.unwrap();
    let [key] = &keys[..] else { panic!("{keys:?}") };
    assert_eq!(
        (key.key.as_deref(), key.records, key.offset),
        (Some(&b"a"[..]), 3, 0)
    );
    assert!(
        key.attempts >= 2 && key.reason.as_deref() == Some("by plan"),
        "{key:?}"
    );
    let metrics = app.metrics().render();
    for (name, value) in [("keys", 1), ("records", 3)] {
        let line = format!(
            "ackwell_parked_{name}{{listener=\"{}:{}\"}} {value}",
            world.group(),
            world.topic
        );
        assert!(metrics.contains(&line), "{line} in {metrics}");
    }

    plan.heal("a1");
    until("the end of the wait", async || parked(&database).await == 0).await;
    let expected = of(&[("a", &["a1", "a2", "a3"]), ("b", &["b1", "b2"])]);
    assert_eq!(effects(&database).await, expected);
    let attempts = plan.attempts("a1");
    assert_eq!(attempts, (1..=attempts.len() as u32).collect::<Vec<_>>());
    assert_eq!(plan.attempts("a2"), [1]);
    world.send(0, &[(a, "a4")]).await;
    world.commits(0, 6).await;
    assert_eq!(effects(&database).await["a"], ["a1", "a2", "a3", "a4"]);
    assert_eq!(parked(&database).await, 0, "the key is free again");
    app.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_of_a_topic_that_was_replaced_are_none_of_those_at_their_places_before() {
    let world = World::start(1).await;
    let database = world.database().await;
    let plan = Plan::failing(Class::Transient, &["a1"]);
    let listener = world.listener(&plan, ordered(patient()));
    let app = world.app(&database, listener).await;
    let (a, b) = (Some("a"), Some("b"));
    world.send(0, &[(a, "a1"), (b, "b1")]).await;
    world.commits(0, 2).await;
    assert_eq!(parked(&database).await, 1);

    world.replace_topic().await;
    world
        .send(0, &[(a, "a2"), (b, "b2"), (a, "a3"), (b, "b3")])
        .await;
    // Its place in the table is the other one's until that has left: nobody passes it meanwhile.
    until("health to tell of the place", async || {
        let against = app.health().ready().against;
        let told = against.iter().map(|found| found.status.to_string());
        told.into_iter().any(|told| told.contains("created again"))
    })
    .await;
    assert_eq!(parked(&database).await, 1);
    plan.heal("a1");
    world.commits(0, 4).await;
    until("the end of the wait", async || parked(&database).await == 0).await;
    let both = of(&[("a", &["a1", "a2", "a3"]), ("b", &["b1", "b2", "b3"])]);
    assert_eq!(effects(&database).await, both);
    app.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_given_up_is_dead_lettered_and_its_key_goes_on() {
    let world = World::start(1).await;
    let database = world.database().await;
    let plan = Plan::failing(Class::Transient, &["a1", "a3"]);
    plan.fail(Class::Permanent, "a4");
    let policy = exponential(Duration::from_millis(5), 2.0).max_attempts(3);
    let app = world
        .app(&database, world.listener(&plan, ordered(policy)))
        .await;
    let a = Some("a");
    world
        .send(0, &[(a, "a1"), (a, "a2"), (a, "a3"), (a, "a4"), (a, "a5")])
        .await;
    world.commits(0, 5).await;
    until("the last effect", async || {
        effects(&database)
            .await
            .get("a")
            .is_some_and(|values| values.len() == 2)
    })
    .await;
    until("the end of the wait", async || parked(&database).await == 0).await;
    assert_eq!(effects(&database).await["a"], ["a2", "a5"]);
    let letters = world.dead_letters(3);
    let told: Vec<_> = letters
        .iter()
        .map(|letter| {
            let value = String::from_utf8_lossy(letter.payload().unwrap()).into_owned();
            let name = |name| header(letter, name);
            (
                value,
                name("original.offset"),
                name("failure.class"),
                name("failure.attempts"),
                name("failure.first.class"),
            )
        })
        .collect();
    let expected = [
        ("a1", "0", "transient", "3", "transient"),
        ("a3", "2", "transient", "3", "transient"),
        ("a4", "3", "permanent", "1", ""),
    ];
    let expected = expected.map(|(value, offset, class, attempts, first)| {
        (
            value.to_owned(),
            offset.to_owned(),
            class.to_owned(),
            attempts.to_owned(),
            first.to_owned(),
        )
    });
    assert_eq!(told, expected);
    assert_eq!(plan.attempts("a1"), [1, 2, 3]);
    app.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_waits_survives_a_restart_with_its_attempts() {
    let world = World::start(1).await;
    let database = world.database().await;
    let plan = Plan::failing(Class::Transient, &["a1"]);
    let listener = || world.listener(&plan, ordered(patient()));
    let app = world.app(&database, listener()).await;
    world.send(0, &[(Some("a"), "a1"), (Some("a"), "a2")]).await;
    world.commits(0, 2).await;
    app.stop().await.unwrap();
    let before = plan.attempts("a1").len();
    let app = world.app(&database, listener()).await;
    world.send(0, &[(Some("a"), "a3")]).await;
    until("another attempt", async || {
        plan.attempts("a1").len() > before
    })
    .await;
    plan.heal("a1");
    until("the end of the wait", async || {
        effects(&database)
            .await
            .get("a")
            .is_some_and(|values| values.len() == 3)
    })
    .await;
    assert_eq!(effects(&database).await["a"], ["a1", "a2", "a3"]);
    let attempts = plan.attempts("a1");
    assert!(
        attempts.is_sorted() && attempts.last() >= Some(&3),
        "{attempts:?}"
    );
    app.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_commit_repeats_nothing_whether_parked_given_up_or_done() {
    let world = World::start(1).await;
    let database = world.database().await;
    let plan = Plan::failing(Class::Transient, &["a1", "c1"]);
    let policy = fixed(Duration::from_millis(20)).max_attempts(2);
    let app = world
        .app(&database, world.listener(&plan, ordered(policy.clone())))
        .await;
    world
        .send(
            0,
            &[(Some("a"), "a1"), (Some("b"), "b1"), (Some("a"), "a2")],
        )
        .await;
    world.commits(0, 3).await;
    until("the dead letter", async || {
        effects(&database).await.len() == 2
    })
    .await;
    app.stop().await.unwrap();

    // One record is given up; now another one waits when the commits are lost.
    let app = world
        .app(&database, world.listener(&plan, ordered(patient())))
        .await;
    world.send(0, &[(Some("c"), "c1"), (Some("c"), "c2")]).await;
    world.commits(0, 5).await;
    assert_eq!(parked(&database).await, 2);
    app.stop().await.unwrap();
    world.forget_commits(0);
    plan.heal("a1");
    plan.heal("c1");
    let app = world
        .app(&database, world.listener(&plan, ordered(policy)))
        .await;
    world.commits(0, 5).await;
    until("the end of the wait", async || parked(&database).await == 0).await;
    let expected = of(&[("a", &["a2"]), ("b", &["b1"]), ("c", &["c1", "c2"])]);
    assert_eq!(effects(&database).await, expected);
    assert_eq!(world.dead_letters(1).len(), 1);
    app.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_handler_without_a_transaction_is_retried_in_order_too() {
    let world = World::start(1).await;
    let database = world.database().await;
    let plan = Plan::failing(Class::Transient, &["a1"]);
    let listener = Listener::on(world.topic)
        .group(world.group())
        .retry(ordered(patient()))
        .handle(plan.plain());
    let app = world.app(&database, listener).await;
    world
        .send(
            0,
            &[(Some("a"), "a1"), (Some("b"), "b1"), (Some("a"), "a2")],
        )
        .await;
    world.commits(0, 3).await;
    assert_eq!(plan.attempts("b1"), [1]);
    assert!(plan.attempts("a2").is_empty());
    plan.heal("a1");
    until("the end of the wait", async || parked(&database).await == 0).await;
    let calls = plan.calls();
    let place = |value: &str| calls.iter().rposition(|call| call.value == value);
    assert!(place("a1") < place("a2"), "{calls:?}");
    assert_eq!(plan.attempts("a2"), [1]);
    app.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_waits_behind_a_record_without_a_key() {
    let world = World::start(1).await;
    let database = world.database().await;
    let plan = Plan::failing(Class::Transient, &["x1", "x2"]);
    let app = world
        .app(&database, world.listener(&plan, ordered(patient())))
        .await;
    world
        .send(
            0,
            &[(None, "x1"), (None, "x2"), (None, "x3"), (Some(""), "e1")],
        )
        .await;
    world.commits(0, 4).await;
    let mut done = effects(&database).await.remove("").unwrap();
    done.sort();
    assert_eq!(
        done,
        ["e1", "x3"],
        "an empty key is a key, and none of theirs"
    );
    assert_eq!(database.parked(10).await.unwrap().len(), 2);
    plan.heal("x2");
    until("the second", async || parked(&database).await == 1).await;
    plan.heal("x1");
    until("the first", async || parked(&database).await == 0).await;
    let all = &effects(&database).await[""];
    assert_eq!(all[2..], ["x2", "x1"]);
    app.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn attempts_in_place_can_come_first() {
    let world = World::start(1).await;
    let database = world.database().await;
    let plan = Plan::failing(Class::Transient, &["a1"]);
    let in_place = fixed(Duration::from_millis(5)).max_attempts(3);
    let retry = ordered(fixed(Duration::from_millis(20)).max_attempts(2)).after(in_place);
    let app = world.app(&database, world.listener(&plan, retry)).await;
    world
        .send(
            0,
            &[(Some("a"), "a1"), (Some("a"), "a2"), (Some("b"), "b1")],
        )
        .await;
    until("the effect behind", async || {
        effects(&database).await.contains_key("a")
    })
    .await;
    assert_eq!(plan.attempts("a1"), [1, 2, 3, 4]);
    until("the end of the wait", async || parked(&database).await == 0).await;
    let letter = &world.dead_letters(1)[0];
    assert_eq!(header(letter, "failure.attempts"), "4");
    let time = |name| header(letter, name).parse::<jiff::Timestamp>().unwrap();
    let waited = time("failure.timestamp") - time("failure.first.timestamp");
    // Twice in place, once parked.
    assert!(Duration::try_from(waited).unwrap() >= Duration::from_millis(29));
    world.commits(0, 3).await;
    app.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_place_stops_the_partition_and_health_says_so() {
    let world = World::start(1).await;
    let database = world.database().await;
    let plan = Plan::failing(Class::Transient, &["a1"]);
    let retry = ordered(patient()).keys_max(1).records_per_key_max(2);
    let app = world.app(&database, world.listener(&plan, retry)).await;
    world.send(0, &[(Some("a"), "a1"), (Some("a"), "a2")]).await;
    world.commits(0, 2).await;
    world.send(0, &[(Some("b"), "b1"), (Some("a"), "a3")]).await;
    app.health()
        .until(|health| {
            health.components().iter().any(
                |component| matches!(&component.status, Status::Degraded(why) if why.contains("_max")),
            )
        })
        .await;
    assert!(effects(&database).await.is_empty());
    assert_eq!(world.committed(0), 2);
    plan.heal("a1");
    world.commits(0, 4).await;
    until("the end of the wait", async || parked(&database).await == 0).await;
    let expected = of(&[("a", &["a1", "a2", "a3"]), ("b", &["b1"])]);
    assert_eq!(effects(&database).await, expected);
    app.ready().await.unwrap();
    app.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_unavailable_uses_up_no_attempts() {
    let world = World::start(1).await;
    let database = world.database().await;
    let plan = Plan::failing(Class::Transient, &["a1"]);
    let policy = fixed(Duration::from_millis(50)).max_attempts(20);
    let app = world
        .app(&database, world.listener(&plan, ordered(policy)))
        .await;
    world.send(0, &[(Some("a"), "a1")]).await;
    world.commits(0, 1).await;
    plan.fail(Class::Unavailable, "a1");
    let before = plan.attempts("a1").len();
    until("some probes", async || {
        plan.attempts("a1").len() > before + 3
    })
    .await;
    let attempts = plan.attempts("a1");
    let last = &attempts[attempts.len() - 2..];
    assert_eq!(last[0], last[1], "{attempts:?}");
    let degraded = |status: &Status| matches!(status, Status::Degraded(_));
    app.health()
        .until(|health| {
            health
                .components()
                .iter()
                .any(|found| degraded(&found.status))
        })
        .await;
    plan.heal("a1");
    until("the effect", async || !effects(&database).await.is_empty()).await;
    app.ready().await.unwrap();
    app.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_is_given_a_partition_goes_on_where_the_other_one_was() {
    let world = World::start(4).await;
    let (one, two) = (world.database().await, world.database().await);
    let plan = Plan::failing(Class::Transient, &["k0-0", "k1-0", "k2-0", "k3-0"]);
    let app = world
        .app(&one, world.listener(&plan, ordered(patient())))
        .await;
    let keys: Vec<_> = (0..4).map(|partition| format!("k{partition}")).collect();
    let send = async |numbers: std::ops::Range<usize>| {
        for (partition, key) in keys.iter().enumerate() {
            let values: Vec<_> = numbers
                .clone()
                .map(|number| format!("{key}-{number}"))
                .collect();
            let records: Vec<_> = values
                .iter()
                .map(|value| (Some(&**key), &**value))
                .collect();
            world.send(partition as i32, &records).await;
        }
    };
    send(0..5).await;
    until("all to be parked", async || parked(&one).await == 20).await;
    let second = world
        .app(&two, world.listener(&plan, ordered(patient())))
        .await;
    send(5..10).await;
    until("the rest to be parked", async || parked(&one).await == 40).await;
    app.stop().await.unwrap();
    send(10..12).await;
    for key in &keys {
        plan.heal(&format!("{key}-0"));
    }
    until("the end of the wait", async || {
        effects(&two).await.values().map(Vec::len).sum::<usize>() == 48
    })
    .await;
    for (key, values) in effects(&two).await {
        let expected: Vec<_> = (0..12).map(|number| format!("{key}-{number}")).collect();
        assert_eq!(values, expected);
    }
    assert_eq!(parked(&two).await, 0);
    for partition in 0..4 {
        world.commits(partition, 12).await;
    }
    second.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_can_not_work_is_refused_at_the_start() {
    let world = World::start(1).await;
    let plan = Plan::default();
    let limited = || fixed(Duration::from_millis(5)).max_attempts(3);
    let listener = || {
        Listener::on(world.topic)
            .group(world.group())
            .retry(ordered(limited()))
    };
    let refused = async |app: App| app.start().await.unwrap_err().to_string();
    let app = || App::new(config(&world.bootstrap));
    let error = refused(app().listener(listener().handle(plan.plain()))).await;
    assert!(error.contains("App::state(database)"), "{error}");
    let database = world.database().await;
    let cases = [
        (listener().without_dead_letters(), "without_dead_letters"),
        (
            listener().retry(ordered(fixed(Duration::from_millis(5)))),
            "max_attempts",
        ),
        (
            listener().retry(ordered(limited().max_attempts(1))),
            "max_attempts(2)",
        ),
        (
            listener().retry(ordered(limited()).keys_max(0)),
            "keys_max(0)",
        ),
        (
            listener().retry(ordered(limited()).after(fixed(Duration::from_millis(5)))),
            "never end",
        ),
    ];
    for (listener, mend) in cases {
        let app = app().state(database.clone());
        let error = refused(app.listener(listener.handle(plan.handler()))).await;
        assert!(error.contains(mend), "{error}");
    }
}
