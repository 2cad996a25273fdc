//! From the producer's call to the consumer's, at a rate that neither broker has to strain for.

use std::time::{Duration, Instant};

use rdkafka::Message;
use rdkafka::producer::{BaseRecord, DefaultProducerContext, Producer, ThreadedProducer};

use super::{Arguments, LATENCY_GOAL, Pair};
use crate::report::{Report, quantile, sorted};
use crate::target::Broker;
use crate::{Outcome, client};

/// Records that are not counted, at the beginning.
const WARM_UP: usize = 500;
/// Turns of both brokers; all their records are counted together.
const TURNS: usize = 3;

pub(super) fn compare(
    arguments: &Arguments,
    pair: &Pair,
    durability: &str,
    report: &mut Report,
) -> Outcome<()> {
    let mut taken = [Vec::new(), Vec::new()];
    for _ in 0..TURNS {
        for (place, (_, broker, _)) in pair.brokers().into_iter().enumerate() {
            let count = arguments.latency_records.div_ceil(TURNS);
            taken[place].extend(measure(broker, arguments.rate, count)?);
        }
    }
    let [ackwell, apache] = taken.map(sorted);
    for (name, share) in [("p50", 0.5), ("p99", 0.99)] {
        let (ours, theirs) = (quantile(&ackwell, share), quantile(&apache, share));
        let what = format!("produce to consume {name}, {durability}");
        report.figure(format!("{what}, Ackwell"), ours, "ms", None);
        report.figure(format!("{what}, Apache Kafka"), theirs, "ms", None);
        report.figure(
            format!("{what}, Ackwell / Apache Kafka"),
            ours / theirs,
            "",
            Some(LATENCY_GOAL),
        );
    }
    Ok(())
}

/// Milliseconds of each record. A thread sends on time, whether or not what it sent before has
/// arrived, so that a slow answer shows in the records behind it.
fn measure(broker: &Broker, rate: u32, count: usize) -> Outcome<Vec<f64>> {
    let topic = client::fresh("bench-latency");
    client::create_topic(broker, &topic, 1)?;
    let consumer = client::consumer(broker, "bench-latency")?;
    client::assign_all(&consumer, &topic)?;
    let producer: ThreadedProducer<DefaultProducerContext> = client::settings(broker)
        .set("enable.idempotence", "true")
        .set("acks", "all")
        .set("linger.ms", "0")
        .create()?;
    let (all, began) = (count + WARM_UP, Instant::now());
    let mut taken = Vec::with_capacity(count);
    std::thread::scope(|scope| -> Outcome<()> {
        let sending = scope.spawn(|| send(&producer, &topic, rate, all, began));
        for number in 0..all {
            let record = consumer
                .poll(client::WAIT_MAX)
                .ok_or("a record did not come")??;
            let now = began.elapsed();
            let sent = record.payload().and_then(|value| value.first_chunk());
            let sent = sent.ok_or("another record came than was sent")?;
            let took = now.saturating_sub(Duration::from_nanos(u64::from_be_bytes(*sent)));
            if number >= WARM_UP {
                taken.push(took.as_secs_f64() * 1000.0);
            }
        }
        sending.join().map_err(|_| "the sender panicked")?
    })?;
    producer.flush(client::WAIT_MAX)?;
    Ok(taken)
}

/// Each record holds when it was due, in nanoseconds since `began`.
fn send(
    producer: &ThreadedProducer<DefaultProducerContext>,
    topic: &str,
    rate: u32,
    count: usize,
    began: Instant,
) -> Outcome<()> {
    let first = began.elapsed();
    let mut value = [b'x'; client::VALUE_BYTES];
    for number in 0..count {
        let due = first + Duration::from_secs(1) * u32::try_from(number)? / rate;
        std::thread::sleep(due.saturating_sub(began.elapsed()));
        let now = u64::try_from(began.elapsed().as_nanos())?;
        value[..8].copy_from_slice(&now.to_be_bytes());
        producer
            .send(BaseRecord::<[u8], [u8]>::to(topic).payload(&value))
            .map_err(|(error, _)| error)?;
    }
    Ok(())
}
