//! A record's way through an app, on a real broker.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod support;

use std::collections::BTreeSet;
use std::time::Duration;

use ackwell::extract::{Attempt, Event, Headers, Key, Raw, State};
use ackwell::observe::Status;
use ackwell::producer::OutgoingRecord;
use ackwell::retry::fixed;
use ackwell::service::{Service, ServiceContext, ServiceError};
use ackwell::{
    App, Class, Config, Failure, Listener, Producer, RunningApp, StartError, Topic, by_key,
};
use futures_util::future::BoxFuture;
use support::{Kafka, LIMIT, ORDERS, OrderPlaced, order, within};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

type Heard<T> = State<UnboundedSender<T>>;

fn hearing<T>() -> (UnboundedSender<T>, UnboundedReceiver<T>) {
    unbounded_channel()
}

async fn hear(Event(order): Event<OrderPlaced>, State(heard): Heard<OrderPlaced>) {
    let _ = heard.send(order);
}

async fn letters(Raw(value): Raw, headers: Headers, State(heard): Heard<(Vec<u8>, Headers)>) {
    let _ = heard.send((value.to_vec(), headers));
}

/// Waits until the app's metrics say `line`.
async fn metrics_say(app: &RunningApp, line: &str) {
    within(line, async {
        while !app.metrics().render().lines().any(|found| found == line) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn typed_events_are_handled_and_what_is_none_is_dead_lettered_with_its_reason() {
    let kafka = Kafka::start().await;
    let (orders, mut heard) = hearing::<OrderPlaced>();
    let (dead, mut heard_dead) = hearing::<(Vec<u8>, Headers)>();
    let app = App::new(kafka.config())
        .named("orders")
        .state(orders)
        .state(dead)
        .listener(
            Listener::on(ORDERS)
                .concurrency(by_key(4))
                .name("orders")
                .handle(hear),
        )
        .listener(
            Listener::on("order-events.DLQ")
                .without_dead_letters()
                .name("dead")
                .group("dead")
                .handle(letters),
        );
    let producer = Producer::observed(&kafka.config(), &app.metrics()).unwrap();
    let app = app.start().await.unwrap();
    within("readiness", app.ready()).await.unwrap();

    for number in 0..100 {
        producer.send(&order(number)).await.unwrap();
    }
    let mut unknown = Headers::new();
    unknown.push("eventType", "OrderMoved");
    unknown.push("mine", "kept");
    producer
        .send_record(
            OutgoingRecord::to("order-events")
                .key("o-1")
                .value("{}")
                .headers(unknown),
        )
        .await
        .unwrap();
    let mut broken = Headers::new();
    broken.push("eventType", "OrderPlaced");
    producer
        .send_record(
            OutgoingRecord::to("order-events")
                .value("{\"order\":")
                .headers(broken),
        )
        .await
        .unwrap();

    let mut numbers = BTreeSet::new();
    while numbers.len() < 100 {
        numbers.insert(within("an order", heard.recv()).await.unwrap().number);
    }
    let mut reasons = BTreeSet::new();
    for _ in 0..2 {
        let (value, headers) = within("a dead letter", heard_dead.recv()).await.unwrap();
        let header = |name| headers.get_str(name).unwrap_or_default().to_owned();
        assert_eq!(
            (header("original.topic"), header("original.group")),
            ("order-events".into(), "orders".into())
        );
        assert_eq!(
            (header("failure.class"), header("failure.attempts")),
            ("permanent".into(), "1".into())
        );
        reasons.insert((
            String::from_utf8(value).unwrap(),
            header("mine"),
            header("failure.reason"),
        ));
    }
    let reasons: Vec<_> = reasons.into_iter().collect();
    assert_eq!(reasons[0].0, "{\"order\":");
    assert!(
        reasons[0].2.contains("EOF while parsing"),
        "{}",
        reasons[0].2
    );
    assert_eq!(
        (reasons[1].1.as_str(), reasons[1].2.as_str()),
        ("kept", "undecodable: unknown event type `OrderMoved`")
    );

    for line in [
        "ackwell_consumed_records_total{listener=\"orders\",topic=\"order-events\"} 102",
        "ackwell_consumed_records_total{listener=\"dead\",topic=\"order-events.DLQ\"} 2",
        "ackwell_failed_attempts_total{listener=\"orders\",outcome=\"permanent\"} 2",
        "ackwell_dead_letters_total{listener=\"orders\",topic=\"order-events\",reason=\"permanent\"} 2",
        "ackwell_undecodable_records_total{listener=\"orders\"} 2",
        "ackwell_assigned_partitions{listener=\"orders\"} 3",
        "ackwell_rebalances_total{listener=\"orders\",outcome=\"assigned\"} 1",
        "ackwell_producer_records_total{topic=\"order-events\",outcome=\"ok\"} 102",
        "ackwell_producer_send_seconds_count{topic=\"order-events\"} 102",
        "ackwell_producer_waiting_records 0",
        "ackwell_lag_records{listener=\"orders\",topic=\"order-events\",partition=\"0\"} 0",
    ] {
        metrics_say(&app, line).await;
    }
    let text = app.metrics().render();
    let is_bucket = |line: &str| {
        line.starts_with("ackwell_handling_seconds_bucket{")
            && ["le=\"0.001\"", "listener=\"orders\"", "outcome=\"ok\""]
                .iter()
                .all(|label| line.contains(label))
    };
    assert!(text.lines().any(is_bucket), "{text}");
    for line in [
        "ackwell_paused_partitions{listener=\"orders\"} 0",
        "ackwell_in_work_records{listener=\"orders\"} 0",
    ] {
        metrics_say(&app, line).await;
    }
    assert!(
        text.contains("ackwell_commits_total{listener=\"orders\",outcome=\"ok\"}"),
        "{text}"
    );

    within("the stop", app.stop()).await.unwrap();
    assert!(app.health().live().ok, "stopped on request is no failure");
    assert!(!app.health().ready().ok);
    producer.close(Duration::from_secs(5)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transient_failure_is_retried_and_a_restart_repeats_nothing() {
    async fn third_time(
        Event(order): Event<OrderPlaced>,
        Attempt(attempt): Attempt,
        State(heard): Heard<(u32, u32)>,
    ) -> Result<(), Failure> {
        let _ = heard.send((order.number, attempt));
        if attempt < 3 {
            Err(Failure::new(Class::Transient, "not yet"))
        } else {
            Ok(())
        }
    }
    let kafka = Kafka::start().await;
    let (attempts, mut heard) = hearing::<(u32, u32)>();
    let app = |attempts| {
        let retry = fixed(Duration::from_millis(5)).max_attempts(3);
        App::new(kafka.config())
            .named("retrying")
            .state(attempts)
            .listener(Listener::on(ORDERS).retry(retry).handle(third_time))
    };
    let first = app(attempts.clone()).start().await.unwrap();
    let producer = Producer::new(&kafka.config()).unwrap();
    producer.send(&order(1)).await.unwrap();
    for attempt in 1..=3 {
        assert_eq!(
            within("an attempt", heard.recv()).await.unwrap(),
            (1, attempt)
        );
    }
    within("the stop", first.stop()).await.unwrap();

    let second = app(attempts).start().await.unwrap();
    producer.send(&order(2)).await.unwrap();
    assert_eq!(
        within("the next order", heard.recv()).await.unwrap(),
        (2, 1),
        "order 1 was committed"
    );
    within("the stop", second.stop()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_app_waits_for_its_broker_and_tells_when_it_goes_and_returns() {
    // Shown when it fails: what the app, the client and the broker said.
    let _ = tracing_subscriber::fmt()
        .with_test_writer()
        .with_max_level(tracing::Level::INFO)
        .try_init();
    let mut kafka = Kafka::absent().await;
    let (orders, mut heard) = hearing::<OrderPlaced>();
    let app = App::new(kafka.config())
        .named("early")
        .state(orders)
        .listener(Listener::on(ORDERS).handle(hear));
    let app = within("the start without a broker", app.start())
        .await
        .unwrap();
    let verdict = app.health().ready();
    assert!(!verdict.ok && app.health().live().ok);
    let reason = verdict.against[0].status.reason().unwrap().to_owned();
    assert!(
        reason.contains(&kafka.address) && reason.contains("KAFKA_BOOTSTRAP_SERVERS"),
        "{reason}"
    );

    kafka.restart().await;
    within("readiness", app.ready()).await.unwrap();

    kafka.stop().await;
    within(
        "the loss to be told",
        app.health().until(|health| !health.ready().ok),
    )
    .await;
    assert!(
        app.health().live().ok,
        "a restart of the service would not help"
    );

    kafka.restart().await;
    within("readiness again", app.ready()).await.unwrap();
    Producer::new(&kafka.config())
        .unwrap()
        .send(&order(7))
        .await
        .unwrap();
    match tokio::time::timeout(LIMIT, heard.recv()).await {
        Ok(heard) => assert_eq!(heard.unwrap(), order(7)),
        Err(_) => panic!("no order came; {}", state_of(&app, &kafka)),
    }
    within("the stop", app.stop()).await.unwrap();
}

/// What an app says of its health and its work, and the broker of its groups.
fn state_of(app: &RunningApp, kafka: &Kafka) -> String {
    let groups = tokio::task::block_in_place(|| kafka.groups());
    let verdict = app.health().ready();
    let metrics = app.metrics().render();
    format!("health: {verdict:#?}\ngroups: {groups:#?}\n{metrics}")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn topics_are_created_as_declared_and_too_few_partitions_are_an_error_at_the_start() {
    async fn nothing() {}
    let kafka = Kafka::start().await;
    let app = App::new(kafka.config())
        .named("a")
        .topic(ORDERS)
        .listener(Listener::on("plain").handle(nothing))
        .start()
        .await
        .unwrap();
    within("the stop", app.stop()).await.unwrap();

    let wider: Topic<OrderPlaced> = Topic::new("order-events").partitions(4);
    let error = App::new(kafka.config())
        .named("a")
        .topic(wider)
        .start()
        .await
        .unwrap_err();
    let said = error.to_string();
    assert!(matches!(error, StartError::Topic { .. }), "{said}");
    assert!(
        said.contains("`order-events`: it has 3 partitions on the broker, fewer than the 4"),
        "{said}"
    );

    let mut config = kafka.config();
    config.topics.create = false;
    let missing = App::new(config)
        .named("a")
        .topic("elsewhere")
        .start()
        .await
        .unwrap_err()
        .to_string();
    assert!(
        missing.contains("`elsewhere`: it does not exist") && missing.contains("topics.create"),
        "{missing}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_handler_that_says_stop_makes_the_app_not_alive() {
    async fn refuse(Key(key): Key) -> Result<(), Failure> {
        Err(Failure::new(
            Class::Stop,
            format!("the books of {key:?} are wrong"),
        ))
    }
    let kafka = Kafka::start().await;
    let app = App::new(kafka.config())
        .named("strict")
        .listener(Listener::on(ORDERS).handle(refuse))
        .start()
        .await
        .unwrap();
    Producer::new(&kafka.config())
        .unwrap()
        .send(&order(1))
        .await
        .unwrap();
    within(
        "the stop to be told",
        app.health().until(|health| !health.live().ok),
    )
    .await;
    let against = app.health().live().against;
    assert_eq!(against[0].name, "strict:order-events");
    assert!(
        matches!(&against[0].status, Status::Failed(reason) if reason.contains("the books of")),
        "{against:?}"
    );
    within("the stop", app.stop()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_host_name_is_told_with_what_to_check() {
    let config = Config::with_bootstrap_servers("no-such-host.invalid:9092");
    let app = App::new(config).topic(ORDERS);
    let app = within("the start", app.start()).await.unwrap();
    let reason = app.health().ready().against[0].status.to_string();
    for part in ["no-such-host.invalid:9092", "resolve", "check that it runs"] {
        assert!(reason.contains(part), "{reason}");
    }
    within("the stop", app.stop()).await.unwrap();
}

/// Ends as it is told: by returning, by an error, by a panic, or when stopped.
struct Ending(&'static str);

impl Service for Ending {
    fn name(&self) -> String {
        self.0.to_owned()
    }

    fn run(self: Box<Self>, cx: ServiceContext) -> BoxFuture<'static, Result<(), ServiceError>> {
        Box::pin(async move {
            cx.running();
            match self.0 {
                "returns" => {}
                "fails" => return Err("no disk".into()),
                "panics" => panic!("a defect"),
                _ => cx.stopped().await,
            }
            Ok(())
        })
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_that_ends_by_itself_has_failed() {
    let kafka = Kafka::start().await;
    let app = ["returns", "fails", "panics", "stays"]
        .into_iter()
        .fold(App::new(kafka.config()), |app, name| {
            app.service(Ending(name))
        });
    let app = app.start().await.unwrap();
    within(
        "three failures",
        app.health()
            .until(|health| health.live().against.len() == 3),
    )
    .await;
    let said: Vec<_> = app
        .health()
        .live()
        .against
        .iter()
        .map(|c| format!("{} {}", c.name, c.status))
        .collect();
    assert_eq!(
        said,
        [
            "returns failed: it returned although it was not told to stop",
            "fails failed: no disk",
            "panics failed: it panicked"
        ]
    );
    within("the stop", app.stop()).await.unwrap();
    let stays = app
        .health()
        .components()
        .into_iter()
        .find(|c| c.name == "stays")
        .unwrap();
    assert_eq!(stays.status, Status::Stopped);
}
