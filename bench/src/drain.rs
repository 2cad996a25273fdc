//! A stop with a thousand records in work: it waits for handlers that end, not for those that
//! don't, and loses neither.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use ackwell::config::{Config, Stop};
use ackwell::{App, Listener, TopicDeclaration, by_key};

use crate::listener::{config, runtime};
use crate::process::work_folder;
use crate::report::{Goal, Report};
use crate::target::{Broker, Target};
use crate::{Outcome, client, note};

/// More lanes than records, so that nearly all of them are in work at once.
const LANES: u16 = 20_000;
/// How often the number of records in work is looked at.
const LOOK: Duration = Duration::from_millis(5);

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Records that are in work when the stop begins.
    #[arg(long, default_value_t = 1_000)]
    records: u64,
    /// How long handlers that end take, in milliseconds.
    #[arg(long, default_value_t = 1_000)]
    work: u64,
    /// How long the stop waits for them, in milliseconds.
    #[arg(long, default_value_t = 3_000)]
    limit: u64,
    #[command(flatten)]
    target: Target,
}

pub(crate) fn run(arguments: &Arguments) -> Outcome<Report> {
    let data = work_folder()?;
    let broker = arguments.target.start(data.path(), &[])?;
    let (work, limit) = (
        Duration::from_millis(arguments.work),
        Duration::from_millis(arguments.limit),
    );
    let method = format!(
        "{} records in work, one partition, drain limit {limit:?}, {}",
        arguments.records,
        arguments.target.name()
    );
    let mut report = Report::new("drain", method);

    let ending = one(&broker, arguments, Some(work))?;
    report.figure(
        format!("stop, handlers end after {work:?}"),
        ending.stop.as_secs_f64(),
        "s",
        Some(Goal::AtMost(limit.as_secs_f64())),
    );
    report.figure("handled by then", ending.handled as f64, "", None);
    report.figure("handled after a restart", ending.after as f64, "", None);

    let stuck = one(&broker, arguments, None)?;
    // The limit also covers the cancelling, the last commit and leaving the group.
    report.figure(
        "stop, handlers never end",
        stuck.stop.as_secs_f64(),
        "s",
        Some(Goal::AtMost(limit.as_secs_f64())),
    );
    report.figure("handled by then", stuck.handled as f64, "", None);
    report.figure("handled after a restart", stuck.after as f64, "", None);
    Ok(report)
}

struct Stopped {
    stop: Duration,
    handled: u64,
    after: u64,
}

/// Stops a listener in the middle of its work, and counts what another one finds left to do.
fn one(broker: &Broker, arguments: &Arguments, work: Option<Duration>) -> Outcome<Stopped> {
    let (topic, group) = (client::fresh("bench-drain"), client::fresh("drain"));
    client::create_topic(broker, &topic, 1)?;
    // Some keys share a lane: their later records are not in work yet.
    let sent = arguments.records + arguments.records / 10;
    client::send(broker, &topic, sent, |number, record| {
        client::plain_record(number, record)
    })?;
    let limit = Duration::from_millis(arguments.limit);
    let first = Counts::default();
    let app = app(broker, &topic, &group, limit, Arc::clone(&first.0), work);
    let stop = runtime()?.block_on(async {
        let app = app.start().await?;
        first
            .wait(|counts| counts.begun >= arguments.records)
            .await?;
        let started = Instant::now();
        app.stop().await?;
        Outcome::Ok(started.elapsed())
    })?;
    let handled = first.0.ended.load(Ordering::Relaxed);
    note(&format!(
        "stopped after {stop:?}, {handled} of {sent} handled"
    ));

    let second = Counts::default();
    let app = self::app(
        broker,
        &topic,
        &group,
        limit,
        Arc::clone(&second.0),
        Some(Duration::ZERO),
    );
    runtime()?.block_on(async {
        let app = app.start().await?;
        second.wait(|counts| counts.ended >= sent - handled).await?;
        app.stop().await?;
        Outcome::Ok(())
    })?;
    let after = second.0.ended.load(Ordering::Relaxed);
    if handled + after != sent {
        return Err(format!("{handled} before and {after} after the stop are not {sent}").into());
    }
    Ok(Stopped {
        stop,
        handled,
        after,
    })
}

fn app(
    broker: &Broker,
    topic: &str,
    group: &str,
    drain: Duration,
    counts: Arc<Shared>,
    work: Option<Duration>,
) -> App {
    let handle = move || {
        let counts = Arc::clone(&counts);
        async move {
            counts.begun.fetch_add(1, Ordering::Relaxed);
            match work {
                Some(work) => tokio::time::sleep(work).await,
                None => std::future::pending().await,
            }
            counts.ended.fetch_add(1, Ordering::Relaxed);
        }
    };
    let listener = Listener::on(TopicDeclaration::named(topic.to_owned()))
        .group(group.to_owned())
        .concurrency(by_key(LANES))
        .handle(handle);
    let config = Config {
        stop: Stop { drain },
        ..config(broker)
    };
    App::new(config).named("bench").listener(listener)
}

#[derive(Default)]
struct Shared {
    begun: AtomicU64,
    ended: AtomicU64,
}

#[derive(Default)]
struct Counts(Arc<Shared>);

struct Seen {
    begun: u64,
    ended: u64,
}

impl Counts {
    async fn wait(&self, reached: impl Fn(&Seen) -> bool) -> Outcome<()> {
        let until = Instant::now() + client::WAIT_MAX;
        loop {
            let seen = Seen {
                begun: self.0.begun.load(Ordering::Relaxed),
                ended: self.0.ended.load(Ordering::Relaxed),
            };
            if reached(&seen) {
                return Ok(());
            }
            if Instant::now() > until {
                let Seen { begun, ended } = seen;
                return Err(format!("{begun} records were begun and {ended} ended").into());
            }
            tokio::time::sleep(LOOK).await;
        }
    }
}
