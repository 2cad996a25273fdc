//! Transactions of Kafka: so many a second, one after another and several at once, on both brokers
//! with the same client.
//!
//! A transaction sends its records to a topic with several partitions and commits; the clock runs from
//! the first to the last one committed. What a reader of committed records sees is counted
//! afterwards.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use ackwell::Config;
use ackwell::producer::OutgoingRecord;
use ackwell::transaction::{TransactionError, Transactions};
use rdkafka::consumer::Consumer;
use rdkafka::error::KafkaError;
use rdkafka::{Offset, TopicPartitionList};

use super::{DURABILITIES, Pair, RATE_GOAL};
use crate::process::{cpu, work_folder};
use crate::report::{Report, Run};
use crate::target::Broker;
use crate::{Outcome, client, note, process};

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Transactions of each run.
    #[arg(long, default_value_t = 1_000)]
    transactions: u64,
    /// Records of each transaction.
    #[arg(long, default_value_t = 100)]
    records: u64,
    /// Transactions that are open at once, each by a producer of its own.
    #[arg(long, value_delimiter = ',', default_values_t = [1, 4])]
    producers: Vec<u32>,
    /// Partitions of the topic.
    #[arg(long, default_value_t = 6)]
    partitions: i32,
    /// Runs of each side; they take turns, after one that is not counted.
    #[arg(long, default_value_t = 3)]
    runs: usize,
    /// Only with fsync before answers on both sides, or only without.
    #[arg(long)]
    fsync: Option<bool>,
}

pub(crate) fn run(arguments: &Arguments) -> Outcome<Report> {
    let method = format!(
        "{} transactions of {} records of {} bytes on {} partitions, by `Transactions::run`, {} runs after one to warm up; \
         Apache Kafka {}",
        arguments.transactions,
        arguments.records,
        client::VALUE_BYTES,
        arguments.partitions,
        arguments.runs,
        crate::server::HOW,
    );
    let mut report = Report::new("transactions", method);
    let program: PathBuf = process::program("ackwell")?;
    let [without, with] = &DURABILITIES;
    let wanted = match arguments.fsync {
        None => vec![without, with],
        Some(true) => vec![with],
        Some(false) => vec![without],
    };
    for durability in wanted {
        note(&format!("starting both brokers, {}", durability.name));
        let pair = Pair::start(&program, durability)?;
        for producers in &arguments.producers {
            compare(arguments, &pair, (*producers, durability.name), &mut report)?;
        }
        pair.ackwell.stop()?;
    }
    Ok(report)
}

fn compare(
    arguments: &Arguments,
    pair: &Pair,
    (producers, durability): (u32, &str),
    report: &mut Report,
) -> Outcome<()> {
    let what = format!("{producers} at once, {durability}");
    let mut runs = [Vec::new(), Vec::new()];
    let mut cpus = [Vec::new(), Vec::new()];
    for turn in 0..=arguments.runs {
        for (place, (name, broker, process)) in pair.brokers().into_iter().enumerate() {
            let before = cpu(process)?;
            let run = one(arguments, broker, producers)?;
            let used = cpu(process)?.saturating_sub(before).as_secs_f64();
            note(&format!(
                "{what}, turn {turn}, {name}: {:.0} transactions/s",
                run.rate()
            ));
            if turn > 0 {
                runs[place].push(run);
                cpus[place].push(used * 1e6 / arguments.transactions as f64);
            }
        }
    }
    let mut rates = Vec::new();
    for ((name, _, _), (runs, cpus)) in pair.brokers().iter().zip(runs.into_iter().zip(cpus)) {
        let mean = cpus.iter().sum::<f64>() / cpus.len().max(1) as f64;
        report.figure(
            format!("{what}, {name}'s CPU a transaction"),
            mean,
            "µs",
            None,
        );
        rates.push(report.side(format!("transactions, {what}, {name}"), runs));
    }
    if let [ackwell, apache] = rates[..] {
        let name = format!("transactions, {what}, Ackwell / Apache Kafka");
        report.figure(name, ackwell / apache, "", Some(RATE_GOAL));
    }
    Ok(())
}

fn one(arguments: &Arguments, broker: &Broker, producers: u32) -> Outcome<Run> {
    let topic: Arc<str> = client::fresh("bench-transactions").into();
    client::create_topic(broker, &topic, arguments.partitions)?;
    let data = work_folder()?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    let run = runtime.block_on(send(arguments, (broker, data.path()), &topic, producers))?;
    let (seen, expected) = (
        committed(broker, &topic, arguments.partitions)?,
        arguments.transactions * arguments.records,
    );
    if seen != expected {
        return Err(format!("readers see {seen} of {expected} committed records").into());
    }
    client::delete_topic(broker, &topic)?;
    Ok(run)
}

async fn send(
    arguments: &Arguments,
    (broker, data): (&Broker, &Path),
    topic: &Arc<str>,
    producers: u32,
) -> Outcome<Run> {
    let mut config = Config::with_bootstrap_servers(broker.address());
    config.data = data.to_owned();
    config.transactions.producers = producers;
    let transactions = Transactions::open(&config).await?;
    let (started, used) = (Instant::now(), cpu(std::process::id())?);
    let mut tasks = tokio::task::JoinSet::new();
    for producer in 0..u64::from(producers) {
        let (transactions, topic) = (transactions.clone(), Arc::clone(topic));
        let numbers = (producer..arguments.transactions).step_by(producers as usize);
        let records = arguments.records;
        tasks.spawn(async move {
            for number in numbers {
                one_transaction(&transactions, &topic, number, records).await?;
            }
            Ok::<_, TransactionError>(())
        });
    }
    while let Some(done) = tasks.join_next().await {
        done??;
    }
    let used = cpu(std::process::id())?.saturating_sub(used);
    Ok(Run::new(arguments.transactions, started.elapsed(), used))
}

async fn one_transaction(
    transactions: &Transactions,
    topic: &str,
    number: u64,
    records: u64,
) -> Result<(), TransactionError> {
    let value = vec![b'x'; client::VALUE_BYTES];
    transactions
        .run(async |tx| {
            for place in 0..records {
                let key = format!("{:04}", (number * records + place) % 10_000);
                let record = OutgoingRecord::to(topic.to_owned());
                tx.send_record(record.key(key).value(value.clone())).await?;
            }
            Ok(())
        })
        .await
}

/// What a reader of committed records sees.
fn committed(broker: &Broker, topic: &str, partitions: i32) -> Outcome<u64> {
    let mut settings = client::settings(broker);
    settings
        .set("group.id", "bench-committed")
        .set("enable.partition.eof", "true")
        .set("isolation.level", "read_committed");
    let consumer: rdkafka::consumer::BaseConsumer = settings.create()?;
    let mut all = TopicPartitionList::new();
    for partition in 0..partitions {
        all.add_partition_offset(topic, partition, Offset::Beginning)?;
    }
    consumer.assign(&all)?;
    let (mut seen, mut ends) = (0, 0);
    while ends < partitions {
        match consumer.poll(client::WAIT_MAX) {
            Some(Ok(_)) => seen += 1,
            Some(Err(KafkaError::PartitionEOF(_))) => ends += 1,
            Some(Err(error)) => return Err(error.into()),
            None => return Err(format!("{topic} does not end").into()),
        }
    }
    Ok(seen)
}
