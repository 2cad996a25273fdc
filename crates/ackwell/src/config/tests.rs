use std::path::PathBuf;
use std::time::Duration;

use super::*;

fn read(file: &str, variables: &[(&str, &str)]) -> Result<Config, Error> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ackwell.toml");
    std::fs::write(&path, file).unwrap();
    let mut settings = Sources::new()
        .with_environment(variables.iter().copied())
        .file(path)
        .read()?;
    let config = settings.config()?;
    settings.finish()?;
    Ok(config)
}

fn refusal(file: &str, variables: &[(&str, &str)]) -> String {
    read(file, variables)
        .expect_err("should be refused")
        .to_string()
}

#[test]
fn without_any_source_the_defaults_hold() {
    assert_eq!(read("", &[]), Ok(Config::default()));
}

#[test]
fn the_environment_wins_over_the_file_and_flags_over_both() {
    let file = "data = \"from-file\"\n[kafka]\nbootstrap_servers = \"file:1\"\n[database]\nurl = \"sqlite:file\"";
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.toml");
    std::fs::write(&path, file).unwrap();
    let sources = Sources::new().file(path).with_environment([
        ("KAFKA_BOOTSTRAP_SERVERS", "env:2"),
        ("ACKWELL_DATA", "from-env"),
        ("UNRELATED", "x"),
    ]);
    let mut settings = sources
        .set("kafka.bootstrap_servers", "flag:3", "--bootstrap-servers")
        .read()
        .unwrap();
    let config = settings.config().unwrap();
    settings.finish().unwrap();
    assert_eq!(config.kafka.bootstrap_servers, "flag:3");
    assert_eq!(config.data, PathBuf::from("from-env"));
    assert_eq!(config.database.url.as_deref(), Some("sqlite:file"));
}

#[test]
fn every_setting_can_be_given_by_a_variable() {
    let config = read(
        "",
        &[
            ("ACKWELL_PRODUCER__LINGER", "20ms"),
            ("ACKWELL_PRODUCER__QUEUE_RECORDS", "500"),
            ("ACKWELL_PRODUCER__COMPRESSION", "lz4"),
            ("ACKWELL_TOPICS__CREATE", "false"),
            ("ACKWELL_KAFKA__EXTRA__SECURITY_PROTOCOL", "sasl_plaintext"),
            ("DATABASE_URL", "sqlite:1"),
        ],
    )
    .unwrap();
    assert_eq!(config.producer.linger, Duration::from_millis(20));
    assert_eq!(config.producer.queue_records, 500);
    assert_eq!(config.producer.compression, Compression::Lz4);
    assert!(!config.topics.create);
    assert_eq!(config.kafka.extra["security.protocol"], "sasl_plaintext");
}

#[test]
fn client_properties_may_be_quoted_or_dotted_and_of_any_scalar() {
    let config = read("[kafka.extra]\nsocket.timeout.ms = 5000\n\"client.rack\" = \"a\"\n[kafka.consumer]\ncheck.crcs = true", &[]).unwrap();
    assert_eq!(config.kafka.extra["socket.timeout.ms"], "5000");
    assert_eq!(config.kafka.extra["client.rack"], "a");
    assert_eq!(config.kafka.consumer["check.crcs"], "true");
    let client = config.kafka.consumer("g");
    assert_eq!(client.get("socket.timeout.ms"), Some("5000"));
    assert_eq!(client.get("group.id"), Some("g"));
}

#[test]
fn what_the_promise_depends_on_is_set() {
    let config = Config::default();
    let consumer = config.kafka.consumer("g");
    for (name, value) in [
        ("enable.auto.commit", "false"),
        ("enable.auto.offset.store", "false"),
        ("auto.offset.reset", "earliest"),
        ("isolation.level", "read_committed"),
        ("fetch.queue.backoff.ms", "5"),
    ] {
        assert_eq!(consumer.get(name), Some(value), "{name}");
    }
    let producer = config.kafka.producer(&config.producer);
    for (name, value) in [
        ("acks", "all"),
        ("enable.idempotence", "true"),
        ("partitioner", "murmur2_random"),
    ] {
        assert_eq!(producer.get(name), Some(value), "{name}");
    }
}

#[test]
fn javas_word_for_no_reset_is_understood() {
    let file = "[kafka.consumer]\nauto.offset.reset = \"none\"";
    let config = read(file, &[]).unwrap();
    let consumer = config.kafka.consumer("g");
    assert_eq!(consumer.get("auto.offset.reset"), Some("error"));
    assert!(consumer.create_native_config().is_ok());
}

