//! The running broker: what holds store, coordinator and server together.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use prometheus_client::collector::Collector;
use ring::rand::{SecureRandom, SystemRandom};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::access::Judge;
use crate::api::{Node, now_ms};
use crate::error::Kind;
use crate::group::{self, Coordinator};
use crate::log::Cleaner;
use crate::metrics::{Counters, Metrics};
use crate::sasl::Users;
use crate::server::{Door, Memory, Server};
use crate::store::{Store, StoreConfig};
use crate::transaction;
use crate::{Config, Error, RecoveryReport};

/// Files of segments that responses on their way hold open: with those of the logs and the connections, fewer than
/// the 1,024 that a process may open on most systems. Records of others go through memory.
const SENT_FILES_MAX: usize = 128;

/// A running broker. [`Broker::shutdown`] stops it cleanly; dropping it stops serving at once, as a
/// crash would: nothing acknowledged is lost, and the next start checks the log's end.
#[derive(Debug)]
pub struct Broker {
    node: Arc<Node>,
    /// By the names of the listeners, in the order of the settings.
    addresses: Vec<(String, SocketAddr)>,
    recovery: RecoveryReport,
    server: Option<Server>,
    retention: Option<JoinHandle<()>>,
    cleaner: Option<Cleaner>,
}

impl Broker {
    /// Takes the address, opens the data folder, recovers what a crash left, and serves.
    ///
    /// Must be called within a tokio runtime, which then carries the broker's tasks.
    ///
    /// # Errors
    /// When the folder is used by another broker ([`Error::is_folder_in_use`]) or cannot be read,
    /// when an address is used by another process ([`Error::is_address_in_use`]), or when a
    /// setting or a file of TLS cannot work ([`Error::is_config`]).
    ///
    /// # Cancel safety
    /// Not cancel safe: a cancelled start may hold the folder until its recovery has ended.
    pub async fn start(config: Config) -> Result<Self, Error> {
        config.check_bounds()?;
        let coordinator = group::Config::new(&config.groups)?;
        let transactions = transaction::Config::new(&config.transactions)?;
        // Before the folder: a second broker by mistake then fails without touching anything.
        let doors = bind(&config).await?;
        let addresses: Vec<_> = doors
            .iter()
            .map(|door| (door.name().to_owned(), door.local_addr))
            .collect();
        let judge = Judge::new(&config.access);
        let users = Arc::new(Users::new(&config.users, secret()?));
        let (store, recovery) = open(&config).await?;
        report(&recovery);
        let groups = Coordinator::open(coordinator, Arc::clone(&store)).await?;
        let transactions =
            transaction::Coordinator::open(transactions, Arc::clone(&store), groups.clone())
                .await?;

        let cleaner = start_cleaner(&config, &store)?;
        let limits = &config.limits;
        let memory = Memory::new(limits.memory_max, limits.memory_wait_max);
        let watches = limits.waiting_partitions_max.min(Semaphore::MAX_PERMITS);
        let node = Arc::new(Node {
            config,
            store,
            groups,
            transactions,
            users,
            judge,
            counters: Counters::default(),
            memory: Arc::new(memory),
            watches: Arc::new(Semaphore::new(watches)),
            files: Arc::new(Semaphore::new(SENT_FILES_MAX)),
            stopping: CancellationToken::new(),
        });
        let server = Server::start(&node, doors);
        let retention = tokio::spawn(retain(Arc::clone(&node)));
        for (listener, address) in &addresses {
            tracing::info!(%listener, %address, "broker ready");
        }
        Ok(Self {
            node,
            addresses,
            recovery,
            server: Some(server),
            retention: Some(retention),
            cleaner: Some(cleaner),
        })
    }

    /// The address bound by the first listener; with port 0 in the settings, the port that was
    /// picked.
    pub fn local_addr(&self) -> SocketAddr {
        let unbound = SocketAddr::from(([0, 0, 0, 0], 0));
        self.addresses
            .first()
            .map_or(unbound, |(_, address)| *address)
    }

