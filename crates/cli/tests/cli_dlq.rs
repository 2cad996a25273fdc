//! `ackwell dlq` as a process: what people and scripts see.

#![allow(
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::{Header, Headers, Message, OwnedHeaders, OwnedMessage};
use rdkafka::producer::{FutureProducer, FutureRecord};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

const PATIENCE: Duration = Duration::from_secs(40);

/// A broker with a topic of this test's own and two dead letters on it.
struct Cluster {
    servers: String,
    topic: String,
    folder: tempfile::TempDir,
    broker: Option<Child>,
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if let Some(broker) = &mut self.broker {
            let _ = broker.kill();
            let _ = broker.wait();
        }
    }
}

impl Cluster {
    async fn start() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let (servers, broker) = match std::env::var("KAFKA_BOOTSTRAP_SERVERS") {
            Ok(servers) => (servers, None),
            Err(_) => {
                let (servers, broker) = broker(folder.path().to_path_buf());
                (servers, Some(broker))
            }
        };
        let unique = folder.path().file_name().expect("a name");
        let unique = unique
            .to_string_lossy()
            .replace(|c: char| !c.is_ascii_alphanumeric(), "");
        let cluster = Self {
            servers,
            topic: format!("t-{unique}"),
            folder,
            broker,
        };
        cluster.fill().await;
        cluster
    }

    fn client(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &self.servers);
        config
    }

    fn letters(&self) -> String {
        format!("{}.DLQ", self.topic)
    }

    async fn fill(&self) {
        let admin: AdminClient<DefaultClientContext> = self.client().create().expect("an admin");
        let letters = self.letters();
        for name in [&self.topic, &letters] {
            let new = NewTopic::new(name, 2, TopicReplication::Fixed(-1));
            let made = admin.create_topics([&new], &AdminOptions::new()).await;
            made.expect("an answer")[0].as_ref().expect("made");
        }
        let producer: FutureProducer = self.client().create().expect("a producer");
        for (offset, reason, class) in [
            ("7", "database is locked", "transient"),
            ("8", "no such product", "permanent"),
        ] {
            let headers = [
                ("eventType", "Ordered"),
                ("original.topic", &*self.topic),
                ("original.partition", "1"),
                ("original.offset", offset),
                ("original.timestamp", "1700000000000"),
                ("original.group", "g"),
                ("failure.reason", reason),
                ("failure.class", class),
                ("failure.timestamp", "2026-01-31T12:00:00Z"),
                ("failure.attempts", "3"),
                ("failure.first.timestamp", "2026-01-30T11:00:00Z"),
                ("failure.first.class", "transient"),
                ("failure.first.reason", "a timeout"),
            ];
            let headers = headers
                .iter()
                .fold(OwnedHeaders::new(), |all, (key, value)| {
                    all.insert(Header {
                        key,
                        value: Some(*value),
                    })
                });
            let record = FutureRecord::to(&letters)
                .partition(1)
                .key("secret-key")
                .payload("{\"secret\":1}")
                .headers(headers);
            producer.send(record, PATIENCE).await.expect("sent");
        }
    }

    /// Everything on partition 1 of a topic, once there are so many.
    fn read(&self, topic: &str, count: usize) -> Vec<OwnedMessage> {
        let consumer: BaseConsumer = self
            .client()
            .set("group.id", "reader")
            .create()
            .expect("a consumer");
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(topic, 1, Offset::Beginning)
            .expect("an offset");
        consumer.assign(&list).expect("assigned");
        let until = std::time::Instant::now() + PATIENCE;
        let mut found = Vec::new();
        while found.len() < count && std::time::Instant::now() < until {
            if let Some(Ok(message)) = consumer.poll(Duration::from_millis(100)) {
                found.push(message.detach());
            }
        }
        assert_eq!(found.len(), count, "records in {topic}");
        found
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ackwell"));
        command
            .arg("dlq")
            .args(arguments)
            .args(["--bootstrap-servers", &self.servers])
            .current_dir(self.folder.path())
            .stdin(Stdio::null())
            .env("USER", "ada");
        command
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().expect("it runs")
    }

    /// What it prints when all goes well.
    fn prints(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments:?}: {error}");
        String::from_utf8(output.stdout).expect("text")
    }

    /// What it says when it does not.
    fn refuses(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert!(!output.status.success(), "{arguments:?}");
        let message = String::from_utf8(output.stderr).expect("text");
        assert!(!message.contains("panicked"), "{message}");
        message
    }
}

