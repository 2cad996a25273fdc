//! What `deploy/compose.yaml` says is what the programs read: a variable that nobody reads would be a
//! setting without effect, and no error would say so.

use std::collections::BTreeMap;

use ackwell::config::Sources;
use clap::Parser;

use crate::cli::Cli;
use crate::config::{Orders, Settings, VARIABLES};

const COMPOSE: &str = include_str!("../../deploy/compose.yaml");

/// What the framework reads beside its `ACKWELL_` variables, which it checks itself.
const FRAMEWORK: [&str; 3] = ["KAFKA_BOOTSTRAP_SERVERS", "DATABASE_URL", "ACKWELL_DATA"];

const SERVICES: [&str; 5] = ["order", "product", "payment", "user", "notification"];

const PASSWORD: &str = "${POSTGRES_PASSWORD:?write it to deploy/.env}";

const BROKERS: [&str; 3] = ["kafka-1", "kafka-2", "kafka-3"];

const DOCKERFILE: &str = include_str!("../../deploy/Dockerfile");

const MANIFEST: &str = include_str!("../../Cargo.toml");

/// The names at the left of a section.
fn names(section: &str) -> Vec<&'static str> {
    let (_, lines) = COMPOSE.split_once(&format!("\n{section}:\n")).unwrap();
    let lines = lines.lines();
    let inside = lines.take_while(|line| line.is_empty() || line.starts_with(' '));
    let name = |line: &'static str| line.strip_prefix("  ").filter(|it| !it.starts_with(' '));
    let names = inside
        .filter_map(name)
        .filter(|line| !line.starts_with('#'));
    names.map(|line| line.trim_end_matches(':')).collect()
}

/// The version in an image's tag, up to the first dot.
fn major(image: &str) -> u32 {
    let (_, tag) = image.split_once(':').unwrap();
    let digits: String = tag.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().unwrap()
}

/// The lines of a service, without its name.
fn service(name: &str) -> Vec<&'static str> {
    let (_, services) = COMPOSE.split_once("\nservices:\n").unwrap();
    let mut lines = services.lines();
    lines.by_ref().find(|line| *line == format!("  {name}:"));
    let inside = |line: &&str| line.is_empty() || line.starts_with("    ");
    let lines: Vec<_> = lines.take_while(inside).collect();
    assert!(!lines.is_empty(), "{name} is no service");
    lines
}