    /// The names of all listeners and the addresses bound, in the order of the settings.
    pub fn addresses(&self) -> impl Iterator<Item = (&str, SocketAddr)> {
        let addresses = self.addresses.iter();
        addresses.map(|(name, address)| (name.as_str(), *address))
    }

    /// What opening the data folder found.
    pub fn recovery(&self) -> &RecoveryReport {
        &self.recovery
    }

    /// What the broker counts, to be registered with a `prometheus_client` registry: requests by API,
    /// bytes, connections and refusals, memory in use, topics, partitions, log sizes, compaction.
    /// Names begin with `ackwell_broker_`. Gives nothing once the broker is gone.
    pub fn metrics(&self) -> Box<dyn Collector> {
        Box::new(Metrics(Arc::downgrade(&self.node)))
    }

    /// Which partitions take no more records because forcing theirs to the disk failed, a sentence each
    /// with the cause; empty when all is well. They can be read, and take records again after a
    /// restart, which finds out what is on the disk.
    ///
    /// Looks at every partition: meant to be asked every second or less often, for health.
    pub fn read_only(&self) -> Vec<String> {
        let topics = self.node.store.topics();
        let partitions = topics.iter().flat_map(|topic| topic.partitions().to_vec());
        partitions
            .filter_map(|partition| Some(partition.read_only()?.to_string()))
            .collect()
    }

    /// Stops accepting, lets requests in flight finish within their limit, writes everything to
    /// disk and marks the folder as cleanly closed.
    ///
    /// # Errors
    /// When the last flush fails.
    ///
    /// # Cancel safety
    /// A cancelled shutdown leaves what a crash leaves; the next start recovers it.
    pub async fn shutdown(mut self) -> Result<(), Error> {
        self.node.stopping.cancel();
        // First: what ends of transactions it has begun to write goes through the groups.
        self.node.transactions.shutdown().await;
        self.node.groups.shutdown().await;
        if let Some(server) = self.server.take() {
            server.drain(self.node.config.limits.drain_max).await;
        }
        if let Some(retention) = self.retention.take() {
            // A panic in it was logged by the runtime, and closing matters more.
            let _ = retention.await;
        }
        let store = Arc::clone(&self.node.store);
        let cleaner = self.cleaner.take();
        off_the_runtime(move || {
            if let Some(cleaner) = cleaner {
                cleaner.stop();
            }
            store.close()
        })
        .await?;
        tracing::info!("broker stopped");
        Ok(())
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        self.node.stopping.cancel();
    }
}

async fn bind(config: &Config) -> Result<Vec<Door>, Error> {
    let mut doors = Vec::new();
    for listener in config.effective_listeners()? {
        let door = Door::bind(&listener).await?;
        if let Some(warning) = crate::config::warning(&listener, door.local_addr) {
            tracing::warn!(listener = %listener.name, address = %door.local_addr, "{warning}");
        }
        doors.push(door);
    }
    Ok(doors)
}

/// Bytes that nobody can guess.
fn secret() -> Result<[u8; 32], Error> {
    let mut secret = [0; 32];
    SystemRandom::new()
        .fill(&mut secret)
        .map_err(|_unspecified| {
            let what = "the operating system gave no random bytes, which logging in needs";
            Error::new(Kind::Io, what)
        })?;
    Ok(secret)
}

async fn open(config: &Config) -> Result<(Arc<Store>, RecoveryReport), Error> {
    let store = StoreConfig {
        data_dir: config.folder.clone(),
        flush: config.flush,
        topic_defaults: topic_defaults(config),
    };
    off_the_runtime(move || Store::open(&store)).await
}

