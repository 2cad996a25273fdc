//! Batch handlers on a broker: what becomes of a list in which something fails, is asked back, or
//! that waits for company.
#![allow(clippy::expect_used, reason = "helpers of tests")]

mod container_support;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use ackwell::batch::Batch;
use ackwell::extract::{Attempt, State, Text};
use ackwell::listener::ListenerBuilder;
use ackwell::retry::{fixed, topics};
use ackwell::{App, BatchError, Failure, Listener, RunningApp};
use container_support::{Cluster, header};
use rdkafka::Message;
use tokio::sync::Notify;

const MS: Duration = Duration::from_millis(1);
const PATIENCE: Duration = Duration::from_secs(40);

/// The lists that a handler was given, with the attempt of their first record.
#[derive(Default)]
struct Lists {
    seen: Mutex<Vec<(u32, Vec<String>)>>,
    changed: Notify,
}

type Seen = Arc<Lists>;

impl Lists {
    fn push(&self, attempt: u32, texts: &[Text]) {
        let texts = texts.iter().map(|Text(text)| text.clone()).collect();
        self.seen.lock().expect("lists").push((attempt, texts));
        self.changed.notify_waiters();
    }

    fn all(&self) -> Vec<(u32, Vec<String>)> {
        self.seen.lock().expect("lists").clone()
    }

    /// How often each record was in a list.
    fn times(&self) -> BTreeMap<String, usize> {
        let mut times = BTreeMap::new();
        for text in self.all().into_iter().flat_map(|(_, texts)| texts) {
            *times.entry(text).or_default() += 1;
        }
        times
    }

    async fn wait_until(&self, condition: impl Fn(&[(u32, Vec<String>)]) -> bool) {
        let met = async {
            loop {
                let changed = self.changed.notified();
                tokio::pin!(changed);
                changed.as_mut().enable();
                if condition(&self.all()) {
                    return;
                }
                changed.await;
            }
        };
        let met = tokio::time::timeout(PATIENCE, met).await;
        assert!(met.is_ok(), "lists were {:?}", self.all());
    }

    async fn holds(&self, count: usize) {
        let held = |lists: &[(u32, Vec<String>)]| lists.iter().map(|(_, list)| list.len()).sum();
        self.wait_until(|lists| {
            let held: usize = held(lists);
            held >= count
        })
        .await;
    }
}

/// An outcome for each record: `bad` ones fail in their first two attempts, `poison` always.
async fn each(
    Batch(texts): Batch<Text>,
    Attempt(attempt): Attempt,
    State(seen): State<Seen>,
) -> Vec<Result<(), Failure>> {
    seen.push(attempt, &texts);
    let outcome = |(place, Text(text)): (usize, &Text)| {
        let attempt = if place == 0 { attempt } else { 1 };
        match text {
            text if text.starts_with("poison") => Err(Failure::permanent("poison")),
            text if text.starts_with("bad") && attempt <= 2 => Err(Failure::transient("not yet")),
            _ => Ok(()),
        }
    };
    texts.iter().enumerate().map(outcome).collect()
}

fn values(count: usize, odd: &[(usize, &str)]) -> Vec<String> {
    let value = |number: usize| {
        let odd = odd.iter().find(|(at, _)| *at == number);
        odd.map_or_else(|| format!("{number:03}"), |(_, value)| (*value).to_owned())
    };
    (0..count).map(value).collect()
}

async fn send(cluster: &Cluster, topic: &str, values: &[String]) {
    let records: Vec<_> = values.iter().map(|value| ("k", value.as_str())).collect();
    cluster.send(topic, 0, &records).await;
}

/// Starts an app named `g-<topic>`, so that its group is the one that the cluster asks for.
async fn start(cluster: &Cluster, topic: &str, seen: &Seen, listener: Listener) -> RunningApp {
    let app = App::new(cluster.config())
        .named(format!("g-{topic}"))
        .state(Arc::clone(seen))
        .listener(listener);
    app.start().await.expect("the app starts")
}

