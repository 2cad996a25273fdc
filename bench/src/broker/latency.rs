//! How long a record takes from the producer's call to the consumer's.

use std::time::{Duration, Instant};

use rdkafka::Message;
use rdkafka::consumer::BaseConsumer;
use rdkafka::producer::{BaseRecord, DefaultProducerContext, Producer, ThreadedProducer};

use super::Arguments;
use crate::process::work_folder;
use crate::report::{Report, quantile, sorted};
use crate::{Outcome, client};

/// Between two records, so that each finds the broker at rest.
const PAUSE: Duration = Duration::from_millis(1);
/// Records that are not counted, at the beginning.
const WARM_UP: usize = 200;

pub(super) fn measure(
    arguments: &Arguments,
    flush: &str,
    flags: &[&str],
    report: &mut Report,
) -> Outcome<()> {
    let data = work_folder()?;
    let broker = arguments.target.start(data.path(), flags)?;
    let topic = client::fresh("bench-latency");
    client::create_topic(&broker, &topic, 1)?;
    let consumer = client::consumer(&broker, "bench-latency")?;
    client::assign_all(&consumer, &topic)?;
    let producer: ThreadedProducer<DefaultProducerContext> = client::settings(&broker)
        .set("enable.idempotence", "true")
        .set("acks", "all")
        .set("linger.ms", "0")
        .create()?;
    let mut taken = Vec::with_capacity(arguments.latency_records);
    for number in 0..arguments.latency_records + WARM_UP {
        let took = round_trip(&producer, &consumer, &topic, number)?;
        if number >= WARM_UP {
            taken.push(took.as_secs_f64() * 1000.0);
        }
        std::thread::sleep(PAUSE);
    }
    producer.flush(client::WAIT_MAX)?;
    let taken = sorted(taken);
    for (name, share) in [("p50", 0.5), ("p99", 0.99)] {
        report.figure(
            format!("produce to consume {name}, {flush}"),
            quantile(&taken, share),
            "ms",
            None,
        );
    }
    broker.stop()
}

fn round_trip(
    producer: &ThreadedProducer<DefaultProducerContext>,
    consumer: &BaseConsumer,
    topic: &str,
    number: usize,
) -> Outcome<Duration> {
    let mut value = [b'x'; client::VALUE_BYTES];
    value[..8].copy_from_slice(&number.to_be_bytes());
    let sent = Instant::now();
    producer
        .send(BaseRecord::<[u8], [u8]>::to(topic).payload(&value))
        .map_err(|(error, _)| error)?;
    let record = consumer
        .poll(client::WAIT_MAX)
        .ok_or("a record did not come")??;
    let took = sent.elapsed();
    if record.payload() != Some(&value[..]) {
        return Err("another record came than was sent".into());
    }
    Ok(took)
}
