//! Confluent's client for Rust: one check a run, which says what was wrong.
//!
//!   rust-checks ADDRESS CHECK TOPIC GROUP
//!
//! The topic is there and has two partitions. KAFKA_LOGIN names a file of settings, as the Java client has them.

mod admin;
mod groups;
mod transactions;

use std::collections::HashMap;
use std::error::Error;
use std::time::{Duration, Instant};

use confluent_kafka::admin::{Admin, AdminClient, AdminClientConfig};
use confluent_kafka::common::TopicPartition;
use confluent_kafka::common::header::{Header, Headers, RecordHeader, RecordHeaders};
use confluent_kafka::common::serialization::{ByteArrayDeserializer, ByteArraySerializer};
use confluent_kafka::consumer::{Consumer, ConsumerConfig, ConsumerRecord, KafkaConsumer};
use confluent_kafka::producer::{
    KafkaProducer, Producer, ProducerConfig, ProducerRecord, ProducerRecordOptionsBuilder,
};

type Outcome<T = ()> = Result<T, Box<dyn Error>>;
type Bytes = Vec<u8>;
type Writer = KafkaProducer<Bytes, Bytes>;
type Reader = KafkaConsumer<Bytes, Bytes>;

/// Only what fails takes so long.
const WAIT_MAX: Duration = Duration::from_secs(60);
const POLL_WAIT: Duration = Duration::from_millis(200);

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> Outcome {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [address, check, topic, group] = arguments.as_slice() else {
        return Err("rust-checks ADDRESS CHECK TOPIC GROUP".into());
    };
    let on = On {
        settings: settings(address)?,
        topic: topic.clone(),
        group: group.clone(),
    };
    match check.as_str() {
        "records_come_back_in_every_codec" => on.records_come_back_in_every_codec().await,
        "an_idempotent_producer_sends_in_order" => on.an_idempotent_producer_sends_in_order().await,
        "a_group_commits_and_resumes" => on.a_group_commits_and_resumes().await,
        "two_members_share_by_the_brokers_assignor" => on.two_members_share().await,
        "a_transaction_counts_as_a_whole" => on.a_transaction_counts_as_a_whole().await,
        "an_older_instance_is_fenced" => on.an_older_instance_is_fenced().await,
        "what_is_read_is_written_once_while_transactions_are_aborted" => {
            on.what_is_read_is_written_once().await
        }
        "the_admin_describes_what_is_there" => on.the_admin_describes_what_is_there().await,
        "the_admin_changes_settings_and_offsets" => {
            on.the_admin_changes_settings_and_offsets().await
        }
        _ => Err(format!("no check {check}").into()),
    }
}

fn settings(address: &str) -> Outcome<HashMap<String, String>> {
    let mut settings = HashMap::from([("bootstrap.servers".to_owned(), address.to_owned())]);
    if let Ok(file) = std::env::var("KAFKA_LOGIN") {
        let text = std::fs::read_to_string(file)?;
        let lines = text.lines().filter_map(|line| line.split_once('='));
        settings.extend(lines.map(|(name, value)| (name.to_owned(), value.to_owned())));
    }
    Ok(settings)
}

fn same<T: PartialEq + std::fmt::Debug>(what: &str, got: T, wanted: T) -> Outcome {
    match got == wanted {
        true => Ok(()),
        false => Err(format!("{what}:\n  got    {got:?}\n  wanted {wanted:?}").into()),
    }
}

/// Records with these numbers as values, in order.
fn values(records: &[ConsumerRecord<Bytes, Bytes>]) -> Vec<String> {
    let text = |record: &ConsumerRecord<Bytes, Bytes>| {
        record
            .value()
            .map(|value| String::from_utf8_lossy(value).into_owned())
    };
    records.iter().filter_map(text).collect()
}

fn numbers(range: std::ops::Range<usize>) -> Vec<String> {
    range.map(|number| number.to_string()).collect()
}

/// What a check runs on.
struct On {
    settings: HashMap<String, String>,
    topic: String,
    group: String,
}

