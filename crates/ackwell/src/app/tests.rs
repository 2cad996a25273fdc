use std::time::Duration;

use futures_util::future::BoxFuture;

use super::plan::plan;
use super::*;
use crate::container::{DeadLetters, Spec};
use crate::dead_letters::suffix;
use crate::extract::State;
use crate::listener::{AckMode, by_key};
use crate::retry;
use crate::service::{ServiceContext, ServiceError};
use crate::topic::Topic;

async fn nothing() {}

async fn needs(_: State<String>) {}

fn app() -> App {
    App::new(Config::default()).named("orders")
}

fn refusal(app: App) -> String {
    plan(app).err().expect("should be refused").to_string()
}

fn only(listener: Listener) -> Spec {
    let mut planned = plan(app().listener(listener)).unwrap_or_else(|error| panic!("{error}"));
    planned.listeners.remove(0).handle.spec().unwrap().clone()
}

#[test]
fn two_listeners_of_a_group_must_not_share_a_topic() {
    let on = |group| Listener::on("a").and_on("b").group(group).handle(nothing);
    let said = refusal(
        app()
            .listener(on("g"))
            .listener(Listener::on("b").group("g").handle(nothing)),
    );
    for part in ["`g:a`", "`g:b`", "`b`", "`g`", "different groups"] {
        assert!(said.contains(part), "{said}");
    }
    assert!(
        plan(
            app()
                .listener(on("g"))
                .listener(Listener::on("b").group("h").handle(nothing))
        )
        .is_ok()
    );
    assert!(
        refusal(app().listener(Listener::on("a").and_on("a").handle(nothing)))
            .contains("it names the topic `a` twice")
    );
}

#[test]
fn a_listener_without_a_group_takes_the_apps_name() {
    assert_eq!(only(Listener::on("a").handle(nothing)).group, "orders");
    let nameless = App::new(Config::default()).listener(Listener::on("a").handle(nothing));
    assert!(refusal(nameless).contains("no consumer group"));
    let blank = app().listener(Listener::on("a").group(" ").handle(nothing));
    assert!(refusal(blank).contains("no consumer group"));
}

#[test]
fn what_an_extractor_needs_is_asked_for_at_the_start() {
    let said = refusal(app().listener(Listener::on("a").handle(needs)));
    assert!(
        said.contains("listener `orders:a`") && said.contains("App::state"),
        "{said}"
    );
    assert!(
        plan(
            app()
                .state(String::new())
                .listener(Listener::on("a").handle(needs))
        )
        .is_ok()
    );
}

#[test]
fn limits_of_zero_and_illegal_names_are_refused() {
    for (listener, says) in [
        (Listener::on("a").concurrency(by_key(0)), "by_key(0)"),
        (Listener::on("a").queued_records(0), "queued_records(0)"),
        (Listener::on("a").queued_bytes(0), "queued_bytes(0)"),
        (Listener::on("a").run_limit(0), "run_limit(0)"),
        (Listener::on("a").total_records(0), "total_records(0)"),
        (Listener::on("a").total_bytes(0), "total_bytes(0)"),
        (Listener::on("a b"), "`a b` is not a topic's name"),
        (Listener::on(".."), "not a topic's name"),
    ] {
        let said = refusal(app().listener(listener.handle(nothing)));
        assert!(said.contains(says), "{said}");
    }
}

/// Has nothing to do when partitions come and go.
struct Quiet;

impl crate::container::RebalanceListener for Quiet {}

