//! Records a second, in and out, by one or many clients at once.

use std::sync::Barrier;
use std::time::{Duration, Instant};

use rdkafka::consumer::Consumer;
use rdkafka::{Offset, TopicPartitionList};

use super::{Arguments, Pair, RATE_GOAL, Shape};
use crate::client::{self, Sender};
use crate::process::cpu;
use crate::report::{Report, Run, quantile, sorted};
use crate::target::Broker;
use crate::{Outcome, note};

/// How long a fetch waits for records, against librdkafka's default of half a second. A client of several partitions
/// may ask for the first ones before its own thread has come to the others, and asks for those when that fetch is
/// answered. A broker that gives the first ones quickly is met by a second fetch for more of them, and where there are no
/// more, the client sits out the wait: what was measured with 50 clients was whether that befell one of them.
const FETCH_WAIT: (&str, &str) = ("fetch.wait.max.ms", "5");

/// A run, and the broker's CPU time in µs a record.
struct Measured {
    run: Run,
    broker_us: f64,
}

/// Both brokers in turns; both ways.
pub(super) fn compare(
    arguments: &Arguments,
    pair: &Pair,
    shape: Shape,
    durability: &str,
    report: &mut Report,
) -> Outcome<()> {
    let mut ins = [Vec::new(), Vec::new()];
    let mut outs = [Vec::new(), Vec::new()];
    for turn in 0..=arguments.runs {
        for (place, (name, broker, process)) in pair.brokers().into_iter().enumerate() {
            let topic = client::fresh("bench");
            client::create_topic(broker, &topic, shape.partitions)?;
            let sent = timed(process, || send(broker, &topic, shape))?;
            let read = timed(process, || read(broker, &topic, shape))?;
            client::delete_topic(broker, &topic)?;
            note(&format!(
                "{}, turn {turn}, {name}: in {:.0}, out {:.0} records/s",
                shape.name(durability),
                sent.run.rate(),
                read.run.rate()
            ));
            if turn > 0 {
                ins[place].push(sent);
                outs[place].push(read);
            }
        }
    }
    tell(report, &format!("in, {}", shape.name(durability)), ins);
    tell(report, &format!("out, {}", shape.name(durability)), outs);
    Ok(())
}

fn tell(report: &mut Report, what: &str, measured: [Vec<Measured>; 2]) {
    let names = ["Ackwell", "Apache Kafka"];
    let rates = names.iter().zip(measured).map(|(name, measured)| {
        let (runs, cpu): (Vec<_>, Vec<_>) = measured
            .into_iter()
            .map(|measured| (measured.run, measured.broker_us))
            .unzip();
        let cpu = quantile(&sorted(cpu), 0.5);
        report.figure(format!("{what}, {name}'s CPU a record"), cpu, "µs", None);
        report.side(format!("{what}, {name}"), runs)
    });
    let rates: Vec<f64> = rates.collect();
    if let [ackwell, apache] = rates[..] {
        let name = format!("{what}, Ackwell / Apache Kafka");
        report.figure(name, ackwell / apache, "", Some(RATE_GOAL));
    }
}

fn timed(process: u32, work: impl FnOnce() -> Outcome<Run>) -> Outcome<Measured> {
    let before = cpu(process)?;
    let run = work()?;
    let used = cpu(process)?.saturating_sub(before);
    let broker_us = used.as_secs_f64() * 1e6 / run.records as f64;
    Ok(Measured { run, broker_us })
}

/// Every client sends its share; the clock stops when the last record of the last one is
/// acknowledged.
fn send(broker: &Broker, topic: &str, shape: Shape) -> Outcome<Run> {
    let share = shape.records / shape.connections as u64;
    let senders: Vec<_> = (0..shape.connections)
        .map(|_| {
            let sender = Sender::connect(broker, topic)?;
            sender.warm_up()?;
            Ok(sender)
        })
        .collect::<Outcome<_>>()?;
    together(senders, share * shape.connections as u64, |sender| {
        sender.send(share, |number, record| {
            client::plain_record(number, record)?;
            record.value.resize(shape.bytes, b'x');
            Ok(())
        })
    })
}

/// Every client reads its share of the partitions, or one whole partition where there are more
/// clients than partitions.
fn read(broker: &Broker, topic: &str, shape: Shape) -> Outcome<Run> {
    let mut readers = Vec::new();
    let mut all = 0;
    for number in 0..shape.connections {
        let consumer = client::consumer_with(broker, "bench-out", &[FETCH_WAIT])?;
        let mut own = TopicPartitionList::new();
        let mut expected = 0;
        for partition in shape.partitions_of(number) {
            let (low, high) = consumer.fetch_watermarks(topic, partition, client::WAIT_MAX)?;
            expected += u64::try_from(high - low)?;
            own.add_partition_offset(topic, partition, Offset::Beginning)?;
        }
        all += expected;
        readers.push((consumer, own, expected));
    }
    together(readers, all, |(consumer, own, expected)| {
        consumer.assign(&own)?;
        for seen in 0..expected {
            match consumer.poll(client::WAIT_MAX) {
                Some(record) => record?,
                None => return Err(format!("{seen} of {expected} records could be read").into()),
            };
        }
        Ok(())
    })
}

impl Shape {
    fn partitions_of(self, client: usize) -> Vec<i32> {
        let clients = i32::try_from(self.connections).unwrap_or(i32::MAX);
        let client = i32::try_from(client).unwrap_or(i32::MAX);
        if clients > self.partitions {
            return vec![client % self.partitions];
        }
        (0..self.partitions)
            .filter(|partition| partition % clients == client)
            .collect()
    }
}

/// Has all clients work at the same time; from the common start to the end of the last.
fn together<C: Send>(
    clients: Vec<C>,
    records: u64,
    work: impl Fn(C) -> Outcome<()> + Sync,
) -> Outcome<Run> {
    let barrier = Barrier::new(clients.len() + 1);
    let mine = std::process::id();
    let (took, cpu_used) = std::thread::scope(|scope| -> Outcome<(Duration, Duration)> {
        let started: Vec<_> = clients
            .into_iter()
            .map(|client| {
                let (barrier, work) = (&barrier, &work);
                scope.spawn(move || {
                    barrier.wait();
                    work(client)
                })
            })
            .collect();
        let before = cpu(mine)?;
        barrier.wait();
        let at = Instant::now();
        for client in started {
            client.join().map_err(|_| "a client panicked")??;
        }
        Ok((at.elapsed(), cpu(mine)?.saturating_sub(before)))
    })?;
    Ok(Run::new(records, took, cpu_used))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape(partitions: i32, connections: usize) -> Shape {
        Shape {
            bytes: 100,
            partitions,
            connections,
            records: 1,
        }
    }

    #[test]
    fn partitions_are_shared_out_once_each() {
        let shape = shape(100, 50);
        let mut all: Vec<_> = (0..50)
            .flat_map(|client| shape.partitions_of(client))
            .collect();
        all.sort_unstable();
        assert_eq!(all, (0..100).collect::<Vec<_>>());
    }

    #[test]
    fn more_clients_than_partitions_read_a_whole_one_each() {
        assert_eq!(shape(1, 10).partitions_of(7), [0]);
    }
}
