//! SIGKILL, for real: the broker runs in a process of its own, which is this test binary again.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::Message;
use rdkafka::producer::{FutureProducer, FutureRecord, Producer};
use rdkafka::{Offset, TopicPartitionList};

use crate::support::{PATIENCE, client, create, on_thread, start_in, text};

const FOLDER: &str = "ACKWELL_CRASH_FOLDER";
const LISTEN: &str = "ACKWELL_CRASH_LISTEN";

/// Not a test of its own: what the killed process runs.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "run by the tests that kill it"]
async fn broker_process() {
    let folder = std::env::var(FOLDER).expect("set by the parent");
    let listen = std::env::var(LISTEN).expect("set by the parent");
    let broker = start_in(Path::new(&folder), |config| {
        config.listen = listen;
        // Passes that begin at once and take long enough to be killed in.
        config.cleaning.interval = Duration::from_millis(20);
        config.cleaning.bytes_per_second = Some(2_000_000);
    });
    let broker = broker.await;
    println!("\nlistening on {}", broker.local_addr());
    std::future::pending::<()>().await;
}

/// The killed process.
pub(crate) struct Process {
    child: Child,
    pub(crate) address: String,
}

impl Process {
    pub(crate) fn start(folder: &Path, listen: &str) -> Self {
        let mut child = Command::new(std::env::current_exe().expect("this binary"))
            .args([
                "--ignored",
                "--exact",
                "crash::broker_process",
                "--nocapture",
            ])
            .env(FOLDER, folder)
            .env(LISTEN, listen)
            .stdout(Stdio::piped())
            .spawn()
            .expect("spawned");
        let output = BufReader::new(child.stdout.take().expect("piped"));
        let address = output
            .lines()
            .map_while(Result::ok)
            .find_map(|line| line.strip_prefix("listening on ").map(str::to_owned))
            .expect("the broker starts");
        Self { child, address }
    }