#[test]
fn waits_out_of_range_or_without_effect_are_refused_with_a_mend() {
    use crate::container::Snapshots;
    use crate::listener::OnUndecodable;
    let on = || Listener::on("a");
    let (zero, second) = (Duration::ZERO, Duration::from_secs(1));
    let minute = 60 * second;
    let kept = || Snapshots::Topic("kept".to_owned());
    let loses = AckMode::AutoCommitMayLoseRecords(second);
    for (listener, says, mend) in [
        (on().idle_after(zero), "`idle_after(0ns)`", "leave it out"),
        (on().partition_idle_after(zero), "1 ms", "leave it out"),
        (on().non_responsive_after(zero), "1 ms", "leave it out"),
        (on().non_responsive_after(second), "every 2s", "lengthen"),
        (on().idle_after(Duration::MAX), "365 days", "in between"),
        (
            on().on_rebalance(Quiet).rebalance_callback(zero),
            "1 ms",
            "leave it out",
        ),
        (
            on().on_rebalance(Quiet).rebalance_callback(Duration::MAX),
            "1 h",
            "in between",
        ),
        (
            on().rebalance_callback(second),
            "nobody hears",
            "on_rebalance",
        ),
        (on().revoke_drain(Duration::MAX), "24 h", "max.poll"),
        (on().revoke_drain(5 * minute), "take 300s", "shorten"),
        (
            on().on_rebalance(Quiet).rebalance_callback(145 * second),
            "take 300s",
            "shorten",
        ),
        (
            on().unacknowledged_limit(second),
            "does not acknowledge",
            "manual",
        ),
        (
            on().ack_mode(AckMode::Manual).unacknowledged_limit(zero),
            "1 ms",
            "in between",
        ),
        (
            on().ack_mode(loses).snapshots(kept()),
            "`snapshots` has no effect",
            "another ack mode",
        ),
        (
            on().on_unknown_event(OnUndecodable::Skip),
            "asks for no `Event`",
            "remove it",
        ),
    ] {
        let said = refusal(app().listener(listener.handle(nothing)));
        assert!(said.contains(says) && said.contains(mend), "{said}");
    }
    let said = refusal(app().listener(on().snapshots(kept()).handle(sends)));
    assert!(said.contains("transactions commit"), "{said}");
}

#[test]
fn two_listeners_must_not_be_the_same_member() {
    let on = |topic| Listener::on(Topic::<()>::new(topic)).group("g");
    let twins = app()
        .listener(on("a").instance_id("one").handle(nothing))
        .listener(on("b").instance_id("one").handle(nothing));
    let said = refusal(twins);
    assert!(
        said.contains("member `one`") && said.contains("of its own"),
        "{said}"
    );
    let mut config = Config::default();
    let (name, id) = ("group.instance.id".to_owned(), "one".to_owned());
    config.kafka.consumer.insert(name, id);
    let app = || App::new(config.clone()).named("orders");
    let said = refusal(
        app()
            .listener(on("a").handle(nothing))
            .listener(on("b").handle(nothing)),
    );
    assert!(said.contains("group.instance.id"), "{said}");
    let apart = app()
        .listener(on("a").handle(nothing))
        .listener(on("b").instance_id("two").handle(nothing));
    assert!(plan(apart).is_ok());
}

#[test]
fn a_wait_for_batches_that_can_not_be_meant_is_refused() {
    async fn list(_: crate::Batch<crate::extract::Offset>) {}
    let on = |millis| Listener::on("a").batch_wait(Duration::from_millis(millis));
    let said = |listener| refusal(app().listener(listener));
    assert!(said(on(50).handle(nothing)).contains("handle_batch"));
    assert!(said(on(3_600_001).handle_batch(list)).contains("1 ms to 1 h"));
    assert!(said(on(50).strict_commits().handle_batch(list)).contains("strict"));
    let spec = only(on(50).handle_batch(list));
    assert_eq!(spec.limits.batch_wait, Duration::from_millis(50));
}

#[test]
fn contradictory_settings_are_found_before_anything_starts() {
    let mut config = Config::default();
    config
        .kafka
        .extra
        .insert("enable.auto.commit".to_owned(), "true".to_owned());
    let said = refusal(App::new(config));
    assert!(said.contains("kafka.extra.enable.auto.commit"), "{said}");
}

#[test]
fn a_topic_declared_twice_must_agree_on_its_partitions() {
    let listener = |partitions| {
        let topic: Topic<()> = Topic::new("a").partitions(partitions);
        Listener::on(topic)
    };
    let twice = app()
        .listener(listener(3).handle(nothing))
        .listener(listener(4).group("g").handle(nothing));
    assert!(refusal(twice).contains("3 and with 4 partitions"));
    let planned = plan(app().topic("a").listener(listener(3).handle(nothing)))
        .unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(planned.topics.len(), 1);
    assert_eq!(planned.topics[0].partitions, Some(3));
}

