//! IncrementalAlterConfigs (KIP-339): changes single settings of a topic.

use std::collections::BTreeMap;

use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::incremental_alter_configs_request::{
    AlterConfigsResource, AlterableConfig,
};
use kafka_protocol::messages::incremental_alter_configs_response::AlterConfigsResourceResponse;
use kafka_protocol::messages::{IncrementalAlterConfigsRequest, IncrementalAlterConfigsResponse};
use kafka_protocol::protocol::StrBytes;

use super::{Context, configs};
use crate::Error;

const SET: i8 = 0;
const DELETE: i8 = 1;
const APPEND: i8 = 2;
const SUBTRACT: i8 = 3;

pub(super) async fn handle(
    cx: &Context,
    request: IncrementalAlterConfigsRequest,
) -> IncrementalAlterConfigsResponse {
    let mut responses = Vec::with_capacity(request.resources.len());
    for resource in request.resources {
        let response = AlterConfigsResourceResponse::default()
            .with_resource_type(resource.resource_type)
            .with_resource_name(resource.resource_name.clone());
        responses.push(match alter(cx, &resource, request.validate_only).await {
            Ok(()) => response.with_error_message(None),
            Err(error) => response
                .with_error_code(error.code().code())
                .with_error_message(Some(StrBytes::from_string(error.to_string()))),
        });
    }
    IncrementalAlterConfigsResponse::default().with_responses(responses)
}

async fn alter(
    cx: &Context,
    resource: &AlterConfigsResource,
    validate_only: bool,
) -> Result<(), Error> {
    let name = resource.resource_name.as_str();
    configs::alterable(cx, resource.resource_type, name)?;
    let Some(topic) = cx.store().topic(name) else {
        return Err(Error::refused(
            ResponseError::UnknownTopicOrPartition,
            format!("topic {name} does not exist"),
        ));
    };
    let mut configs = topic.configs();
    for change in &resource.configs {
        apply(&mut configs, topic.config().values(), change)?;
    }
    configs::replace(cx, name, configs, validate_only).await
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
    let value = change.value.as_deref().ok_or_else(|| {
        Error::refused(ResponseError::InvalidConfig, format!("{name} has no value"))
    })?;
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
