//! The reference: poll, look at the record, next.

use std::time::Instant;

use rdkafka::consumer::Consumer;
use rdkafka::message::{Headers, Message};

use crate::meter::Meter;
use crate::target::Broker;
use crate::{Outcome, client};

pub(super) fn run(
    broker: &Broker,
    group: &str,
    topic: &str,
    meter: &Meter,
    headers: bool,
) -> Outcome<()> {
    let consumer = client::consumer(broker, group)?;
    consumer.subscribe(&[topic])?;
    let until = Instant::now() + client::WAIT_MAX;
    let mut bytes = 0;
    loop {
        match consumer.poll(client::POLL_MAX) {
            Some(record) => {
                let record = record?;
                bytes += record.payload_len();
                if headers {
                    bytes += record.headers().map_or(0, Headers::count);
                }
            }
            None if Instant::now() < until => continue,
            None => return Err(format!("no record came within {:?}", client::WAIT_MAX).into()),
        }
        if meter.count() {
            meter.finish();
            std::hint::black_box(bytes);
            return Ok(());
        }
    }
}
