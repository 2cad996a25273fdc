//! A coordinator's tasks, one for each partition of its topic.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::shard::{Call, Origin, Shard};
use super::{Host, RequestOf, ResponseOf};
use crate::Error;
use crate::error::Kind;
use crate::store::{Store, Topic};

/// The running shards of a coordinator. Cheap to clone; dropping all clones ends the tasks.
#[derive(Debug)]
pub(crate) struct Shards<H: Host> {
    inner: Arc<Inner<H>>,
}

#[derive(Debug)]
struct Inner<H: Host> {
    queues: Vec<mpsc::Sender<Call<H>>>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl<H: Host> Clone for Shards<H> {
    fn clone(&self) -> Self {
        Self {
            inner: Arc::clone(&self.inner),
        }
    }
}

impl<H: Host> Shards<H> {
    /// Creates `topic` with `partitions` if it is missing, reads it back and starts its tasks.
    ///
    /// # Errors
    /// When the topic cannot be created or read.
    pub(crate) async fn open(
        host: H,
        store: Arc<Store>,
        topic: &'static str,
        partitions: i32,
    ) -> Result<Self, Error> {
        let queue_max = host.queue_max();
        let loaded = tokio::task::spawn_blocking(move || load(&host, &store, topic, partitions))
            .await
            .map_err(|panic| {
                Error::new(Kind::Closed, format!("reading {topic} back")).caused_by(panic)
            })??;
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        let mut queues = Vec::with_capacity(loaded.len());
        for shard in loaded {
            let (sender, queue) = mpsc::channel(queue_max);
            queues.push(sender);
            tasks.spawn(shard.run(queue, stop.clone()));
        }
        Ok(Self {
            inner: Arc::new(Inner {
                queues,
                tasks,
                stop,
            }),
        })
    }

    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        self.inner.queues.len()
    }

    /// Asks the shard that has `key`; `None` when it cannot answer.
    pub(crate) async fn call(&self, key: &str, request: RequestOf<H>) -> Option<ResponseOf<H>> {
        self.call_shard(shard_of(key, self.count()), request).await
    }

    /// Asks one shard; `None` when it cannot answer.
    pub(crate) async fn call_shard(
        &self,
        shard: usize,
        request: RequestOf<H>,
    ) -> Option<ResponseOf<H>> {
        let (reply, response) = oneshot::channel();
        self.inner
            .queues
            .get(shard)?
            .send(Call { request, reply })
            .await
            .ok()?;
        response.await.ok()
    }

    /// Carries out what was asked so far, leaves unanswered whoever waits for others, and ends the
    /// tasks.
    pub(crate) async fn shutdown(&self) {
        self.inner.stop.cancel();
        self.inner.tasks.close();
        self.inner.tasks.wait().await;
    }
}

fn load<H: Host>(
    host: &H,
    store: &Store,
    name: &str,
    partitions: i32,
) -> Result<Vec<Shard<H>>, Error> {
    let topic = match store.topic(name) {
        Some(topic) => topic,
        None => create(store, name, partitions)?,
    };
    let started = Instant::now();
    let load = |index| {
        let partition = topic.partition(index).ok_or_else(|| {
            Error::new(
                Kind::Corrupt,
                format!("partition {index} of {name} is missing"),
            )
        })?;
        let origin = Origin {
            host: host.clone(),
            partition,
            started,
        };
        let shard = origin.load()?;
        shard.tell_replayed();
        Ok(shard)
    };
    (0..topic.partition_count()).map(load).collect()
}

/// The topic's settings: never by retention, which would forget what is in use; a record as large
/// as a full group; and segments small enough that what a snapshot has replaced is freed.
fn create(store: &Store, name: &str, partitions: i32) -> Result<Arc<Topic>, Error> {
    let settings = [
        ("cleanup.policy", "compact"),
        ("retention.ms", "-1"),
        ("retention.bytes", "-1"),
        ("max.message.bytes", "16777216"),
        ("segment.bytes", "16777216"),
    ];
    let settings: BTreeMap<_, _> = settings
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect();
    store.create_topic(name, partitions, settings)
}

/// Kafka's partition for a group or a transactional id: the absolute value of Java's
/// `String.hashCode`, modulo.
pub(crate) fn shard_of(key: &str, shards: usize) -> usize {
    let hash = key.encode_utf16().fold(0_i32, |hash, unit| {
        hash.wrapping_mul(31).wrapping_add(i32::from(unit))
    });
    hash.checked_abs().unwrap_or(0) as usize % shards.max(1)
}

#[cfg(test)]
mod tests {
    use super::shard_of;

    #[test]
    fn groups_are_spread_as_kafka_spreads_them() {
        // Utils.abs("..".hashCode()) % 50, the partition that Kafka's tools look in.
        assert_eq!(
            shard_of("inventory-service", 50),
            java("inventory-service", 50)
        );
        assert_eq!(shard_of("hello", 50), 99_162_322 % 50);
        assert_eq!(shard_of("", 50), 0);
        assert_eq!(shard_of("polygenelubricants", 50), 0, "hashes to i32::MIN");
    }

    fn java(text: &str, modulo: i64) -> usize {
        let hash = text.bytes().fold(0_i64, |hash, byte| {
            (hash * 31 + i64::from(byte)) & 0xffff_ffff
        }) as u32 as i32;
        (i64::from(hash).abs() % modulo) as usize
    }
}
