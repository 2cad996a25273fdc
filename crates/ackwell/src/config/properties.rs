//! librdkafka's properties as users write them: read leniently, refused strictly.

use std::collections::BTreeMap;
use std::fmt;

use figment::value::{Dict, Value};
use rdkafka::ClientConfig;
use rdkafka::error::KafkaError;
use rdkafka::types::RDKafkaConfRes;
use serde::{Deserialize, Deserializer, de};

use super::error::Problem;
use super::java;
use super::kafka::{CONSUMER_FIXED, PRODUCER_FIXED};
use super::settings::nearest;

/// Those that a text can set, each behind the clients that it means: consumers (C), producers (P)
/// or both (*).
const PROPERTIES: &str = include_str!("librdkafka.txt");

/// The strategies by which librdkafka deals out partitions.
const STRATEGIES: [&str; 3] = ["cooperative-sticky", "range", "roundrobin"];

/// Says why a librdkafka property can't be set freely, if it can't.
pub(super) fn refuse(section: &str, name: &str, value: &str) -> Option<Problem> {
    let problem =
        |what: &str, mend: &str| Some(Problem::new(format!("{section}.{name}"), what).mend(mend));
    if let Some(answer) = java::instead_of(name) {
        return problem(
            "the Java client's name, which librdkafka does not know",
            answer,
        );
    }
    let fixed = CONSUMER_FIXED
        .iter()
        .chain(&PRODUCER_FIXED)
        .find(|(fixed, _)| *fixed == name);
    match (name, fixed) {
        (_, Some((_, wanted))) if *wanted == value => None,
        ("enable.auto.commit" | "enable.auto.offset.store", _) => problem(
            "offsets would be committed before the work is done, and a crash would lose records",
            "remove it; the listener commits what is settled, see `ack_mode`",
        ),
        ("acks" | "request.required.acks" | "enable.idempotence", _) => problem(
            "it weakens what an acknowledged record means",
            "remove it, or accept loss by name with `producer.acks` and `producer.idempotence`",
        ),
        ("partitioner", _) => problem(
            "keys would go to other partitions than Java's producers choose, and lose their order",
            "remove it; send to an explicit partition where one is needed",
        ),
        ("group.id", _) => problem("each listener has its own group", "use `Listener::group`"),
        ("bootstrap.servers" | "metadata.broker.list", _) => {
            problem("it has its own setting", "use `kafka.bootstrap_servers`")
        }
        ("client.id", _) => problem("it has its own setting", "use `kafka.client_id`"),
        ("linger.ms" | "queue.buffering.max.ms", _) => {
            problem("it has its own setting", "use `producer.linger`")
        }
        ("compression.type" | "compression.codec", _) => {
            problem("it has its own setting", "use `producer.compression`")
        }
        ("message.timeout.ms" | "delivery.timeout.ms", _) => {
            problem("it has its own setting", "use `producer.delivery_timeout`")
        }
        ("queue.buffering.max.messages", _) => {
            problem("it has its own setting", "use `producer.queue_records`")
        }
        ("queue.buffering.max.kbytes", _) => {
            problem("it has its own setting", "use `producer.queue_kbytes`")
        }
        ("transactional.id", _) => problem(
            "one id on every instance would fence them all but one",
            "remove it; each instance is given ids of its own, see `[transactions]`",
        ),
        ("auto.commit.interval.ms", _) => problem(
            "nothing is committed in the background, so it would have no effect",
            "remove it; when positions are committed is said by `.ack_mode(..)`",
        ),
        ("transaction.timeout.ms", _) => {
            problem("it has its own setting", "use `transactions.timeout`")
        }
        ("partition.assignment.strategy", _) => strategy(section, value),
        _ => misplaced(section, name).or_else(|| refused_by_client(section, name, value)),
    }
}

