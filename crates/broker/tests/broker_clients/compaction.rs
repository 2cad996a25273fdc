//! Compaction as readers see it, with SIGKILL in the middle of it.

use std::collections::BTreeMap;
use std::time::Instant;

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::{Message, OwnedMessage};
use rdkafka::producer::{FutureProducer, FutureRecord};
use rdkafka::{Offset, TopicPartitionList};

use crate::crash::Process;
use crate::support::{PATIENCE, client};

const TOPIC: &str = "latest";
const KEYS: usize = 30;
const ROUNDS: usize = 4;
const RECORDS: usize = 600;
/// After so many rounds there are far more records than keys: what is left when all is compacted
/// that can be, with the segment that is still written.
const LEFT_MAX: usize = RECORDS / 2;

/// A value, or the key's deletion.
type Value = Option<String>;

/// What was written to each key, in order, and whether that was acknowledged.
#[derive(Default)]
struct Written(BTreeMap<String, Vec<(Value, bool)>>);

impl Written {
    /// What a key may have now: what was acknowledged last, or what was sent after that.
    fn possible(&self, key: &str) -> &[(Value, bool)] {
        let Some(all) = self.0.get(key) else {
            return &[];
        };
        let acknowledged = all.iter().rposition(|(_, acknowledged)| *acknowledged);
        &all[acknowledged.unwrap_or(0)..]
    }

    fn assert_kept(&self, records: &[OwnedMessage]) {
        let mut stored: BTreeMap<String, Value> = BTreeMap::new();
        for record in records {
            let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("text");
            let key = text(record.key().expect("a key"));
            stored.insert(key, record.payload().map(text));
        }
        for key in self.0.keys() {
            let stored = stored.get(key).cloned().flatten();
            let possible = self.possible(key);
            let untouched = !possible.iter().any(|(_, acknowledged)| *acknowledged);
            assert!(
                possible.iter().any(|(value, _)| *value == stored) || untouched && stored.is_none(),
                "key {key} has {stored:?}, and not one of {possible:?}"
            );
        }
        let ascend = |pair: &[OwnedMessage]| pair[0].offset() < pair[1].offset();
        assert!(records.windows(2).all(ascend), "offsets stay in order");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_value_of_each_key_outlives_compaction_and_sigkill() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut listen = "127.0.0.1:0".to_owned();
    let mut written = Written::default();
    for round in 0..ROUNDS {
        let process = Process::start(folder.path(), &listen);
        listen.clone_from(&process.address);
        if round == 0 {
            create_compacted(&process.address).await;
        }
        write(&process.address, round, &mut written).await;
        // The cleaner is at work on what was written, or about to be.
        written.assert_kept(&read(&process.address));
        process.kill();
    }

    let process = Process::start(folder.path(), &listen);
    let deadline = Instant::now() + PATIENCE;
    loop {
        let records = read(&process.address);
        written.assert_kept(&records);
        if records.len() <= LEFT_MAX {
            break;
        }
        assert!(Instant::now() < deadline, "{} records", records.len());
    }
    process.kill();
    let process = Process::start(folder.path(), &listen);
    written.assert_kept(&read(&process.address));
    process.kill();
}

async fn create_compacted(address: &str) {
    let admin: AdminClient<DefaultClientContext> =
        client(address).create().expect("an admin client");
    let topic = NewTopic::new(TOPIC, 1, TopicReplication::Fixed(1))
        .set("cleanup.policy", "compact")
        .set("segment.bytes", "16384")
        .set("min.cleanable.dirty.ratio", "0.01")
        .set("delete.retention.ms", "0");
    let created = admin.create_topics(&[topic], &AdminOptions::new()).await;
    created.expect("answered")[0].as_ref().expect("created");
}

/// Writes values and deletions in an order that differs from round to round.
async fn write(address: &str, round: usize, written: &mut Written) {
    let producer: FutureProducer = client(address)
        .set("enable.idempotence", "true")
        .set("linger.ms", "1")
        .set("batch.num.messages", "20")
        .create()
        .expect("a producer");
    let mut sent = Vec::with_capacity(RECORDS);
    for number in 0..RECORDS {
        let key = format!("key-{}", number * (2 * round + 7) % KEYS);
        let value = (number % 11 != 10).then(|| format!("{round}-{number:0>200}"));
        let record: FutureRecord<'_, str, str> = FutureRecord::to(TOPIC).partition(0).key(&key);
        let record = match &value {
            Some(value) => record.payload(value),
            None => record,
        };
        let delivery = producer.send_result(record).map_err(|(error, _)| error);
        sent.push((key, value, delivery.expect("queued")));
    }
    for (key, value, delivery) in sent {
        let delivered = tokio::time::timeout(PATIENCE, delivery).await;
        let acknowledged = delivered.expect("in time").expect("not dropped").is_ok();
        let of_key = written.0.entry(key).or_default();
        of_key.push((value, acknowledged));
    }
}

/// Everything that there is, from the first record to the last.
fn read(address: &str) -> Vec<OwnedMessage> {
    let consumer: BaseConsumer = client(address)
        .set("group.id", "checker")
        .set("enable.partition.eof", "true")
        .create()
        .expect("a consumer");
    let mut assignment = TopicPartitionList::new();
    assignment
        .add_partition_offset(TOPIC, 0, Offset::Beginning)
        .expect("an assignment");
    consumer.assign(&assignment).expect("assigned");
    let mut records = Vec::new();
    loop {
        match consumer.poll(PATIENCE).expect("a record or the end") {
            Ok(record) => records.push(record.detach()),
            Err(KafkaError::PartitionEOF(_)) => return records,
            Err(error) => panic!("{error}"),
        }
    }
}
