//! The real program, started as users start it, on ports and a folder of its own.

#![allow(dead_code, reason = "each test file uses its part")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "helpers of tests fail as tests do"
)]

#[path = "../../../crates/ackwell/tests/support/kafka.rs"]
mod kafka;
pub(crate) mod wire;

use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};
use tokio::time::timeout;

/// Settings under which orders go through flow A.
pub(crate) const CHOREOGRAPHY: &str = "[orders]\nflow = \"choreography\"\n";

/// How long anything may take before the test fails: generous, machines differ.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// Services close a connection on which nothing comes for 10 s: shorter, so that no request meets that.
const HTTP_IDLE_MAX: Duration = Duration::from_secs(5);

/// How long a process may take to leave its groups after its test.
const LEAVE_MAX: Duration = Duration::from_secs(15);

use kafka::Kafka;

/// A data folder, and the addresses that `orders` had on it; a restart has them again.
pub(crate) struct System {
    folder: TempDir,
    pub(crate) broker: String,
    pub(crate) order: String,
    pub(crate) product: String,
    pub(crate) payment: String,
    pub(crate) user: String,
    pub(crate) notification: String,
    pub(crate) http: reqwest::Client,
    process: Option<Child>,
    /// The broker is not that of `process`.
    apart: bool,
    /// The Kafka that the tests run on, which is this system's alone while it lasts.
    _kafka: Option<Kafka>,
}

/// A process and what it says on standard output.
pub(crate) struct Said {
    pub(crate) child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl System {
    /// Starts `orders` on free ports and waits until it is ready. Its broker is the embedded one, or
    /// the Kafka that `KAFKA_BOOTSTRAP_SERVERS` names, emptied.
    pub(crate) async fn start() -> Self {
        Self::start_with("").await
    }

    /// The same with these settings, as they stand in `ackwell.toml`.
    pub(crate) async fn start_with(settings: &str) -> Self {
        let zero = || "127.0.0.1:0".to_owned();
        let mut system = Self::apart(zero());
        (system.order, system.product) = (zero(), zero());
        system.file("ackwell.toml", settings);
        system.apart = on_kafka();
        if on_kafka() {
            let kafka = Kafka::start().await;
            system.broker.clone_from(&kafka.address);
            system._kafka = Some(kafka);
        }
        system.restart().await;
        system
    }

    /// A folder for services that are started one by one, on the broker at this address.
    pub(crate) fn apart(broker: String) -> Self {
        let http = reqwest::Client::builder().no_proxy();
        let http = http.pool_idle_timeout(HTTP_IDLE_MAX).build().unwrap();
        Self {
            folder: tempfile::tempdir().unwrap(),
            broker,
            order: String::new(),
            product: String::new(),
            payment: String::new(),
            user: String::new(),
            notification: String::new(),
            http,
            process: None,
            apart: true,
            _kafka: None,
        }
    }

    /// A folder for services that are started one by one, on a broker of its own, or on the Kafka that
    /// `KAFKA_BOOTSTRAP_SERVERS` names, emptied.
    pub(crate) async fn on_a_broker() -> Self {
        let kafka = Kafka::start().await;
        let mut system = Self::apart(kafka.address.clone());
        system._kafka = Some(kafka);
        system
    }

    /// `orders serve`, ready; its address.
    pub(crate) async fn serve(&self, service: &str) -> (Child, String) {
        let mut command = self.command(&["serve", service, "--order-port=0", "--product-port=0"]);
        let mut said = spawn(
            command.env("KAFKA_BOOTSTRAP_SERVERS", &self.broker),
            self.log(service),
        );
        let url = said.value_of(&format!("{service} service")).await;
        said.line("ready").await;
        (said.into_child(), url)
    }

    /// Starts `orders` again, on the same ports and folder.
    pub(crate) async fn restart(&mut self) {
        assert!(self.process.is_none(), "it runs");
        let port = |address: &str| address.rsplit(':').next().unwrap().to_owned();
        let broker = match self.apart {
            false => ("--broker-port", port(&self.broker)),
            true => ("--bootstrap-servers", self.broker.clone()),
        };
        let flags = [
            ("--order-port", port(&self.order)),
            ("--product-port", port(&self.product)),
            broker,
        ];
        let flags = flags.map(|(flag, value)| format!("{flag}={value}"));
        let mut said = spawn(self.command(&["all"]).args(flags), self.log("orders"));
        if !self.apart {
            self.broker = said.value_of("broker").await;
        }
        self.order = said.value_of("order service").await;
        self.product = said.value_of("product service").await;
        self.payment = said.value_of("payment service").await;
        self.user = said.value_of("user service").await;
        self.notification = said.value_of("notification service").await;
        said.line("ready").await;
        self.process = Some(said.into_child());
    }

    /// SIGKILL.
    pub(crate) async fn kill(&mut self) {
        kill(self.process.take().expect("it runs")).await;
    }

    /// SIGTERM; waits for the end.
    pub(crate) async fn stop(&mut self) -> ExitStatus {
        let mut process = self.process.take().expect("it runs");
        terminate(&process).await;
        timeout(PATIENCE, process.wait())
            .await
            .expect("it stops")
            .unwrap()
    }

    /// A command on this system's folder and services.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = orders(self.folder.path());
        command.args(args).arg("--data").arg(self.data());
        command
    }

