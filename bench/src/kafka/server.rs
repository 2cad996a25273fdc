//! Apache Kafka as `scripts/kafka.sh` starts it, with the thread pools and the heap of its defaults.

use std::path::{Path, PathBuf};
use std::process::Command;

use uuid::Uuid;

use crate::Outcome;
use crate::target::Broker;

/// What a report says of it.
pub(super) const HOW: &str = "with its default threads and a heap of 1 GiB";

/// The defaults where the script has smaller ones, for tests.
const DEFAULTS: &str = "num.network.threads=3\nnum.io.threads=8\nbackground.threads=10\n\
    log.cleaner.dedupe.buffer.size=134217728\noffsets.topic.num.partitions=50\n";

/// One node. Stopped, and its data removed, when dropped.
pub(super) struct Apache {
    pub(super) broker: Broker,
    pub(super) process: u32,
    port: String,
}

impl Apache {
    /// Starts a node with further settings, in the form of its properties file.
    pub(super) fn start(settings: &str) -> Outcome<Self> {
        // Any pair of free ports; drawn, because several runs may share a machine.
        let port = (20_000 + Uuid::new_v4().as_u128() % 20_000 * 2).to_string();
        let settings = format!("{DEFAULTS}{settings}");
        let told = script(&["start", &port], &settings)?;
        let address = told
            .lines()
            .find_map(|line| line.strip_prefix("KAFKA_BOOTSTRAP_SERVERS="))
            .ok_or("the script did not say where Apache Kafka listens")?;
        let mut apache = Apache {
            broker: Broker::at(address),
            process: 0,
            port,
        };
        let status = script(&["status", &apache.port], "")?;
        let (_, process) = status
            .rsplit_once("process ")
            .ok_or("the script did not name the process of Apache Kafka")?;
        apache.process = process.trim_end().trim_end_matches(')').parse()?;
        Ok(apache)
    }
}

impl Drop for Apache {
    fn drop(&mut self) {
        // Nobody is left to tell.
        let _ = script(&["stop", &self.port], "");
    }
}

fn script(arguments: &[&str], settings: &str) -> Outcome<String> {
    let path: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/kafka.sh");
    let done = Command::new(path)
        .args(arguments)
        .env("KAFKA_HEAP", "1g")
        .env("KAFKA_SETTINGS", settings)
        .output()?;
    if !done.status.success() {
        let said = String::from_utf8_lossy(&done.stderr);
        return Err(format!("scripts/kafka.sh {}: {}", arguments.join(" "), said.trim()).into());
    }
    Ok(String::from_utf8_lossy(&done.stdout).into_owned())
}
