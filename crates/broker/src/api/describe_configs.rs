//! DescribeConfigs, of topics, of groups and of this broker.

use std::collections::HashSet;

use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::describe_configs_request::DescribeConfigsResource;
use kafka_protocol::messages::describe_configs_response::{
    DescribeConfigsResourceResult, DescribeConfigsResult, DescribeConfigsSynonym,
};
use kafka_protocol::messages::{DescribeConfigsRequest, DescribeConfigsResponse};
use kafka_protocol::protocol::StrBytes;

use super::Context;
use super::configs::{self, BROKER, Described, GROUP, TOPIC};
use super::context::NODE_ID;
use crate::Error;
use crate::access::Use;

pub(super) async fn handle(
    cx: &Context,
    request: DescribeConfigsRequest,
) -> DescribeConfigsResponse {
    let results = request.resources.iter().map(|resource| {
        let response = DescribeConfigsResult::default()
            .with_resource_type(resource.resource_type)
            .with_resource_name(resource.resource_name.clone());
        match find(cx, resource) {
            Ok(settings) => response.with_error_message(None).with_configs(chosen(
                resource,
                settings,
                request.include_synonyms,
            )),
            Err(error) => response
                .with_error_code(error.code().code())
                .with_error_message(Some(StrBytes::from_string(error.to_string()))),
        }
    });
    DescribeConfigsResponse::default().with_results(results.collect())
}

fn find(cx: &Context, resource: &DescribeConfigsResource) -> Result<Vec<Described>, Error> {
    let name = resource.resource_name.as_str();
    configs::right(cx, resource.resource_type, name, Use::Describe)?;
    match resource.resource_type {
        TOPIC => configs::existing(cx, name).map(|topic| configs::of_topic(&topic.config())),
        GROUP => {
            configs::named(name)?;
            let config = cx.groups().config_of(cx.store().group_config(name))?;
            Ok(configs::of_group(&config))
        }
        BROKER if name.is_empty() || name == NODE_ID.0.to_string() => Ok(configs::of_broker(cx)),
        BROKER => Err(Error::refused(
            ResponseError::InvalidRequest,
            format!("there is no broker {name}, only {}", NODE_ID.0),
        )),
        other => Err(Error::refused(
            ResponseError::InvalidRequest,
            format!("resource type {other} has no configs here"),
        )),
    }
}

fn chosen(
    resource: &DescribeConfigsResource,
    settings: Vec<Described>,
    synonyms: bool,
) -> Vec<DescribeConfigsResourceResult> {
    let keys: Option<HashSet<&str>> = resource
        .configuration_keys
        .as_ref()
        .map(|keys| keys.iter().map(StrBytes::as_str).collect());
    let read_only = resource.resource_type == BROKER;
    settings
        .into_iter()
        .filter(|setting| {
            keys.as_ref()
                .is_none_or(|keys| keys.contains(&*setting.name))
        })
        .map(|setting| describe(setting, read_only, synonyms))
        .collect()
}

fn describe(setting: Described, read_only: bool, synonyms: bool) -> DescribeConfigsResourceResult {
    let name = StrBytes::from_string(setting.name.into_owned());
    let value = StrBytes::from_string(setting.value);
    let own = || {
        DescribeConfigsSynonym::default()
            .with_name(name.clone())
            .with_value(Some(value.clone()))
            .with_source(setting.source)
    };
    DescribeConfigsResourceResult::default()
        .with_synonyms(if synonyms { vec![own()] } else { Vec::new() })
        .with_name(name)
        .with_value(Some(value))
        .with_read_only(read_only)
        .with_config_source(setting.source)
        .with_config_type(setting.kind as i8)
        .with_documentation(None)
}
