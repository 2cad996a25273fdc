//! A backlog costs disk, not memory.
//!
//! A listener in a process of its own meets ten million records. First its handlers stand still,
//! so that everything that may wait does; then they work the backlog off. Its memory is looked at
//! from outside all the time.

use std::process::{Command, Stdio};
use std::time::Duration;

use ackwell::extract::Raw;
use ackwell::{App, Listener, TopicDeclaration};
use tokio::sync::watch;

use crate::listener::{config, runtime, until_done};
use crate::memory::{self, sampled};
use crate::meter::Meter;
use crate::process::work_folder;
use crate::report::{Goal, Report, Run};
use crate::target::{Broker, Target};
use crate::{Outcome, client, note};

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Records of the backlog.
    #[arg(long, default_value_t = 10_000_000)]
    records: u64,
    /// Partitions of the topic.
    #[arg(long, default_value_t = 6)]
    partitions: i32,
    /// How long the handlers stand still first, in seconds.
    #[arg(long, default_value_t = 10)]
    still: u64,
    /// Be the listener on this topic of `--bootstrap-servers`; the benchmark starts itself so.
    #[arg(long, hide = true)]
    listen: Option<String>,
    #[command(flatten)]
    target: Target,
}

pub(crate) fn run(arguments: &Arguments) -> Outcome<Report> {
    let data = work_folder()?;
    let broker = arguments.target.start(data.path(), &[])?;
    if let Some(topic) = &arguments.listen {
        let run = listen(&broker, topic, arguments)?;
        let mut report = Report::new("backlog-listener", String::new());
        report.side("listener", vec![run]);
        return Ok(report);
    }
    let method = format!(
        "{} records of {} bytes, {} partitions, {}; handlers stand still for {} s, then do nothing",
        arguments.records,
        client::VALUE_BYTES,
        arguments.partitions,
        arguments.target.name(),
        arguments.still
    );
    let mut report = Report::new("backlog", method);
    let (small, _) = worked_off(&broker, arguments.records / 2, arguments)?;
    let (memory, told) = worked_off(&broker, arguments.records, arguments)?;
    let rate = told["sides"][0]["records_per_second"]["median"].as_f64();
    report.figure("worked off at", rate.unwrap_or(f64::NAN), "records/s", None);
    memory::tell(&mut report, &memory);
    let most = |memory: &[f64]| memory.iter().copied().fold(0.0, f64::max);
    let (half, whole) = (most(&small), most(&memory));
    report.figure("at most with half of the records", half, "MiB", None);
    report.figure("all / half", whole / half, "", Some(Goal::AtMost(1.1)));
    Ok(report)
}

/// A listener in a process of its own works a backlog off: its memory, and what it told.
fn worked_off(
    broker: &Broker,
    records: u64,
    arguments: &Arguments,
) -> Outcome<(Vec<f64>, serde_json::Value)> {
    let topic = client::fresh("bench-backlog");
    client::create_topic(broker, &topic, arguments.partitions)?;
    note(&format!("filling the topic with {records} records"));
    client::send(broker, &topic, records, client::plain_record)?;
    note("starting the listener");
    let child = Command::new(std::env::current_exe()?)
        .args(["--json", "backlog", "--listen", &topic])
        .args(["--bootstrap-servers", broker.address()])
        .args(["--records", &records.to_string()])
        .args(["--still", &arguments.still.to_string()])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()?;
    let (memory, output) = sampled(&[child.id()], || Ok(child.wait_with_output()?))?;
    if !output.status.success() {
        return Err("the listener failed".into());
    }
    Ok((memory, serde_json::from_slice(&output.stdout)?))
}

fn listen(broker: &Broker, topic: &str, arguments: &Arguments) -> Outcome<Run> {
    let meter = Meter::of(arguments.records);
    let (open, gate) = watch::channel(false);
    let count = move |Raw(value): Raw| {
        let mut gate = gate.clone();
        async move {
            if !*gate.borrow_and_update() {
                // It opens before the channel is dropped.
                let _ = gate.changed().await;
            }
            std::hint::black_box(value.len());
            if meter.count() {
                meter.finish();
            }
        }
    };
    let listener = Listener::on(TopicDeclaration::named(topic.to_owned()))
        .group(client::fresh("backlog"))
        .handle(count);
    let app = App::new(config(broker)).named("bench").listener(listener);
    let runtime = runtime()?;
    let still = Duration::from_secs(arguments.still);
    runtime.spawn(async move {
        tokio::time::sleep(still).await;
        open.send_replace(true);
        std::future::pending::<()>().await;
    });
    until_done(&runtime, app, meter.all())?;
    meter.run()
}