    pub(crate) fn kill(mut self) {
        self.child.kill().expect("SIGKILL");
        self.child.wait().expect("gone");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_acknowledged_record_is_lost_by_sigkill() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut acknowledged: Vec<(i64, String)> = Vec::new();
    let mut listen = "127.0.0.1:0".to_owned();
    for round in 0..3 {
        let process = Process::start(folder.path(), &listen);
        listen.clone_from(&process.address);
        let config = client(&process.address);
        if round == 0 {
            create(&config.create().expect("an admin client"), "kept", 1).await;
        }
        acknowledged.extend(produce_until_killed(process, config, round).await);
    }

    let process = Process::start(folder.path(), &listen);
    let last = acknowledged.iter().map(|(offset, _)| *offset).max();
    let count = usize::try_from(last.expect("something was acknowledged") + 1).expect("a count");
    let stored = read_all(&process.address, count).await;
    process.kill();
    for (offset, value) in acknowledged {
        let index = usize::try_from(offset).expect("an offset");
        assert_eq!(stored[index], value, "at offset {offset}");
    }
}

/// Sends as fast as it can, kills the broker after a few hundred acknowledgements, and gives what
/// was acknowledged until then.
async fn produce_until_killed(
    process: Process,
    config: rdkafka::ClientConfig,
    round: usize,
) -> Vec<(i64, String)> {
    let producer: FutureProducer = config
        .clone()
        .set("message.timeout.ms", "1000")
        .set("linger.ms", "0")
        .create()
        .expect("a producer");
    let (acks, mut acked) = tokio::sync::mpsc::unbounded_channel();
    let sending = tokio::spawn(async move {
        let mut deliveries = tokio::task::JoinSet::new();
        for number in 0..5_000 {
            let value = format!("{round}-{number}");
            let record: FutureRecord<'_, str, str> =
                FutureRecord::to("kept").partition(0).payload(&value);
            let Ok(delivery) = producer.send_result(record) else {
                break;
            };
            let acks = acks.clone();
            deliveries.spawn(async move {
                if let Ok(Ok(delivered)) = delivery.await {
                    let _ = acks.send((delivered.offset, value));
                }
            });
            if number % 50 == 0 {
                tokio::task::yield_now().await;
            }
        }
        drop(acks);
        while deliveries.join_next().await.is_some() {}
    });
    let mut acknowledged = Vec::new();
    while acknowledged.len() < 300 {
        let next = tokio::time::timeout(PATIENCE, acked.recv()).await;
        acknowledged.push(next.expect("acknowledged in time").expect("acknowledged"));
    }
    process.kill();
    while let Some(ack) = acked.recv().await {
        acknowledged.push(ack);
    }
    sending.await.expect("sent");
    acknowledged
}

/// Of the transactions whose commit was answered, all is there; of those that were open, nothing;
/// of those in between, all or nothing.
#[tokio::test(flavor = "multi_thread")]
async fn transactions_are_whole_after_sigkill() {
    let folder = tempfile::tempdir().expect("a folder");
    let (mut committed, mut in_between) = (Vec::new(), Vec::new());
    let mut listen = "127.0.0.1:0".to_owned();
    for round in 0..6 {
        let process = Process::start(folder.path(), &listen);
        listen.clone_from(&process.address);
        let config = client(&process.address);
        if round == 0 {
            create(&config.create().expect("an admin client"), "whole", 2).await;
        }
        let producer = take_over(&config).await;
        for number in 0..5 {
            let value = format!("{round}-{number}");
            write_to_both(&producer, &value).await;
            on_thread(&producer, |producer| producer.commit_transaction(PATIENCE))
                .await
                .expect("commits");
            committed.push(value);
        }
        let value = format!("{round}-last");
        write_to_both(&producer, &value).await;
        if round % 2 == 0 {
            process.kill();
            continue;
        }
        let committing =
            tokio::task::spawn_blocking(move || producer.commit_transaction(PATIENCE / 10));
        process.kill();
        match committing.await.expect("no panic") {
            Ok(()) => committed.push(value),
            Err(_) => in_between.push(value),
        }
    }

    let process = Process::start(folder.path(), &listen);
    // Whoever takes the id over waits until what it left behind has ended.
    drop(take_over(&client(&process.address)).await);
    let first = read_committed(&process.address, 0);
    assert_eq!(first, read_committed(&process.address, 1));
    process.kill();
    let known: Vec<_> = first
        .iter()
        .filter(|value| !in_between.contains(value))
        .collect();
    assert_eq!(known, committed.iter().collect::<Vec<_>>());
}

async fn take_over(config: &rdkafka::ClientConfig) -> FutureProducer {
    let mut config = config.clone();
    let config = config.set("transactional.id", "t").set("linger.ms", "0");
    let producer: FutureProducer = config.create().expect("a producer");
    on_thread(&producer, |producer| producer.init_transactions(PATIENCE))
        .await
        .expect("takes over the id");
    producer
}

/// Writes a record to both partitions, in a transaction that stays open.
async fn write_to_both(producer: &FutureProducer, value: &str) {
    producer.begin_transaction().expect("begins");
    for partition in 0..2 {
        let record: FutureRecord<'_, str, str> = FutureRecord::to("whole")
            .partition(partition)
            .payload(value);
        let delivered = producer.send(record, PATIENCE).await;
        delivered.expect("acknowledged");
    }
}

/// What a reader of committed records gets, to the end.
fn read_committed(address: &str, partition: i32) -> Vec<String> {
    let consumer: BaseConsumer = client(address)
        .set("group.id", "checker")
        .set("isolation.level", "read_committed")
        .set("enable.partition.eof", "true")
        .create()
        .expect("a consumer");
    let mut assignment = TopicPartitionList::new();
    assignment
        .add_partition_offset("whole", partition, Offset::Beginning)
        .expect("an assignment");
    consumer.assign(&assignment).expect("assigned");
    let mut values = Vec::new();
    loop {
        match consumer.poll(PATIENCE).expect("a record or the end") {
            Ok(record) => values.push(text(&record.detach()).to_owned()),
            Err(KafkaError::PartitionEOF(_)) => return values,
            Err(error) => panic!("{error}"),
        }
    }
}

async fn read_all(address: &str, count: usize) -> Vec<String> {
    use rdkafka::consumer::StreamConsumer;

    let consumer: StreamConsumer = client(address)
        .set("group.id", "checker")
        .create()
        .expect("a consumer");
    let mut assignment = TopicPartitionList::new();
    assignment
        .add_partition_offset("kept", 0, Offset::Beginning)
        .expect("an assignment");
    consumer.assign(&assignment).expect("assigned");
    let records = crate::support::take(&consumer, count).await;
    for (offset, record) in (0i64..).zip(&records) {
        assert_eq!(record.offset(), offset, "no gaps");
    }
    records
        .iter()
        .map(|record| text(record).to_owned())
        .collect()
}