#[test]
fn two_components_of_one_name_are_refused() {
    struct Idle;
    impl Service for Idle {
        fn name(&self) -> String {
            "orders:a".to_owned()
        }
        fn run(self: Box<Self>, _: ServiceContext) -> BoxFuture<'static, Result<(), ServiceError>> {
            Box::pin(async { Ok(()) })
        }
    }
    let said = refusal(
        app()
            .service(Idle)
            .listener(Listener::on("a").handle(nothing)),
    );
    assert!(
        said.contains("two components are called `orders:a`"),
        "{said}"
    );
}

#[test]
fn what_is_declared_reaches_the_container() {
    let spec = only(
        Listener::on("a")
            .and_on("b")
            .group("g")
            .name("n")
            .concurrency(by_key(8))
            .ack_mode(AckMode::Record)
            .retry(retry::fixed(Duration::from_millis(5)).max_attempts(3))
            .dead_letter_suffix("-dlt")
            .run_limit(50)
            .revoke_drain(Duration::from_secs(1))
            .handle(nothing),
    );
    assert_eq!((spec.listener.as_str(), spec.group.as_str()), ("n", "g"));
    assert_eq!(spec.topics, ["a", "b"]);
    assert_eq!(spec.concurrency, by_key(8));
    assert_eq!(spec.commit, AckMode::Record);
    assert_eq!(
        spec.retry,
        retry::fixed(Duration::from_millis(5)).max_attempts(3)
    );
    assert_eq!(spec.dead_letters, DeadLetters::To(suffix("-dlt")));
    assert_eq!(
        (spec.limits.run_records, spec.limits.revoke_drain),
        (50, Duration::from_secs(1))
    );
    assert_eq!(spec.limits.stop_drain, Config::default().stop.drain);
    assert_eq!(spec.consumer.get("client.id"), Some("orders"));
    assert_eq!(
        only(Listener::on("a").without_dead_letters().handle(nothing)).dead_letters,
        DeadLetters::Stop
    );
}

#[test]
fn retry_settings_that_contradict_each_other_are_refused_with_a_mend() {
    use retry::{exponential, fixed, growing, topics};
    let secs = |seconds: &[u64]| -> Vec<Duration> {
        seconds.iter().copied().map(Duration::from_secs).collect()
    };
    let refused = |retry: retry::Retry, part: &str, mend: &str| {
        let said = refusal(app().listener(Listener::on("a").retry(retry).handle(nothing)));
        assert!(said.contains(part) && said.contains(mend), "{said}");
    };
    refused(topics([]), "no delay", "give it one");
    refused(topics(secs(&[1, 1])), "don't grow", "longer delay");
    refused(topics(secs(&[10, 1])), "don't grow", "longer delay");
    refused(topics(secs(&[0, 1])), "1 ms to 24 h", "in between");
    refused(topics(secs(&[90_000])), "1 ms to 24 h", "scheduler");
    let many = growing(Duration::from_millis(1), 2.0, 17);
    refused(topics(many), "17 retry topics", "fewer");
    let endless = topics(secs(&[1])).after(fixed(Duration::from_secs(1)));
    refused(endless, "never end", "max_attempts");
    let none = fixed(Duration::from_secs(1)).max_attempts(0);
    refused(none.into(), "0 attempts", "correct");
    refused(
        exponential(Duration::ZERO, 2.0).into(),
        "without a wait",
        "correct",
    );
    let wild = fixed(Duration::from_secs(1)).jitter(7.0);
    refused(wild.into(), "jitter", "correct");
}

/// Has no room for any record.
struct Nowhere;

impl retry::ParkingPlace for Nowhere {
    fn open(
        &self,
        _: &crate::context::Setup<'_>,
        _: retry::Terms,
    ) -> Result<std::sync::Arc<dyn crate::unit::Parking>, crate::context::SetupError> {
        Err(crate::context::SetupError::new("nowhere"))
    }
}

