//! librdkafka's properties as users write them: read leniently, refused strictly.

use std::collections::BTreeMap;
use std::fmt;

use figment::value::{Dict, Value};
use serde::{Deserialize, Deserializer, de};

use super::error::Problem;
use super::java;
use super::kafka::{CONSUMER_FIXED, PRODUCER_FIXED};

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
        _ => None,
    }
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
