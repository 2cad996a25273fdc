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
    let brokers: Vec<_> = ["kafka-1", "kafka-2", "kafka-3"]
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