/// The value of a key of a service.
fn value(service: &[&'static str], key: &str) -> &'static str {
    let line = service
        .iter()
        .find_map(|line| line.trim().strip_prefix(key)?.strip_prefix(':'));
    line.unwrap_or_else(|| panic!("{key} is missing")).trim()
}

fn environment(service: &[&'static str]) -> BTreeMap<&'static str, String> {
    let lines = service
        .iter()
        .skip_while(|line| **line != "    environment:");
    let lines = lines.skip(1).take_while(|line| line.starts_with("      "));
    let variable = |line: &&'static str| {
        let (name, value) = line.trim().split_once(": ").unwrap();
        (name, value.trim_matches('"').replace(PASSWORD, "secret"))
    };
    lines.map(variable).collect()
}

fn settings(environment: &BTreeMap<&'static str, String>) -> Settings {
    let pairs = environment.iter();
    let sources =
        Sources::new().with_environment(pairs.map(|(name, value)| (*name, value.as_str())));
    Settings::from_sources(sources, vec![]).unwrap()
}

#[test]
fn every_variable_of_a_service_is_one_that_it_reads() {
    for name in SERVICES {
        let environment = environment(&service(name));
        assert!(environment.len() >= 5, "{environment:?}");
        for variable in environment.keys() {
            let ours = VARIABLES.iter().any(|(ours, _)| ours == variable);
            let framework = FRAMEWORK.contains(variable) || variable.starts_with("ACKWELL_");
            assert!(ours || framework, "{name} does not read {variable}");
        }
        let settings = settings(&environment);
        assert!(settings.kafka_named);
        assert_eq!(
            settings.database_url(name),
            format!("postgres://orders:secret@postgres:5432/orders?schema={name}_service")
        );
        settings.refuse_one_database().unwrap();
    }
}

#[test]
fn every_command_is_one_that_the_program_knows() {
    for name in SERVICES {
        let command = value(&service(name), "command");
        let words = command.trim_matches(['[', ']']).split(", ");
        let parsed = Cli::try_parse_from(["orders"].into_iter().chain(words));
        assert!(parsed.is_ok(), "{command}");
        assert_eq!(command, format!("[serve, {name}]"));
    }
}

#[test]
fn addresses_ports_and_passwords_fit_together() {
    let brokers: Vec<_> = BROKERS
        .map(|name| {
            let listener = value(&service(name), "KAFKA_ADVERTISED_LISTENERS");
            listener.strip_prefix("PLAINTEXT://").unwrap()
        })
        .to_vec();
    for name in SERVICES {
        let service = service(name);
        let named = value(&service, "KAFKA_BOOTSTRAP_SERVERS");
        assert_eq!(named.split(',').collect::<Vec<_>>(), brokers);
    }
    let postgres = environment(&service("postgres"));
    assert_eq!(postgres["POSTGRES_USER"], "orders");
    assert_eq!(postgres["POSTGRES_PASSWORD"], "secret");
    assert_eq!(postgres["POSTGRES_DB"], "orders");
    for (at, name) in SERVICES.into_iter().enumerate() {
        let service = service(name);
        let Orders {
            host,
            order_port,
            product_port,
            payment_port,
            user_port,
            notification_port,
            ..
        } = settings(&environment(&service)).orders;
        let ports = [
            order_port,
            product_port,
            payment_port,
            user_port,
            notification_port,
        ];
        let expected = format!("[\"127.0.0.1:{0}:{0}\"]", ports[at]);
        assert_eq!((value(&service, "ports"), &*host), (&*expected, "0.0.0.0"));
    }
}

#[test]
fn every_service_is_one_of_these_and_its_volume_is_declared() {
    let known: Vec<_> = (BROKERS.into_iter())
        .chain(["postgres"])
        .chain(SERVICES)
        .collect();
    assert_eq!(names("services"), known);
    let volumes = names("volumes");
    for (name, path) in (BROKERS
        .map(|name| (name, "/var/lib/kafka/data"))
        .into_iter())
    .chain([("postgres", "/var/lib/postgresql/data")])
    {
        assert!(volumes.contains(&name), "{name} in {volumes:?}");
        let mount = value(&service(name), "volumes");
        assert_eq!(mount, format!("[{name}:{path}]"));
    }
    assert_eq!(volumes.len(), BROKERS.len() + 1, "{volumes:?}");
    assert!(COMPOSE.contains("\n  KAFKA_LOG_DIRS: /var/lib/kafka/data\n"));
}

/// KIP-848 groups need Apache Kafka 4, `ackwell-sql` needs PostgreSQL 13, and the code its Rust.
#[test]
fn images_are_named_with_versions_that_the_code_can_use() {
    let kafka = COMPOSE
        .lines()
        .find_map(|line| line.strip_prefix("  image: apache/"));
    assert!(major(kafka.unwrap()) >= 4);
    assert!(major(value(&service("postgres"), "image")) >= 13);
    let needed = MANIFEST
        .lines()
        .find_map(|line| line.strip_prefix("rust-version = "));
    let needed = needed.unwrap().trim_matches('"');
    assert!(DOCKERFILE.contains(&format!("FROM rust:{needed}-")));
    assert!(DOCKERFILE.contains("--locked --bin orders\n"));
    assert!(DOCKERFILE.contains("ENTRYPOINT [\"orders\"]"));
}

#[test]
fn services_wait_for_a_healthy_database_and_are_given_time_to_stop() {
    let postgres = service("postgres");
    let environment = environment(&postgres);
    let (user, database) = (&environment["POSTGRES_USER"], &environment["POSTGRES_DB"]);
    let probe = format!("[CMD, pg_isready, --username={user}, --dbname={database}]");
    assert_eq!(value(&postgres, "test"), probe);
    let waits = "\n    postgres:\n      condition: service_healthy\n";
    assert!(COMPOSE.contains(waits));
    for broker in BROKERS {
        let waits = format!("\n    {broker}:\n      condition: service_started\n");
        assert!(COMPOSE.contains(&waits), "{broker}");
    }
    let grace = COMPOSE
        .lines()
        .find_map(|line| line.strip_prefix("  stop_grace_period: "));
    let grace: u64 = grace.unwrap().trim_end_matches('s').parse().unwrap();
    let stop = ackwell::Config::default().stop;
    assert!(grace > stop.drain.as_secs(), "{grace} s, {stop:?}");
}

#[test]
fn the_controllers_are_the_brokers_by_their_numbers() {
    let voters = BROKERS.map(|name| {
        let node = value(&service(name), "KAFKA_NODE_ID");
        assert_eq!(name, format!("kafka-{node}"));
        format!("{node}@{name}:9093")
    });
    let line = format!("\n  KAFKA_CONTROLLER_QUORUM_VOTERS: {}\n", voters.join(","));
    assert!(COMPOSE.contains(&line), "{line}");
    for setting in [
        "KAFKA_PROCESS_ROLES: broker,controller",
        "KAFKA_LISTENERS: PLAINTEXT://:9092,CONTROLLER://:9093",
        "KAFKA_CONTROLLER_LISTENER_NAMES: CONTROLLER",
        // The services declare their topics.
        "KAFKA_AUTO_CREATE_TOPICS_ENABLE: \"false\"",
    ] {
        assert!(COMPOSE.contains(&format!("\n  {setting}\n")), "{setting}");
    }
}

#[test]
fn one_broker_may_be_away_without_a_record_being_lost_or_refused() {
    let brokers = 3;
    let number = |key: &str| {
        let line = COMPOSE
            .lines()
            .find_map(|line| line.trim().strip_prefix(key));
        line.unwrap()
            .trim_start_matches(':')
            .trim()
            .parse::<i32>()
            .unwrap()
    };
    for (replicas, in_sync) in [
        (
            "KAFKA_DEFAULT_REPLICATION_FACTOR",
            "KAFKA_MIN_INSYNC_REPLICAS",
        ),
        (
            "KAFKA_TRANSACTION_STATE_LOG_REPLICATION_FACTOR",
            "KAFKA_TRANSACTION_STATE_LOG_MIN_ISR",
        ),
    ] {
        assert_eq!((number(replicas), number(in_sync)), (brokers, brokers - 1));
    }
    assert_eq!(number("KAFKA_OFFSETS_TOPIC_REPLICATION_FACTOR"), brokers);
}
