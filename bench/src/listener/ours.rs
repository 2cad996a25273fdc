//! Ackwell's side: an app with one listener, all settings at their defaults.

use std::time::Duration;

use ackwell::config::{Config, Kafka};
use ackwell::extract::{Ack, Raw};
use ackwell::{AckMode, App, Listener, TopicDeclaration};
use tokio::runtime::{Builder, Runtime};

use super::Way;
use crate::meter::Meter;
use crate::target::Broker;
use crate::{Outcome, client};

pub(super) fn run(
    broker: &Broker,
    group: &str,
    topic: &str,
    way: Way,
    meter: &'static Meter,
) -> Outcome<()> {
    let builder = Listener::on(TopicDeclaration::named(topic.to_owned()))
        .group(group.to_owned())
        .ack_mode(mode(way));
    let builder = if way == Way::StrictBatch {
        builder.strict_commits()
    } else {
        builder
    };
    let listener = if matches!(way, Way::Manual | Way::ManualImmediate) {
        builder.handle(move |Raw(value): Raw, ack: Ack| async move {
            ack.acknowledge();
            count(meter, &value);
        })
    } else {
        builder.handle(move |Raw(value): Raw| async move { count(meter, &value) })
    };
    let app = App::new(config(broker)).named("bench").listener(listener);
    until_done(&runtime()?, app, meter.all())
}

fn count(meter: &Meter, value: &[u8]) {
    std::hint::black_box(value.len());
    if meter.count() {
        meter.finish();
    }
}

fn mode(way: Way) -> AckMode {
    const EVERY: Duration = Duration::from_secs(1);
    match way {
        Way::Record => AckMode::Record,
        Way::Time => AckMode::Time(EVERY),
        Way::Count => AckMode::Count(1_000),
        Way::CountOrTime => AckMode::CountOrTime(1_000, EVERY),
        Way::Manual => AckMode::Manual,
        Way::ManualImmediate => AckMode::ManualImmediate,
        Way::Bare | Way::BareHeaders | Way::Batch | Way::StrictBatch => AckMode::Batch,
    }
}

/// What a service runs on.
pub(crate) fn runtime() -> Outcome<Runtime> {
    let built = Builder::new_multi_thread().enable_all().build();
    Ok(built?)
}

/// The defaults, on this broker.
pub(crate) fn config(broker: &Broker) -> Config {
    let own = broker
        .settings()
        .map(|(name, value)| (name.to_owned(), value.to_owned()));
    Config {
        kafka: Kafka {
            consumer: own.collect(),
            bootstrap_servers: broker.address().to_owned(),
            ..Kafka::default()
        },
        ..Config::default()
    }
}

/// Runs an app until its work is done, and stops it.
pub(crate) fn until_done(
    runtime: &Runtime,
    app: App,
    done: impl Future<Output = ()>,
) -> Outcome<()> {
    runtime.block_on(async {
        let app = app.start().await?;
        let counted = tokio::time::timeout(client::WAIT_MAX, done).await;
        app.stop().await?;
        counted.map_err(|_| {
            format!("the listener did not finish within {:?}", client::WAIT_MAX).into()
        })
    })
}
