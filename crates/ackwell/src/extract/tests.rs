use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use prometheus_client::metrics::counter::Counter;
use serde::{Deserialize, Serialize};

use super::*;
use crate::context::{Shared, States};
use crate::encode::{EVENT_TYPE, EncodedEvent, TRACEPARENT};
use crate::extensions::Extensions;
use crate::failure::{Class, Classify};
use crate::handler::{Erased, Handler, Typed};
use crate::listener::OnUndecodable;
use crate::topic::{self, Topic};

#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", deny_unknown_fields)]
enum Stock {
    Reserved { order: String },
    Refused { order: String },
}

impl topic::Event for Stock {
    const TOPIC: Topic<Self> = Topic::new("inventory-events").partitions(12);

    fn event_type(&self) -> &'static str {
        match self {
            Self::Reserved { .. } => "Reserved",
            Self::Refused { .. } => "Refused",
        }
    }

    fn knows(event_type: &str) -> bool {
        matches!(event_type, "Reserved" | "Refused")
    }

    fn aggregate_id(&self) -> Cow<'_, str> {
        let (Self::Reserved { order } | Self::Refused { order }) = self;
        Cow::Borrowed(order)
    }
}

struct Retries;

impl FromHeader for Retries {
    const NAME: &'static str = "retries";
    type Value = u8;
}

fn record_of(event: &Stock) -> Record {
    let encoded = EncodedEvent::new(event).unwrap();
    record(Some(&encoded.value)).with_headers(encoded.headers)
}

fn record(value: Option<&[u8]>) -> Record {
    Record::new("inventory-events", 3, 42, Some(b"o-1"), value).with_timestamp(1_700_000_000_000)
}

fn shared(on_undecodable: OnUndecodable) -> Arc<Shared> {
    let states: std::collections::HashMap<_, Box<dyn std::any::Any + Send + Sync>> =
        [(std::any::TypeId::of::<u64>(), Box::new(7_u64) as _)].into();
    let states = States::from_values(states);
    Arc::new(Shared {
        group: "g".into(),
        states,
        on_undecodable,
        on_unknown_event: on_undecodable,
        undecodable: Counter::default(),
        listener: None,
    })
}

fn context(record: Record) -> Context {
    Context::new(
        record,
        2,
        Extensions::new(),
        shared(OnUndecodable::DeadLetter),
    )
}

fn take<T: FromRecord>(record: Record) -> Result<T, Failure> {
    T::from_record(&mut context(record))
}

async fn handle<H: Handler<A>, A: 'static>(
    handler: H,
    record: Record,
    policy: OnUndecodable,
) -> Result<(), Failure> {
    Typed::new(handler)
        .bind(shared(policy))
        .call(record, 2, Extensions::new())
        .await
}

#[test]
fn an_event_is_decoded_by_its_type() {
    let event = Stock::Refused {
        order: "o-1".to_owned(),
    };
    let Event(decoded) = take::<Event<Stock>>(record_of(&event)).unwrap();
    assert_eq!(decoded, event);
}

#[test]
fn what_is_no_known_event_is_a_permanent_failure_that_says_why() {
    let with_type = |event_type: &str, value: &[u8]| {
        let mut headers = Headers::new();
        headers.push(EVENT_TYPE, event_type.to_owned());
        record(Some(value)).with_headers(headers)
    };
    let mut binary = Headers::new();
    binary.push(EVENT_TYPE, &[0xff][..]);
    for (record, says) in [
        (record(Some(b"{}")), "the header `eventType` is missing"),
        (record(Some(b"{}")).with_headers(binary), "not UTF-8"),
        (with_type("Moved", b"{}"), "unknown event type `Moved`"),
        (
            with_type("M\u{7}oved", b"{}"),
            "unknown event type `M\\u{7}oved`",
        ),
        (
            with_type("Reserved", b"{\"kind\":\"Reserved\"}"),
            "missing field `order`",
        ),
        (
            with_type(
                "Reserved",
                b"{\"kind\":\"Reserved\",\"order\":\"1\",\"x\":1}",
            ),
            "unknown field, expected",
        ),
        (
            with_type("Reserved", b"{\"kind\":\"Refused\",\"order\":\"1\"}"),
            "the value is a `Refused`",
        ),
        (with_type("Reserved", b"\xff"), "undecodable"),
        (with_type("Reserved", b""), "undecodable"),
    ] {
        let failure = take::<Event<Stock>>(record).unwrap_err();
        assert_eq!(failure.class(), Class::Permanent);
        assert!(failure.summary().starts_with("undecodable: "), "{failure}");
        assert!(failure.summary().contains(says), "{failure} without {says}");
    }
    let long = take::<Event<Stock>>(with_type(&"x".repeat(5_000), b"{}")).unwrap_err();
    assert!(long.summary().len() < 200, "{long}");
}