    /// `orders import`, with its JSON report.
    pub(crate) async fn import(&self, file: &Path, more: &[&str]) -> (Value, Output) {
        let output = self.importing(file, more).output().await.unwrap();
        let report = serde_json::from_slice(&output.stdout);
        (
            report.unwrap_or_else(|_| panic!("no report: {}", shown(&output))),
            output,
        )
    }

    /// The command of an import.
    pub(crate) fn importing(&self, file: &Path, more: &[&str]) -> Command {
        let mut command = self.command(&["import", "--json"]);
        command
            .arg(file)
            .args(["--order-url", &self.order, "--product-url", &self.product])
            .args(more);
        command
    }

    /// `orders audit`, while `orders` runs or not: it finds the broker by the data folder.
    pub(crate) async fn audit(&self) -> (bool, Value) {
        let mut command = self.command(&["audit", "--json"]);
        if self.apart {
            command.args(["--bootstrap-servers", &self.broker]);
        }
        let output = command.output().await.unwrap();
        let report = serde_json::from_slice(&output.stdout);
        (
            output.status.success(),
            report.unwrap_or_else(|_| panic!("no report: {}", shown(&output))),
        )
    }

    /// The audit must be clean; its report.
    pub(crate) async fn clean_audit(&self) -> Value {
        let (clean, report) = self.audit().await;
        assert!(clean, "the books differ: {:#}", report["differences"]);
        report
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    pub(crate) fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    }

    pub(crate) async fn get(&self, url: String) -> Value {
        let response = self.http.get(url).send().await.unwrap();
        assert!(response.status().is_success(), "{}", response.status());
        response.json().await.unwrap()
    }

    pub(crate) async fn put_product(&self, id: &str, stock: i64) {
        let body = serde_json::json!({"name": id, "stock": stock});
        let url = format!("{}/products/{id}", self.product);
        assert!(
            self.http
                .put(url)
                .json(&body)
                .send()
                .await
                .unwrap()
                .status()
                .is_success()
        );
    }

    /// Places an order of one item; its id.
    pub(crate) async fn place(&self, key: &str, product: &str, quantity: u32) -> String {
        let body = serde_json::json!({
            "customer_id": "1",
            "items": [{"product_id": product, "quantity": quantity, "unit_price": "1.00"}],
        });
        let request = self
            .http
            .post(format!("{}/orders", self.order))
            .header("Idempotency-Key", key)
            .json(&body);
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), 202);
        response.json::<Value>().await.unwrap()["order_id"]
            .as_str()
            .unwrap()
            .to_owned()
    }

    /// The order, once it is final.
    pub(crate) async fn final_order(&self, id: &str) -> Value {
        let url = format!("{}/orders/{id}", self.order);
        until(async || {
            Some(self.get(url.clone()).await).filter(|order| order["status"] != "PENDING")
        })
        .await
    }

    /// What the customer of an order was told, once there is something.
    pub(crate) async fn told(&self, id: &str) -> Value {
        let url = format!("{}/notifications/{id}", self.notification);
        until(async || {
            let response = self.http.get(&url).send().await.unwrap();
            match response.status().as_u16() {
                404 => None,
                _ => Some(response.json().await.unwrap()),
            }
        })
        .await
    }

    /// Waits until so many orders are accepted.
    pub(crate) async fn accepted(&self, count: usize) {
        let url = format!("{}/orders?limit=1000", self.order);
        until(async || {
            let page = self.get(url.clone()).await;
            (page["orders"].as_array().unwrap().len() >= count).then_some(())
        })
        .await;
    }

    /// Where a process's standard error goes.
    pub(crate) fn log(&self, name: &str) -> File {
        let path = self.folder.path().join(format!("{name}.log"));
        OpenOptions::new()
            .create(true)
            .append(true)
            .open(path)
            .unwrap()
    }

    pub(crate) fn root(&self) -> &Path {
        self.folder.path()
    }
}