#[test]
fn settings_that_contradict_each_other_are_refused_with_a_mend() {
    use crate::container::Snapshots;
    use crate::dead_letters::topic;
    use crate::retry::{Ordered, fixed};
    let second = Duration::from_secs(1);
    let on = || Listener::on("a");
    let thrice = || fixed(second).max_attempts(3);
    let ordered = |policy| Ordered::new(policy, Nowhere);
    let later = || retry::topics([second]);
    let to_snapshots = Snapshots::Topic("a b".to_owned());
    for (listener, says, mend) in [
        (on().dead_letters(topic("a")), "come back", "not read"),
        (on().dead_letters(topic("a b")), "`a b`", "letters"),
        (on().dead_letter_suffix(""), "come back", "suffix"),
        (on().snapshots(to_snapshots), "`a b`", "letters"),
        (on().probe(fixed(Duration::ZERO)), "`probe`", "correct"),
        (
            on().retry_for::<std::fmt::Error>(fixed(second).jitter(7.0)),
            "`retry_for`",
            "correct",
        ),
        (
            Listener::matching("a.*").retry(later()),
            "by a pattern",
            "retry in place",
        ),
        (
            on().retry_for::<std::fmt::Error>(fixed(second))
                .retry(later()),
            "never end",
            "max_attempts",
        ),
        (
            on().retry(ordered(fixed(second))),
            "hold its key for ever",
            "max_attempts",
        ),
        (
            on().retry(ordered(fixed(second).max_attempts(1))),
            "no second attempt",
            "max_attempts(2)",
        ),
        (
            on().retry(ordered(fixed(second).max_attempts(0))),
            "ordered retry can't be",
            "correct",
        ),
        (
            on().retry(ordered(thrice()).keys_max(0)),
            "`keys_max(0)`",
            "positive",
        ),
        (
            on().retry(ordered(thrice()).records_per_key_max(0)),
            "`records_per_key_max(0)`",
            "positive",
        ),
        (
            on().retry(ordered(thrice()).records_max(0)),
            "`records_max(0)`",
            "positive",
        ),
        (
            on().retry(ordered(thrice())).without_dead_letters(),
            "nowhere to put",
            "without_dead_letters",
        ),
        (
            on().retry(ordered(thrice())).ack_mode(AckMode::Manual),
            "settles a record itself",
            "ack mode",
        ),
        (
            on().retry(ordered(thrice()).after(fixed(second))),
            "no record would be parked",
            "max_attempts",
        ),
    ] {
        let said = refusal(app().listener(listener.handle(nothing)));
        assert!(said.contains(says) && said.contains(mend), "{said}");
    }
}

async fn sends(_: crate::Transaction) {}

/// As a transaction of a database does.
struct Database;

impl crate::FromRecord for Database {
    fn from_record(_: &mut crate::Context) -> Result<Self, Failure> {
        Ok(Self)
    }

    fn prepare(setup: &mut crate::Setup<'_>) -> Result<(), crate::SetupError> {
        setup.unit_of_work(std::sync::Arc::new(crate::unit::OneByOne));
        Ok(())
    }
}

async fn both(_: Database, _: crate::Transaction) {}

/// Looks after something, unless a topic keeps its records for longer than a day.
struct Caretaker;

impl Service for Caretaker {
    fn name(&self) -> String {
        "caretaker".to_owned()
    }

    fn check(&self, read: &[TopicDeclaration]) -> Result<(), crate::SetupError> {
        let kept = read.iter().filter_map(|topic| topic.retention).max();
        match kept > Some(Duration::from_secs(24 * 3600)) {
            true => Err(crate::SetupError::new(
                "they are kept for longer than a day",
            )),
            false => Ok(()),
        }
    }

    fn run(self: Box<Self>, _: ServiceContext) -> BoxFuture<'static, Result<(), ServiceError>> {
        Box::pin(async { Ok(()) })
    }
}

/// A unit of work that needs looking after.
struct Accompanied;

impl crate::unit::UnitOfWork for Accompanied {
    fn carry_out<'a>(&'a self, _: &'a mut crate::unit::Run) -> BoxFuture<'a, ()> {
        Box::pin(async {})
    }

    fn companion(&self) -> Option<Box<dyn Service>> {
        Some(Box::new(Caretaker))
    }
}

impl crate::FromRecord for Accompanied {
    fn from_record(_: &mut crate::Context) -> Result<Self, Failure> {
        Ok(Self)
    }

    fn prepare(setup: &mut crate::Setup<'_>) -> Result<(), crate::SetupError> {
        setup.unit_of_work(std::sync::Arc::new(Self));
        Ok(())
    }
}

