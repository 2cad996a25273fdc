//! The real servers, as the project's scripts start them: Apache Kafka with the thread pools and the
//! heap of its defaults, PostgreSQL with every commit on disk before it is answered.

use std::path::Path;
use std::process::Command;

use uuid::Uuid;

use crate::Outcome;
use crate::target::Broker;

/// What a report says of Apache Kafka.
pub(crate) const HOW: &str = "with its default threads and a heap of 1 GiB";

/// The defaults where the script has smaller ones, for tests.
const DEFAULTS: &str = "num.network.threads=3\nnum.io.threads=8\nbackground.threads=10\n\
    log.cleaner.dedupe.buffer.size=134217728\noffsets.topic.num.partitions=50\n";

/// One node of Apache Kafka. Stopped, and its data removed, when dropped.
pub(crate) struct Apache {
    pub(crate) broker: Broker,
    pub(crate) process: u32,
    port: String,
}

impl Apache {
    /// Starts a node with further settings, in the form of its properties file.
    pub(crate) fn start(settings: &str) -> Outcome<Self> {
        let port = free_port();
        let settings = format!("{DEFAULTS}{settings}");
        let environment = [("KAFKA_HEAP", "1g"), ("KAFKA_SETTINGS", settings.as_str())];
        let told = script("kafka.sh", &["start", &port], &environment)?;
        let address = setting(&told, "KAFKA_BOOTSTRAP_SERVERS")?;
        let mut apache = Apache {
            broker: Broker::at(address),
            process: 0,
            port,
        };
        apache.process = process("kafka.sh", &apache.port)?;
        Ok(apache)
    }
}

impl Drop for Apache {
    fn drop(&mut self) {
        // Nobody is left to tell.
        let _ = script("kafka.sh", &["stop", &self.port], &[]);
    }
}

/// An empty PostgreSQL. Stopped, and its data removed, when dropped.
pub(crate) struct Postgres {
    url: String,
    process: u32,
    port: String,
}

impl Postgres {
    pub(crate) fn start() -> Outcome<Self> {
        let port = free_port();
        let told = script("postgres.sh", &["start", &port], &[])?;
        let mut postgres = Postgres {
            url: setting(&told, "DATABASE_URL")?.to_owned(),
            process: 0,
            port,
        };
        postgres.process = process("postgres.sh", &postgres.port)?;
        Ok(postgres)
    }

    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// The one that starts the others.
    pub(crate) fn process(&self) -> u32 {
        self.process
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        // Nobody is left to tell.
        let _ = script("postgres.sh", &["stop", &self.port], &[]);
    }
}

/// One of a free pair of ports; drawn, because several runs may share a machine, and from those below
/// 32768, which the system gives to nobody by itself.
fn free_port() -> String {
    (20_000 + Uuid::new_v4().as_u128() % 6_000 * 2).to_string()
}

/// The process of a server, as `status` tells it.
fn process(name: &str, port: &str) -> Outcome<u32> {
    let status = script(name, &["status", port], &[])?;
    let (_, process) = status
        .rsplit_once("process ")
        .ok_or_else(|| format!("scripts/{name} did not name the server's process"))?;
    Ok(process.trim_end().trim_end_matches(')').parse()?)
}

/// A setting that a script printed.
fn setting<'t>(told: &'t str, name: &str) -> Outcome<&'t str> {
    let value = |line: &'t str| line.strip_prefix(name)?.strip_prefix('=');
    told.lines()
        .find_map(value)
        .ok_or_else(|| format!("the script did not print {name}").into())
}

fn script(name: &str, arguments: &[&str], environment: &[(&str, &str)]) -> Outcome<String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts");
    let done = Command::new(folder.join(name))
        .args(arguments)
        .envs(environment.iter().copied())
        .output()?;
    if !done.status.success() {
        let said = String::from_utf8_lossy(&done.stderr);
        return Err(format!("scripts/{name} {}: {}", arguments.join(" "), said.trim()).into());
    }
    Ok(String::from_utf8_lossy(&done.stdout).into_owned())
}