/// The broker's settings that a topic falls back on, by Kafka's topic-level names.
fn topic_defaults(config: &Config) -> BTreeMap<String, String> {
    let retention = config
        .retention
        .map_or_else(|| "-1".to_owned(), |kept| kept.as_millis().to_string());
    let retention_bytes = config
        .retention_bytes
        .map_or_else(|| "-1".to_owned(), |kept| kept.to_string());
    BTreeMap::from([
        ("retention.ms".to_owned(), retention),
        ("retention.bytes".to_owned(), retention_bytes),
        ("segment.bytes".to_owned(), config.segment_bytes.to_string()),
    ])
}

fn start_cleaner(config: &Config, store: &Arc<Store>) -> Result<Cleaner, Error> {
    // A broker that is dropped must not be kept alive by its cleaner.
    let store = Arc::downgrade(store);
    Cleaner::start(config.cleaning.clone(), move |pace| {
        if let Some(store) = store.upgrade() {
            store.clean(now_ms(), pace);
        }
    })
}

fn report(recovery: &RecoveryReport) {
    tracing::info!(
        topics = recovery.topics,
        partitions = recovery.partitions,
        checked_bytes = recovery.checked_bytes,
        took_ms = recovery.took.as_millis(),
        "{}",
        in_words(recovery)
    );
    for path in &recovery.foreign {
        tracing::warn!(path = %path.display(), "it is not the broker's, or of no topic: left alone");
    }
    for loss in &recovery.losses {
        tracing::warn!(
            topic = %loss.topic,
            partition = loss.partition,
            cut_bytes = loss.cut_bytes,
            missing_from = loss.missing_offsets.map(|(from, _)| from),
            missing_to = loss.missing_offsets.map(|(_, to)| to),
            "the log's end was cut"
        );
    }
}

/// For instance "recovered 12 partitions of 3 topics, 2 torn tails cut (831 bytes)".
fn in_words(recovery: &RecoveryReport) -> String {
    let counted = |count: usize, one: &str, many: &str| match count {
        1 => format!("1 {one}"),
        _ => format!("{count} {many}"),
    };
    let mut words = format!(
        "recovered {} of {}",
        counted(recovery.partitions, "partition", "partitions"),
        counted(recovery.topics, "topic", "topics"),
    );
    if !recovery.losses.is_empty() {
        let bytes: u64 = recovery.losses.iter().map(|loss| loss.cut_bytes).sum();
        let tails = counted(recovery.losses.len(), "torn tail", "torn tails");
        words.push_str(&format!(", {tails} cut ({bytes} bytes)"));
    }
    words
}

async fn retain(node: Arc<Node>) {
    let mut due = tokio::time::interval(node.config.retention_check);
    due.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = node.stopping.cancelled() => return,
            _ = due.tick() => {}
        }
        let store = Arc::clone(&node.store);
        let ran = tokio::task::spawn_blocking(move || store.retain(now_ms())).await;
        if ran.is_err() {
            tracing::error!("retention panicked; this is a bug in the broker");
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }
}

async fn off_the_runtime<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|failed| {
            Err(Error::new(Kind::Closed, "working on the data folder").caused_by(failed))
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_partition_that_only_reads_after_an_error_of_the_disk_is_told_with_its_cause() {
        let folder = tempfile::tempdir().unwrap();
        let mut config = Config::new(folder.path());
        config.listen = "127.0.0.1:0".to_owned();
        let broker = Broker::start(config).await.unwrap();
        let created = broker.node.store.create_topic("orders", 2, BTreeMap::new());
        let partition = created.unwrap().partition(1).unwrap();
        assert_eq!(broker.read_only(), Vec::<String>::new());
        let cause = std::io::Error::other("no answer");
        partition.fail(&Error::io("flushing", cause));
        let told = broker.read_only();
        assert_eq!(told.len(), 1, "{told:?}");
        assert!(told[0].starts_with("orders-1 only reads until the broker is restarted"));
        assert!(told[0].contains("no answer"), "{told:?}");
        drop(broker);
    }
}
