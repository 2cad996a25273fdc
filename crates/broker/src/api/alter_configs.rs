//! AlterConfigs: replaces all own settings of a topic or a group; what is not named is reset. Clients have
//! IncrementalAlterConfigs for the other way.

use std::collections::BTreeMap;

use kafka_protocol::messages::alter_configs_request::AlterConfigsResource;
use kafka_protocol::messages::alter_configs_response::AlterConfigsResourceResponse;
use kafka_protocol::messages::{AlterConfigsRequest, AlterConfigsResponse};

use super::configs::Outcome;
use super::repeated::take_repeated;
use super::{Context, configs};
use crate::Error;

pub(super) async fn handle(cx: &Context, mut request: AlterConfigsRequest) -> AlterConfigsResponse {
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
    AlterConfigsResponse::default().with_responses(responses.collect())
}

async fn alter(
    cx: &Context,
    resource: &AlterConfigsResource,
    validate_only: bool,
) -> Result<(), Error> {
    configs::alterable(cx, resource.resource_type, &resource.resource_name)?;
    configs::check_keys(resource.configs.iter().map(|config| config.name.as_str()))?;
    let wanted = resource.configs.iter().map(|config| match &config.value {
        Some(value) => Ok((config.name.to_string(), value.to_string())),
        None => Err(configs::without_value(&config.name)),
    });
    let wanted: BTreeMap<_, _> = wanted.collect::<Result<_, _>>()?;
    let (kind, name) = (resource.resource_type, &resource.resource_name);
    configs::replace(cx, kind, name, wanted, validate_only).await
}
