//! Records a second, in and out.

use std::time::{Duration, Instant};

use rdkafka::consumer::Consumer;

use super::Arguments;
use crate::process::{cpu, resident_mib, resident_peak_mib, work_folder};
use crate::report::{Goal, Report, Run, quantile, sorted};
use crate::target::Broker;
use crate::{Outcome, client, note};

/// Of the runs without fsync, each way.
const GOAL: Goal = Goal::AtLeast(500_000.0);

pub(super) fn measure(
    arguments: &Arguments,
    flush: &str,
    flags: &[&str],
    report: &mut Report,
) -> Outcome<()> {
    let data = work_folder()?;
    let broker = arguments.target.start(data.path(), flags)?;
    let (mut ins, mut outs) = (Measured::default(), Measured::default());
    for turn in 0..=arguments.runs {
        let topic = client::fresh("bench");
        client::create_topic(&broker, &topic, arguments.partitions)?;
        let sent = timed(&broker, || {
            client::send(&broker, &topic, arguments.records, client::plain_record)
        })?;
        let read = timed(&broker, || read(&broker, &topic, arguments.records))?;
        note(&format!(
            "{flush}, turn {turn}: in {:.0}, out {:.0} records/s",
            sent.0.rate(),
            read.0.rate()
        ));
        if turn > 0 {
            ins.add(sent);
            outs.add(read);
        }
    }
    let goal = (!flags.is_empty()).then_some(GOAL);
    ins.tell(report, &format!("in, {flush}"), goal);
    outs.tell(report, &format!("out, {flush}"), goal);
    if let Some(process) = broker.process() {
        let (now, most) = (resident_mib(process)?, resident_peak_mib(process)?);
        report.figure(
            format!("broker's memory after it, {flush}"),
            now,
            "MiB",
            None,
        );
        report.figure(
            format!("broker's memory at most, {flush}"),
            most,
            "MiB",
            None,
        );
    }
    broker.stop()
}

#[derive(Default)]
struct Measured {
    runs: Vec<Run>,
    broker_cpu_us: Vec<f64>,
}

impl Measured {
    fn add(&mut self, (run, broker_cpu): (Run, Option<Duration>)) {
        self.broker_cpu_us
            .extend(broker_cpu.map(|cpu| cpu.as_secs_f64() * 1e6 / run.records as f64));
        self.runs.push(run);
    }

    fn tell(self, report: &mut Report, name: &str, goal: Option<Goal>) {
        let rate = report.side(name, self.runs);
        report.figure(format!("{name}, median"), rate, "records/s", goal);
        if !self.broker_cpu_us.is_empty() {
            let cpu = quantile(&sorted(self.broker_cpu_us), 0.5);
            report.figure(format!("{name}, broker's CPU a record"), cpu, "µs", None);
        }
    }
}

/// A run, and the CPU time that the broker used meanwhile, if it is ours to look at.
fn timed(broker: &Broker, work: impl FnOnce() -> Outcome<Run>) -> Outcome<(Run, Option<Duration>)> {
    let before = broker.process().map(cpu).transpose()?;
    let run = work()?;
    let after = broker.process().map(cpu).transpose()?;
    Ok((run, after.zip(before).map(|(after, before)| after - before)))
}

/// Reads a topic from its beginning, first record to last.
fn read(broker: &Broker, topic: &str, records: u64) -> Outcome<Run> {
    let consumer = client::consumer(broker, "bench-out")?;
    client::assign_all(&consumer, topic)?;
    let mut first = None;
    let mut seen = 0;
    while seen < records {
        let Some(record) = consumer.poll(client::WAIT_MAX) else {
            return Err(format!("{seen} of {records} records could be read").into());
        };
        record?;
        if seen == 0 {
            first = Some((Instant::now(), cpu(std::process::id())?));
        }
        seen += 1;
    }
    let (started, cpu_before) = first.ok_or("there was nothing to read")?;
    let took = started.elapsed();
    let run = Run::new(seen, took, cpu(std::process::id())? - cpu_before);
    consumer.unassign()?;
    Ok(run)
}