fn on(topic: &str) -> ListenerBuilder {
    Listener::on(ackwell::TopicDeclaration::named(topic.to_owned()))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_record_of_a_list_is_retried_alone_and_its_neighbours_are_settled_once() {
    let cluster = Cluster::start().await;
    let (topic, seen) = (cluster.topic(1).await, Seen::default());
    send(&cluster, &topic, &values(20, &[(7, "bad")])).await;
    let listener = on(&topic).retry(fixed(20 * MS)).handle_batch(each);
    let app = start(&cluster, &topic, &seen, listener).await;
    cluster.reaches(&topic, 0, 20).await;
    app.stop().await.expect("it stops");
    let times = seen.times();
    assert_eq!(times.len(), 20);
    assert_eq!(times["bad"], 3);
    assert!(
        times
            .iter()
            .all(|(text, times)| text == "bad" || *times == 1),
        "{times:?}"
    );
    let retries: Vec<_> = seen
        .all()
        .into_iter()
        .filter(|(attempt, _)| *attempt > 1)
        .collect();
    let alone = vec!["bad".to_owned()];
    assert_eq!(retries, [(2, alone.clone()), (3, alone)]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_record_of_a_list_waits_on_a_retry_topic_and_the_position_goes_on() {
    let cluster = Cluster::start().await;
    let (topic, seen) = (cluster.topic(1).await, Seen::default());
    send(&cluster, &topic, &values(20, &[(7, "bad")])).await;
    let listener = on(&topic)
        .retry(topics([500 * MS, 1_000 * MS]))
        .handle_batch(each);
    let app = start(&cluster, &topic, &seen, listener).await;
    cluster.reaches(&topic, 0, 20).await;
    seen.wait_until(|lists| lists.iter().any(|(attempt, _)| *attempt == 3))
        .await;
    app.stop().await.expect("it stops");
    let times = seen.times();
    assert_eq!((times.len(), times["bad"]), (20, 3));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn poison_in_a_list_is_dead_lettered_alone_whatever_the_handler_says() {
    async fn whole(
        Batch(texts): Batch<Text>,
        Attempt(attempt): Attempt,
        State(seen): State<Seen>,
    ) -> Result<(), Failure> {
        seen.push(attempt, &texts);
        let poison = |Text(text): &Text| text.starts_with("poison");
        match texts.iter().any(poison) {
            true => Err(Failure::permanent("something in it")),
            false => Ok(()),
        }
    }
    async fn first(
        Batch(texts): Batch<Text>,
        Attempt(attempt): Attempt,
        State(seen): State<Seen>,
    ) -> Result<(), BatchError> {
        seen.push(attempt, &texts);
        let poison = |Text(text): &Text| text.starts_with("poison");
        match texts.iter().position(poison) {
            Some(at) => Err(BatchError::at(at, Failure::permanent("this one"))),
            None => Ok(()),
        }
    }
    let cluster = Cluster::start().await;
    let poison = [
        (0, "poison 0"),
        (7, "poison 7"),
        (8, "poison 8"),
        (19, "poison 19"),
    ];
    for way in ["each", "whole", "first"] {
        let (topic, seen) = (cluster.topic(1).await, Seen::default());
        send(&cluster, &topic, &values(20, &poison)).await;
        let listener = match way {
            "each" => on(&topic).handle_batch(each),
            "whole" => on(&topic).handle_batch(whole),
            _ => on(&topic).handle_batch(first),
        };
        let app = start(&cluster, &topic, &seen, listener).await;
        cluster.reaches(&topic, 0, 20).await;
        app.stop().await.expect("it stops");
        let letters = format!("{topic}.DLQ");
        let letters = tokio::task::block_in_place(|| cluster.read(&letters, 4));
        let texts = letters
            .iter()
            .map(|letter| letter.payload().expect("a value"));
        let texts: Vec<_> = texts.map(String::from_utf8_lossy).collect();
        assert_eq!(texts, poison.map(|(_, text)| text), "{way}");
        assert_eq!(header(&letters[1], "original.offset"), ["7"], "{way}");
        assert_eq!(seen.times().len(), 20, "{way}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_list_that_is_in_work_when_the_listener_stops_is_finished_and_committed() {
    async fn slowly(Batch(texts): Batch<Text>, State(seen): State<Seen>) {
        seen.push(1, &texts);
        tokio::time::sleep(700 * MS).await;
    }
    let cluster = Cluster::start().await;
    let (topic, seen) = (cluster.topic(1).await, Seen::default());
    send(&cluster, &topic, &values(10, &[])).await;
    let listener = on(&topic).run_limit(5).handle_batch(slowly);
    let app = start(&cluster, &topic, &seen, listener).await;
    seen.holds(1).await;
    app.stop().await.expect("it stops");
    let lists = seen.all();
    let handled: usize = lists.iter().map(|(_, list)| list.len()).sum();
    cluster.reaches(&topic, 0, handled as i64).await;
    assert!(
        handled < 10,
        "nothing is begun behind the list in work: {lists:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_that_trickle_in_wait_for_company_and_no_longer_than_they_may() {
    async fn list(Batch(texts): Batch<Text>, State(seen): State<Seen>) {
        seen.push(1, &texts);
    }
    let cluster = Cluster::start().await;
    let (topic, seen) = (cluster.topic(1).await, Seen::default());
    let wait = Duration::from_secs(3);
    let listener = on(&topic).run_limit(10).batch_wait(wait).handle_batch(list);
    let app = start(&cluster, &topic, &seen, listener).await;
    app.ready().await.expect("it is ready");
    let began = Instant::now();
    for value in values(10, &[]) {
        send(&cluster, &topic, &[value]).await;
    }
    let full = began.elapsed();
    seen.holds(10).await;
    // Each in a poll of its own; a full list does not wait. Only a machine that is very slow has
    // the wait end before the last of them.
    if full < wait / 2 {
        assert_eq!(seen.all().len(), 1, "{:?}", seen.all());
    }
    let alone = Instant::now();
    send(&cluster, &topic, &["alone".to_owned()]).await;
    seen.holds(11).await;
    assert!(
        alone.elapsed() >= wait - 10 * MS,
        "it waits: {:?}",
        alone.elapsed()
    );
    cluster.reaches(&topic, 0, 11).await;
    app.stop().await.expect("it stops");
}