#[test]
fn a_tombstone_is_none_or_a_failure_and_never_a_default() {
    assert_eq!(take::<Option<Text>>(record(None)).unwrap(), None);
    assert_eq!(
        take::<Option<Text>>(record(Some(b""))).unwrap(),
        Some(Text(String::new()))
    );
    assert_eq!(take::<Option<Event<Stock>>>(record(None)).unwrap(), None);
    assert_eq!(take::<Option<Json<Vec<u8>>>>(record(None)).unwrap(), None);
    let tombstone = take::<Raw>(record(None)).unwrap_err();
    assert_eq!(tombstone.class(), Class::Permanent);
    assert!(tombstone.summary().contains("tombstone"), "{tombstone}");
    for class in [
        take::<Text>(record(None)).unwrap_err().class(),
        take::<Json<u8>>(record(None)).unwrap_err().class(),
        take::<Event<Stock>>(
            record_of(&Stock::Reserved { order: "1".into() }).with_headers(Headers::new()),
        )
        .unwrap_err()
        .class(),
    ] {
        assert_eq!(class, Class::Permanent);
    }
}

#[test]
fn values_come_as_bytes_text_json_or_by_a_codec_of_ones_own() {
    #[derive(Debug, PartialEq)]
    struct BigEndian(u16);
    impl Decode for BigEndian {
        type Error = std::array::TryFromSliceError;
        fn decode(value: &[u8]) -> Result<Self, Self::Error> {
            value.try_into().map(u16::from_be_bytes).map(Self)
        }
    }
    assert_eq!(
        take::<Raw>(record(Some(b"\xff"))).unwrap().0.as_ref(),
        b"\xff"
    );
    assert_eq!(
        take::<Text>(record(Some("ä".as_bytes()))).unwrap(),
        Text("ä".to_owned())
    );
    assert!(take::<Text>(record(Some(b"\xff"))).is_err());
    assert_eq!(
        take::<Json<Vec<u8>>>(record(Some(b"[1,2]"))).unwrap(),
        Json(vec![1, 2])
    );
    assert_eq!(
        take::<Payload<BigEndian>>(record(Some(&[1, 2]))).unwrap(),
        Payload(BigEndian(258))
    );
    assert!(take::<Payload<BigEndian>>(record(Some(&[1]))).is_err());
}

#[test]
fn a_header_is_typed_and_may_be_optional() {
    let with = |value: &str| {
        let mut headers = Headers::new();
        headers.push("retries", value.to_owned());
        record(None).with_headers(headers)
    };
    assert_eq!(take::<Header<Retries>>(with("7")).unwrap().0, 7);
    assert!(
        take::<Header<Retries>>(with("700"))
            .unwrap_err()
            .summary()
            .contains("`retries`")
    );
    assert!(
        take::<Header<Retries>>(record(None))
            .unwrap_err()
            .summary()
            .contains("missing")
    );
    assert!(
        take::<Option<Header<Retries>>>(record(None))
            .unwrap()
            .is_none()
    );
    assert!(
        take::<Option<Header<Retries>>>(with("x")).is_err(),
        "malformed is not missing"
    );
}

#[tokio::test]
async fn a_handler_may_ask_for_eight_things() {
    #[expect(clippy::too_many_arguments, reason = "as many as there may be")]
    async fn all(
        Key(key): Key,
        TopicName(topic): TopicName,
        Partition(partition): Partition,
        Offset(offset): Offset,
        Timestamp(timestamp): Timestamp,
        Attempt(attempt): Attempt,
        State(state): State<u64>,
        record: Record,
    ) -> Result<(), Failure> {
        assert_eq!(
            (key.as_deref(), &*topic, partition, offset),
            (Some("o-1"), "inventory-events", 3, 42)
        );
        assert_eq!((timestamp, attempt, state), (Some(1_700_000_000_000), 2, 7));
        assert_eq!(record.value(), None);
        Ok(())
    }
    handle(all, record(None), OnUndecodable::DeadLetter)
        .await
        .unwrap();
    handle(async || {}, record(None), OnUndecodable::DeadLetter)
        .await
        .unwrap();
}