#[test]
fn who_reads_outside_a_group_takes_no_protocol_of_it() {
    let file =
        "[kafka.consumer]\ngroup.protocol = \"consumer\"\ngroup.remote.assignor = \"uniform\"";
    let config = read(file, &[]).unwrap();
    let reader = config.kafka.reader("g");
    assert_eq!(reader.get("group.protocol"), None);
    reader
        .create::<rdkafka::consumer::BaseConsumer>()
        .expect("the client takes it");
}

/// File, and what the refusal must say.
const REFUSED: &[(&str, &[&str])] = &[
    (
        "[kafka]\nbootstap_servers = \"x:1\"",
        &[
            "kafka.bootstap_servers",
            "line 2",
            "did you mean `bootstrap_servers`?",
        ],
    ),
    (
        "[kafak]\nx = 1",
        &["`kafak`", "unknown", "did you mean `kafka`?"],
    ),
    ("dta = \"x\"", &["`dta`", "line 1", "did you mean `data`?"]),
    ("kafka = 5", &["it is a section", "[kafka]"]),
    (
        "[producer]\ncompression = \"lz5\"",
        &[
            "producer.compression",
            "line 2",
            "`lz5` is not one of",
            "did you mean `lz4`?",
        ],
    ),
    ("[producer]\nlinger = 5", &["producer.linger", "line 2"]),
    (
        "[producer]\nlinger = \"5 parsecs\"",
        &["producer.linger", "not a duration", "250ms"],
    ),
    (
        "[producer]\nqueue_records = -1",
        &["producer.queue_records"],
    ),
    (
        "[producer]\nqueue_records = 0",
        &["producer.queue_records", "no room"],
    ),
    (
        "[producer]\nacks = \"1\"",
        &[
            "producer.acks",
            "line 2",
            "idempotence",
            "remove `producer.acks`",
        ],
    ),
    (
        "[producer]\nidempotence = false",
        &["producer.idempotence", "twice"],
    ),
    (
        "[producer]\ndelivery_timeout = \"1ms\"",
        &["producer.delivery_timeout", "producer.linger"],
    ),
    (
        "[kafka]\nbootstrap_servers = \"\"",
        &["kafka.bootstrap_servers", "line 2", "host:port"],
    ),
    (
        "[kafka]\nbootstrap_servers = \"localhost\"",
        &["`localhost` is not host:port"],
    ),
    (
        "[kafka]\nbootstrap_servers = \"a:1,b:99999\"",
        &["`b:99999` is not host:port"],
    ),
    (
        "[kafka.extra]\nenable.auto.commit = true",
        &[
            "kafka.extra.enable.auto.commit",
            "line 2",
            "lose records",
            "remove it",
        ],
    ),
    (
        "[kafka.consumer]\n\"enable.auto.offset.store\" = true",
        &["lose records"],
    ),
    (
        "[kafka.extra]\nacks = 1",
        &["kafka.extra.acks", "producer.acks"],
    ),
    (
        "[kafka.producer]\nenable.idempotence = false",
        &["producer.idempotence"],
    ),
    ("[kafka.producer]\npartitioner = \"random\"", &["order"]),
    ("[kafka.extra]\ngroup.id = \"g\"", &["Listener::group"]),
    (
        "[kafka.extra]\nbootstrap.servers = \"x:1\"",
        &["kafka.bootstrap_servers"],
    ),
    (
        "[kafka.consumer]\nmax.poll.records = 100",
        &["max.poll.records", "run_limit"],
    ),
    (
        "[kafka.producer]\nbuffer.memory = 1",
        &["queue.buffering.max.kbytes"],
    ),
    (
        "[kafka.consumer]\nfetch.max.wait.ms = 1",
        &["fetch.wait.max.ms"],
    ),
    (
        "[kafka.extra]\nsasl.jaas.config = \"x\"",
        &["sasl.username"],
    ),
    (
        "[kafka.consumer]\nmax.poll.interval.ms = 10000",
        &["max.poll.interval.ms", "session.timeout.ms"],
    ),
    (
        "[kafka.consumer]\nheartbeat.interval.ms = 40000",
        &["heartbeat.interval.ms", "third"],
    ),
    (
        "[kafka.consumer]\nsession.timout.ms = 9000",
        &[
            "kafka.consumer.session.timout.ms",
            "line 2",
            "no such property",
            "did you mean `session.timeout.ms`?",
        ],
    ),
    (
        "[kafka.extra]\nsocket.timeout.ms = \"soon\"",
        &["kafka.extra.socket.timeout.ms", "line 2", "Invalid value"],
    ),
    (
        "[kafka.consumer]\nbatch.size = 1000",
        &["batch.size", "no effect", "[kafka.producer]"],
    ),
    (
        "[kafka.producer]\nfetch.min.bytes = 1000",
        &["fetch.min.bytes", "no effect", "[kafka.consumer]"],
    ),
    (
        "[kafka.consumer]\nauto.commit.interval.ms = 1000",
        &["no effect", "ack_mode"],
    ),
    (
        "[kafka.producer]\ntransaction.timeout.ms = 1000",
        &["transactions.timeout"],
    ),
    (
        "[kafka.consumer]\npartition.assignment.strategy = \"org.apache.kafka.clients.consumer.RangeAssignor\"",
        &["no strategy", "write \"range\""],
    ),
    (
        "[kafka.consumer]\nstatistics.interval.ms = 0",
        &["line 2", "silent broker", "remove it"],
    ),
    (
        "[kafka.consumer]\ngroup.protocol = \"consumer\"\nsession.timeout.ms = 9000",
        &["line 3", "the broker decides", "remove it"],
    ),
    (
        "[producer]\nlinger = \"1h\"\ndelivery_timeout = \"2h\"",
        &["producer.linger", "line 2", "outside allowed range"],
    ),
    (
        "[topics]\nreplication_factor = 0",
        &["topics.replication_factor", "line 2", "0 replicas", "-1"],
    ),
    ("[stop]\ndrain = \"25h\"", &["stop.drain", "line 2", "24 h"]),
    ("[kafka.extra]\nx = [1]", &["must be a text, a number"]),
    (
        "[topics]\ncreate = \"perhaps\"",
        &["topics.create", "line 2"],
    ),
    ("[stop]\ndrain = \"10\"", &["stop.drain", "not a duration"]),
    ("this is not toml", &["not TOML", "line 1"]),
];