impl Drop for System {
    fn drop(&mut self) {
        if let Some(process) = self.process.take().filter(|_| self.apart) {
            leave(process);
        }
        if std::thread::panicking() {
            for log in std::fs::read_dir(self.folder.path()).unwrap().flatten() {
                if log
                    .path()
                    .extension()
                    .is_some_and(|extension| extension == "log")
                {
                    let text = std::fs::read_to_string(log.path()).unwrap_or_default();
                    let tail: Vec<_> = text.lines().rev().take(60).collect();
                    eprintln!("--- end of {}", log.path().display());
                    tail.iter().rev().for_each(|line| eprintln!("{line}"));
                }
            }
        }
    }
}

impl Said {
    /// The rest of the next line that starts with `name`.
    pub(crate) async fn value_of(&mut self, name: &str) -> String {
        let line = self.line(name).await;
        line.trim_start_matches(name).trim().to_owned()
    }

    /// The next line that starts with `start`.
    pub(crate) async fn line(&mut self, start: &str) -> String {
        let found = async {
            while let Some(line) = self.lines.next_line().await.unwrap() {
                if line.starts_with(start) {
                    return Some(line);
                }
            }
            None
        };
        let found = timeout(PATIENCE, found)
            .await
            .unwrap_or_else(|_| panic!("`{start}` never came"));
        found.unwrap_or_else(|| panic!("it ended before `{start}` came"))
    }

    /// Keeps reading, so that it can go on talking.
    pub(crate) fn into_child(self) -> Child {
        let Self { child, mut lines } = self;
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        child
    }
}

/// The program, without settings from outside.
pub(crate) fn orders(folder: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_orders"));
    command.current_dir(folder).kill_on_drop(true);
    for (name, _) in std::env::vars_os() {
        let name = name.to_string_lossy().into_owned();
        if ["ACKWELL_", "ORDERS_", "KAFKA_", "DATABASE_"]
            .iter()
            .any(|prefix| name.starts_with(prefix))
        {
            command.env_remove(name);
        }
    }
    for service in ["PAYMENT", "USER", "NOTIFICATION"] {
        command.env(format!("ORDERS_{service}_PORT"), "0");
    }
    if let Some(url) = database_url(folder) {
        command.env("DATABASE_URL", url);
    }
    command
}

/// Whether the tests run on a Kafka from outside, rather than on the embedded broker.
pub(crate) fn on_kafka() -> bool {
    std::env::var_os("KAFKA_BOOTSTRAP_SERVERS").is_some()
}

/// Lets a process leave its groups: those who come after it would wait for its session's end.
fn leave(mut process: Child) {
    let Some(id) = process.id() else { return };
    let _ = std::process::Command::new("kill")
        .args(["-TERM", &id.to_string()])
        .status();
    let deadline = Instant::now() + LEAVE_MAX;
    while matches!(process.try_wait(), Ok(None)) && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Whether the tests run on PostgreSQL, where nobody can reach into a service's files.
pub(crate) fn on_postgres() -> bool {
    server().is_some()
}

/// On the server that `DATABASE_URL` names, if it names one, the schemas of this folder's system.
fn database_url(folder: &Path) -> Option<String> {
    let server = server()?;
    let separator = if server.contains('?') { '&' } else { '?' };
    let folder = folder.as_os_str().as_encoded_bytes();
    let system = uuid::Uuid::new_v5(&uuid::Uuid::NAMESPACE_OID, folder).simple();
    Some(format!("{server}{separator}schema=test_{system}"))
}

fn server() -> Option<String> {
    let url = std::env::var("DATABASE_URL").ok()?;
    url.starts_with("postgres").then_some(url)
}

/// Starts a command whose standard output is listened to.
pub(crate) fn spawn(command: &mut Command, log: File) -> Said {
    let mut child = command.stdout(Stdio::piped()).stderr(log).spawn().unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    Said { child, lines }
}

/// SIGKILL; waits for the end.
pub(crate) async fn kill(mut process: Child) {
    process.start_kill().unwrap();
    timeout(PATIENCE, process.wait()).await.unwrap().unwrap();
}

/// SIGTERM.
pub(crate) async fn terminate(process: &Child) {
    let id = process.id().expect("it runs").to_string();
    assert!(
        Command::new("kill")
            .args(["-TERM", &id])
            .status()
            .await
            .unwrap()
            .success()
    );
}

/// Asks until there is an answer.
pub(crate) async fn until<T>(mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(Instant::now() < deadline, "waited for {PATIENCE:?} in vain");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

pub(crate) fn sample() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("data/sample.csv")
}

pub(crate) fn shown(output: &Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    format!(
        "{}\n{}{}",
        output.status,
        text(&output.stdout),
        text(&output.stderr)
    )
}