async fn accompanied(_: Accompanied) {}

#[test]
fn what_a_unit_of_work_needs_beside_it_runs_once_and_is_asked_about_the_topics_read() {
    let services = |app: App| {
        plan(app)
            .unwrap_or_else(|error| panic!("{error}"))
            .services
            .len()
    };
    let two = || {
        let app = app().listener(Listener::on("a").handle(accompanied));
        app.listener(Listener::on("b").handle(accompanied))
    };
    assert_eq!(
        services(app().listener(Listener::on("a").handle(nothing))),
        0
    );
    assert_eq!(services(two()), 1);
    assert_eq!(services(two().service(Caretaker)), 1, "it is there already");
    let keeps = |name, days: u64| {
        let mut topic = TopicDeclaration::named(name);
        topic.retention = Some(Duration::from_secs(days * 24 * 3600));
        topic
    };
    assert_eq!(
        services(two().topic(keeps("a", 1)).topic(keeps("written", 2))),
        1
    );
    let said = refusal(two().topic(keeps("b", 2)));
    assert!(said.contains("longer than a day"), "{said}");
}

#[test]
fn what_contradicts_transactions_of_kafka_is_refused_with_a_mend() {
    use crate::retry::{Ordered, fixed};
    let on = || Listener::on("a");
    let parked = fixed(Duration::from_secs(1)).max_attempts(3);
    for (listener, says, mend) in [
        (on().ack_mode(AckMode::Record), "ack mode", "run_limit(1)"),
        (on().ack_mode(AckMode::Manual), "ack mode", "manual"),
        (on().strict_commits(), "strict commits", "strict_commits()"),
        (on().concurrency(by_key(4)), "`by_key`", "by_partition()"),
        (
            on().retry(Ordered::new(parked, Nowhere)),
            "nowhere",
            "nowhere",
        ),
    ] {
        let said = refusal(app().listener(listener.handle(sends)));
        assert!(said.contains(says) && said.contains(mend), "{said}");
    }
    let with = |set: fn(&mut Config)| {
        let mut config = Config::default();
        set(&mut config);
        refusal(
            App::new(config)
                .named("orders")
                .listener(on().handle(sends)),
        )
    };
    let said = with(|config| {
        let uncommitted = ("isolation.level".into(), "read_uncommitted".into());
        config.kafka.consumer.extend([uncommitted]);
    });
    assert!(said.contains("aborted later"), "{said}");
    let said = with(|config| {
        config.producer.acks = crate::config::Acks::Leader;
        config.producer.idempotence = false;
    });
    assert!(said.contains("remove `producer.acks`"), "{said}");
    let said = with(|config| config.transactions.producers = 0);
    assert!(said.contains("transactions.producers"), "{said}");
    async fn twice(_: crate::Transaction, _: crate::Transaction) {}
    let said = refusal(app().listener(on().handle(twice)));
    assert!(said.contains("`Transaction` twice"), "{said}");
    let said = refusal(app().listener(on().handle(both)));
    assert!(
        said.contains("a database") && said.contains("outbox"),
        "{said}"
    );
    assert!(only(on().handle(sends)).transactions.is_some());
    assert!(only(on().handle(nothing)).transactions.is_none());
}

#[test]
fn a_retry_topic_has_one_listener_in_a_group() {
    let retry = retry::topics([Duration::from_secs(1)]);
    let said = refusal(
        app()
            .listener(Listener::on("a").retry(retry).handle(nothing))
            .listener(Listener::on("a.retry.1").handle(nothing)),
    );
    assert!(said.contains("both read `a.retry.1`"), "{said}");
}

#[test]
fn a_retry_topics_name_must_fit() {
    let name: &'static str = "a".repeat(245).leak();
    let retry = retry::topics([Duration::from_secs(1)]);
    let listener = Listener::on(name).retry(retry).handle(nothing);
    let said = refusal(app().listener(listener));
    assert!(
        said.contains("is too long") && said.contains("249"),
        "{said}"
    );
}

