//! Work that waits, by key on one partition: are all lanes busy all the time?
//!
//! The reference is as many plain tasks as there are lanes, each of which does the same work over
//! and over: that is lanes ÷ work time, as this machine and tokio's timer really keep it. Both
//! rates are taken between a tenth and nine tenths of the records, so that neither the filling nor
//! the emptying of the lanes counts.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use ackwell::{App, Listener, TopicDeclaration, by_key};
use tokio::task::JoinSet;

use crate::listener::{config, runtime, until_done};
use crate::meter::Meter;
use crate::process::work_folder;
use crate::report::{Goal, Report, Run};
use crate::target::{Broker, Target};
use crate::{Outcome, client, note};

const GOAL: Goal = Goal::AtLeast(0.95);

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Lanes; may be repeated.
    #[arg(long, default_values_t = [64, 1000])]
    lanes: Vec<u16>,
    /// How long the work of a record takes, in milliseconds.
    #[arg(long, default_value_t = 10)]
    work: u64,
    /// How long a run would take if nothing but the work took time, in seconds.
    #[arg(long, default_value_t = 8)]
    seconds: u64,
    /// Runs of each side; they take turns.
    #[arg(long, default_value_t = 3)]
    runs: usize,
    #[command(flatten)]
    target: Target,
}

pub(crate) fn run(arguments: &Arguments) -> Outcome<Report> {
    let data = work_folder()?;
    let broker = arguments.target.start(data.path(), &[])?;
    let method = format!(
        "{} ms of work a record, one partition, every record with a key of its own, {}; {} runs a side in turns",
        arguments.work,
        arguments.target.name(),
        arguments.runs
    );
    let mut report = Report::new("lanes", method);
    for lanes in &arguments.lanes {
        one(&mut report, &broker, *lanes, arguments)?;
    }
    Ok(report)
}

fn one(report: &mut Report, broker: &Broker, lanes: u16, arguments: &Arguments) -> Outcome<()> {
    let work = Duration::from_millis(arguments.work.max(1));
    let a_second = u64::from(lanes) * 1000 / arguments.work.max(1);
    let records = a_second * arguments.seconds;
    let topic = client::fresh("bench-lanes");
    client::create_topic(broker, &topic, 1)?;
    note(&format!("{lanes} lanes: filling the topic"));
    client::send(broker, &topic, records, |number, record| {
        client::plain_record(number, record)?;
        record.key.clear();
        std::fmt::Write::write_fmt(&mut record.key, format_args!("key-{number}"))
    })?;

    let (mut plain, mut ours) = (Vec::new(), Vec::new());
    for turn in 1..=arguments.runs {
        plain.push(tasks(lanes, work, records)?);
        ours.push(listener(broker, &topic, lanes, work, records)?);
        let rates = (plain[turn - 1].rate(), ours[turn - 1].rate());
        note(&format!(
            "{lanes} lanes, turn {turn}: {:.0}, {:.0} records/s",
            rates.0, rates.1
        ));
    }
    let tasks = report.side(format!("{lanes} plain tasks"), plain);
    let lanes_rate = report.side(format!("Ackwell, by_key({lanes})"), ours);
    let ratio = lanes_rate / tasks;
    report.figure(format!("by_key({lanes}) / tasks"), ratio, "", Some(GOAL));
    Ok(())
}

fn tasks(lanes: u16, work: Duration, records: u64) -> Outcome<Run> {
    let middle = Middle::of(records);
    runtime()?.block_on(async {
        let mut set = JoinSet::new();
        for _ in 0..lanes {
            let middle = Arc::clone(&middle);
            set.spawn(async move {
                while !middle.is_over() {
                    tokio::time::sleep(work).await;
                    middle.count();
                }
            });
        }
        set.join_all().await;
    });
    middle.meter.run()
}

fn listener(
    broker: &Broker,
    topic: &str,
    lanes: u16,
    work: Duration,
    records: u64,
) -> Outcome<Run> {
    let middle = Middle::of(records);
    let counting = Arc::clone(&middle);
    let handle = move || {
        let middle = Arc::clone(&counting);
        async move {
            tokio::time::sleep(work).await;
            middle.count();
        }
    };
    let group = client::fresh("lanes");
    let listener = Listener::on(TopicDeclaration::named(topic.to_owned()))
        .group(group.clone())
        .concurrency(by_key(lanes))
        .handle(handle);
    let app = App::new(config(broker)).named("bench").listener(listener);
    until_done(&runtime()?, app, middle.all.all())?;
    let committed = client::committed(broker, &group, topic, 1)?;
    if committed != i64::try_from(records)? {
        return Err(format!("committed {committed} of {records} records").into());
    }
    middle.meter.run()
}

/// Counts all records, and takes the time over the middle eight tenths of them.
struct Middle {
    all: &'static Meter,
    meter: &'static Meter,
    seen: AtomicU64,
    from: u64,
    until: u64,
}

impl Middle {
    fn of(records: u64) -> Arc<Self> {
        let (from, until) = (records / 10, records * 9 / 10);
        Arc::new(Self {
            all: Meter::of(records),
            meter: Meter::of(until - from),
            seen: AtomicU64::new(0),
            from,
            until,
        })
    }

    fn count(&self) {
        let seen = self.seen.fetch_add(1, Ordering::Relaxed);
        if (self.from..self.until).contains(&seen) && self.meter.count() {
            self.meter.finish();
        }
        self.all.count();
    }

    fn is_over(&self) -> bool {
        self.seen.load(Ordering::Relaxed) >= self.all.expected()
    }
}