fn broker(folder: PathBuf) -> (String, Child) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_ackwell"))
        .args(["broker", "--listen", "127.0.0.1:0"])
        .env("ACKWELL_DATA", folder)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("spawned");
    let mut line = String::new();
    BufReader::new(child.stdout.take().expect("piped"))
        .read_line(&mut line)
        .expect("a line");
    let address = line.trim().strip_prefix("broker listening on ");
    (address.expect("the address").to_owned(), child)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dead_letters_are_listed_searched_and_shown_and_only_show_says_what_they_hold() {
    let cluster = Cluster::start().await;
    let letters = cluster.letters();
    let list = cluster.prints(&["list", "--by-class"]);
    let mut list = list.lines().skip_while(|line| !line.starts_with(&letters));
    assert!(list.next().is_some_and(|line| line.ends_with(" 2")));
    assert!(list.next().is_some_and(|line| line.contains("permanent")));
    let list = cluster.prints(&["list", "--json"]);
    assert!(list.contains(&format!("\"topic\":\"{letters}\"")), "{list}");

    let found = cluster.prints(&["search", &letters]);
    assert_eq!(found.lines().count(), 2, "{found}");
    assert!(!found.contains("secret"), "{found}");
    assert!(found.contains(&format!("{}/1/7", cluster.topic)), "{found}");
    let found = cluster.prints(&["search", &letters, "--reason", "LOCKED", "--json"]);
    assert_eq!(found.lines().count(), 1, "{found}");
    assert!(found.contains("\"position\":\"1:0\""), "{found}");
    assert!(!found.contains("secret"), "{found}");
    for nothing in [["--class", "stop"], ["--until", "2026-01-01T00:00:00Z"]] {
        let found = cluster.prints(&[&["search", &*letters], &nothing[..]].concat());
        assert_eq!(found, "", "{nothing:?}");
    }
    let first = cluster.run(&["search", &letters, "--limit", "1"]);
    let more = String::from_utf8(first.stderr).expect("text");
    assert!(more.contains("--after 1:0"), "{more}");
    let second = cluster.prints(&["search", &letters, "--after", "1:0"]);
    assert!(second.starts_with("1:1"), "{second}");

    let shown = cluster.prints(&["show", &letters, "1:1"]);
    assert!(shown.contains("no such product"), "{shown}");
    assert!(shown.contains("secret-key"), "{shown}");
    let first = "2026-01-30T11:00:00Z, transient: a timeout";
    assert!(shown.contains(first), "{shown}");
    let value = cluster.prints(&["show", &letters, "1:1", "--value"]);
    assert_eq!(value, "{\"secret\":1}");
    let json = cluster.prints(&["show", &letters, "1:1", "--json"]);
    assert!(json.contains("\"key\":\"secret-key\""), "{json}");
    assert!(json.contains("\"reason\":\"a timeout\""), "{json}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dead_letters_are_replayed_edited_parked_and_it_is_told_who_did_it() {
    let cluster = Cluster::start().await;
    let (topic, letters) = (cluster.topic.clone(), cluster.letters());
    let dry = cluster.prints(&["replay", &letters, "--all", "--dry-run"]);
    assert!(dry.contains("2 would be replayed"), "{dry}");

    let value = cluster.folder.path().join("mended.json");
    std::fs::write(&value, "{\"mended\":1}").expect("written");
    let value = value.to_string_lossy();
    let replayed = cluster.prints(&[
        "replay",
        &letters,
        "1:0",
        "--set-value",
        &value,
        "--set-header",
        "by=hand",
        "--json",
    ]);
    assert!(replayed.contains("\"replayed\":1"), "{replayed}");
    let sent = tokio::task::block_in_place(|| cluster.read(&topic, 1));
    assert_eq!(sent[0].payload(), Some(&b"{\"mended\":1}"[..]));
    assert_eq!(sent[0].key(), Some(&b"secret-key"[..]));
    let headers = sent[0].headers().expect("headers");
    assert!(headers.iter().any(|header| header.key == "by"));

    let rest = cluster.prints(&["replay", &letters, "--all", "--yes"]);
    assert!(rest.contains("1 replayed"), "{rest}");
    assert!(rest.contains("1 left alone"), "{rest}");
    let parked = cluster.prints(&["park", &letters, "1:1", "--again", "--by", "grace"]);
    assert!(parked.contains("1 parked"), "{parked}");
    let history = cluster.prints(&["history", &letters]);
    let lines: Vec<_> = history.lines().collect();
    assert_eq!(lines.len(), 3, "{history}");
    assert!(lines[0].contains("ada replayed 1:0"), "{history}");
    assert!(lines[0].contains("edited: value, header by"), "{history}");
    assert!(lines[2].contains("grace parked 1:1"), "{history}");
    let found = cluster.prints(&["search", &letters]);
    assert!(
        found.contains("[replayed]") && found.contains("[parked]"),
        "{found}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_editor_is_asked_for_the_value() {
    let cluster = Cluster::start().await;
    let letters = cluster.letters();
    let edit = |editor: &str| {
        let mut command = cluster.command(&["replay", &letters, "1:0", "--edit"]);
        command.env_remove("VISUAL").env("EDITOR", editor);
        command.output().expect("it runs")
    };
    let unchanged = String::from_utf8(edit("true").stderr).expect("text");
    assert!(unchanged.contains("not changed"), "{unchanged}");
    let failed = String::from_utf8(edit("false").stderr).expect("text");
    assert!(failed.contains("nothing was replayed"), "{failed}");
    assert!(edit("sed -i s/secret/mended/").status.success());
    let sent = tokio::task::block_in_place(|| cluster.read(&cluster.topic, 1));
    assert_eq!(sent[0].payload(), Some(&b"{\"mended\":1}"[..]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_asked_wrongly_is_answered_with_what_to_do() {
    let cluster = Cluster::start().await;
    let letters = cluster.letters();
    let misnamed = format!("{}.DQL", cluster.topic);
    for (arguments, mend) in [
        (&["replay", &letters][..], "--all"),
        (&["replay", &letters, "--all"], "--yes"),
        (
            &["replay", &letters, "--all", "--set-key", "k"],
            "one dead letter",
        ),
        (
            &["replay", &letters, "--all", "--edit"],
            "--edit is for one",
        ),
        (&["replay", &letters, "0"], "0:42"),
        (&["search", &letters, "--since", "soon"], "2h"),
        (&["search", &misnamed], &letters),
        (&["show", &letters, "1:99"], "no dead letter at 1:99"),
        (&["show", &letters, "0:0"], "no dead letter at 0:0"),
    ] {
        let message = cluster.refuses(arguments);
        assert!(message.contains(mend), "{arguments:?}: {message}");
    }
}

#[test]
fn a_broker_that_is_away_is_one_clear_message() {
    let output = Command::new(env!("CARGO_BIN_EXE_ackwell"))
        .args(["dlq", "list", "--bootstrap-servers", "127.0.0.1:1"])
        .output()
        .expect("it runs");
    assert_eq!(output.status.code(), Some(1));
    let message = String::from_utf8(output.stderr).expect("text");
    assert!(message.contains("127.0.0.1:1"), "{message}");
    assert!(
        message.contains("is the broker running there?"),
        "{message}"
    );
}
