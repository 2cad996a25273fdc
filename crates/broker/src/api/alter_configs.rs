//! AlterConfigs: replaces all of a topic's own settings; what is not named is reset. Clients have
//! IncrementalAlterConfigs for the other way.

use std::collections::BTreeMap;

use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::alter_configs_request::AlterConfigsResource;
use kafka_protocol::messages::alter_configs_response::AlterConfigsResourceResponse;
use kafka_protocol::messages::{AlterConfigsRequest, AlterConfigsResponse};
use kafka_protocol::protocol::StrBytes;

use super::{Context, configs};
use crate::Error;

pub(super) async fn handle(cx: &Context, request: AlterConfigsRequest) -> AlterConfigsResponse {
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
    AlterConfigsResponse::default().with_responses(responses)
}

async fn alter(
    cx: &Context,
    resource: &AlterConfigsResource,
    validate_only: bool,
) -> Result<(), Error> {
    configs::alterable(cx, resource.resource_type, &resource.resource_name)?;
    let wanted = resource.configs.iter().map(|config| match &config.value {
        Some(value) => Ok((config.name.to_string(), value.to_string())),
        None => Err(Error::refused(
            ResponseError::InvalidConfig,
            format!("{} has no value", config.name),
        )),
    });
    let wanted: BTreeMap<_, _> = wanted.collect::<Result<_, _>>()?;
    configs::replace(cx, &resource.resource_name, wanted, validate_only).await
}
