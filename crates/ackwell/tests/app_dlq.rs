//! Dead letters on a real broker: found, replayed, parked, listened to.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may fail")]

mod container_support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ackwell::container::{Container, DeadLetters, RecordHandler};
use ackwell::core::RetryPolicy;
use ackwell::dead_letters::{
    Action, DeadLetter, DeadLetterQueue, Edit, Error, Filter, Position, Replay, parked,
};
use ackwell::extract::State;
use ackwell::failure::{Class, Failure};
use ackwell::producer::OutgoingRecord;
use ackwell::record::{Headers, Record};
use ackwell::{App, Listener, Producer};
use container_support::{Cluster, header, run};
use rdkafka::Message;
use tokio::sync::mpsc;

const PATIENCE: Duration = Duration::from_secs(40);

fn at(text: &str) -> Position {
    text.parse().unwrap()
}

/// Fails as the value says, unless told to succeed.
struct Moody {
    mended: AtomicBool,
    handled: mpsc::UnboundedSender<Record>,
}

impl Moody {
    fn new() -> (Arc<Self>, mpsc::UnboundedReceiver<Record>) {
        let (handled, heard) = mpsc::unbounded_channel();
        let moody = Moody {
            mended: AtomicBool::new(false),
            handled,
        };
        (Arc::new(moody), heard)
    }

    fn handler(self: &Arc<Self>) -> Arc<dyn RecordHandler> {
        let moody = Arc::clone(self);
        Arc::new(move |record: Record| {
            let moody = Arc::clone(&moody);
            async move {
                if moody.mended.load(Ordering::SeqCst) {
                    let _ = moody.handled.send(record);
                    return Ok(());
                }
                Err(match record.value() {
                    Some(b"busy") => Failure::new(Class::Transient, "database is locked"),
                    _ => Failure::permanent("no such product"),
                })
            }
        })
    }
}

async fn listening(cluster: &Cluster, topic: &str, moody: &Arc<Moody>) -> Container {
    let mut spec = cluster.listener(topic, moody.handler());
    spec.retry = RetryPolicy::none();
    run(spec).await
}

/// Records with keys `k0`, `k1`, .. on partitions 0, 1, 0, 1, ..
async fn send(cluster: &Cluster, topic: &str, values: &[&str]) {
    let producer = Producer::new(&cluster.config()).unwrap();
    for (number, value) in (0..).zip(values) {
        let mut headers = Headers::new();
        headers.push("eventType", "Ordered");
        headers.push("trace", "a");
        headers.push("trace", "b");
        let record = OutgoingRecord::to(topic.to_owned())
            .key(format!("k{number}"))
            .value((*value).to_owned())
            .partition(number % 2)
            .headers(headers);
        producer.send_record(record).await.unwrap();
    }
}

async fn settled(cluster: &Cluster, topic: &str, ends: [i64; 2]) {
    for (partition, end) in (0..).zip(ends) {
        if end > 0 {
            cluster.reaches(topic, partition, end).await;
        }
    }
}