#[test]
fn what_can_never_apply_or_ring_is_refused() {
    use crate::failure::{Alert, Class};
    let twice = Listener::on("a")
        .classify::<std::fmt::Error>(Class::Skip)
        .retry_for::<std::fmt::Error>(retry::none());
    let said = refusal(app().listener(twice.handle(nothing)));
    assert!(
        said.contains("two rules") && said.contains("Error"),
        "{said}"
    );
    let mute = Listener::on("a").alert(Alert::dead_letters(0), |_| {});
    let said = refusal(app().listener(mute.handle(nothing)));
    assert!(said.contains("alert"), "{said}");
    let said = refusal(app().alert(Alert::dead_letters(20_000), |_| {}));
    assert!(said.contains("the app") && said.contains("alert"), "{said}");
}

#[test]
fn patterns_of_a_group_must_not_mean_the_same_topic() {
    let matching = |pattern: &'static str| Listener::matching(pattern).group("g").handle(nothing);
    let on = |topic| {
        Listener::on(Topic::<()>::new(topic))
            .group("g")
            .handle(nothing)
    };
    let said = refusal(
        app()
            .listener(on("orders-eu"))
            .listener(matching("orders-.*")),
    );
    assert!(
        said.contains("both read `orders-eu` in the group `g`"),
        "{said}"
    );
    let said = refusal(
        app()
            .listener(matching("orders-.*"))
            .listener(matching(".*-eu")),
    );
    assert!(said.contains("both read `orders-eu`"), "{said}");
    let apart = app()
        .listener(matching("orders-.*"))
        .listener(matching("bills-.*"));
    assert!(plan(apart.listener(on("orders.DLQ"))).is_ok());
    let said = refusal(app().listener(matching("orders-[")));
    assert!(
        said.contains("listener `g:orders-[`") && said.contains("not a pattern"),
        "{said}"
    );
    let topics = crate::retry::topics([Duration::from_secs(1)]);
    let retried = Listener::matching("a+").retry(topics).handle(nothing);
    assert!(refusal(app().listener(retried)).contains("retry topics are made for named"));
}

#[test]
fn what_is_sent_to_a_topic_and_known_by_its_handlers_must_agree() {
    use std::borrow::Cow;

    use crate::extract::Event;
    use crate::listener::OnUndecodable;

    macro_rules! event {
        ($name:ident, $types:expr) => {
            #[derive(serde::Serialize, serde::Deserialize)]
            struct $name {}
            impl crate::Event for $name {
                const TOPIC: Topic<Self> = Topic::new("a");
                const TYPES: &'static [&'static str] = $types;
                fn event_type(&self) -> &'static str {
                    stringify!($name)
                }
                fn aggregate_id(&self) -> Cow<'_, str> {
                    Cow::Borrowed("a")
                }
            }
        };
    }
    event!(Opened, &["Opened"]);
    event!(Moved, &["In", "Out"]);
    event!(Also, &["Out"]);
    event!(Unlisted, &[]);
    async fn opened(_: Event<Opened>) {}
    async fn moved(_: Event<Moved>) {}
    async fn also(_: Event<Also>) {}
    async fn unlisted(_: Event<Unlisted>) {}
    async fn both(_: Event<Opened>, _: Event<Moved>) {}
    let on = || Listener::on(Topic::<()>::new("a").event_types(&["Opened", "In", "Out"]));

    assert!(plan(app().listener(on().on_event(opened).on_event(moved))).is_ok());
    for (listener, says) in [
        (
            Listener::from(on().on_event(moved).on_event(also)),
            "`Out` has two handlers, of `Moved` and of `Also`",
        ),
        (
            on().on_event(unlisted).into(),
            "`Unlisted` does not list its event types",
        ),
        (
            on().on_event(moved).into(),
            "no handler knows the event type `Opened`",
        ),
        (on().handle(opened), "no handler knows the event type `In`"),
        (
            Listener::on(Topic::<()>::new("a").event_types(&["In"])).handle(moved),
            "`Moved` knows the event type `Out`, which is sent to none",
        ),
        (
            on().handle(both),
            "`Event<Opened>` and `Event<Moved>`, and no record is both",
        ),
    ] {
        let said = refusal(app().listener(listener));
        assert!(said.contains(says), "{said}");
    }
    let others = on().on_unknown_event(OnUndecodable::Skip).handle(opened);
    assert!(plan(app().listener(others)).is_ok());
}
