//! What a listener can be told when it is declared, on a real broker.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod support;

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::task::Poll;
use std::time::Duration;

use ackwell::codec::{Codec, CodecError};
use ackwell::extract::{Coded, Event, Extension, Raw, State, Text, TopicName};
use ackwell::layer::{Next, Request};
use ackwell::producer::OutgoingRecord;
use ackwell::{
    App, Batch, Class, Failure, Headers, Listener, OnUndecodable, Producer, Record, RunningApp,
    Topic, retry,
};
use futures_util::future::BoxFuture;
use serde::{Deserialize, Serialize};
use support::{Kafka, OrderPlaced, order, within};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tower_layer::layer_fn;
use tower_service::Service;

type Heard<T> = State<UnboundedSender<T>>;

fn hearing<T>() -> (UnboundedSender<T>, UnboundedReceiver<T>) {
    unbounded_channel()
}

async fn next<T>(heard: &mut UnboundedReceiver<T>) -> T {
    within("a record", heard.recv()).await.unwrap()
}

async fn metrics_say(app: &RunningApp, line: &str) {
    within(line, async {
        while !app.metrics().render().lines().any(|found| found == line) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
}

const ACCOUNTS: Topic<Opened> = Topic::new("accounts").partitions(1);

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Opened {
    account: String,
}

impl ackwell::Event for Opened {
    const TOPIC: Topic<Self> = ACCOUNTS;
    const TYPES: &'static [&'static str] = &["Opened"];

    fn event_type(&self) -> &'static str {
        "Opened"
    }

    fn aggregate_id(&self) -> Cow<'_, str> {
        Cow::Borrowed(&self.account)
    }
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind")]
enum Moved {
    In { account: String, cents: u32 },
    Out { account: String, cents: u32 },
}

impl ackwell::Event for Moved {
    const TOPIC: Topic<Self> = Topic::new("accounts");
    const TYPES: &'static [&'static str] = &["In", "Out"];

    fn event_type(&self) -> &'static str {
        match self {
            Self::In { .. } => "In",
            Self::Out { .. } => "Out",
        }
    }

    fn aggregate_id(&self) -> Cow<'_, str> {
        let (Self::In { account, .. } | Self::Out { account, .. }) = self;
        Cow::Borrowed(account)
    }
}

async fn opened(Event(event): Event<Opened>, State(heard): Heard<String>) {
    let _ = heard.send(format!("opened {}", event.account));
}

async fn moved(Event(event): Event<Moved>, State(heard): Heard<String>) {
    let _ = heard.send(match event {
        Moved::In { cents, .. } => format!("in {cents}"),
        Moved::Out { cents, .. } => format!("out {cents}"),
    });
}