#[tokio::test]
async fn the_error_of_a_handler_says_its_class() {
    #[derive(Debug)]
    struct Away;
    impl std::fmt::Display for Away {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("the gateway is away")
        }
    }
    impl std::error::Error for Away {}
    impl Classify for Away {
        fn class(&self) -> Class {
            Class::Unavailable
        }
    }
    let failure = handle(
        async || Err::<(), _>(Away),
        record(None),
        OnUndecodable::DeadLetter,
    )
    .await
    .unwrap_err();
    assert_eq!(
        (failure.class(), failure.summary()),
        (Class::Unavailable, "the gateway is away")
    );
    let boxed =
        async || -> Result<(), Box<dyn std::error::Error + Send + Sync>> { Err("refused".into()) };
    let failure = handle(boxed, record(None), OnUndecodable::DeadLetter)
        .await
        .unwrap_err();
    assert_eq!(failure.class(), Class::Transient);
}

#[tokio::test]
async fn what_happens_to_the_undecodable_is_the_listeners_choice_and_the_handler_is_not_called() {
    static CALLS: AtomicU32 = AtomicU32::new(0);
    async fn count(_: Json<u8>) {
        CALLS.fetch_add(1, Ordering::Relaxed);
    }
    for (policy, class) in [
        (OnUndecodable::DeadLetter, Class::Permanent),
        (OnUndecodable::Skip, Class::Skip),
        (OnUndecodable::Stop, Class::Stop),
    ] {
        let failure = handle(count, record(Some(b"x")), policy).await.unwrap_err();
        assert_eq!(failure.class(), class);
    }
    assert_eq!(CALLS.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn a_trace_is_passed_along_to_the_events_that_a_handler_emits() {
    async fn emit() {
        let event = EncodedEvent::new(&Stock::Reserved { order: "1".into() }).unwrap();
        assert_eq!(event.headers.get_str(TRACEPARENT), Some("00-abc"));
    }
    let mut headers = Headers::new();
    headers.push(TRACEPARENT, "00-abc");
    handle(
        emit,
        record(None).with_headers(headers),
        OnUndecodable::DeadLetter,
    )
    .await
    .unwrap();
    let outside = EncodedEvent::new(&Stock::Reserved { order: "1".into() }).unwrap();
    assert_eq!(outside.headers.get_str(TRACEPARENT), None);
}

#[test]
fn the_envelope_carries_id_type_time_aggregate_and_media_type() {
    let event = EncodedEvent::new(&Stock::Reserved {
        order: "o-9".into(),
    })
    .unwrap();
    assert_eq!(
        (event.topic, event.key.as_ref()),
        ("inventory-events", &b"o-9"[..])
    );
    let header = |name| event.headers.get_str(name).unwrap();
    assert_eq!(header("eventId"), event.event_id.to_string());
    assert_eq!(event.event_id.get_version_num(), 7);
    assert_eq!(
        (
            header("eventType"),
            header("aggregateId"),
            header("contentType")
        ),
        ("Reserved", "o-9", "application/json")
    );
    let occurred_at = header("occurredAt");
    assert!(
        occurred_at.ends_with('Z') && occurred_at.parse::<jiff::Timestamp>().is_ok(),
        "{occurred_at}"
    );
    assert_eq!(
        event.value.as_ref(),
        br#"{"kind":"Reserved","order":"o-9"}"#
    );
}

#[test]
fn a_missing_state_is_found_at_the_start() {
    async fn needs(_: State<String>) {}
    let shared = shared(OnUndecodable::DeadLetter);
    let mut setup = Setup::new("l", "g", &shared.states);
    let error = Typed::new(needs)
        .prepare(&mut setup)
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("String") && error.contains("App::state"),
        "{error}"
    );
}