impl On {
    fn with(&self, more: &[(&str, &str)]) -> HashMap<String, String> {
        let mut settings = self.settings.clone();
        settings.extend(
            more.iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned())),
        );
        settings
    }

    fn producer(&self, more: &[(&str, &str)]) -> Outcome<Writer> {
        let config = ProducerConfig::new(&self.with(more))?;
        Ok(KafkaProducer::new(
            config,
            ByteArraySerializer::new(),
            ByteArraySerializer::new(),
        )?)
    }

    fn consumer(&self, group: &str, more: &[(&str, &str)]) -> Outcome<Reader> {
        let mut settings = self.with(&[
            ("group.id", group),
            ("group.protocol", "consumer"),
            ("auto.offset.reset", "earliest"),
            ("enable.auto.commit", "false"),
        ]);
        settings.extend(
            more.iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned())),
        );
        let config = ConsumerConfig::new(&settings)?;
        Ok(KafkaConsumer::new(
            config,
            ByteArrayDeserializer::new(),
            ByteArrayDeserializer::new(),
        )?)
    }

    fn admin(&self) -> Outcome<Box<dyn Admin>> {
        Ok(AdminClient::create(AdminClientConfig::new(
            &self.settings,
        )?)?)
    }

    fn partition(&self, partition: i32) -> TopicPartition {
        TopicPartition::new(self.topic.as_str(), partition)
    }

    /// Sends these values to a partition, without waiting for each.
    async fn send(
        &self,
        producer: &Writer,
        partition: i32,
        values: &[String],
    ) -> Outcome<Vec<i64>> {
        let mut sent = Vec::new();
        for value in values {
            let value = Some(value.clone().into_bytes());
            let record = ProducerRecord::with_partition_key(
                self.topic.clone(),
                Some(partition),
                None,
                value,
            )?;
            sent.push(Producer::send(producer, record).await?);
        }
        let mut offsets = Vec::new();
        for one in sent {
            offsets.push(one.get().await?.offset());
        }
        Ok(offsets)
    }

    /// What a partition has from its beginning: so many records.
    async fn read_from(
        &self,
        partition: i32,
        count: usize,
    ) -> Outcome<Vec<ConsumerRecord<Bytes, Bytes>>> {
        let mut consumer = self.consumer(
            &format!("{}-reader", self.group),
            &[("isolation.level", "read_committed")],
        )?;
        let wanted = self.partition(partition);
        consumer.assign(vec![wanted.clone()]).await?;
        consumer.seek_to_beginning(&[wanted]).await?;
        let records = read(&mut consumer, count).await?;
        consumer.close().await?;
        Ok(records)
    }

    async fn records_come_back_in_every_codec(&self) -> Outcome {
        let (mut offset, large) = (0, "x".repeat(200_000));
        for codec in ["none", "gzip", "snappy", "lz4", "zstd"] {
            let producer = self.producer(&[
                ("compression.type", codec),
                ("linger.ms", "20"),
                ("max.request.size", "4000000"),
            ])?;
            let header = |name: &str, value: Option<&[u8]>| {
                RecordHeader::new(name.to_owned(), value.map(<[u8]>::to_vec))
            };
            let headers = [
                header("codec", Some(codec.as_bytes())),
                header("none", None),
                header("codec", Some(b"")),
            ];
            let record = ProducerRecordOptionsBuilder::new()
                .set_topic(self.topic.clone())
                .set_partition(Some(0))
                .set_key(Some(vec![0, 255]))
                .set_value(Some(large.clone().into_bytes()))
                .set_headers(Some(RecordHeaders::with_header_iter(headers)))
                .build()?;
            let first = Producer::send(&producer, ProducerRecord::with_options(record)?).await?;
            let tombstone = ProducerRecord::with_partition_key(
                self.topic.clone(),
                Some(0),
                Some(Vec::new()),
                None,
            )?;
            let second = Producer::send(&producer, tombstone).await?;
            same(
                codec,
                (first.get().await?.offset(), second.get().await?.offset()),
                (offset, offset + 1),
            )?;
            offset += 2;
            producer.close().await?;
        }
        let read = self.read_from(0, 10).await?;
        for (pair, codec) in read
            .chunks(2)
            .zip(["none", "gzip", "snappy", "lz4", "zstd"])
        {
            let headers: Vec<_> = pair[0]
                .headers()
                .iter()
                .map(|it| (it.key(), it.value()))
                .collect();
            let wanted = vec![
                ("codec", Some(codec.as_bytes())),
                ("none", None),
                ("codec", Some(&b""[..])),
            ];
            same("headers", headers, wanted)?;
            same("key", pair[0].key(), Some(&vec![0, 255]))?;
            same("value", pair[0].value().map(Vec::len), Some(large.len()))?;
            same(
                "tombstone",
                (pair[1].key(), pair[1].value()),
                (Some(&Vec::new()), None),
            )?;
        }
        Ok(())
    }

    async fn an_idempotent_producer_sends_in_order(&self) -> Outcome {
        let producer = self.producer(&[("enable.idempotence", "true"), ("acks", "all")])?;
        let offsets = self.send(&producer, 1, &numbers(0..2_000)).await?;
        producer.close().await?;
        same("offsets", offsets, (0..2_000).collect())?;
        same(
            "records",
            values(&self.read_from(1, 2_000).await?),
            numbers(0..2_000),
        )
    }
}

/// So many records, as they come.
async fn read(consumer: &mut Reader, count: usize) -> Outcome<Vec<ConsumerRecord<Bytes, Bytes>>> {
    let (mut records, until) = (Vec::new(), Instant::now() + WAIT_MAX);
    while records.len() < count {
        records.extend(consumer.poll(POLL_WAIT).await?);
        if Instant::now() > until {
            return Err(format!(
                "{} of {count} records came: {:?}",
                records.len(),
                values(&records)
            )
            .into());
        }
    }
    Ok(records)
}