fn of_type(event_type: &str, value: &'static str) -> OutgoingRecord {
    let mut headers = Headers::new();
    headers.push("eventType", event_type.to_owned());
    OutgoingRecord::to("accounts").value(value).headers(headers)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_of_one_topic_go_to_their_handlers_in_order_and_unknown_ones_to_the_dead_letters() {
    let kafka = Kafka::start().await;
    let (handled, mut heard) = hearing::<String>();
    let (dead, mut letters) = hearing::<Record>();
    let app = App::new(kafka.config())
        .named("bank")
        .state(handled)
        .state(dead)
        .listener(Listener::on(ACCOUNTS).on_event(opened).on_event(moved))
        .listener(
            Listener::on("accounts.DLQ")
                .name("dead")
                .without_dead_letters()
                .handle(async |record: Record, State(dead): Heard<Record>| {
                    let _ = dead.send(record);
                }),
        );
    let app = within("the start", app.start()).await.unwrap();
    let producer = Producer::new(&kafka.config()).unwrap();
    let account = || "a".to_owned();
    producer.send(&Opened { account: account() }).await.unwrap();
    let (paid_in, paid_out) = (
        Moved::In {
            account: account(),
            cents: 5,
        },
        Moved::Out {
            account: account(),
            cents: 3,
        },
    );
    producer.send(&paid_in).await.unwrap();
    producer.send_record(of_type("Closed", "{}")).await.unwrap();
    producer.send(&paid_out).await.unwrap();

    for expected in ["opened a", "in 5", "out 3"] {
        assert_eq!(next(&mut heard).await, expected);
    }
    let letter = next(&mut letters).await;
    assert_eq!(
        letter.headers().get_str("failure.reason"),
        Some("undecodable: unknown event type `Closed`")
    );
    within("the stop", app.stop()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_listener_does_not_know_may_be_skipped_while_broken_events_are_not() {
    let kafka = Kafka::start().await;
    let (handled, mut heard) = hearing::<String>();
    let app = App::new(kafka.config())
        .named("openings")
        .state(handled)
        .listener(
            Listener::on(ACCOUNTS)
                .on_unknown_event(OnUndecodable::Skip)
                .handle(opened),
        );
    let app = within("the start", app.start()).await.unwrap();
    let producer = Producer::new(&kafka.config()).unwrap();
    producer.send_record(of_type("Closed", "{}")).await.unwrap();
    producer.send_record(of_type("Opened", "{")).await.unwrap();
    let account = "a".to_owned();
    producer.send(&Opened { account }).await.unwrap();
    assert_eq!(next(&mut heard).await, "opened a");
    for line in [
        "ackwell_failed_attempts_total{listener=\"openings:accounts\",outcome=\"skip\"} 1",
        "ackwell_dead_letters_total{listener=\"openings:accounts\",topic=\"accounts\",reason=\"permanent\"} 1",
    ] {
        metrics_say(&app, line).await;
    }
    within("the stop", app.stop()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_handler_reads_several_topics_and_a_filter_settles_what_it_does_not_let_through() {
    let kafka = Kafka::start().await;
    let (handled, mut heard) = hearing::<(String, String)>();
    let listener = |handled| {
        App::new(kafka.config())
            .named("both")
            .state(handled)
            .listener(
                Listener::on("left")
                    .and_on("right")
                    .filter(|record| record.value() != Some(b"noise"))
                    .handle(
                        async |TopicName(topic): TopicName,
                               Text(text): Text,
                               State(heard): Heard<(String, String)>| {
                            let _ = heard.send((topic.to_string(), text));
                        },
                    ),
            )
    };
    let app = within("the start", listener(handled.clone()).start())
        .await
        .unwrap();
    let producer = Producer::new(&kafka.config()).unwrap();
    let send = async |topic: &'static str, value: &'static str| {
        let record = OutgoingRecord::to(topic).key("k").value(value);
        producer.send_record(record).await.unwrap();
    };
    for value in ["noise", "1", "noise", "noise", "2", "noise"] {
        send("left", value).await;
        send("right", value).await;
    }
    let mut all = BTreeSet::new();
    while all.len() < 4 {
        all.insert(next(&mut heard).await);
    }
    for topic in ["left", "right"] {
        let line =
            format!("ackwell_filtered_records_total{{listener=\"both:left\",topic=\"{topic}\"}} 4");
        metrics_say(&app, &line).await;
        let line =
            format!("ackwell_consumed_records_total{{listener=\"both:left\",topic=\"{topic}\"}} 6");
        metrics_say(&app, &line).await;
    }
    within("the stop", app.stop()).await.unwrap();

    let again = within("the start", listener(handled).start())
        .await
        .unwrap();
    send("left", "3").await;
    assert_eq!(
        next(&mut heard).await,
        ("left".to_owned(), "3".to_owned()),
        "what was filtered is acknowledged, too"
    );
    within("the stop", again.stop()).await.unwrap();
}

/// `name=value` lines: a format that nobody else writes.
#[derive(Debug, Default)]
struct Lines;

fn amount_of(bytes: &[u8]) -> Result<u32, CodecError> {
    let text = std::str::from_utf8(bytes)?;
    let amount = text.strip_prefix("amount=").ok_or("no amount")?;
    Ok(amount.parse()?)
}

impl Codec<u32> for Lines {
    fn content_type(&self) -> &'static str {
        "text/x-lines"
    }

    fn encode(&self, value: &u32) -> Result<Vec<u8>, CodecError> {
        Ok(format!("amount={value}").into_bytes())
    }

    fn decode(&self, bytes: &[u8]) -> Result<u32, CodecError> {
        amount_of(bytes)
    }
}

impl Codec<Paid> for Lines {
    fn content_type(&self) -> &'static str {
        "text/x-lines"
    }

    fn encode(&self, paid: &Paid) -> Result<Vec<u8>, CodecError> {
        Lines.encode(&paid.amount)
    }

    fn decode(&self, bytes: &[u8]) -> Result<Paid, CodecError> {
        Ok(Paid {
            amount: amount_of(bytes)?,
        })
    }
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Paid {
    amount: u32,
}

impl ackwell::Event for Paid {
    const TOPIC: Topic<Self> = Topic::new("payments");
    const TYPES: &'static [&'static str] = &["Paid"];

    fn event_type(&self) -> &'static str {
        "Paid"
    }

    fn aggregate_id(&self) -> Cow<'_, str> {
        Cow::Borrowed("p")
    }

    fn codec() -> &'static dyn Codec<Self> {
        &Lines
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn listeners_of_one_app_each_read_and_events_each_are_written_in_their_own_format() {
    let kafka = Kafka::start().await;
    let (handled, mut heard) = hearing::<String>();
    let app = App::new(kafka.config())
        .named("formats")
        .state(handled)
        .listener(Listener::on(ACCOUNTS).handle(opened))
        .listener(Listener::on(<Paid as ackwell::Event>::TOPIC).handle(
            async |Event(paid): Event<Paid>,
                   headers: Headers,
                   Raw(raw): Raw,
                   State(heard): Heard<String>| {
                let content_type = headers.get_str("contentType").unwrap_or_default();
                let raw = String::from_utf8_lossy(&raw).into_owned();
                let _ = heard.send(format!("paid {} as {raw} in {content_type}", paid.amount));
            },
        ))
        .listener(Listener::on("amounts").handle(
            async |Coded(amount, ..): Coded<u32, Lines>,
                   headers: Headers,
                   State(heard): Heard<String>| {
                let content_type = headers.get_str("contentType").unwrap_or_default();
                let _ = heard.send(format!("amount {amount} in {content_type}"));
            },
        ));
    let app = within("the start", app.start()).await.unwrap();
    let producer = Producer::new(&kafka.config()).unwrap();
    let account = "a".to_owned();
    producer.send(&Opened { account }).await.unwrap();
    producer.send(&Paid { amount: 7 }).await.unwrap();
    let broken = OutgoingRecord::to("amounts").value("amount=x");
    producer.send_record(broken).await.unwrap();
    let amount = OutgoingRecord::to("amounts").encoded(&Lines, &9).unwrap();
    producer.send_record(amount).await.unwrap();

    let mut all = BTreeSet::new();
    while all.len() < 3 {
        all.insert(next(&mut heard).await);
    }
    let expected = [
        "amount 9 in text/x-lines",
        "opened a",
        "paid 7 as amount=7 in text/x-lines",
    ];
    assert_eq!(all, expected.map(str::to_owned).into());
    let line = "ackwell_undecodable_records_total{listener=\"formats:amounts\"} 1";
    metrics_say(&app, line).await;
    within("the stop", app.stop()).await.unwrap();
}

/// Puts its name into the request, around what is within it.
#[derive(Clone)]
struct Named<S>(S, &'static str);

#[derive(Clone, Default)]
struct Path(String);

impl<S: Service<Request>> Service<Request> for Named<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, cx: &mut std::task::Context<'_>) -> Poll<Result<(), S::Error>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request) -> S::Future {
        let Path(path) = request.extensions().get().cloned().unwrap_or_default();
        let path = format!("{path}/{}", self.1);
        request.extensions_mut().insert(Path(path));
        self.0.call(request)
    }
}

/// Gives a handler so much time.
#[derive(Clone)]
struct Timeout<S>(S, Duration);

impl<S> Service<Request> for Timeout<S>
where
    S: Service<Request, Response = (), Error = Failure>,
    S::Future: Send + 'static,
{
    type Response = ();
    type Error = Box<dyn std::error::Error + Send + Sync>;
    type Future = BoxFuture<'static, Result<(), Self::Error>>;

    fn poll_ready(&mut self, cx: &mut std::task::Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.0.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, request: Request) -> Self::Future {
        let (handling, limit) = (self.0.call(request), self.1);
        Box::pin(async move {
            match tokio::time::timeout(limit, handling).await {
                Ok(end) => Ok(end?),
                Err(late) => Err(late.into()),
            }
        })
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn layers_stand_around_the_handler_in_order_and_their_answer_counts() {
    let kafka = Kafka::start().await;
    let (handled, mut heard) = hearing::<(String, String)>();
    let (dead, mut letters) = hearing::<String>();
    let named = |name| layer_fn(move |next: Next| Named(next, name));
    let app = App::new(kafka.config())
        .named("layered")
        .state(handled)
        .state(dead)
        .layer(named("app-inner"))
        .layer(named("app-outer"))
        .listener(
            Listener::on("jobs")
                .retry(retry::none())
                .layer(named("inner"))
                .layer(layer_fn(|next: Next| {
                    Timeout(next, Duration::from_millis(300))
                }))
                .handle(
                    async |Text(text): Text,
                           Extension(Path(path)): Extension<Path>,
                           State(heard): Heard<(String, String)>| {
                        match &*text {
                            "stuck" => std::future::pending().await,
                            "refused" => return Err(Failure::permanent("refused by the handler")),
                            _ => {}
                        }
                        let _ = heard.send((text, path));
                        Ok(())
                    },
                ),
        )
        .listener(
            Listener::on("jobs.DLQ")
                .name("dead")
                .without_dead_letters()
                .handle(async |headers: Headers, State(dead): Heard<String>| {
                    let told = |name| headers.get_str(name).unwrap_or_default();
                    let _ = dead.send(format!(
                        "{}: {}",
                        told("failure.class"),
                        told("failure.reason")
                    ));
                }),
        );
    let app = within("the start", app.start()).await.unwrap();
    let producer = Producer::new(&kafka.config()).unwrap();
    for value in ["stuck", "refused", "fine"] {
        let record = OutgoingRecord::to("jobs").key("k").value(value);
        producer.send_record(record).await.unwrap();
    }
    let path = "/app-outer/app-inner/inner".to_owned();
    assert_eq!(next(&mut heard).await, ("fine".to_owned(), path));
    assert_eq!(next(&mut letters).await, "transient: deadline has elapsed");
    assert_eq!(
        next(&mut letters).await,
        "permanent: refused by the handler",
        "a failure keeps its class through a layer that boxes errors"
    );
    within("the stop", app.stop()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_is_one_request_to_its_layers_and_keeps_its_outcomes() {
    let kafka = Kafka::start().await;
    let (handled, mut heard) = hearing::<Vec<u32>>();
    let (dead, mut letters) = hearing::<Record>();
    async fn even(
        Batch(orders): Batch<Event<OrderPlaced>>,
        State(heard): Heard<Vec<u32>>,
        Extension(Path(_)): Extension<Path>,
    ) -> Vec<Result<(), Failure>> {
        let numbers: Vec<_> = orders.iter().map(|Event(order)| order.number).collect();
        let outcome = |number: &u32| match number % 2 {
            0 => Ok(()),
            _ => Err(Failure::new(Class::Permanent, format!("{number} is odd"))),
        };
        let outcomes = numbers.iter().map(outcome).collect();
        let _ = heard.send(numbers);
        outcomes
    }
    let app = App::new(kafka.config())
        .named("evens")
        .state(handled)
        .state(dead)
        .layer(layer_fn(|next: Next| Named(next, "app")))
        .listener(
            Listener::on(Topic::<OrderPlaced>::new("order-events").partitions(1))
                .layer(layer_fn(|next: Next| {
                    Timeout(next, Duration::from_secs(30))
                }))
                .handle_batch(even),
        )
        .listener(
            Listener::on("order-events.DLQ")
                .name("dead")
                .without_dead_letters()
                .handle(async |record: Record, State(dead): Heard<Record>| {
                    let _ = dead.send(record);
                }),
        );
    let producer = Producer::new(&kafka.config()).unwrap();
    let app = within("the start", app.start()).await.unwrap();
    let encoded = (0..20).map(|number| ackwell::EncodedEvent::new(&order(number)).unwrap());
    for sent in producer.send_batch(encoded.map(OutgoingRecord::from)).await {
        sent.unwrap();
    }
    let mut odd = BTreeSet::new();
    while odd.len() < 10 {
        let letter = next(&mut letters).await;
        odd.insert(
            letter
                .headers()
                .get_str("failure.reason")
                .unwrap()
                .to_owned(),
        );
    }
    let line =
        "ackwell_consumed_records_total{listener=\"evens:order-events\",topic=\"order-events\"} 20";
    metrics_say(&app, line).await;
    within("the stop", app.stop()).await.unwrap();
    let mut times = [0; 20];
    while let Ok(numbers) = heard.try_recv() {
        numbers
            .iter()
            .for_each(|number| times[*number as usize] += 1);
    }
    let evens: Vec<_> = times.iter().step_by(2).collect();
    assert!(
        evens.iter().all(|times| **times == 1),
        "what was settled came again: {times:?}"
    );
}
