//! Clusters that are silent: a partition's leader, all brokers, or where dead letters go.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod container_support;
#[allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    reason = "shared with other tests, of which each uses its part"
)]
#[path = "../../sql/tests/processes/proxy.rs"]
mod proxy;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use ackwell::container::{Notice, Observation, Observer};
use ackwell::{App, Config, Failure, Listener, TopicDeclaration};
use container_support::{Cluster, Log, logged, run};
use futures_util::FutureExt;
use kafka_protocol::messages::ApiKey;
use proxy::{Fate, Proxy};
use tokio::sync::{mpsc, watch};

/// Longer than anything here takes on a busy machine; a test that waits for it has failed.
const LIMIT: Duration = Duration::from_secs(120);

async fn within<F: Future>(what: &str, future: F) -> F::Output {
    let awaited = tokio::time::timeout(LIMIT, future).await;
    awaited.unwrap_or_else(|_| panic!("waited too long for {what}"))
}

/// What a container says of its health.
struct Health(watch::Sender<Option<String>>);

impl Health {
    async fn until(&self, what: &str, wanted: impl FnMut(&Option<String>) -> bool) {
        let mut health = self.0.subscribe();
        let waited = tokio::time::timeout(LIMIT, health.wait_for(wanted)).await;
        let said = || self.0.borrow().clone();
        assert!(waited.is_ok(), "waited for {what}; it says {:?}", said());
    }
}

impl Observer for Health {
    fn observe(&self, observation: &Observation<'_>) {
        if let Observation::Health { problem } = observation {
            self.0.send_replace(problem.map(str::to_owned));
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_does_not_answer_is_told_although_the_coordinator_does() {
    let cluster = Cluster::start().await;
    let topic = cluster.topic(1).await;
    cluster.send(&topic, 0, &[("k", "before")]).await;
    let proxy = Proxy::start(cluster.bootstrap()).await;
    let log = Arc::new(Log::default());
    let health = Arc::new(Health(watch::Sender::new(None)));
    let mut spec = cluster.listener(&topic, logged(&log, |_| async { Ok(()) }.boxed()));
    spec.consumer
        .set("bootstrap.servers", proxy.address())
        .set("statistics.interval.ms", "500");
    spec.observer = Arc::clone(&health) as Arc<dyn Observer>;
    let container = run(spec).await;
    log.wait_for(1).await;

    // What the coordinator is asked goes by another connection.
    let fetches = proxy.on(ApiKey::Fetch, 1, &[Fate::HoldRequest]);
    fetches.met(1).await;
    cluster.send(&topic, 0, &[("k", "meanwhile")]).await;
    let leads = format!("leads {topic}-0");
    let told = |problem: &Option<String>| problem.as_ref().is_some_and(|it| it.contains(&leads));
    health.until("the leader", told).await;
    assert_eq!(log.values(), ["before"]);

    fetches.release();
    log.wait_for(2).await;
    health.until("nothing to be wrong", Option::is_none).await;
    container.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_listener_notices_that_no_broker_answers_and_that_one_does_again() {
    let cluster = Cluster::start().await;
    let topic = cluster.topic(1).await;
    cluster.send(&topic, 0, &[("k", "before")]).await;
    let proxy = Proxy::start(cluster.bootstrap()).await;
    let log = Arc::new(Log::default());
    let mut spec = cluster.listener(&topic, logged(&log, |_| async { Ok(()) }.boxed()));
    spec.consumer
        .set("bootstrap.servers", proxy.address())
        .set("statistics.interval.ms", "500");
    spec.notices.non_responsive_after = Duration::from_secs(4);
    let (notices, mut noticed) = mpsc::unbounded_channel();
    spec.notices.listener = Some(Arc::new(move |notice: &Notice| {
        let _ = notices.send(notice.clone());
    }));
    let container = run(spec).await;
    log.wait_for(1).await;

    let silence = proxy.on_any(1, &[Fate::HoldRequest]);
    within("the silence", async {
        while let Some(notice) = noticed.recv().await {
            if let Notice::NonResponsive { reason } = notice {
                assert!(reason.contains("check that the brokers run"), "{reason}");
                return;
            }
        }
    })
    .await;
    silence.release();
    within("its end", async {
        while noticed.recv().await != Some(Notice::Responsive) {}
    })
    .await;
    container.stop().await;
}

async fn refuse() -> Result<(), Failure> {
    Err(Failure::permanent("no such product"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_letter_that_is_not_taken_is_told_although_producers_never_give_up() {
    let cluster = Cluster::start().await;
    let topic = cluster.topic(1).await;
    let proxy = Proxy::start(cluster.bootstrap()).await;
    let writes = proxy.on(ApiKey::Produce, 1, &[Fate::HoldRequest]);
    let mut config = Config::with_bootstrap_servers(proxy.address());
    config.producer.delivery_timeout = Duration::ZERO;
    let listener = Listener::on(TopicDeclaration::named(topic.clone()))
        .group(format!("g-{topic}"))
        .handle(refuse);
    let app = App::new(config).listener(listener);
    let app = within("the start", app.start()).await.unwrap();
    cluster.send(&topic, 0, &[("k", "wrong")]).await;
    let written = format!("writing to {topic}.DLQ");
    let told = |health: &ackwell::observe::Health| {
        let components = health.components();
        let mut reasons = components.iter().filter_map(|it| it.status.reason());
        reasons.any(|reason| reason.contains(&written))
    };
    within("health to tell", app.health().until(told)).await;
    writes.release();
    within("the dead letter", app.health().until_ready()).await;
    within("the stop", app.stop()).await.unwrap();
}