/// librdkafka would refuse it only when a listener starts, and Java's class names with it.
fn strategy(section: &str, value: &str) -> Option<Problem> {
    let is_known = |word: &str| STRATEGIES.contains(&word.trim());
    let unknown = value.split(',').find(|word| !is_known(word))?.trim();
    let meant = match unknown.rsplit('.').next().unwrap_or(unknown) {
        "RangeAssignor" => "range",
        "RoundRobinAssignor" => "roundrobin",
        // Its eager form is not to be had; the other one interrupts less.
        _ => "cooperative-sticky",
    };
    let key = format!("{section}.partition.assignment.strategy");
    let what = format!("librdkafka knows no strategy `{unknown}`");
    let mend = format!("write \"{meant}\", or choose by `.assignment(..)`");
    Some(Problem::new(key, what).mend(mend))
}

/// A client that it does not mean ignores it.
fn misplaced(section: &str, name: &str) -> Option<Problem> {
    let (others, place) = match section {
        "kafka.consumer" => ("P", "[kafka.producer]"),
        "kafka.producer" => ("C", "[kafka.consumer]"),
        _ => return None,
    };
    let mut lines = PROPERTIES.lines().filter_map(|line| line.split_once(' '));
    lines.find(|line| *line == (others, name))?;
    let what = "a client of the other kind has it, so it would have no effect";
    Some(Problem::new(format!("{section}.{name}"), what).mend(format!("move it to `{place}`")))
}

/// What librdkafka itself says of a name and a value.
pub(super) fn refused_by_client(section: &str, name: &str, value: &str) -> Option<Problem> {
    let mut client = ClientConfig::new();
    client.set(name, java::in_librdkafka(name, value));
    let error = client.create_native_config().err()?;
    let key = format!("{section}.{name}");
    let KafkaError::ClientConfig(result, said, ..) = error else {
        return Some(Problem::new(key, error.to_string()));
    };
    if result != RDKafkaConfRes::RD_KAFKA_CONF_UNKNOWN {
        let mend = match said.contains("OpenSSL not available") {
            true => "build with the crate's feature `tls`",
            false => "correct its value",
        };
        return Some(Problem::new(key, said).mend(mend));
    }
    let names = PROPERTIES.lines().filter_map(|line| line.split_once(' '));
    let mend = match nearest(name, names.map(|(_, name)| name)) {
        Some(near) => format!("did you mean `{near}`?"),
        None => "use a name of librdkafka's CONFIGURATION.md".to_owned(),
    };
    Some(Problem::new(key, "librdkafka has no such property").mend(mend))
}

/// Reads librdkafka properties: quoted names, or TOML's dotted keys, which nest; values of any scalar.
pub(super) fn deserialize<'de, D: Deserializer<'de>>(
    input: D,
) -> Result<BTreeMap<String, String>, D::Error> {
    let dict = Dict::deserialize(input)?;
    let mut flat = BTreeMap::new();
    flatten("", &dict, &mut flat).map_err(de::Error::custom)?;
    Ok(flat)
}

fn flatten(
    prefix: &str,
    dict: &Dict,
    flat: &mut BTreeMap<String, String>,
) -> Result<(), NotScalar> {
    for (name, value) in dict {
        let name = if prefix.is_empty() {
            name.clone()
        } else {
            format!("{prefix}.{name}")
        };
        let text = match value {
            Value::Dict(_, inner) => {
                flatten(&name, inner, flat)?;
                continue;
            }
            Value::String(_, text) => text.clone(),
            Value::Bool(_, flag) => flag.to_string(),
            Value::Num(_, number) => number_text(*number).ok_or(NotScalar(name.clone()))?,
            _ => return Err(NotScalar(name)),
        };
        flat.insert(name, text);
    }
    Ok(())
}

fn number_text(number: figment::value::Num) -> Option<String> {
    let integer = number
        .to_i128()
        .or_else(|| number.to_u128().and_then(|n| i128::try_from(n).ok()));
    integer
        .map(|n| n.to_string())
        .or_else(|| number.to_f64().map(|n| n.to_string()))
}

struct NotScalar(String);

impl fmt::Display for NotScalar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` must be a text, a number or true or false", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_property_in_the_list_is_one() {
        for (clients, name) in PROPERTIES.lines().filter_map(|line| line.split_once(' ')) {
            assert!(["C", "P", "*"].contains(&clients), "{name}");
            let refused = refused_by_client("kafka.extra", name, "");
            let said = refused.map_or_else(String::new, |problem| problem.to_string());
            assert!(!said.contains("no such property"), "{said}");
        }
    }
}
