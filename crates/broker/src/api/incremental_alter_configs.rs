//! IncrementalAlterConfigs (KIP-339): changes single settings of a topic or a group.

use std::collections::BTreeMap;

use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::incremental_alter_configs_request::{
    AlterConfigsResource, AlterableConfig,
};
use kafka_protocol::messages::incremental_alter_configs_response::AlterConfigsResourceResponse;
use kafka_protocol::messages::{IncrementalAlterConfigsRequest, IncrementalAlterConfigsResponse};

use super::configs::{GROUP, Outcome};
use super::repeated::take_repeated;
use super::{Context, configs};
use crate::Error;

const SET: i8 = 0;
const DELETE: i8 = 1;
const APPEND: i8 = 2;
const SUBTRACT: i8 = 3;

pub(super) async fn handle(
    cx: &Context,
    mut request: IncrementalAlterConfigsRequest,
) -> IncrementalAlterConfigsResponse {
    let repeated = take_repeated(&mut request.resources, |resource| {
        (resource.resource_type, resource.resource_name.clone())
    });
    let mut outcomes = Vec::with_capacity(request.resources.len() + repeated.len());
    for resource in request.resources {
        let outcome = alter(cx, &resource, request.validate_only).await;
        outcomes.push(Outcome::new(
            resource.resource_type,
            resource.resource_name,
            outcome,
        ));
    }
    outcomes.extend(repeated.into_iter().map(Outcome::repeated));
    let responses = outcomes.into_iter().map(|outcome| {
        AlterConfigsResourceResponse::default()
            .with_resource_type(outcome.kind)
            .with_resource_name(outcome.name)
            .with_error_code(outcome.code)
            .with_error_message(outcome.message)
    });
    IncrementalAlterConfigsResponse::default().with_responses(responses.collect())
}

async fn alter(
    cx: &Context,
    resource: &AlterConfigsResource,
    validate_only: bool,
) -> Result<(), Error> {
    let (kind, name) = (resource.resource_type, &resource.resource_name);
    configs::alterable(cx, kind, name)?;
    check(&resource.configs)?;
    let (mut configs, in_force) = match kind {
        GROUP => (cx.store().group_config(name), BTreeMap::new()),
        _ => {
            let topic = configs::existing(cx, name)?;
            (topic.configs(), topic.config().values().clone())
        }
    };
    for change in &resource.configs {
        apply(&mut configs, &in_force, change)?;
    }
    configs::replace(cx, kind, name, configs, validate_only).await
}

/// Before anything is applied: which of two changes of a key counts is not for the broker to choose.
fn check(changes: &[AlterableConfig]) -> Result<(), Error> {
    configs::check_keys(changes.iter().map(|change| change.name.as_str()))?;
    let without = changes
        .iter()
        .find(|change| change.config_operation != DELETE && change.value.is_none());
    without.map_or(Ok(()), |change| Err(configs::without_value(&change.name)))
}

fn apply(
    configs: &mut BTreeMap<String, String>,
    in_force: &BTreeMap<&'static str, String>,
    change: &AlterableConfig,
) -> Result<(), Error> {
    let name = change.name.as_str();
    if change.config_operation == DELETE {
        configs.remove(name);
        return Ok(());
    }
    let value = change
        .value
        .as_deref()
        .ok_or_else(|| configs::without_value(name))?;
    let before = || configs.get(name).or_else(|| in_force.get(name));
    let after = match change.config_operation {
        SET => value.to_owned(),
        APPEND | SUBTRACT if name != "cleanup.policy" => {
            return Err(Error::refused(
                ResponseError::InvalidConfig,
                format!("{name} is not a list; set it instead"),
            ));
        }
        APPEND => appended(before().map_or("", String::as_str), value),
        SUBTRACT => subtracted(before().map_or("", String::as_str), value),
        other => {
            return Err(Error::refused(
                ResponseError::InvalidRequest,
                format!("unknown operation {other} on {name}"),
            ));
        }
    };
    configs.insert(name.to_owned(), after);
    Ok(())
}

fn appended(list: &str, added: &str) -> String {
    let mut items = items(list);
    for item in self::items(added) {
        if !items.contains(&item) {
            items.push(item);
        }
    }
    items.join(",")
}

fn subtracted(list: &str, removed: &str) -> String {
    let removed = items(removed);
    let mut items = items(list);
    items.retain(|item| !removed.contains(item));
    items.join(",")
}

fn items(list: &str) -> Vec<&str> {
    list.split(',')
        .map(str::trim)
        .filter(|item| !item.is_empty())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn appending_to_a_list_keeps_what_is_there_and_repeats_nothing() {
        assert_eq!(appended("delete", "compact,delete"), "delete,compact");
        assert_eq!(appended("", "compact"), "compact");
    }

    #[test]
    fn subtracting_from_a_list_ignores_what_is_not_there() {
        assert_eq!(subtracted("delete, compact", "compact,other"), "delete");
    }
}