async fn next(heard: &mut mpsc::UnboundedReceiver<Record>) -> Record {
    let next = tokio::time::timeout(PATIENCE, heard.recv()).await;
    next.unwrap().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dead_letters_are_found_and_replayed_once_to_where_they_came_from() {
    let cluster = Cluster::start().await;
    let topic = cluster.topic(2).await;
    send(&cluster, &topic, &["busy", "wrong", "busy", "wrong"]).await;
    let (moody, mut heard) = Moody::new();
    let container = listening(&cluster, &topic, &moody).await;
    settled(&cluster, &topic, [2, 2]).await;

    let queue = DeadLetterQueue::new(&cluster.config(), format!("{topic}.DLQ"));
    let listed = DeadLetterQueue::list(&cluster.config()).await.unwrap();
    let own = listed.iter().find(|found| found.topic == queue.topic());
    assert_eq!(own.map(|own| (own.partitions, own.letters)), Some((2, 4)));
    let kinds = queue.count(&Filter::all()).await.unwrap();
    assert_eq!(
        (kinds["transient"].letters, kinds["permanent"].letters),
        (2, 2)
    );

    let locked = Filter {
        reason: Some("LOCKED".into()),
        event_type: Some("Ordered".into()),
        ..Filter::all()
    };
    let page = queue.page(&locked, None, 10).await.unwrap();
    let found: Vec<_> = (page.found.iter())
        .map(|found| (found.letter.position(), found.done))
        .collect();
    assert_eq!(found, [(at("0:0"), None), (at("0:1"), None)]);
    let letter = &page.found[1].letter;
    assert_eq!(
        (letter.key(), letter.value()),
        (Some(&b"k2"[..]), Some(&b"busy"[..]))
    );
    let origin = letter.origin().unwrap();
    assert_eq!(
        (origin.topic, origin.partition, origin.offset),
        (&*topic, 0, 1)
    );

    moody.mended.store(true, Ordering::SeqCst);
    let mut replay = Replay::of(locked, "ada");
    replay.dry_run = true;
    let would = queue.replay(replay.clone(), |_| ()).await.unwrap();
    assert_eq!((would.matched, would.replayed), (2, 2));
    assert!(queue.history(10).await.unwrap().is_empty());

    replay.dry_run = false;
    let report = queue.replay(replay.clone(), |_| ()).await.unwrap();
    assert_eq!(
        (report.replayed, report.left, report.failed),
        (2, 0, 0),
        "{report:?}"
    );
    for key in [b"k0", b"k2"] {
        let record = next(&mut heard).await;
        assert_eq!(
            (record.key(), record.value()),
            (Some(&key[..]), Some(&b"busy"[..]))
        );
        assert_eq!(record.partition(), 0, "where it was");
        let names: Vec<_> = (record.headers().iter())
            .map(|header| header.name())
            .filter(|name| !name.starts_with("original.") && !name.starts_with("failure.first."))
            .collect();
        assert_eq!(names, ["eventType", "trace", "trace", "replay.hops"]);
    }

    let again = queue.replay(replay.clone(), |_| ()).await.unwrap();
    assert_eq!((again.matched, again.left, again.replayed), (2, 2, 0));
    let history = queue.history(10).await.unwrap();
    let told: Vec<_> = (history.iter())
        .map(|entry| (entry.by.as_str(), entry.action, entry.to.clone()))
        .collect();
    let to = |offset| Some(format!("{topic}/0/{offset}"));
    assert_eq!(
        told,
        [
            ("ada", Action::Replay, to(2)),
            ("ada", Action::Replay, to(3))
        ]
    );
    let done = queue.get(at("0:0")).await.unwrap().unwrap().done;
    assert_eq!(done, Some(Action::Replay));

    replay.again = true;
    let again = queue.replay(replay, |_| ()).await.unwrap();
    assert_eq!((again.left, again.replayed), (0, 2));
    settled(&cluster, &topic, [6, 2]).await;
    container.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_fails_again_counts_its_replays_and_is_parked_in_the_end() {
    let cluster = Cluster::start().await;
    let topic = cluster.topic(2).await;
    send(&cluster, &topic, &["wrong"]).await;
    let (moody, _heard) = Moody::new();
    let container = listening(&cluster, &topic, &moody).await;
    settled(&cluster, &topic, [1, 0]).await;

    let queue = DeadLetterQueue::new(&cluster.config(), format!("{topic}.DLQ"));
    let mut replay = Replay::of(Filter::all(), "ada");
    replay.hops_max = 2;
    for (hops, place) in [(1, 2), (2, 3)] {
        let report = queue.replay(replay.clone(), |_| ()).await.unwrap();
        assert_eq!((report.replayed, report.left), (1, hops - 1));
        settled(&cluster, &topic, [place, 0]).await;
    }
    let third = queue.get(at("0:2")).await.unwrap().unwrap().letter;
    let origin = third.origin().unwrap();
    assert_eq!(
        (origin.offset, third.hops()),
        (0, 2),
        "the first place, two replays"
    );
    let report = queue.replay(replay.clone(), |_| ()).await.unwrap();
    assert_eq!((report.replayed, report.parked, report.left), (0, 1, 2));

    let parked = tokio::task::block_in_place(|| cluster.read(&format!("{topic}.parked"), 1));
    assert_eq!(parked[0].payload(), Some(&b"wrong"[..]));
    assert_eq!(header(&parked[0], "failure.reason"), ["no such product"]);
    assert_eq!(header(&parked[0], "replay.hops"), ["2"]);
    let first = queue.get(at("0:0")).await.unwrap().unwrap().letter;
    assert_eq!(first.first_failure(), None, "it was given up at once");
    let known = third.first_failure().unwrap();
    assert_eq!(Some(known.at), first.failed_at(), "over all replays");
    assert_eq!(known.reason, "no such product");
    let report = queue.replay(replay, |_| ()).await.unwrap();
    assert_eq!((report.replayed, report.parked, report.left), (0, 0, 3));
    container.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replay_that_fills_its_topics_limit_goes_without_its_first_failure() {
    let cluster = Cluster::start().await;
    let topic = format!("narrow-{}", uuid::Uuid::new_v4().simple());
    let narrow = [("max.message.bytes", "2000")];
    cluster.make_with(&topic, 1, &narrow).await;
    let fails = |_: Record| async { Err::<(), _>(Failure::permanent("x".repeat(900))) };
    let mut spec = cluster.listener(&topic, Arc::new(fails));
    spec.retry = RetryPolicy::none();
    let container = run(spec).await;
    let wide = "v".repeat(1_200);
    cluster.send(&topic, 0, &[("k", &wide)]).await;
    cluster.reaches(&topic, 0, 1).await;
    container.stop().await;

    let queue = DeadLetterQueue::new(&cluster.config(), format!("{topic}.DLQ"));
    let replay = Replay::of(Filter::all(), "ada");
    let report = queue.replay(replay, |_| ()).await.unwrap();
    assert_eq!((report.replayed, report.failed), (1, 0), "{report:?}");
    let records = tokio::task::block_in_place(|| cluster.read(&topic, 2));
    assert_eq!(header(&records[1], "replay.hops"), ["1"]);
    assert_eq!(header(&records[1], "original.offset"), ["0"]);
    assert!(header(&records[1], "failure.first.reason").is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_edited_dead_letter_is_sent_as_edited_and_stays_as_it_was() {
    let cluster = Cluster::start().await;
    let topic = cluster.topic(2).await;
    send(&cluster, &topic, &["wrong", "wrong"]).await;
    let (moody, mut heard) = Moody::new();
    let container = listening(&cluster, &topic, &moody).await;
    settled(&cluster, &topic, [1, 1]).await;
    moody.mended.store(true, Ordering::SeqCst);

    let queue = DeadLetterQueue::new(&cluster.config(), format!("{topic}.DLQ"));
    let mut replay = Replay::of(Filter::positions([at("1:0")]), "ada");
    replay.edit = Edit {
        value: Some(Some("right".into())),
        set_headers: vec![("trace".into(), "c".into())],
        ..Edit::default()
    };
    let report = queue.replay(replay.clone(), |_| ()).await.unwrap();
    assert_eq!(report.replayed, 1);
    let record = next(&mut heard).await;
    assert_eq!(
        (record.key(), record.value()),
        (Some(&b"k1"[..]), Some(&b"right"[..]))
    );
    assert_eq!(record.headers().get_str("trace"), Some("c"));
    let kept = queue.get(at("1:0")).await.unwrap().unwrap().letter;
    assert_eq!(kept.value(), Some(&b"wrong"[..]));
    let history = queue.history(10).await.unwrap();
    assert_eq!(history[0].edited, ["value", "header trace"]);

    replay.filter = Filter::all();
    let refused = queue.replay(replay, |_| ()).await.unwrap_err();
    assert!(refused.to_string().contains("one dead letter"), "{refused}");
    container.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pages_go_through_all_and_a_topic_that_is_not_there_is_told() {
    let cluster = Cluster::start().await;
    let topic = cluster.topic(2).await;
    send(&cluster, &topic, &["wrong"; 9]).await;
    let (moody, _heard) = Moody::new();
    let container = listening(&cluster, &topic, &moody).await;
    settled(&cluster, &topic, [5, 4]).await;
    container.stop().await;

    let queue = DeadLetterQueue::new(&cluster.config(), format!("{topic}.DLQ"));
    let (mut after, mut all) = (None, Vec::new());
    loop {
        let page = queue.page(&Filter::all(), after, 2).await.unwrap();
        assert!(page.found.len() <= 2);
        all.extend(page.found.iter().map(|found| found.letter.position()));
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    let expected: Vec<_> = (0..5)
        .map(|offset| Position {
            partition: 0,
            offset,
        })
        .chain((0..4).map(|offset| Position {
            partition: 1,
            offset,
        }))
        .collect();
    assert_eq!(all, expected);
    assert!(queue.get(at("1:99")).await.unwrap().is_none());
    let mut later = Filter::all();
    later.since = Some("2100-01-01T00:00:00Z".parse().unwrap());
    assert!(queue.page(&later, None, 2).await.unwrap().found.is_empty());

    let misnamed = DeadLetterQueue::new(&cluster.config(), format!("{topic}.DQL"));
    match misnamed.page(&Filter::all(), None, 1).await {
        Err(Error::NoTopic { alike, .. }) => assert_eq!(alike.as_deref(), Some(queue.topic())),
        other => panic!("{other:?}"),
    }
}

type Told = mpsc::UnboundedSender<DeadLetter>;

/// Tells each dead letter but one, which it can't bear.
async fn tell(letter: DeadLetter, State(told): State<Told>) -> Result<(), Failure> {
    if letter.value() == Some(b"unbearable") {
        return Err(Failure::permanent("the ticket system says no"));
    }
    let _ = told.send(letter);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_letter_listener_reads_them_and_parks_what_it_cannot_handle() {
    let cluster = Cluster::start().await;
    let topic = cluster.topic(2).await;
    send(&cluster, &topic, &["wrong", "unbearable", "busy"]).await;
    let (moody, _heard) = Moody::new();
    let container = listening(&cluster, &topic, &moody).await;
    settled(&cluster, &topic, [2, 1]).await;
    container.stop().await;

    let (told, mut heard) = mpsc::unbounded_channel::<DeadLetter>();
    let name: &'static str = topic.clone().leak();
    let app = App::new(cluster.config())
        .named(format!("on-call-{topic}"))
        .state(told)
        .listener(Listener::on_dead_letters(name).handle(tell))
        .start()
        .await
        .unwrap();
    let mut reasons = Vec::new();
    while reasons.len() < 2 {
        let letter = tokio::time::timeout(PATIENCE, heard.recv()).await;
        let letter = letter.unwrap().unwrap();
        assert_eq!(letter.group(), Some(&*format!("g-{topic}")));
        assert_eq!(letter.attempts(), Some(1));
        reasons.push((
            letter.class(),
            letter.reason().unwrap_or_default().to_owned(),
        ));
    }
    reasons.sort_by(|a, b| a.1.cmp(&b.1));
    assert_eq!(
        reasons,
        [
            (Some(Class::Transient), "database is locked".to_owned()),
            (Some(Class::Permanent), "no such product".to_owned()),
        ]
    );
    let parked = tokio::task::block_in_place(|| cluster.read(&format!("{topic}.parked"), 1));
    let reason = header(&parked[0], "failure.reason").concat();
    assert!(reason.contains("the ticket system says no"), "{reason}");
    assert!(reason.contains("no such product"), "{reason}");
    assert_eq!(header(&parked[0], "original.topic"), [topic.as_str()]);
    app.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_could_not_be_sent_is_told_and_stays_to_be_replayed() {
    let cluster = Cluster::start().await;
    let topic = cluster.topic(2).await;
    let letters = format!("{topic}.DLQ");
    // One that says it came from a topic that is gone, and one of nowhere.
    let producer = Producer::new(&cluster.config()).unwrap();
    send(&cluster, &topic, &["wrong"]).await;
    let (moody, _heard) = Moody::new();
    let mut spec = cluster.listener(&topic, moody.handler());
    spec.dead_letters = DeadLetters::To(parked());
    let container = run(spec).await;
    settled(&cluster, &topic, [1, 0]).await;
    container.stop().await;
    let parking = format!("{topic}.parked");
    let queue = DeadLetterQueue::new(&cluster.config(), parking.as_str());
    let mut headers = Headers::new();
    for (name, value) in [
        ("original.topic", format!("gone-{letters}")),
        ("original.partition", "0".to_owned()),
        ("original.offset", "1".to_owned()),
        ("failure.class", "permanent".to_owned()),
    ] {
        headers.push(name, value);
    }
    let gone = OutgoingRecord::to(parking).partition(1).headers(headers);
    producer.send_record(gone).await.unwrap();

    let replay = Replay::of(Filter::all(), "ada");
    let report = queue.replay(replay.clone(), |_| ()).await.unwrap();
    assert_eq!((report.matched, report.replayed, report.failed), (2, 1, 1));
    let (position, why) = &report.failures[0];
    assert_eq!(*position, at("1:0"));
    assert!(why.contains("does not exist"), "{why}");
    let report = queue.replay(replay, |_| ()).await.unwrap();
    assert_eq!((report.left, report.replayed, report.failed), (1, 0, 1));
}
