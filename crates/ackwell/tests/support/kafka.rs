//! A broker for one test: the embedded one, or the one that `KAFKA_BOOTSTRAP_SERVERS` names.
//!
//! Services name their topics and groups by constants, so tests of whole services can't make up
//! names of their own. On a broker from outside each such test begins by deleting the topics and
//! groups of the one before, and they run one at a time. This is done to clusters of
//! `scripts/kafka.sh` only, which are known by their id.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]
#![allow(dead_code, reason = "each test binary uses its part")]

#[path = "topic.rs"]
mod topic;

use std::future::Future;
use std::time::Duration;

use ackwell::Config;
use ackwell_broker::Broker;
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::error::RDKafkaErrorCode;
use tempfile::TempDir;
use tokio::sync::{Mutex, MutexGuard};

/// Longer than anything here takes on a busy machine; a test that waits for it has failed.
pub(crate) const LIMIT: Duration = Duration::from_secs(60);

/// How long a cluster may take to forget what the test before has left: sessions must end.
const EMPTIED: Duration = Duration::from_secs(180);

/// How long one answer of a broker is awaited.
const ANSWER: Duration = Duration::from_secs(10);

/// How the ids of clusters begin that `scripts/kafka.sh` starts.
const DISPOSABLE: &str = "AckwellTests";

static ALONE: Mutex<()> = Mutex::const_new(());

pub(crate) struct Kafka {
    pub(crate) broker: Option<Broker>,
    pub(crate) address: String,
    folder: Option<TempDir>,
    _alone: Option<MutexGuard<'static, ()>>,
}

impl Kafka {
    /// An empty broker.
    pub(crate) async fn start() -> Self {
        let Ok(address) = std::env::var("KAFKA_BOOTSTRAP_SERVERS") else {
            return Self::own().await;
        };
        let alone = ALONE.lock().await;
        let in_time = tokio::time::timeout(EMPTIED, emptied(&address)).await;
        assert!(
            in_time.is_ok(),
            "waited too long for the broker to be emptied"
        );
        Self {
            broker: None,
            address,
            folder: None,
            _alone: Some(alone),
        }
    }

    /// An embedded broker, for tests that stop it.
    pub(crate) async fn own() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let broker = broker(&folder, "127.0.0.1:0").await;
        let address = broker.local_addr().to_string();
        Self {
            broker: Some(broker),
            address,
            folder: Some(folder),
            _alone: None,
        }
    }

    /// A broker of one's own that is not up yet, on an address that it will take.
    pub(crate) async fn absent() -> Self {
        let mut kafka = Self::own().await;
        kafka.stop().await;
        kafka
    }

    pub(crate) async fn stop(&mut self) {
        assert!(
            self.folder.is_some(),
            "only a broker of one's own is stopped"
        );
        if let Some(broker) = self.broker.take() {
            broker.shutdown().await.unwrap();
        }
    }

    pub(crate) async fn restart(&mut self) {
        self.stop().await;
        let folder = self.folder.as_ref().unwrap();
        self.broker = Some(broker(folder, &self.address).await);
    }

    /// The groups with their states, members and assignments, for a test that failed.
    pub(crate) fn groups(&self) -> Vec<String> {
        let admin = admin(&self.address);
        let listed = admin.inner().fetch_group_list(None, ANSWER);
        let Ok(listed) = listed else {
            return vec![format!("{:?}", listed.err())];
        };
        let told = listed.groups().iter().map(|group| {
            let members = group.members().iter();
            let members: Vec<_> = members.map(|it| (it.id(), it.client_id())).collect();
            format!("{} {} {members:?}", group.name(), group.state())
        });
        told.collect()
    }

    pub(crate) fn config(&self) -> Config {
        Config::with_bootstrap_servers(self.address.clone())
    }

    pub(crate) async fn create_topic(&self, name: &str, partitions: i32) {
        let topic = NewTopic::new(name, partitions, TopicReplication::Fixed(-1));
        // The answer comes to the client, which must live until then.
        let admin = admin(&self.address);
        topic::create(&admin, &topic).await;
    }
}

async fn broker(folder: &TempDir, listen: &str) -> Broker {
    let mut config = ackwell_broker::Config::new(folder.path());
    config.listen = listen.to_owned();
    Broker::start(config).await.unwrap()
}

fn admin(servers: &str) -> AdminClient<DefaultClientContext> {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", servers);
    config.create().unwrap()
}

/// Deletes all topics and groups of a cluster that is meant for it.
async fn emptied(servers: &str) {
    let admin = admin(servers);
    let cluster = tokio::task::block_in_place(|| admin.inner().fetch_cluster_id(ANSWER));
    assert!(
        cluster
            .as_deref()
            .is_some_and(|id| id.starts_with(DISPOSABLE)),
        "this test deletes all topics and groups of {servers}, whose cluster id is {cluster:?}; \
         it does so only to a cluster that scripts/kafka.sh started",
    );
    while !groups_deleted(&admin).await || !topics_deleted(&admin).await {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// A group whose members have not gone yet is deleted at a later try.
async fn groups_deleted(admin: &AdminClient<DefaultClientContext>) -> bool {
    let listed = tokio::task::block_in_place(|| admin.inner().fetch_group_list(None, ANSWER));
    let Ok(listed) = listed else { return false };
    let groups: Vec<_> = listed.groups().iter().map(|group| group.name()).collect();
    if groups.is_empty() {
        return true;
    }
    let deleted = admin.delete_groups(&groups, &AdminOptions::new()).await;
    deleted.unwrap().iter().all(|deleted| {
        let gone = matches!(deleted, Err((_, RDKafkaErrorCode::GroupIdNotFound)));
        deleted.is_ok() || gone
    })
}

async fn topics_deleted(admin: &AdminClient<DefaultClientContext>) -> bool {
    let metadata = tokio::task::block_in_place(|| admin.inner().fetch_metadata(None, ANSWER));
    let Ok(metadata) = metadata else { return false };
    let topics = metadata.topics().iter().map(|topic| topic.name());
    let topics: Vec<_> = topics.filter(|name| !name.starts_with("__")).collect();
    if topics.is_empty() {
        return true;
    }
    let asked = admin.delete_topics(&topics, &AdminOptions::new()).await;
    asked.unwrap();
    false
}

/// Awaits `future`, and names what was waited for if it takes too long.
pub(crate) async fn within<F: Future>(what: &str, future: F) -> F::Output {
    match tokio::time::timeout(LIMIT, future).await {
        Ok(output) => output,
        Err(_) => panic!("waited too long for {what}"),
    }
}