#[test]
fn every_wrong_setting_is_refused_with_its_place_and_a_mend() {
    for (file, wanted) in REFUSED {
        let said = refusal(file, &[]);
        for part in *wanted {
            assert!(
                said.contains(part),
                "for\n{file}\nit says\n{said}\nwithout `{part}`"
            );
        }
    }
}

#[test]
fn a_wrong_variable_is_named() {
    let said = refusal("", &[("ACKWELL_PRODUCER__LINGR", "5ms")]);
    assert!(
        said.contains("environment variable `ACKWELL_PRODUCER__LINGR`"),
        "{said}"
    );
    assert!(said.contains("did you mean `linger`?"), "{said}");
    let said = refusal("", &[("KAFKA_BOOTSTRAP_SERVERS", "nowhere")]);
    assert!(
        said.contains("environment variable `KAFKA_BOOTSTRAP_SERVERS`"),
        "{said}"
    );
}

#[test]
fn all_problems_of_a_kind_are_told_at_once() {
    let error = read(
        "[kafka.extra]\nacks = 1\ngroup.id = \"g\"\n[producer]\nqueue_records = 0",
        &[],
    )
    .unwrap_err();
    assert_eq!(error.problems().len(), 3, "{error}");
}

#[test]
fn a_named_file_must_exist() {
    let said = Sources::new()
        .with_environment([("ACKWELL_CONFIG", "/no/such.toml")])
        .read()
        .unwrap_err()
        .to_string();
    assert!(
        said.contains("/no/such.toml") && said.contains("can't be read"),
        "{said}"
    );
}

#[test]
fn acks_can_be_weakened_only_by_name() {
    let config = read("[producer]\nacks = \"1\"\nidempotence = false", &[]).unwrap();
    let client = config.kafka.producer(&config.producer);
    assert_eq!(
        (client.get("acks"), client.get("enable.idempotence")),
        (Some("1"), Some("false"))
    );
}

#[test]
fn a_service_adds_a_section_of_its_own() {
    #[derive(Debug, Default, PartialEq, serde::Deserialize)]
    #[serde(deny_unknown_fields, default)]
    struct Orders {
        flow: String,
        port: u16,
    }
    let sources = || Sources::new().variable("ORDERS_FLOW", "orders.flow");
    let variables = [("ORDERS_FLOW", "saga"), ("ACKWELL_ORDERS__PORT", "8080")];
    let mut settings = sources().with_environment(variables).read().unwrap();
    settings.config().unwrap();
    let orders: Orders = settings.section("orders").unwrap();
    settings.finish().unwrap();
    assert_eq!(
        orders,
        Orders {
            flow: "saga".to_owned(),
            port: 8080
        }
    );

    let mut settings = sources()
        .with_environment([("ACKWELL_ORDERS__PROT", "1")])
        .read()
        .unwrap();
    let said = settings
        .section::<Orders>("orders")
        .unwrap_err()
        .to_string();
    assert!(said.contains("did you mean `port`?"), "{said}");
}
