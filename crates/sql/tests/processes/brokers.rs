//! The brokers under a test: embedded in its process, in a process of their own, or Apache Kafka.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use ackwell_broker::{Broker, Config};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

use super::within;

const FOLDER: &str = "ACKWELL_BROKER_FOLDER";
const LISTEN: &str = "ACKWELL_BROKER_LISTEN";
/// The name of the ignored test that a file with a broker's process has.
const TEST: &str = "serves_until_it_is_killed";
const SAYS: &str = "@ listening on ";

pub struct Brokers {
    servers: String,
    kind: Kind,
}

enum Kind {
    /// In this process.
    Embedded { _broker: Broker, _folder: TempDir },
    /// In a process that can be killed.
    Process {
        child: Option<Child>,
        folder: TempDir,
    },
    /// Named by `KAFKA_BOOTSTRAP_SERVERS`.
    Outside,
}

impl Brokers {
    /// Apache Kafka if `KAFKA_BOOTSTRAP_SERVERS` names it, otherwise one in this process.
    pub async fn start() -> Self {
        if let Some(outside) = Self::outside() {
            return outside;
        }
        let folder = tempfile::tempdir().unwrap();
        let broker = Broker::start(config(folder.path(), "127.0.0.1:0"))
            .await
            .unwrap();
        Self {
            servers: broker.local_addr().to_string(),
            kind: Kind::Embedded {
                _broker: broker,
                _folder: folder,
            },
        }
    }

    /// The same, of which [`kill`](Self::kill) can kill one.
    pub async fn mortal() -> Self {
        if let Some(outside) = Self::outside() {
            return outside;
        }
        let folder = tempfile::tempdir().unwrap();
        let (child, servers) = serve(folder.path(), "127.0.0.1:0").await;
        let child = Some(child);
        Self {
            servers,
            kind: Kind::Process { child, folder },
        }
    }

    fn outside() -> Option<Self> {
        let servers = std::env::var("KAFKA_BOOTSTRAP_SERVERS").ok()?;
        let kind = Kind::Outside;
        Some(Self { servers, kind })
    }

    pub fn servers(&self) -> &str {
        &self.servers
    }

    /// Whether they are our own.
    pub fn are_embedded(&self) -> bool {
        !matches!(self.kind, Kind::Outside)
    }

    /// How many brokers there are.
    pub fn count(&self) -> usize {
        self.servers.split(',').count()
    }

    /// SIGKILL for the `number`-th broker, from 1.
    pub async fn kill(&mut self, number: usize) {
        match &mut self.kind {
            Kind::Embedded { .. } => panic!("it would take the test with it"),
            Kind::Process { child, .. } => child.take().unwrap().kill().await.unwrap(),
            Kind::Outside => script("kill", number, &self.servers).await,
        }
    }

    /// Starts it again on its data; returns when it answers.
    pub async fn restart(&mut self, number: usize) {
        match &mut self.kind {
            Kind::Embedded { .. } => panic!("it was not killed"),
            Kind::Process { child, folder } => {
                *child = Some(serve(folder.path(), &self.servers).await.0);
            }
            Kind::Outside => script("restart", number, &self.servers).await,
        }
    }
}

/// Gives a cluster of `scripts/kafka.sh`, which is named by its first port, an order.
async fn script(order: &str, number: usize, servers: &str) {
    let first = servers.split(',').next().unwrap();
    let port = first.rsplit(':').next().unwrap();
    let script = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../scripts/kafka.sh");
    let output = Command::new(script)
        .args([order, &number.to_string(), port])
        .output();
    let output = within("scripts/kafka.sh", output).await.unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{order} {number}: {said}");
}

async fn serve(folder: &Path, listen: &str) -> (Child, String) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", TEST, "--ignored", "--nocapture"])
        .env(FOLDER, folder)
        .env(LISTEN, listen)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let address = within("the broker to start", async {
        loop {
            let line = lines.next_line().await.unwrap();
            let line = line.unwrap_or_else(|| panic!("the broker did not start"));
            if let Some(address) = line.strip_prefix(SAYS) {
                return address.to_owned();
            }
        }
    });
    (child, address.await)
}

/// What the broker's process does. It ends when its test does: its parent is then another.
pub async fn serve_until_killed() {
    let (Ok(folder), Ok(listen)) = (std::env::var(FOLDER), std::env::var(LISTEN)) else {
        return;
    };
    let broker = Broker::start(config(Path::new(&folder), &listen))
        .await
        .unwrap();
    println!("\n{SAYS}{}", broker.local_addr());
    let parent = std::os::unix::process::parent_id();
    while std::os::unix::process::parent_id() == parent {
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

fn config(folder: &Path, listen: &str) -> Config {
    let mut config = Config::new(folder);
    config.listen = listen.to_owned();
    config
}
